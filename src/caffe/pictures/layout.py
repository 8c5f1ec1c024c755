"""Places the nodes of a directed graph in ranks, so that arrows point in one direction and rarely cross.

The steps follow Sugiyama et al., "Methods for visual understanding of hierarchical system structures" (1981): a rank
for each node by its longest path, a bend in every rank that an arrow passes, an order in each rank by the median of the
neighbours, and then positions near the neighbours' without overlap.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Node", "place"]

_SWEEPS = 12


@dataclass(eq=False)
class Node:
    """A box, or a bend of an arrow. `along` and `across` are its sizes on the rank axis and on the other axis.

    After `place`, `at` (along) and `x` (across) are the coordinates of its centre, and a bend is as long as its rank.
    """

    along: float
    across: float
    bend: bool = False
    rank: int = 0
    x: float = 0.0
    at: float = 0.0
    before: list[Node] = field(default_factory=list, repr=False)
    after: list[Node] = field(default_factory=list, repr=False)


def place(
    nodes: Sequence[Node], edges: Sequence[tuple[int, int]], gap_along: float, gap_across: float
) -> list[list[Node]]:
    """Set `at` and `x` of the nodes. They must be in an order with the source of every edge before its target.

    Returns for each edge the nodes that it passes, from its source over its bends to its target.
    """
    _rank(nodes, edges)
    paths, everything = [], list(nodes)
    for source, target in edges:
        path = [nodes[source]]
        for rank in range(nodes[source].rank + 1, nodes[target].rank):
            path.append(Node(0, gap_across / 2, bend=True, rank=rank))
        everything += path[1:]
        path.append(nodes[target])
        for one, other in itertools.pairwise(path):
            one.after.append(other)
            other.before.append(one)
        paths.append(path)
    ranks: list[list[Node]] = [[] for _ in range(1 + max((node.rank for node in nodes), default=0))]
    for node in everything:
        ranks[node.rank].append(node)
    _order(ranks)
    _spread(ranks, gap_across)
    start = 0.0
    for level in ranks:
        thickness = max((node.along for node in level), default=0.0)
        for node in level:
            node.at = start + thickness / 2
            node.along = thickness if node.bend else node.along
        start += thickness + gap_along
    return paths


def _rank(nodes: Sequence[Node], edges: Sequence[tuple[int, int]]) -> None:
    """Compute the longest path to each node. Nodes without predecessors are placed directly before their first
    reader.
    """
    for source, target in sorted(edges, key=lambda edge: edge[1]):
        nodes[target].rank = max(nodes[target].rank, nodes[source].rank + 1)
    targets = {target for _, target in edges}
    for index, node in enumerate(nodes):
        needed = [nodes[target].rank for source, target in edges if source == index]
        if index not in targets and needed:
            node.rank = min(needed) - 1


def _order(ranks: list[list[Node]]) -> None:
    """Order each rank by the mean position of the neighbours in the previous rank, then in the next, and so on."""
    best, fewest = [list(rank) for rank in ranks], _crossings(ranks)
    for sweep in range(8):
        down = sweep % 2 == 0
        for rank in ranks if down else reversed(ranks):
            places = {
                id(node): index
                for node in rank
                for neighbour in (node.before if down else node.after)[:1]
                for index, node in enumerate(ranks[neighbour.rank])
            }
            key = {}
            for index, node in enumerate(rank):
                near = [places[id(other)] for other in (node.before if down else node.after)]
                key[id(node)] = sum(near) / len(near) if near else float(index)
            rank.sort(key=lambda node: key[id(node)])
        count = _crossings(ranks)
        if count < fewest:
            best, fewest = [list(rank) for rank in ranks], count
    ranks[:] = best


def _crossings(ranks: Sequence[Sequence[Node]]) -> int:
    count = 0
    for rank, following in itertools.pairwise(ranks):
        places = {id(node): index for index, node in enumerate(following)}
        ends = [places[id(other)] for node in rank for other in sorted(node.after, key=lambda n: places[id(n)])]
        count += sum(ends[i] > ends[j] for i in range(len(ends)) for j in range(i + 1, len(ends)))
    return count


def _spread(ranks: Sequence[Sequence[Node]], gap: float) -> None:
    """Move nodes across towards the mean of their neighbours."""
    for rank in ranks:
        _settle(rank, [0.0] * len(rank), gap)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0 or sweep == _SWEEPS - 1  # the last pass straightens parallel chains
        for rank in ranks if down else reversed(ranks):
            wishes = []
            for node in rank:
                near = (node.before if down else node.after) or [node]
                wishes.append(sum(other.x for other in near) / len(near))
            _settle(rank, wishes, gap)


def _settle(rank: Sequence[Node], wishes: Sequence[float], gap: float) -> None:
    """Assign positions nearest to the wanted ones (least squares) that keep the order and the distances."""
    offset, offsets = 0.0, []
    groups: list[tuple[int, float]] = []  # groups of adjacent nodes: size, and mean of the wanted positions
    for index, node in enumerate(rank):
        if index:
            offset += (rank[index - 1].across + node.across) / 2 + gap
        offsets.append(offset)
        groups.append((1, wishes[index] - offset))
        while len(groups) > 1 and groups[-2][1] > groups[-1][1]:
            (size, wish), (before, other) = groups.pop(), groups.pop()
            groups.append((before + size, (before * other + size * wish) / (before + size)))
    start = [wish for size, wish in groups for _ in range(size)]
    for node, first, more in zip(rank, start, offsets, strict=True):
        node.x = first + more
