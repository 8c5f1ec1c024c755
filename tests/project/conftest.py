"""Folders of small pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest


class Pictures:
    """Writes pictures of two classes that a net can distinguish: the upper or the lower half is bright."""

    def __init__(self, top):
        self.top = top
        self.rng = np.random.default_rng(5)

    def pixels(self, kind=0, size=(12, 10), channels=3):
        image = self.rng.integers(0, 90, (*size, channels)[: 2 + (channels > 1)]).astype(np.uint8)
        half = slice(0, size[0] // 2) if kind % 2 == 0 else slice(size[0] // 2, None)
        image[half] += np.uint8(120)
        return image

    def write(self, path, pixels=None, kind=0):
        file = self.top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        done, data = cv2.imencode(file.suffix, self.pixels(kind) if pixels is None else pixels)
        assert done
        file.write_bytes(data.tobytes())
        return file

    def classes(self, names=("cat", "dog"), count=5, under=""):
        for kind, name in enumerate(names):
            for index in range(count):
                self.write(f"{under}{name}/{index}.png", kind=kind)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    return Pictures(tmp_path / "images")
