"""`caffe test` and `caffe time`: settings, vectors, several weight files."""

from __future__ import annotations

import re

import numpy as np
import pytest

from caffe.cli import main


@pytest.fixture
def trained(noise, capsys):
    """The folder of the small run, which also has noise_iter_8.caffemodel."""
    assert main(["train", "-solver", "solver.prototxt"]) == 0
    capsys.readouterr()
    return noise


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["test"], "Need a model definition to score"),
        (["test", "-model", "net.prototxt"], "Need model weights to score"),
        (["test", "-model", "net.prototxt", "-weights", "w", "-iterations", "0"], "-iterations 0: expected at least 1"),
        (["time"], "Need a model definition to time"),
        (
            ["time", "-model", "net.prototxt", "-phase", "train"],
            'phase must be "TRAIN" or "TEST", not "train"',
        ),
        (["time", "-model", "net.prototxt", "-iterations", "-1"], "-iterations -1: expected at least 1"),
        (["time", "-model", "nett.prototxt"], "nett.prototxt"),
        (["test", "-model", "net.prototxt", "-weights", "solver.prototxt"], "solver.prototxt: is a text file"),
    ],
)
def test_a_wrong_setting_is_one_error(noise, capsys, argv, text):
    assert main(argv) == 1
    error = capsys.readouterr().err.partition("caffe: error: ")[2]
    assert text in error
    assert len(error.splitlines()) == 1


def test_every_value_of_a_vector_has_its_line(trained, capsys):
    argv = ["test", "-model", "net.prototxt", "-weights", "noise_iter_8.caffemodel", "-iterations=2", "-stage=vector,x"]
    assert main(argv) == 0
    err = capsys.readouterr().err
    batches = [re.findall(rf"caffe\.cpp:304\] Batch {i}, prob = (\S+)", err) for i in (0, 1)]
    means = re.findall(r"caffe\.cpp:321\] prob = (\S+)$", err, re.M)
    assert [len(batches[0]), len(batches[1]), len(means)] == [15, 15, 15]
    np.testing.assert_allclose(np.array(means, float), np.array(batches, float).mean(0), rtol=1e-4)
    names = re.findall(r"caffe\.cpp:321\] (\w+) = ", err)
    assert names == ["accuracy", "loss", *["prob"] * 15]
    loss = re.search(r"caffe\.cpp:309\] Loss: (\S+)", err)[1]
    assert f"caffe.cpp:321] loss = {loss} (* 1 = {loss} loss)" in err


def test_weights_from_several_files_the_last_wins(trained, capsys):
    def loss(weights):
        assert main(["test", "-model", "net.prototxt", "-weights", weights, "-iterations", "40"]) == 0
        return float(re.search(r"Loss: (\S+)", capsys.readouterr().err)[1])

    early, late = loss("noise_iter_4.caffemodel"), loss("noise_iter_8.caffemodel")
    assert loss("noise_iter_4.caffemodel, noise_iter_8.caffemodel") == pytest.approx(late, rel=0.1)
    assert loss("noise_iter_8.caffemodel,noise_iter_4.caffemodel") == pytest.approx(early, rel=0.1)
    assert early > 1.15 * late


def test_names_are_aligned_as_in_the_reference(noise, capsys):
    assert main(["time", "-model", "net.prototxt", "-iterations", "1"]) == 0
    err = capsys.readouterr().err
    for name in ("data", "conv", "relu", "ip", "loss"):
        assert re.search(rf"caffe\.cpp:400\] {name:>10}\tforward: \S+ ms\.$", err, re.M), name
        assert re.search(rf"caffe\.cpp:403\] {name:>10}\tbackward: \S+ ms\.$", err, re.M), name


def test_every_layer_is_timed_in_both_directions(noise, capsys, monkeypatch):
    from caffe.net import Net

    calls = []
    for name in ("forward_step", "backward_step"):
        original = getattr(Net, name)

        def note(self, index, name=name, original=original):
            calls.append((name, index))
            return original(self, index)

        monkeypatch.setattr(Net, name, note)
    assert main(["time", "-model", "net.prototxt", "-iterations", "2"]) == 0
    once = [("forward_step", i) for i in range(5)] + [("backward_step", i) for i in reversed(range(5))]
    assert calls == 3 * once  # the first time is not measured
    err = capsys.readouterr().err
    for word, total in (("forward", "Forward"), ("backward", "Backward")):
        parts = [float(value) for value in re.findall(rf"\t{word}: (\S+) ms\.", err)]
        mean = float(re.search(rf"Average {total} pass: (\S+) ms\.", err)[1])
        assert len(parts) == 5
        assert sum(parts) == pytest.approx(mean, rel=1e-3)
