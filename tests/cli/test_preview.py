"""`caffe preview`: the picture shows the input of the net, after all transformations."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe.cli import main
from caffe.errors import DataError
from caffe.pictures.whitening import prepare
from tests.data.helpers import images, write_lmdb

NET = """
layer { name: "in" type: "Input" top: "in" input_param { shape { dim: 1 } } }
layer { name: "train" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { %s } data_param { source: "db" batch_size: 3 backend: LMDB } }
layer { name: "test" type: "DummyData" top: "data" include { phase: TEST } dummy_data_param { shape { dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 5 } }
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lmdb(tmp_path / "db", images(5, (3, 50, 60)))
    return tmp_path


@pytest.mark.parametrize("options", ["", "mean_value: 100 scale: 0.01", "mean_value: 9 std_value: 3 scale: 2"])
def test_pixels_are_those_before_the_normalisation(options, work):
    (work / "net.prototxt").write_text(NET % options)
    assert main(["preview", "net.prototxt", "-count", "4", "-o", "out.png"]) == 0
    picture = cv2.imread("out.png")
    for index, image in enumerate(images(5, (3, 50, 60))[:4]):
        top, left = 4 + index // 2 * (50 + 18), 4 + index % 2 * 64
        np.testing.assert_array_equal(picture[top : top + 50, left : left + 60], image.transpose(1, 2, 0))


def test_random_draws_follow_the_seed(work):
    (work / "net.prototxt").write_text(NET % "crop_size: 20 mirror: true rotation: 30 hue: 0.3")
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["preview", "net.prototxt", "--seed", seed, "-o", f"{name}.png"]) == 0
    first, second, other = ((work / f"{name}.png").read_bytes() for name in "abc")
    assert first == second != other


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (["none.prototxt"], "none.prototxt"),
        (["net.prototxt", "-phase", "TEST"], "expected images"),
        (["net.prototxt", "-phase", "BOTH"], "TRAIN or TEST"),
        (["net.prototxt", "-count", "0"], "at least 1"),
        (["empty.prototxt"], "no data layer"),
    ],
)
def test_what_cannot_be_shown_is_one_error(given, part, work, capsys):
    (work / "net.prototxt").write_text(NET % "")
    (work / "empty.prototxt").write_text('name: "empty"')
    assert main(["preview", *given]) == 1
    assert part in capsys.readouterr().err
    assert not (work / "preview.png").exists()


@pytest.mark.long
def test_prepare_draws_whitening(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    blurred = rng.random((1200, 3, 6, 5)).cumsum(2).cumsum(3)  # neighbours are alike
    np.savez("d.npz", data=blurred.astype(np.float32))
    Path("net.prototxt").write_text(
        'layer { name: "d" type: "ArrayData" top: "data" array_data_param { source: "d.npz" batch_size: 100 } }'
    )
    assert main(["preview", "net.prototxt", "-o", "grid.png", "-prepare", "drawn"]) == 0
    out = capsys.readouterr().out
    assert "1000 images, 90 numbers each" in out
    spread = re.search(r"^PCA-whitened: mean \S+, standard deviation of a number (\S+),", out, re.M)
    assert float(spread[1]) > 0.2  # for 100 images read ten times, the deviation would be smaller
    for name in ("images", "covariance", "spectrum", "eigenvectors"):
        assert Path(f"drawn/{name}.png").stat().st_size > 5000


def test_whitening_makes_the_covariance_one():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 1, 3, 5)).cumsum(3)
    found = prepare(x)
    for name in ("PCA-whitened", "ZCA-whitened"):
        flat = found.steps[name].reshape(4000, -1)
        covariance = flat.T @ flat / 4000
        assert np.abs(covariance - np.diag(np.diagonal(covariance))).max() < (1e-9 if name[0] == "P" else 0.2)
        assert np.diagonal(covariance) == pytest.approx(1, abs=0.2)
    normalized = found.steps["normalized"]
    assert normalized.mean(0) == pytest.approx(0, abs=1e-9)
    assert normalized.std(0) == pytest.approx(1)
    zca, centred = found.steps["ZCA-whitened"], found.steps["minus the mean"]
    assert np.corrcoef(zca.ravel(), centred.ravel())[0, 1] > 0.4  # it stays an image
    with pytest.raises(DataError, match="expected two images"):
        prepare(x[:1])
