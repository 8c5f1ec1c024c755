"""The training loop: the order of events, the log, the nets that are built, and rejected settings."""

import logging
import math
import re

import numpy as np
import pytest

from caffe.errors import CaffeError, FileError, SolverError
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.solver import AdamSolver, SGDSolver, Solver, Watcher, get_solver
from tests.solver import small


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.write(tmp_path)
    return tmp_path


@pytest.fixture
def lines(caplog):
    """Return a function that returns the new log lines of the solver as (place, message)."""
    caplog.set_level(logging.INFO, logger="caffe")

    def take():
        found = [(record.place, record.getMessage()) for record in caplog.records if "solver" in record.place]
        caplog.clear()
        return found

    return take


class Events(Watcher):
    """Records the events of a solver."""

    def __init__(self):
        self.seen = []

    def started(self, solver):
        self.seen.append("started")

    def iterated(self, solver, iteration, loss, rate):
        self.seen.append(f"iterated {iteration} {rate:g}")
        assert solver.iter == iteration + 1
        assert loss > 0

    def displayed(self, solver, iteration, loss, outputs):
        self.seen.append(f"displayed {iteration} {list(outputs)}")

    def tested(self, solver, iteration, net_index, outputs):
        self.seen.append(f"tested {iteration} #{net_index} {list(outputs)}")

    def snapshotted(self, solver, path):
        self.seen.append(f"snapshotted {path}")

    def finished(self, solver):
        self.seen.append("finished")


def watched(more=""):
    solver = get_solver(small.param(more))
    events = Events()
    solver.watchers.append(events)
    return solver, events.seen


def test_order_of_events():
    solver, seen = watched(
        "test_iter: 2 test_interval: 2 display: 2 snapshot: 2 max_iter: 4 snapshot_after_train: true"
    )
    solver.add_callback(lambda: seen.append("start"), lambda: seen.append("ready"))
    solver.solve()
    tested, displayed = "tested {} #0 ['accuracy', 'loss']", "displayed {} ['loss']"
    assert seen == [
        "started",
        *(tested.format(0), "start", displayed.format(0), "ready", "iterated 0 0.1"),
        *("start", "ready", "iterated 1 0.1", "snapshotted snap_iter_2.solverstate"),
        *(tested.format(2), "start", displayed.format(2), "ready", "iterated 2 0.1"),
        *("start", "ready", "iterated 3 0.1", "snapshotted snap_iter_4.solverstate", tested.format(4), "finished"),
    ]


def test_log_lines(lines):
    solver = get_solver(small.param("test_iter: 2 test_interval: 3 display: 2 max_iter: 4"))
    built = lines()
    assert built[0][0] == "solver.cpp:45"
    assert built[0][1].startswith(
        "Initializing solver from parameters: \ntest_iter: 2\ntest_interval: 3\nbase_lr: 0.1\n"
    )
    assert built[1:] == [
        ("solver.cpp:102", "Creating training net from net file: net.prototxt"),
        ("solver.cpp:190", "Creating test net (#0) specified by net file: net.prototxt"),
        ("solver.cpp:57", "Solver scaffolding done."),
    ]
    solver.solve()
    number = r"-?[\d.e+-]+"
    train = f"    Train net output #0: loss = {number} \\(\\* 1 = {number} loss\\)"
    tests = [
        ("solver.cpp:414", f"    Test net output #0: accuracy = {number}"),
        ("solver.cpp:414", f"    Test net output #1: loss = {number} \\(\\* 1 = {number} loss\\)"),
    ]
    speed = f"\\({number} iter/s, {number}s/2 iters\\)"
    expected = [
        ("solver.cpp:289", "Solving small"),
        ("solver.cpp:290", "Learning Rate Policy: fixed"),
        ("solver.cpp:347", r"Iteration 0, Testing net \(#0\)"),
        *tests,
        ("solver.cpp:239", f"Iteration 0 {speed}, loss = {number}"),
        ("solver.cpp:258", train),
        ("sgd_solver.cpp:112", "Iteration 0, lr = 0.1"),
        ("solver.cpp:239", f"Iteration 2 {speed}, loss = {number}"),
        ("solver.cpp:258", train),
        ("sgd_solver.cpp:112", "Iteration 2, lr = 0.1"),
        ("solver.cpp:347", r"Iteration 3, Testing net \(#0\)"),
        *tests,
        ("solver.cpp:327", f"Iteration 4, loss = {number}"),
        ("solver.cpp:332", "Optimization Done."),
    ]
    got = lines()
    assert [place for place, _ in got] == [place for place, _ in expected]
    for (_, message), (_, pattern) in zip(got, expected, strict=True):
        assert re.fullmatch(pattern, message)


def test_debug_info_shows_displayed_iterations_and_every_test(caplog):
    solver = get_solver(small.param("debug_info: true display: 3 test_iter: 2 test_interval: 2"))
    caplog.set_level(logging.INFO, logger="caffe")
    solver.step(4)
    messages = [record.getMessage() for record in caplog.records]
    assert sum("[Backward] All net params" in message for message in messages) == 2
    assert sum("[Forward] Layer accuracy" in message for message in messages) == 4


def test_displayed_loss_is_the_mean_of_the_last_ones(lines):
    solver = get_solver(small.param("display: 1 average_loss: 3"))
    losses, shown = [], []
    run = solver.net.forward_backward
    solver.net.forward_backward = lambda: losses.append(run()) or losses[-1]
    solver.step(5)
    shown = [float(message.rpartition("= ")[2]) for place, message in lines() if place == "solver.cpp:239"]
    assert shown == pytest.approx([np.mean(losses[max(0, i - 2) : i + 1]) for i in range(5)], rel=1e-5)
    solver.step(1)
    (shown,) = [message for place, message in lines() if place == "solver.cpp:239"]
    assert float(shown.rpartition("= ")[2]) == pytest.approx(losses[-1], rel=1e-5), "each step() starts a new mean"


def test_tests_take_means_with_the_trained_weights():
    solver = get_solver(small.param("test_iter: 4 test_interval: 10 test_initialization: false"))
    solver.step(3)
    other = Net("net.prototxt", caffe_pb2.TEST)
    solver.share_weights(other)
    assert np.shares_memory(other.params["ip1"][0].data, solver.net.params["ip1"][0].data)
    outputs = [{name: float(value) for name, value in other.forward().items()} for _ in range(4)]
    got = solver.test(0)
    for name in ("accuracy", "loss"):
        assert got[name] == [pytest.approx(np.mean([output[name] for output in outputs]), rel=1e-5)]


def test_a_limit_of_0_leaves_no_gradient_and_a_negative_one_all():
    def step(limit: str) -> float:
        solver = get_solver(small.param(f"momentum: 0 weight_decay: 0 {limit}"))
        before = solver.net.params["ip2"][0].data.copy()
        solver.step(1)
        return float(np.abs(solver.net.params["ip2"][0].data - before).max())

    assert step("clip_gradients: 0") == 0
    assert step("clip_gradients: -1") == step("") > 0


@pytest.mark.parametrize("size", [1, 4])
def test_gradients_are_clipped_before_they_are_divided_by_iter_size(size, lines):
    solver = get_solver(small.param(f"clip_gradients: 0.01 momentum: 0 weight_decay: 0 iter_size: {size}"))
    before = [entry.tensor.detach().clone() for entry in solver.net.learnable]
    solver.step(1)
    moved = [
        (entry.tensor.detach() - old) / (0.1 * entry.lr_mult)
        for entry, old in zip(solver.net.learnable, before, strict=True)
    ]
    assert math.sqrt(sum(float((part**2).sum()) for part in moved)) == pytest.approx(0.01 / size, rel=1e-3)
    (clip,) = [message for place, message in lines() if place == "sgd_solver.cpp:99"]
    assert re.fullmatch(
        r"Gradient clipping: scaling down gradients \(L2 norm [\d.]+ > 0.01\) by scale factor [\d.e-]+", clip
    )


def test_iter_size_averages_batches():
    """Two half batches with iter_size 2 give the same step as their mean."""
    solver = get_solver(small.param("iter_size: 2 momentum: 0 weight_decay: 0"))
    entry = solver.net.learnable[0]
    before = entry.tensor.detach().clone()
    grads = []
    solver.add_callback(lambda: None, lambda: grads.append(entry.tensor.grad.clone()))
    solver.step(1)
    np.testing.assert_allclose(before - 0.05 * grads[0], entry.tensor.detach(), rtol=1e-5, atol=1e-7)


def test_multistep_logs_its_steps(lines):
    solver = get_solver(small.param('lr_policy: "multistep" gamma: 0.5 stepvalue: 2 stepvalue: 3'))
    solver.step(2)
    assert solver.lr == pytest.approx(0.05)
    assert solver.current_step == 0, "asking for the rate takes no step"
    solver.step(2)
    assert [message for place, message in lines() if place == "sgd_solver.cpp:50"] == [
        "MultiStep Status: Iteration 2, step = 1",
        "MultiStep Status: Iteration 3, step = 2",
    ]


def test_apply_update_alone():
    solver = get_solver(small.param())
    solver.net.clear_param_diffs()
    solver.net.forward_backward()
    before = solver.net.params["ip2"][0].data.copy()
    assert solver.apply_update() == pytest.approx(0.1)
    assert solver.iter == 1
    np.testing.assert_allclose(
        solver.net.params["ip2"][0].data, before - solver.net.params["ip2"][0].diff, rtol=1e-6, atol=1e-7
    )


def test_arrays_handed_out_before_show_the_training():
    solver = get_solver(small.param())
    view = solver.net.params["ip1"][0].data
    before = view.copy()
    solver.step(1)
    assert not np.array_equal(view, before)
    assert np.shares_memory(view, solver.net.params["ip1"][0].data)


def test_changing_base_lr_between_steps():
    solver = get_solver(small.param())
    solver.param.base_lr = 0.25
    assert solver.lr == 0.25


# -- requests ------------------------------------------------------------------------------------------------------


def test_requests_are_met_between_iterations(lines):
    solver, seen = watched("test_iter: 1 test_interval: 100 test_initialization: false snapshot_after_train: true")
    asked = {1: "snapshot", 2: "stop"}
    solver.add_callback(lambda: None, lambda: solver.iter in asked and solver.request(asked[solver.iter]))
    solver.solve()
    assert solver.iter == 3
    assert seen == [
        *("started", "iterated 0 0.1", "iterated 1 0.1", "snapshotted snap_iter_2.solverstate"),
        *("iterated 2 0.1", "snapshotted snap_iter_3.solverstate", "finished"),
    ]
    assert lines()[-1] == ("solver.cpp:311", "Optimization stopped early.")


def test_stop_during_a_test(lines):
    solver, seen = watched("test_iter: 50 test_interval: 1 snapshot_after_train: true")
    run, count = solver.test_nets[0].evaluate, []
    solver.test_nets[0].evaluate = lambda **_: (count.append(0), len(count) == 3 and solver.request("stop"), run())[2]
    solver.solve()
    assert len(count) == 3
    assert seen == ["started", "snapshotted snap_iter_0.solverstate", "finished"]
    assert ("solver.cpp:396", "Test interrupted.") in lines()
    solver.test_nets[0].evaluate = run
    solver.step(1)
    assert solver.iter == 1, "a stopped solver can be stepped on"


def test_unknown_request():
    with pytest.raises(SolverError, match='unknown request "stpo"; did you mean "stop"'):
        get_solver(small.param()).request("stpo")


def test_a_loss_that_is_no_number_is_warned_of_once(caplog):
    solver = get_solver(small.param())
    solver.net.params["ip2"][0].data[...] = np.nan
    solver.step(3)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "Iteration 0: the loss is nan: training has diverged" in warnings[0]
    assert solver.iter == 3


# -- nets ----------------------------------------------------------------------------------------------------------


def net_param(name, *stages):
    param = caffe_pb2.NetParameter(name=name)
    layer = param.layer.add(name="x", type="DummyData", top=["x"])
    layer.dummy_data_param.shape.add(dim=[2, 3])
    layer = param.layer.add(name="y", type="InnerProduct", bottom=["x"], top=["y"])
    layer.inner_product_param.num_output = 5
    for stage in stages:
        layer = param.layer.add(name=stage, type="Silence", bottom=["x"])
        layer.include.add(stage=[stage])
    return param


def test_test_nets_in_their_order_and_states(lines):
    param = caffe_pb2.SolverParameter(
        base_lr=1, lr_policy="fixed", test_interval=5, test_iter=[1, 2, 3, 4], net="net.prototxt"
    )
    param.test_net_param.append(net_param("inline", "odd"))
    param.test_net_param[0].layer[1].name = "ip1"  # a test net has a layer of the train net
    param.test_net.append("net.prototxt")
    for stage in ("odd", "even", "odd", "even"):
        param.test_state.add(stage=[stage])
    solver = Solver(param)
    assert [message for place, message in lines() if place == "solver.cpp:190"] == [
        "Creating test net (#0) specified by test_net_param",
        "Creating test net (#1) specified by test_net file: net.prototxt",
        "Creating test net (#2) specified by net file: net.prototxt",
        "Creating test net (#3) specified by net file: net.prototxt",
    ]
    assert [net.name for net in solver.test_nets] == ["inline", "small", "small", "small"]
    assert "odd" in solver.test_nets[0].layer_names
    assert all(net.phase == caffe_pb2.TEST for net in solver.test_nets)


@pytest.mark.parametrize("field", ["net_param", "train_net_param", "train_net", "net"])
def test_train_net_by_any_field(field, folder, lines):
    inline = net_param("inline", "mine", "theirs")
    (folder / "inline.prototxt").write_text(str(inline))
    param = caffe_pb2.SolverParameter(base_lr=1, lr_policy="fixed")
    if field.endswith("param"):
        getattr(param, field).CopyFrom(inline)
    else:
        setattr(param, field, "inline.prototxt")
    param.train_state.stage.append("mine")
    solver = Solver(param)
    assert solver.net.phase == caffe_pb2.TRAIN
    assert solver.net.layer_names == ["x", "x_x_0_split", "y", "mine"]
    place = {"train_net_param": 88, "train_net": 92, "net_param": 97, "net": 102}[field]
    assert f"solver.cpp:{place}" in [place for place, _ in lines()]


def test_state_of_the_net_file_and_of_the_solver():
    """The `state` of the net overrides the solver's phase, and `train_state` overrides both."""
    inline = net_param("inline", "own", "given")
    inline.state.phase = caffe_pb2.TEST
    inline.state.stage.append("own")
    param = caffe_pb2.SolverParameter(base_lr=1, lr_policy="fixed", net_param=inline)
    param.train_state.stage.append("given")
    solver = Solver(param)
    assert (solver.net.phase, solver.net.layer_names[-2:]) == (caffe_pb2.TEST, ["own", "given"])
    param.train_state.phase = caffe_pb2.TRAIN
    assert Solver(param).net.phase == caffe_pb2.TRAIN


def test_weights_are_loaded_into_train_and_test_nets(lines):
    first = get_solver(small.param())
    first.step(2)
    first.net.save("a.caffemodel")
    first.step(1)
    first.net.save("b.caffemodel")
    lines()
    solver = get_solver(small.param('weights: "a.caffemodel, b.caffemodel" test_iter: 1 test_interval: 9'))
    for net in (solver.net, *solver.test_nets):
        np.testing.assert_array_equal(net.params["ip1"][0].data, first.net.params["ip1"][0].data)
    tuned = [message for place, message in lines() if place == "solver.cpp:72"]
    assert tuned == ["Finetuning from a.caffemodel", "Finetuning from b.caffemodel"] * 2


def test_random_seed_repeats_a_run():
    first, second = get_solver(small.param()), get_solver(small.param())
    third = get_solver(small.param("random_seed: 8"))
    weights = [solver.net.params["ip1"][0].data for solver in (first, second, third)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('type: "SDG"', 'unknown solver type "SDG"; did you mean "SGD"'),
        ('lr_policy: "setp"', 'unknown learning rate policy "setp"'),
        ("average_loss: 0", "average_loss is 0, expected at least 1"),
        ("iter_size: 0", "iter_size is 0, expected at least 1"),
        ('regularization_type: "l2"', 'unknown regularization_type "l2"; did you mean "L2"'),
        ('train_net: "x"', "must name its train net by one of .* it has net and train_net"),
        ("test_iter: 1", r"test_interval is 0, but the solver has 1 test net\(s\)"),
        (
            'test_net: "net.prototxt" test_interval: 1',
            "test_iter must be given once per test net: 0 given, 1 test nets",
        ),
        ("test_iter: 1 test_interval: 1 test_state {} test_state {}", "test_state must be .* 2 given, 1 test nets"),
        (
            'snapshot: 5 snapshot_prefix: "no/such"',
            r'snapshot_prefix "no/such": there is no folder "no" \(from .*create it',
        ),
    ],
)
def test_settings_refused_before_training(more, message):
    with pytest.raises(SolverError, match=message):
        get_solver(small.param(more))


def test_missing_files():
    with pytest.raises(FileError, match=r"nowhere.prototxt"):
        get_solver(small.param('net: "nowhere.prototxt"'))
    with pytest.raises(FileError, match=r"nowhere.caffemodel"):
        get_solver(small.param('weights: "nowhere.caffemodel"'))
    with pytest.raises(CaffeError, match=r"nowhere.prototxt"):
        get_solver("nowhere.prototxt")


def test_no_net_and_too_many_test_iters():
    with pytest.raises(SolverError, match=r"must name its train net by one of net, net_param, .* it has none"):
        Solver(caffe_pb2.SolverParameter(base_lr=1, lr_policy="fixed"))
    param = caffe_pb2.SolverParameter(
        base_lr=1, lr_policy="fixed", train_net="net.prototxt", test_iter=[1], test_interval=1
    )
    with pytest.raises(SolverError, match="1 given, 0 test nets"):
        Solver(param)


def test_a_missing_folder_is_found_before_training():
    solver = get_solver(small.param('snapshot_prefix: "no/such" snapshot_after_train: true'))
    with pytest.raises(SolverError, match='there is no folder "no"'):
        solver.solve()
    assert solver.iter == 0


def test_pycaffe_classes(caplog):
    solver = get_solver(small.param('type: "Adam"'))
    assert type(solver) is AdamSolver
    assert isinstance(solver, SGDSolver)
    forced = SGDSolver(small.param('type: "Adam"'))
    assert forced.param.type == "SGD"
    assert "taking the place of type 'Adam'" in caplog.text


def test_old_solver_type_field():
    param = small.param()
    param.solver_type = param.RMSPROP
    param.momentum = 0
    solver = get_solver(param)
    assert (solver.param.type, type(solver).__name__) == ("RMSProp", "RMSPropSolver")


def test_a_rate_of_zero_is_warned_of(caplog):
    get_solver(small.param("base_lr: 0"))
    assert "the weights will not change" in caplog.text
