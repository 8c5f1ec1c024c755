"""Dropout: both scalings, Monte Carlo dropout, and the reliability of its probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import caffe
from caffe.cli import main
from caffe.errors import CaffeError, NetError
from caffe.proto.caffe_pb2 import TEST, TRAIN
from caffe.reliability import Reliability, samples
from tests.layers.build import apply

NET = """
layer { name: "data" type: "ArrayData" top: "data" top: "label" array_data_param { source: "d.npz" batch_size: 20 } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 12 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" dropout_param { dropout_ratio: 0.5 SCALE } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


@pytest.fixture
def net(tmp_path, monkeypatch):
    """Return a function that builds nets in TEST for 100 items of three classes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    label = rng.integers(3, size=100)
    data = rng.standard_normal((100, 8)) + np.eye(3, 8)[label]
    np.savez("d.npz", data=data.astype(np.float32), label=label.astype(np.float32))
    caffe.set_random_seed(3)

    def make(scale=""):
        (tmp_path / "net.prototxt").write_text(NET.replace("SCALE", scale))
        return caffe.Net("net.prototxt", caffe.TEST)

    return make


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("ratio", [0.2, 0.7])
def test_both_scalings_are_exact_in_expectation(scaled, ratio):
    """The mean over many masks in TRAIN equals the value in TEST, and each value is one of two."""
    torch.manual_seed(1)
    options = f"dropout_param {{ dropout_ratio: {ratio} scale_train: {str(scaled).lower()} }}"
    x = torch.tensor([[1.0, -2.0, 3.0]])
    drawn = apply("Dropout", options, x.expand(40000, 3).contiguous(), phase=TRAIN)
    tested = apply("Dropout", options, x, phase=TEST)
    assert torch.allclose(tested, x if scaled else (1 - ratio) * x)
    kept = x / (1 - ratio) if scaled else x
    assert bool(((drawn == 0) | torch.isclose(drawn, kept)).all())
    error = (drawn.mean(0) - tested[0]).abs() / kept[0].abs()
    assert error.max() < 4 * (ratio * (1 - ratio) / 40000) ** 0.5


def test_gradients_of_both_scalings():
    for phase, options, slope in ((TEST, "scale_train: false", 0.5), (TEST, "", 1.0)):
        x = torch.ones(1, 3, requires_grad=True)
        apply("Dropout", f"dropout_param {{ {options} }}", x, phase=phase).sum().backward()
        assert torch.equal(x.grad, torch.full((1, 3), slope))


def test_an_optimized_net_scales_in_test(net):
    made = net("scale_train: false")
    expected = made.forward_loss()
    again = net("scale_train: false")
    again.share_with(made)
    again.optimize()
    assert again.evaluate() == pytest.approx(expected, rel=1e-5)


def test_monte_carlo_is_a_switch(net):
    made = net()
    plain, drawn = samples(made, 400, ["ip2", "label"])
    assert drawn["ip2"].shape == (400, 20, 3)
    assert (drawn["label"] == plain["label"]).all()  # the same batch each time
    deviation = drawn["ip2"].std(0)
    assert (deviation > 0).mean() > 0.9
    assert (
        np.abs(drawn["ip2"].mean(0) - plain["ip2"]).max() < 5 * deviation.max() / 20
    )  # ip2 is linear in what is dropped
    first = made.forward_loss()
    made.monte_carlo()
    made.optimize()
    assert len({made.forward()["loss"].item() for _ in range(3)}) == 3
    assert first > 0


def test_nets_without_dropout_and_in_train(net):
    made = net("").to_proto()
    del made.layer[[layer.name for layer in made.layer].index("drop")]
    with pytest.raises(NetError, match="needs a Dropout layer"):
        caffe.Net(made, caffe.TEST).monte_carlo()
    with pytest.raises(NetError, match="for a net in TEST"):
        caffe.Net("net.prototxt", caffe.TRAIN).monte_carlo()
    with pytest.raises(CaffeError, match="runs is 0"):
        samples(net(), 0, [])


def test_reliability_of_known_numbers():
    found = Reliability()
    found.add(np.array([[0.95, 0.05], [0.95, 0.05], [0.4, 0.6], [0.35, 0.65]]), np.array([0, 1, 1, 1]))
    confidence, right, count = found.bins()
    assert count.tolist() == [0] * 6 + [2, 0, 0, 2]
    assert right[[6, 9]].tolist() == [1, 0.5]
    assert confidence[[6, 9]] == pytest.approx([0.625, 0.95])
    assert found.error == pytest.approx((0.375 + 0.45) / 2)
    assert found.accuracy == 0.75


def test_command(net, capsys, tmp_path):
    net().save("net.caffemodel")
    flags = ["test", "-model", "net.prototxt", "-weights", "net.caffemodel", "-iterations", "2"]
    assert main([*flags, "-mc", "5", "-reliability", "out.png"]) == 0
    out = capsys.readouterr().out
    assert "mean of 5 runs: accuracy" in out
    assert "variance of the probabilities" in out
    assert (tmp_path / "out.png").stat().st_size > 5000
    assert main([*flags, "-reliability", "out.png"]) == 1
    assert "-reliability draws the result of -mc N" in capsys.readouterr().err
    assert main([*flags, "-mc", "2", "-precision", "bf16"]) == 1
    assert "remove -precision" in capsys.readouterr().err


def test_masks_in_test_if_the_net_asks_for_samples(net):
    """With SegNet's sample_weights_test, every run in TEST draws a mask, also in an optimized net."""
    made = net("sample_weights_test: true")
    for optimized in (False, True):
        if optimized:
            made.optimize()
        first, second = made.forward(end="ip2")["ip2"].copy(), made.forward(end="ip2")["ip2"]
        for values in (first, second):
            assert np.isfinite(values).all()
        assert np.abs(made.forward()["loss"]) < 50
    x = np.ones((1000, 3))
    drawn = apply("Dropout", "dropout_param { sample_weights_test: true dropout_ratio: 0.5 }", x, phase=TEST)
    assert set(np.unique(drawn)) == {0, 2}
