"""Inception-v3, as SSD's model_libs builds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caffe.model_libs.blocks import ConvBNLayer, InceptionTower
from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffe.net_spec import params as P

__all__ = ["InceptionV3Body"]

Step = tuple[str, Any, Any, Any, Any]
"""Name, outputs (or the method of a pooling), kernel, pad and stride; lists are for height and width."""
_STEM: list[Step] = [
    ("conv", 32, 3, 0, 2),
    ("conv_1", 32, 3, 0, 1),
    ("conv_2", 64, 3, 1, 1),
    ("pool", P.Pooling.MAX, 3, 0, 2),
    ("conv_3", 80, 1, 0, 1),
    ("conv_4", 192, 3, 0, 1),
    ("pool_1", P.Pooling.MAX, 3, 0, 2),
]
_ROW, _COLUMN = ([1, 7], [0, 3], [1, 1]), ([7, 1], [3, 0], [1, 1])


def InceptionV3Body(net: NetSpec, from_layer: str, output_pred: bool = False, **bn_param: Any) -> NetSpec:
    """Add Inception-v3, with its classifier of 1008 classes if `output_pred`."""
    source = from_layer
    for name, outputs, kernel, pad, stride in _STEM:
        if "pool" in name:
            net[name] = L.Pooling(net[source], pool=outputs, kernel_size=kernel, stride=stride, pad=pad)
        else:
            ConvBNLayer(net, source, name, True, True, outputs, kernel, pad, stride, use_scale=False, **bn_param)
        source = name
    for number in range(11):
        source = _mixed(net, source, number, bn_param)
    if output_pred:
        net.pool_3 = L.Pooling(net[source], pool=P.Pooling.AVE, kernel_size=8, pad=0, stride=1)
        net.softmax = L.InnerProduct(net.pool_3, num_output=1008)
        net.softmax_prob = L.Softmax(net.softmax)
    return net


def _mixed(net: NetSpec, source: str, number: int, norm: dict[str, Any]) -> str:
    """Add the module `mixed_number` and return the name of its last layer."""
    name = f"mixed_{number}" if number else "mixed"
    if number < 3:
        towers = _narrow(32 if number == 0 else 64)
    elif number == 3:
        towers = _REDUCE
    elif number < 8:
        towers = _factorized({4: 128, 5: 160, 6: 160, 7: 192}[number])
    elif number == 8:
        towers = _REDUCE_MORE
    else:
        return _last(net, source, name, P.Pooling.AVE if number == 9 else P.Pooling.MAX, norm)
    return _join(net, f"{name}/join", [_tower(net, source, name + suffix, steps, norm) for suffix, steps in towers])


def _narrow(outputs: int) -> list[tuple[str, list[Step]]]:
    return [
        ("", [("conv", 64, 1, 0, 1)]),
        ("/tower", [("conv", 48, 1, 0, 1), ("conv_1", 64, 5, 2, 1)]),
        ("/tower_1", [("conv", 64, 1, 0, 1), ("conv_1", 96, 3, 1, 1), ("conv_2", 96, 3, 1, 1)]),
        ("/tower_2", [("pool", P.Pooling.AVE, 3, 1, 1), ("conv", outputs, 1, 0, 1)]),
    ]


_REDUCE: list[tuple[str, list[Step]]] = [
    ("", [("conv", 384, 3, 0, 2)]),
    ("/tower", [("conv", 64, 1, 0, 1), ("conv_1", 96, 3, 1, 1), ("conv_2", 96, 3, 0, 2)]),
    ("", [("pool", P.Pooling.MAX, 3, 0, 2)]),
]
_REDUCE_MORE: list[tuple[str, list[Step]]] = [
    ("/tower", [("conv", 192, 1, 0, 1), ("conv_1", 320, 3, 0, 2)]),
    (
        "/tower_1",
        [("conv", 192, 1, 0, 1), ("conv_1", 192, *_ROW), ("conv_2", 192, *_COLUMN), ("conv_3", 192, 3, 0, 2)],
    ),
    ("", [("pool", P.Pooling.MAX, 3, 0, 2)]),
]


def _factorized(outputs: int) -> list[tuple[str, list[Step]]]:
    """Convolutions of 7 x 7 as pairs of 1 x 7 and 7 x 1."""
    first: Step = ("conv", outputs, 1, 0, 1)
    twice: list[Step] = [
        ("conv_1", outputs, *_COLUMN),
        ("conv_2", outputs, *_ROW),
        ("conv_3", outputs, *_COLUMN),
        ("conv_4", 192, *_ROW),
    ]
    return [
        ("", [("conv", 192, 1, 0, 1)]),
        ("/tower", [first, ("conv_1", outputs, *_ROW), ("conv_2", 192, *_COLUMN)]),
        ("/tower_1", [first, *twice]),
        ("/tower_2", [("pool", P.Pooling.AVE, 3, 1, 1), ("conv", 192, 1, 0, 1)]),
    ]


def _last(net: NetSpec, source: str, name: str, pool: int, norm: dict[str, Any]) -> str:
    """Add a module whose towers end in a 1 x 3 and a 3 x 1 convolution side by side."""
    tops = [_tower(net, source, name, [("conv", 320, 1, 0, 1)], norm)]
    for suffix, steps in (
        ("/tower", [("conv", 384, 1, 0, 1)]),
        ("/tower_1", [("conv", 448, 1, 0, 1), ("conv_1", 384, 3, 1, 1)]),
    ):
        _tower(net, source, name + suffix, steps, norm)
        end, both = f"{name}{suffix}/{steps[-1][0]}", f"{name}{suffix}/mixed"
        row = _tower(net, end, both, [("conv", 384, [1, 3], [0, 1], [1, 1])], norm)
        column = _tower(net, end, both, [("conv_1", 384, [3, 1], [1, 0], [1, 1])], norm)
        tops.append(net[_join(net, both, [row, column])])
    tops.append(_tower(net, source, f"{name}/tower_2", [("pool", pool, 3, 1, 1), ("conv", 192, 1, 0, 1)], norm))
    return _join(net, f"{name}/join", tops)


def _tower(net: NetSpec, source: str, name: str, steps: Sequence[Step], norm: dict[str, Any]) -> Top:
    fields = [
        {
            "name": step,
            "pool" if "pool" in step else "num_output": first,
            "kernel_size": kernel,
            "pad": pad,
            "stride": stride,
        }
        for step, first, kernel, pad, stride in steps
    ]
    return InceptionTower(net, source, name, fields, **norm)


def _join(net: NetSpec, name: str, tops: Sequence[Top]) -> str:
    net[name] = L.Concat(*tops, axis=1)
    return name
