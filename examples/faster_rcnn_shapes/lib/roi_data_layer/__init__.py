"""The data layer, under its name in py-faster-rcnn."""
