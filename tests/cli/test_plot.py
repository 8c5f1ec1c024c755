"""Curves: reading logs, thinning and smoothing, drawing."""

from __future__ import annotations

import math
import sys

import pytest

from caffe import plot
from caffe.cli import main
from caffe.errors import FileError
from caffe.plot import Curves, Series, read_log
from tests.conftest import shared

HEAD = "I0131 13:08:22.531250 12345 solver.cpp:239] "


def log(tmp_path, *messages, head=HEAD):
    path = tmp_path / "run.log"
    path.write_text("".join(f"{head}{message}\n" for message in messages))
    return path


def test_a_log_of_the_reference():
    curves = read_log(shared("golden", "logs", "train.log"))
    assert (curves.name, curves.net) == ("train", "TinyLeNet")
    assert [x for x, _ in curves.loss.points] == list(range(0, 41, 5))
    assert curves.loss.points[-1] == (40, 0.591519)
    assert curves.rate.points[:2] == [(0, 0.004), (5, 0.00385628)]
    assert [x for x, _ in curves.scores["accuracy"].points] == [0, 10, 20, 30, 40]
    assert curves.test_loss["loss"].points[-1] == (40, 1.45755)


def test_several_test_nets_are_told_apart():
    curves = read_log(shared("golden", "logs", "train_two_tests.log"))
    assert curves.scores["accuracy"].points == [(0, 0.25), (3, 0.2), (6, 0.15)]
    assert curves.scores["accuracy (test net 1)"].points == [(0, 0.3), (3, 0.3), (6, 0.0)]
    assert list(curves.test_loss) == ["loss", "loss (test net 1)"]


@pytest.mark.parametrize(
    "line",
    [
        "Iteration 20, loss = 0.5",
        "Iteration 20 (1.5 iter/s, 13.3s/20 iters), loss = 0.5",
        "Iteration 20 (-1.04e+12 iter/s, 0s/1 iters), loss = 5e-01",
    ],
)
@pytest.mark.parametrize("head", [HEAD, "I20260131 13:08:22.531250 12345 solver.cpp:239] ", ""])
def test_forms_of_a_loss_line(tmp_path, line, head):
    assert read_log(log(tmp_path, line, head=head)).loss.points == [(20, 0.5)]


def test_old_test_lines(tmp_path):
    curves = read_log(log(tmp_path, "Iteration 500, Testing net", "Test score #0: 0.9", "Test score #1: 0.25"))
    assert {name: series.points for name, series in curves.scores.items()} == {
        "score 0": [(500, 0.9)],
        "score 1": [(500, 0.25)],
    }


def test_a_vector_output_has_a_curve_for_each_value(tmp_path):
    lines = ["Test net output #0: p = 0.5", "Test net output #1: p = 0.25", "Test net output #2: q = 1 (* 1 = 1 loss)"]
    curves = read_log(log(tmp_path, "Iteration 4, Testing net (#0)", *lines, "Iteration 8, Testing net (#0)", *lines))
    assert {name: series.points for name, series in curves.scores.items()} == {
        "p": [(4, 0.5), (8, 0.5)],
        "p[1]": [(4, 0.25), (8, 0.25)],
    }
    assert curves.test_loss["q"].points == [(4, 1.0), (8, 1.0)]


def test_a_resumed_run_replaces_what_it_repeats(tmp_path):
    losses = [(0, 4), (10, 3), (20, 2), (30, 1), (20, 5), (30, 6)]
    curves = read_log(log(tmp_path, *(f"Iteration {x}, loss = {y}" for x, y in losses)))
    assert curves.loss.points == [(0, 4), (10, 3), (20, 5), (30, 6)]


def test_a_file_that_is_no_log_is_an_error(tmp_path):
    with pytest.raises(FileError, match=r"run\.log contains no line of a training run"):
        read_log(log(tmp_path, "Creating layer data"))
    with pytest.raises(FileError, match=r"cannot read the log .*absent\.log: No such file"):
        read_log(tmp_path / "absent.log")


def test_a_long_series_keeps_its_shape_in_few_points():
    series = Series()
    for iteration in range(100_000):
        series.add(iteration, 3 * iteration)
    assert 2000 <= len(series.points) <= 4000
    assert all(y == pytest.approx(3 * x) for x, y in series.points)
    assert [x for x, _ in series.points] == sorted({x for x, _ in series.points})


def test_smoothing_keeps_straight_lines_straight():
    line, curve, noise = Series(), Series(), Series()
    for iteration in range(200):
        line.add(iteration, 2 * iteration + 1)
        curve.add(iteration, math.exp(-0.05 * iteration))
        noise.add(iteration, (-1) ** iteration)
    xs, ys = line.smoothed()
    assert ys[2:-2] == pytest.approx([2 * x + 1 for x in xs][2:-2])
    assert curve.smoothed(logarithmic=True)[1][2:-2] == pytest.approx([y for _, y in curve.points][2:-2])
    assert max(map(abs, noise.smoothed()[1][10:-10])) < 0.1


def test_values_that_are_not_finite_are_told_and_passed_over(tmp_path):
    curves = Curves("run")
    for iteration in range(50):
        curves.loss.add(iteration, 1.0 if iteration < 30 else math.nan)
    assert curves.loss.first_not_finite == 30
    assert curves.loss.smoothed() == (list(range(30)), pytest.approx([1.0] * 30))
    labels = drawn(curves)["loss"][1]
    assert "loss is not finite from iteration 30" in labels


def drawn(*runs):
    """For each panel, the label of the vertical axis, mapped to (axis, texts of the legend)."""
    from caffe.pictures import curves as _curves

    figure = _curves.figure(runs)
    panels = {}
    for axis in figure.axes:
        legend = axis.get_legend()
        panels[axis.get_ylabel()] = axis, [text.get_text() for text in legend.get_texts()] if legend else []
    assert figure.axes[-1].get_xlabel() == "iteration"
    panels["title"] = figure.get_suptitle()
    return panels


def run(name, count=60, scale=1.0):
    curves = Curves(name, net="Net")
    for iteration in range(count):
        curves.loss.add(iteration, scale * 10 ** (-4 * iteration / count))
        curves.rate.add(iteration, 0.01)
    curves.add_test(0, "loss", 10, 0.75, True)
    curves.add_test(0, "accuracy", 10, 0.5, False)
    curves.add_test(0, "accuracy", 20, 0.25, False)
    return curves


def test_the_picture_of_a_run():
    panels = drawn(run("first"))
    assert panels["title"] == "Training of Net (first)"
    axis, labels = panels["loss"]
    assert labels == ["training loss", "smoothed", "test loss: last 0.75"]
    assert axis.get_yscale() == "log"
    assert panels["test score"][1] == ["accuracy: last 0.25, highest 0.5"]
    assert panels["learning rate"][0].get_yscale() == "linear"


def test_the_picture_of_several_runs():
    panels = drawn(run("first"), run("second", count=7))
    assert panels["title"] == "Training of Net: 2 runs"
    assert panels["loss"][1] == [
        "first: training loss, smoothed",
        "first: test loss: last 0.75",
        "second: training loss",
        "second: test loss: last 0.75",
    ]
    colours = [line.get_color() for line in panels["learning rate"][0].lines]
    assert len(set(colours)) == 2


def test_panels_without_content_are_left_out():
    curves = Curves("bare")
    curves.loss.add(0, 2.0)
    assert set(drawn(curves)) == {"loss", "title"}


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("PDF", b"%PDF"), ("svg", b"<?xml")])
def test_the_command_draws(tmp_path, monkeypatch, capsys, suffix, magic):
    monkeypatch.chdir(tmp_path)
    log(tmp_path, *(f"Iteration {x}, loss = {9 - x}" for x in range(9)))
    assert main(["plot", "run.log", "-o", f"curves.{suffix}"]) == 0
    assert capsys.readouterr().out == f"wrote curves.{suffix}\n"
    assert (tmp_path / f"curves.{suffix}").read_bytes().startswith(magic)


def test_the_picture_is_named_after_the_log(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    log(tmp_path, "Iteration 0, loss = 2")
    assert main(["plot", "run.log"]) == 0
    assert (tmp_path / "run.png").stat().st_size > 1000


def test_matplotlib_is_named_where_it_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    assert main(["plot", str(log(tmp_path, "Iteration 0, loss = 2"))]) == 1
    assert "pip install 'cafetiere[plot]'" in capsys.readouterr().err


def test_a_picture_is_not_half_written(tmp_path, monkeypatch):
    target = tmp_path / "curves.png"
    target.write_text("the last picture")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(FileError, match="No space left"):
        plot.draw([run("first")], target)
    assert target.read_text() == "the last picture"


def fail(self, file, **options):
    file.write(b"half")
    raise OSError(28, "No space left on device")
