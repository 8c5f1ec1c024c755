"""The environment variables of a launcher: torchrun, or `caffe train --procs`, which sets the same ones."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from caffe import log
from caffe.errors import ParallelError
from caffe.parallel.group import ALONE, Group
from caffe.parallel.processes import LIMIT, Processes

__all__ = ["LAUNCHER", "join", "launched", "local_rank", "rank", "watch_launcher"]

LAUNCHER = "CAFFE_LAUNCHER"
"""The variable with the process id of `caffe train --procs`."""
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SIOCGIFADDR = 0x8915
_LOOK = 0.5  # seconds between checks that the launcher still runs


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return _number("WORLD_SIZE", 1) > 1


def rank() -> int:
    """Return the rank of this process, 0 if it is alone."""
    return _number("RANK", 0) if launched() else 0


def local_rank() -> int:
    """Return the rank of this process among those of its machine."""
    return _number("LOCAL_RANK", 0) if launched() else 0


def join(device: torch.device | str = "cpu", limit: float = LIMIT) -> Group:
    """Connect to the group that the launcher's environment describes. Without a launcher, the group has one process.

    Raises ParallelError for an incomplete environment, and for processes that do not connect.
    """
    if not launched():
        return ALONE
    missing = [name for name in _NEEDED if not os.environ.get(name)]
    if missing:
        raise ParallelError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set; start the processes with "
            "torchrun, or with caffe train --procs N"
        )
    if not 0 <= rank() < _number("WORLD_SIZE", 1):
        raise ParallelError(
            f"RANK is {rank()}, expected 0 to {_number('WORLD_SIZE', 1) - 1}, since WORLD_SIZE is "
            f"{os.environ['WORLD_SIZE']}; give each process a number of its own, as torchrun does"
        )
    watch_launcher()
    _share_processors()
    _choose_interface()
    try:
        store, number, size = next(iter(dist.rendezvous("env://", timeout=timedelta(seconds=limit))))
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        fact = str(error).partition("\n")[0]
        raise ParallelError(
            f"rank {rank()}: cannot connect to the other processes at {place}: {fact}; check that all are started, and "
            "that MASTER_ADDR and MASTER_PORT name a free port of process 0's machine which this one reaches"
        ) from error
    return Processes(store, number, size, device, limit)


def watch_launcher() -> None:
    """End this process soon after its launcher has ended, because a killed launcher cannot end it."""
    parent = os.getppid()
    known = os.environ.get(LAUNCHER)
    if known is not None and int(known) != parent:
        os._exit(1)  # the launcher ended before this check
    if known is not None or "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_end_after, args=(parent,), name="caffe launcher watch", daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)  # without a message: standard error can be a pipe that is no longer read


def _share_processors() -> None:
    """Divide the processors of a machine among its processes. torchrun sets one thread, unless OMP_NUM_THREADS is
    set.
    """
    if LAUNCHER in os.environ or os.environ.get("OMP_NUM_THREADS", "1") != "1":
        return
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, available // _number("LOCAL_WORLD_SIZE", 1)))


def _choose_interface() -> None:
    """Select the network interface to the other machines. By default gloo uses the one of this machine's host name.

    Raises ParallelError if that interface is the loopback, which does not reach other machines.
    """
    if "GLOO_SOCKET_IFNAME" in os.environ or _number("LOCAL_WORLD_SIZE", 1) == _number("WORLD_SIZE", 1):
        return
    place = os.environ["MASTER_ADDR"]
    name = _interface_to(place)
    if name == "lo":
        raise ParallelError(
            f'rank {rank()}: MASTER_ADDR "{place}" resolves to the loopback interface, which does not reach other '
            "machines; use an address of the network, or set GLOO_SOCKET_IFNAME to its interface (see ip addr)"
        )
    if name:
        os.environ["GLOO_SOCKET_IFNAME"] = name
        log.info("parallel.py", f"gloo uses the interface {name}, which reaches {place}")


def _interface_to(host: str) -> str:
    """Return the name of the interface from which `host` is reached; empty if unknown."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
            mine = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                if _address(probe, name) == mine:
                    return name
    except OSError:
        pass
    return ""


def _address(probe: socket.socket, name: str) -> str:
    """Return the IPv4 address of an interface; empty if it has none or the system does not report it."""
    try:
        import fcntl

        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name[:15].encode()))
    except (OSError, ImportError):
        return ""
    return socket.inet_ntoa(answer[20:24])


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise ParallelError(f'the environment variable {name} is "{text}", expected a whole number') from None
