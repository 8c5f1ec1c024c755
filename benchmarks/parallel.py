"""Training steps with two processes of one thread: ours, PyTorch's DDP, and our single process with two threads.

    python -m benchmarks.parallel [lenet,cifar_quick,googlenet] [ROUNDS]

All train the same net on the same batch in memory. They take turns, so that a change of the machine's load affects all
of them. Images per second are the sum over the processes; the batch size is per process. "Sent" are the bytes that a
process sends in a step, counted by the system for all its connections, relative to those of a ring: the bytes of the
weights times 2 (n - 1) / n. Five rounds take 3 to 5 minutes on a machine with two cores and nothing else to do.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from benchmarks.arguments import check_names, words
from benchmarks.plain_torch import PlainNet
from benchmarks.workloads import NETS, prepare
from caffe.parallel import environment, group
from caffe.parallel.launch import launch
from caffe.proto import upgrade, weights
from caffe.solver import get_solver

SECONDS = 1.0
_BYTES_SENT = 200  # the place of tcpi_bytes_sent in Linux' struct tcp_info, since version 4.19


def main() -> int:
    """Measure these nets, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "nets",
        nargs="?",
        type=words,
        default=["lenet", "cifar_quick", "googlenet"],
        help="with commas between",
    )
    parser.add_argument("rounds", nargs="?", type=int, default=7, help="turns of each; default: 7")
    given = parser.parse_args()
    check_names(parser, "net", given.nets, NETS)
    for name in given.nets:
        with tempfile.TemporaryDirectory() as folder:
            prepare(NETS[name], Path(folder), train=True)
            code = launch(["-m", "benchmarks.parallel", "worker", name, folder, str(given.rounds)], 2, 2)
            if code:
                return code
    return 0


def worker(name: str, folder: str, rounds: str) -> None:
    """Measure in this process of two; process 0 prints."""
    place, processes = Path(folder), environment.join(limit=300)
    ours, alone, theirs = _ours(place, processes), _ours(place, group.ALONE), _ddp(place)
    engines = {"ours, 2 x 1 thread": (ours, 2), "DDP, 2 x 1 thread": (theirs, 2), "ours, 1 x 2 threads": (alone, 1)}
    count = processes.share(max(1, round(SECONDS / _seconds(ours, 3))))
    found: dict[str, list[float]] = {engine: [] for engine in engines}
    sent = dict.fromkeys(engines, 0.0)
    for _ in range(int(rounds)):
        for engine, (step, size) in engines.items():
            processes.gather(0)  # a barrier
            torch.set_num_threads(1 if size == 2 else 2)
            if size == 2 or not processes.rank:
                before = _sent()
                found[engine].append(size * NETS[name].shape[0] / _seconds(step, count))
                sent[engine] = (_sent() - before) / (count + 1)
            processes.gather(0)
            torch.set_num_threads(1)
    if not processes.rank:
        _show(name, found, sent, _weights(place))
    processes.leave()


def _show(name: str, found: dict[str, list[float]], sent: dict[str, float], size: int) -> None:
    middle = {engine: statistics.median(speeds) for engine, speeds in found.items()}
    ours = middle["ours, 2 x 1 thread"]
    for engine, speeds in found.items():
        shown = ", ".join(f"{speed:.1f}" for speed in speeds)
        more = f"sent {sent[engine] / size:.4f} x weights, " if sent[engine] else ""
        print(
            f"{name:12} {engine:20} {middle[engine]:8.1f} images/s, {more}ours is {ours / middle[engine]:.2f} times as "
            f"fast   ({shown})",
            flush=True,
        )


def _weights(folder: Path) -> int:
    """The bytes of a net's weights, which a ring of two processes sends in a step: 2 (n - 1) / n = 1."""
    blobs = weights.read(folder / "net.caffemodel")
    return sum(4 * blob.size for held in blobs.values() for blob in held)


def _sent() -> int:
    """Bytes that this process has sent on all its TCP connections (Linux)."""
    total = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the folder's own entry is gone by now
            if not os.readlink(link).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(link.name))) as connection:
                if connection.type == socket.SOCK_STREAM and connection.family in (socket.AF_INET, socket.AF_INET6):
                    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    total += struct.unpack_from("Q", info, _BYTES_SENT)[0]
    return total


def _ours(folder: Path, processes: group.Group) -> Callable[[], Any]:
    with group.joined(processes):
        solver = get_solver(str(folder / "solver.prototxt"))
    solver.net.copy_from(folder / "net.caffemodel")
    solver.net.slim()
    for name in ("data", "label"):
        solver.net.blobs[name].data[...] = np.load(folder / f"{name}.npy")
    return lambda: solver.step(1)


def _ddp(folder: Path) -> Callable[[], Any]:
    param = upgrade.read_net(folder / "net.prototxt")
    net = DistributedDataParallel(PlainNet(param, weights.read(folder / "net.caffemodel")).train())
    data, label = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("data", "label"))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0001, momentum=0.9, weight_decay=0.0005)

    def step() -> float:
        optimizer.zero_grad()
        loss = net(data, label)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _seconds(step: Callable[[], Any], count: int) -> float:
    """Return the median time of some steps, after a warm-up step."""
    step()
    begin = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - begin) / count


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(*sys.argv[2:])
    else:
        raise SystemExit(main())
