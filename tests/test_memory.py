"""The memory of blobs and parameters in single cases. tests.ownership tests random sequences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.memory import Memory
from tests.ownership.runner import mirrored

PRODUCT = """
input: "x" input_shape { dim: 2 dim: 3 } force_backward: true
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 bias_term: false } }
"""
FROZEN = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 2 dim: 2 } } }
layer { name: "bias" type: "Bias" bottom: "x" top: "h" }
layer { name: "ip" type: "InnerProduct" bottom: "h" top: "y" param { lr_mult: %s }
        inner_product_param { num_output: 2 bias_term: false } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""
SQUARE = """
input: "x" input_shape { dim: 2 dim: 4 } force_backward: true
layer { name: "square" type: "Power" bottom: "x" top: "y" power_param { power: 2 } }
"""
SLICE = 'layer { name: "slice" type: "Slice" bottom: "%s" top: "a" top: "b" slice_param { axis: 0 } }'
IN_PLACE = """
input: "x" input_shape { dim: 2 dim: 3 } force_backward: true
layer { name: "scale" type: "Scale" bottom: "x" top: "y" }
layer { name: "bias" type: "Bias" bottom: "y" top: "y" }
"""
TRAINED = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 2 dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 bias_term: false } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""


def net_of(text, phase=caffe.TEST):
    return caffe.Net(text_format.Parse(text, caffe.proto.caffe_pb2.NetParameter()), phase)


def memory_of(values, **how):
    memory = Memory((len(values),), torch.zeros(()))
    memory.write(torch.tensor(values), **how)
    return memory


@pytest.fixture
def copies(monkeypatch):
    """Make all arrays copies of the tensors, as on a GPU."""
    mirrored(monkeypatch.setattr)


def test_the_version_changes_at_each_access_while_an_array_is_a_view_of_the_value():
    memory = memory_of([1.0, 2.0])
    assert memory.version == memory.version
    array = memory.lend()
    before = memory.version
    array[0] = 5
    assert memory.version != before
    before = memory.version
    array[0] = 6
    del array
    assert memory.version != before
    assert memory.version == memory.version


def test_a_value_that_is_shared_is_not_written_through_a_later_array():
    value = torch.tensor([1.0, 2.0])
    memory = Memory((2,), value)
    memory.write(value)
    assert memory.share()
    memory.lend()[...] = 7
    assert value.tolist() == [1, 2]
    assert memory.read().tolist() == [7, 7]


def test_foreign_memory_is_not_shared_and_not_written():
    value = torch.tensor([1.0, 2.0])
    memory = Memory((2,), value)
    memory.write(value, foreign=True)
    assert not memory.share()
    memory.lend()[...] = 7
    assert value.tolist() == [1, 2]


def test_a_value_under_a_users_array_is_not_shared():
    memory = memory_of([1.0, 2.0])
    array = memory.lend()
    assert not memory.share()
    del array
    assert memory.share()


def test_a_value_that_the_user_has_replaced_is_not_held():
    """Another run can allocate the same address again."""
    value = torch.tensor([1.0, 2.0])
    memory = Memory((2,), value)
    memory.write(value, private=False)
    assert memory.holds(value)
    memory.lend()[...] = 7
    assert not memory.holds(value)


def test_an_array_that_shows_a_copy_does_not_stand_for_the_value():
    """The next value belongs to the net only, and other blobs may share it."""
    memory = memory_of([1.0, 2.0])
    array = memory.lend()
    memory.write(torch.tensor([3.0, 4.0]))
    assert array.tolist() == [3, 4]
    array[0] = 9
    assert memory.read().tolist() == [9, 4]


@pytest.mark.parametrize("rate", [0, 1])
def test_backward_uses_the_weights_that_are_shared_now(rate):
    net, other = net_of(FROZEN % rate), net_of(FROZEN % rate)
    weights = net.params["ip"][0].data[...] = np.arange(6).reshape(2, 3)
    other.forward()
    other.share_with(net)
    other.blobs["y"].diff[...] = 1
    other.backward(start="ip", end="ip")
    np.testing.assert_array_equal(other.blobs["h"].diff, [weights.sum(0)] * 2)


def test_a_layer_in_place_keeps_its_gradient_where_sharing_comes_before_backward():
    net, other = net_of(IN_PLACE), net_of(IN_PLACE)
    other.forward()
    other.share_with(net)
    other.blobs["y"].diff[...] = 1
    other.backward()
    np.testing.assert_array_equal(other.params["bias"][0].diff, [2, 2, 2])


@pytest.mark.parametrize("way", ["forward", "optimized", "evaluate", "module", "backward"])
def test_a_write_into_a_copy_of_weights_reaches_each_kind_of_run(way, copies):
    net = net_of(PRODUCT)
    net.blobs["x"].data[...] = 1
    if way == "optimized":
        net.optimize()
    net.forward()
    net.params["ip"][0].data[...] = 2
    if way == "module":
        got = net.module()[1]["y"].detach().numpy()
    elif way == "backward":
        net.blobs["y"].diff[...] = 1.5
        got = net.backward()["x"][:, :2]
    else:
        net.evaluate() if way == "evaluate" else net.forward()
        got = net.blobs["y"].data
    np.testing.assert_array_equal(got, np.full((2, 2), 6))


@pytest.fixture
def solver(copies):
    text = f'net_param {{ {TRAINED} }} base_lr: 0.5 lr_policy: "fixed"'
    made = caffe.get_solver(text_format.Parse(text, caffe.proto.caffe_pb2.SolverParameter()))
    made.net.blobs["x"].data[...] = 1
    made.net.params["ip"][0].data[...] = 1
    return made


def test_an_update_is_visible_in_kept_copies_of_data_and_diff(solver):
    blob = solver.net.params["ip"][0]
    data, diff = blob.data, blob.diff
    solver.step(1)
    np.testing.assert_array_equal(diff, np.full((2, 3), 1.5))
    np.testing.assert_array_equal(data, np.full((2, 3), -0.5))


def test_an_update_takes_over_what_is_written_into_copies_before(solver):
    blob = solver.net.params["ip"][0]
    blob.data[...] = 3
    blob.diff[...] = 2
    solver.apply_update()
    np.testing.assert_array_equal(blob.data, np.full((2, 3), 2))


def test_what_is_written_into_a_copy_does_not_survive_clearing_and_loading(solver, tmp_path):
    net = solver.net
    net.save(tmp_path / "a.caffemodel")
    data, diff = net.params["ip"][0].data, net.params["ip"][0].diff
    data[0], diff[0] = 5, 5
    net.copy_from(tmp_path / "a.caffemodel")
    net.clear_param_diffs()
    np.testing.assert_array_equal(data, np.ones((2, 3)))
    np.testing.assert_array_equal(diff, np.zeros((2, 3)))


def test_a_net_that_shares_weights_has_its_own_diff(solver):
    net, other = solver.net, net_of(TRAINED, caffe.TRAIN)
    kept = other.params["ip"][0].diff
    solver.step(1)
    other.share_with(net)
    kept[...] = 4
    net.forward()
    np.testing.assert_array_equal(net.params["ip"][0].diff, np.full((2, 3), 1.5))
    np.testing.assert_array_equal(other.params["ip"][0].diff, np.full((2, 3), 4))


def test_a_reshape_to_another_count_does_not_change_blobs_that_share_the_memory():
    first, second = Blob(2, 3), Blob(2, 3)
    second.share(first, (2, 3))
    first.data[...] = 1
    second.reshape(4, 3)
    assert first.shape == (2, 3)
    np.testing.assert_array_equal(first.data, np.ones((2, 3)))


def test_a_kept_array_follows_a_reshape_of_the_value_it_is_a_copy_of():
    memory = memory_of([1.0, 2.0, 3.0, 4.0])
    memory.share()
    array = memory.lend()
    memory.reshape((2, 2))
    array[0] = 9
    assert memory.read().tolist() == [[9, 2], [3, 4]]


class Weighted(caffe.Layer):
    """Multiplies its bottom by a parameter."""

    def setup(self, bottom, top):
        self.blobs.add_blob(1)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.blobs[0].data

    def backward(self, top, propagate_down, bottom):
        pass


def test_a_users_layer_works_on_the_parameters_that_are_shared_now():
    text = """
    input: "x" input_shape { dim: 2 dim: 3 }
    layer { name: "user" type: "Python" bottom: "x" top: "y"
            python_param { module: "tests.test_memory" layer: "Weighted" } }
    """
    net, other = net_of(text), net_of(text)
    net.params["user"][0].data[...] = 3
    other.share_with(net)
    other.blobs["x"].data[...] = 1
    np.testing.assert_array_equal(other.forward()["y"], np.full((2, 3), 3))


def test_the_generation_changes_with_each_write_except_through_the_value_itself():
    memory = memory_of([1.0, 2.0])
    memory.lend()[...] = 5
    before = memory.generation
    memory.write(torch.tensor([3.0, 4.0]))
    assert memory.generation != before
    memory.share()
    before = memory.generation
    memory.lend()[...] = 7
    assert memory.generation != before


def test_a_write_through_a_kept_array_of_weights_reaches_an_optimised_net():
    net = net_of(PRODUCT)
    net.blobs["x"].data[...] = 1
    net.optimize()
    kept = net.params["ip"][0].data
    for value in (1, 2):
        kept[...] = value
        np.testing.assert_array_equal(net.forward()["y"], np.full((2, 2), 3 * value))


def test_a_pass_adds_to_the_diff_that_an_update_left():
    text = f'net_param {{ {TRAINED} }} base_lr: 0.5 momentum: 0.9 lr_policy: "fixed"'
    solver = caffe.get_solver(text_format.Parse(text, caffe.proto.caffe_pb2.SolverParameter()))
    solver.net.blobs["x"].data[...] = 1
    solver.net.params["ip"][0].data[...] = 1
    solver.step(1)  # the gradient is 3, the update 1.5, the weights become -0.5
    solver.net.forward_backward()
    np.testing.assert_allclose(solver.net.params["ip"][0].diff, np.full((2, 3), 1.5 - 1.5))


def test_backward_uses_the_current_bottom():
    net = net_of(SQUARE)
    net.blobs["x"].data[...] = 1
    net.forward()
    net.blobs["x"].tensor = torch.full((2, 4), 3.0)
    net.blobs["y"].diff[...] = 1
    np.testing.assert_array_equal(net.backward()["x"], np.full((2, 4), 6))


def test_backward_of_a_layer_in_place_does_not_mind_a_write_into_its_top():
    net = net_of(SQUARE + 'layer { name: "s" type: "Sigmoid" bottom: "y" top: "y" }')
    net.forward()
    net.blobs["y"].diff[...] = 1
    net.blobs["y"].tensor.zero_()
    net.backward(start="s", end="s")
    np.testing.assert_array_equal(net.blobs["y"].diff, np.full((2, 4), 0.25))


def test_a_user_who_writes_a_bottom_does_not_write_the_tops_that_lie_in_it():
    for run in (caffe.Net.forward, caffe.Net.evaluate):
        net = net_of(f'input: "x" input_shape {{ dim: 2 dim: 4 }} {SLICE % "x"}', caffe.TRAIN)
        kept = net.blobs["x"].data
        run(net)
        kept[...] = 9
        assert not net.blobs["a"].data.any()


def test_a_user_who_writes_a_bottom_does_not_write_a_top_that_is_it():
    net = net_of("""
    input: "x" input_shape { dim: 2 }
    layer { name: "drop" type: "Dropout" bottom: "x" top: "y" }
    layer { name: "end" type: "Power" bottom: "y" top: "end" }
    """)
    kept = net.blobs["x"].data
    net.forward()
    kept[...] = 9
    assert not net.blobs["y"].data.any()


def test_a_write_to_a_top_does_not_change_the_bottom_of_which_it_is_a_view():
    for run in (caffe.Net.forward, caffe.Net.evaluate):
        net = net_of(SQUARE + SLICE % "y", caffe.TRAIN)
        run(net)
        net.blobs["a"].data[...] = 9
        assert not net.blobs["y"].data.any()


def test_a_write_to_the_diff_of_a_top_does_not_change_the_diffs_of_the_bottoms():
    net = net_of("""
    input: "a" input_shape { dim: 2 dim: 4 } input: "b" input_shape { dim: 2 dim: 4 } force_backward: true
    layer { name: "x" type: "Power" bottom: "a" top: "x" }
    layer { name: "z" type: "Power" bottom: "b" top: "z" }
    layer { name: "both" type: "Concat" bottom: "x" bottom: "z" top: "y" }
    """)
    net.forward()
    kept = net.blobs["y"].diff
    kept[...] = 1
    net.backward()
    kept[...] = 9
    for name in "xz":
        np.testing.assert_array_equal(net.blobs[name].diff, np.ones((2, 4)))


def test_a_pass_of_the_whole_net_begins_with_the_diff_that_a_user_wrote():
    net = net_of(PRODUCT, caffe.TRAIN)
    net.blobs["x"].data[...] = 1
    net.blobs["y"].diff[...] = 2
    net.forward_backward()
    np.testing.assert_array_equal(net.params["ip"][0].diff, np.full((2, 3), 4))


def shaped_net(tmp_path, layer: str) -> caffe.Net:
    """Return a net of an input of 2 x 3, a layer whose top has the same elements in another shape, and a Python layer
    that keeps its bottom.
    """
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
        'layer { name: "ip" type: "Power" bottom: "x" top: "ip" power_param { scale: 3 } }'
        f'layer {{ name: "re" {layer} bottom: "ip" top: "re" }}'
        'layer { name: "py" type: "Python" bottom: "re" top: "py" '
        'python_param { module: "tests.ownership.guests" layer: "KeepBottom" } }'
    )
    return caffe.Net(str(path), caffe.TEST)


@pytest.mark.parametrize("first", ["forward", "forward_backward"])
@pytest.mark.parametrize(
    "layer",
    [
        'type: "Reshape" reshape_param { shape { dim: 0 dim: 3 dim: -1 } }',
        'type: "Flatten" flatten_param { axis: 0 }',
        'type: "Power"',
    ],
)
def test_an_array_that_a_layer_takes_within_a_run_shows_later_runs(layer, first, tmp_path):
    net = shaped_net(tmp_path, layer)
    net.optimize()
    getattr(net, first)()
    for rows, value in ((4, 2), (4, 5), (3, 1), (3, 7)):
        if net.blobs["x"].shape[0] != rows:
            net.blobs["x"].reshape(rows, 3)
        net.blobs["x"].data[...] = value
        assert np.all(net.forward()["py"] == 6 * value)


@pytest.mark.parametrize("private", [True, False])
def test_a_lent_array_of_another_shape_shows_new_values(private):
    memory = Memory((2, 6), torch.zeros(()))
    memory.write(torch.zeros(2, 6), private=private)
    array = memory.lend()
    memory.write(torch.arange(12.0).view(4, 3))
    assert memory.shape == (4, 3)
    assert array.ravel().tolist() == list(range(12))
    array[0, 0] = 9
    assert memory.read()[0, 0] == 9
    assert memory.read().shape == (4, 3)


def test_a_lent_array_over_the_value_itself_follows_another_shape():
    memory = Memory((2, 6), torch.zeros(()))
    memory.write(torch.zeros(2, 6))
    array = memory.lend()
    memory.write(memory.read().view(4, 3))
    assert memory.shape == (4, 3)
    array[0, 0] = 9
    assert memory.read()[0, 0] == 9


def test_a_lent_array_stays_where_a_memory_without_value_changes_its_shape():
    memory = Memory((2, 6), torch.zeros(()))
    array = memory.lend()
    memory.drop("freed")
    memory.reshape((4, 3))
    with pytest.raises(CaffeError, match="freed"):
        memory.read()
    memory.write(torch.ones(4, 3))
    assert array.all()


def test_a_blob_of_another_shape_gives_its_array_in_that_shape():
    blob = caffe._caffe.Blob(2, 6)
    array = blob.data
    blob.reshape(4, 3)
    assert blob.data.shape == (4, 3)
    blob.data[...] = 1
    assert array.all()
