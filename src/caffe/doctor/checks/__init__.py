"""The checks of `caffe doctor`, one a file. A module here needs no other mention."""
