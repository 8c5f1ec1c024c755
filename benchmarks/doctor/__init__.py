"""How often `caffe doctor` is right: planted faults it must find, healthy runs it must leave alone."""
