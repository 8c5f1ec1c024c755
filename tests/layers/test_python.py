"""Layers that users write in Python: import, setup, runs, and errors in their code."""

from __future__ import annotations

import sys
import textwrap
import traceback

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import caffe
from caffe.errors import LayerError
from caffe.net import Net
from caffe.proto import caffe_pb2, text
from tests.layers.alone import alone

MODULE = """
import numpy as np
import caffe

class Affine(caffe.Layer):
    '''top = w * bottom + k, w learned, k from param_str.'''

    def setup(self, bottom, top):
        self.k = float(self.param_str)
        assert self.param_str_ == self.param_str
        self.blobs.add_blob(bottom[0].channels)
        self.blobs[0].data[...] = 2

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data * bottom[0].data + self.k

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum(0)
        if propagate_down[0]:
            bottom[0].diff[...] = self.blobs[0].data * top[0].diff

class Doubled(caffe.Layer):
    '''Works in place.'''

    def forward(self, bottom, top):
        assert top[0] is bottom[0]
        top[0].data[...] *= 2

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] *= 2

class Iterates(caffe.Layer):
    def reshape(self, bottom, top):
        for blob in top:
            blob.reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        for number, blob in enumerate(top):
            blob.data[...] = bottom[0].data + number

class Counter(caffe.Layer):
    '''A source; the top's shape grows with every run.'''

    def setup(self, bottom, top):
        self.count = 0
        top[0].reshape(1, 2)

    def forward(self, bottom, top):
        self.count += 1
        top[0].reshape(self.count, 2)
        top[0].data[...] = self.count

class Phase(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape()

    def forward(self, bottom, top):
        top[0].data[()] = self.phase

class Fails(caffe.Layer):
    def setup(self, bottom, top):
        self.fail("setup")

    def reshape(self, bottom, top):
        self.fail("reshape")
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        self.fail("forward")

    def backward(self, top, propagate_down, bottom):
        self.fail("backward")

    def fail(self, where):
        if where == self.param_str:
            raise ValueError("bad luck")

class Forward(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data

class Empty(caffe.Layer):
    pass

class Alien:
    pass
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """Write the user's module to the working directory."""
    (tmp_path / "mylayers.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("mylayers", None)
    return tmp_path / "mylayers.py"


def python(name, *shapes, param="", tops=1, phase=caffe_pb2.TRAIN, module="mylayers"):
    options = f'python_param {{ module: "{module}" layer: "{name}" param_str: "{param}" }}'
    return alone("Python", shapes, options, tops, phase)


def net(layers, phase=caffe_pb2.TRAIN):
    data = 'force_backward: true layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 5 dim: 3 } } }'
    return Net(text.parse(textwrap.dedent(data + layers), caffe_pb2.NetParameter()), phase)


def layer_text(name, bottom="x", top="y", param="", more=""):
    bottoms = f'bottom: "{bottom}"' if bottom else ""
    options = f'python_param {{ module: "mylayers" layer: "{name}" param_str: "{param}" }}'
    return f' layer {{ name: "own" type: "Python" {bottoms} top: "{top}" {options} {more} }}'


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_bottoms_and_parameters(dtype):
    layer = python("Affine", (5, 3), param="0.5").to(dtype)
    with torch.no_grad():
        layer.tensors[0].fill_(7)
    x = torch.randn(5, 3, dtype=dtype, requires_grad=True)
    (top,) = layer(x)
    torch.testing.assert_close(top.detach(), 7 * x.detach() + 0.5)
    weight = torch.randn(5, 3, dtype=dtype)
    (top * weight).sum().backward()
    torch.testing.assert_close(x.grad, 7 * weight)
    torch.testing.assert_close(layer.tensors[0].grad, (weight * x.detach()).sum(0))


def test_both_runners_agree_and_parameter_diffs_accumulate():
    text_ = layer_text("Affine", param="1") + (
        ' layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }'
    )
    stepwise, fused = net(text_), net(text_)
    values = np.arange(15, dtype=np.float32).reshape(5, 3)
    for each in (stepwise, fused):
        each.blobs["x"].data[...] = values
        each.clear_param_diffs()
    for _ in range(2):
        loss = stepwise.forward_loss()
        stepwise.backward()
        assert fused.forward_backward() == pytest.approx(loss)
    expected = 2 * values.sum(0)
    np.testing.assert_allclose(stepwise.params["own"][0].diff, expected)
    np.testing.assert_allclose(fused.params["own"][0].diff, expected)
    np.testing.assert_allclose(stepwise.blobs["x"].diff, 2)


def test_a_change_of_the_parameter_is_seen_by_the_layer():
    user = net(layer_text("Affine", param="0"))
    user.blobs["x"].data[...] = 1
    user.params["own"][0].data[...] = 7
    assert (user.forward()["y"] == 7).all()


def test_in_place_layer_changes_the_blob_once():
    user = net(layer_text("Doubled", top="x"))
    user.blobs["x"].data[...] = 3
    user.forward()
    assert (user.blobs["x"].data == 6).all()
    user.blobs["x"].diff[...] = 5
    user.backward()
    assert (user.blobs["x"].diff == 10).all()
    given = torch.ones(5, 3)
    _, blobs = user.module(x=given)
    assert (blobs["x"] == 2).all()
    assert (given == 1).all()


def test_the_layer_does_not_change_its_bottom():
    x = torch.ones(5, 3)
    python("Affine", (5, 3), param="0.5")(x)
    assert (x == 1).all()


def test_iterating_top_in_a_python_layer_works():
    tops = python("Iterates", (2, 3), tops=3)(torch.zeros(2, 3))
    assert [top.unique().item() for top in tops] == [0, 1, 2]


def test_source_without_bottoms_may_change_its_shape():
    user = net(layer_text("Counter", bottom=""))
    assert user.blobs["y"].shape == (1, 2)
    for count in (1, 2, 3):
        assert user.forward()["y"].tolist() == [[count, count]] * count


def test_earlier_tops_keep_their_values():
    layer = python("Forward", (2, 3))
    (first,), (second,) = layer(torch.zeros(2, 3)), layer(torch.ones(2, 3))
    assert (first.unique().item(), second.unique().item()) == (0, 1)


@pytest.mark.parametrize("phase", [caffe_pb2.TRAIN, caffe_pb2.TEST])
def test_phase_is_a_number(phase):
    assert python("Phase", phase=phase)()[0].item() == phase
    assert (caffe.TRAIN, caffe.TEST) == (caffe_pb2.TRAIN, caffe_pb2.TEST)


def test_shapes_follow_the_bottoms():
    user = net(layer_text("Affine", param="0"))
    user.blobs["x"].reshape(2, 3)
    user.reshape()
    assert user.blobs["y"].shape == (2, 3)


def test_fake_tensors_give_fake_tops():
    layer = python("Affine", (5, 3), param="0")
    with FakeTensorMode():
        (top,) = layer(torch.empty(5, 3, device="cuda"))
    assert (top.shape, top.device.type) == ((5, 3), "cuda")


@pytest.mark.parametrize("where", ["setup", "reshape"])
def test_error_while_the_net_is_built_names_the_layer_and_line(where, module):
    line = MODULE.splitlines().index('            raise ValueError("bad luck")') + 1
    with pytest.raises(
        LayerError, match=rf'"own" \(Python\): {where} of mylayers.Fails failed .*mylayers.py:{line}'
    ) as e:
        net(layer_text("Fails", param=where))
    assert "ValueError: bad luck" in str(e.value)


def stepwise(user):
    user.forward()
    user.backward()


def fused(user):
    user.module(x=torch.zeros(5, 3, requires_grad=True))[0].backward()


@pytest.mark.parametrize("run", [stepwise, fused])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_error_in_a_run_names_the_layer_and_keeps_the_users_traceback(where, run):
    user = net(layer_text("Fails", param=where, more="loss_weight: 1"))
    with pytest.raises(LayerError, match=rf'"own" \(Python\): {where} of mylayers.Fails failed .*bad luck') as caught:
        run(user)
    cause = caught.value.__cause__
    assert isinstance(cause, ValueError)
    assert [frame.name for frame in traceback.extract_tb(cause.__traceback__)][-2:] == [where, "fail"]


def test_missing_methods_are_explained():
    with pytest.raises(LayerError, match=r"Empty has no method forward\(bottom, top\)"):
        python("Empty", (2, 3))(torch.zeros(2, 3))
    (top,) = python("Forward", (2, 3))(torch.zeros(2, 3, requires_grad=True))
    with pytest.raises(LayerError, match=r"Forward has no method backward\(top, propagate_down, bottom\)"):
        top.sum().backward()


@pytest.mark.parametrize(
    ("module_name", "name", "message"),
    [
        ("no_such_module_x", "L", 'no module "no_such_module_x"; looked in the working directory'),
        ("mylayers.inner", "L", 'no module "mylayers.inner"'),
        ("mylayers", "Afine", 'has no class "Afine"; did you mean "Affine"'),
        ("mylayers", "np", 'has no class "np"'),
        ("mylayers", "Alien", "class mylayers.Alien must derive from caffe.Layer"),
        ("", "Affine", "needs python_param"),
    ],
)
def test_missing_module_class_or_base_is_an_error(module_name, name, message):
    with pytest.raises(LayerError, match=message):
        python(name, (2, 3), module=module_name)


def test_error_inside_the_module_is_not_taken_for_a_missing_module(module):
    module.write_text("import no_such_module_y\n")
    with pytest.raises(
        LayerError, match=r"import of mylayers failed \(.*mylayers.py:1\): ModuleNotFoundError"
    ) as caught:
        python("Affine", (2, 3))
    assert caught.value.__cause__.name == "no_such_module_y"


def test_share_in_parallel_is_rejected_where_there_are_several_processes(monkeypatch):
    options = 'python_param { module: "mylayers" layer: "Forward" share_in_parallel: true }'
    assert alone("Python", ((2, 3),), options).guest.user.share_in_parallel
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(LayerError, match="share_in_parallel"):
        alone("Python", ((2, 3),), options)
