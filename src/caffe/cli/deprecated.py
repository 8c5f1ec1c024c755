"""Caffe's deprecated executables, which only name the commands that replace them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NoReturn

from caffe.cli.command import DEPRECATED, command
from caffe.cli.display import Display
from caffe.errors import CaffeError


@command(task=DEPRECATED, arguments="[ARGUMENT]...")
def train_net(flags: SimpleNamespace, display: Display) -> None:
    """Deprecated: prints how to call `caffe train` instead.

    caffe train -solver solver.prototxt -snapshot net_iter_5000.solverstate
    """
    _refuse("train", ["-solver", "[-snapshot"], flags.arguments)


@command(task=DEPRECATED, arguments="[ARGUMENT]...")
def finetune_net(flags: SimpleNamespace, display: Display) -> None:
    """Deprecated: prints how to call `caffe train -weights` instead.

    caffe train -solver solver.prototxt -weights net.caffemodel
    """
    _refuse("train", ["-solver", "-weights"], flags.arguments)


@command(task=DEPRECATED, arguments="[ARGUMENT]...")
def test_net(flags: SimpleNamespace, display: Display) -> None:
    """Deprecated: prints how to call `caffe test` instead.

    caffe test -model net.prototxt -weights net.caffemodel -iterations 100
    """
    _refuse("test", ["-model", "-weights", "[-iterations", "[GPU", "[-gpu"], flags.arguments)


@command(task=DEPRECATED, arguments="[ARGUMENT]...")
def net_speed_benchmark(flags: SimpleNamespace, display: Display) -> None:
    """Deprecated: prints how to call `caffe time` instead.

    caffe time -model net.prototxt -iterations 50
    """
    _refuse("time", ["-model", "[-iterations", "[GPU", "[-gpu"], flags.arguments)


def _refuse(name: str, order: list[str], given: list[str]) -> NoReturn:
    """Raise the error that names the command. `order` gives the flag of each old argument; "[" marks optional ones."""
    parts = []
    for flag, value in zip(order, [*given, *[""] * len(order)], strict=False):
        plain = flag.removeprefix("[")
        if plain == "GPU":
            parts += ["-gpu 0"] if value == "GPU" and len(given) == order.index(flag) + 1 else []
        elif value and (plain != "-gpu" or "GPU" in given):
            parts.append(f"{plain} {value}")
        elif not flag.startswith("["):
            parts.append(f"{plain} FILE")
    raise CaffeError(f"Deprecated. Use: caffe {' '.join([name, *parts])}")
