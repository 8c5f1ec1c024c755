"""The examination of the log of a finished run."""

from __future__ import annotations

import math

import pytest

from caffe import CaffeError
from caffe.cli import main
from caffe.doctor.log_reading import read_log


def log(path, losses, tests=(), policy="fixed", rate=0.01, seconds=None):
    lines = [
        f'I1128 10:00:00.000000  1 solver.cpp:45] lr_policy: "{policy}"',
        "I1128 10:00:00.000000  1 solver.cpp:289] Solving net",
    ]
    clock = 0.0
    for number, loss in enumerate(losses):
        clock += seconds[number] if seconds else 1.0
        stamp = f"I1128 10:{int(clock) // 60:02}:{clock % 60:09.6f}  1 solver.cpp"
        if number < len(tests):
            lines.append(f"{stamp}:347] Iteration {100 * number}, Testing net (#0)")
            lines.append(f"{stamp}:414]     Test net output #0: loss = {tests[number]} (* 1 = {tests[number]} loss)")
        lines.append(f"{stamp}:239] Iteration {100 * number} (1 iter/s, 1s/100 iters), loss = {loss}")
        lines.append(f"{stamp}:258]     Train net output #0: loss = {loss} (* 1 = {loss} loss)")
        lines.append(f"{stamp}:112] Iteration {100 * number}, lr = {rate}")
    path.write_text("\n".join(lines) + "\n")
    return path


FALLING = [2.3 * math.exp(-number / 5) + 0.1 for number in range(16)]
CASES = {
    "diverges": {"losses": [2.3, 2.1, math.nan, math.nan]},
    "loss-stuck-at-87.3": {"losses": [2.3, 20.0, 87.3365, 87.3365, 87.3365]},
    "nothing-learns": {"losses": [2.303, 2.302, 2.304, 2.303] * 3},
    "overfits": {"losses": FALLING, "tests": [2.3, 1.0, 0.8, 0.7, 0.9, 1.0, 1.2]},
    "schedule": {"losses": FALLING, "policy": "multistep"},
    "input-starved": {"losses": FALLING, "seconds": [1.0] * 8 + [12.0, 1.0] * 4},
}


@pytest.mark.parametrize("code", CASES)
def test_each_kind_is_found(code, tmp_path):
    assert [finding.code for finding in read_log(log(tmp_path / "log", **CASES[code]))] == [code]


def test_a_run_that_went_well(tmp_path):
    assert read_log(log(tmp_path / "log", FALLING, tests=FALLING)) == []


def test_the_place_is_the_line_of_the_iteration(tmp_path):
    (finding,) = read_log(log(tmp_path / "log", [2.3, 2.1, math.nan]))
    assert finding.place == f"{tmp_path / 'log'}:9"


def test_command(tmp_path, capsys):
    assert main(["doctor", "-log", str(log(tmp_path / "log", [2.3, math.inf, math.nan]))]) == 3
    assert "error diverges: " in capsys.readouterr().out
    assert main(["doctor", "-log", str(log(tmp_path / "log", FALLING))]) == 0
    assert "nothing unusual" in capsys.readouterr().out
    assert main(["doctor"]) == 1


def test_a_file_that_is_no_log(tmp_path):
    (tmp_path / "log").write_text("nothing\n")
    with pytest.raises(CaffeError, match="caffe train"):
        read_log(tmp_path / "log")
