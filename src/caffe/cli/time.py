"""`caffe time`."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from caffe import log
from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.errors import CaffeError, did_you_mean


@command("model", "phase", "iterations", "gpu", "level", "stage")
def time(flags: SimpleNamespace, display: Display) -> None:
    """Time a model, forward and backward, layer by layer.

    Runs -iterations times over the net of -phase (TRAIN if not given), one layer at a time. At a terminal it also shows
    what a training step costs when the whole net runs at once, which is how `caffe train` runs it.

        caffe time -model deploy.prototxt -iterations 10
    """
    if not flags.model:
        raise CaffeError("Need a model definition to time: give one with -model FILE")
    if flags.phase not in ("", "TRAIN", "TEST"):
        hint = did_you_mean(flags.phase, ("TRAIN", "TEST"))
        raise CaffeError(f'phase must be "TRAIN" or "TEST", not "{flags.phase}"{hint}')
    if flags.iterations < 1:
        raise CaffeError(f"-iterations {flags.iterations}: expected at least 1")
    from caffe.cli import _device, _nets

    if numbers := _device.use(flags.gpu, "caffe.cpp:339", f'"-gpu {flags.gpu}"'):
        log.info("caffe.cpp:339", f"Use GPU with device ID {numbers[0]}")
    else:
        log.info("caffe.cpp:343", "Use CPU.")
    net = _nets.open_net(flags, flags.phase or "TRAIN")
    try:
        display.say(_nets.summary(net))
        log.info("caffe.cpp:351", "Performing Forward")
        loss = net.forward_loss()
        log.info("caffe.cpp:356", f"Initial loss: {log.number(loss)}")
        log.info("caffe.cpp:357", "Performing Backward")
        net.backward()
        _benchmark(net, flags.iterations, display)
    finally:
        net.close()


def _benchmark(net: Any, iterations: int, display: Display) -> None:
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
    if display.terminal:
        _show_times(net, forward, backward, iterations, display)


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


def _show_times(net: Any, forward: list[float], backward: list[float], iterations: int, display: Display) -> None:
    total = sum(forward) + sum(backward)
    rows = [
        (name, layer.type, f"{there:.3f}", f"{back:.3f}", f"{100 * (there + back) / total:.1f} %")
        for name, layer, there, back in zip(net.layer_names, net.layers, forward, backward, strict=True)
    ]
    rows.append(("all layers", "", f"{sum(forward):.3f}", f"{sum(backward):.3f}", "100 %"))
    display.table(("layer", "type", "forward ms", "backward ms", "share"), rows)
    whole = sum(_milliseconds(net.forward_backward) for _ in range(iterations)) / iterations
    display.say(f"forward and backward of the whole net at once: {whole:.3f} ms", "bold")


def _milliseconds(run: Callable[..., object], *arguments: int) -> float:
    """How long `run(*arguments)` takes, with the work it left on a GPU."""
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else None
    start = clock.perf_counter()
    run(*arguments)
    if wait:
        wait()
    return (clock.perf_counter() - start) * 1e3
