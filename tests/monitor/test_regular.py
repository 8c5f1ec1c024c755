"""Parsing many lines at a time gives the same curves as parsing line by line."""

from pathlib import Path

import numpy as np
import pytest

from caffe.monitor import log_source
from caffe.monitor.curve import Curve
from caffe.monitor.log_source import LogSource
from caffe.monitor.regular import Form, Forms

from .helpers import DONE, head


def _iteration(index: int, second: int, loss: str, day: str = "I1129", pid: int = 4242) -> str:
    stamp = f"{day} 10:{second // 60 % 60:02}:{second % 60:02}.{index % 1000000:06} {pid:5}"
    return (
        f"{stamp} solver.cpp:239] Iteration {index} (10.5 iter/s, 1s/10 iters), loss = {loss}\n"
        f"{stamp} solver.cpp:258]     Train net output #0: top = {loss} (* 1 = {loss} loss)\n"
        f"{stamp} solver.cpp:258]     Train net output #1: top = 0.{index}\n"
        f"{stamp} sgd_solver.cpp:112] Iteration {index}, lr = {0.1 / (1 + index // 500):.6g}\n"
    )


def _test(index: int) -> str:
    stamp = "I1129 10:00:00.000001  4242"
    return (
        f"{stamp} solver.cpp:341] Iteration {index}, Testing net (#0)\n"
        f"{stamp} solver.cpp:409]     Test net output #0: accuracy = 0.{index}\n"
        f"{stamp} solver.cpp:409]     Test net output #1: loss = 1.5 (* 1 = 1.5 loss)\n"
    )


def _log(kind: str) -> str:
    losses = ["0.25", "nan", "-nan", "inf", "1.5e-05", "-3", "87.3365", "1e+30", "3.4e39", "1."]
    parts = [_iteration(index, index // 3, losses[index % 10]) for index in range(2000)]
    if kind == "tests":
        parts = [_test(index) + part if index % 50 == 0 else part for index, part in enumerate(parts)]
    elif kind == "two days":
        parts[1200:] = [_iteration(index, index // 9, "2", "I1130") for index in range(1200, 2000)]
    elif kind == "resumed":
        parts[1500:] = ["I1129 10:30:00.5  9 solver.cpp:48] Solving net\n"]
        parts += [_iteration(index, 1800 + index, "1", pid=99) for index in range(900, 1900)]
    elif kind == "odd lines":
        parts[700] = parts[700].replace("loss = ", "loss = x", 1)
        parts[800] = "cut off, loss = 3\n\n" + parts[800].replace("Iteration 800", "Iteration 800.5")
        parts[900] = "I1129 10:00 solver.cpp:239] Iteration 900, loss = 3\n" + parts[900].replace(":05.", ":5x.")
        parts[1000] = parts[1000].replace("#1: top", "#1: other").replace("lr = 0", "lr = 00.00000000000000000001")
        parts[1100] = "W1129 10:00:01.000000 1 x.cpp:1] watch] oscillates at iteration 1100: it does\n" + parts[1100]
    elif kind == "windows":
        parts = [part.replace("\n", "\r\n") for part in parts]
    return head(0.1, 2000) + "".join(parts) + DONE


@pytest.mark.parametrize("kind", ["plain", "tests", "two days", "resumed", "odd lines", "windows"])
def test_same_curves(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Iterations and values are equal, and times are equal up to the rounding of a sum."""
    path = tmp_path / "run.log"
    path.write_text(_log(kind), newline="")
    fast, regular = LogSource(path), []
    read = Forms.read
    monkeypatch.setattr(Forms, "read", lambda *arguments: regular.append(read(*arguments)) or regular[-1])
    fast.poll()
    monkeypatch.setattr(log_source, "_FIRST", 1 << 30)
    slow = LogSource(path)
    slow.poll()
    assert sum(part.size for part in regular if part) > path.stat().st_size * (0.25 if kind == "odd lines" else 0.5)
    assert list(fast.curves) == list(slow.curves)
    assert fast.facts == slow.facts
    for tag, curve in slow.curves.items():
        np.testing.assert_array_equal(fast.curves[tag].arrays.x, curve.arrays.x, tag)
        np.testing.assert_array_equal(fast.curves[tag].arrays.y, curve.arrays.y, tag)
        np.testing.assert_allclose(fast.curves[tag].arrays.seconds, curve.arrays.seconds, rtol=0, atol=1e-6)


def test_extend_is_add() -> None:
    """If a run goes back to an earlier iteration, its new values replace the later ones, also within one call and
    between calls.
    """
    x = np.array([5, 6, 7, 6, 8, 2, 3])
    one, many = Curve(), Curve()
    for curve in (one, many):
        curve.add(4, 1.0, 0.0)
        curve.add(9, 1.0, 0.5)
    for index, value in enumerate(x.tolist()):
        one.add(value, index, float(index))
    many.extend(x, np.arange(7.0), np.arange(7.0))
    one.flush()
    assert many.last == one.last == 3
    for mine, other in zip(many.arrays, one.arrays, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_text_of_two_tags() -> None:
    """A text that belongs to two curves is not regular."""
    line = b"I1129 10:00:00.000000 1 s] Iteration 1, loss = 2\n"
    forms = Forms()
    assert forms.add(Form(b" 1 s] Iteration ", "loss", b"loss = "))
    assert not forms.add(Form(b" 1 s] Iteration ", "loss", b"loss = "))
    assert forms.read(line * 3, 0, lambda line: True) is not None
    assert not forms.add(Form(b" 1 s] Iteration ", "other", b"loss = "))
    assert forms.read(line * 3, 0, lambda line: True) is None
