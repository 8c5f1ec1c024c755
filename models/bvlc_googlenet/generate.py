"""Write train_val.prototxt and deploy.prototxt of GoogLeNet: run it from anywhere after a change here.

The net is nine inception blocks, so its files are long and regular; this is the short form of them.
"""

from __future__ import annotations

from pathlib import Path

from caffe.models.googlenet import MODULES

FOLDER = Path(__file__).parent

POOLED_AFTER = {"3b": "pool3/3x3_s2", "4e": "pool4/3x3_s2"}
CLASSIFIED_AFTER = {"4a": 1, "4d": 2}

HEAD = """\
# GoogLeNet: Szegedy et al., "Going Deeper with Convolutions", arXiv:1409.4842.
# Written by generate.py of this folder: change it there.
"""
TRAINING = """\
name: "GoogleNet"

# Images of 256x256: a random 224x224 crop, mirrored at random, for training; the centre crop for testing.
# The mean is one value a channel: blue, green, red.
layer {
  name: "data" type: "Data" top: "data" top: "label"
  include { phase: TRAIN }
  transform_param { mirror: true crop_size: 224 mean_value: 104 mean_value: 117 mean_value: 123 }
  data_param { source: "examples/imagenet/ilsvrc12_train_lmdb" batch_size: 32 backend: LMDB }
}
layer {
  name: "data" type: "Data" top: "data" top: "label"
  include { phase: TEST }
  transform_param { mirror: false crop_size: 224 mean_value: 104 mean_value: 117 mean_value: 123 }
  data_param { source: "examples/imagenet/ilsvrc12_val_lmdb" batch_size: 50 backend: LMDB }
}
"""
DEPLOYMENT = """\
# For use: images (N, 3, 224, 224), BGR, 0..255 minus the mean, in; the probability of 1,000 classes out.
name: "GoogleNet"

layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 10 dim: 3 dim: 224 dim: 224 } } }
"""


def trained(kind: str, name: str, bottom: str, options: str, bias: float = 0.2) -> str:
    """A convolution or a fully connected layer."""
    return f"""\
layer {{
  name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}"
  param {{ lr_mult: 1 decay_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  {"convolution" if kind == "Convolution" else "inner_product"}_param {{
    {options}
    weight_filler {{ type: "xavier" }}
    bias_filler {{ type: "constant" value: {bias:g} }}
  }}
}}
"""


def relu(name: str, blob: str) -> str:
    return f'layer {{\n  name: "{name}" type: "ReLU" bottom: "{blob}" top: "{blob}"\n}}\n'


def conv(name: str, bottom: str, options: str) -> str:
    """A convolution and its ReLU, which is called `relu_<name>`; `conv1/7x7_s2` has `conv1/relu_7x7`."""
    block, _, last = name.partition("/")
    return trained("Convolution", name, bottom, options) + relu(f"{block}/relu_{last.removesuffix('_s2')}", name)


def pool(name: str, bottom: str, options: str) -> str:
    return (
        f'layer {{\n  name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}"\n'
        f"  pooling_param {{ pool: {options} }}\n}}\n"
    )


def norm(name: str, bottom: str) -> str:
    return (
        f'layer {{\n  name: "{name}" type: "LRN" bottom: "{bottom}" top: "{name}"\n'
        "  lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }\n}\n"
    )


def dropout(name: str, blob: str, ratio: float) -> str:
    return (
        f'layer {{\n  name: "{name}" type: "Dropout" bottom: "{blob}" top: "{blob}"\n'
        f"  dropout_param {{ dropout_ratio: {ratio} }}\n}}\n"
    )


def stem() -> str:
    return (
        "\n# Down to 28x28\n"
        + conv("conv1/7x7_s2", "data", "num_output: 64 pad: 3 kernel_size: 7 stride: 2")
        + pool("pool1/3x3_s2", "conv1/7x7_s2", "MAX kernel_size: 3 stride: 2")
        + norm("pool1/norm1", "pool1/3x3_s2")
        + conv("conv2/3x3_reduce", "pool1/norm1", "num_output: 64 kernel_size: 1")
        + conv("conv2/3x3", "conv2/3x3_reduce", "num_output: 192 pad: 1 kernel_size: 3")
        + norm("conv2/norm2", "conv2/3x3")
        + pool("pool2/3x3_s2", "conv2/norm2", "MAX kernel_size: 3 stride: 2")
    )


def inception(block: str, bottom: str) -> str:
    """Four branches over the same bottom, joined along the channels."""
    one, reduce3, three, reduce5, five, projection = MODULES[block]
    b = f"inception_{block}"
    joined = "".join(f' bottom: "{b}/{branch}"' for branch in ("1x1", "3x3", "5x5", "pool_proj"))
    return (
        f"\n# Inception {block}\n"
        + conv(f"{b}/1x1", bottom, f"num_output: {one} kernel_size: 1")
        + conv(f"{b}/3x3_reduce", bottom, f"num_output: {reduce3} kernel_size: 1")
        + conv(f"{b}/3x3", f"{b}/3x3_reduce", f"num_output: {three} pad: 1 kernel_size: 3")
        + conv(f"{b}/5x5_reduce", bottom, f"num_output: {reduce5} kernel_size: 1")
        + conv(f"{b}/5x5", f"{b}/5x5_reduce", f"num_output: {five} pad: 2 kernel_size: 5")
        + pool(f"{b}/pool", bottom, "MAX kernel_size: 3 stride: 1 pad: 1")
        + conv(f"{b}/pool_proj", f"{b}/pool", f"num_output: {projection} kernel_size: 1")
        + f'layer {{\n  name: "{b}/output" type: "Concat" top: "{b}/output"\n {joined}\n}}\n'
    )


def losses(number: int, name: str, top: str, weight: str) -> str:
    """Softmax loss and, in testing, the accuracy of the first guess and of the first five."""
    bottoms = f'bottom: "loss{number}/classifier" bottom: "label"'
    text = f'layer {{\n  name: "{name}" type: "SoftmaxWithLoss" {bottoms} top: "{top}"\n  loss_weight: {weight}\n}}\n'
    for k, options in ((1, ""), (5, "  accuracy_param { top_k: 5 }\n")):
        text += (
            f'layer {{\n  name: "loss{number}/top-{k}" type: "Accuracy" {bottoms} top: "loss{number}/top-{k}"\n'
            f"  include {{ phase: TEST }}\n{options}}}\n"
        )
    return text


def auxiliary(number: int, bottom: str) -> str:
    """A classifier on an inner block, which helps the gradient reach the first layers. Both tops end in /loss1."""
    a = f"loss{number}"
    return (
        f"\n# Auxiliary classifier {number}\n"
        + pool(f"{a}/ave_pool", bottom, "AVE kernel_size: 5 stride: 3")
        + conv(f"{a}/conv", f"{a}/ave_pool", "num_output: 128 kernel_size: 1")
        + trained("InnerProduct", f"{a}/fc", f"{a}/conv", "num_output: 1024")
        + relu(f"{a}/relu_fc", f"{a}/fc")
        + dropout(f"{a}/drop_fc", f"{a}/fc", 0.7)
        + trained("InnerProduct", f"{a}/classifier", f"{a}/fc", "num_output: 1000", bias=0)
        + losses(number, f"{a}/loss", f"{a}/loss1", "0.3")
    )


def network(training: bool) -> str:
    """The whole prototxt; auxiliary classifiers and losses only for training."""
    text = HEAD + (TRAINING if training else DEPLOYMENT) + stem()
    bottom = "pool2/3x3_s2"
    for block in MODULES:
        text += inception(block, bottom)
        bottom = f"inception_{block}/output"
        if training and block in CLASSIFIED_AFTER:
            text += auxiliary(CLASSIFIED_AFTER[block], bottom)
        if block in POOLED_AFTER:
            text += pool(POOLED_AFTER[block], bottom, "MAX kernel_size: 3 stride: 2")
            bottom = POOLED_AFTER[block]
    text += "\n# Classifier\n" + pool("pool5/7x7_s1", bottom, "AVE kernel_size: 7 stride: 1")
    text += dropout("pool5/drop_7x7_s1", "pool5/7x7_s1", 0.4)
    text += trained("InnerProduct", "loss3/classifier", "pool5/7x7_s1", "num_output: 1000", bias=0)
    if training:
        return text + losses(3, "loss3/loss3", "loss3/loss3", "1")
    return text + 'layer { name: "prob" type: "Softmax" bottom: "loss3/classifier" top: "prob" }\n'


if __name__ == "__main__":
    (FOLDER / "train_val.prototxt").write_text(network(training=True))
    (FOLDER / "deploy.prototxt").write_text(network(training=False))
