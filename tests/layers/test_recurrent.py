"""Recurrent layers: state between runs, continuation, the initial state, torch's kernel and a trained model."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from caffe.layers.base import as_tuple
from caffe.net import Net
from caffe.proto import caffe_pb2
from tests.conftest import shared
from tests.layers.alone import alone
from tests.replay import assert_close

T, N, F, D = 5, 3, 2, 4
STATES = {"LSTM": 2, "RNN": 1}


def recurrent(kind, static=0, expose=False, more="", shape=(T, N, F)):
    states = [(1, shape[1], D)] * STATES[kind] if expose else []
    shapes = [shape, shape[:2], *([(shape[1], static)] if static else []), *states]
    filler = 'weight_filler { type: "uniform" min: -0.9 max: 0.9 } bias_filler { type: "uniform" min: -0.9 max: 0.9 }'
    options = f"recurrent_param {{ num_output: {D} {filler} expose_hidden: {str(expose).lower()} {more} }}"
    torch.manual_seed(3)
    return alone(kind, shapes, options, tops=1 + len(states))


def inputs(steps=T, streams=N, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, streams, F, generator=generator, dtype=dtype, requires_grad=True)


def begins(steps=T, streams=N, dtype=torch.float64):
    """Return the indicators of sequences that start at the first step and continue to the end."""
    cont = torch.ones(steps, streams, dtype=dtype)
    cont[0] = 0
    return cont


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [("LSTM", [(16, 2), (16,), (16, 7), (16, 4)]), ("RNN", [(4, 2), (4,), (4, 7), (4, 4), (4, 4), (4,)])],
)
def test_blobs_have_the_order_and_shapes_of_caffe(kind, shapes):
    assert [tuple(blob.shape) for blob in recurrent(kind, static=7).tensors] == shapes
    assert [tuple(blob.shape) for blob in recurrent(kind).tensors] == [s for s in shapes if s[-1] != 7]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", STATES)
def test_two_runs_of_half_a_sequence_equal_one_run_of_the_whole(kind, dtype):
    x, cont = inputs(dtype=dtype), begins(dtype=dtype)
    whole = recurrent(kind).to(dtype)(x, cont)
    layer = recurrent(kind).to(dtype)
    halves = torch.cat([layer(x[:2], cont[:2]), layer(x[2:], cont[2:])])
    torch.testing.assert_close(halves, whole)


@pytest.mark.parametrize("kind", STATES)
def test_shape_inference_does_not_change_the_state(kind):
    layer, x, cont = recurrent(kind).double(), inputs(), begins()
    expected = recurrent(kind).double()(torch.cat([x, x]), torch.cat([cont, torch.ones_like(cont)]))[T:]
    layer(x, cont)
    for streams in (N, 7):
        top = layer.infer(torch.empty(11, streams, F, device="meta"), torch.empty(11, streams, device="meta"))
        assert top[0].shape == (11, streams, D)
    torch.testing.assert_close(layer(x, torch.ones_like(cont)), expected)


@pytest.mark.parametrize("kind", STATES)
def test_another_number_of_streams_starts_from_zeros(kind):
    layer = recurrent(kind).double()
    layer(inputs(), begins())
    x, ones = inputs(streams=7), torch.ones(T, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x, ones), recurrent(kind).double()(x, ones))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("step", [1, 2, T - 1])
@pytest.mark.parametrize("kind", STATES)
def test_cont_zero_forgets_what_was_before(kind, step, dtype):
    x, cont = inputs(dtype=dtype), begins(dtype=dtype)
    cont[step, 1] = 0
    y = recurrent(kind).to(dtype)(x, cont)
    by_itself = recurrent(kind).to(dtype)(x[step:, 1:2], cont[step:, 1:2])
    torch.testing.assert_close(y[step:, 1:2], by_itself)
    (gradient,) = torch.autograd.grad(y[step:, 1].sum(), x)
    assert (gradient[:step] == 0).all()
    assert (gradient[step:, 1] != 0).all()


@pytest.mark.parametrize("kind", STATES)
def test_exposed_state_gives_and_takes_what_the_layer_would_keep(kind):
    x, cont, ones = inputs(), begins(), torch.ones(T, N, dtype=torch.float64)
    keeps, exposes = recurrent(kind).double(), recurrent(kind, expose=True).double()
    state = [torch.full((1, N, D), 9.0, dtype=torch.float64)] * STATES[kind]
    for flags in (cont, ones):
        expected = keeps(x, flags)
        y, *state = exposes(x, flags, *state)
        torch.testing.assert_close(y, expected)
        assert [part.shape for part in state] == [(1, N, D)] * STATES[kind]


@pytest.mark.parametrize("kind", STATES)
def test_no_gradient_reaches_the_first_state_or_comes_from_the_last(kind):
    layer, x = recurrent(kind, expose=True).double(), inputs()
    state = [torch.ones(1, N, D, dtype=torch.float64, requires_grad=True) for _ in range(STATES[kind])]
    y, *last = layer(x, torch.ones(T, N, dtype=torch.float64), *state)
    assert not any(part.requires_grad for part in last)
    grads = torch.autograd.grad(y.sum(), [x, *state], allow_unused=True)
    assert (grads[0] != 0).all()
    assert grads[1:] == (None,) * STATES[kind]
    assert layer.exempt == tuple(range(1, 2 + STATES[kind]))


@pytest.mark.parametrize("kind", STATES)
def test_static_input_is_the_same_as_one_repeated_at_all_steps(kind):
    layer, x, cont = recurrent(kind, static=7).double(), inputs(), begins()
    static = torch.randn(N, 7, dtype=torch.float64)
    wide = recurrent(kind, shape=(T, N, F + 7)).double()
    with torch.no_grad():
        for name in layer._blob_names:
            if name not in ("weight_x", "weight_static"):
                getattr(wide, name).copy_(getattr(layer, name))
        wide.weight_x.copy_(torch.cat([layer.weight_x, layer.weight_static], 1))
    repeated = torch.cat([x, static.expand(T, N, 7)], 2)
    torch.testing.assert_close(layer(x, cont, static), wide(repeated, cont))


def test_lstm_by_the_kernel_of_torch_equals_the_steps_written_out(monkeypatch):
    generator = torch.Generator().manual_seed(5)
    first = torch.randn(1, N, D, generator=generator), torch.randn(1, N, D, generator=generator)
    cont = torch.ones(T, N)
    cont[0, 1] = 0
    results = []
    for written_out in (False, True):
        layer, x = recurrent("LSTM", expose=True), inputs(dtype=torch.float32)
        if written_out:
            monkeypatch.setattr(type(layer), "run_fused", None)
            monkeypatch.setattr("caffe.layers.recurrent.has_values", lambda x: False)
        tops = as_tuple(layer(x, cont, *first))
        weight = torch.randn(T, N, D, generator=torch.Generator().manual_seed(6))
        grads = torch.autograd.grad((tops[0] * weight).sum(), [x, *layer.tensors])
        results.append([*tops, *grads])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", STATES)
def test_fractions_and_zeros_of_cont_scale_the_state(kind):
    """The steps without torch's kernel are compared with the equations, by autograd."""
    layer, x = recurrent(kind).double(), inputs()
    cont = torch.rand(T, N, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    h, c = torch.zeros(2, N, D, dtype=torch.float64)
    expected = []
    for x_t, k in zip(x, cont.unsqueeze(-1), strict=True):
        gates = x_t @ layer.weight_x.t() + layer.bias + (k * h) @ layer.weight_h.t()
        if kind == "LSTM":
            i, f, o, g = gates.chunk(4, 1)
            c = k * f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            expected.append(h)
        else:
            h = gates.tanh()
            expected.append((h @ layer.weight_o.t() + layer.bias_o).tanh())
    torch.testing.assert_close(layer(x, cont), torch.stack(expected))


def test_forget_gate_gradient_takes_cont_and_sigmoid_as_one():
    c, cont = torch.full((1, 1, 1), 2.0, dtype=torch.float64), torch.full((1, 1), 0.5, dtype=torch.float64)
    x = torch.zeros(1, 1, 4, dtype=torch.float64, requires_grad=True)
    top, _ = alone("LSTMUnit", ((1, 1, 1), (1, 1, 4), (1, 1)), tops=2)(c, x, cont)
    (grad,) = torch.autograd.grad(top.sum(), x)
    assert grad[0, 0, 1].item() == pytest.approx(2 * 0.25 * (1 - 0.25))


def test_debug_info_logs_every_step(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("caffe"), "propagate", True)
    layer = recurrent("LSTM", more="debug_info: true").double()
    with caplog.at_level(logging.INFO, "caffe"):
        y = layer(inputs(), begins())
    lines = [record.getMessage() for record in caplog.records if "step" in record.getMessage()]
    assert len(lines) == T
    assert lines[1] == f"    [Forward] Layer one, step 2, top blob t0 data: {y[1].abs().mean().item():g}"


def adam_updates(path):
    """Return the last update of Adam before this .solverstate, computed with the rate and moments of its solver."""
    state = caffe_pb2.SolverState.FromString(path.read_bytes())
    history = [np.array(blob.data) for blob in state.history]
    rate = 0.01 * np.sqrt(1 - 0.999**state.iter) / (1 - 0.9**state.iter)
    half = len(history) // 2
    return [rate * m / (np.sqrt(v) + 1e-8) for m, v in zip(history[:half], history[half:], strict=True)]


def test_trained_model_gives_the_reference_outputs_and_gradients():
    folder = shared("models", "lstm")
    case = np.load(folder / "reference.npz")
    net = Net(folder / "lstm_train.prototxt", caffe_pb2.TRAIN, weights=folder / "lstm_iter_800.caffemodel")
    for name in ("x", "cont", "y"):
        net.blobs[name].data[...] = case[f"batch|in|{name}"]
    net.forward()
    net.clear_param_diffs()
    net.backward()
    for key in case.files:
        if key.startswith(("batch|blob|", "batch|out|")):
            assert_close(net.blobs[key.rsplit("|")[-1]].data, case[key], key, rtol=2e-5)
    names = [(name, index) for name, blobs in net.params.items() for index in range(len(blobs))]
    for (name, index), update in zip(names, adam_updates(folder / "lstm_iter_800.solverstate"), strict=True):
        diff = net.params[name][index].diff
        # the recorded diffs were added to the last update, which Caffe's solver leaves in the diffs
        stored = case[f"batch|diff|{name}|{index}"] - update.reshape(diff.shape)
        assert_close(diff, stored, f"gradient of {name}, {index}", rtol=2e-5, atol=1e-7)
    assert_close(net.blobs["h"].diff, case["batch|blobdiff|h"], "diff of h", rtol=2e-5)
    stepwise = {name: [blob.diff.copy() for blob in blobs] for name, blobs in net.params.items()}
    net.clear_param_diffs()
    net.forward_backward()
    for name, diffs in stepwise.items():
        for index, diff in enumerate(diffs):
            assert_close(net.params[name][index].diff, diff, f"{name} in one piece", rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "shapes", "tops", "options", "message"),
    [
        ("LSTM", ((5, 3, 2), (5, 3)), 1, "", "num_output is 0"),
        ("LSTM", ((5, 3), (5, 3)), 1, "num_output: 4", "at least 3 axes"),
        ("LSTM", ((5, 3, 2), (3, 5)), 1, "num_output: 4", "expected 5 3"),
        ("LSTM", ((5, 3, 2), (5, 3), (2, 7)), 1, "num_output: 4", "expected .N, .... with N = 3"),
        ("LSTM", ((5, 3, 2), (5, 3), (3, 7), (1, 3, 4)), 1, "num_output: 4", "expected 2 or 3 bottoms"),
        ("LSTM", ((5, 3, 2), (5, 3)), 1, "num_output: 4 expose_hidden: true", "expected 4 or 5 bottoms"),
        ("RNN", ((5, 3, 2), (5, 3), (1, 3, 4)), 1, "num_output: 4 expose_hidden: true", "and 2 tops"),
        ("RNN", ((5, 3, 2), (5, 3), (1, 3, 5)), 2, "num_output: 4 expose_hidden: true", "expected .1, 3, 4."),
    ],
)
def test_bottoms_that_do_not_fit_are_errors(kind, shapes, tops, options, message):
    with pytest.raises(LayerError, match=message):
        alone(kind, shapes, f"recurrent_param {{ {options} }}", tops)


def test_lstm_unit_names_the_shapes_it_expects():
    with pytest.raises(LayerError, match=r"expected \(1, N, D\), \(1, N, 4 D\) and \(1, N\)"):
        alone("LSTMUnit", ((1, 3, 2), (1, 3, 7), (1, 3)), tops=2)
