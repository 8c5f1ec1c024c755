"""`caffe train`."""

from __future__ import annotations

import shlex
from types import SimpleNamespace
from typing import Any

from caffe import log
from caffe.cli import signals
from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import COMPILE, PRECISION, PROCS, TIMEOUT, Flag, precision_name
from caffe.errors import CaffeError, did_you_mean

NAN = Flag(
    "nan",
    "",
    "What a loss that stays NaN does: stop (after nan_patience iterations, which the solver sets, 10 by default), or "
    "warn and go on. By default as the solver says.",
)
DIVIDE = Flag("divide_batch", False, "Divide the batch of the file among the processes, instead of taking it in each.")
PLOT = Flag("plot", "", "Draw the curves of loss, accuracy and rate into this file (.png, .pdf, .svg) as they grow.")


_NAN = ("stop", "warn")
_FLAGS = ("solver", "snapshot", "weights", "gpu", "level", "stage", *signals.FLAGS.values())


@command(*_FLAGS, PROCS, DIVIDE, TIMEOUT, COMPILE, NAN, PLOT, PRECISION, task="train")
def train(flags: SimpleNamespace, display: Display) -> int:
    """Train a model, finetune one, or resume a run.

    Finetuning starts from -weights, resuming from -snapshot. Ctrl-C and a termination signal, as batch queues send it,
    finish the iteration, write a snapshot and stop; a hang-up signal writes one and goes on (see -sigint_effect,
    -sigterm_effect and -sighup_effect). A run that was stopped tells the command that resumes it. A loss that stays NaN
    ends the run with an error (see -nan). -snapshot auto resumes from the newest whole snapshot of the solver's prefix,
    and starts from the beginning where there is none: for runs that something starts again.

    With -procs N, or -gpu with several devices, N processes train together: each takes its own records and a step uses
    the mean gradient of all. Started by torchrun, the command finds the other processes, also on other machines.

        caffe train -solver solver.prototxt
        caffe train -solver solver.prototxt -weights bvlc_reference_caffenet.caffemodel
        caffe train -solver solver.prototxt -snapshot lenet_iter_5000.solverstate
    """
    _check(flags)
    from caffe.cli import _processes

    code = _processes.started("train", flags)
    if code is None:
        param = _parameters(flags)
        with _processes.joined(flags, flags.divide_batch):
            _train(flags, param, display)
    return code or 0


def _train(flags: SimpleNamespace, param: Any, display: Display) -> None:
    from caffe.solver import get_solver

    solver = get_solver(param, source=flags.solver)
    try:
        if flags.compile:
            solver.net.compile()
        else:
            solver.net.slim()
        if flags.snapshot == "auto":
            path = solver.restore_newest()
            log.info("caffe.cpp:235", f"Resuming from {path}" if path else "There is no snapshot yet: starting anew")
        elif flags.snapshot:
            log.info("caffe.cpp:235", f"Resuming from {flags.snapshot}")
            solver.restore(flags.snapshot)
        log.info("caffe.cpp:239", "Starting Optimization")
        _run(solver, flags, display)
        log.info("caffe.cpp:250", "Optimization Done.")
    finally:
        for net in (solver.net, *solver.test_nets):
            net.close()


def _check(flags: SimpleNamespace) -> None:
    if not flags.solver:
        raise CaffeError("Need a solver definition to train: give one with -solver FILE")
    if flags.snapshot not in ("", "auto") and flags.weights:
        raise CaffeError("Give a snapshot to resume training or weights to finetune but not both.")
    for name in signals.FLAGS.values():
        signals.check_effect(name, getattr(flags, name))
    if flags.nan not in ("", *_NAN):
        raise CaffeError(f"-nan {flags.nan}: expected stop or warn{did_you_mean(flags.nan, _NAN)}")
    if flags.plot:
        from caffe import plot

        plot.check_output(flags.plot)


def _parameters(flags: SimpleNamespace) -> Any:
    """The solver's parameters with what the flags add; sets the mode to CPU or GPU."""
    from caffe.proto import upgrade

    param = upgrade.read_solver(flags.solver)
    param.train_state.level = flags.level
    param.train_state.stage.extend(flags.stage.split(","))
    _choose_device(param, flags)
    if flags.precision:
        param.precision = param.Precision.Value(precision_name(flags.precision))
    if flags.nan == "warn":
        param.nan_patience = 0
    elif flags.nan == "stop" and param.nan_patience == 0:
        param.ClearField("nan_patience")
    if flags.snapshot not in ("", "auto") or flags.weights:
        param.ClearField("weights")
    if flags.weights:
        param.weights.append(flags.weights)
    return param


def _choose_device(param: Any, flags: SimpleNamespace) -> None:
    from caffe.cli import _device, _processes

    wanted, purpose = flags.gpu, f'"-gpu {flags.gpu}"'
    if not wanted and param.HasField("solver_mode") and param.solver_mode == param.GPU:
        wanted = "all" if _processes.launched() else str(param.device_id)
        purpose = f'{flags.solver} ("solver_mode: GPU")'
    numbers = _processes.device_of(_device.gpus(wanted), wanted)
    numbers = _device.use(",".join(map(str, numbers)) or wanted, "caffe.cpp:204", purpose)
    if len(numbers) > 1:
        raise CaffeError(f"-gpu {flags.gpu}: training runs on one device; name one of {numbers}")
    if numbers:
        log.info("caffe.cpp:204", f"Using GPUs {numbers[0]}")
        param.solver_mode, param.device_id = param.GPU, numbers[0]
    else:
        log.info("caffe.cpp:197", "Use CPU.")
        if wanted:
            param.solver_mode = param.CPU


def _run(solver: Any, flags: SimpleNamespace, display: Display) -> None:
    from caffe.cli import _nets
    from caffe.cli import _watchers as _watch

    effects = {name: getattr(flags, flag) for name, flag in signals.FLAGS.items()}
    recorder = _watch.Recorder(flags.plot) if flags.plot else None
    if recorder:
        solver.watchers.append(recorder)
    display.say(_nets.summary(solver.net))
    for index, net in enumerate(solver.test_nets):
        display.say(_nets.summary(net, f" net {index}" if len(solver.test_nets) > 1 else ""))

    def tell(text: str, style: str = "yellow") -> None:
        display.say(text, style)
        log.info("caffe", text)

    title = f"train {solver.net.name}"
    with display.bar(title, solver.param.max_iter, solver.iter) as bar, signals.acting(effects, solver.request, tell):
        if display.terminal:
            solver.watchers.append(_watch.Progress(display, bar))
        try:
            solver.solve()
        finally:
            if recorder and recorder.draw():
                tell(f"the curves are in {flags.plot}", style="")
    if solver.stopped:
        tell(_way_back(solver, flags))


def _way_back(solver: Any, flags: SimpleNamespace) -> str:
    """The command line that goes on where a stopped run ended, or that there is no snapshot of it."""
    if solver.health.good_iter != solver.iter:
        return f"there is no snapshot of iteration {solver.iter}. {solver.health.way_back()}"
    words = ["caffe", "train", "-solver", flags.solver, "-snapshot", solver.health.good]
    for name in ("gpu", "level", "stage", "precision", "nan", "import"):
        words += [f"-{name}", str(getattr(flags, name))] if getattr(flags, name) else []
    words += ["-compile"] * flags.compile + ["-nopython_layers"] * (not flags.python_layers)
    return f"resume with: {shlex.join(words)}"
