"""Ordinary pycaffe loops that once gave wrong numbers silently. Each is tested with its correct values."""

from __future__ import annotations

import sys
import threading
import types

import numpy as np
import pytest

import caffe
from caffe.errors import CaffeError, NetError
from caffe.net import Net
from caffe.proto import caffe_pb2, text

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 dim: 2 dim: 2 } } } '
CONVOLUTION = (
    'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 3 kernel_size: 1 '
    'weight_filler { type: "xavier" } } } '
)
SQUARES = (
    'layer { name: "l" type: "Reduction" bottom: "%s" top: "l" loss_weight: 1 reduction_param { operation: SUMSQ } } '
)
ONES = """
layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 2 dim: 3 dim: 3 } } }
layer { name: "c" type: "Convolution" bottom: "d" top: "c"
  convolution_param { num_output: 2 kernel_size: 2 weight_filler { type: "constant" value: 1 } } }
layer { name: "l" type: "Reduction" bottom: "c" top: "l" }
"""


def make(prototxt: str, phase: int = caffe.TEST) -> Net:
    return Net(text.parse(prototxt, caffe_pb2.NetParameter()), phase)


def solver_of(prototxt: str) -> caffe.SGDSolver:
    param = text.parse(
        'base_lr: 0.1 lr_policy: "fixed" random_seed: 1 snapshot_after_train: false', caffe_pb2.SolverParameter()
    )
    param.net_param.CopyFrom(text.parse(prototxt, caffe_pb2.NetParameter()))
    return caffe.get_solver(param)


@pytest.fixture
def keeper(monkeypatch):
    """A module with a layer that keeps the array of its bottom."""
    module = types.ModuleType("keeper")

    class Keep(caffe.Layer):
        def reshape(self, bottom, top):
            top[0].reshape(*bottom[0].data.shape)

        def forward(self, bottom, top):
            self.x = bottom[0].data
            top[0].data[...] = 2 * self.x

        def backward(self, top, propagate_down, bottom):
            bottom[0].diff[...] = 2 * top[0].diff

    module.Keep = Keep
    monkeypatch.setitem(sys.modules, "keeper", module)


# -- arrays that somebody keeps ----------------------------------------------------------------------------------------

MEMORY = """
layer { name: "m" type: "MemoryData" top: "x" top: "t"
  memory_data_param { batch_size: 2 channels: 1 height: 1 width: 1 } }
layer { name: "s" type: "Silence" bottom: "x" bottom: "t" }
"""


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("run", ["forward", "forward_backward", "optimized"])
def test_the_arrays_of_memory_data_are_never_written(keep, run):
    net = make(MEMORY)
    if run == "optimized":
        net.optimize(keep=["x"])
    rows = np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1)
    net.set_input_arrays(rows, np.zeros(6, np.float32))
    seen = []
    kept = None
    for _ in range(6):
        net.forward_backward() if run == "forward_backward" else net.forward()
        array = net.blobs["x"].data
        kept = array if keep else None
        seen.append("".join(str(int(value)) for value in array.flat))
    assert seen == ["01", "23", "45", "01", "23", "45"]
    net.blobs["x"].data[...] = 9
    assert rows.ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert kept is None or kept.ravel().tolist() == [9, 9]


@pytest.mark.parametrize("kind", ["BatchNorm", "Scale", "PReLU", "Sigmoid", "ReLU"])
@pytest.mark.parametrize("keep_diffs", [False, True])
def test_gradients_do_not_depend_on_who_keeps_an_array(kind, keep_diffs):
    found = []
    for kept in (False, True):
        caffe.set_random_seed(1)
        net = make(
            "force_backward: true "
            + INPUT
            + CONVOLUTION
            + f'layer {{ name: "b" type: "{kind}" bottom: "c" top: "c" }}'
            + SQUARES % "c",
            caffe.TRAIN,
        )
        net.keep_diffs = keep_diffs
        net.blobs["x"].data[...] = np.sin(np.arange(48)).reshape(4, 3, 2, 2)
        net.forward()
        array = net.blobs["c"].data if kept else None
        if keep_diffs:
            net.forward_backward()
        else:
            net.forward()
            net.backward()
        found.append((net.blobs["x"].diff.copy(), net.params["c"][0].diff.copy()))
        if array is not None:
            np.testing.assert_array_equal(array, net.blobs["c"].data)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_python_layer_may_keep_its_bottom(keeper):
    python = 'layer { name: "p" type: "Python" bottom: "x" top: "p" python_param { module: "keeper" layer: "Keep" } } '
    total = 'layer { name: "s" type: "Eltwise" bottom: "c" bottom: "p" top: "s" } '
    solver = solver_of(INPUT + CONVOLUTION + python + total + SQUARES % "s")
    for value in (1, 1, 2):
        solver.net.blobs["x"].data[...] = value
        solver.step(1)
        assert (solver.net.blobs["p"].data == 2 * value).all()


# -- writes that the next layer must see -------------------------------------------------------------------------------


def test_a_write_after_a_split_is_visible():
    net = make("""
    layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 2 dim: 3 dim: 3 } } }
    layer { name: "c" type: "Convolution" bottom: "d" top: "c"
      convolution_param { num_output: 2 kernel_size: 2 weight_filler { type: "constant" value: 0.5 } } }
    layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 2 } }
    layer { name: "q" type: "Power" bottom: "c" top: "q" power_param { scale: 2 } }
    layer { name: "f" type: "InnerProduct" bottom: "p" top: "f"
      inner_product_param { num_output: 1 weight_filler { type: "constant" value: 1 } } }
    """)
    net.blobs["d"].data[...] = 1
    net.forward()
    net.blobs["c"].data[...] = np.arange(8).reshape(1, 2, 2, 2) - 2
    net.forward(start="p")
    assert net.blobs["f"].data.item() == 6
    assert net.blobs["q"].data.ravel()[:3].tolist() == [-4, -2, 0]


@pytest.mark.parametrize("kind", ["Flatten", "Reshape", "Concat", "Slice", "Split"])
def test_tops_that_are_their_bottom(kind):
    options = "reshape_param { shape { dim: 0 dim: -1 } }" if kind == "Reshape" else ""
    shared = f'layer {{ name: "f" type: "{kind}" bottom: "c" top: "f" {options} }} '
    net = make(INPUT + CONVOLUTION + shared + 'layer { name: "a" type: "AbsVal" bottom: "f" top: "a" }')
    net.forward()
    net.blobs["c"].data[...] = np.arange(48).reshape(4, 3, 2, 2)
    net.forward(start="a")
    assert net.blobs["a"].data.ravel().tolist() == list(range(48))
    net.blobs["f"].data[...] = -1
    assert (net.blobs["c"].data == -1).all()


TOPS = {
    "Dropout": 'type: "Dropout" bottom: "d" top: "y"',
    "Power": 'type: "Power" bottom: "d" top: "y"',
    "Slice": 'type: "Slice" bottom: "d" top: "y" top: "z" slice_param { axis: 0 }',
    "Crop": 'type: "Crop" bottom: "d" bottom: "e" top: "y" crop_param { axis: 0 }',
}


@pytest.mark.parametrize("layer", TOPS.values(), ids=TOPS)
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("run", ["forward", "forward_backward", "optimized"])
def test_tops_that_only_look_like_their_bottom(layer, keep, run):
    net = make(
        'layer { name: "d" type: "Input" top: "d" top: "e" input_param { shape { dim: 2 dim: 3 } } } '
        f'layer {{ name: "y" {layer} }} layer {{ name: "s" type: "Silence" bottom: "e" }}'
    )
    if run == "optimized":
        net.optimize()
    array = net.blobs["d"].data
    array[...] = 1
    if not keep:
        del array
    net.forward_backward() if run == "forward_backward" else net.forward()
    net.blobs["d"].data[...] = 9
    assert (net.blobs["y"].data == 1).all()
    net.blobs["y"].data[...] = 5
    assert (net.blobs["d"].data == 9).all()


def test_a_write_through_an_array_that_is_gone_by_the_next_run():
    net = make(ONES)
    net.optimize()
    net.blobs["d"].data[...] = 1

    def change():
        weights = net.params["c"][0].data
        net.forward()
        weights[...] = 5

    assert net.forward()["l"].item() == 64
    change()
    assert net.forward()["l"].item() == 320


def test_shared_weights_have_diffs_of_their_own():
    train, test = make(ONES), make(ONES)
    train.params["c"][0].diff[...] = 1
    test.share_with(train)
    test.params["c"][0].diff[...] = 77
    train.params["c"][0].data[...] = 3
    assert (train.params["c"][0].diff == 1).all()
    assert (test.params["c"][0].data == 3).all()


def test_backward_uses_the_data_as_they_are_now():
    net = make(INPUT + CONVOLUTION + SQUARES % "c", caffe.TRAIN)
    for start in (0, 5):
        net.blobs["x"].data[...] = np.cos(np.arange(48) + start).reshape(4, 3, 2, 2)
        net.forward()
    net.blobs["x"].data[...] = 1
    net.forward(end="c")
    net.clear_param_diffs()
    net.backward()
    got = net.params["c"][0].diff.copy()
    net.clear_param_diffs()
    net.forward()
    net.backward()
    np.testing.assert_allclose(got, net.params["c"][0].diff, rtol=1e-5)


def test_diffs_of_two_bottoms_are_two_arrays():
    total = 'layer { name: "s" type: "Eltwise" bottom: "x" bottom: "c" top: "s" } '
    net = make("force_backward: true " + INPUT + CONVOLUTION + total + SQUARES % "s", caffe.TRAIN)
    net.forward()
    net.backward()
    before = net.blobs["s"].diff.copy()
    net.blobs["c"].diff[...] = 7
    np.testing.assert_array_equal(net.blobs["s"].diff, before)


# -- one net, several threads ------------------------------------------------------------------------------------------


def _together(work) -> list[str]:
    problems: list[str] = []

    def run(value):
        for _ in range(40):
            try:
                if not work(value):
                    problems.append("mixed")
            except CaffeError as error:
                problems.append(str(error))

    threads = [threading.Thread(target=run, args=(value,)) for value in (0.1, 0.2, 0.3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


CHAIN = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } }
layer { name: "q" type: "TanH" bottom: "y" top: "z" }
"""


@pytest.mark.parametrize("optimized", [False, True])
def test_results_of_two_threads_do_not_mix(optimized):
    net = make(CHAIN)
    if optimized:
        net.optimize()

    def work(value: float) -> bool:
        return np.allclose(net.forward(x=np.full((4, 3), value, np.float32))["z"], np.tanh(2 * value))

    assert _together(work) == []


def test_an_input_that_another_thread_has_filled_is_an_error():
    net = make(CHAIN)
    net.blobs["x"].data[...] = 1
    other = threading.Thread(target=lambda: net.blobs["x"].data.fill(2))
    other.start()
    other.join()
    with pytest.raises(NetError, match=r'input "x".*Make one net for each thread'):
        net.forward()
    net.blobs["x"].data[...] = 1
    assert np.allclose(net.forward()["z"], np.tanh(2))


def test_a_run_in_another_thread_is_no_error():
    net = make(CHAIN)
    net.blobs["x"].data[...] = 1
    net.forward()
    net.blobs["x"].data[...] = 2
    made = []
    other = threading.Thread(target=lambda: made.append(net.forward()["z"].copy()))
    other.start()
    other.join()
    assert np.allclose(made[0], np.tanh(4))


# -- names of pycaffe --------------------------------------------------------------------------------------------------


def test_lists_of_blobs_are_blob_vectors():
    net = make(ONES)
    assert type(net.params["c"]) is caffe._caffe.BlobVec
    assert type(net.layers[1].blobs) is caffe._caffe.BlobVec
    assert type(net.params["c"][:1]) is caffe._caffe.BlobVec
    assert len(net.params["c"]) == 2
    with pytest.raises(CaffeError, match=r'layer "c" \(Convolution\) has 2 blob.*cannot be added'):
        net.params["c"].add_blob(2, 3)
    for change in ("append", "remove"):
        with pytest.raises(CaffeError, match="cannot be added, removed or replaced"):
            getattr(net.params["c"], change)(net.params["c"][0])
    vector = caffe._caffe.BlobVec()
    vector.add_blob(2, 3)
    assert vector[0].shape == (2, 3)


def test_every_layer_is_a_layer():
    net = make(ONES)
    assert all(isinstance(layer, caffe.Layer) for layer in net.layers)
    assert not isinstance(net, caffe.Layer)


def test_the_message_after_a_run_that_failed():
    net = make(CHAIN.replace('"q" type: "TanH" bottom: "y"', '"q" type: "TanH" bottom: "y"'))
    net.forward_backward()
    net.blobs["x"].reshape(4, 0)
    net.layers[1].forward = lambda *_: 1 / 0
    net.runners.rebuild()
    with pytest.raises(Exception, match="division by zero"):
        net.forward_backward()
    with pytest.raises(CaffeError, match="the last run of the net ended in an error"):
        _ = net.blobs["z"].data


def test_a_slim_step_normalises_a_part_of_a_blob():
    prototxt = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 6 } } }
    layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "b" slice_param { slice_point: 2 } }
    layer { name: "n" type: "BatchNorm" bottom: "a" top: "a" }
    layer { name: "c" type: "Convolution" bottom: "a" top: "c"
      convolution_param { num_output: 3 kernel_size: 2 weight_filler { type: "gaussian" std: 0.5 } } }
    layer { name: "l" type: "Reduction" bottom: "c" top: "l" loss_weight: 1 reduction_param { operation: SUMSQ } }
    """
    found = []
    for slim in (False, True):
        caffe.set_random_seed(1)
        net = make(prototxt, caffe.TRAIN)
        net.blobs["x"].data[...] = 3 * np.sin(np.arange(144)).reshape(2, 3, 4, 6)
        if slim:
            net.slim()
        found.append([net.forward_backward(), *net.params["c"][0].diff.ravel()])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
