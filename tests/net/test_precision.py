"""A net in a 16-bit precision agrees with the net in float32, and its weights are stored in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import caffe
from caffe.errors import NetError
from caffe.layers import layer_class, layer_types
from caffe.layers.base import Lowering
from caffe.net import Net
from caffe.net.plan import precision
from caffe.net.plan.loss_scale import LossScale
from caffe.net.run.module import NetModule
from caffe.proto import caffe_pb2, text

HEAD = """
layer { name: "in" type: "Input" top: "x" top: "t"
  input_param { shape { dim: 5 dim: 3 dim: 7 dim: 6 } shape { dim: 5 } } }
layer { name: "first" type: "Convolution" bottom: "x" top: "a"
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } bias_filler { value: 0.1 } } }
layer { name: "second" type: "Convolution" bottom: "x" top: "b"
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
"""
TAIL = """
layer { name: "ip" type: "InnerProduct" bottom: "y" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "t" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "t" top: "accuracy" }
"""
DEEP = 'type: "Reshape" bottom: "a" top: "d" reshape_param { shape { dim: 0 dim: 2 dim: 4 dim: 5 dim: 4 } } } '
DEEP += 'layer { name: "more" '
LEFT = 'layer { name: "left" type: "Silence" bottom: "b" }'
POOL = 'type: "Pooling" bottom: "a" top: "y" pooling_param {'
CASES = {
    "Axpy": 'type: "Pooling" bottom: "b" top: "s" pooling_param { pool: AVE global_pooling: true } } '
    'layer { name: "more" type: "Axpy" bottom: "s" bottom: "a" bottom: "b" top: "y"',
    "BatchNorm": 'type: "BatchNorm" bottom: "a" top: "y"',
    "Bias": 'type: "Bias" bottom: "a" top: "y" bias_param { filler { value: 0.3 } }',
    "CConvolution": 'type: "CConvolution" bottom: "a" top: "y" convolution_param { num_output: 5 kernel_size: 2 '
    'weight_filler { type: "xavier" } }',
    "CConvolutionDepthwise": 'type: "CConvolutionDepthwise" bottom: "a" top: "y" convolution_param { kernel_size: 2 '
    'weight_filler { type: "xavier" } }',
    "CInnerProduct": 'type: "CInnerProduct" bottom: "a" top: "y" cinner_product_param { num_output: 6 '
    'weight_filler { type: "xavier" } }',
    "Clip": 'type: "Clip" bottom: "a" top: "y" clip_param { min: -0.5 max: 0.5 }',
    "Concat": 'type: "Concat" bottom: "a" bottom: "b" top: "y"',
    "Convolution": 'type: "Convolution" bottom: "a" top: "y" convolution_param { num_output: 5 kernel_size: 2 '
    'stride: 2 weight_filler { type: "xavier" } }',
    "Convolution3D": DEEP + 'type: "Convolution3D" bottom: "d" top: "y" convolution3d_param { num_output: 3 '
    'kernel_size: 2 kernel_depth: 2 weight_filler { type: "xavier" } }',
    "ConvolutionDepthwise": 'type: "ConvolutionDepthwise" bottom: "a" top: "y" convolution_param { kernel_size: 2 '
    'weight_filler { type: "xavier" } }',
    "CReLU": 'type: "CReLU" bottom: "a" top: "y"',
    "Crop": 'type: "Crop" bottom: "a" bottom: "b" top: "y"',
    "Permute": 'type: "Permute" bottom: "a" top: "y" permute_param { order: [0, 2, 3, 1] }',
    "DepthToSpace": 'type: "DepthToSpace" bottom: "a" top: "y" depth_to_space_param { block_size: 2 }',
    "Deconvolution": 'type: "Deconvolution" bottom: "a" top: "y" convolution_param { num_output: 5 kernel_size: 2 '
    'stride: 2 weight_filler { type: "xavier" } }',
    "Deconvolution3D": DEEP + 'type: "Deconvolution3D" bottom: "d" top: "y" convolution3d_param { num_output: 3 '
    'kernel_size: 2 kernel_depth: 2 weight_filler { type: "xavier" } }',
    "DepthwiseConvolution": 'type: "DepthwiseConvolution" bottom: "a" top: "y" convolution_param { num_output: 8 '
    'group: 8 kernel_size: 2 weight_filler { type: "xavier" } }',
    "Dropout": 'type: "Dropout" bottom: "a" top: "y" dropout_param { dropout_ratio: 0 }',
    "ELU": 'type: "ELU" bottom: "a" top: "y"',
    "Eltwise": 'type: "Eltwise" bottom: "a" bottom: "b" top: "y" eltwise_param { coeff: 1 coeff: -0.5 }',
    "Eltwise MAX": 'type: "Eltwise" bottom: "a" bottom: "b" top: "y" eltwise_param { operation: MAX }',
    "Eltwise PROD": 'type: "Eltwise" bottom: "a" bottom: "b" top: "y" eltwise_param { operation: PROD }',
    "Flatten": 'type: "Flatten" bottom: "a" top: "y"',
    "Flip": 'type: "Flip" bottom: "a" top: "y"',
    "Gather": 'type: "Gather" bottom: "a" top: "y"',
    "InnerProduct": 'type: "InnerProduct" bottom: "a" top: "y" inner_product_param { num_output: 6 transpose: true '
    'weight_filler { type: "xavier" } }',
    "LRN": 'type: "LRN" bottom: "a" top: "y" lrn_param { local_size: 5 alpha: 1 }',
    "HardSigmoid": 'type: "HardSigmoid" bottom: "a" top: "y"',
    "HardSwish": 'type: "HardSwish" bottom: "a" top: "y"',
    "MaskedConvolution": 'type: "MaskedConvolution" bottom: "a" top: "y" masked_convolution_param { mask: B } '
    'convolution_param { num_output: 5 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } }',
    "SeLU": 'type: "SeLU" bottom: "a" top: "y"',
    "Mish": 'type: "Mish" bottom: "a" top: "y"',
    "NegReLU": 'type: "NegReLU" bottom: "a" top: "y"',
    "PReLU": 'type: "PReLU" bottom: "a" top: "y"',
    "Pooling": POOL + "kernel_size: 3 stride: 2 }",
    "Pooling AVE": POOL + "pool: AVE kernel_size: 3 stride: 2 pad: 1 }",
    "Pooling global": POOL + "pool: AVE global_pooling: true }",
    "Pooling3D": DEEP + 'type: "Pooling3D" bottom: "d" top: "y" pooling3d_param { kernel_size: 2 kernel_depth: 2 }',
    "ReLU": 'type: "ReLU" bottom: "a" top: "y" relu_param { negative_slope: 0.1 }',
    "ReLU6": 'type: "ReLU6" bottom: "a" top: "y"',
    "Reorg": 'type: "Reorg" bottom: "a" top: "y" reorg_param { stride: 2 reverse: true }',
    "Reshape": 'type: "Reshape" bottom: "a" top: "y" reshape_param { shape { dim: 0 dim: -1 } }',
    "Reverse": 'type: "Reverse" bottom: "a" top: "y" reverse_param { axis: 1 }',
    "SELU": 'type: "SELU" bottom: "a" top: "y"',
    "Scale": 'type: "Scale" bottom: "a" top: "y" scale_param { bias_term: true filler { value: 1.5 } }',
    "Scale by a blob": 'type: "Scale" bottom: "a" bottom: "b" top: "y" scale_param { axis: 0 }',
    "ShuffleChannel": 'type: "ShuffleChannel" bottom: "a" top: "y" shuffle_channel_param { group: 4 }',
    "Silence": 'type: "Silence" bottom: "b" } layer { name: "more" type: "ReLU" bottom: "a" top: "y"',
    "Slice": 'type: "Slice" bottom: "a" top: "y" top: "rest" slice_param { slice_point: 3 }',
    "SpaceToDepth": 'type: "SpaceToDepth" bottom: "a" top: "y" space_to_depth_param { block_size: 1 }',
    "Switch": 'type: "Switch" bottom: "a" bottom: "b" top: "y"',
    "Swish": 'type: "Swish" bottom: "a" top: "y" swish_param { beta: 1.5 }',
    "Transpose": 'type: "Transpose" bottom: "a" top: "y" transpose_param { dim: 0 dim: 2 dim: 1 dim: 3 }',
    "Upsample": 'type: "Upsample" bottom: "a" top: "y" upsample_param { scale: 2 }',
}
MERGED = 'type: "BatchNorm" bottom: "a" top: "n" } layer { name: "s" type: "Scale" bottom: "n" top: "m" scale_param { '
MERGED += 'bias_term: true } } layer { name: "r" type: "ReLU" bottom: "m" top: "y"'
NEVER = {
    "masked Pooling": 'type: "Pooling" bottom: "a" top: "y" top: "mask" pooling_param { kernel_size: 2 stride: 2 }',
    "LRN within": 'type: "LRN" bottom: "a" top: "y" lrn_param { norm_region: WITHIN_CHANNEL }',
    "Sigmoid": 'type: "Sigmoid" bottom: "a" top: "y"',
    "loss": 'type: "ReLU" bottom: "a" top: "y" loss_weight: 0.01',
}


def make(*parts: str, dtype: torch.dtype = torch.float32, head: str = HEAD, phase: int = caffe.TRAIN) -> Net:
    """Return the net with filled inputs. Two nets made of the same parts contain the same numbers."""
    torch.manual_seed(1)
    spec = text.parse("\n".join([head, *parts, TAIL]), caffe_pb2.NetParameter())
    net = Net(spec, phase, precision=dtype)
    rng = np.random.default_rng(2)
    net.blobs["x"].data[...] = rng.standard_normal(net.blobs["x"].shape)
    net.blobs["t"].data[...] = rng.integers(0, 4, 5)
    return net


def layer(body: str) -> str:
    return f'layer {{ name: "layer" {body} }}' + ("" if 'bottom: "b"' in body else LEFT)


def kind_of(net: Net, blob: str) -> torch.dtype:
    """Return the dtype of a blob after the last run, before it is converted by an access."""
    return net.blobs[blob].data_memory.raw.dtype


def assert_near(low: Net, exact: Net) -> None:
    """Assert that the norms of differences of blobs and gradients are as small as 8 binary digits allow.

    If two cells of a window are equal to 8 digits, the gradient can go to the other cell. Such types have a wide bound.
    """
    for name, blob in exact.blobs.items():
        if "_split_" not in name:
            assert np.linalg.norm(low.blobs[name].data - blob.data) <= 0.02 * np.linalg.norm(blob.data) + 1e-6, name
    largest = max(float(entry.tensor.grad.norm()) for entry in exact.learnable if entry.tensor.grad is not None)
    for mine, expected in zip(low.learnable, exact.learnable, strict=True):
        assert (mine.tensor.grad is None) == (expected.tensor.grad is None), mine.layer
        if expected.tensor.grad is not None:
            assert mine.tensor.grad.dtype == torch.float32
            error = (mine.tensor.grad - expected.tensor.grad).norm()
            assert error <= 0.15 * expected.tensor.grad.norm() + 0.005 * largest, f"{mine.layer} {mine.index}"


def test_every_type_that_runs_in_16_bits_is_tested():
    lowered = {kind for kind in layer_types() if layer_class(kind).lowering is not Lowering.NEVER}
    assert {name.split()[0] for name in CASES} == lowered


@pytest.mark.parametrize("body", [*CASES.values(), MERGED], ids=[*CASES, "BatchNorm, Scale and ReLU"])
def test_a_type_in_16_bits_agrees_with_float32(body):
    low, exact = make(layer(body), dtype=torch.bfloat16), make(layer(body))
    for _ in range(2):  # twice: statistics, too
        low.clear_param_diffs()
        exact.clear_param_diffs()
        assert low.forward_backward() == pytest.approx(exact.forward_backward(), rel=0.02)
    assert {kind_of(low, name) for name in ("a", "y", "ip")} == {torch.bfloat16}
    assert {kind_of(low, name) for name in ("x", "t", "loss", "accuracy")} == {torch.float32}
    assert low.blobs["y"].data.dtype == np.float32
    assert_near(low, exact)
    assert low.evaluate() == pytest.approx(exact.evaluate(), rel=0.02)


@pytest.mark.parametrize("body", NEVER.values(), ids=NEVER)
def test_what_16_bits_cannot_hold_stays_float32(body):
    low, exact = make(layer(body), dtype=torch.bfloat16), make(layer(body))
    low.forward_backward()
    exact.forward_backward()
    assert (kind_of(low, "a"), kind_of(low, "y")) == (torch.bfloat16, torch.float32)
    assert_near(low, exact)


def test_float32_is_not_changed():
    net = make(layer(CASES["Concat"]))
    assert net.module.plan.low is None
    assert all(call.layer in net.layers for call in net.module.plan.calls)


def test_a_value_is_converted_once():
    net = make(layer(CASES["Concat"]), dtype=torch.bfloat16)
    assert [call.layer.type for call in net.module.plan.calls].count("Convert") == 2  # x for two layers; ip for two


def test_shared_weights_get_the_sum_in_float32():
    def shared(bottom: str, top: str) -> str:
        return f"""layer {{ name: "{top}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" param {{ name: "w" }}
          inner_product_param {{ num_output: 160 bias_term: false weight_filler {{ type: "xavier" }} }} }}"""

    parts = [shared("a", "c"), shared("b", "d"), layer(CASES["Eltwise"]).replace(LEFT, "")]
    parts[2] = parts[2].replace('"a"', '"c"').replace('"b"', '"d"')
    low, exact = make(*parts, dtype=torch.bfloat16), make(*parts)
    for net in (low, exact):
        net.forward_backward()
    assert len(low.learnable) == len({id(entry.tensor) for entry in low.learnable})
    assert_near(low, exact)


def test_weights_shared_under_another_shape():
    one = """layer { name: "one" type: "InnerProduct" bottom: "a" top: "c" param { name: "w" }
      inner_product_param { num_output: 8 bias_term: false weight_filler { type: "xavier" } } }"""
    two = """layer { name: "two" type: "InnerProduct" bottom: "b" top: "y" param { name: "w" share_mode: PERMISSIVE }
      inner_product_param { num_output: 8 bias_term: false transpose: true weight_filler { type: "xavier" } } }
      layer { name: "side" type: "EuclideanLoss" bottom: "c" bottom: "y" top: "side" }"""
    low, exact = make(one, two, dtype=torch.bfloat16), make(one, two)
    for net in (low, exact):
        net.forward_backward()
    assert_near(low, exact)


def test_frozen_weights_get_no_gradient():
    body = CASES["Convolution"].replace(
        "convolution_param", "param { lr_mult: 0 } param { lr_mult: 1 } convolution_param"
    )
    low, exact = make(layer(body), dtype=torch.bfloat16), make(layer(body))
    for net in (low, exact):
        net.forward_backward()
    assert [entry.tensor.grad for entry in low.learnable if entry.layer == "layer" and entry.index == 0] == [None]
    assert_near(low, exact)


def test_gradients_of_several_runs_add_up():
    once, thrice = (make(layer(CASES["ReLU"]), dtype=torch.bfloat16) for _ in range(2))
    once.forward_backward()
    for _ in range(3):
        thrice.forward_backward()
    for name in ("first", "ip"):
        np.testing.assert_allclose(thrice.params[name][0].diff, 3 * once.params[name][0].diff, rtol=1e-5, atol=1e-7)


def test_weights_that_were_edited_take_effect():
    net = make(layer(CASES["ReLU"]), dtype=torch.bfloat16)
    net.evaluate()
    first = net.blobs["ip"].data.copy()
    net.params["ip"][0].data[...] *= 2
    net.params["first"][0].data[...] *= 2
    net.params["first"][1].data[...] *= 2
    net.evaluate()
    np.testing.assert_allclose(net.blobs["ip"].data, 4 * first, rtol=0.02, atol=1e-3)
    assert net.params["ip"][0].data.dtype == np.float32


def test_held_arrays_show_the_next_run_in_float32():
    net = make(layer(CASES["ReLU"]), dtype=torch.bfloat16)
    net.forward_backward()
    view = net.blobs["y"].data
    net.blobs["x"].data[...] *= -1
    net.forward_backward()
    assert net.blobs["y"].data is view
    assert net.blobs["y"].tensor.dtype == torch.float32
    np.testing.assert_allclose(view, np.where(net.blobs["a"].data > 0, 1, 0.1) * net.blobs["a"].data, rtol=0.01)


def test_layer_by_layer_is_float32():
    low, exact = make(layer(CASES["ReLU"]), dtype=torch.bfloat16), make(layer(CASES["ReLU"]))
    low.evaluate()
    assert low.blobs["y"].diff.dtype == np.float32
    assert low.forward_loss() == exact.forward_loss()


def test_a_users_own_backward_reaches_the_weights():
    net = make(layer(CASES["ReLU"]), dtype=torch.bfloat16)
    loss, values = net.module()
    loss.backward()
    assert {value.dtype for value in values.values()} == {torch.float32}
    grads = {name: param.grad for name, param in net.module.named_parameters() if not name.startswith("second")}
    assert set(grads) == {"first.weight", "first.bias", "ip.weight", "ip.bias"}
    assert {grad.dtype for grad in grads.values()} == {torch.float32}


def test_dropout_follows_train_and_eval():
    net = make(layer(CASES["Convolution"]), dtype=torch.bfloat16)
    net.module.eval()
    net.evaluate()
    twins = [call.layer for call in net.module.plan.calls if call.layer.lowering is Lowering.ALWAYS]
    assert twins
    assert not any(twin.training for twin in twins)


# -- float16 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [CASES["PReLU"], MERGED, NEVER["Sigmoid"]], ids=["PReLU", "BatchNorm", "Sigmoid"])
def test_float16_gradients_are_scaled_inside_only(body):
    """With such a small loss, float16 gradients vanish without a scale, and overflow with too large a scale."""
    tiny = TAIL.replace('top: "loss"', 'top: "loss" loss_weight: 1e-5')
    spec = text.parse(HEAD + layer(body) + tiny, caffe_pb2.NetParameter())
    torch.manual_seed(1)
    exact = Net(spec, caffe.TRAIN)
    exact.blobs["x"].data[...] = np.random.default_rng(2).standard_normal(exact.blobs["x"].shape)
    scale = LossScale()
    low = NetModule(exact.steps, "low", precision=torch.float16, scale=scale)

    def gradients(run: Net | NetModule) -> list[torch.Tensor]:
        exact.clear_param_diffs()
        run.forward_backward()
        return [entry.tensor.grad.clone() for entry in exact.learnable if entry.tensor.grad is not None]

    expected = gradients(exact)
    floor = 0.01 * max(float(e.norm()) for e in expected)  # a bias before BatchNorm has a gradient of 0
    for value, fits in ((2.0**12, True), (2.0**16, True), (1.0, False)):
        scale.value = value
        pairs = zip(gradients(low), expected, strict=True)
        worst = max(float((g - e).norm() / (e.norm() + floor)) for g, e in pairs)
        assert (worst < 0.03) == fits, value
    scale.value = 2.0**40
    assert not all(g.isfinite().all() for g in gradients(low))


# -- what can and cannot be had ----------------------------------------------------------------------------------------


def test_float16_on_a_processor_is_an_error():
    with pytest.raises(NetError, match=r"FLOAT16 needs a GPU.* device cpu.* use BFLOAT16"):
        make(layer(CASES["ReLU"]), dtype=torch.float16)
    with pytest.raises(NetError, match=r"cannot run in torch\.float64; expected one of torch\.float32"):
        make(layer(CASES["ReLU"]), dtype=torch.float64)


def test_a_processor_without_bfloat16_is_warned_of_once(monkeypatch, caplog):
    monkeypatch.setattr(precision, "_has_bfloat16", lambda kind: False)
    precision._warn_if_slow.cache_clear()
    with caplog.at_level("WARNING", "caffe"):
        for _ in range(2):
            precision.check_precision(torch.bfloat16, torch.device("cpu"))
            precision.check_precision(torch.float32, torch.device("cpu"))
    precision._warn_if_slow.cache_clear()
    assert caplog.messages == ["this processor has no arithmetic for BFLOAT16: it is emulated, and slower than FLOAT"]


@pytest.mark.parametrize(("most", "wanted"), [(5, torch.float32), (4, torch.bfloat16)])
def test_products_of_few_rows_with_large_weights_train_in_float32(monkeypatch, most, wanted):
    monkeypatch.setattr(precision, "_LARGE_WEIGHT", 4 * 16 * 20)
    monkeypatch.setattr(precision, "_FEW_ROWS", most)
    low, exact = make(layer(CASES["Concat"]), dtype=torch.bfloat16), make(layer(CASES["Concat"]))
    assert low.params["ip"][0].count == 4 * 16 * 20
    low.forward_backward()
    exact.forward_backward()
    assert kind_of(low, "ip") is wanted
    assert_near(low, exact)
