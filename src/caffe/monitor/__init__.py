"""The monitor: curves and pictures of training runs as a page in the browser. See `caffe monitor`."""
