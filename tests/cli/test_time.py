"""`caffe time`: the table on standard output, beside Caffe's log on standard error."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import replace

import pytest

from caffe.cli import _time_table, main
from caffe.net.measure.cost import Cost
from caffe.net.measure.footprint import Footprint

LAYERS = [
    _time_table.LayerTime("data", "Input", 0.01, 0.002, Cost(0, 0, 4_000_000), reads=False),
    _time_table.LayerTime("conv", "Convolution", 2.0, 8.0, Cost(10**9, 2 * 10**9, 12_000_000)),
    _time_table.LayerTime("relu", "ReLU", 0.5, 1.488, Cost(0, 0, 6_000_000)),
    _time_table.LayerTime("relu", "Split", 0.003, 0.0, Cost(0, 0, 0)),
]
WHOLE = _time_table.Whole(
    "training step", 9.0, 3, 500e9, Footprint(1_500_000_000, 400_000_000, "somewhere"), {"blobs": 12_000}, 500e9
)
TABLE = """\
                      forward  backward                  forward  backward    of
layer       type           ms        ms   share   GFLOP  GFLOP/s   GFLOP/s  peak     MB   GB/s
data        Input       0.010     0.002   0.1 %                                    4.00
conv        Convolution  2.00      8.00  83.3 %    1.00      500       250  60 %   12.0
relu        ReLU        0.500      1.49  16.6 %                                    6.00   12.0
relu        Split       0.003     0.000   0.0 %
all layers               2.51      9.49   100 %    1.00      398       211  50 %   22.0

training step, the whole net as one piece: 9.00 ms, 333 GFLOP/s, 1.50 times the limit
limit: 6.00 ms, 3 x 1.00 GFLOP at 500 GFLOP/s, the speed of large matrix products on this machine
peak memory: 1.5 GB, 400 MB before it (somewhere)
the net holds: blobs 12 kB
"""


def words(text):
    return [line.split() for line in text.splitlines()]


def test_numbers_of_the_table(capsys):
    _time_table.show(LAYERS, WHOLE)
    out = capsys.readouterr().out
    assert words(out) == words(TABLE)
    assert max(map(len, out.splitlines())) <= 120


def test_the_whole_net_has_a_peak_of_its_own(capsys):
    """The peak for the precision of the net. The table of single layers, which run in float32, does not change."""
    _time_table.show(LAYERS, replace(WHOLE, peak=1000e9))
    out = capsys.readouterr().out
    pairs = zip(TABLE.split(), out.split(), strict=True)
    assert {pair for pair in pairs if pair[0] != pair[1]} == {("500", "1,000"), ("6.00", "3.00"), ("1.50", "3.00")}


def test_a_net_without_products_has_no_limit(capsys):
    whole = _time_table.Whole("evaluation", 0.5, 1, 500e9, Footprint(None, None, ""), {}, 500e9)
    _time_table.show(LAYERS[2:], whole)
    out = capsys.readouterr().out
    assert out.endswith("\nevaluation, the whole net as one piece: 0.500 ms\n")
    assert words(out)[-3] == ["all", "layers", "0.503", "1.49", "100", "%", "6.00", "11.9"]


@pytest.mark.parametrize(
    ("width", "missing"), [(120, []), (85, ["type"]), (78, ["type", "GB/s"]), (70, ["type", "GB/s", "MB"])]
)
def test_a_narrow_terminal_shows_fewer_columns(monkeypatch, width, missing):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    _time_table.show(LAYERS, WHOLE)
    lines = re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue()).partition("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= width
    heads = ["layer", "type", "ms", "ms", "share", "GFLOP", "GFLOP/s", "GFLOP/s", "peak", "MB", "GB/s"]
    assert lines[1].split() == [head for head in heads if head not in missing]
    assert [line.split()[0] for line in lines[2:]] == ["data", "conv", "relu", "relu", "all"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.00012, "0.000"), (0.999, "0.999"), (1.5, "1.50"), (12.34, "12.3"), (12345.6, "12,346")]
)
def test_three_digits(value, text):
    assert _time_table.number(value) == text


def test_the_log_is_caffe_s_and_the_table_is_apart(noise, capsys):
    assert main(["time", "-model", "net.prototxt", "-iterations", "2"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^layer +type +ms +ms +share +GFLOP +GFLOP/s +GFLOP/s +peak +MB +GB/s *$", out, re.M)
    assert re.search(r"^conv +Convolution +[\d.,]+ +[\d.,]+ +[\d.]+ % +0\.000 .* % +0\.005 *$", out, re.M)
    assert re.search(r"^training step, the whole net as one piece: \S+ ms, .* times the limit$", out, re.M)
    assert re.search(r"^peak memory: ", out, re.M)
    places = re.findall(r"caffe\.cpp:(\d+)\]", err)
    layers = "400 403 " * 5
    assert " ".join(places) == f"343 351 356 357 365 366 394 394 397 {layers}408 410 412 414 415"
    assert err.endswith("*** Benchmark ends ***\n")


def test_a_training_step_begins_without_gradients(noise, capsys, monkeypatch):
    from caffe.net import Net

    calls = []
    for name in ("clear_param_diffs", "forward_backward"):
        original = getattr(Net, name)
        monkeypatch.setattr(Net, name, lambda net, name=name, run=original: (calls.append(name), run(net)))
    assert main(["time", "-model", "net.prototxt", "-iterations", "2"]) == 0
    assert calls == ["clear_param_diffs", "forward_backward"] * 5  # three for the memory


def test_phase_test_runs_forward_only_as_one_piece(noise, capsys, monkeypatch):
    from caffe.net import Net

    monkeypatch.setattr(Net, "forward_backward", None)
    assert main(["time", "-model", "net.prototxt", "-iterations", "1", "-phase", "TEST"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^evaluation, the whole net as one piece: \S+ ms", out, re.M)
    assert re.search(r"^limit: \S+ ms, 0\.000 GFLOP at ", out, re.M)


def test_debug_info_does_not_run_the_net_by_layers(noise, capsys):
    path = noise / "net.prototxt"
    path.write_text("debug_info: true\n" + path.read_text())
    assert main(["time", "-model", "net.prototxt", "-iterations", "1"]) == 0
    assert capsys.readouterr().err.endswith("*** Benchmark ends ***\n")


def test_a_trace(noise, capsys):
    assert main(["time", "-model", "net.prototxt", "-iterations", "1", "--trace", "trace.json"]) == 0
    assert "trace: trace.json" in capsys.readouterr().out
    names = [event["name"] for event in json.loads((noise / "trace.json").read_text())["traceEvents"]]
    assert [names.count(name) for name in ("step 1", "conv", "conv backward")] == [1, 3, 3]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(noise, capsys):
    (noise / "closed").mkdir(mode=0o555)
    assert main(["time", "-model", "net.prototxt", "--trace", "closed/trace.json"]) == 1
    assert capsys.readouterr().err.startswith("caffe: error: closed/trace.json: cannot write: permission denied")


@pytest.mark.parametrize(
    ("path", "fact"),
    [("none/trace.json", 'there is no folder "'), (".", "it is a folder; give the name of a file")],
)
def test_a_trace_that_cannot_be_written_is_told_before_the_work(noise, capsys, path, fact):
    assert main(["time", "-model", "net.prototxt", "--trace", path]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"caffe: error: {path}: cannot write: {fact}")
    assert err.count("\n") == 1
    assert sorted(entry.name for entry in noise.iterdir()) == ["net.prototxt", "solver.prototxt"]
