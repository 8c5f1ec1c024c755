"""NetSpec: nets as Python code, where a layer is a function call and a blob is its result.

    from caffe import NetSpec, layers as L, params as P

    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 3, 32, 48]))
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20, weight_filler=dict(type="xavier"))
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    print(n.to_proto())

Keyword arguments are fields of the layer's options or of LayerParameter. A message is given as a dict, a repeated field
as a list. `ntop` is the number of tops (default 1). `in_place=True` makes the layer work in place. A block of layers is
an ordinary function from blobs to blobs: see `caffe.models`.
"""

from __future__ import annotations

import importlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from caffe.errors import FieldError, NetError, NoSuchBlob, NotATop, did_you_mean
from caffe.proto import caffe_pb2, extend
from caffe.proto.printing import repeated_fields
from caffe.registry import LAYERS

__all__ = [
    "Function",
    "Layers",
    "NetSpec",
    "Parameters",
    "Top",
    "assign_proto",
    "layers",
    "param_name_dict",
    "params",
    "to_proto",
]


def param_name_dict() -> dict[str, str]:
    """For each layer type that has options of its own name, the field that holds them without "_param"."""
    names = {}
    for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields:
        if field.name.endswith("_param") and field.message_type is not None:
            names[field.message_type.name.removesuffix("Parameter")] = field.name.removesuffix("_param")
    return names


def assign_proto(proto: Any, name: str, val: Any) -> None:
    """Set the field `name` of a message: from a dict for a message, from a list or a value for a repeated field."""
    field = proto.DESCRIPTOR.fields_by_name.get(name) or extend.find(proto.DESCRIPTOR, name)
    if field is None:
        known = proto.DESCRIPTOR.fields_by_name
        hint = did_you_mean(name, known)
        raise FieldError(f'{proto.DESCRIPTOR.name} has no field "{name}"{hint}')
    try:
        if field.name in repeated_fields(proto.DESCRIPTOR):
            _extend(extend.get(proto, field), val, field.message_type is not None)
        elif isinstance(val, dict):
            for key, value in val.items():
                assign_proto(extend.get(proto, field), key, value)
        elif field.message_type is not None:
            extend.get(proto, field).CopyFrom(val)
        else:
            setattr(proto, name, val)
    except (TypeError, ValueError, AttributeError) as error:
        raise FieldError(f"{proto.DESCRIPTOR.name}.{name} cannot be {val!r}: {error}") from None


def _extend(field: Any, val: Any, messages: bool) -> None:
    values = list(val) if isinstance(val, Iterable) and not isinstance(val, (str, bytes, dict)) else [val]
    if not messages:
        field.extend(values)
        return
    for value in values:
        item = field.add()
        if isinstance(value, dict):
            for key, inner in value.items():
                assign_proto(item, key, inner)
        else:
            item.CopyFrom(value)


class Top:
    """A blob: top number `n` of the layer `fn`."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> caffe_pb2.NetParameter:
        """The NetParameter of this blob's layer and of all layers that it depends on."""
        return to_proto(self)

    def update(self, params: Mapping[str, Any]) -> None:
        """Set fields of this blob's layer, in addition to those that it was created with. Of SSD's pycaffe."""
        self.fn.params.update(params)

    def _to_proto(self, layers: Specs, names: Names, autonames: Counter[str]) -> None:
        self.fn._to_proto(layers, names, autonames)


def _no_top(type_name: str, index: int, given: object) -> NotATop:
    """The error for a bottom that is not a blob, in pycaffe's words, with a note on what to pass."""
    error = NotATop(f"{type_name} input {index} is not a Top (type is {type(given)})")
    if isinstance(given, (tuple, list)) and all(isinstance(top, Top) for top in given):
        error.add_note(f"a layer of several tops gives a tuple of blobs: unpack it, L.{type_name}(*tops), or take one")
    else:
        error.add_note("expected a blob: what a call such as L.Convolution(...) gives, or n.NAME of a NetSpec n")
    return error


class Function:
    """A layer: its type, its bottoms (`Top`s) and its fields."""

    def __init__(self, type_name: str, inputs: Iterable[Top], params: dict[str, Any]) -> None:
        self.type_name = type_name
        self.inputs = tuple(inputs)
        for index, top in enumerate(self.inputs):
            if not isinstance(top, Top):
                raise _no_top(type_name, index, top)
        self.params = dict(params)
        self.ntop: int = self.params.pop("ntop", 1)
        self.in_place: bool = self.params.pop("in_place", False)
        if self.in_place and len(self.inputs) != self.ntop:
            raise NetError(
                f"{type_name}: in_place with {len(self.inputs)} bottoms and {self.ntop} tops; expected equal numbers"
            )
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def _get_name(self, names: Names, autonames: Counter[str]) -> str:
        if self not in names:
            names[self] = self._get_top_name(self.tops[0], names, autonames) if self.tops else self._number(autonames)
        return names[self]

    def _get_top_name(self, top: Top, names: Names, autonames: Counter[str]) -> str:
        if top not in names:
            names[top] = self._number(autonames)
        return names[top]

    def _number(self, autonames: Counter[str]) -> str:
        autonames[self.type_name] += 1
        return f"{self.type_name}{autonames[self.type_name]}"

    def _to_proto(self, layers: Specs, names: Names, autonames: Counter[str]) -> None:
        """Append this layer to `layers`, after its dependencies. Not recursive, since chains of layers can be long."""
        pending = [self]
        while pending:
            fn = pending[-1]
            missing = [top.fn for top in fn.inputs if top.fn not in layers]
            if missing:
                pending.append(missing[0])
            else:
                if fn not in layers:
                    layers[fn] = fn._spec(layers, names, autonames)
                pending.pop()

    def _spec(self, layers: Specs, names: Names, autonames: Counter[str]) -> Any:
        layer = caffe_pb2.LayerParameter(type=self.type_name)
        layer.bottom.extend(layers[top.fn].top[top.n] for top in self.inputs)
        if self.in_place:
            layer.top.extend(layer.bottom)
        else:
            layer.top.extend([self._get_top_name(top, names, autonames) for top in self.tops])
        layer.name = self._get_name(names, autonames)
        for key, value in self.params.items():
            assign_proto(self._owner(layer, key), key, value)
        return layer

    def _owner(self, layer: Any, key: str) -> Any:
        """The message that has the field `key`. The layer's options take precedence."""
        known = layer.DESCRIPTOR.fields_by_name
        if key.endswith("param"):
            return layer
        held: list[str] = []
        for field in _options(self.type_name, key if key not in known else ""):
            mine = extend.message_of(field).fields_by_name
            if key in mine:
                return extend.options(layer, field)
            held += mine
        if key not in known:
            hint = did_you_mean(key, [*held, *known])
            raise FieldError(f'layer "{layer.name}" ({self.type_name}) has no field "{key}"{hint}')
        return layer


Specs = OrderedDict[Function, Any]
Names = dict[Function | Top, str]

_OPTIONS = {type_name: f"{name}_param" for type_name, name in param_name_dict().items()}


def _options(type_name: str, key: str) -> list[str]:
    """The fields that hold a type's options: its own field, and the one that it shares with other types.

    Deconvolution shares convolution_param, which counts for keys that a layer does not have itself. Of several fields
    with the same message, as CConvolution has, the first is the one that the type reads.
    """
    named = _OPTIONS.get(type_name)
    message = f"{type_name}Parameter"
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields
    several = sum(field.message_type is not None and field.message_type.name == message for field in fields) > 1
    if named and not several and (not key or key in extend.message_of(named).fields_by_name):
        return [named]
    importlib.import_module("caffe.layers")  # fills the registry
    if type_name not in LAYERS:
        return [named] if named else []
    cls = LAYERS.find(type_name)
    read = [field for field in (cls.options, *cls.more_options) if field]
    own = [field for field in read if extend.message_of(field).name == message]
    return [*own, *(field for field in read[:1] if key and field not in own)]


class NetSpec:
    """A net under construction. Assigning a blob to an attribute names the blob and its layer."""

    tops: OrderedDict[str, Top | Function]

    def __init__(self) -> None:
        super().__setattr__("tops", OrderedDict())

    def __setattr__(self, name: str, value: Any) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        if name == "tops":  # happens while a NetSpec is copied
            raise AttributeError(name)
        return self._named(name)

    def __delattr__(self, name: str) -> None:
        self._named(name)
        del self.tops[name]

    def __setitem__(self, key: str, value: Any) -> None:
        self.tops[key] = value

    def __getitem__(self, item: str) -> Any:
        return self._named(item)

    def __delitem__(self, item: str) -> None:
        self.__delattr__(item)

    def keys(self) -> list[str]:
        """The names of all blobs, in the order of their first assignment."""
        return list(self.tops)

    def update(self, name: str, params: Mapping[str, Any]) -> None:
        """Set fields of the layer `name`, in addition to those that it was created with. Of SSD's pycaffe."""
        made = self._named(name)
        (made.fn if isinstance(made, Top) else made).params.update(params)

    def __copy__(self) -> NetSpec:
        """A NetSpec with the same blobs. Blobs that are added later are not shared."""
        twin = NetSpec()
        twin.tops.update(self.tops)
        return twin

    def _named(self, name: str) -> Any:
        if name not in self.tops:
            raise NoSuchBlob(f'the NetSpec has no blob "{name}"{did_you_mean(name, self.tops)}')
        return self.tops[name]

    def to_proto(self) -> caffe_pb2.NetParameter:
        """The NetParameter of all named blobs and of all layers that they depend on."""
        return _net(self.tops.values(), {top: name for name, top in self.tops.items()})


class Layers:
    """`L`: `L.Pooling(bottom, kernel_size=2)` creates a Pooling layer. Returns its tops, or the layer if none."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return layer_function(name)


class Parameters:
    """`P`: `P.Pooling.MAX` is the value MAX of an enum in PoolingParameter."""

    def __getattr__(self, name: str) -> Any:
        message = f"{name}Parameter"
        if message not in caffe_pb2.DESCRIPTOR.message_types_by_name:
            known = [each.removesuffix("Parameter") for each in caffe_pb2.DESCRIPTOR.message_types_by_name]
            raise AttributeError(f'there are no options "{name}"{did_you_mean(name, known)}')
        return getattr(caffe_pb2, message)


def layer_function(name: str) -> Callable[..., Any]:
    """The function that `L.<name>` is."""
    if name.startswith("_"):
        raise AttributeError(name)

    def layer_fn(*inputs: Top, **kwargs: Any) -> Any:
        fn = Function(name, inputs, kwargs)
        if fn.ntop == 0:
            return fn
        return fn.tops[0] if fn.ntop == 1 else fn.tops

    return layer_fn


def to_proto(*tops: Top | Function) -> caffe_pb2.NetParameter:
    """The NetParameter of these blobs' layers and of all layers that they depend on, with automatic names."""
    return _net(tops, {})


def _net(tops: Iterable[Top | Function], names: Names) -> caffe_pb2.NetParameter:
    specs: Specs = OrderedDict()
    autonames: Counter[str] = Counter()
    for top in tops:
        top._to_proto(specs, names, autonames)
    net = caffe_pb2.NetParameter()
    net.layer.extend(specs.values())
    return net


layers = Layers()
params = Parameters()
