"""The original Caffe reads the databases and mean files that we write.

Runs where CAFETIERE_REAL_CAFFE names a Python that has the original's pycaffe. test_databases.py
tests the other direction with the reference files.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import closing

import numpy as np
import pytest

from caffe.cli import main
from caffe.data import create_database
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.proto.caffe_pb2 import Datum
from tests.data.helpers import images, write_png

PYTHON = os.environ.get("CAFETIERE_REAL_CAFFE", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="CAFETIERE_REAL_CAFFE names no Python with the original pycaffe")

READ = """
import sys, caffe, numpy as np
net = caffe.Net(sys.argv[1], caffe.TEST)
batches = []
for _ in range(3):
    net.forward()
    batches.append({name: blob.data.copy() for name, blob in net.blobs.items()})
np.savez(sys.argv[2], **{name: np.stack([batch[name] for batch in batches]) for name in batches[0]})
"""
NET = """layer { name: "d" type: "Data" top: "data" top: "label" transform_param { %s }
data_param { source: "db" batch_size: 7 backend: %s } }"""


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], ""),
        (["-gray"], "scale: 0.5 crop_size: 5"),
        (["-encoded"], "mean_value: 1 mean_value: 20 mean_value: 30"),
        (["-encode_type=png"], "force_gray: true"),
        ([], 'mean_file: "mean.binaryproto" crop_size: 7'),
        (None, 'mean_file: "mean.binaryproto"'),
    ],
)
def test_the_original_delivers_the_same_batches(backend, flags, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if flags is None:
        with create_database(backend, "db") as writer:
            for index, values in enumerate(np.random.default_rng(0).normal(size=(17, 30)).tolist()):
                datum = Datum(channels=5, height=2, width=3, float_data=values, label=index)
                writer.put(b"%d" % (10 + index), datum.SerializeToString())
    else:
        for index, image in enumerate(images(17, (3, 9, 11))):
            write_png(tmp_path / f"{index}.png", image)
        (tmp_path / "list.txt").write_text("".join(f"{index}.png {index % 5}\n" for index in range(17)))
        assert main(["convert_imageset", f"-backend={backend}", *flags, "./", "list.txt", "db"]) == 0
    assert main(["compute_image_mean", f"-backend={backend}", "db", "mean.binaryproto"]) == 0
    (tmp_path / "net.prototxt").write_text(NET % (options, backend.upper()))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [PYTHON, "-c", READ, "net.prototxt", "theirs.npz"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    theirs = np.load("theirs.npz")
    with closing(Net("net.prototxt", caffe_pb2.TEST)) as net:
        for number in range(3):
            net.forward()
            for name, blob in net.blobs.items():
                np.testing.assert_array_equal(blob.data, theirs[name][number], err_msg=name)
