"""Recorded passes of nets whose layers have effects: a replay repeats the effects, or the pass is not recorded."""

from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest
import torch

import caffe
from caffe.layers import Layer, base
from caffe.layers.support.effects import Effects
from caffe.net.engines.cudagraph import WARM_UP
from caffe.proto import caffe_pb2, text
from tests.film import Film

INPUT = """
layer { name: "in" type: "Input" top: "x" top: "t" top: "cont"
  input_param { shape { dim: 4 dim: 3 dim: 5 } shape { dim: 4 } shape { dim: 4 dim: 3 } } }
"""
LOSS = """
layer { name: "ip" type: "InnerProduct" bottom: "y" top: "z"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "z" bottom: "t" top: "loss" }
"""
RECURRENT = """
layer { name: "one" type: "%s" bottom: "x" bottom: "cont" top: "y"
  recurrent_param { num_output: 7 weight_filler { type: "xavier" } %s } }
"""
REPEATED = {
    "BatchNorm": 'layer { name: "one" type: "BatchNorm" bottom: "x" top: "y" }',
    "LSTM": RECURRENT % ("LSTM", ""),
    "RNN": RECURRENT % ("RNN", ""),
    "Dropout": 'layer { name: "one" type: "Dropout" bottom: "x" top: "y" }',
    "Pooling": """
layer { name: "r" type: "Reshape" bottom: "x" top: "r" reshape_param { shape { dim: 4 dim: 1 dim: 3 dim: 5 } } }
layer { name: "s" type: "Sigmoid" bottom: "r" top: "s" }
layer { name: "one" type: "Pooling" bottom: "s" top: "y" pooling_param { pool: STOCHASTIC kernel_size: 3 } }""",
}


@pytest.fixture(autouse=True)
def anywhere(monkeypatch):
    monkeypatch.setattr("caffe.net.run.module.recorded", lambda device: True)
    monkeypatch.setattr(base.LAYERS, "items", dict(base.LAYERS.items))


def net_of(layers: str) -> caffe.Net:
    torch.manual_seed(1)
    return caffe.Net(text.parse(INPUT + layers + LOSS, caffe_pb2.NetParameter()), caffe.TRAIN)


def film_of(net: caffe.Net) -> Film:
    film = Film(net.module)
    net.module.record_on(net.device, film)
    return film


def feed(net: caffe.Net, step: int) -> None:
    rng = np.random.default_rng(step)
    net.blobs["x"].data[...] = rng.standard_normal(net.blobs["x"].shape)
    net.blobs["t"].data[...] = rng.integers(0, 3, net.blobs["t"].shape)
    net.blobs["cont"].data[...] = rng.integers(0, 4, net.blobs["cont"].shape) > 0


def same_steps(layers: str, steps: int = 8) -> tuple[caffe.Net, Film]:
    """Run the net with and without recording; assert that all steps agree."""
    net, plain = net_of(layers), net_of(layers)
    film = film_of(net)
    plain.module.record = None
    for step in range(steps):
        losses = []
        for each in (net, plain):
            feed(each, step)
            torch.manual_seed(step)
            each.clear_param_diffs()
            losses.append(each.forward_backward())
        assert losses[0] == pytest.approx(losses[1], rel=1e-5), step
        for mine, theirs in zip(net.learnable, plain.learnable, strict=True):
            if theirs.tensor.grad is not None:
                torch.testing.assert_close(mine.tensor.grad, theirs.tensor.grad, rtol=1e-4, atol=1e-6)
        for mine, theirs in zip(net.module.buffers(), plain.module.buffers(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    return net, film


@pytest.mark.parametrize("layers", REPEATED.values(), ids=REPEATED)
def test_what_a_graph_repeats_is_recorded(layers, caplog):
    net, film = same_steps(layers)
    assert (film.records, film.replays) == (1, 8 - WARM_UP)
    assert net.layer_dict["one"].effects_now
    assert "CUDA graph" not in caplog.text


def refused(layers: str, caplog, *words: str) -> None:
    _, film = same_steps(layers)
    assert (film.records, film.replays) == (0, 0) or "another buffer" in words
    told = [record.message for record in caplog.records if "CUDA graph" in record.message]
    assert len(told) == 1
    for word in words:
        assert word in told[0]


def test_a_python_layer_has_recording_refused(caplog, tmp_path, monkeypatch):
    (tmp_path / "halves_in_python.py").write_text(
        textwrap.dedent("""
            import caffe

            class Half(caffe.Layer):
                def reshape(self, bottom, top):
                    top[0].reshape(*bottom[0].data.shape)

                def forward(self, bottom, top):
                    top[0].data[...] = bottom[0].data / 2

                def backward(self, top, propagate_down, bottom):
                    bottom[0].diff[...] = top[0].diff / 2
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    layer = 'layer { name: "half" type: "Python" bottom: "x" top: "y" python_param { module: "M" layer: "Half" } }'
    refused(layer.replace("M", "halves_in_python"), caplog, 'layer "half" (Python) must be called each time')
    sys.modules.pop("halves_in_python")


def test_filter_has_recording_refused(caplog):
    select = """
layer { name: "cut" type: "Slice" bottom: "cont" top: "cont0" top: "rest" slice_param { axis: 1 slice_point: 1 } }
layer { name: "as_one" type: "Reshape" bottom: "cont0" top: "c" reshape_param { shape { dim: 4 } } }
layer { name: "pick" type: "Filter" bottom: "x" bottom: "c" top: "f" propagate_down: true propagate_down: false }
layer { name: "sum" type: "Reduction" bottom: "f" top: "side" loss_weight: 1 }
layer { name: "y" type: "Power" bottom: "x" top: "y" }
"""
    refused(select, caplog, 'layer "pick" (Filter) must be called each time')


def test_a_layer_of_ones_own_that_must_be_called_has_recording_refused(caplog):
    class CountsInPython(Layer, options={}):
        effects = Effects.CALLS
        count = 0

        def forward(self, x):
            if base.has_values(x):
                self.count += 1
            return x * self.count

    layer = 'layer { name: "own" type: "CountsInPython" bottom: "x" top: "y" }'
    refused(layer, caplog, 'layer "own" (CountsInPython) must be called each time')


def test_a_layer_that_does_not_say_that_it_replaces_its_buffer_is_found_out(caplog):
    class Replaces(Layer, options={}):
        count: torch.Tensor

        def setup(self, x):
            self.add_blob("count", (1,), trained=False)

        def forward(self, x):
            if base.has_values(x):
                self.count = self.count + 1
            return x * self.count

    layer = 'layer { name: "own" type: "Replaces" bottom: "x" top: "y" }'
    refused(layer, caplog, 'layer "own" (Replaces) has', "another buffer")


def test_recurrent_layers_that_log_their_steps_have_recording_refused(caplog):
    refused(RECURRENT % ("LSTM", "debug_info: true"), caplog, 'layer "one" (LSTM) must be called each time')


def test_buffers_at_another_address_are_recorded_again():
    net, film = same_steps(REPEATED["LSTM"])
    layer = net.layer_dict["one"]
    layer.state = layer.state.clone()
    for step in range(WARM_UP + 2):
        feed(net, step)
        net.forward_backward()
    assert film.records == 2


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_the_state_of_a_recurrent_layer_stays_in_its_place(kind):
    net = net_of(RECURRENT % (kind, ""))
    feed(net, 1)
    net.forward_backward()
    state = net.layer_dict["one"].state
    before = state.clone()
    net.forward_backward()
    assert net.layer_dict["one"].state is state
    assert not torch.equal(state, before)


def test_labels_are_not_checked_while_a_graph_is_recorded():
    net, _ = same_steps(REPEATED["BatchNorm"])
    net.blobs["t"].data[...] = 9
    with pytest.raises(caffe.errors.LayerError, match="holds the label 9"):
        net.forward()
