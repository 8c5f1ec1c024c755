"""Running a net layer by layer, or as one module that combines a plan, an engine and the filling of blobs."""
