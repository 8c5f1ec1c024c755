"""A trained classifier on a page of the browser: a picture goes in, its classes and where they are seen come out."""

from __future__ import annotations

from caffe.tryout.explain import Answer, Explainer
from caffe.tryout.upload import Upload, read_upload

__all__ = ["Answer", "Explainer", "Upload", "read_upload"]
