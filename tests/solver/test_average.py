"""The moving average of the weights: its values, its place in tests, snapshots and files, and `caffe average`."""

import numpy as np
import pytest
import torch

import caffe
from caffe.cli import display, main
from caffe.errors import FileError, NetError, SolverError
from caffe.net import Net
from caffe.proto import state, weights
from caffe.proto import weight_average as average
from caffe.solver import get_solver
from tests.solver import small

EMA = "ema_decay: 0.75 "
TESTED = "test_iter: 2 test_interval: 3 "
NORMED = """
name: "normed"
layer { name: "data" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list.txt" batch_size: 5 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "ip" top: "bn" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "bn" bottom: "label" top: "loss" }
"""
SHARED = """
name: "shared"
layer { name: "x" type: "DummyData" top: "x" dummy_data_param {
  shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" } inner_product_param { num_output: 3
  bias_term: false weight_filler { type: "xavier" } } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" } inner_product_param { num_output: 3
  bias_term: false weight_filler { type: "xavier" } } }
layer { name: "l" type: "Reduction" bottom: "b" top: "l" loss_weight: 1 }
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.write(tmp_path)
    (tmp_path / "normed.prototxt").write_text(NORMED)
    (tmp_path / "shared.prototxt").write_text(SHARED)
    return tmp_path


def learnables(solver):
    return [entry.tensor.detach().clone() for entry in solver.net.learnable]


def assert_equal(got, want):
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_average_of_each_update():
    solver = get_solver(small.param(EMA))
    assert solver.average.tensors is None
    solver.step(1)
    expected = learnables(solver)
    for _ in range(4):
        solver.step(1)
        expected = [0.75 * old + 0.25 * new for old, new in zip(expected, learnables(solver), strict=True)]
    for got, want in zip(solver.average.tensors, expected, strict=True):
        torch.testing.assert_close(got, want)


def test_training_is_that_without_an_average():
    plain = get_solver(small.param(TESTED))
    plain.step(7)
    averaged = get_solver(small.param(TESTED + EMA))
    averaged.step(7)
    assert_equal(learnables(plain), learnables(averaged))


def test_tests_see_the_average():
    solver = get_solver(small.param(TESTED + EMA))
    solver.step(4)
    own, mean = learnables(solver), [tensor.clone() for tensor in solver.average.tensors]
    seen = []
    solver.test_nets[0].callbacks["before_forward"].append(lambda _: seen.append(learnables(solver)))
    solver.test(0)
    assert_equal(seen[0], mean)
    assert_equal(learnables(solver), own)
    assert_equal(solver.average.tensors, mean)


def test_an_error_in_a_test_leaves_the_weights():
    solver = get_solver(small.param(TESTED + EMA))
    solver.step(2)
    own = learnables(solver)

    def fail(_):
        raise KeyboardInterrupt

    solver.test_nets[0].callbacks["before_forward"].append(fail)
    with pytest.raises(KeyboardInterrupt):
        solver.test(0)
    assert_equal(learnables(solver), own)


def test_a_snapshot_asked_for_in_a_test_holds_the_weights():
    solver = get_solver(small.param(TESTED + EMA))
    solver.step(3)
    own, mean = learnables(solver), [tensor.clone() for tensor in solver.average.tensors]
    solver.test_nets[0].callbacks["before_forward"].append(lambda _: solver.request("snapshot"))
    solver.step(1)
    other = get_solver(small.param(TESTED + EMA))
    other.restore("snap_iter_3.solverstate")
    assert_equal(learnables(other), own)
    assert_equal(other.average.tensors, mean)
    other.step(1)
    assert_equal(learnables(solver), learnables(other))


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_resumed_run_equals_unbroken_run(form):
    settings = f"{TESTED} {EMA} snapshot_format: {form}"
    unbroken = get_solver(small.param(settings))
    unbroken.step(5)
    path = unbroken.snapshot()
    unbroken.step(6)
    resumed = get_solver(small.param(settings))
    resumed.step(1)
    resumed.restore(path)
    resumed.step(6)
    assert_equal(resumed.average.tensors, unbroken.average.tensors)
    assert_equal(learnables(resumed), learnables(unbroken))


def test_a_state_without_an_average_begins_one():
    plain = get_solver(small.param())
    plain.step(3)
    path = plain.snapshot()
    solver = get_solver(small.param(EMA))
    solver.step(5)
    solver.restore(path)
    assert solver.average.tensors is None
    solver.step(1)
    assert_equal(solver.average.tensors, learnables(solver))


def test_an_average_that_is_not_used_is_logged(caplog):
    solver = get_solver(small.param(EMA))
    solver.step(1)
    path = solver.snapshot()
    get_solver(small.param()).restore(path)
    assert "holds a moving average, which is dropped: the solver sets no ema_decay" in caplog.text


def test_an_average_of_another_net():
    solver = get_solver(small.param(EMA))
    solver.step(1)
    path = solver.snapshot()
    head, history = state.read(path)
    del head.average[1]
    state.write(path, head, history)
    before = learnables(solver)
    with pytest.raises(SolverError, match='its moving average does not fit blob 1 of layer "ip1"'):
        solver.restore(path)
    assert_equal(learnables(solver), before)


def test_export():
    solver = get_solver(small.param(EMA))
    with pytest.raises(SolverError, match="there is no moving average: set ema_decay"):
        solver.save_average("early.caffemodel")
    solver.step(3)
    solver.save_average("mean.caffemodel")
    mean = weights.read("mean.caffemodel")
    np.testing.assert_array_equal(mean["ip1"][0], solver.average.tensors[0])
    assert np.abs(mean["ip1"][0] - solver.net.params["ip1"][0].data).max() > 0


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_command_takes_the_average_out_of_a_state(form):
    solver = get_solver(small.param(f"{EMA} snapshot_format: {form}"))
    solver.step(3)
    path = solver.snapshot()
    assert main(["average", path, "-o", "mean.caffemodel"]) == 0
    net = Net("net.prototxt", caffe.TEST, weights="mean.caffemodel")
    assert_equal([entry.tensor.detach() for entry in net.learnable], solver.average.tensors)


def test_a_shared_blob_has_its_average_in_both_places():
    solver = get_solver(small.param('net: "shared.prototxt" ' + EMA))
    solver.step(3)
    path = solver.snapshot()
    _, arrays = average.read(path)
    np.testing.assert_array_equal(arrays["a"][0], solver.average.tensors[0])
    np.testing.assert_array_equal(arrays["b"][0], arrays["a"][0])


def snapshots(net, settings="", count=3):
    """Write weight files of one run; return their paths and arrays."""
    solver = get_solver(small.param(f'net: "{net}" {settings}'))
    paths = []
    for _ in range(count):
        solver.step(2)
        paths.append(state.read(solver.snapshot())[0].learned_net)
    return paths, [weights.read(path) for path in paths]


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("out", ["mean.caffemodel", "mean.caffemodel.h5"])
def test_command_averages_files(form, out):
    paths, arrays = snapshots("net.prototxt", f"snapshot_format: {form}")
    assert main(["average", *paths, "-o", out]) == 0
    mean = weights.read(out)
    for name, blobs in arrays[0].items():
        for index in range(len(blobs)):
            expected = np.mean([file[name][index].astype(np.float64) for file in arrays], axis=0).astype(np.float32)
            np.testing.assert_array_equal(mean[name][index], expected)
    assert mean["ip2"][1].shape == (3,)
    Net("net.prototxt", caffe.TEST, weights=out)


def test_the_mean_file_describes_the_net():
    paths, _ = snapshots("net.prototxt", count=2)
    assert main(["average", *paths, "-o", "mean.caffemodel"]) == 0
    net = weights.skeleton("mean.caffemodel")
    assert (net.name, [layer.type for layer in net.layer]) == ("small", [layer.type for layer in net.layer])
    assert net.layer[1].inner_product_param.num_output == 11
    assert not any(layer.blobs for layer in net.layer)


def test_statistics_are_recomputed(monkeypatch):
    paths, arrays = snapshots("normed.prototxt", "base_lr: 5", count=2)
    told = []
    monkeypatch.setattr(display.Display, "say", lambda self, text, *style: told.append(text))
    assert main(["average", *paths, "-o", "c.caffemodel", "-model", "normed.prototxt", "-iterations", "4"]) == 0
    assert "statistics of 1 BatchNorm layer(s)" in told
    found = weights.read("c.caffemodel")
    mean = (arrays[0]["ip"][0].astype(np.float64) + arrays[1]["ip"][0]) / 2
    np.testing.assert_allclose(found["ip"][0], mean, rtol=1e-6)
    net = Net("normed.prototxt", caffe.TRAIN)
    for index in range(2):
        net.params["ip"][index].data[...] = found["ip"][index]
    batches = [net.forward(end="ip")["ip"].astype(np.float64).copy() for _ in range(4)]
    factor = found["bn"][2]
    assert factor == 4
    np.testing.assert_allclose(found["bn"][0] / factor, np.mean([x.mean(0) for x in batches], axis=0), rtol=1e-4)
    spread = np.mean([x.var(0, ddof=1) for x in batches], axis=0)
    np.testing.assert_allclose(found["bn"][1] / factor, spread, rtol=1e-4)


def test_statistics_that_a_net_keeps(folder):
    paths, _ = snapshots("normed.prototxt", count=1)
    text = NORMED.replace('top: "bn" }', 'top: "bn" batch_norm_param { use_global_stats: true } }')
    (folder / "kept.prototxt").write_text(text)
    assert main(["average", *paths, "-o", "c.caffemodel", "-model", "kept.prototxt"]) == 1
    assert not (folder / "c.caffemodel").exists()


def test_what_cannot_be_averaged(folder, capfd):
    paths, _ = snapshots("net.prototxt", count=1)
    (folder / "snap_iter_2.caffemodel").rename("one.caffemodel")
    others, _ = snapshots("normed.prototxt", count=1)
    with pytest.raises(NetError, match=r'layer "ip1": one.caffemodel has blobs of the shapes .* has no such layer'):
        average.average(["one.caffemodel", *others])
    plain = get_solver(small.param())
    plain.step(1)
    with pytest.raises(FileError, match="holds no moving average; set ema_decay in the solver"):
        average.average([plain.snapshot()])
    for arguments, message in (
        (["one.caffemodel"], "Need a file for the averaged weights"),
        (["gone.caffemodel", "-o", "x"], "gone.caffemodel"),
        (["one.caffemodel", "-o", "x", "-model", "net.prototxt", "-iterations", "0"], "-iterations 0: expected at"),
    ):
        capfd.readouterr()
        assert main(["average", *arguments]) == 1
        assert message in capfd.readouterr().err
    assert paths
