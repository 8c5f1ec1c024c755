"""Measures how often `caffe doctor` is right: it must find planted faults, and report none in healthy runs."""
