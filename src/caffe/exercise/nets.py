"""The nets of exercises, as text with places for faults, and solvers that suit them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["NETS", "Run", "solver_text"]

XAVIER = 'type: "xavier"'


@dataclass(frozen=True)
class Run:
    """A net and its solver. `codes` are the accepted causes; empty for a healthy run.

    `weights` is the name of the run that is trained first to give the initial weights.
    """

    name: str
    net: str
    solver: Mapping[str, object]
    codes: tuple[str, ...] = ()
    weights: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)


def solver_text(run: Run, net_path: object, folder: object) -> str:
    """Return the solver's prototxt."""
    fields = {"net": f'"{net_path}"', "test_iter": 4, "test_interval": 500, "max_iter": 3000, "lr_policy": '"fixed"'}
    fields |= {"snapshot": 3000, "snapshot_prefix": f'"{folder}/run"', "random_seed": 3}
    fields |= run.solver
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value is not None)


def data(name: str, batch: int = 50, test: int = 100, scale: str = "", kind: str = "ArrayData") -> str:
    """Return the two data layers. `scale` is the transform_param of both."""
    # type names: this module writes prototxts as text
    text = ""
    for phase, size in (("TRAIN", batch), ("TEST", test)):
        transform = f"  transform_param {{ {scale} }}\n" if scale else ""
        tops = 'top: "data"' if name == "digits_auto" else 'top: "data" top: "label"'
        if kind == "Data":
            source = f'data_param {{ source: "@/mnist_{phase.lower()}_lmdb" batch_size: {size} backend: LMDB }}'
        elif kind == "HDF5Data":
            tops += ' top: "cont"'
            source = f'hdf5_data_param {{ source: "@/{name}_{phase.lower()}.txt" batch_size: {size} }}'
        else:
            source = f'array_data_param {{ source: "@/{name}_{phase.lower()}.npz" batch_size: {size} shuffle: true }}'
        if "sorted" in name:
            source = source.replace(" shuffle: true", "")
        head = f'layer {{\n  name: "data" type: "{kind}" {tops}\n  include {{ phase: {phase} }}\n'
        text += f"{head}{transform}  {source}\n}}\n"
    return text


def learned(kind: str, name: str, bottom: str, options: str, filler: str, bias: str, param: str = "") -> str:
    """Return a Convolution or InnerProduct layer."""
    field_name = "convolution_param" if kind == "Convolution" else "inner_product_param"
    params = param or "param { lr_mult: 1 } param { lr_mult: 2 }"
    if "bias_term: false" in options:
        params = param or "param { lr_mult: 1 }"
    fill = f"weight_filler {{ {filler} }} bias_filler {{ {bias} }}"
    return (
        f'layer {{\n  name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}"\n  {params}\n'
        f"  {field_name} {{\n    {options}\n    {fill}\n  }}\n}}\n"
    )


def dense(name: str, bottom: str, outputs: int, filler: str = XAVIER, bias: str = "value: 0", **more: str) -> str:
    """Return an InnerProduct layer."""
    return learned("InnerProduct", name, bottom, f"num_output: {outputs}", filler, bias, **more)


def conv(name: str, bottom: str, options: str, filler: str = XAVIER, bias: str = "value: 0", **more: str) -> str:
    """Return a Convolution layer."""
    return learned("Convolution", name, bottom, options, filler, bias, **more)


def over(kind: str, blob: str, options: str = "") -> str:
    """Return an in-place layer."""
    if not kind:
        return ""
    return f'layer {{ name: "{blob}_{kind.lower()}" type: "{kind}" bottom: "{blob}" top: "{blob}" {options} }}\n'


def pool(bottom: str, top: str) -> str:
    """Return max pooling with stride 2."""
    options = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
    return f'layer {{ name: "{top}" type: "Pooling" bottom: "{bottom}" top: "{top}" {options} }}\n'


def loss(bottom: str = "out", kind: str = "SoftmaxWithLoss", axis: str = "") -> str:
    """Return the accuracy and loss layers."""
    accuracy = (
        f'layer {{ name: "accuracy" type: "Accuracy" bottom: "{bottom}" bottom: "label" top: "accuracy" '
        f"include {{ phase: TEST }} {axis and f'accuracy_param {{ {axis} }}'} }}\n"
    )
    soft = axis and f"softmax_param {{ {axis} }}"
    main = f'layer {{ name: "loss" type: "{kind}" bottom: "{bottom}" bottom: "label" top: "loss" {soft} }}\n'
    return ("" if kind == "EuclideanLoss" else accuracy) + main


def lenet(filler: str = XAVIER, scale: str = "scale: 0.00390625", batch: int = 64, end: str = "", **more: str) -> str:
    """Return LeNet for digits of 28 x 28, with fewer channels."""
    text = data("mnist", batch, 100, scale, "Data")
    text += conv("conv1", "data", "num_output: 12 kernel_size: 5", filler) + pool("conv1", "pool1")
    text += conv("conv2", "pool1", "num_output: 24 kernel_size: 5", filler, param=more.get("conv2", ""))
    text += pool("conv2", "pool2") + dense(
        "ip1", "pool2", int(more.get("width", "100")), filler, more.get("bias", "value: 0")
    )
    text += over("ReLU", "ip1") + more.get("drop", "") + dense("out", "ip1", int(more.get("classes", "10")), filler)
    return text + (end or loss())


def small(source: str = "digits", filler: str = XAVIER, batch: int = 50, unit: str = "ReLU", **more: str) -> str:
    """Return a convolutional net for small images."""
    text = data(source, batch, scale=more.get("scale", ""))
    text += conv("conv1", "data", "num_output: 16 kernel_size: 3 pad: 1", filler, param=more.get("conv1", ""))
    text += over(unit, "conv1") + pool("conv1", "pool1")
    text += conv("conv2", "pool1", "num_output: 24 kernel_size: 3", filler) + over(unit, "conv2")
    text += dense("ip1", "conv2", int(more.get("width", "64")), filler, more.get("bias", "value: 0")) + over(
        unit, "ip1"
    )
    return text + more.get("drop", "") + dense("out", "ip1", 10, filler) + more.get("end", loss())


def mlp(source: str = "digits", filler: str = XAVIER, unit: str = "Sigmoid", batch: int = 50, **more: str) -> str:
    """Return a net of three fully connected layers."""
    text = data(source, batch) + more.get("over_data", "")
    width, bias = int(more.get("width", "60")), more.get("bias", "value: 0")
    text += dense("h1", "data", int(more.get("first", str(width))), filler, bias, param=more.get("h1", "")) + over(
        unit, "h1"
    )
    text += more.get("drop", "") + dense("h2", "h1", width, filler, bias) + over(unit, "h2")
    return (
        text
        + more.get("aux", "")
        + dense("out", "h2", int(more.get("classes", "10")), filler)
        + more.get("end", loss())
    )


def norm(
    source: str = "digits", batch: int = 50, stats: str = "", unit: str = "ReLU", filler: str = XAVIER, **more: str
) -> str:
    """Return a net with BatchNorm and Scale after each convolution."""
    text, bottom = data(source, batch), "data"
    for name, outputs in (("conv1", 16), ("conv2", 24)):
        text += conv(name, bottom, f"num_output: {outputs} kernel_size: 3 bias_term: false", filler)
        text += over("BatchNorm", name, f"batch_norm_param {{ {stats} }}") + over(
            "Scale", name, "scale_param { bias_term: true }"
        )
        text, bottom = text + over(unit, name), name
    return text + more.get("drop", "") + dense("out", bottom, 10, filler) + more.get("end", loss())


def lstm(
    source: str = "sequence", batch: int = 16, filler: str = 'type: "uniform" min: -0.1 max: 0.1', **more: str
) -> str:
    """Return an LSTM that predicts the next symbol of each stream."""
    text = data(source, batch, 50, kind="HDF5Data")
    text += 'layer { name: "embed" type: "Embed" bottom: "data" top: "embed" embed_param { input_dim: 8 num_output: 16 '
    text += 'bias_term: false weight_filler { type: "uniform" min: -0.5 max: 0.5 } } }\n'
    text += f'layer {{ name: "lstm" type: "LSTM" bottom: "embed" bottom: "cont" top: "lstm" {more.get("params", "")}\n'
    text += f"  recurrent_param {{ num_output: {more.get('width', '48')} weight_filler {{ {filler} }} }} }}\n"
    text += 'layer { name: "out" type: "InnerProduct" bottom: "lstm" top: "out"\n'
    text += f"  inner_product_param {{ axis: 2 num_output: 8 weight_filler {{ {more.get('top', XAVIER)} }} }} }}\n"
    return text + loss(axis="axis: 2")


def auto(filler: str = XAVIER, width: int = 12, unit: str = "ReLU", batch: int = 50, **more: str) -> str:
    """Return an autoencoder of the small digits."""
    text = data("digits_auto", batch) + 'layer { name: "flat" type: "Flatten" bottom: "data" top: "flat" }\n'
    bias = more.get("bias", "value: 0")
    for name, bottom, outputs in (("e1", "flat", 48), ("code", "e1", width), ("d1", "code", 48)):
        text += dense(name, bottom, outputs, filler, bias) + (over(unit, name) if name != "code" else "")
    text += dense("out", "d1", 64, filler)
    return text + 'layer { name: "loss" type: "SigmoidCrossEntropyLoss" bottom: "out" bottom: "flat" top: "loss" }\n'


def curves(source: str = "curves", filler: str = XAVIER, unit: str = "TanH", batch: int = 50, **more: str) -> str:
    """Return a regression net from six numbers to two."""
    text = data(source, batch) + dense("h1", "data", 40, filler, more.get("bias", "value: 0")) + over(unit, "h1")
    text += dense("h2", "h1", int(more.get("width", "40")), filler, param=more.get("h2", "")) + over(unit, "h2")
    return text + dense("out", "h2", 2, filler) + loss(kind="EuclideanLoss")


NETS: dict[str, Callable[..., str]] = {
    "lenet": lenet,
    "small": small,
    "mlp": mlp,
    "norm": norm,
    "lstm": lstm,
    "auto": auto,
    "curves": curves,
}
