"""Pictures: nets, training curves, many small images. `caffe.draw` and `caffe.plot` are their entry points."""
