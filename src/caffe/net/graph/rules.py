"""Applies include and exclude rules to a NetParameter and inserts Split layers. Pure functions of messages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from caffe import log
from caffe.errors import NetError, did_you_mean
from caffe.proto import caffe_pb2, text

__all__ = ["filter_net", "insert_splits", "makers", "meets_rule"]


def filter_net(net: Any) -> tuple[Any, list[int]]:
    """Remove the layers that the rules exclude for the net's `state`. Also returns the old index of each kept layer.

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
    reason = _unmet(state, rule)
    if reason:
        log.info("net.cpp:296", f"{reason} specified by a rule in layer {layer_name}")
    return not reason


def _unmet(state: Any, rule: Any) -> str:
    """The part of a NetStateRule that a NetState does not satisfy, in Caffe's words. Empty if it satisfies the rule."""
    if rule.HasField("phase") and rule.phase != state.phase:
        return f"The NetState phase ({state.phase}) differed from the phase ({rule.phase})"
    if rule.HasField("min_level") and state.level < rule.min_level:
        return f"The NetState level ({state.level}) is above the min_level ({rule.min_level})"
    if rule.HasField("max_level") and state.level > rule.max_level:
        return f"The NetState level ({state.level}) is above the max_level ({rule.max_level})"
    if missing := [stage for stage in rule.stage if stage not in state.stage]:
        return f"The NetState did not contain stage '{missing[0]}'"
    if unwanted := [stage for stage in rule.not_stage if stage in state.stage]:
        return f"The NetState contained a not_stage '{unwanted[0]}'"
    return ""


def insert_splits(net: Any, place: Callable[[int], str] = lambda _: "", why: Callable[[str], str] | None = None) -> Any:
    """Insert a Split layer after every top that has several readers. A loss weight counts as a reader.

    Raises NetError for a bottom that no earlier layer produces. `place(i)` is the file and line of layer i, and
    `why(bottom)` adds facts about the bottom to the error. Names are as in Caffe. Source: BVLC insert_splits.cpp.
    """
    readers: dict[tuple[int, int], int] = defaultdict(int)
    weights: dict[tuple[int, int], float] = {}
    sources = _bottom_sources(net, place, why)
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
                        0  # the Split has the weight; Caffe also drops the weights of the other tops here
                    )
                    given[i, j] += 1
                _add_split(split, f"{blob}_{original.name}_{j}_split", blob, readers[i, j], weight)
    return split


def _add_split(net: Any, name: str, blob: str, count: int, weight: float) -> None:
    layer = net.layer.add(name=name, type="Split", bottom=[blob], top=[f"{name}_{k}" for k in range(count)])
    if weight:
        layer.loss_weight.extend([weight] + [0.0] * (count - 1))


def _bottom_sources(
    net: Any, place: Callable[[int], str], why: Callable[[str], str] | None
) -> dict[tuple[int, int], tuple[int, int]]:
    """For each (layer, bottom index): the (layer, top index) that last wrote the blob."""
    last: dict[str, tuple[int, int]] = {}
    sources = {}
    for i, layer in enumerate(net.layer):
        for j, bottom in enumerate(layer.bottom):
            if bottom not in last:
                known = why(bottom) if why is not None else ""
                error = NetError(
                    f'layer "{layer.name}" ({layer.type}): unknown bottom blob "{bottom}" (bottom index {j}): '
                    f"no earlier layer has a top of that name{known or did_you_mean(bottom, last)}"
                )
                raise error.at(layer.name).placed(place(i))
            sources[i, j] = last[bottom]
        for j, top in enumerate(layer.top):
            last[top] = (i, j)
    return sources


def makers(net: Any, kept: Sequence[int], bottom: str, place: Callable[[int], str]) -> str:
    """Explain which layers of the unfiltered net produce a missing bottom, and why they cannot be used.

    `kept` are the layers that the state keeps; `place(i)` is the file and line of layer i. Empty if no layer does.
    """
    found = []
    for index, layer in enumerate(net.layer):
        if bottom not in layer.top:
            continue
        where = f", {place(index)}" if place(index) else ""
        name = f'layer "{layer.name}" ({layer.type}{where}) makes it'
        if index in kept:
            found.append(f"{name}, but comes after its reader: move it up")
        else:
            found.append(f"{name}, but is left out of this net: {_rules_out(net.state, layer)}")
    return f"; {'; '.join(found)}" if found else ""


def _rules_out(state: Any, layer: Any) -> str:
    """The reason why a layer's rules exclude it from a net of this state."""
    own = f"the net has phase: {caffe_pb2.Phase.Name(state.phase)}, level: {state.level}, "
    own += f"stages: {', '.join(state.stage) or 'none'}"
    if layer.include:
        rules = " or ".join(_rule_text(rule) for rule in layer.include)
        return f"{own}, and its include rules ask for {rules}"
    rules = " or ".join(_rule_text(rule) for rule in layer.exclude if not _unmet(state, rule))
    return f"{own}, and an exclude rule names {rules}"


def _rule_text(rule: Any) -> str:
    """A rule as prototxt text: `phase: TRAIN stage: "deploy"`."""
    return text.dumps(rule).strip().replace("\n", " ") or "any state"
