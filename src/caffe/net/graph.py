"""From a NetParameter to the list of layers that run: rules applied, splits inserted. Pure functions of messages."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from caffe import log
from caffe.errors import NetError, did_you_mean
from caffe.proto import caffe_pb2

__all__ = ["filter_net", "insert_splits", "meets_rule"]


def filter_net(net: Any) -> tuple[Any, list[int]]:
    """The net without the layers that its `state` rules out, and each kept layer's index in the original.

    Raises NetError for a layer that has both include and exclude rules. Source: BVLC net.cpp, FilterNet.
    """
    kept = caffe_pb2.NetParameter()
    kept.CopyFrom(net)
    del kept.layer[:]
    indices = []
    for index, layer in enumerate(net.layer):
        if layer.include and layer.exclude:
            raise NetError(f'layer "{layer.name}": has include and exclude rules; use only one of the two kinds')
        if layer.include:
            wanted = any(meets_rule(net.state, rule, layer.name) for rule in layer.include)
        else:
            wanted = not any(meets_rule(net.state, rule, layer.name) for rule in layer.exclude)
        if wanted:
            kept.layer.add().CopyFrom(layer)
            indices.append(index)
    return kept, indices


def meets_rule(state: Any, rule: Any, layer_name: str) -> bool:
    """Whether a NetState satisfies a NetStateRule; logs the reason if not."""
    by = f"specified by a rule in layer {layer_name}"
    reason = ""
    if rule.HasField("phase") and rule.phase != state.phase:
        reason = f"The NetState phase ({state.phase}) differed from the phase ({rule.phase}) {by}"
    elif rule.HasField("min_level") and state.level < rule.min_level:
        reason = f"The NetState level ({state.level}) is above the min_level ({rule.min_level}) {by}"
    elif rule.HasField("max_level") and state.level > rule.max_level:
        reason = f"The NetState level ({state.level}) is above the max_level ({rule.max_level}) {by}"
    elif missing := [stage for stage in rule.stage if stage not in state.stage]:
        reason = f"The NetState did not contain stage '{missing[0]}' {by}"
    elif unwanted := [stage for stage in rule.not_stage if stage in state.stage]:
        reason = f"The NetState contained a not_stage '{unwanted[0]}' {by}"
    if reason:
        log.info("net.cpp:296", reason)
    return not reason


def insert_splits(net: Any) -> Any:
    """The net with a Split layer behind every top that is read more than once; a loss weight counts as a reader.

    Raises NetError for a bottom that no earlier layer makes. Source: BVLC insert_splits.cpp, whose names it gives.
    """
    readers: dict[tuple[int, int], int] = defaultdict(int)
    weights: dict[tuple[int, int], float] = {}
    sources = _bottom_sources(net)
    for source in sources.values():
        readers[source] += 1
    for i, layer in enumerate(net.layer):
        for j, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            weights[i, j] = weight
            readers[i, j] += weight != 0

    split = caffe_pb2.NetParameter()
    split.CopyFrom(net)
    del split.layer[:]
    given: dict[tuple[int, int], int] = defaultdict(int)
    for i, original in enumerate(net.layer):
        layer = split.layer.add()
        layer.CopyFrom(original)
        for j, bottom in enumerate(original.bottom):
            top = sources[i, j]
            if readers[top] > 1:
                layer.bottom[j] = f"{bottom}_{net.layer[top[0]].name}_{top[1]}_split_{given[top]}"
                given[top] += 1
        for j, blob in enumerate(original.top):
            if readers[i, j] > 1:
                weight = weights.get((i, j), 0.0)
                if weight:
                    layer.loss_weight[j] = (
                        0  # the split carries it; the original drops the other tops' weights here too
                    )
                    given[i, j] += 1
                _add_split(split, f"{blob}_{original.name}_{j}_split", blob, readers[i, j], weight)
    return split


def _add_split(net: Any, name: str, blob: str, count: int, weight: float) -> None:
    layer = net.layer.add(name=name, type="Split", bottom=[blob], top=[f"{name}_{k}" for k in range(count)])
    if weight:
        layer.loss_weight.extend([weight] + [0.0] * (count - 1))


def _bottom_sources(net: Any) -> dict[tuple[int, int], tuple[int, int]]:
    """For each (layer, bottom index) the (layer, top index) that made the blob last."""
    last: dict[str, tuple[int, int]] = {}
    sources = {}
    for i, layer in enumerate(net.layer):
        for j, bottom in enumerate(layer.bottom):
            if bottom not in last:
                raise NetError(
                    f'layer "{layer.name}" ({layer.type}): unknown bottom blob "{bottom}" (bottom index {j}): '
                    f"no earlier layer has a top of that name{did_you_mean(bottom, last)}"
                )
            sources[i, j] = last[bottom]
        for j, top in enumerate(layer.top):
            last[top] = (i, j)
    return sources
