"""The content of a report, for numbers that can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from caffe.errors import ArgumentError
from caffe.evaluation import Judgement
from caffe.evaluation.judgement import wilson

P = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4]])
LABELS = np.array([0, 1, 1, 0, 2])


@pytest.fixture
def judged():
    return Judgement(P, LABELS, ["ant", "bee", "cow"])


def test_shares(judged):
    assert judged.accuracy == pytest.approx(3 / 5)
    assert judged.top(2) == pytest.approx(4 / 5)
    assert judged.top(3) == 1
    np.testing.assert_array_equal(judged.confusion, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert judged.by_class()[0] == ("ant", 2, 0.5, 0.5, 0.5)


def test_worst_first(judged):
    assert judged.worst(2).tolist() == [3, 1]
    assert judged.losses[3] == pytest.approx(-math.log(0.2))


def test_calibration(judged):
    # bins by confidence 0.7: right; 0.6: wrong; 0.8: right; 0.5: wrong; 0.4: right
    assert judged.calibration_error == pytest.approx((0.3 + 0.6 + 0.2 + 0.5 + 0.6) / 5)


def test_wilson_against_a_published_case():
    low, high = wilson(81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 0) == (0, 1)
    assert wilson(10, 10)[1] == 1


def test_a_class_without_items_has_no_recall():
    judged = Judgement(P[:2], LABELS[:2])
    assert math.isnan(judged.by_class()[2][2])
    assert "2 " not in judged.text().splitlines()[-1][:2]


def test_text(judged):
    lines = judged.text().splitlines()
    assert lines[0] == "accuracy 0.6000 (3 of 5; 95 % interval 0.2307 to 0.8824)"
    assert lines[-1] == "most confused: ant taken for bee (1), bee taken for ant (1)"


def test_confusion_as_table_and_picture(judged, tmp_path):
    judged.write_confusion(tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_text().splitlines()[1] == "ant,1,1,0"
    judged.write_confusion(tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"


def test_shapes_that_do_not_fit():
    with pytest.raises(ArgumentError, match="do not match"):
        Judgement(P, LABELS[:2])
    with pytest.raises(ArgumentError, match="there are 2 names and 3 classes"):
        Judgement(P, LABELS, ["a", "b"])
