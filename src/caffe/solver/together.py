"""Coordinates the solvers of several processes: equal initial weights, mean gradients, common decisions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from caffe import log, mode
from caffe.data.pipeline import shard
from caffe.errors import ParallelError, SolverError
from caffe.layers.base import Source
from caffe.layers.data_memory import HDF5Output
from caffe.layers.support.effects import Effects
from caffe.net import Net
from caffe.parallel.group import Group
from caffe.solver import kept
from caffe.solver.divided import Division, divide, modes
from caffe.solver.over_all import join_layers
from caffe.solver.reduction import Reduction
from caffe.solver.rules import Rule
from caffe.solver.update import length

__all__ = ["Buffer", "Place", "Together", "common_seed"]

REQUESTS = ("snapshot", "stop")
_CHECK_EVERY = 100  # iterations between checks that all processes have the same weights
_CHECK_VALUES = 1 << 12  # float32 sums up to 4096 equal integers below this exactly


class Place(NamedTuple):
    """Position of a data source: index of its net, its name, its position, and records per batch over all processes."""

    net: int
    layer: str
    position: bytes
    batch: int


class Buffer(NamedTuple):
    """A layer's buffer in one process: index of the net, names of layer and buffer, values."""

    process: int
    net: int
    layer: str
    name: str
    array: np.ndarray


class Together:
    """A solver's part in a group of processes. With a single process the methods do only what is needed, at no cost.

    `agreed` holds the requests, made in any process, that all processes handle now.
    """

    def __init__(self, group: Group, param: Any, rule: Rule, nets: Sequence[Net], seed: int) -> None:
        self.group, self.param, self.seed = group, param, seed
        self.agreed: set[str] = set()
        self._nets = nets
        self._tested = [0] * (len(nets) - 1)  # batches of each test net since its sources were at one position
        self._dealt = [False] * (len(nets) - 1)
        self._reduction: Reduction | None = None
        self.division: Division | None = None
        """How the nets are divided over the processes, where the solver says so."""
        join_layers(nets[0], param, group)
        if self.several:
            _check_rule(rule)
            _check_writers(nets)
            _tell_of_undivided(nets[0])
            self.deal_tests()

    @property
    def seeds(self) -> bool:
        """Whether the random numbers of each iteration are derived from `seed`."""
        return self.several or self.param.global_dropout

    @property
    def several(self) -> bool:
        """Whether there are other processes."""
        return self.group.size > 1

    @property
    def records(self) -> int:
        """Records per pass over all processes, of the source that reads the most."""
        return max([_batch(source) for source in self._nets[0].sources.values()], default=0) * self.streams

    @property
    def streams(self) -> int:
        """The number of processes that read records of their own in training."""
        return self.group.size if self.division is None else self.division.streams

    # -- at the start ----------------------------------------------------------------------------------------------

    def equalize(self) -> None:
        """Copy the weights and data positions of process 0 to all processes."""
        if not self.several:
            return
        places = self.group.share([source.position() for _, source in kept.sources(self._nets)])
        for (_, source), place in zip(kept.sources(self._nets), places, strict=True):
            if source.position() != place:
                source.seek(place)
        self.send_weights()
        self.division = divide(self.param, self.group, self._nets)
        self.deal_tests()

    def deal_tests(self) -> None:
        """Start to distribute the batches of the test nets over the processes, from the current positions of their
        sources.
        """
        if not self.several:
            return
        for index, net in enumerate(self._nets[1:]):
            self._tested[index], self._dealt[index] = 0, not modes(self.param) and _can_be_dealt(net)
            if self._dealt[index]:
                for source in net.sources.values():
                    source.deal(self.group.rank, self.group.size)

    def send_weights(self) -> None:
        """Copy all blobs of process 0's nets, trained or not, to the other processes; not those that are cut."""
        blobs = {id(blob): blob for net in self._nets for layer in net.layers for blob in layer.param_blobs}
        self._send(blob.parameter for blob in blobs.values() if not hasattr(blob.parameter, "whole_shape"))
        for blob in blobs.values():
            blob.advance()

    def _send(self, tensors: Iterable[Tensor]) -> None:
        with torch.no_grad():
            self.group.send([tensor.detach() for tensor in tensors])

    # -- in each iteration -----------------------------------------------------------------------------------------

    def begin(self, iteration: int) -> None:
        """Seed the random generators of an iteration from the run's seed, the iteration and the process."""
        if self.seeds:
            own = 0 if self.param.global_dropout else self.group.rank
            torch.manual_seed(_mixed(self.seed, iteration, own))

    @property
    def reduction(self) -> Reduction:
        """Averages the gradients; created on first access."""
        if self._reduction is None:
            apart = () if self.division is None else self.division.blobs
            self._reduction = Reduction(self.group, self._nets[0], apart)
        return self._reduction

    def before_pass(self, last: bool) -> None:
        """If layer_wise_reduce is set, send gradients during the backward pass of an iteration's last pass."""
        if last and self.several and self.param.layer_wise_reduce:
            self.reduction.arm()

    def reduce(self, iteration: int, loss: float, requests: set[str]) -> float:
        """Average the gradients; returns the mean loss. Also collects the requests of all processes in `agreed`."""
        if not self.several:
            return loss
        check = self._checksum() if iteration % _CHECK_EVERY == 0 else 0.0
        asked = [float(name in requests) for name in REQUESTS]
        requests.clear()
        mean, agreed_check, *flags = self.reduction.run([loss, check, *asked])
        if abs(agreed_check - check) > 0.1:
            raise ParallelError(
                f"rank {self.group.rank}: iteration {iteration}: the weights differ from those of the other processes. "
                "Something has changed them in some processes only, such as a callback; continue from a snapshot"
            )
        if self.division is not None:
            self.division.finish_gradients()
        self.agreed = {name for name, flag in zip(REQUESTS, flags, strict=True) if flag > 0}
        return mean

    def agree(self, requests: set[str]) -> None:
        """Collect the requests of all processes in `agreed`, between two iterations."""
        if self.several:
            found = self.group.gather(set(requests))
            requests.clear()
            self.agreed = set().union(*found)

    def meets(self, action: str, requests: set[str]) -> bool:
        """Whether to handle a request now: with several processes one that all agreed on, otherwise one that was
        made.
        """
        asked = action in (self.agreed if self.several else requests)
        requests -= set() if self.several else {action}
        return asked

    def first(self, name: str | None) -> str | None:
        """Return `name` of the first process in which it is set; None if it is set in none."""
        return next(filter(None, self.group.gather(name)), None)

    def mean(self, number: float) -> float:
        """The mean of a number over the processes."""
        return sum(self.group.gather(number)) / self.group.size

    def _checksum(self) -> float:
        """Return a checksum from 0 to 4095 of the bits of all weights."""
        total = 0
        for entry in self._nets[0].learnable:
            if entry.tensor.requires_grad and not hasattr(entry.tensor, "whole_shape"):
                bits = entry.tensor.detach().contiguous().view(torch.int32)
                total += int(bits.sum(dtype=torch.int64))
        return float(total % 4093 % _CHECK_VALUES)

    def mean_outputs(self, outputs: dict[str, list[float]]) -> dict[str, list[float]]:
        """Average the train net's outputs over the processes.

        An output whose size differs between processes is not averaged.
        """
        if not self.several:
            return outputs
        found = self.group.gather(outputs)
        return {
            name: [sum(column) / len(found) for column in zip(*(each[name] for each in found), strict=True)]
            if len({len(each[name]) for each in found}) == 1
            else values
            for name, values in outputs.items()
        }

    # -- divided nets ----------------------------------------------------------------------------------------------

    def squares(self) -> float:
        """The sum of the squares of all gradients."""
        diffs = [entry.blob.present_diff() for entry in self._nets[0].learnable]
        lengths = [0.0 if diff is None else length(diff) for diff in diffs]
        return sum(each**2 for each in lengths) if self.division is None else self.division.squares(lengths)

    def norm(self, index: int) -> Callable[[Tensor], float]:
        """Return a function that computes the L2 norm of learnable blob `index`. This process may hold a part of it."""
        return length if self.division is None else self.division.norm(index)

    @contextmanager
    def whole(self, solver: Any, restore: bool = False) -> Iterator[None]:
        """Give a solver whose net is divided whole blobs inside the block: in process 0, or with `restore` in all.

        With `restore`, changes that the block makes to the blobs are kept. Does nothing if the net is not divided.
        """
        if self.division is None:
            yield
            return
        with self.division.assembled(solver, restore or not self.group.rank, restore):
            yield

    # -- tests -----------------------------------------------------------------------------------------------------

    def share_statistics(self) -> None:
        """Copy the batch statistics of process 0, which snapshots store, to all processes."""
        if self.several and not (self.division is not None and self.division.staged):
            learnable = self._nets[0].learnable
            self._send(entry.tensor for entry in learnable if not isinstance(entry.tensor, nn.Parameter))

    def batches(self, index: int, count: int, run: Callable[[], Any], stopped: Callable[[], bool]) -> list[Any] | None:
        """Return the results of `run` for `count` batches of a test net, in order; None if `stopped` returns True.

        Process r runs the batches whose number, counted over all tests, is r modulo the number of processes. If a net
        cannot skip batches, every process runs all of them.
        """
        size = self.group.size if self._dealt[index] else 1
        own: list[tuple[int, Any]] = []
        for first in range(0, count, size):
            if stopped():
                return None
            part = range(first, min(first + size, count))
            own += [
                (place, run()) for place in part if size == 1 or self._owner(index, place - first) == self.group.rank
            ]
            self._tested[index] += len(part)
        if size == 1:
            return [result for _, result in own]
        found = dict(pair for pairs in self.group.gather(own) for pair in pairs)
        return [found[place] for place in sorted(found)]

    def _owner(self, index: int, ahead: int = 0) -> int:
        """Return the process that runs the test batch `ahead` of the next one."""
        return (self._tested[index] + ahead) % self.group.size

    @contextmanager
    def testing_aside(self, index: int) -> Iterator[None]:
        """Do not count the test batches that the block runs.

        The block must restore the positions of the sources before it ends.
        """
        before = self._tested[index]
        try:
            yield
        finally:
            self._tested[index] = before
            if self._dealt[index]:
                begun = before > self.group.rank
                for source in self._nets[1 + index].sources.values():
                    source.deal(self.group.size - 1 if begun else self.group.rank, self.group.size)

    # -- snapshots -------------------------------------------------------------------------------------------------

    def places(self) -> list[Place]:
        """Return the positions of the data sources, for all processes as if they were one."""
        own = [
            Place(net, source.name, source.position(), _batch(source) * (1 if net else self.streams))
            for net, source in kept.sources(self._nets)
        ]
        found = self.group.gather(own)
        return [found[self._holder(places[0].net)][number] for number, places in enumerate(zip(*found, strict=True))]

    def buffers(self) -> list[Buffer]:
        """Return the buffers of the layers of every process."""
        own = [(net, layer.name, name, value.cpu().numpy()) for net, layer, name, value in kept.buffers(self._nets)]
        found = self.group.gather(own) if own else []
        return [Buffer(process, *each) for process, held in enumerate(found) for each in held]

    def resumed(self, state: Any) -> None:
        """Continue with the seed of a SolverState. Warns of the effects if the number of processes has changed."""
        if state.HasField("run_seed"):
            self.seed = state.run_seed
        if state.processes == self.streams:
            return
        before = {source.layer: source.batch for source in state.source if source.net == 0 and source.batch}
        now = {source.name: _batch(source) * self.streams for source in self._nets[0].sources.values()}
        other = [
            f"{name} {now[name]}, before {count}" for name, count in before.items() if now.get(name, count) != count
        ]
        data = f"steps take other numbers of records ({', '.join(other)})" if other else "steps take the same records"
        log.warning(
            "snapshot.py",
            f"the state is of {state.processes} process(es), this run has {self.streams}: weights, histories and "
            f"positions in the data are restored exactly, and {data}; random numbers of layers such as Dropout differ",
        )

    def _holder(self, net: int) -> int:
        """Return the process whose sources of this net are at the position that all processes together have reached."""
        if net == 0 or not self._dealt[net - 1] or not self._tested[net - 1]:
            return 0
        return self._owner(net - 1, -1)


def common_seed(group: Group, param: Any) -> int:
    """Return the seed of a run, at least 0: the solver's `random_seed`, or one that the processes draw together.

    The random generators are seeded with it, so that all processes fill blobs and shuffle in the same way.
    """
    if param.random_seed >= 0:
        mode.set_random_seed(param.random_seed)
        return int(param.random_seed) % (1 << 31)
    if group.size == 1 and not param.global_dropout:
        return 0
    seed = group.share(int(torch.randint(1 << 31, ())))
    mode.set_random_seed(seed)
    return seed


def _check_rule(rule: Rule) -> None:
    if not rule.parallel:
        raise SolverError(
            f'solver type "{type(rule).__name__}": uses a line search, which needs all data in one process; train '
            "with one process, or with another type"
        )


def _check_writers(nets: Sequence[Net]) -> None:
    """Raise a SolverError for a layer that would write the same file in every process."""
    for net in nets:
        for layer in net.layers:
            if isinstance(layer, HDF5Output):
                raise SolverError(
                    f'layer "{layer.name}" (HDF5Output): every process would write "{layer.path}"; train with one '
                    "process, or remove the layer"
                )


def _tell_of_undivided(net: Net) -> None:
    """Warn of sources without a batch size, if batch sizes are divided by the number of processes."""
    names = [f'"{source.name}" ({source.type})' for source in net.sources.values() if not _batch(source)]
    if names and shard.divisor() > 1:
        fact = f"has no effect on {', '.join(names)}, which have no batch_size: each process takes the whole shape"
        log.warning("parallel.py", f"-divide_batch {fact}")


def _can_be_dealt(net: Net) -> bool:
    """Whether the batches of the net are independent and its sources can skip batches."""
    sources = net.sources.values()
    state = Effects.BUFFERS | Effects.CALLS | Effects.RANDOM
    layers = [layer for layer in net.layers if not isinstance(layer, Source)]
    if any(layer.effects_now & state for layer in layers) or any(kept.buffers([net])):
        return False
    return all(source.user_fed or source.deal(0, 1) for source in sources)


def _batch(source: Source) -> int:
    return int(getattr(source, "batch_size", 0) or 0)


def _mixed(seed: int, iteration: int, process: int) -> int:
    """Derive a seed from three numbers."""
    text = f"{seed} {iteration} {process}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "little")
