"""`caffe time`."""

from __future__ import annotations

import statistics
import time as clock
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from caffe import log
from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import COMPILE, ENGINE, PRECISION, PROCS, TIMEOUT, Flag
from caffe.errors import CaffeError, did_you_mean
from caffe.proto import files

TRACE = Flag("trace", "", "Write a trace of a few runs of the whole net to this .json file, for a trace viewer.")


@command(
    "model",
    "phase",
    "iterations",
    "gpu",
    "level",
    "stage",
    COMPILE,
    ENGINE,
    PRECISION,
    TRACE,
    PROCS,
    TIMEOUT,
    task="nets",
)
def time(flags: SimpleNamespace, display: Display) -> int:
    """Time a model, forward and backward, layer by layer and as a whole.

    Runs the net of -phase (default: TRAIN) -iterations times, layer by layer, and logs Caffe's lines. Then prints a
    table on standard output: the time of each layer, its arithmetic and memory traffic, and how close this is to the
    limit of the machine. The last lines give the same for the whole net, as `caffe train` (in phase TEST: `caffe test`)
    runs it, with its peak memory. -precision applies to the whole net; single layers run in fp32.

    With -procs N, N processes on CPUs compute a training step of the whole net together. The command then prints the
    times for computing and for exchanging gradients, separately and together, and the amount of data sent.

        caffe time -model train_val.prototxt -iterations 10
        caffe time -model train_val.prototxt -procs 2
        caffe time -model train_val.prototxt -iterations 10 --trace trace.json
    """
    _check(flags)
    from caffe.cli import _device, _nets, _processes
    from caffe.proto import upgrade

    code = _processes.started("time", flags, lambda: upgrade.read_net(flags.model)) if flags.procs else None
    if code is not None or _processes.launched():
        return _in_process(flags) if code is None else code
    if numbers := _device.use(flags.gpu, "caffe.cpp:339", f'"-gpu {flags.gpu}"'):
        log.info("caffe.cpp:339", f"Use GPU with device ID {numbers[0]}")
    else:
        log.info("caffe.cpp:343", "Use CPU.")
    net = _nets.open_net(flags, flags.phase or "TRAIN", flags.precision)
    try:
        if flags.phase == "TEST":
            net.optimize(compile=flags.compile, engine=flags.engine)
        elif flags.compile:
            net.compile()
        display.say(_nets.summary(net))
        log.info("caffe.cpp:351", "Performing Forward")
        loss = net.forward_loss()
        log.info("caffe.cpp:356", f"Initial loss: {log.number(loss)}")
        log.info("caffe.cpp:357", "Performing Backward")
        net.backward()
        forward, backward = _benchmark(net, flags.iterations, display)
        _profile(net, forward, backward, flags)
    finally:
        net.close()
    return 0


def _check(flags: SimpleNamespace) -> None:
    from caffe.cli import _processes

    if not flags.model:
        raise CaffeError("Need a model definition to time: give one with -model FILE")
    if flags.phase not in ("", "TRAIN", "TEST"):
        hint = did_you_mean(flags.phase, ("TRAIN", "TEST"))
        raise CaffeError(f'phase must be "TRAIN" or "TEST", not "{flags.phase}"{hint}')
    if flags.iterations < 1:
        raise CaffeError(f"-iterations {flags.iterations}: expected at least 1")
    if flags.engine != "torch" and flags.phase != "TEST":
        raise CaffeError(f"-engine {flags.engine} runs a net forward only: give -phase TEST with it")
    if flags.trace:
        files.check_writable(flags.trace)
    if (flags.procs or _processes.launched()) and (flags.phase == "TEST" or flags.trace):
        raise CaffeError("-procs times training steps: remove -phase TEST and -trace")


def _in_process(flags: SimpleNamespace) -> int:
    """Time a step in this process of several."""
    from caffe.cli import _nets, _processes, _time_processes

    with _processes.joined(flags):
        net = _nets.open_net(flags, "TRAIN", flags.precision)
        try:
            net.compile() if flags.compile else net.slim()
            _time_processes.show(net, flags.iterations)
        finally:
            net.close()
    return 0


def _benchmark(net: Any, iterations: int, display: Display) -> tuple[list[float], list[float]]:
    """Run layer by layer; returns the mean milliseconds of each layer, forward and backward."""
    log.info("caffe.cpp:365", "*** Benchmark begins ***")
    log.info("caffe.cpp:366", f"Testing for {iterations} iterations.")
    count = len(net.layers)
    forward, backward = [0.0] * count, [0.0] * count
    start = clock.perf_counter()
    with display.bar(f"time {net.name}", iterations) as bar:
        for iteration in range(iterations):
            before = clock.perf_counter()
            for index in range(count):
                forward[index] += _milliseconds(net.forward_step, index)
            for index in reversed(range(count)):
                backward[index] += _milliseconds(net.backward_step, index)
            spent = (clock.perf_counter() - before) * 1e3
            log.info("caffe.cpp:394", f"Iteration: {iteration + 1} forward-backward time: {log.number(spent)} ms.")
            bar.update(iteration + 1)
    total = (clock.perf_counter() - start) * 1e3
    forward, backward = [value / iterations for value in forward], [value / iterations for value in backward]
    _log_times(net.layer_names, forward, backward, total, iterations)
    return forward, backward


def _log_times(names: list[str], forward: list[float], backward: list[float], total: float, iterations: int) -> None:
    log.info("caffe.cpp:397", "Average time per layer: ")
    for name, there, back in zip(names, forward, backward, strict=True):
        log.info("caffe.cpp:400", f"{name:>10}\tforward: {log.number(there)} ms.")
        log.info("caffe.cpp:403", f"{name:>10}\tbackward: {log.number(back)} ms.")
    log.info("caffe.cpp:408", f"Average Forward pass: {log.number(sum(forward))} ms.")
    log.info("caffe.cpp:410", f"Average Backward pass: {log.number(sum(backward))} ms.")
    log.info("caffe.cpp:412", f"Average Forward-Backward: {log.number(total / iterations)} ms.")
    log.info("caffe.cpp:414", f"Total Time: {log.number(total)} ms.")
    log.info("caffe.cpp:415", "*** Benchmark ends ***")


def _profile(net: Any, forward: list[float], backward: list[float], flags: SimpleNamespace) -> None:
    """Run the net as a whole, print the table, and write the trace if asked for."""
    import torch

    from caffe.cli import _time_table
    from caffe.net.measure import footprint
    from caffe.net.measure.cost import cost, matrix_peak

    net.debug_info = False  # otherwise it would run layer by layer
    train = flags.phase != "TEST" and any(step.backward for step in net.steps)  # a net without a loss only runs forward
    layers = [
        _time_table.LayerTime(_shown_name(step), step.layer.type, there, back, cost(step), bool(step.bottoms))
        for step, there, back in zip(net.steps, forward, backward, strict=True)
    ]

    def run() -> None:
        if train:
            net.clear_param_diffs()
            net.forward_backward()
        else:
            net.evaluate()

    memory = footprint.footprint(net, run)
    spent = statistics.median(_milliseconds(run) for _ in range(flags.iterations))
    what, passes = ("training step", 3) if train else ("evaluation", 1)
    held, layer_peak = footprint.held(net), matrix_peak(net.device)
    peak = layer_peak if net.precision == torch.float32 else matrix_peak(net.device, net.precision)
    _time_table.show(layers, _time_table.Whole(what, spent, passes, peak, memory, held, layer_peak))
    if flags.trace:
        from caffe.net.measure.trace import trace

        trace(net.module if train else net.runner, run, flags.trace)
        print(f"trace: {flags.trace}, open it in https://ui.perfetto.dev or chrome://tracing")


def _shown_name(step: Any) -> str:
    """Return the layer's name. For an automatic Split, whose name is long, it is the name of the blob that is split."""
    return step.bottom_names[0] if step.layer.splits else step.layer.name


def _milliseconds(run: Callable[..., object], *arguments: int) -> float:
    """Measure the time of `run(*arguments)`, including asynchronous work on a GPU."""
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else None
    start = clock.perf_counter()
    run(*arguments)
    if wait:
        wait()
    return (clock.perf_counter() - start) * 1e3
