"""Running a net: layer by layer, as one module, for inference, in 16 bits; and the rewrites of its list of calls."""
