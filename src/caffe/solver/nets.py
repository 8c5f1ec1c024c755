"""Creates the nets of a solver: which nets the SolverParameter asks for, their states, and their initial weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from caffe import log
from caffe.errors import NetError, SolverError
from caffe.net import Net, store
from caffe.net.plan.precision import dtype_of
from caffe.parallel import group as parallel
from caffe.proto import caffe_pb2, hdf5, upgrade
from caffe.solver.cutting import cut_while_building

__all__ = ["test_nets", "train_net", "train_spec"]

_TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")


def train_spec(param: Any) -> Any:
    """Return a copy of the NetParameter of the train net."""
    spec = caffe_pb2.NetParameter()
    for field in _TRAIN_FIELDS:
        if param.HasField(field):
            source = getattr(param, field)
            spec.CopyFrom(upgrade.read_net(source) if isinstance(source, str) else source)
    return spec


def train_net(param: Any, device: torch.device | str | None, python_layers: bool | None) -> Net:
    """Create the train net. The net's own `state` overrides the phase TRAIN, and `train_state` overrides both."""
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
    with _named("train net"), cut_while_building(param, parallel.current(), train_spec(param)):
        net = _create(getattr(param, field), caffe_pb2.TRAIN, param.train_state, param, device, python_layers)
    if param.snapshot_format == param.HDF5:
        try:
            hdf5.check_names(param.snapshot_prefix, {layer.name: layer.tensors for layer in net.layers})
        except BaseException:
            net.close()
            raise
    return net


def test_nets(param: Any, train_net: Net, device: torch.device | str | None, python_layers: bool | None) -> list[Net]:
    """Create the test nets: every test_net_param, every test_net, and the general net for each remaining test_iter.

    Raises NetError for a test net that has blobs but no layer in common with `train_net`, because a test net takes its
    weights from the train net.
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
            spec = upgrade.read_net(source) if isinstance(source, str) else source
            with _named(f"test net #{index}"), cut_while_building(param, parallel.current(), spec, train_net):
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
    """Append the role of the net in the solver to its errors, because train and test net often come from one file."""
    try:
        yield
    except NetError as error:
        raise error.reworded(f"{error} (in the solver's {which})") from error.__cause__


def _check_shared(net: Net, train_net: Net, index: int, loaded: bool) -> None:
    """Check that a test net shares layers with the train net; raises NetError if it shares none.

    A warning lists the layers that the train net does not have, unless `loaded` says that the solver loads weights from
    files.
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
    """Yield the source of each test net, a path or a NetParameter, and its name in the log."""
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
    """Create a net in the given state and load the solver's `weights`."""
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
        if param.recompute and phase == caffe_pb2.TRAIN:
            net.slim(recompute=True)
    except BaseException:
        net.close()
        raise
    return net
