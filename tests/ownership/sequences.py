"""Chooses the start of a sequence and its operations at random."""

from __future__ import annotations

import random

from tests.ownership import operations, operations_modes, operations_runs
from tests.ownership.drawing import draw_graph
from tests.ownership.model import Net
from tests.ownership.operations import Operation
from tests.ownership.world import Start

_BASES = ("Operation", "OnNet")
OPERATIONS = {
    name: value
    for name, value in {**vars(operations), **vars(operations_runs), **vars(operations_modes)}.items()
    if isinstance(value, type) and issubclass(value, Operation) and name not in _BASES
}
TRIES = 8
WEIGHTY = (  # the operations whose result depends on the weights
    *("Forward", "Feed", "Step", "SolverTest", "Keep", "Drop", "Write", "WriteKept", "WriteDrop", "Optimize", "Slim"),
    *("Share", "Save", "Load", "Resize", "Read", "ForwardBackward"),
)


def draw_start(rng, real=False, without=()):
    """Nets, and whether a solver trains them."""
    trained = rng.random() < 0.4
    phase = "TRAIN" if trained or rng.random() < 0.3 else "TEST"
    graph = draw_graph(rng, phase, real)
    while (trained and not graph.has_loss) or any(node.type in without for node in graph.nodes):
        graph = draw_graph(rng, phase, real)
    net = Net(graph, phase)
    marks = net.marks
    net.mark_backward(statistics=True)
    graph.force_backward = graph.force_backward or net.marks != marks  # if the expected result is not defined
    solver = None
    if trained:
        solver = {"base_lr": 0.05, "momentum": rng.choice([0, 0.9]), "weight_decay": rng.choice([0, 0.1])}
        solver["iter_size"] = rng.choice([1, 1, 2])
    first = "write" if real else rng.choice(["write", "load"])
    return Start(graph, phase, trained or rng.random() < 0.3, solver, first, rng.randrange(1000), rng.choice([1, 2]))


class Drawer:
    """Chooses one operation after the other, each of which applies to the current state.

    Many sequences use only a few kinds of operations, or mostly weights, and most use a few places repeatedly. This
    makes it more likely that operations affect each other.
    """

    def __init__(self, seed, count=15, mode="own", without=()):
        self.rng = random.Random(seed)
        self.start = draw_start(self.rng, mode == "real", without)
        self.left = count
        kinds = [kind for name, kind in OPERATIONS.items() if name not in without and kind.mode in (None, mode)]
        if mode == "real":
            kinds = [kind for kind in kinds if not kind.own]
        self.weighty = self.rng.random() < 0.3
        if self.weighty:
            kinds = [kind for kind in kinds if kind.__name__ in WEIGHTY or kind.mode]
        if self.rng.random() < (0.7 if self.weighty else 0.5):
            few = self.rng.sample(kinds, min(self.rng.randrange(4, 9), len(kinds)))
            kinds = few if operations_runs.Forward in few else [operations_runs.Forward, *few]
        self.kinds, self.weights = kinds, [kind.weight for kind in kinds]
        optimize = operations_modes.Optimize
        switches = [kind for kind in OPERATIONS.values() if issubclass(kind, optimize) and kind.mode in (None, mode)]
        switched = mode != "real" and self.rng.random() < (0.7 if self.weighty else 0.3)
        self.first = self.rng.sample(switches, len(switches)) if switched else []
        self.eager = self.rng.random() < 0.25

    def __call__(self, world):
        """The next operation, or None at the end."""
        if not self.left:
            return None
        if not world.focus and self.rng.random() < 0.9:
            share, count = (0.9, 2) if self.weighty else (0.35, self.rng.randrange(2, 5))
            world.focus = [operations.draw_place(self.rng, world, share) for _ in range(count)]
        self.left -= 1
        first, self.first = self.first, []
        for kind in [*first, *self.rng.choices(self.kinds, self.weights, k=TRIES)]:
            arguments = kind.draw(self.rng, world)
            if arguments is not None and kind(*arguments).applies(world, *arguments):
                return kind(*arguments)
        return operations.Collect()


class Fixed:
    """Gives the operations of a list, without those that do not apply."""

    def __init__(self, start, ops, eager):
        self.start, self.ops, self.eager = start, iter(ops), eager

    def __call__(self, world):
        return next((op for op in self.ops if op.applies(world, *op.arguments)), None)
