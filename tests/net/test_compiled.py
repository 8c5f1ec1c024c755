"""A net with torch.compile computes the same results as without it."""

from __future__ import annotations

import contextlib
import os
import warnings

import numpy as np
import pytest
import torch

import caffe
from caffe import models
from caffe.errors import CaffeError
from caffe.layers import Layer, base
from caffe.net import Net
from caffe.net.engines.compiled import Compiled, _CompiledRun, check_compiler
from caffe.proto import caffe_pb2, text

INPUTS = 'layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 5 dim: 3 dim: 9 dim: 8 } '
INPUTS += "shape { dim: 5 } } }"
BODY = """
layer { name: "conv" type: "Convolution" bottom: "x" top: "c" param { lr_mult: 1 } param { lr_mult: 0 }
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "scale" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true filler { value: 1.5 } } }
layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }
layer { name: "lrn" type: "LRN" bottom: "c" top: "n" lrn_param { alpha: 0.1 } }
layer { name: "pool" type: "Pooling" bottom: "n" top: "p" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "prelu" type: "PReLU" bottom: "p" top: "p" }
layer { name: "drop" type: "Dropout" bottom: "p" top: "p" dropout_param { dropout_ratio: 0.25 } }
layer { name: "reindex" type: "BatchReindex" bottom: "p" bottom: "t" top: "r"
  propagate_down: true propagate_down: false }
layer { name: "frozen" type: "InnerProduct" bottom: "x" top: "f" param { lr_mult: 0 } param { lr_mult: 0 }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "r" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "side" type: "InnerProduct" bottom: "r" top: "side" propagate_down: false
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Eltwise" bottom: "ip" bottom: "f" bottom: "side" top: "s" }
layer { name: "prob" type: "Softmax" bottom: "s" top: "prob" }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "t" top: "loss" include { phase: TRAIN } }'
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
needs_compiler = pytest.mark.skipif(
    not any(os.access(os.path.join(path, "g++"), os.X_OK) for path in os.environ["PATH"].split(os.pathsep)),
    reason="no g++ here",
)


def make(phase: int, **options: torch.dtype) -> Net:
    torch.manual_seed(1)
    net = Net(text.parse(INPUTS + BODY + LOSS, caffe_pb2.NetParameter()), phase, **options)
    net.layer_dict["norm"].variance.fill_(2)
    net.layer_dict["norm"].factor.fill_(1.5)
    feed(net, 2)
    return net


def feed(net: Net, seed: int) -> None:
    rng = np.random.default_rng(seed)
    net.blobs["x"].data[...] = rng.standard_normal(net.blobs["x"].shape)
    net.blobs["t"].data[...] = rng.integers(0, 4, 5)


def check_training(net: Net, twin: Net) -> None:
    for seed in (2, 3):
        for each in (net, twin):
            each.clear_param_diffs()
            feed(each, seed)
        losses = []
        for each in (net, twin):
            caffe.set_random_seed(seed)
            losses.append(each.forward_backward())
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        np.testing.assert_allclose(net.blobs["prob"].data, twin.blobs["prob"].data, rtol=1e-4, atol=1e-6)
        for mine, expected in zip(net.learnable, twin.learnable, strict=True):
            np.testing.assert_allclose(mine.tensor.detach(), expected.tensor.detach(), rtol=1e-5, err_msg=mine.layer)
            grads = [entry.tensor.grad for entry in (mine, expected)]
            assert (grads[0] is None) == (grads[1] is None), mine.layer
            if grads[1] is not None:
                noise = 1e-5 * float(grads[1].abs().max()) + 1e-7
                np.testing.assert_allclose(*grads, rtol=1e-4, atol=noise, err_msg=mine.layer)


@pytest.fixture
def traced_only(monkeypatch):
    """Replace torch.compile by a function that returns its argument, to test the choice of compiled parts without a
    compiler.
    """
    monkeypatch.setattr("caffe.net.engines.compiled.check_compiler", lambda: None)
    monkeypatch.setattr("torch.compile", lambda module, **_: module)


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_pieces_compute_what_the_layers_do(traced_only):
    net, twin = make(caffe.TRAIN), make(caffe.TRAIN)
    net.compile()
    check_training(net, twin)
    cut = [getattr(getattr(piece, "layer", None), "name", "piece") for piece in net.module.engine.pieces]
    assert cut == ["in", "piece", "reindex", *["piece"] * 3, "loss"], "layers without a backward pass stand apart"
    loss, values = net.module(x=net.blobs["x"].tensor, t=net.blobs["t"].tensor)
    assert loss.requires_grad
    assert {"x", "t", "prob", "loss"} <= set(values)
    assert "c" not in values


def test_blobs_that_a_step_does_not_fill_are_an_error(traced_only):
    net, twin = make(caffe.TRAIN), make(caffe.TRAIN)
    net.compile(keep=["p"])
    for each in (net, twin):
        caffe.set_random_seed(1)
        each.forward_backward()
    np.testing.assert_allclose(net.blobs["p"].data, twin.blobs["p"].data, rtol=1e-5)
    with pytest.raises(CaffeError, match=r'blob "c".*net\.compile\(keep=\["c"\]\)'):
        _ = net.blobs["c"].data
    net.stepwise()
    net.forward_backward()
    view = net.blobs["c"].data
    net.compile()
    net.forward_backward()
    assert net.blobs["c"].data is view, "an array that is held is kept up to date"


@pytest.fixture
def compilations(monkeypatch):
    """Replace torch.compile by a function that warns as torch does while it compiles, at the first call for a shape.

    Yields the list of the runs that were made with the settings for compilation.
    """
    found, known = [], set()

    def compile_(function, **_):
        def run(given):
            if given[0].shape not in known:
                known.add(given[0].shape)
                warnings.warn("The .grad attribute of a Tensor that is not a leaf", stacklevel=1)
            return function(given)

        return run

    @contextlib.contextmanager
    def settings(**values):
        found.append(values)
        yield

    monkeypatch.setattr("torch.compile", compile_)
    monkeypatch.setattr("caffe.torch_internals.functorch_settings", lambda values: settings(**values))
    return found


def test_settings_for_compilation_apply_to_the_first_run_of_each_shape(compilations):
    """Later runs do not change torch's settings, and torch's warning about `.grad` is not shown."""

    class Doubled:
        def compute(self, given):
            return [2 * given[0]]

    run = _CompiledRun(Doubled(), frozen=False)
    for size in (2, 2, 3, 2, 3):
        assert torch.equal(run([torch.ones(size)], True)[0], torch.full((size,), 2.0))
    assert len(compilations) == 2
    run([torch.ones(4)], False)  # uncompiled: the weights are not frozen
    assert len(compilations) == 2


def test_frozen_weights_that_change_are_no_longer_frozen(traced_only, caplog):
    net, twin = make(caffe.TEST), make(caffe.TEST)
    net.optimize(compile=True)
    for _ in range(2):
        np.testing.assert_allclose(net.forward()["prob"], twin.forward()["prob"], rtol=1e-4, atol=1e-6)
    assert isinstance(net.runner.engine, Compiled)
    for each in (net, twin):
        each.params["ip"][1].data[0] = 3
    with caplog.at_level("WARNING", "caffe"):
        np.testing.assert_allclose(net.forward()["prob"], twin.forward()["prob"], rtol=1e-4, atol=1e-6)
    assert not isinstance(net.runner.engine, Compiled)
    assert "runs uncompiled" in caplog.text


def test_without_a_compiler_there_is_one_error(monkeypatch, own_cache):
    from torch._inductor import cpp_builder, exc  # importing it takes more than a second

    def missing() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    for compile_it in (make(caffe.TRAIN).compile, lambda: make(caffe.TEST).optimize(compile=True)):
        with pytest.raises(CaffeError, match=r"C\+\+ compiler.*apt install"):
            compile_it()


@pytest.mark.parametrize("given", [None, "mine"])
def test_what_is_compiled_is_kept_in_the_users_cache(given, monkeypatch, tmp_path):
    from torch._inductor import cpp_builder

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "g++")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", given or "")
    if given is None:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    check_compiler()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == (given or str(tmp_path / "cafetiere" / "inductor"))


@needs_compiler
@pytest.mark.long
def test_compiled_training(own_cache):
    net, twin = make(caffe.TRAIN), make(caffe.TRAIN)
    net.compile()
    check_training(net, twin)
    caffe.set_random_seed(1)
    loss = net.evaluate()
    caffe.set_random_seed(1)
    assert loss == pytest.approx(twin.evaluate(), rel=1e-5)
    assert own_cache.is_dir()


@needs_compiler
@pytest.mark.long
def test_compiled_training_in_bfloat16(own_cache):
    nets = [make(caffe.TRAIN, precision=each) for each in (torch.bfloat16, torch.bfloat16, torch.float32)]
    nets[0].compile()
    losses = []
    for each in nets:
        caffe.set_random_seed(2)
        losses.append(each.forward_backward())
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
    grads = [torch.cat([p.grad.flatten() for p in each.module.parameters() if p.grad is not None]) for each in nets]
    compiled, uncompiled = (float((grad - grads[2]).norm()) for grad in grads[:2])
    assert 0 < compiled < 2 * uncompiled, "as far from float32 as without compiling"


@needs_compiler
@pytest.mark.long
def test_compiled_inference(own_cache):
    net, twin = make(caffe.TEST), make(caffe.TEST)
    net.optimize(compile=True)
    for seed in (2, 3):
        for each in (net, twin):
            feed(each, seed)
        np.testing.assert_allclose(net.forward()["prob"], twin.forward()["prob"], rtol=1e-4, atol=1e-6)
    assert isinstance(net.runner.engine, Compiled)


def test_a_layer_that_cannot_be_traced_is_named(monkeypatch):
    monkeypatch.setattr("caffe.net.engines.compiled.check_compiler", lambda: None)
    try:

        class LooksAtValues(Layer, options={}):
            def forward(self, x):
                return x if x.is_meta or x.sum() > 0 else -x

        net = with_own_layer()
        net.compile()
        with pytest.raises(CaffeError, match=r'"own" \(LooksAtValues\).*traceable = False'):
            net.forward_backward()
        LooksAtValues.traceable = False
        net = with_own_layer()
        monkeypatch.setattr("torch.compile", lambda module, **_: module)
        net.compile()
        net.forward_backward()
    finally:
        base.LAYERS.items.pop("LooksAtValues", None)


def with_own_layer() -> Net:
    own = 'layer { name: "own" type: "LooksAtValues" bottom: "p" top: "own" }\n'
    net_text = INPUTS + BODY.replace('layer { name: "reindex"', own + 'layer { name: "reindex"').replace(
        'bottom: "p" bottom: "t" top: "r"', 'bottom: "own" bottom: "t" top: "r"'
    )
    return Net(text.parse(net_text + LOSS, caffe_pb2.NetParameter()), caffe.TRAIN)


@pytest.mark.long
@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST], ids=["train", "test"])
@pytest.mark.parametrize("name", ["alexnet", "googlenet", "mobilenet_v2", "resnet18", "squeezenet"])
def test_the_classic_nets_can_be_traced(name, phase, monkeypatch):
    compile_it = torch.compile
    monkeypatch.setattr("caffe.net.engines.compiled.check_compiler", lambda: None)
    monkeypatch.setattr(
        "torch.compile", lambda module, options, **given: compile_it(module, backend="aot_eager", **given)
    )
    nets = [Net(getattr(models, name)(batch=2, train=phase == caffe.TRAIN), phase) for _ in range(2)]
    nets[1].share_with(nets[0])
    for layer in nets[0].layers:
        if layer.type == "BatchNorm":
            layer.variance.fill_(1)
            layer.factor.fill_(1)
    data = np.random.default_rng(1).standard_normal(nets[0].blobs["data"].shape)
    for net in nets:
        net.blobs["data"].data[...] = data
    results = []
    for net, compiled in zip(nets, (False, True), strict=True):
        caffe.set_random_seed(3)
        if phase == caffe.TRAIN:
            if compiled:
                net.compile()
            results.append(net.forward_backward())
        else:
            net.optimize(compile=compiled)
            results.append(net.forward()["prob"].copy())
    np.testing.assert_allclose(*results, rtol=1e-3, atol=1e-6)
