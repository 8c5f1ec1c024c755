"""The checks of `caffe doctor`, one per file. All modules of this folder are imported automatically."""
