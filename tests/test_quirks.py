"""Every behaviour in the list of quirks has a test. Those that belong to no other file are tested here."""

from __future__ import annotations

import ast
import re

import cv2
import numpy as np
import pytest

import caffe
from caffe.cli import main
from caffe.data import open_source
from caffe.errors import LayerError, ProtoError
from caffe.proto import caffe_pb2, text, upgrade
from caffe.proto.caffe_pb2 import Datum
from tests.conftest import ROOT, shared
from tests.solver import small

LOSS, SHAPE, NORM = (f"layers/test_{name}.py" for name in ("quirks_loss", "quirks_shape", "normalization"))
HERE = "test_quirks.py"

TESTS = {
    "Pooling rounds up": [
        "layers/test_pooling.py::test_rounds_up_and_drops_a_window_that_starts_in_the_padding",
        "layers/test_pooling.py::test_average_divides_by_the_cells_inside_the_padded_image",
    ],
    "SoftmaxWithLoss normalises by VALID": [
        f"{LOSS}::test_softmax_loss_divides_by_the_labels_that_count_unless_told_otherwise",
        f"{LOSS}::test_sigmoid_loss_divides_by_the_batch_unless_told_otherwise",
        f"{LOSS}::test_explicit_normalization_beats_normalize",
        f"{LOSS}::test_log_is_clamped_at_flt_min_and_the_gradient_is_not",
        f"{LOSS}::test_with_every_label_ignored_the_loss_is_zero",
        f"{LOSS}::test_softmax_loss_with_two_tops_works",
    ],
    "Ties: ArgMax": [
        f"{SHAPE}::test_argmax_gives_the_higher_index_first_in_a_tie",
        f"{LOSS}::test_accuracy_counts_a_tie_against_the_label",
        "layers/test_pooling.py::test_max_takes_the_first_index_of_a_tie",
        f"{SHAPE}::test_eltwise_max_of_two_passes_a_tie_to_the_second",
    ],
    "MVN adds eps to the standard deviation": [
        f"{NORM}::test_mvn_adds_eps_to_the_standard_deviation",
        f"{NORM}::test_lrn_within_channel_ignores_k",
    ],
    "BatchNorm: running variance": [
        f"{NORM}::test_batch_norm_keeps_the_unbiased_variance_and_uses_the_biased_one",
        f"{NORM}::test_batch_norm_with_factor_zero_divides_by_the_root_of_eps",
        f"{NORM}::test_batch_norm_rejects_a_bottom_of_one_axis_and_other_channels",
        f"{NORM}::test_batch_norm_statistics_are_never_trained",
        f"{HERE}::test_batch_norm_forces_three_param_blocks_to_rate_and_decay_zero",
    ],
    "Reshape `axis: -1`": [
        f"{SHAPE}::test_reshape_axis_minus_one_means_after_the_last_axis",
        "layers/test_activation.py::test_power_with_scale_or_power_zero_is_a_constant_with_gradient_zero",
    ],
    "LSTM and RNN pass no gradient": [
        "layers/test_recurrent.py::test_no_gradient_reaches_the_first_state_or_comes_from_the_last",
        f"{LOSS}::test_contrastive_gradient_has_1e_4_in_its_denominator",
    ],
    "HDF5Output always writes 4-D": [
        "layers/test_data_memory.py::test_output_is_four_dimensional_and_grows",
        "layers/test_data_memory.py::test_arrays_come_batch_by_batch_round_and_round",
        "layers/test_data_memory.py::test_datums_and_images_are_transformed_and_arrays_are_not",
    ],
    "`force_backward` is rejected": [
        f"{HERE}::test_force_backward_is_rejected_on_accuracy_embed_and_filter",
        f"{HERE}::test_propagate_down_true_alone_does_not_start_backward",
    ],
    "Net outputs are sorted by name": [
        f"{HERE}::test_net_outputs_are_sorted_by_name",
        f"{HERE}::test_an_unnamed_loss_top_is_called_automatic_and_is_no_output",
    ],
    "Transform fields inside `data_param`": [
        f"{HERE}::test_transform_fields_inside_data_param_move_in_v1_layers",
        f"{HERE}::test_transform_fields_inside_data_param_of_a_modern_layer_are_an_error",
    ],
    "`convert_imageset -encoded -gray`": [
        f"{HERE}::test_convert_imageset_encoded_and_gray_keeps_the_colour_bytes",
        f"{HERE}::test_convert_imageset_resizes_with_both_sides_only",
        f"{HERE}::test_convert_imageset_encode_type_alone_encodes",
        f"{HERE}::test_convert_imageset_skips_unreadable_images_and_leaves_gaps_in_the_keys",
    ],
    "Gradients are clipped before": [
        "solver/test_solver.py::test_gradients_are_clipped_before_they_are_divided_by_iter_size",
        f"{HERE}::test_a_negative_gamma_is_rejected_for_the_sigmoid_policy",
        f"{HERE}::test_a_momentum_is_rejected_for_adagrad_and_rmsprop",
    ],
    "pycaffe's `solver.lr`": [
        f"{HERE}::test_solver_lr_is_the_rate_of_the_next_update",
        f"{HERE}::test_the_rate_printed_at_iteration_0_is_that_of_its_update",
    ],
    "An unknown field, a bad enum value": [
        f"{HERE}::test_unknown_field_bad_enum_and_missing_field_have_messages_of_their_own",
    ],
    "`stride_h` without `stride_w`": [
        f"{HERE}::test_stride_h_without_stride_w_is_an_error",
        f"{HERE}::test_two_inputs_with_one_input_shape_are_an_error",
    ],
    "pycaffe: iterating `top`": [
        "layers/test_python.py::test_iterating_top_in_a_python_layer_works",
        f"{HERE}::test_deprocess_of_one_channel_with_a_mean_works",
    ],
}
"""The tests of each row of the list. A row is named by its first words."""


def rows() -> list[str]:
    source = shared("quirks.md").read_text().partition("\n## ")[2]
    return [" ".join(row.split()) for row in re.findall(r"^- (.*?)(?=^- |^#|\Z)", source, re.MULTILINE | re.DOTALL)]


def test_every_row_has_its_tests():
    found = [[key for key in TESTS if row.startswith(key)] for row in rows()]
    assert [row for row, keys in zip(rows(), found, strict=True) if len(keys) != 1] == []
    assert sorted(key for keys in found for key in keys) == sorted(TESTS), "tests for rows that are not there"


@pytest.mark.parametrize("node", sorted({node for nodes in TESTS.values() for node in nodes}))
def test_every_named_test_exists(node):
    file, _, name = node.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert name in {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}


# -- nets --------------------------------------------------------------------------------------------------------------


def net(source: str, phase: int = caffe.TRAIN) -> caffe.Net:
    return caffe.Net(text.parse(source, caffe_pb2.NetParameter()), phase)


def data(name: str, *shape: int) -> str:
    dims = " ".join(f"dim: {size}" for size in shape)
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'


def test_batch_norm_forces_three_param_blocks_to_rate_and_decay_zero():
    blocks = "param { lr_mult: 1 decay_mult: 1 } " * 3
    made = net(data("x", 2, 3) + f'layer {{ name: "bn" type: "BatchNorm" bottom: "x" top: "y" {blocks} }}')
    assert [(entry.lr_mult, entry.decay_mult) for entry in made.learnable] == [(0, 0)] * 3
    with pytest.raises(LayerError, match=r'"bn".*set lr_mult: 0'):
        net(data("x", 2, 3) + 'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "y" param { lr_mult: 1 } }')


@pytest.mark.parametrize(
    ("kind", "second", "options"),
    [("Accuracy", True, ""), ("Filter", True, ""), ("Embed", False, "embed_param { num_output: 2 input_dim: 5 }")],
)
def test_force_backward_is_rejected_on_accuracy_embed_and_filter(kind, second, options):
    bottoms = 'bottom: "x" bottom: "t"' if second else 'bottom: "t"'
    layers = (data("x", 3, 5) if second else "") + data("t", 3)
    made = net(f'force_backward: true {layers} layer {{ name: "l" type: "{kind}" {bottoms} top: "y" {options} }}')
    made.forward()
    with pytest.raises(LayerError, match=rf'"l" \({kind}\): has no gradient for bottom'):
        made.backward()


def test_propagate_down_true_alone_does_not_start_backward():
    layers = data("x", 2, 3) + 'layer { name: "p" type: "Power" bottom: "x" top: "y" propagate_down: true }'
    for head, expected in (("", 7), ("force_backward: true ", 5)):
        made = net(head + layers)
        made.forward()
        made.blobs["x"].diff[...], made.blobs["y"].diff[...] = 7, 5
        made.backward()
        assert (made.blobs["x"].diff == expected).all()


def test_net_outputs_are_sorted_by_name():
    tops = "".join(f'layer {{ name: "{n}" type: "Power" bottom: "x" top: "{n}" }}' for n in ("b", "c", "a"))
    made = net(data("x", 2, 3) + tops)
    assert list(made.outputs) == ["a", "b", "c"]
    assert list(made.forward()) == ["a", "b", "c"]


def test_an_unnamed_loss_top_is_called_automatic_and_is_no_output():
    made = net(data("x", 2, 3) + data("t", 2, 3) + 'layer { name: "l" type: "EuclideanLoss" bottom: "x" bottom: "t" }')
    assert "(automatic)" in made.blobs
    assert list(made.outputs) == []
    made.blobs["x"].data[...] = 2
    assert made.forward_loss() == pytest.approx(2 * 3 * 4 / (2 * 2))


# -- prototxt ----------------------------------------------------------------------------------------------------------

V1_DATA = 'layers { name: "d" type: DATA top: "x" data_param { source: "db" batch_size: 2 scale: 0.5 crop_size: 3 } }'


def test_transform_fields_inside_data_param_move_in_v1_layers():
    param = text.parse(V1_DATA, caffe_pb2.NetParameter())
    upgrade.upgrade_net(param, "net.prototxt")
    moved = param.layer[0]
    assert (moved.transform_param.scale, moved.transform_param.crop_size) == (0.5, 3)
    assert not moved.data_param.HasField("scale")
    assert not moved.data_param.HasField("crop_size")


def test_transform_fields_inside_data_param_of_a_modern_layer_are_an_error(tmp_path):
    (tmp_path / "net.prototxt").write_text(V1_DATA.replace("layers", "layer").replace("DATA", '"Data"'))
    with pytest.raises(ProtoError, match=r'net\.prototxt:1: layer "d".*transform_param'):
        caffe.Net(tmp_path / "net.prototxt", caffe.TRAIN)


def test_unknown_field_bad_enum_and_missing_field_have_messages_of_their_own():
    bad = {
        "\nlayer { pooling_param { kernal_size: 3 } }": r't:2: .* no field "kernal_size"; did you mean "kernel_size"',
        "\n\nlayer { pooling_param { pool: MAXX } }": r't:3: .*expected one of MAX, .*did you mean "MAX"',
        '\nlayer { name: "c" clip_param { min: 1 } }': r't:2: layer "c": the required field .*max is missing',
    }
    for source, message in bad.items():
        with pytest.raises(ProtoError, match=message):
            text.parse(source, caffe_pb2.NetParameter(), "t")


@pytest.mark.parametrize("kind", ["Convolution", "Pooling"])
def test_stride_h_without_stride_w_is_an_error(kind):
    number = "num_output: 2 " if kind == "Convolution" else ""
    options = f"{kind.lower()}_param {{ {number}kernel_size: 3 stride_h: 2 }}"
    with pytest.raises(LayerError, match=rf'"c" \({kind}\): .*stride_h without stride_w'):
        net(data("x", 2, 3, 7, 5) + f'layer {{ name: "c" type: "{kind}" bottom: "x" top: "y" {options} }}')


def test_two_inputs_with_one_input_shape_are_an_error():
    with pytest.raises(ProtoError, match="1 input_shape for 2 input, expected one each"):
        net('input: "a" input: "b" input_shape { dim: 2 }')


# -- convert_imageset --------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Three colour images, a file that is not an image, and a list of the four."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for index in range(3):
        cv2.imwrite(f"{index}.png", rng.integers(0, 256, (5, 7, 3), np.uint8))
    (tmp_path / "bad.png").write_text("no image")
    (tmp_path / "list.txt").write_text("0.png 3\nbad.png 4\n1.png 5\n2.png 6\n")
    return tmp_path


def converted(*flags: str) -> list[tuple[str, Datum]]:
    assert main(["convert_imageset", "-minloglevel=3", *flags, "", "list.txt", "db"]) == 0
    return [(key.decode(), Datum.FromString(bytes(value))) for key, value in open_source("LMDB", "db").scan()]


def test_convert_imageset_encoded_and_gray_keeps_the_colour_bytes(pictures):
    records = converted("-encoded", "-gray")
    assert [datum.data for _, datum in records] == [(pictures / f"{i}.png").read_bytes() for i in range(3)]
    assert all(datum.encoded for _, datum in records)


def test_convert_imageset_resizes_with_both_sides_only(pictures, capsys):
    """If only one side is given, Caffe does not resize; here this is an error, see docs/porting.md."""
    for flag, absent in (("-resize_height=3", "-resize_width"), ("-resize_width=4", "-resize_height")):
        assert main(["convert_imageset", flag, "", "list.txt", "db"]) == 1
        assert f"without {absent}" in capsys.readouterr().err
    both = converted("-resize_height=3", "-resize_width=4")
    assert {(datum.height, datum.width) for _, datum in both} == {(3, 4)}


def test_convert_imageset_encode_type_alone_encodes(pictures):
    records = converted("-encode_type=jpg")
    assert [(datum.encoded, datum.data[:2]) for _, datum in records] == [(True, b"\xff\xd8")] * 3


def test_convert_imageset_skips_unreadable_images_and_leaves_gaps_in_the_keys(pictures):
    records = converted()
    assert [key for key, _ in records] == ["00000000_0.png", "00000002_1.png", "00000003_2.png"]
    assert [datum.label for _, datum in records] == [3, 5, 6]


# -- solver and pycaffe ------------------------------------------------------------------------------------------------


@pytest.fixture
def training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.write(tmp_path)


def test_a_negative_gamma_is_rejected_for_the_sigmoid_policy(training):
    with pytest.raises(caffe.CaffeError, match="gamma"):
        caffe.get_solver(small.param('lr_policy: "sigmoid" gamma: -0.5 stepsize: 2'))


@pytest.mark.parametrize("kind", ["AdaGrad", "RMSProp"])
def test_a_momentum_is_rejected_for_adagrad_and_rmsprop(kind, training):
    with pytest.raises(caffe.CaffeError, match=rf'"{kind}": cannot be used with momentum'):
        caffe.get_solver(small.param(f'type: "{kind}" momentum: 0.9'))


def test_solver_lr_is_the_rate_of_the_next_update(training):
    solver = caffe.get_solver(small.param('lr_policy: "step" gamma: 0.5 stepsize: 2'))
    rates = []
    for _ in range(3):
        rates.append(solver.lr)
        solver.step(1)
    assert [*rates, solver.lr] == pytest.approx([0.1, 0.1, 0.05, 0.05])


def test_the_rate_printed_at_iteration_0_is_that_of_its_update(training, caplog):
    caplog.set_level("INFO", logger="caffe")
    caffe.get_solver(small.param("display: 1")).step(1)
    assert "Iteration 0, lr = 0.1" in [record.getMessage() for record in caplog.records]


def test_deprocess_of_one_channel_with_a_mean_works():
    made = caffe.io.Transformer({"data": (1, 1, 5, 7)})
    made.set_transpose("data", (2, 0, 1))
    made.set_mean("data", np.array([3.0]))
    image = np.random.default_rng(1).random((5, 7, 1)).astype(np.float32)
    np.testing.assert_allclose(made.deprocess("data", made.preprocess("data", image)), image, atol=1e-6)
