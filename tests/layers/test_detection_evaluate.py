"""DetectionEvaluate with values computed by hand, and the average precision of a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffe.cli import main
from caffe.errors import LayerError, SolverError
from caffe.proto import caffe_pb2
from caffe.solver.detections import average_precision
from caffe.solver.outputs import gathering
from tests.layers.alone import alone
from tests.layers.build import assert_rejected

FOUND = np.array(
    [
        [0, 1, 0.6, 0.1, 0.1, 0.5, 0.5],
        [0, 1, 0.9, 0.12, 0.1, 0.5, 0.5],
        [0, 1, 0.3, 0.7, 0.7, 0.9, 0.9],
        [0, 2, 0.8, 0.1, 0.1, 0.5, 0.5],
        [1, -1, -1, -1, -1, -1, -1],
        [2, 1, 0.7, 0.5, 0.5, 0.8, 0.8],
    ],
    np.float32,
)
TRUTH = np.array(
    [
        [0, 1, 0, 0.1, 0.1, 0.5, 0.5, 0],
        [0, 1, 1, 0.1, 0.6, 0.2, 0.7, 0],
        [2, 1, 0, 0.5, 0.5, 0.8, 0.85, 1],
        [2, 2, 0, 0.1, 0.1, 0.2, 0.2, 0],
        [-1, 0, 0, 0, 0, 0, 0, 0],
    ],
    np.float32,
)
SHAPES = [(1, 1, *FOUND.shape), (1, 1, *TRUTH.shape)]


def judged(options: str = "", found: np.ndarray = FOUND, truth: np.ndarray = TRUTH) -> np.ndarray:
    bottoms = [torch.from_numpy(x)[None, None] for x in (found, truth)]
    layer = alone("DetectionEvaluate", SHAPES, f"detection_evaluate_param {{ num_classes: 3 {options} }}")
    return layer(*bottoms)[0, 0].numpy()


HEAD = [[-1, 1, 3, -1, -1], [-1, 2, 1, -1, -1]]


def test_rows_by_hand():
    expected = [
        *HEAD,
        [0, 1, 0.9, 1, 0],
        [0, 1, 0.6, 0, 1],  # its true box was already matched
        [0, 1, 0.3, 0, 1],  # overlaps nothing
        [0, 2, 0.8, 0, 1],  # there is no true box of this class
        [2, 1, 0.7, 1, 0],
    ]
    np.testing.assert_allclose(judged(), expected)
    np.testing.assert_allclose(judged("evaluate_difficult_gt: false")[[0, -1]], [[-1, 1, 2, -1, -1], [2, 1, 0.7, 0, 0]])
    assert judged("overlap_threshold: 0.9")[-1, 3] == 0
    np.testing.assert_allclose(judged(found=FOUND[4:5]), HEAD)
    assert judged(truth=TRUTH[4:])[2:, 4].all()


def test_pixels_of_the_images_named(tmp_path):
    """Boxes in pixels include both corners, so boxes in tiny images overlap more."""
    (tmp_path / "sizes").write_text("a 4 4\nb 4 4\nc 400 400\n")
    named = f'name_size_file: "{tmp_path}/sizes" overlap_threshold: 0.9'
    truth = TRUTH.copy()
    truth[0, 3:7] = FOUND[1, 3:]
    truth[0, 5] += 0.05
    bottoms = [torch.from_numpy(x)[None, None] for x in (FOUND, truth)]
    layer = alone("DetectionEvaluate", SHAPES, f"detection_evaluate_param {{ num_classes: 3 {named} }}")
    for expected in ([1, 0], [1, 0]):  # three images a batch: the second batch begins with the first line again
        np.testing.assert_array_equal(layer(*bottoms)[0, 0, 2, 3:], expected)
    large = alone("DetectionEvaluate", SHAPES, f"detection_evaluate_param {{ num_classes: 3 {named} }}")
    large.next = 2
    np.testing.assert_array_equal(large(*bottoms)[0, 0, 2, 3:], [0, 1])


def test_wrong_input():
    for found, truth, says in (
        (FOUND * [1, 0, 1, 1, 1, 1, 1], TRUTH, "a detection has the label 0"),
        (FOUND, TRUTH * [1, 5, 1, 1, 1, 1, 1, 1], "label 5, expected 0 to 2"),
    ):
        with pytest.raises(LayerError, match=says):
            judged(found=found.astype(np.float32), truth=truth.astype(np.float32))
    assert_rejected("DetectionEvaluate", "", *SHAPES, says="needs num_classes")
    options = "detection_evaluate_param { num_classes: 3 %s }"
    assert_rejected("DetectionEvaluate", options % "overlap_threshold: 0", *SHAPES, says="overlap_threshold is 0")
    assert_rejected("DetectionEvaluate", options % "", SHAPES[1], SHAPES[1], says="expected (1, 1, rows, 7)")
    assert_rejected("DetectionEvaluate", options % "resize_param { }", *SHAPES, says="has no height and width")


SCORE, RIGHT = np.array([0.5, 0.9, 0.8, 0.7]), np.array([1.0, 1, 0, 1])


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        # recall 1/4, 1/4, 2/4, 3/4 at precision 1, 1/2, 2/3, 3/4
        ("Integral", 1 / 4 + 2 / 3 / 4 + 3 / 4 / 4),
        ("MaxIntegral", (3 / 4 + 3 / 4) / 4 + 1 / 4),
        ("11point", (3 * 1 + 5 * 3 / 4) / 11),
    ],
)
def test_average_precision_by_hand(version, expected):
    assert average_precision(SCORE, RIGHT, 4, version) == pytest.approx(expected)
    assert average_precision(SCORE, RIGHT, 0, version) == average_precision(SCORE[:0], RIGHT[:0], 4, version) == 0


NET = """
layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 1 } } }
layer { name: "w" type: "InnerProduct" bottom: "x" top: "w" inner_product_param { num_output: 1 axis: 0 } }
layer { name: "loss" type: "Reduction" bottom: "w" top: "loss" loss_weight: 1 include { phase: TRAIN } }
layer { name: "s" type: "Silence" bottom: "w" include { phase: TEST } }
layer { name: "data" type: "ArrayData" top: "found" top: "truth" include { phase: TEST }
        array_data_param { source: "FOLDER/data.npz" batch_size: 1 } }
layer { name: "evaluate" type: "DetectionEvaluate" bottom: "found" bottom: "truth" top: "evaluated"
        detection_evaluate_param { num_classes: 3 } include { phase: TEST } }
"""
SOLVER = 'net: "FOLDER/net.prototxt" base_lr: 0.1 lr_policy: "fixed" test_iter: 2 test_interval: 1 max_iter: 1 MORE'


def solver_of(folder: Path, more: str) -> caffe.SGDSolver:
    twice = [np.repeat(x[None, None], 2, 0) for x in (FOUND, TRUTH)]
    np.savez(folder / "data.npz", found=twice[0], truth=twice[1])
    (folder / "net.prototxt").write_text(NET.replace("FOLDER", str(folder)))
    (folder / "solver.prototxt").write_text(SOLVER.replace("FOLDER", str(folder)).replace("MORE", more))
    return caffe.SGDSolver(str(folder / "solver.prototxt"))


def test_a_test_gives_the_mean_average_precision(tmp_path, caplog):
    caplog.set_level("INFO", "caffe")
    solver = solver_of(tmp_path, 'eval_type: "detection" ap_version: "MaxIntegral" show_per_class_result: true')
    (value,) = solver.test(0)["evaluated"]
    # class 1: twice the scores .9 right, .7 right, .6 wrong, .3 wrong for 6 boxes; class 2: .8 wrong twice for 2 boxes
    assert value == pytest.approx((4 / 6) / 2)
    assert "Test net output #0: evaluated = 0.333333" in caplog.text
    assert "class1: 0.666667" in caplog.text
    assert "class2: 0" in caplog.text


def test_settings_of_the_test(tmp_path):
    for more, says in (('eval_type: "segmentation"', "eval_type is"), ('ap_version: "12point"', "ap_version is")):
        with pytest.raises(SolverError, match=says):
            solver_of(tmp_path, more)
    solver_of(tmp_path, 'eval_type: "detection"')
    path = tmp_path / "net.prototxt"
    path.write_text(path.read_text().replace('type: "Silence" bottom: "w"', 'type: "Power" bottom: "w" top: "y"'))
    with pytest.raises(SolverError, match=r'test output "y" has shape \(1,\), expected the \(1, 1, K, 5\)'):
        caffe.SGDSolver(str(tmp_path / "solver.prototxt")).test(0)


def command(folder: Path) -> list[str]:
    solver_of(folder, "").net.save(folder / "w.caffemodel")
    files = ["-model", str(folder / "net.prototxt"), "-weights", str(folder / "w.caffemodel")]
    return ["test", *files, "-iterations", "2"]


def test_the_command_test_reports_the_mean_average_precision(tmp_path, capsys):
    assert main(command(tmp_path)) == 0
    told = capsys.readouterr().err
    assert "evaluated (MaxIntegral) = 0.333333" in told
    assert "evaluated (11point) = " in told
    assert "Batch 0, evaluated" not in told


PICKED = """
layer { name: "pick" type: "ArrayData" top: "pick" array_data_param { source: "FOLDER/pick.npz" batch_size: 1 }
        include { phase: TEST } }
layer { name: "keep" type: "Filter" bottom: "evaluated" bottom: "pick" top: "kept" include { phase: TEST } }
"""


def test_the_command_test_refuses_a_mean_of_lists_of_different_lengths(tmp_path, capsys):
    arguments = command(tmp_path)
    np.savez(tmp_path / "pick.npz", pick=np.float32([1, 0]))
    with (tmp_path / "net.prototxt").open("a") as file:
        file.write(PICKED.replace("FOLDER", str(tmp_path)))
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert 'test output "kept" has 0 values in one batch and 35 in another, so they have no mean' in told


def test_detections_and_means_side_by_side():
    """`eval_type: "detection_segmentation"`: mean average precision of the first output, means of the others."""
    collector = gathering(caffe_pb2.SolverParameter(eval_type="detection_segmentation", ap_version="11point"))
    rows = np.array([[[[-1, 1, 1, -1, -1], [0, 1, 0.9, 1, 0]]]])
    collector.add({"eval": rows, "iou": np.array([[[[0.5, 0.25]]]])})
    collector.add({"eval": rows * [1, 1, 1, 0, 0] + [0, 0, 0, 0, 1], "iou": np.array([[[[1.0, 0.75]]]])})
    outputs = collector.outputs(2)
    assert outputs["iou"] == [0.75, 0.5]
    assert outputs["eval"] == pytest.approx([6 / 11])  # one of two boxes found first: precision 1 up to recall 0.5
