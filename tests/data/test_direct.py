"""The decoding threads normalize large images. The batches equal those of a single thread that normalizes later."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from caffe.data.databases.datum import encode_datum
from caffe.data.databases.lmdb import LmdbWriter
from caffe.data.pipeline import transformer
from caffe.proto.caffe_pb2 import Datum
from tests.data.helpers import images, layer

LAYER = """
name: "d" type: "Data" top: "data" top: "label"
transform_param {{ {} }}
data_param {{ source: "{}" backend: LMDB batch_size: 5 workers: {} skip_damaged: true }}
"""
FIELDS = {
    "mean": "crop_size: 76 mirror: true mean_value: 3.7 mean_value: 100 mean_value: 12.3 scale: 0.017",
    "cutout": "crop_size: 77 mirror: true cutout: 9 scale: 0.3",
    "plain": "",
    "mixup": "mirror: true crop_size: 76 mixup: 0.3 label_count: 40",
    "rotation": "crop_size: 76 rotation: 20 brightness: 0.2 mean_value: 9",
}


def batches(path: str, fields: str, workers: int, count: int = 7) -> list[torch.Tensor]:
    torch.manual_seed(4)
    data = layer(LAYER.format(fields, path, workers))
    made = [top.clone() for _ in range(count) for top in data()]
    data.close()
    return [*made, torch.tensor(data.skipped)]


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    """Databases of 23 images, of which every sixth is damaged: raw, compressed, and both in turn."""
    found = {}
    for kind in ("raw", "compressed", "mixed"):
        found[kind] = str(tmp_path_factory.mktemp("direct") / kind)
        with LmdbWriter(found[kind]) as writer:
            for index, image in enumerate(images(23, (3, 79, 83))):
                value = encode_datum(image, index)
                if kind == "compressed" or (kind == "mixed" and index % 2):
                    data = cv2.imencode(".png", np.ascontiguousarray(image.transpose(1, 2, 0)))[1].tobytes()
                    value = Datum(data=data, encoded=True, label=index).SerializeToString()
                writer.put(b"%03d" % index, value[:100] if index % 6 == 5 else value)
    return found


@pytest.mark.parametrize("kind", ["raw", "compressed", "mixed"])
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_batches_are_equal_to_the_bit(databases, kind, fields, monkeypatch):
    path = databases[kind]
    with monkeypatch.context() as patch:
        patch.setattr(transformer, "_LARGE", 1 << 40)
        wanted = batches(path, fields, 1)
    assert wanted[-1] > 3
    for workers in (1, 3):
        for found, value in zip(batches(path, fields, workers), wanted, strict=True):
            assert torch.equal(found, value)
