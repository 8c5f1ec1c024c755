"""Runs sequences in a Caffe and in the model, and compares the two after each operation."""

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
from tests.ownership.memory import Expected
from tests.ownership.sequences import Fixed
from tests.ownership.world import World, labels, values

HUGE = 1e5
REAL = not hasattr(caffe, "CaffeError")  # whether this is the original
_Error = () if REAL else caffe.CaffeError


class Mismatch(Exception):
    """The Caffe does not do what the model says; `what` is the expression that shows it, if any."""

    def __init__(self, fact, what=""):
        super().__init__(f"{what} {fact}" if what else fact)
        self.what = what


@dataclass
class Result:
    """`failure` is None where all agreed. `lines` is the script up to there."""

    start: Any
    ops: list[Any] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    failure: str | None = None
    what: str = ""
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


def compare(what, got, expected):
    """Raise Mismatch where the array differs by more than rounding."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if got.shape != expected.shape:
        raise Mismatch(f"has shape {got.shape}, expected {expected.shape}", what)
    if not got.size:
        return
    largest = abs(expected).max()
    if not largest < HUGE:
        raise FragileError
    gap = abs(got - expected)
    if not (gap <= 1e-4 * abs(expected) + 2e-5 * max(1, largest)).all():
        raise Mismatch(f"is {_short(got)}, expected {_short(expected)}", what)


def _short(array):
    flat = array.ravel()
    return f"[{', '.join(f'{x:.5g}' for x in flat[:6])}{', ...' if flat.size > 6 else ''}]"


class Run:
    """One sequence. `ops(world)` gives the next operation."""

    def __init__(self, ops, folder):
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
            self.result.failure, self.result.what = str(mismatch), mismatch.what
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
        """Whether it ran; an error that was not expected is a Mismatch."""
        self.result.lines.append(line)
        try:
            exec(line, self.space)
            return True
        except Exception as error:
            if may_raise and isinstance(error, _Error):
                return False
            raise Mismatch(f"raised {type(error).__name__}: {error}") from error

    def _check_seen(self, expected):
        seen = self.space["seen"]
        if isinstance(expected, dict):
            if set(seen) != set(expected):
                raise Mismatch(f"seen has {sorted(seen)}, expected {sorted(expected)}")
            for name, each in expected.items():
                compare(f'seen["{name}"]', seen[name], each.value)
        elif expected is not None:
            compare("seen", seen, expected.value)

    def _check(self):
        """What the user holds."""
        for name, view in self.world.views.items():
            if view.known:
                compare(name, self.space[name], view.array)
        for name, array in self.world.user.items():
            compare(name, self.space[name], array)

    def _check_all(self):
        """All blobs and parameters that the model knows."""
        for name, net in self.world.nets.items():
            real = self.space[name]
            for blob_name, blob in net.blobs.items():
                self._check_blob(f'{name}.blobs["{blob_name}"]', real.blobs[blob_name], blob)
            for layer, blobs in net.params.items():
                for i, blob in enumerate(blobs):
                    self._check_blob(f'{name}.params["{layer}"][{i}]', real.params[layer][i], blob)

    @staticmethod
    def _check_blob(what, real, blob):
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
            compare(f"{what}.{which}", got, half.array)


def _written(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


class _Place:
    """A folder in memory for this process, made at the first run; what has been imported then is no garbage."""

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
    """Have arrays never lie over a net's tensors, as on a GPU; `patch` is like setattr."""
    from caffe import memory, parameter_memory

    for module in (memory, parameter_memory):
        patch(module, "may_alias", lambda value: False)


def run(ops):
    """The Result of a Drawer or Fixed."""
    logger = logging.getLogger("caffe")
    if logger.level != logging.CRITICAL:  # debug_info writes much
        logger.setLevel(logging.CRITICAL)
    with np.errstate(over="raise", invalid="raise"):
        try:
            return Run(ops, _Place.get()).run()
        except (FragileError, FloatingPointError):  # in the first run of the model
            return Result(ops.start, fragile=True)


def shrunk(result):
    """The failing sequence with as few operations as still fail."""
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
