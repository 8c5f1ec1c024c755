"""Each of our errors is also an instance of the class that pycaffe raises in the same place, so that users can catch
it.

The classes were determined by the same calls in the original.
"""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

import caffe
from caffe import coord_map, draw, io
from caffe import layers as L
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2, text

NET = """
name: "two"
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }
"""


@pytest.fixture(scope="module")
def net():
    return caffe.Net(text.parse(NET, caffe_pb2.NetParameter()), caffe.TEST)


def assert_raised(call, kind, part):
    with pytest.raises(kind, match=part) as caught:
        call()
    assert isinstance(caught.value, CaffeError)
    assert str(caught.value)[:1] not in "\"'"  # KeyError puts its text in quotes


DATA = L.Input(shape={"dim": [1, 3, 9, 9]})
HALF = L.Convolution(DATA, kernel_size=3, stride=2)


def transformer():
    made = io.Transformer({"data": (1, 3, 4, 6)})
    made.set_transpose("data", (2, 0, 1))
    made.set_channel_swap("data", (2, 1, 0))
    return made


def spec():
    made = caffe.NetSpec()
    made.data = DATA
    return made


def blob(count, **fields):
    return caffe_pb2.BlobProto(data=[1.0] * count, **fields)


def rules(include, exclude):
    layer = caffe_pb2.LayerParameter(name="a", type="ReLU", include=include, exclude=exclude)
    return caffe_pb2.NetParameter(layer=[layer])


PHASE = [caffe_pb2.NetStateRule(phase=caffe.TRAIN)]
FUNCTIONS = [
    (lambda: coord_map.crop(HALF, DATA), AssertionError, "times the resolution"),
    (lambda: coord_map.crop(DATA, L.Deconvolution(DATA, kernel_size=5)), AssertionError, "negative"),
    (lambda: coord_map.crop(L.Deconvolution(DATA, kernel_size=4), DATA), AssertionError, "not a whole number"),
    (lambda: coord_map.crop(HALF, L.Input()), RuntimeError, "no map"),
    (lambda: coord_map.conv_params(L.Pooling(DATA, kernel_size=2, pad_h=2).fn), AssertionError, "pad_h"),
    (lambda: coord_map.conv_params(L.Convolution(DATA, kernel_h=2).fn), KeyError, "kernel_h is not supported"),
    (lambda: coord_map.coord_map(DATA.fn), coord_map.UndefinedMapException, "Input"),
    (lambda: io.blobproto_to_array(blob(2)), ValueError, "no shape"),
    (lambda: io.blobproto_to_array(blob(0)), ValueError, "no shape"),
    (lambda: io.blobproto_to_array(blob(6, num=1, channels=1, height=2, width=4)), ValueError, "8 numbers"),
    (lambda: io.blobprotovector_str_to_arraylist(b"\x0a\xff"), ValueError, "not a BlobProtoVector"),
    (lambda: io.array_to_datum(np.zeros((2, 3))), ValueError, "shape"),
    (lambda: io.datum_to_array(caffe_pb2.Datum(channels=2, height=1, width=1, data=b"abc")), ValueError, "3 values"),
    (lambda: transformer().set_mean("data", np.zeros(2)), ValueError, '"data"'),
    (lambda: transformer().set_mean("data", np.zeros((1, 3, 4, 6))), ValueError, '"data"'),
    (lambda: transformer().preprocess("data", np.zeros((4, 6))), ValueError, r'shape \(4, 6\).*"data".*\(H, W, 3\)'),
    (lambda: transformer().preprocess("data", np.zeros((4, 6, 1))), ValueError, '"data"'),
    (lambda: transformer().deprocess("data", np.zeros((3, 4))), ValueError, '"data"'),
    (lambda: io.load_image("/none.png"), FileNotFoundError, "none"),
    (lambda: io.load_image(__file__), OSError, "decoded"),
    (lambda: io.oversample([np.zeros((4, 4, 3))], (9, 9)), ValueError, "do not fit"),
    (lambda: io.resize_image(np.ones((4, 4, 3)), (9, 9), 99), ValueError, "interp_order"),
    (lambda: spec().dat, KeyError, '"dat"; did you mean "data"'),
    (lambda: spec().dat, AttributeError, '"dat"'),
    (lambda: spec()["dat"], KeyError, '"dat"; did you mean "data"'),
    (lambda: delattr(spec(), "dat"), AttributeError, '"dat"'),
    (lambda: spec().__delitem__("dat"), KeyError, '"dat"'),
    (lambda: L.Silence((DATA, DATA), ntop=0), TypeError, r"^Silence input 0 is not a Top"),
    (lambda: caffe.to_proto(L.Pooling(DATA, kernel_sise=2)), AttributeError, "kernel_sise"),
    (lambda: caffe.to_proto(L.InnerProduct(DATA, num_output="many")), TypeError, "'many'"),
    (lambda: caffe.to_proto(L.InnerProduct(DATA, num_output=-1)), ValueError, "-1"),
    (lambda: caffe.to_proto(L.InnerProduct(DATA, inner_product_param=3)), AttributeError, "inner_product_param"),
    (lambda: draw.get_layer_lr_mult(caffe_pb2.LayerParameter(type="ReLU")), ValueError, "ReLU"),
    (lambda: draw.get_pydot_graph(rules(PHASE, PHASE), "LR", phase=caffe.TRAIN), ValueError, "include and exclude"),
    (lambda: caffe.Net("/none.prototxt", caffe.TEST), RuntimeError, "none"),
    (lambda: caffe.Net(5, caffe.TEST), TypeError, "a int"),
    (lambda: caffe.SGDSolver(5), TypeError, "a int"),
    (lambda: caffe.get_solver(5), TypeError, "a int"),
    (lambda: caffe.set_device("a"), TypeError, "'a'"),
    (lambda: caffe.set_device(-1), ValueError, "-1"),
]


@pytest.mark.parametrize(("call", "kind", "part"), FUNCTIONS, ids=[f"{i}" for i in range(len(FUNCTIONS))])
def test_functions(call, kind, part):
    assert_raised(call, kind, part)


ROWS = np.zeros((9, 3))
NETS = [
    (lambda n: n.blobs["dat"], KeyError, 'no blob "dat"; did you mean "data"'),
    (lambda n: n.blobs[0], KeyError, "no blob 0: expected a name"),
    (lambda n: n.params["relu"], KeyError, 'no layer with parameters "relu"'),
    (lambda n: n.params["iip"], KeyError, 'did you mean "ip"'),
    (lambda n: n.layer_dict["rleu"], KeyError, 'no layer "rleu"; did you mean "relu"'),
    (lambda n: n.top_names["rel"], KeyError, 'no layer "rel"'),
    (lambda n: n.bottom_names["rel"], KeyError, 'no layer "rel"'),
    (lambda n: n.blob_loss_weights["dat"], KeyError, 'no blob "dat"'),
    (lambda n: n.forward()["iip"], KeyError, "returned no blob 'iip'; did you mean \"ip\""),
    (lambda n: n.params["ip"][9], IndexError, r'layer "ip" \(InnerProduct\) has 2 blob'),
    (lambda n: n.params["ip"]["w"], TypeError, "by number"),
    (lambda n: n.forward(start="x"), ValueError, 'no layer "x"'),
    (lambda n: n.forward(end="x"), ValueError, 'no layer "x"'),
    (lambda n: n.forward(blobs=["x"]), KeyError, 'no blob "x"'),
    (lambda n: n.backward(start="x"), ValueError, 'no layer "x"'),
    (lambda n: n.backward(diffs=["x"]), KeyError, 'no blob "x"'),
    (lambda n: n.forward(data=np.zeros((2, 9))), ValueError, r"shape \(2, 9\)"),
    (lambda n: n.forward_all(data=np.zeros((2, 9))), ValueError, r"shape \(2, 9\)"),
    (lambda n: n.forward_all(blobs=["x"], data=ROWS), KeyError, 'no blob "x"'),
    (lambda n: n.forward_all(), RuntimeError, "no rows"),
    (lambda n: n.blobs["data"].reshape(a=1), RuntimeError, "reshape"),
    (lambda n: n.blobs["data"].reshape("a"), TypeError, "'a'"),
    (lambda n: n.blobs["data"].reshape((2, 3)), TypeError, r"reshape\(\*shape\)"),
    (lambda n: n.blobs["data"].reshape(2.0, 3), TypeError, "2.0"),
    (lambda n: n.params["ip"].add_blob(a=1), RuntimeError, "add_blob"),
    (lambda n: setattr(n, "blobs", 1), AttributeError, r"net\.blobs cannot be replaced"),
    (lambda n: setattr(n, "params", 1), AttributeError, r"net\.params cannot be replaced"),
    (lambda n: n.share_with(5), TypeError, "a int"),
    (lambda n: n.before_forward(5), TypeError, "a function"),
    (lambda n: n.set_input_arrays(ROWS, ROWS), RuntimeError, "MemoryData"),
    (copy.copy, RuntimeError, "share_with"),
    (copy.deepcopy, RuntimeError, "copy_from"),
    (pickle.dumps, RuntimeError, "copy_from"),
    (lambda n: copy.copy(n.blobs["data"]), RuntimeError, "deepcopy"),
]


@pytest.mark.parametrize(("call", "kind", "part"), NETS, ids=[f"{i}" for i in range(len(NETS))])
def test_nets(net, call, kind, part):
    assert_raised(lambda: call(net), kind, part)


def test_solvers_are_not_copied():
    solver = caffe.get_solver(SOLVER)
    for call in (copy.copy, copy.deepcopy, pickle.dumps):
        assert_raised(lambda call=call: call(solver), RuntimeError, "snapshot")


def test_the_text_for_a_bottom_that_is_no_blob_is_pycaffes():
    with pytest.raises(TypeError) as caught:
        L.Silence((DATA, DATA), ntop=0)
    assert str(caught.value) == "Silence input 0 is not a Top (type is <class 'tuple'>)"
    assert "L.Silence(*tops)" in caught.value.__notes__[0]


def test_names_stay_ordered_dictionaries(net):
    for names in (net.blobs, net.params, net.layer_dict, net.top_names, net.bottom_names, net.blob_loss_weights):
        assert isinstance(names, OrderedDict)
        assert names.get("none") is None
        assert "none" not in names
        assert names == OrderedDict(names)
    assert isinstance(net.forward(), dict)
    assert repr(net.forward()).startswith("{'ip'")


def test_a_deep_copy_of_parameters_has_memory_of_its_own(net):
    twin = copy.deepcopy(net.params)
    assert [blob.shape for blob in twin["ip"]] == [(4, 3), (4,)]
    before = net.params["ip"][0].data.copy()
    twin["ip"][0].data[...] = 7
    np.testing.assert_array_equal(net.params["ip"][0].data, before)


def test_a_net_shows_itself_as_a_table(net):
    assert repr(net).splitlines() == [
        "two (TEST): 3 layers, 16 parameters (6.4e-05 MB), 5.6e-05 MB of blobs a batch",
        "layer  type          bottoms  tops         parameters     MB  field",
        "in     Input                  data (2, 3)              0.000",
        "ip     InnerProduct  data     ip (2, 4)            16  0.000",
        "relu   ReLU          ip       ip (2, 4)",
    ]
    html = net._repr_html_()
    assert "<td>InnerProduct</td><td>data</td><td>ip (2, 4)</td><td class=n>16</td>" in html
    assert html.count("<tr>") == 4


def test_a_netspec_can_be_copied():
    first = spec()
    for twin in (copy.copy(first), copy.deepcopy(first)):
        twin.relu = L.ReLU(twin.data)
        assert list(first.tops) == ["data"]
        assert [layer.type for layer in twin.to_proto().layer] == ["Input", "ReLU"]


# -- devices -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("device", "part"),
    [
        ("cuda", 'the device is "cuda", but PyTorch .* cannot use a GPU here'),
        ("cuda:1", "cannot use a GPU"),
        (0, "cuda:0.*cannot use a GPU"),
        ("cud", "'cud'; did you mean \"cuda\""),
        ("gpu", "'gpu'; expected"),
        ("xpu", "cannot be used here"),
        (1.5, "1.5; expected"),
    ],
)
def test_a_device_that_is_not_there(no_gpu, device, part):
    for make in (caffe.Net, lambda *args, **options: caffe.get_solver(SOLVER, device=device)):
        assert_raised(
            lambda make=make: make(text.parse(NET, caffe_pb2.NetParameter()), device=device), ValueError, part
        )


SOLVER = caffe_pb2.SolverParameter(
    net_param=text.parse(NET, caffe_pb2.NetParameter()), base_lr=0.1, lr_policy="fixed", max_iter=1
)


def test_a_number_that_no_gpu_has(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(caffe.mode, "_device_id", 0)
    assert_raised(lambda: caffe.set_device(2), ValueError, "no GPU 2: this machine has 2")
    caffe.set_device(np.int64(1))
    assert_raised(lambda: caffe.mode.chosen("cuda:7"), ValueError, 'no device "cuda:7": this machine has 2')
    assert caffe.mode.chosen("cuda:1") == torch.device("cuda", 1)


def test_without_a_gpu_set_mode_gpu_runs_on_the_cpu(no_gpu, monkeypatch):
    monkeypatch.setattr(caffe.mode, "_gpu", False)
    monkeypatch.setattr(caffe.mode, "_warned", False)
    caffe.set_device(3)
    caffe.set_mode_gpu()
    net = caffe.Net(text.parse(NET, caffe_pb2.NetParameter()), caffe.TEST)
    assert net.device == torch.device("cpu")
    monkeypatch.setattr(caffe.mode, "_device_id", 0)
