"""`caffe summarize`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from caffe.cli.command import command
from caffe.cli.display import Display


@command(task="nets", arguments="NET")
def summarize(flags: SimpleNamespace, display: Display) -> None:
    """List the layers of a net, one per line.

    Columns: name, type, bottoms and tops (`x -> y`, or `x` for an in-place layer), and its options except for fillers.

        caffe summarize train_val.prototxt
    """
    from caffe.proto import upgrade

    net = upgrade.read_net(flags.arguments[0])
    rows = [(layer.name, layer.type, _flow(layer), _options(layer)) for layer in net.layer]
    widths = [max(len(row[column]) for row in rows) if rows else 0 for column in range(3)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]).rstrip())


def _flow(layer: Any) -> str:
    bottoms, tops = ", ".join(layer.bottom), ", ".join(layer.top)
    return tops if bottoms == tops else f"{bottoms} -> {tops}".strip()


def _options(layer: Any) -> str:
    """Format the options: `num_output 20, kernel_size 5, lr_mult 1 2, TRAIN`."""
    parts = []
    for field, value in layer.ListFields():
        if field.name.endswith("_param") and field.message_type is not None:
            parts += [f"{each.name} {_value(each, number)}" for each, number in value.ListFields() if _plain(each)]
    for name in ("lr_mult", "decay_mult"):
        if any(param.HasField(name) for param in layer.param):
            parts.append(" ".join([name, *(f"{getattr(param, name):g}" for param in layer.param)]))
    rules = [(rule, "") for rule in layer.include] + [(rule, "not ") for rule in layer.exclude]
    parts += [negation + " ".join(str(rule).split()) for rule, negation in rules]
    return ", ".join(parts)


def _plain(field: Any) -> bool:
    return field.message_type is None


def _value(field: Any, value: Any) -> str:
    from caffe.proto.printing import repeated_fields

    values = value if field.name in repeated_fields(field.containing_type) else [value]
    if field.enum_type is not None:
        return " ".join(field.enum_type.values_by_number[number].name for number in values)
    return " ".join(f"{number:g}" if isinstance(number, float) else str(number) for number in values)
