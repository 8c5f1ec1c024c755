"""`caffe.Ensemble`, `caffe test -ensemble` and `caffe train -members`."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import caffe
from caffe.cli import main
from caffe.ensemble import combine

BODY = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 1 } } }
"""
DEPLOY = (
    'name: "D" layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 5 dim: 7 } } }'
    f'{BODY} layer {{ name: "prob" type: "Softmax" bottom: "ip" top: "prob" }}'
)
HEAD = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc" include { phase: TEST } }
"""


def train_test(batch: int, source: str = "items.npz") -> str:
    data = f'array_data_param {{ source: "{source}" batch_size: {batch} }}'
    return f'name: "T" layer {{ name: "data" type: "ArrayData" top: "data" top: "label" {data} }} {BODY} {HEAD}'


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """Three random classifiers a, b, c, and 20 items."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy.prototxt").write_text(DEPLOY)
    (tmp_path / "t5.prototxt").write_text(train_test(5))
    (tmp_path / "t4.prototxt").write_text(train_test(4))
    rng = np.random.default_rng(0)
    data, label = rng.normal(size=(20, 7)).astype(np.float32), rng.integers(0, 3, 20).astype(np.float32)
    np.savez("items.npz", data=data, label=label)
    for seed, name in enumerate("abc"):
        caffe.set_random_seed(seed)
        caffe.Net("deploy.prototxt", caffe.TEST).save(f"{name}.caffemodel")
    return tmp_path


def items():
    with np.load("items.npz") as file:
        return file["data"], file["label"].astype(int)


def probabilities():
    data, _ = items()
    found = []
    for name in "abc":
        net = caffe.Net("deploy.prototxt", f"{name}.caffemodel", caffe.TEST)
        found.append(net.forward_all(data=data)["prob"].astype(np.float64))
    return np.stack(found)


def test_combinations_by_hand():
    p = np.array([[[0.6, 0.3, 0.1]], [[0.1, 0.8, 0.1]], [[0.5, 0.2, 0.3]]])
    np.testing.assert_allclose(combine.combine(p, "probabilities"), [[0.4, 1.3 / 3, 0.5 / 3]])
    product = np.prod(p, 0) ** (1 / 3)
    np.testing.assert_allclose(combine.combine(p, "logits"), product / product.sum(), rtol=1e-12)
    np.testing.assert_allclose(combine.combine(p, "votes"), [[2 / 3, 1 / 3, 0]], atol=1e-5)
    np.testing.assert_allclose(combine.combine(p, "weights", [1, 0, 3]), [[0.525, 0.225, 0.25]])
    tie = np.array([[[0.9, 0.1]], [[0.4, 0.6]]])
    assert combine.combine(tie, "votes").argmax(-1) == 0  # one vote each: the mean probability decides
    with pytest.raises(caffe.CaffeError, match='did you mean "votes"'):
        combine.combine(p, "vote")
    with pytest.raises(caffe.CaffeError, match="a weight for each of 3 members"):
        combine.combine(p, "weights", [1, 2])


def test_fitted_weights_are_the_best_on_a_grid():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 300)
    logits = [np.eye(4)[labels] * strength + rng.normal(size=(300, 4)) for strength in (2.0, 0.7)]
    members = [combine.softmax(each) for each in logits]

    def loss(share):
        mixed = combine.combine(members, "weights", [share, 1 - share])
        return -np.log(mixed[np.arange(300), labels]).mean()

    fitted = combine.fit_weights(members, labels)
    assert fitted.sum() == pytest.approx(1)
    assert loss(fitted[0]) <= min(loss(share) for share in np.linspace(0.01, 0.99, 99)) + 1e-6


def test_ensemble_has_the_functions_of_a_net(nets):
    data, _ = items()
    p = probabilities()
    weights = ["a.caffemodel", "b.caffemodel", "c.caffemodel"]
    ensemble = caffe.Ensemble("deploy.prototxt", weights)
    assert (ensemble.inputs, ensemble.outputs, ensemble.name) == (["data"], ["prob"], "D")
    np.testing.assert_allclose(ensemble.forward_all(data=data)["prob"], p.mean(0), rtol=1e-5)
    ensemble.blobs["data"].data[...] = data[:5]
    np.testing.assert_allclose(ensemble.forward()["prob"], p.mean(0)[:5], rtol=1e-5)
    ensemble.blobs["data"].reshape(2, 7)
    ensemble.reshape()
    ensemble.blobs["data"].data[...] = data[:2]
    out = ensemble.forward(blobs=["ip"])
    np.testing.assert_allclose(out["prob"], p.mean(0)[:2], rtol=1e-5)
    assert out["ip"].shape == (2, 3)
    ensemble.optimize()
    np.testing.assert_allclose(ensemble.forward_all(data=data)["prob"], p.mean(0), rtol=1e-5)
    ensemble.close()
    for method in combine.METHODS[1:3]:
        other = caffe.Ensemble(["deploy.prototxt"] * 3, weights, combine=method)
        expected = combine.combine(p, method)
        np.testing.assert_allclose(other.forward_all(data=data)["prob"], expected, rtol=1e-4, atol=1e-6)
    weighted = caffe.Ensemble("deploy.prototxt", weights, member_weights=[2, 1, 1])
    np.testing.assert_allclose(weighted.forward_all(data=data)["prob"], (2 * p[0] + p[1] + p[2]) / 4, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: caffe.Ensemble("t5.prototxt", ["a.caffemodel"]), "reads its own data"),
        (lambda: caffe.Ensemble("deploy.prototxt", "a.caffemodel"), "expected a list"),
        (lambda: caffe.Ensemble("deploy.prototxt", []), "one of them is missing"),
        (lambda: caffe.Ensemble(["deploy.prototxt"] * 2, ["a.caffemodel"] * 3), "2 nets and 3 weight files"),
        (lambda: caffe.Ensemble("deploy.prototxt", ["a.caffemodel"], "weights"), "member_weights are for"),
        (lambda: caffe.Ensemble("deploy.prototxt", ["z*.caffemodel"]), "no weight file matches"),
        (lambda: caffe.Ensemble("deploy.prototxt", ["a.caffemodel"], member_weights=[-1]), "expected numbers >= 0"),
    ],
)
def test_wrong_ensembles_are_one_error(nets, make, text):
    with pytest.raises(caffe.CaffeError, match=text):
        make()


def score(capsys, *argv):
    assert main(["test", "-ensemble", "-iterations", "4", "-json", "table.json", *argv]) == 0
    out = capsys.readouterr().out
    with open("table.json") as file:
        return out, json.load(file)


def test_the_table_is_that_of_the_averaged_probabilities(nets, capsys):
    _, labels = items()
    p = probabilities()
    out, table = score(capsys, "-model", "t5.prototxt", "-weights", "a.caffemodel,b.caffemodel,c.caffemodel")
    assert table["items"] == 20
    assert [row["accuracy"] for row in table["members"]] == [(each.argmax(1) == labels).mean() for each in p]
    mean = p.mean(0)
    assert table["ensemble"]["accuracy"] == (mean.argmax(1) == labels).mean()
    assert table["ensemble"]["loss"] == pytest.approx(-np.log(mean[np.arange(20), labels]).mean(), rel=1e-5)
    for name in ("a.caffemodel", "members: spread", "ensemble"):
        assert re.search(rf"^{name} +\d", out, re.M), name
    # nets with other batch sizes read the same items; a pattern names several files
    _, other = score(capsys, "-model", "t5.prototxt,t4.prototxt,t5.prototxt", "-weights", "[abc].caffemodel")
    assert other["ensemble"] == table["ensemble"]


def test_weights_come_from_validation_data(nets, capsys):
    data, labels = items()
    np.savez("validation.npz", data=data[:10], label=labels[:10].astype(np.float32))
    argv = ["-model", "t5.prototxt", "-weights", "a.caffemodel,b.caffemodel", "-combine", "weights"]
    _, table = score(capsys, *argv, "-validation", "validation.npz")
    expected = combine.fit_weights([np.tile(p[:10], (2, 1)) for p in probabilities()[:2]], np.tile(labels[:10], 2))
    np.testing.assert_allclose(table["weights"], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-combine", "weights"], "data of -validation SOURCE"),
        (["-combine", "weights", "-validation", "items.npz"], "items.npz is the test data"),
        (["-combine", "mean"], 'combine is "mean", expected one of'),
        (["-model", "deploy.prototxt"], "no layer compares outputs with classes"),
        (["-model", "t5.prototxt,other.prototxt"], "its test labels differ"),
        (["-noensemble", "-combine", "votes"], "-combine: applies to ensembles"),
    ],
)
def test_wrong_flags_are_one_error(nets, capsys, argv, text):
    data, labels = items()
    np.savez("other.npz", data=data, label=(labels + 1) % 3)
    (nets / "other.prototxt").write_text(train_test(5, "other.npz"))
    given = ["-model", "t5.prototxt", "-weights", "a.caffemodel,b.caffemodel", "-ensemble", "-iterations", "2"]
    assert main(["test", *given, *argv]) == 1
    error = capsys.readouterr().err.partition("caffe: error: ")[2]
    assert text in error
    assert len(error.splitlines()) == 1


def test_moving_average_is_a_member(nets, capsys):
    (nets / "solver.prototxt").write_text(
        'net: "t5.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 6 snapshot: 3 ema_decay: 0.5'
        ' random_seed: 3 solver_mode: CPU snapshot_prefix: "run"'
    )
    assert main(["train", "-solver", "solver.prototxt", "-members", "2"]) == 0
    assert "caffe test -model t5.prototxt -weights 'run_member*_iter_6.caffemodel'" in capsys.readouterr().err
    first, second = (caffe.Net("t5.prototxt", f"run_member{n}_iter_6.caffemodel", caffe.TEST) for n in (1, 2))
    assert not np.array_equal(first.params["ip"][0].data, second.params["ip"][0].data)
    weights = "run_member1_iter_6.solverstate,run_member1_iter_6.caffemodel"
    _, table = score(capsys, "-model", "t5.prototxt", "-weights", weights)
    average, last = (row["loss"] for row in table["members"])
    assert average != last
    # the interrupted member is resumed, the finished one is not trained again
    before = (nets / "run_member1_iter_6.caffemodel").stat().st_mtime_ns
    whole = (nets / "run_member2_iter_6.caffemodel").read_bytes()
    for name in ("caffemodel", "solverstate"):
        (nets / f"run_member2_iter_6.{name}").unlink()
    assert main(["train", "-solver", "solver.prototxt", "-members", "2", "-snapshot", "last"]) == 0
    assert (nets / "run_member1_iter_6.caffemodel").stat().st_mtime_ns == before
    assert (nets / "run_member2_iter_6.caffemodel").read_bytes() == whole
    assert main(["train", "-solver", "solver.prototxt", "-members", "2", "-snapshot", "x.solverstate"]) == 1
    assert main(["train", "-solver", "solver.prototxt", "-snapshot", "last"]) == 1
