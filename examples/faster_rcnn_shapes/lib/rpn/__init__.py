"""The layers of a region proposal network, under the names of py-faster-rcnn."""
