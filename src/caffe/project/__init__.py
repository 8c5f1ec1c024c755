"""Projects: converts a folder of pictures, or a table, to a folder in which `caffe train` can train."""

from __future__ import annotations

from caffe.project.make import Settings, make
from caffe.project.sources import ArraySource, FolderSource, ListSource, known_source

__all__ = ["ArraySource", "FolderSource", "ListSource", "Settings", "known_source", "make"]
