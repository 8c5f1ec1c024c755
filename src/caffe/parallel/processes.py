"""A group of several processes, using torch.distributed: NCCL between GPUs, gloo between CPUs."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from caffe.errors import ParallelError
from caffe.parallel.group import Group, Pending

__all__ = ["LIMIT", "Processes", "backend_for"]

Value = TypeVar("Value")
LIMIT = 600
"""Default time limit, in seconds, for waiting for other processes."""
_ASK = 3.0  # seconds to wait for a lost process's reason
_SAME = 1.0  # seconds to wait for an error of process 0 that is the same
_POLL = 0.05


def backend_for(device: torch.device) -> str:
    """Return the backend of torch.distributed for tensors on `device`."""
    return "nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"


class Processes(Group):
    """Processes that connect through a store: number `rank` of `size`.

    Every wait ends after `limit` seconds with an error that names the missing processes.
    """

    def __init__(
        self, store: dist.Store, rank: int, size: int, device: torch.device | str = "cpu", limit: float = LIMIT
    ) -> None:
        if dist.is_initialized():
            raise ParallelError("this process belongs to a group already; a process trains in one group at a time")
        self.rank, self.size, self.limit = rank, size, limit
        self.host = socket.gethostname()
        self._device = torch.device(device)
        self._lost: ParallelError | None = None
        try:
            token = self._meet(store)
        except RuntimeError as error:
            if isinstance(error, ParallelError):
                raise
            raise ParallelError(f"{self}: cannot reach the store that connects the processes: {error}") from error
        self._store = dist.PrefixStore(f"caffe/{token}", store)
        own, wait = dist.PrefixStore(token, store), timedelta(seconds=limit)
        with self.noticing("connecting to the others"):
            dist.init_process_group(backend_for(self._device), store=own, rank=rank, world_size=size, timeout=wait)

    def _meet(self, store: dist.Store) -> str:
        """Wait until every process is connected; returns a token that processes of an earlier attempt do not have.

        A launcher that restarts the processes can keep the store. Process 0 publishes a token, the others answer with
        random words, and process 0 confirms these words. Raises ParallelError that names the missing processes.
        """
        store.set_timeout(timedelta(seconds=self.limit))
        deadline, word, token = time.monotonic() + self.limit, secrets.token_hex(8), ""
        if not self.rank:
            token = word
            store.set("caffe/offer", token)
        while time.monotonic() < deadline:
            if self.rank and store.check(["caffe/offer"]) and (offer := store.get("caffe/offer").decode()) != token:
                token = offer
                store.set(f"caffe/{token}/word/{self.rank}", word)
            if not self.rank and not self._silent(store, token):
                words = [store.get(f"caffe/{token}/word/{other}").decode() for other in range(1, self.size)]
                store.set(f"caffe/{token}/go", " ".join([word, *words]))
            if token and store.check([f"caffe/{token}/go"]) and word in store.get(f"caffe/{token}/go").decode():
                return token
            time.sleep(_POLL)
        absent = self._silent(store, token) if token else [0]
        raise ParallelError(
            f"{self}: waited {self.limit:g} s for rank {_listed(absent or [0])} of {self.size}, which did not connect; "
            "check its errors, and whether its machine reaches this one (MASTER_ADDR, firewall)"
        )

    def _silent(self, store: dist.Store, token: str) -> list[int]:
        """Return the processes that have not answered the token."""
        return [rank for rank in range(1, self.size) if not store.check([f"caffe/{token}/word/{rank}"])]

    # -- exchanging ------------------------------------------------------------------------------------------------

    def start_sum(self, values: Tensor) -> Pending:
        with self.noticing("adding up gradients"):
            return _Sum(self, dist.all_reduce(values, async_op=True))

    def send(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            dense = tensor.detach().to(self._device).contiguous()
            with self.noticing("sending weights"):
                dist.broadcast(dense, 0)
            if self.rank:
                tensor.copy_(dense)

    def gather(self, value: Value) -> list[Value]:
        values: list[Any] = [None] * self.size
        with self.noticing("exchanging states"):
            dist.all_gather_object(values, value)
        return values

    def share(self, value: Value) -> Value:
        values = [value]
        with self.noticing("sending a state"):
            dist.broadcast_object_list(values, 0, device=self._device if self._device.type == "cuda" else None)
        return values[0]

    def leave(self) -> None:
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()

    # -- faults ----------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        if error is self._lost:
            return
        with suppress(RuntimeError):
            self._store.set_timeout(timedelta(seconds=_ASK))
            self._store.set(f"ended/{self.rank}", self._reason(error))

    def _reason(self, error: BaseException) -> str:
        return f"{str(error) or type(error).__name__} ({self.host})"

    def repeats_first(self, error: BaseException) -> bool:
        if not self.rank:
            return False
        deadline = time.monotonic() + _SAME
        with suppress(RuntimeError):
            while not self._store.check(["ended/0"]) and time.monotonic() < deadline:
                time.sleep(_POLL)
            return self._store.check(["ended/0"]) and self._store.get("ended/0").decode() == self._reason(error)
        return False

    @contextmanager
    def noticing(self, action: str) -> Iterator[None]:
        """Turn an error of torch.distributed into one that names the lost process, and its reason if it sent one."""
        begin = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            waited = time.monotonic() - begin
            fact = str(error).partition("\n")[0].partition(". This is typically")[0].rpartition("] ")[2]
            self._lost = ParallelError(self._explained(action, waited, fact))
            raise self._lost from error

    def _explained(self, action: str, waited: float, fact: str) -> str:
        start = f"{self}: training ends, without a snapshot, while {action}: "
        if reasons := self._reasons():
            return start + "; ".join(f"rank {rank} ended: {reason}" for rank, reason in reasons.items())
        if waited < 0.9 * self.limit:
            return f"{start}another process ended without a reason, so it was killed or crashed ({fact})"
        with suppress(RuntimeError):
            self._store.set(f"waited/{self.rank}", "")
            if missing := self._absent("waited", _ASK):
                return f"{start}rank {_listed(missing)} did not answer for {waited:.0f} s ({fact})"
        return f"{start}no answer for {waited:.0f} s ({fact})"

    def _reasons(self) -> dict[int, str]:
        """Return the reasons that ended processes sent, after waiting for them briefly."""
        deadline = time.monotonic() + _ASK
        found: dict[int, str] = {}
        with suppress(RuntimeError):
            self._store.set_timeout(timedelta(seconds=_ASK))
            while not found and time.monotonic() < deadline:
                told = [rank for rank in range(self.size) if self._store.check([f"ended/{rank}"])]
                found = {rank: self._store.get(f"ended/{rank}").decode() for rank in told if rank != self.rank}
                time.sleep(_POLL)
        return found

    def _absent(self, key: str, limit: float) -> list[int]:
        """Return the processes that have not set the key after `limit` seconds."""
        deadline = time.monotonic() + limit
        absent = list(range(self.size))
        while absent:
            absent = [rank for rank in absent if not self._store.check([f"{key}/{rank}"])]
            if time.monotonic() > deadline:
                break
            if absent:
                time.sleep(_POLL)
        return absent

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.size} on {self.host}"


class _Sum(Pending):
    def __init__(self, group: Processes, work: Any) -> None:
        self._group, self._work = group, work

    def wait(self) -> None:
        with self._group.noticing("adding up gradients"):
            self._work.wait()


def _listed(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks))
