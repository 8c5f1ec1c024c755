"""`caffe train`."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from caffe import log
from caffe.cli import signals
from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import COMPILE, PRECISION, PROCS, TIMEOUT, Flag, precision_name
from caffe.errors import CaffeError, did_you_mean, require_extra

NAN = Flag(
    "nan",
    "",
    "Reaction to a loss that stays NaN: stop (after the solver's nan_patience iterations, 10 by default), or "
    "warn and continue. The default is the solver's setting.",
)
DIVIDE = Flag(
    "divide_batch",
    False,
    "Divide the file's batch size by the number of processes, instead of using it in each process.",
)
PLOT = Flag("plot", "", "Draw the curves of loss, accuracy and rate to this file (.png, .pdf, .svg) during training.")
WATCH = Flag(
    "watch",
    "on",
    "Watch the run: warn if the loss barely changes, oscillates or is NaN, if the net "
    "overfits or underfits, if updates are too large, and if units die; and log a line for each epoch. on or off.",
)
ON_FINDING = Flag(
    "on_finding",
    "",
    "Shell command to run for each such warning, with the finding as JSON on its standard input, and "
    "CAFFE_FINDING, CAFFE_ITERATION and CAFFE_MESSAGE in its environment.",
)
LOGDIR = Flag(
    "logdir",
    "",
    "Write TensorBoard event files to this folder: loss, tests, rate, histograms, sizes of updates, input images, "
    "filters, the net's graph, and the watcher's findings (needs the package tensorboard).",
)

MEMBERS = Flag(
    "members",
    1,
    "Train this many nets, one after another, with different seeds. Their files have _member1 and so on after "
    "snapshot_prefix, and `caffe test -ensemble` scores them together.",
)

KEEP = Flag("keep", "", "best: save the weights of the best test in SNAPSHOT_PREFIX_best.caffemodel.")
KEEP_LAST = Flag("keep_last", 0, "Keep this many snapshots of the run, and remove older ones of the run; 0 keeps all.")
RESUME = Flag("resume", False, "The same as -snapshot auto.")
MONITOR = Flag(
    "monitor",
    False,
    "Show the run in the browser during training (see: caffe help monitor). The monitor reads the files of "
    "-log and -logdir; without both, the log is written to SNAPSHOT_PREFIX_train.log.",
)

_NAN = ("stop", "warn")
_WATCH = ("on", "off")
_GOALS = (KEEP, KEEP_LAST, RESUME)
_FLAGS: tuple[str | Flag, ...] = (
    *_GOALS,
    "solver",
    "snapshot",
    "weights",
    "gpu",
    "level",
    "stage",
    *signals.FLAGS.values(),
)


@command(
    *(*_FLAGS, PROCS, DIVIDE, TIMEOUT, COMPILE, LOGDIR, MEMBERS),
    *(MONITOR, NAN, ON_FINDING, PLOT, PRECISION, WATCH),
    task="train",
)
def train(flags: SimpleNamespace, display: Display) -> int:
    """Train a model, finetune one, or resume a run.

    Without -solver, the solver of the project in the current folder is used (see `caffe new`).

    Use -weights to finetune, and -snapshot to resume. Ctrl-C and a termination signal (for example from a batch queue)
    finish the iteration, write a snapshot and stop. A hang-up signal writes a snapshot and continues (see
    -sigint_effect, -sigterm_effect and -sighup_effect). A stopped run prints the command that resumes it. A loss that
    stays NaN ends the run with an error (see -nan).

    -resume, or -snapshot auto, resumes from the newest readable snapshot under snapshot_prefix, or starts from the
    beginning if there is none; -snapshot last requires one. With -members, members that are done are skipped.

    -keep best saves the weights of the best test. The solver's `early_stop { patience: 5 }` ends a run whose tests no
    longer improve; `max_epochs` and `test_every_epoch` are lengths in epochs. At the end the run prints a summary.

    The run is watched: each fault is reported in one line, and written to SNAPSHOT_PREFIX_findings.jsonl. If the length
    of the training data is known, each epoch ends with a line.

    With -procs N, or -gpu with several devices, N processes train together: each reads its own records, and a step uses
    the mean gradient of all processes. If torchrun starts the command, it finds the other processes, also on other
    machines.

        caffe train -solver solver.prototxt
        caffe train -solver solver.prototxt -weights bvlc_reference_caffenet.caffemodel
        caffe train -solver solver.prototxt -snapshot lenet_iter_5000.solverstate
        caffe train -solver solver.prototxt -logdir runs/first      # then: tensorboard --logdir runs
        caffe train -solver solver.prototxt -procs 2
        caffe train -solver solver.prototxt -members 5
    """
    from caffe.cli import _processes, _project
    from caffe.proto import upgrade

    _project.complete_train(flags)
    _check(flags)

    code = _processes.started("train", flags, lambda: upgrade.read_solver(flags.solver))
    if code is None:
        param = _parameters(flags)
        with _processes.joined(flags, flags.divide_batch), _monitored(param, flags, display):
            if flags.members == 1:
                _train(param, flags, display, _state(flags, param.snapshot_prefix))
            else:
                _train_members(param, flags, display)
    return code or 0


def _train_members(param: Any, flags: SimpleNamespace, display: Display) -> None:
    """Train the nets of an ensemble, one after another."""
    from caffe.cli import _members

    _members.check_members(param, flags.solver, flags.snapshot)
    for member, own, plot in _members.each(param, flags.members, flags.plot):
        state = _state(flags, own.snapshot_prefix, required=False)
        if state and _members.done(own, state):
            _tell(display, f"member {member}: done already, {state}")
            continue
        _tell(display, f"member {member} of {flags.members}: seed {own.random_seed}")
        if _train(own, SimpleNamespace(**{**vars(flags), "plot": plot}), display, state):
            return
    _tell(display, _members.how_to_score(param, flags.members))


def _tell(display: Display, text: str) -> None:
    display.say(text)
    log.info("caffe", text)


def _state(flags: SimpleNamespace, prefix: str, required: bool = True) -> str:
    """Return the solver state that -snapshot selects; an empty string if there is none to resume from."""
    if flags.snapshot not in ("last", "auto") or (flags.snapshot == "auto" and required):
        return str(flags.snapshot)
    from caffe.solver import snapshot

    found = snapshot.newest(prefix)
    if not found and required:
        raise CaffeError(f'-snapshot last: there is no snapshot "{prefix}_iter_*.solverstate"; train without -snapshot')
    return found[0] if found else ""


def _resume(solver: Any, state: str) -> None:
    if state == "auto":
        path = solver.restore_newest()
        log.info(
            "caffe.cpp:235",
            f"Resuming from {path}" if path else "No snapshot yet: starting at iteration 0",
        )
    elif state:
        log.info("caffe.cpp:235", f"Resuming from {state}")
        solver.restore(state)


def _train(param: Any, flags: SimpleNamespace, display: Display, state: str) -> bool:
    """Train one net; returns True if the run was stopped."""
    from caffe.solver import get_solver

    solver = get_solver(param, source=flags.solver)
    try:
        if flags.compile:
            solver.net.compile()
        else:
            solver.net.slim(_inputs(solver.net) if flags.logdir else ())
        _resume(solver, state)
        log.info("caffe.cpp:239", "Starting Optimization")
        _run(solver, flags, display)
        log.info("caffe.cpp:250", "Optimization Done.")
        return _interrupted(solver)
    finally:
        for net in (solver.net, *solver.test_nets):
            net.close()


def _monitored(param: Any, flags: SimpleNamespace, display: Display) -> Any:
    """Show the run in the monitor during the block, if asked for."""
    if not flags.monitor:
        return nullcontext()
    from caffe.cli import _monitor

    return _monitor.beside(flags.log, flags.logdir, param.snapshot_prefix, display)


def _check(flags: SimpleNamespace) -> None:
    if not flags.solver:
        raise CaffeError(
            "Need a solver definition to train: give one with -solver FILE, or run the command in a project folder"
        )
    if flags.snapshot not in ("", "auto") and flags.weights:
        raise CaffeError("Give a snapshot to resume training or weights to finetune but not both.")
    if flags.resume and flags.snapshot:
        raise CaffeError("-resume selects the snapshot itself: give either -snapshot or -resume")
    if flags.resume:
        flags.snapshot = "auto"
    if flags.members < 1:
        raise CaffeError(f"-members {flags.members}: expected at least 1")
    for name in signals.FLAGS.values():
        signals.check_effect(name, getattr(flags, name))
    if flags.nan not in ("", *_NAN):
        raise CaffeError(f"-nan {flags.nan}: expected stop or warn{did_you_mean(flags.nan, _NAN)}")
    if flags.watch not in _WATCH:
        raise CaffeError(f"-watch {flags.watch}: expected on or off{did_you_mean(flags.watch, _WATCH)}")
    if flags.on_finding and flags.watch == "off":
        raise CaffeError("-on_finding runs a command for the watcher's findings, but -watch off disables the watcher")
    if flags.logdir:
        require_extra("tensorboard", "tensorboard", "-logdir")
    if flags.monitor:
        from caffe.cli import _monitor

        _monitor.check_packages()
    if flags.plot:
        from caffe import plot

        plot.check_output(flags.plot)


def _parameters(flags: SimpleNamespace) -> Any:
    """Return the solver's parameters with the changes of the flags; sets the mode to CPU or GPU."""
    from caffe.cli import _goals
    from caffe.proto import upgrade

    param = upgrade.read_solver(flags.solver)
    _goals.set_goals(param, flags)
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
    from caffe.cli import _goals, _nets, _watchers

    effects = {name: getattr(flags, flag) for name, flag in signals.FLAGS.items()}
    recorder = _watchers.Recorder(flags.plot) if flags.plot else None
    if recorder:
        solver.watchers.append(recorder)
    summary = _goals.Summary(flags.solver, flags.solver == "solver.prototxt")
    solver.watchers.append(summary)
    solver.watchers += _watchers.followers(solver.param, flags)
    display.say(_nets.summary(solver.net))
    for index, net in enumerate(solver.test_nets):
        display.say(_nets.summary(net, f" net {index}" if len(solver.test_nets) > 1 else ""))

    def tell(text: str, style: str = "yellow") -> None:
        display.say(text, style)
        log.info("caffe", text)

    title = f"train {solver.net.name}"
    with display.bar(title, solver.param.max_iter, solver.iter) as bar, signals.acting(effects, solver.request, tell):
        if display.terminal:
            solver.watchers.append(_watchers.Progress(display, bar))
        try:
            solver.solve()
        finally:
            _watchers.finish(solver.watchers)
            if recorder and recorder.draw():
                tell(f"the curves are in {flags.plot}", style="")
    for line in summary.lines(solver):
        display.say(line)
        log.info("summary", line)
    if _interrupted(solver):
        tell(_way_back(solver, flags))


def _interrupted(solver: Any) -> bool:
    """Whether a run was stopped from outside, before it came to its end by max_iter or early_stop."""
    from caffe.cli import _goals

    return bool(solver.stopped) and not _goals.ended_early(solver)


def _inputs(net: Any) -> list[str]:
    """Return the names of the image tops of the data layers."""
    tops = [step.tops[0] for step in net.steps if not step.bottoms and step.tops]
    return [top.name for top in tops if len(top.shape) == 4]


def _way_back(solver: Any, flags: SimpleNamespace) -> str:
    """Return the command that resumes a stopped run, or the message that there is no snapshot of it."""
    if solver.health.good_iter != solver.iter:
        return f"there is no snapshot of iteration {solver.iter}. {solver.health.way_back()}"
    state = ["-members", str(flags.members), "-snapshot", "last"] if flags.members > 1 else []
    words = ["caffe", "train", "-solver", flags.solver, *(state or ["-snapshot", solver.health.good])]
    for name in (
        "gpu",
        "level",
        "stage",
        "precision",
        "nan",
        "keep",
        "keep_last",
        "watch",
        "on_finding",
        "logdir",
        "import",
    ):
        words += [f"-{name}", str(getattr(flags, name))] if getattr(flags, name) not in ("", 0, "on") else []
    words += ["-compile"] * flags.compile + ["-nopython_layers"] * (not flags.python_layers)
    return f"resume with: {shlex.join(words)}"
