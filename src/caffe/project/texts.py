"""The text files of a project: nets, solver and README, with a reason for each line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from caffe.project.plan import Plan
from caffe.proto.printing import dumps

__all__ = ["commented", "deploy_net", "front_matter", "readme", "seen", "solver", "train_net"]


def train_net(plan: Plan) -> str:
    """Return `train_val.prototxt`: two Data layers, then the layers of the net."""
    net = _built(plan, train=True)
    body = [layer for layer in net.layer if layer.bottom]
    text = [
        f"# {plan.net} for {len(plan.classes)} classes: {', '.join(plan.classes[:8])}"
        + (" ..." if len(plan.classes) > 8 else ""),
        "# Draw it with: caffe draw train_val.prototxt net.svg",
        f'name: "{plan.name}"',
        _data_layer(plan, "TRAIN"),
        _data_layer(plan, "TEST"),
    ]
    return "\n".join(text) + "\n" + "".join(_layer(plan, layer) for layer in body)


def deploy_net(plan: Plan) -> str:
    """Return `deploy.prototxt`: the deploy net, from a picture to the class probabilities."""
    net = _built(plan, train=False)
    return (
        "# The deploy net: takes a picture, and outputs the probability of each line of labels.txt.\n"
        f'name: "{plan.name}"\n' + "".join(_layer(plan, layer) for layer in net.layer)
    )


def _built(plan: Plan, train: bool) -> Any:
    own = {"channels": plan.channels} if plan.net in ("lenet", "cifar_quick") else {}
    batch = plan.batch if train else 1
    net = plan.kind.build(batch=batch, classes=len(plan.classes), size=plan.side, train=train, **own)
    if plan.weights:
        _rename_last(net, plan.name)
    return net


def _rename_last(net: Any, name: str) -> None:
    """Rename the last layer with weights, so that weights of other classes are not copied into it."""
    last = [layer for layer in net.layer if _has_weights(layer)][-1]
    old, new = last.top[0], f"{last.name}_{name}"
    last.name = new
    last.top[0] = new
    for param in last.param:
        param.lr_mult *= 10
    for layer in net.layer:
        layer.bottom[:] = [new if bottom == old else bottom for bottom in layer.bottom]
        if layer is not last:
            layer.top[:] = [new if top == old else top for top in layer.top]


def _has_weights(layer: Any) -> bool:
    return bool(layer.HasField("inner_product_param") or layer.HasField("convolution_param"))


def _layer(plan: Plan, layer: Any) -> str:
    note = ""
    if plan.weights and layer.name.endswith(f"_{plan.name}") and _has_weights(layer):
        note = "# New, because the classes differ: it has ten times the rate of the layers with pretrained weights.\n"
    inner = "".join(f"  {line}\n" for line in dumps(layer).splitlines())
    return f"{note}layer {{\n{inner}}}\n"


def _data_layer(plan: Plan, phase: str) -> str:
    train, prep = phase == "TRAIN", plan.preparation
    lines = ["layer {", '  name: "data"', '  type: "Data"', '  top: "data"', '  top: "label"']
    lines += [f"  include {{ phase: {phase} }}", "  transform_param {"]
    if train and plan.mirror:
        lines.append(
            "    mirror: true  # half of the pictures are flipped left to right; remove it if left and right matter"
        )
    if prep.crop:
        how = "a random part each time, so that the position does not matter" if train else "the centre"
        lines.append(f"    crop_size: {prep.crop}  # of {prep.resize[0]} pixels: {how}")
    of = "of the pictures that the weights were trained on" if plan.weights and plan.kind.mean else "of all pixels"
    for value, color in zip(prep.mean, ("blue", "green", "red") if len(prep.mean) == 3 else ("grey",), strict=True):
        lines.append(
            f"    mean_value: {value:.6g}  # the mean {color} {of} is subtracted, so that the input lies around 0"
        )
    if prep.scale != 1:
        lines.append(f"    scale: {prep.scale:.8g}  # then the values are brought to about -2 ... 2")
    count, batch = (plan.train, plan.batch) if train else (plan.val, plan.test_batch)
    steps = plan.iterations if train else plan.test_iter
    lines += [
        "  }",
        "  data_param {",
        f'    source: "{"train" if train else "val"}_lmdb"  # {count:,} pictures'
        + (", in random order" if train else ", never trained on"),
        "    backend: LMDB",
        f"    batch_size: {batch}  # {steps} batches are all pictures"
        + ("; halve it if memory is short" if train else f"{'' if count % batch == 0 else ', some of them twice'}"),
        "  }",
        "}",
    ]
    return "\n".join(lines)


def solver(plan: Plan) -> str:
    """`solver.prototxt`."""
    each, total = plan.iterations, plan.max_iter
    lines = [
        ('net: "train_val.prototxt"', "the net, with its two data layers"),
        (f"test_iter: {plan.test_iter}", f"batches of a test: all {plan.val:,} validation pictures"),
        (f"test_interval: {each}", f"a test after each epoch ({plan.train:,} pictures / {plan.batch} a batch)"),
        ("test_initialization: false", "nothing is learned yet, so nothing is tested"),
        (f"base_lr: {plan.rate:g}", _rate_note(plan)),
        ('lr_policy: "poly"', "the rate decreases linearly to 0, so that training converges"),
        ("power: 1", "the straight line"),
        ("momentum: 0.9", "each step keeps 0.9 of the previous one: smoother and faster"),
        (f"weight_decay: {0.0005:g}", "weight decay, against overfitting"),
        (f"max_iter: {total}", f"{plan.epochs} epochs of {each} iterations"),
        (f"display: {max(1, each // 2)}", "a line in the log twice per epoch"),
        (f"snapshot: {_snapshot_interval(plan)}", "iterations between two snapshots"),
        (f'snapshot_prefix: "snapshots/{plan.name}"', "under this name"),
        ("random_seed: 1", "the same run each time; another seed gives another one"),
    ]
    lines += [
        ("keep_best: true", "save the weights of the best test (for BVLC Caffe, remove this line and the next two)"),
        ("keep_last: 2", "keep the last two of the other snapshots"),
        (
            f"early_stop {{ patience: {max(5, plan.epochs // 3)} }}",
            "stop after this number of tests without improvement",
        ),
    ]
    if plan.weights:
        lines.insert(1, (f'weights: "{plan.weights}"', "training starts from these weights"))
    return commented(lines)


def commented(lines: Sequence[tuple[str, str]]) -> str:
    """Return the lines, each followed by its reason as a comment."""
    width = max(len(text) for text, _ in lines)
    return "".join(f"{text.ljust(width)}  # {why}\n" for text, why in lines)


def _snapshot_interval(plan: Plan) -> int:
    """Return a fifth of the run, in whole epochs."""
    return max(1, plan.epochs // 5) * plan.iterations


def _rate_note(plan: Plan) -> str:
    if plan.weights:
        return "small, because the weights are pretrained"
    return "the learning rate: lower it if the loss becomes NaN, raise it if the loss hardly falls"


def readme(plan: Plan, facts: dict[str, str], notes: list[str], counts: list[tuple[str, int, int]]) -> str:
    """Return README.md: front matter as in model folders, the five commands, and the notes about the data."""
    table = "".join(f"| {label} | {train:,} | {val:,} |\n" for label, train, val in counts)
    return f"""{front_matter(facts)}# {plan.name}

A classifier of pictures with {len(plan.classes)} classes. The net is {plan.net}. The commands, in this folder:

```
caffe train
caffe test
caffe classify PICTURE.jpg
caffe try
caffe doctor solver.prototxt
```

`caffe train` writes weights into `snapshots`. To use them elsewhere, take `deploy.prototxt`, the `.caffemodel`,
`labels.txt` and this file.

| class | training | validation |
| --- | --- | --- |
{table}
{seen(notes)}"""


def front_matter(facts: Mapping[str, str]) -> str:
    """Return the first lines of the readme of a model folder."""
    return "---\n" + "".join(f"{key}: {value}\n" for key, value in facts.items()) + "---\n"


def seen(notes: Sequence[str]) -> str:
    """Return the end of a README: the notes about the data."""
    return "Notes about the data:\n\n" + ("".join(f"- {note}\n" for note in notes) or "- no problems\n")
