"""A web page for a trained classifier: shows the classes of an uploaded picture, and the regions that explain them."""

from __future__ import annotations

from caffe.tryout.explain import Answer, Explainer
from caffe.tryout.upload import Upload, read_upload

__all__ = ["Answer", "Explainer", "Upload", "read_upload"]
