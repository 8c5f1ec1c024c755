"""Nets with planted faults, and generated digits as their data."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np

BUDGET = 60
"""The time limit in seconds: far above the time of any examination, so that results do not depend on speed."""
SOLVER = """# a solver
net: "{net}"
test_iter: 4
test_interval: 500
base_lr: 0.1  # the rate
momentum: 0.9
weight_decay: 0.0005
lr_policy: "inv"
gamma: 0.0001
power: 0.75
max_iter: 5000
snapshot: 1000
snapshot_prefix: "{folder}/run"
random_seed: 3
"""
DATA = """layer {{
  name: "data" type: "ArrayData" top: "data" top: "label"
  include {{ phase: TRAIN }}
  array_data_param {{ source: "{folder}/train.npz" batch_size: 50 }}
}}
layer {{
  name: "data" type: "ArrayData" top: "data" top: "label"
  include {{ phase: TEST }}
  array_data_param {{ source: "{folder}/test.npz" batch_size: 50 }}
}}
"""
LOSS = """layer {{
  name: "accuracy" type: "Accuracy" bottom: "out" bottom: "label" top: "accuracy"
  include {{ phase: TEST }}
}}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "loss" }}
"""


def dense(name, bottom, outputs, filler='type: "xavier"', bias="value: 0"):
    options = f"num_output: {outputs} weight_filler {{{{ {filler} }}}} bias_filler {{{{ {bias} }}}}"
    return (
        f'layer {{{{\n  name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}"\n'
        f"  param {{{{ lr_mult: 1 }}}} param {{{{ lr_mult: 2 }}}}\n  inner_product_param {{{{ {options} }}}}\n}}}}\n"
    )


def over(kind, blob):
    return f'layer {{{{ name: "{blob}_{kind.lower()}" type: "{kind}" bottom: "{blob}" top: "{blob}" }}}}\n'


def net(filler='type: "xavier"', bias="value: 0", width=40, unit="ReLU", outputs=10, end=""):
    first = dense("h1", "data", width, filler, bias) + over(unit, "h1")
    second = dense("h2", "h1", width, filler, bias) + over(unit, "h2")
    end = end.replace("{", "{{").replace("}", "}}")
    return DATA + first + second + dense("out", "h2", outputs, filler) + (end or LOSS)


def deep(unit, layers=6):
    """Return a net of many layers."""
    names = ["data", *(f"d{number}" for number in range(layers))]
    text = "".join(dense(top, bottom, 40) + over(unit, top) for bottom, top in itertools.pairwise(names))
    return DATA + text + dense("out", names[-1], 10) + LOSS


def write_data(folder: Path, scale=1.0, labels=None):
    """Write ten patterns of 8 x 8 with noise: 1,000 items for training, 200 for testing."""
    rng = np.random.default_rng(5)
    patterns = rng.random((10, 1, 8, 8)) * (rng.random((10, 1, 8, 8)) < 0.4)
    for name, count in (("train", 1000), ("test", 200)):
        classes = rng.permutation(np.arange(count) % 10)
        data = scale * (patterns[classes] + 0.2 * rng.random((count, 1, 8, 8)))
        shown = classes if labels is None else labels(classes)
        np.savez(folder / f"{name}.npz", data=data.astype(np.float32), label=shown.astype(np.float32))


def write(folder: Path, text=None, changes=(), solver=()):
    """Write net and solver after replacements by regular expressions; return the solver's path."""
    text = (net() if text is None else text).format(folder=folder)
    settings = SOLVER.format(net=folder / "net.prototxt", folder=folder)
    for old, new in changes:
        text, count = re.subn(old, new, text)
        assert count, old
    for old, new in solver:
        settings, count = re.subn(old, new, settings)
        assert count, old
    (folder / "net.prototxt").write_text(text)
    (folder / "solver.prototxt").write_text(settings)
    return folder / "solver.prototxt"
