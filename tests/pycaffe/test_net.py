"""Typical uses of a net in pycaffe scripts: every constructor, writes to blobs, hooks, partial runs."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import traceback

import numpy as np
import pytest

import caffe
from caffe.data.pipeline import shard
from caffe.errors import CaffeError, LayerError, NetError

TEXT = """
name: "small" force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 5 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" include { min_level: 1 } }
layer { name: "sum" type: "Reduction" bottom: "ip" top: "sum" include { stage: "loss" } loss_weight: 2 }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "drop" include { phase: TRAIN } }
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "net.prototxt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    caffe.Net("net.prototxt", caffe.TEST).save("net.caffemodel")
    return "net.prototxt"


def test_ways_to_make_a_net(file):
    weights = caffe.Net(file, "net.caffemodel", caffe.TEST).params["ip"][0].data
    for net in (
        caffe.Net(file, caffe.TEST, weights="net.caffemodel"),
        caffe.Net(network_file=file, phase=caffe.TEST, weights="net.caffemodel"),
        caffe.Net(file, caffe.TEST, 0, None, "net.caffemodel"),
        caffe.pycaffe.Net(file, phase=caffe.TEST, level=0, stages=[], weights="net.caffemodel"),
    ):
        np.testing.assert_array_equal(net.params["ip"][0].data, weights)
        assert list(net._layer_names) == ["data", "ip"]
    net = caffe.Net(file, caffe.TRAIN, level=1, stages=["loss"])
    assert net.layer_names == ["data", "ip", "relu", "ip_relu_0_split", "sum", "drop"]
    net.copy_from("net.caffemodel")
    net.save_hdf5("net.h5")
    net.params["ip"][0].data[...] = 0
    net.load_hdf5("net.h5")
    np.testing.assert_array_equal(net.params["ip"][0].data, weights)


def test_structure(file):
    net = caffe.Net(file, caffe.TEST, stages=["loss"])
    assert net.inputs == ["data"]
    assert net.outputs == ["sum"]
    assert net.top_names["ip"] == ["ip"]
    assert net.bottom_names["sum"] == ["ip"]
    assert net.blob_loss_weights["sum"] == 2
    assert [layer.type for layer in net.layers] == ["Input", "InnerProduct", "Reduction"]
    assert net.layer_dict["ip"] is net.layers[1]
    assert [net._blob_names[index] for index in net._bottom_ids(2) + net._top_ids(2)] == ["ip", "sum"]
    assert (net._inputs, net._outputs) == ([0], [2])
    assert net._blob_loss_weights == [0, 0, 2]
    assert [blob.shape for blob in net._blobs] == [(5, 3), (5, 2), ()]


def test_blobs_of_layers_and_parameters_are_one_memory(file):
    net = caffe.Net(file, caffe.TEST)
    net.layers[1].blobs[0].data[...] = 3
    net.layers[1].blobs[1].diff[...] = 7
    assert (net.params["ip"][0].data == 3).all()
    assert (net.params["ip"][1].diff == 7).all()
    net.params["ip"][0].data[0] = 5
    net.blobs["data"].data[...] = 1
    np.testing.assert_array_equal(net.forward()["ip"], [[15, 9]] * 5)


def test_held_arrays_show_what_happens_next(file):
    net = caffe.Net(file, caffe.TEST)
    net.params["ip"][0].data[...] = [[1, 0, 0], [0, 2, 0]]
    out, weights = net.forward()["ip"], net.params["ip"][0].data
    data = net.blobs["data"].data
    data[...] = 1
    net.forward()
    np.testing.assert_array_equal(out, [[1, 2]] * 5)
    weights *= 2
    del weights
    gc.collect()
    net.forward()
    np.testing.assert_array_equal(out, [[2, 4]] * 5)


def test_a_diff_set_by_hand_drives_backward(file):
    net = caffe.Net(file, caffe.TEST)
    net.blobs["data"].data[...] = np.arange(15).reshape(5, 3)
    net.forward(end="ip")
    net.blobs["ip"].diff[...] = 1
    weights = net.params["ip"][0].data
    np.testing.assert_allclose(net.backward(start="ip")["data"], [weights.sum(0)] * 5, rtol=1e-6)
    given = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
    out = net.backward(diffs=["ip"], ip=given)
    np.testing.assert_array_equal(out["ip"], given)
    np.testing.assert_allclose(out["data"], given @ weights, rtol=1e-5, atol=1e-6)
    net.clear_param_diffs()
    assert not net.params["ip"][0].diff.any()


def test_reshape_then_forward(file):
    net = caffe.Net(file, caffe.TEST)
    net.blobs["data"].reshape(7, 3)
    net.reshape()
    assert net.blobs["ip"].shape == (7, 2)
    assert net.forward(data=np.ones((7, 3)))["ip"].shape == (7, 2)
    blob = caffe.Blob(2, 3)
    blob.data[...] = 4
    blob.reshape(3, 2)
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (3, 2, 1, 1, 6)
    assert (blob.data == 4).all()


def test_callbacks(file):
    net, calls = caffe.Net(file, caffe.TEST), []
    for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, name)(lambda index, name=name: calls.append((name, index)))
    net.forward()
    net.backward()
    there = [(f"{when}_forward", index) for index in (0, 1) for when in ("before", "after")]
    back = [(f"{when}_backward", index) for index in (1, 0) for when in ("before", "after")]
    assert calls == there + back
    calls.clear()
    net.forward_backward()
    assert calls == there + back


def test_callbacks_see_what_is_done(file):
    net, seen = caffe.Net(file, caffe.TEST), []
    net.before_forward(lambda index: seen.append(net.blobs["ip"].data.any()))
    net.after_forward(lambda index: seen.append(net.blobs["ip"].data.any()))
    net.before_backward(lambda index: seen.append(net.blobs["data"].diff.any()))
    net.after_backward(lambda index: seen.append(net.blobs["data"].diff.any()))
    net.forward(data=np.ones((5, 3)))
    net.backward(ip=np.ones((5, 2)))
    assert seen == [False, False, False, True, False, True, True, True]


def test_mistakes_are_told(file):
    net = caffe.Net(file, caffe.TEST)
    with pytest.raises(NetError, match=r"forward was given \['dat'\].*inputs \['data'\]"):
        net.forward(dat=np.ones((5, 3)))
    with pytest.raises(NetError, match=r"\(4,\) rows"):
        net.forward(data=np.ones((4, 3)))
    with pytest.raises(NetError, match=r"shape \(5, 9\), the blob has \(5, 3\)"):
        net.forward(data=np.ones((5, 9)))
    with pytest.raises(NetError, match=r"backward was given \['x'\].*outputs \['ip'\]"):
        net.backward(x=np.ones((5, 2)))
    with pytest.raises(NetError, match=r'no blob "iip"; did you mean "ip"'):
        net.forward(blobs=["iip"])
    with pytest.raises(NetError, match=r'no layer "pi"'):
        net.forward(end="pi")
    with pytest.raises(NetError, match="neither inputs"):
        net.forward_backward_all(x=np.ones((5, 2)))
    with pytest.raises(NetError, match="equal numbers of rows"):
        list(net._batch({"a": np.ones(3), "b": np.ones(2)}))


def test_set_input_arrays(tmp_path):
    spec = caffe.to_proto(*caffe.net_spec.layers.MemoryData(ntop=2, batch_size=2, channels=3, height=1, width=5))
    net = caffe.Net(spec, caffe.TEST)
    data = np.random.default_rng(2).random((4, 3, 1, 5)).astype(np.float32)
    net.set_input_arrays(data, np.arange(4, dtype=np.float32))
    for rows in (slice(0, 2), slice(2, 4), slice(0, 2)):
        out = net.forward()
        np.testing.assert_array_equal(out[net.outputs[0]], data[rows])
    with pytest.raises(NetError, match="MemoryData"):
        caffe.Net(caffe.to_proto(caffe.net_spec.layers.Input()), caffe.TEST).set_input_arrays(data, data)


# -- Python layers -----------------------------------------------------------------------------------------------------

LAYERS = """
import caffe

class Source(caffe.Layer):
    def setup(self, bottom, top):
        self.images = []
        self.scale = float(self.param_str_)

    def reshape(self, bottom, top):
        top[0].reshape(max(1, len(self.images)), 2)

    def set_images(self, images):
        self.images = images

    def forward(self, bottom, top):
        if self.scale < 0:
            raise KeyError("negative")
        for index, value in enumerate(self.images):
            top[0].data[index] = self.scale * value

    def backward(self, top, propagate_down, bottom):
        pass
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    (tmp_path / "own_source.py").write_text(LAYERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    options = {"module": "own_source", "layer": "Source", "param_str": "3"}
    yield caffe.Net(caffe.to_proto(caffe.net_spec.layers.Python(python_param=options, name="src")), caffe.TRAIN)
    sys.modules.pop("own_source", None)


def test_layers_of_a_net_are_the_users_objects(source):
    source.layers[0].set_images([1, 2, 5])
    assert source.forward()["Python1"].tolist() == [[3, 3], [6, 6], [15, 15]]
    source.layers[0].scale = 10
    assert source.forward()["Python1"].tolist() == [[10, 10], [20, 20], [50, 50]]
    assert source.layers[0].images == [1, 2, 5]
    assert source.layers[0].type == "Python"
    with pytest.raises(AttributeError, match="nothing"):
        _ = source.layers[0].nothing


def test_errors_carry_the_users_traceback(source):
    source.layers[0].scale = -1
    with pytest.raises(LayerError, match=r'layer "src" \(Python\).*own_source.py:\d+.*KeyError') as caught:
        source.forward()
    assert isinstance(caught.value.__cause__, KeyError)
    assert "in forward" in "".join(traceback.format_exception(caught.value))
    assert 'raise KeyError("negative")' in "".join(traceback.format_exception(caught.value))


# -- the rest of the module --------------------------------------------------------------------------------------------


def test_timer():
    timer = caffe.Timer()
    assert timer.ms == 0
    timer.start()
    assert 0 <= timer.ms < 1000
    timer.stop()
    assert timer.ms == timer.ms


def test_settings_of_several_processes(monkeypatch):
    monkeypatch.setattr(shard, "_assigned", {})
    assert (caffe.solver_count(), caffe.solver_rank()) == (1, 0)
    caffe.set_solver_count(4)
    caffe.set_solver_rank(3)
    caffe.set_multiprocess(True)
    assert (caffe.solver_count(), caffe.solver_rank()) == (4, 3)
    for setter, value in ((caffe.set_solver_count, 0), (caffe.set_solver_rank, -1)):
        with pytest.raises(CaffeError):
            setter(value)
    assert caffe.has_nccl()
    with pytest.raises(CaffeError, match="the uid is ''"):
        caffe.NCCL(None, "")
    with pytest.raises(CaffeError, match="got None as solver"):
        caffe.NCCL(None, "localhost:1")


def test_log(caplog, monkeypatch):
    handlers, level = list(caffe.log.logger.handlers), caffe.log.logger.level
    try:
        caffe.init_log(0)
        assert caffe.log.logger.level == logging.INFO
        monkeypatch.setattr(caffe.log.logger, "propagate", True)
        caffe.log("a line")
        assert caplog.messages == ["a line"]
        for arguments in ((7,), (0, False)):
            with pytest.raises(CaffeError, match="init_log"):
                caffe.init_log(*arguments)
    finally:
        caffe.log.logger.handlers[:], caffe.log.logger.level = handlers, level


def test_names_need_no_import_of_their_own_and_mean_the_same_before_and_after_the_package_is_loaded():
    code = (
        "import caffe, sys; caffe.TRAIN; caffe.__version__; caffe.proto.caffe_pb2.NetParameter; caffe.io.Transformer;"
        "caffe.layers.ReLU; caffe.params.Pooling; caffe.NetSpec; caffe.draw.draw_net; caffe.models.resnet50;"
        "before = caffe.to_proto(caffe.layers.ReLU(caffe.layers.Input()));"
        "assert 'torch' not in sys.modules; import caffe.layers.base; assert caffe.layers.base.Layer;"
        "caffe.Net; caffe.torch.load; caffe.classifier; caffe._caffe.Blob;"
        "assert {'Net', 'io', 'layers', 'SGDSolver'} <= set(dir(caffe)); from caffe import layers as L;"
        "assert caffe.to_proto(L.ReLU(L.Input())) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="nothing"):
        _ = caffe.nothing
