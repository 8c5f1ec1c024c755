"""The monitor: a web page with the curves and pictures of training runs. See `caffe monitor`."""
