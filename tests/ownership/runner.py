"""Runs sequences in Caffe and in the model, and compares the two after each operation."""

from __future__ import annotations

import gc
import logging
import os
import tempfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import caffe
from tests.ownership import script
from tests.ownership.layers import FragileError
from tests.ownership.memory import Expected, rounding
from tests.ownership.sequences import Fixed
from tests.ownership.world import World, labels, values

HUGE = 1e5
NOISY_RUNS = 3  # the value in the model, if it differs from Caffe's
REAL = not hasattr(caffe, "CaffeError")  # whether this is the original
_Error = () if REAL else caffe.CaffeError


class Mismatch(Exception):
    """Caffe differs from the model; `what` is the expression that shows the difference, if there is one."""

    def __init__(self, fact, what="", place=None):
        super().__init__(f"{what} {fact}" if what else fact)
        self.what, self.place = what, place


@dataclass
class Place:
    """The position of a difference: the number of the comparison, the expected array, and the difference."""

    number: int
    expected: np.ndarray
    gap: np.ndarray


@dataclass
class Result:
    """The result of a sequence. `failure` is None if everything agreed. `lines` is the script up to the failure."""

    start: Any
    ops: list[Any] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    failure: str | None = None
    what: str = ""
    place: Place | None = None
    fragile: bool = False
    eager: bool = False
    seed: int | None = None

    def brief(self):
        return "\n".join([self.start.graph.text(), *self.lines[-len(self.ops) :], f"# {self.failure}"])

    def script(self):
        end = [f"print({self.what})"] if self.what else []
        return script.script(self.start, [*self.lines, *end, *(f"# {line}" for line in self.failure.split("\n"))])


def copied(arrays):
    return {name: array.copy() for name, array in arrays.items()}


def widest(expected):
    """Return the effect of rounding on each number of an array of the model."""
    return 1e-4 * abs(expected) + 2e-5 * max(1, abs(expected).max())


def _short(array):
    flat = array.ravel()
    return f"[{', '.join(f'{x:.5g}' for x in flat[:6])}{', ...' if flat.size > 6 else ''}]"


class Run:
    """One sequence. `ops(world)` gives the next operation."""

    def __init__(self, ops, folder, notes=False):
        self.noted = [] if notes else None  # the expected values, which are stored instead of compared
        self.compared = 0
        self.next, self.eager = ops, ops.eager
        self.world = World(ops.start, REAL)
        self.result = Result(ops.start, eager=ops.eager)
        self.space = {"np": np, "caffe": caffe, "gc": gc, "folder": folder, "seen": None}
        self.space.update(values=values, labels=labels, copied=copied)
        self._files(ops.start, folder)

    def _files(self, start, folder):
        text = start.graph.text()
        if REAL:
            self.space["net_file"] = _written(folder, "net.prototxt", text)
            net = f'net: "{self.space["net_file"]}"'
        else:
            from google.protobuf import text_format

            self.space["net_file"] = text_format.Parse(text, caffe.proto.caffe_pb2.NetParameter())
            net = f"net_param {{ {text} }}"
        if start.solver is not None:
            solver = script.solver_text(start.solver, net, f"{folder}/s")
            if REAL:
                self.space["solver_file"] = _written(folder, "solver.prototxt", solver)
            else:
                self.space["solver_file"] = text_format.Parse(solver, caffe.proto.caffe_pb2.SolverParameter())

    def run(self):
        try:
            for line in script.setup_lines(self.world):
                self._execute(line)
            self._check()
            while True:
                op = self.next(self.world)
                if op is None:
                    break
                self.result.ops.append(op)
                self._operate(op)
            self._check_all()
        except Mismatch as mismatch:
            self.result.failure, self.result.what, self.result.place = str(mismatch), mismatch.what, mismatch.place
        except (FragileError, FloatingPointError):
            self.result.fragile = True
        return self.result

    def _operate(self, op):
        line = op.code(self.world, *op.arguments)
        expected = op.apply(self.world, *op.arguments)
        may_raise = isinstance(expected, Expected) and expected.may_raise
        self.space["seen"] = None
        if self._execute(line, may_raise):
            self._check_seen(expected)
        self._check()
        if self.eager:
            self._check_all()

    def _execute(self, line, may_raise=False):
        """Execute a line; return whether it ran. An unexpected error raises Mismatch."""
        self.result.lines.append(line)
        try:
            exec(line, self.space)
            return True
        except Exception as error:
            if may_raise and isinstance(error, _Error):
                return False
            raise Mismatch(f"raised {type(error).__name__}: {error}") from error

    def _compare(self, what, got, expected):
        """Raise Mismatch if the array differs by more than rounding."""
        got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        if self.noted is not None:
            self.noted.append(expected.copy())
            return
        self.compared += 1
        if got.shape != expected.shape:
            raise Mismatch(f"has shape {got.shape}, expected {expected.shape}", what)
        if not got.size:
            return
        if not abs(expected).max() < HUGE:
            raise FragileError
        gap = abs(got - expected)
        if not (gap <= widest(expected)).all():
            fact = f"is {_short(got)}, expected {_short(expected)}"
            raise Mismatch(fact, what, Place(self.compared - 1, expected, gap))

    def _check_seen(self, expected):
        seen = self.space["seen"]
        if isinstance(expected, dict):
            if set(seen) != set(expected):
                raise Mismatch(f"seen has {sorted(seen)}, expected {sorted(expected)}")
            for name, each in expected.items():
                self._compare(f'seen["{name}"]', seen[name], each.value)
        elif expected is not None:
            self._compare("seen", seen, expected.value)

    def _check(self):
        """Compare the arrays that the user holds."""
        for name, view in self.world.views.items():
            if view.known:
                self._compare(name, self.space[name], view.array)
        for name, array in self.world.user.items():
            self._compare(name, self.space[name], array)

    def _check_all(self):
        """Compare all blobs and parameters whose values are defined."""
        for name, net in self.world.nets.items():
            real = self.space[name]
            for blob_name, blob in net.blobs.items():
                self._check_blob(f'{name}.blobs["{blob_name}"]', real.blobs[blob_name], blob)
            for layer, blobs in net.params.items():
                for i, blob in enumerate(blobs):
                    self._check_blob(f'{name}.params["{layer}"][{i}]', real.params[layer][i], blob)

    def _check_blob(self, what, real, blob):
        if tuple(real.shape) != blob.shape:
            raise Mismatch(f"is {tuple(real.shape)}, expected {blob.shape}", f"{what}.shape")
        for which in ("data", "diff"):
            half = getattr(blob, which)
            if blob.fresh or not half.storage.known:
                continue
            try:
                got = getattr(real, which)
            except _Error as error:
                if which == "data" and blob.absent:
                    continue
                raise Mismatch(f"raised {type(error).__name__}: {error}", f"{what}.{which}") from error
            self._compare(f"{what}.{which}", got, half.array)


def _written(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


class _Folder:
    """A folder in memory for this process, created before the first run.

    Objects that exist then are frozen for the garbage collector.
    """

    folder, frozen = None, False

    @classmethod
    def get(cls):
        if cls.folder is None:
            cls.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        elif not cls.frozen:
            gc.collect()
            gc.freeze()
            cls.frozen = True
        return cls.folder.name


def mirrored(patch):
    """Make all arrays copies of the net's tensors, as on a GPU; `patch` is called like setattr."""
    from caffe import memory, parameter_memory

    for module in (memory, parameter_memory):
        patch(module, "may_alias", lambda value: False)


def run(ops):
    """Run the operations of a Drawer or Fixed; return the Result."""
    logger = logging.getLogger("caffe")
    if logger.level != logging.CRITICAL:  # debug_info writes much
        logger.setLevel(logging.CRITICAL)
    with np.errstate(over="raise", invalid="raise"):
        try:
            result = Run(ops, _Folder.get()).run()
        except (FragileError, FloatingPointError):  # in the first run of the model
            return Result(ops.start, fragile=True)
    if result.failure and result.place is not None and rounds_to(result):
        return Result(ops.start, result.ops, fragile=True)
    return result


def rounds_to(result):
    """Whether rounding explains the failure: noise of the size of rounding changes the model's number as much."""
    moved = 0.0
    for _ in range(NOISY_RUNS):
        with np.errstate(over="raise", invalid="raise"), rounding.noisy():
            try:
                run = Run(Fixed(result.start, result.ops, result.eager), _Folder.get(), notes=True)
                run.run()
            except (FragileError, FloatingPointError):
                continue
        if result.place.number < len(run.noted) and run.noted[result.place.number].shape == result.place.gap.shape:
            moved = np.maximum(moved, abs(run.noted[result.place.number] - result.place.expected))
    return bool((result.place.gap <= widest(result.place.expected) + NOISY_RUNS * moved).all())


def shrunk(result):
    """Return the shortest failing version of a failing sequence."""
    again = run(Fixed(result.start, result.ops, result.eager))
    if again.failure is None:
        return result
    best = again
    if best.eager:
        lazy = run(Fixed(best.start, best.ops, False))
        best = lazy if lazy.failure else best
    size = max(1, len(best.ops) // 2)
    while True:
        at = 0
        while at < len(best.ops):
            fewer = run(Fixed(best.start, best.ops[:at] + best.ops[at + size :], best.eager))
            if fewer.failure is not None and len(fewer.ops) < len(best.ops):
                best = fewer
            else:
                at += size
        if size == 1:
            return best
        size //= 2
