"""The nets of a solver: which ones the SolverParameter asks for, in which states and with which first weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from caffe import log
from caffe.errors import NetError, SolverError
from caffe.net import Net, store
from caffe.net.plan.precision import dtype_of
from caffe.proto import caffe_pb2, hdf5, upgrade

__all__ = ["test_nets", "train_net", "train_spec"]

_TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")


def train_spec(param: Any) -> Any:
    """A copy of the NetParameter of the train net."""
    spec = caffe_pb2.NetParameter()
    for field in _TRAIN_FIELDS:
        if param.HasField(field):
            source = getattr(param, field)
            spec.CopyFrom(upgrade.read_net(source) if isinstance(source, str) else source)
    return spec


def train_net(param: Any, device: torch.device | str | None, python_layers: bool | None) -> Net:
    """The net to train. Its state is TRAIN, overridden by the net's own `state`, and that by `train_state`."""
    given = [name for name in _TRAIN_FIELDS if param.HasField(name)]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise SolverError(f"the solver must name its train net by one of {', '.join(_TRAIN_FIELDS)}; it has {found}")
    (field,) = given
    place, kind = {
        "train_net_param": ("solver.cpp:88", "specified in train_net_param."),
        "train_net": ("solver.cpp:92", f"from train_net file: {param.train_net}"),
        "net_param": ("solver.cpp:97", "specified in net_param."),
        "net": ("solver.cpp:102", f"from net file: {param.net}"),
    }[field]
    log.info(place, f"Creating training net {kind}")
    with _named("train net"):
        net = _create(getattr(param, field), caffe_pb2.TRAIN, param.train_state, param, device, python_layers)
    if param.snapshot_format == param.HDF5:
        try:
            hdf5.check_names(param.snapshot_prefix, {layer.name: layer.tensors for layer in net.layers})
        except BaseException:
            net.close()
            raise
    return net


def test_nets(param: Any, train_net: Net, device: torch.device | str | None, python_layers: bool | None) -> list[Net]:
    """The nets to test: every test_net_param, every test_net, and the general net for each test_iter that is left.

    Raises NetError for one that has blobs, but no layer in common with `train_net`, whose weights it is tested with.
    """
    sources = list(_test_sources(param))
    if param.test_state and len(param.test_state) != len(sources):
        raise SolverError(
            f"test_state must be left out or given once per test net: {len(param.test_state)} given, "
            f"{len(sources)} test nets"
        )
    if sources and param.test_interval <= 0:
        raise SolverError(
            f"test_interval is {param.test_interval}, but the solver has {len(sources)} test net(s): set test_interval "
            "above 0, or leave out test_iter and the test nets"
        )
    nets: list[Net] = []
    try:
        for index, (source, kind) in enumerate(sources):
            state = param.test_state[index] if param.test_state else caffe_pb2.NetState()
            log.info("solver.cpp:190", f"Creating test net (#{index}) specified by {kind}")
            with _named(f"test net #{index}"):
                net = _create(source, caffe_pb2.TEST, state, param, device, python_layers)
            nets.append(net)
            net.debug_info = param.debug_info
            _check_shared(net, train_net, index, loaded=bool(param.weights))
    except BaseException:
        for net in nets:
            net.close()
        raise
    return nets


@contextmanager
def _named(which: str) -> Iterator[None]:
    """Say in the errors of a net which of the solver's nets it is: both are often made from one file."""
    try:
        yield
    except NetError as error:
        raise error.reworded(f"{error} (in the solver's {which})") from error.__cause__


def _check_shared(net: Net, train_net: Net, index: int, loaded: bool) -> None:
    """Check that a test net finds its weights in the train net; raises NetError if it finds none there.

    A warning lists layers that the train net lacks, unless the solver has `loaded` weights from a file.
    """
    try:
        store.require_common(net, train_net)
    except NetError as error:
        raise NetError(f"Test net #{index} takes its weights from the train net: {error}") from None
    missing = store.without_weights(net, train_net)
    if missing and not loaded:
        fact = f"the train net has no weights for {store.type_list(missing)}: they stay untrained"
        log.warning("solver.cpp", f"Test net #{index}: {fact}")


def _test_sources(param: Any) -> Iterator[tuple[Any, str]]:
    """What each test net is made from, a path or a NetParameter, and how the log names it."""
    named = len(param.test_net_param) + len(param.test_net)
    general = param.HasField("net") or param.HasField("net_param")
    if len(param.test_iter) < named or (not general and len(param.test_iter) != named):
        raise SolverError(f"test_iter must be given once per test net: {len(param.test_iter)} given, {named} test nets")
    for net_param in param.test_net_param:
        yield net_param, "test_net_param"
    for path in param.test_net:
        yield path, f"test_net file: {path}"
    for _ in range(len(param.test_iter) - named):
        yield (param.net_param, "net_param") if param.HasField("net_param") else (param.net, f"net file: {param.net}")


def _create(
    source: Any, phase: int, state: Any, param: Any, device: torch.device | str | None, python_layers: bool | None
) -> Net:
    """A net in the given state, with the solver's `weights` loaded."""
    own = (upgrade.read_net(source) if isinstance(source, str) else source).state
    if state.HasField("phase"):
        phase = state.phase
    elif own.HasField("phase"):
        phase = own.phase
    level = state.level if state.HasField("level") else None
    precision = dtype_of(param.precision)
    stages = list(state.stage)
    net = Net(source, phase, level, stages, device=device, precision=precision, python_layers=python_layers)
    try:
        paths = [path.strip() for paths in param.weights for path in paths.split(",")]
        for path in paths:
            log.info("solver.cpp:72", f"Finetuning from {path}")
        store.load(net, paths)
    except BaseException:
        net.close()
        raise
    return net
