"""Dry runs: shapes and errors that are inferred without torch equal those of torch."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from caffe.layers import Layer
from caffe.layers.support import dry


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


X, Y, ROW = meta(2, 3, 5, 7), meta(2, 3, 5, 7), meta(2, 6)
COUNTS, FLAGS, LABELS = meta(2, 3, dtype=torch.int64), meta(2, 3, dtype=torch.bool), meta(2, 5, 7, dtype=torch.int64)

PLAIN = {
    "relu": lambda: F.relu(X),
    "relu in place": lambda: F.relu(X, inplace=True),
    "leaky_relu": lambda: F.leaky_relu(X, 0.1),
    "power": lambda: X**-0.75,
    "clamp": lambda: X.clamp(min=0),
    "clamp of integers": lambda: COUNTS.clamp(min=1),
    "dropout": lambda: F.dropout(X, 0.3),
    "softmax": lambda: F.softmax(X, -1),
    "log_softmax": lambda: F.log_softmax(ROW, 1),
    "prelu": lambda: F.prelu(X, meta(3)),
    "prelu of one slope": lambda: F.prelu(X, meta(1)),
    "batch_norm": lambda: torch.batch_norm(X, meta(3), meta(3), meta(3), meta(3), True, 0.1, 1e-5, False),
    "batch_norm without weights": lambda: torch.batch_norm(X, None, None, meta(3), meta(3), False, 0.1, 1e-5, False),
    "ones_like": lambda: torch.ones_like(COUNTS, dtype=torch.float64),
    "add": lambda: torch.add(X, meta(5, 1), alpha=2),
    "add to a number": lambda: 1 + COUNTS,
    "add into": lambda: torch.add(X, Y, out=meta(2, 3, 5, 7)),
    "add in place": lambda: X.add_(meta(7), alpha=2),
    "add of other types": lambda: COUNTS + meta(2, 1, dtype=torch.float64),
    "subtract from a number": lambda: 1 - X,
    "multiply empty ones": lambda: meta(0, 3) * meta(1, 3),
    "divide": lambda: COUNTS.to(X.dtype) / COUNTS,
    "addcmul in place": lambda: X.addcmul_(Y, meta(7)),
    "compare": lambda: meta(7) > X,
    "compare with a number": lambda: COUNTS != 3,
    "not": lambda: ~FLAGS,
    "where": lambda: torch.where(X > 0, X, 0.5),
    "where not": lambda: COUNTS.where(COUNTS != 0, 0),
    "sum": lambda: X.sum(),
    "sum along": lambda: X.sum((1, -1), keepdim=True),
    "sum along none": lambda: X.sum(()),
    "sum of flags": lambda: FLAGS.sum(1),
    "mean": lambda: X.mean((2, 3)),
    "mean of a number": lambda: meta().mean(),
    "cat": lambda: torch.cat([X, meta(2, 4, 5, 7)], 1),
    "cat from the end": lambda: torch.cat([X, Y, Y], -1),
    "linear": lambda: F.linear(meta(2, 3, 5), meta(7, 5), meta(7)),
    "addmm": lambda: torch.addmm(meta(2, 7), ROW, meta(6, 7)),
    "conv1d": lambda: F.conv1d(meta(2, 3, 11), meta(6, 3, 3), meta(6)),
    "conv2d": lambda: F.conv2d(X, meta(6, 1, 3, 2), meta(6), (2, 1), (1, 2), (1, 3), 3),
    "conv3d": lambda: F.conv3d(meta(2, 3, 5, 7, 9), meta(4, 3, 3, 3, 3), None, 2, 1),
    "conv of no images": lambda: F.conv2d(meta(0, 3, 5, 7), meta(4, 3, 3, 3)),
    "conv_transpose2d": lambda: F.conv_transpose2d(X, meta(3, 4, 3, 2), None, (2, 3), (1, 0), 0, 3, (2, 1)),
    "conv_transpose1d": lambda: F.conv_transpose1d(meta(2, 3, 5), meta(3, 4, 3), meta(4)),
    "max_pool2d": lambda: F.max_pool2d(X, 2),
    "max_pool2d that drops a window": lambda: F.max_pool2d(X, (2, 3), (3, 2), (1, 1), ceil_mode=True),
    "avg_pool2d": lambda: F.avg_pool2d(X, (3, 2), 2, (1, 0), ceil_mode=True),
    "avg_pool2d, divided": lambda: F.avg_pool2d(X, 3, 1, divisor_override=1),
    "nll_loss": lambda: F.nll_loss(X, LABELS, ignore_index=-1, reduction="none"),
    "binary cross entropy": lambda: F.binary_cross_entropy_with_logits(X, Y, reduction="none"),
    "gather": lambda: ROW.gather(1, COUNTS),
    "embedding": lambda: F.embedding(COUNTS, meta(11, 13)),
}
"""Calls that are answered here."""

ODD = {
    "dropout of no probability": lambda: F.dropout(X, 1.5),
    "softmax of no axis": lambda: F.softmax(X, 4),
    "softmax to another type": lambda: F.softmax(X, 1, dtype=torch.float64),
    "prelu of wrong slopes": lambda: F.prelu(X, meta(4)),
    "relu of flags": lambda: F.relu(FLAGS),
    "clamp by a tensor": lambda: X.clamp(meta(2, 1, 1, 1, 1)),
    "add of sizes that differ": lambda: X + meta(6),
    "add into another shape": lambda: torch.add(X, Y, out=meta(3)),
    "add in place to less": lambda: meta(7).add_(X),
    "subtract flags": lambda: FLAGS - FLAGS,
    "not of integers": lambda: ~COUNTS,
    "where of a number": lambda: torch.where(X, X, Y),
    "sum along no axis": lambda: X.sum(4),
    "sum twice along one": lambda: X.sum((1, -3)),
    "mean of integers": lambda: COUNTS.mean(),
    "cat of sizes that differ": lambda: torch.cat([X, meta(2, 3, 5, 6)], 1),
    "cat of axes that differ": lambda: torch.cat([X, ROW], 1),
    "cat of types that differ": lambda: torch.cat([ROW, COUNTS], 1),
    "divide integers": lambda: COUNTS / 2,
    "cat of nothing": lambda: torch.cat([], 1),
    "linear of wrong inputs": lambda: F.linear(ROW, meta(7, 5)),
    "linear of a wrong bias": lambda: F.linear(ROW, meta(7, 6), meta(6)),
    "conv2d of wrong channels": lambda: F.conv2d(X, meta(4, 2, 3, 3)),
    "conv2d of a wrong bias": lambda: F.conv2d(X, meta(4, 3, 3, 3), meta(3)),
    "conv2d of another type": lambda: F.conv2d(X, meta(4, 3, 3, 3, dtype=torch.float64)),
    "conv2d of too large a kernel": lambda: F.conv2d(X, meta(4, 3, 6, 3)),
    "conv2d without stride": lambda: F.conv2d(X, meta(4, 3, 3, 3), None, 0),
    "conv2d of one image": lambda: F.conv2d(meta(3, 5, 7), meta(4, 3, 3, 3)),
    "conv2d of named padding": lambda: F.conv2d(X, meta(4, 3, 3, 3), padding="same"),
    "conv_transpose2d of wrong groups": lambda: F.conv_transpose2d(X, meta(3, 4, 3, 2), groups=2),
    "conv_transpose2d of a wrong bias": lambda: F.conv_transpose2d(X, meta(3, 4, 3, 2), meta(5)),
    "batch_norm of other channels": lambda: torch.batch_norm(X, None, None, meta(4), meta(4), False, 0.1, 1e-5, False),
    "conv_transpose2d, padded further": lambda: F.conv_transpose2d(X, meta(3, 4, 3, 3), None, 2, 0, 1),
    "max_pool2d of too much padding": lambda: F.max_pool2d(X, 2, 2, 2),
    "max_pool2d of a large window": lambda: F.max_pool2d(X, 6),
    "max_pool2d with places": lambda: F.max_pool2d(X, 2, return_indices=True)[1],
    "avg_pool2d of one image": lambda: F.avg_pool2d(meta(3, 5, 7), 2),
    "nll_loss, summed": lambda: F.nll_loss(X, LABELS),
    "nll_loss of wrong labels": lambda: F.nll_loss(X, COUNTS, reduction="none"),
    "gather along no axis": lambda: ROW.gather(2, COUNTS),
    "gather from less": lambda: ROW.gather(0, meta(2, 7, dtype=torch.int64)),
    "embedding of fractions": lambda: F.embedding(ROW, meta(11, 13)),
}
"""Unusual or wrong calls, for which shape inference calls torch."""


def outcome(call) -> object:
    """Return the shape and type of the result of a call, or its error."""
    try:
        made = call()
    except Exception as error:
        return type(error), str(error)
    return made.device.type, made.shape, made.dtype


@pytest.mark.parametrize("name", [*PLAIN, *ODD])
def test_a_quick_answer_is_that_of_torch(name):
    call = {**PLAIN, **ODD}[name]
    expected = outcome(call)
    with dry.FastShapes():
        assert outcome(call) == expected


@pytest.mark.parametrize("name", PLAIN)
def test_plain_calls_are_answered_without_torch(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it is an error
    answers = []
    for function, rule in list(dry._RULES.items()):
        monkeypatch.setitem(
            dry._RULES, function, lambda *a, rule=rule, **k: answers.append(rule(*a, **k)) or answers[-1]
        )
    with dry.FastShapes():
        PLAIN[name]()
    assert answers
    assert all(answer is not None for answer in answers)


def test_values_are_back_after_an_error():
    class Fails(Layer, abstract=True):
        def forward(self, x: Tensor) -> Tensor:
            assert all(tensor.is_meta for tensor in (*self.parameters(), *self.buffers()))
            raise ValueError("no")

    layer = Fails.__new__(Fails)
    nn.Module.__init__(layer)
    layer.inner = nn.BatchNorm1d(3)
    layer.register_buffer("nothing", None)
    before = dict(layer.state_dict(keep_vars=True))
    with pytest.raises(ValueError, match="no"):
        layer.dry_run(X)
    after = layer.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is tensor for name, tensor in before.items())
    assert layer.nothing is None
