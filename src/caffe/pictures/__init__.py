"""Pictures of nets, training curves and image grids. `caffe.draw` and `caffe.plot` are the entry points."""
