"""Scores an ensemble and its members on the data of a test net."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from caffe import mode
from caffe.doctor.head import Head, find_head
from caffe.doctor.sources import source_options
from caffe.doctor.view import View
from caffe.ensemble import combine as combining
from caffe.ensemble.members import Member, load
from caffe.errors import NetError
from caffe.net import Net
from caffe.proto import caffe_pb2, upgrade

__all__ = ["Answers", "Row", "Scores", "collect", "score", "sources_replaced"]


@dataclass(frozen=True)
class Answers:
    """The outputs of the members for the same items: probabilities (items, classes) of each, and the labels
    (items,).
    """

    names: Sequence[str]
    members: Sequence[np.ndarray]
    labels: np.ndarray


@dataclass(frozen=True)
class Row:
    """A row of the table. `accuracy` and `loss` are means over the items; the loss is -log of the label's probability.

    The loss of votes is NaN, because shares of votes are not probabilities.
    """

    name: str
    accuracy: float
    loss: float


@dataclass(frozen=True)
class Scores:
    """The table: a row for each member, and one for the ensemble.

    `gained` counts the items that are correct for the ensemble but wrong for the best member, `lost` the opposite.
    `apart` is the mean fraction of items for which two members predict different classes.
    """

    members: Sequence[Row]
    ensemble: Row
    items: int
    method: str
    gained: int
    lost: int
    apart: float
    weights: Sequence[float] = field(default=())

    @property
    def best(self) -> Row:
        """The member with the highest accuracy on these items."""
        return max(self.members, key=lambda row: row.accuracy)

    def spread(self, name: str) -> tuple[float, float, float, float]:
        """Return mean, standard deviation, minimum and maximum of the members' `accuracy` or `loss`."""
        values = np.array([getattr(row, name) for row in self.members])
        deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        return float(values.mean()), deviation, float(values.min()), float(values.max())

    @property
    def error_bar(self) -> float:
        """Half the 95 % interval (Wilson) of the ensemble's accuracy, from the number of items."""
        p, n, z = self.ensemble.accuracy, max(1, self.items), 1.96
        return z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)


def score(answers: Answers, method: str, weights: Sequence[float] | None = None) -> Scores:
    """Score the members, and the ensemble combined by `method`."""
    together = combining.combine(answers.members, method, weights)
    labels = answers.labels
    rows = [_row(name, p, labels) for name, p in zip(answers.names, answers.members, strict=True)]
    ensemble = _row("ensemble", together, labels)
    if method == "votes":
        ensemble = Row(ensemble.name, ensemble.accuracy, math.nan)
    right = [p.argmax(-1) == labels for p in answers.members]
    best = right[int(np.argmax([row.accuracy for row in rows]))]
    ours = together.argmax(-1) == labels
    said = [p.argmax(-1) for p in answers.members]
    pairs = [float((a != b).mean()) for a, b in itertools.combinations(said, 2)]
    return Scores(
        rows,
        ensemble,
        len(labels),
        method,
        int((ours & ~best).sum()),
        int((best & ~ours).sum()),
        float(np.mean(pairs)) if pairs else 0.0,
        [] if weights is None else list(combining.normalized(weights)),
    )


def _row(name: str, p: np.ndarray, labels: np.ndarray) -> Row:
    picked = np.asarray(p, np.float64)[np.arange(len(labels)), labels]
    return Row(name, float((p.argmax(-1) == labels).mean()), float(-np.log(np.maximum(picked, 1e-30)).mean()))


def collect(
    members: Sequence[Member],
    batches: int,
    level: int = 0,
    stages: Sequence[str] = (),
    prepare: Callable[[Any], Any] = lambda model: model,
    tell: Callable[[int], None] = lambda done: None,
    **options: Any,
) -> Answers:
    """Collect the outputs of each member for the first items of its TEST data: `batches` batches of the first member.

    `prepare` can replace the definition of a member's net; `options` are passed to `Net.optimize`. A member with
    another batch size runs as many batches as needed for the same items. Raises NetError if a net is not a classifier,
    or if the labels show that two members read different items.
    """
    found: list[np.ndarray] = []
    labels = np.empty(0, np.int64)
    for number, member in enumerate(members):
        model = prepare(member.model)
        head = _head(model, level, stages)
        net = Net(model, caffe_pb2.TEST, level=level, stages=list(stages), device=mode.device())
        try:
            load(net, member.weights)
            net.optimize(keep=[head.outputs, head.labels], **options)
            p, own = _run(net, head, _is_probability(model, head, level, stages), batches, len(labels))
        finally:
            net.close()
        if not number:
            labels = own
        _check_same(members, number, p, own, found, labels)
        found.append(p[_counted(head, labels)])
        tell(number + 1)
    counted = _counted(head, labels)
    return Answers([member.name for member in members], found, labels[counted])


def _check_same(
    members: Sequence[Member], number: int, p: np.ndarray, own: np.ndarray, found: Sequence[np.ndarray], labels: Any
) -> None:
    first, here = members[0].name, members[number].name
    if not np.array_equal(own, labels):
        raise NetError(
            f"{here}: its test labels differ from those of {first}: all members must read the same items in "
            "the same order; use the same source in their test nets, without shuffling"
        )
    if found and p.shape[1:] != found[0].shape[1:]:
        raise NetError(f"{here}: has {p.shape[1]} classes, but {first} has {found[0].shape[1]}")


def _run(net: Net, head: Head, is_probability: bool, batches: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (items, classes) and labels of `batches` batches, or of as many as contain `wanted`
    items.
    """
    parts: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    while len(parts) < batches if not wanted else sum(map(len, labels)) < wanted:
        net.evaluate()
        outputs = np.moveaxis(net.blobs[head.outputs].data, head.axis, -1)
        outputs = outputs.reshape(-1, outputs.shape[-1])
        given = net.blobs[head.labels].data.ravel()
        if len(given) != len(outputs):
            fact = f'"{head.outputs}" has {len(outputs)} items, "{head.labels}" has {len(given)} labels'
            raise NetError(f'net "{net.name}": {fact}; expected a label for each item')
        parts.append(outputs.astype(np.float32) if is_probability else combining.softmax(outputs).astype(np.float32))
        labels.append(given.astype(np.int64))
    joined, known = np.concatenate(parts), np.concatenate(labels)
    return (joined[:wanted], known[:wanted]) if wanted else (joined, known)


def _head(model: Any, level: int, stages: Sequence[str]) -> Head:
    head = find_head(_view(model, level, stages))
    if head is None or not head.classes:
        where = model if isinstance(model, str) else "the net"
        raise NetError(
            f"{where}: no layer compares outputs with classes in the phase TEST; an ensemble is scored by the bottoms "
            "of an Accuracy, SoftmaxWithLoss, MultinomialLogisticLoss, InfogainLoss or HingeLoss layer"
        )
    return head


def _view(model: Any, level: int, stages: Sequence[str]) -> View:
    state = caffe_pb2.NetState(level=level, stage=[stage for stage in stages if stage])
    return View(upgrade.read_net(model) if isinstance(model, str) else model, caffe_pb2.TEST, state)


def _is_probability(model: Any, head: Head, level: int, stages: Sequence[str]) -> bool:
    """Whether the outputs are probabilities. Otherwise they are logits, or scores that are treated as logits."""
    view = _view(model, level, stages)
    node = view.named(head.node.name)
    maker = view.maker(node, head.outputs) if node is not None else None
    if maker is not None and maker.kind.probabilities:
        return True
    readers = view.readers(maker) if maker is not None else []
    return any(reader.kind.expects_probabilities for reader in readers)


def _counted(head: Head, labels: np.ndarray) -> np.ndarray:
    """Return which items count. Items with the layer's `ignore_label` do not."""
    ignored = head.node.kind.ignored_label(head.node.spec)
    if ignored is None:
        return np.ones(len(labels), bool)
    counted: np.ndarray = labels != ignored
    return counted


def sources_replaced(model: Any, source: str) -> Any:
    """Return the net with another source for its TEST data layers: a database, or a list file."""
    net = upgrade.read_net(model) if isinstance(model, str) else model
    changed = caffe_pb2.NetParameter()
    changed.CopyFrom(net)
    options = source_options(changed, caffe_pb2.TEST)
    for each in options:
        if each.source == source:
            raise NetError(f"{source} is the test data; the weights must be fitted on separate validation data")
        each.replace(source)
    if not options:
        raise NetError(f"{model}: has no data layer in the phase TEST whose source could be replaced by {source}")
    return changed
