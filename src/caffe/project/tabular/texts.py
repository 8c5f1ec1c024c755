"""The text files of a project for tables: nets, solver and README."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from caffe.project.plan import fitting_batch
from caffe.project.tabular.columns import CLASSIFY, Column, Columns
from caffe.project.texts import commented, front_matter, seen

__all__ = ["TablePlan", "net", "readme", "solver"]

_STEPS = 3000  # least iterations, for a small table


@dataclass(frozen=True)
class TablePlan:
    """The content of the files. 0 means an automatic choice of batch and epochs."""

    name: str
    columns: Columns
    train: int
    val: int
    wanted_batch: int = 0
    wanted_epochs: int = 0

    @property
    def classifies(self) -> bool:
        return self.columns.task == CLASSIFY

    @property
    def batch(self) -> int:
        """The batch size: an eighth of the training rows, from 4 to 64."""
        return self.wanted_batch or min(64, 2 ** int(math.log2(max(4, self.train // 8))))

    @property
    def iterations(self) -> int:
        """The iterations of an epoch."""
        return math.ceil(self.train / self.batch)

    @property
    def epochs(self) -> int:
        return self.wanted_epochs or min(200, max(10, math.ceil(_STEPS / self.iterations)))

    @property
    def test_batch(self) -> int:
        return fitting_batch(self.val)

    @property
    def test_iter(self) -> int:
        return math.ceil(self.val / self.test_batch)

    @property
    def hidden(self) -> tuple[int, int]:
        """The numbers of outputs of the two hidden layers, which grow with the number of columns."""
        first = min(256, max(32, 2 ** math.ceil(math.log2(2 * self.columns.width))))
        return first, first // 2


def net(plan: TablePlan, deploy: bool) -> str:
    """`train_val.prototxt` or `deploy.prototxt`."""
    outputs = len(plan.columns.classes) or 1
    if deploy:
        text = ["# The net for use: a row of columns.json in, " + _what_comes_out(plan)]
        text += [f'name: "{plan.name}"', _input(plan)]
    else:
        text = [f"# Two hidden layers for {plan.columns.width} values of {len(plan.columns.columns)} columns."]
        text += [f'name: "{plan.name}"', _data(plan, "TRAIN"), _data(plan, "TEST")]
    below = "data"
    for number, size in enumerate(plan.hidden, 1):
        text += [_product(f"ip{number}", below, size), _layer(f"relu{number}", "ReLU", [f"ip{number}"], f"ip{number}")]
        below = f"ip{number}"
    text.append(_product("score", below, outputs))
    if deploy:
        return "\n".join([*text, *([_layer("prob", "Softmax", ["score"], "prob")] if plan.classifies else [])]) + "\n"
    loss = "SoftmaxWithLoss" if plan.classifies else "EuclideanLoss"
    text.append(_layer("loss", loss, ["score", "label"], "loss"))
    if plan.classifies:
        text.append(_layer("accuracy", "Accuracy", ["score", "label"], "accuracy", "  include { phase: TEST }\n"))
    return "\n".join(text) + "\n"


def _what_comes_out(plan: TablePlan) -> str:
    if plan.classifies:
        return "the probability of each line of labels.txt out."
    return f"({plan.columns.label} - {plan.columns.mean:.6g}) / {plan.columns.std:.6g} out."


def _layer(name: str, kind: str, bottoms: Sequence[str], top: str, more: str = "") -> str:
    reads = "".join(f'  bottom: "{bottom}"\n' for bottom in bottoms)
    return f'layer {{\n  name: "{name}"\n  type: "{kind}"\n{reads}  top: "{top}"\n{more}}}'


def _product(name: str, bottom: str, outputs: int) -> str:
    options = f'    num_output: {outputs}\n    weight_filler {{ type: "msra" }}\n'
    return _layer(name, "InnerProduct", [bottom], name, f"  inner_product_param {{\n{options}  }}\n")


def _input(plan: TablePlan) -> str:
    return _layer("data", "Input", [], "data", f"  input_param {{ shape {{ dim: [1, {plan.columns.width}] }} }}\n")


def _data(plan: TablePlan, phase: str) -> str:
    train = phase == "TRAIN"
    part, rows, batch = ("train", plan.train, plan.batch) if train else ("val", plan.val, plan.test_batch)
    shuffle = "    shuffle: true  # a different order in each epoch\n" if train else ""
    return (
        f'layer {{\n  name: "data"\n  type: "HDF5Data"\n  top: "data"\n  top: "label"\n  include {{ phase: {phase} }}\n'
        f'  hdf5_data_param {{\n    source: "{part}_files.txt"  # names {part}.h5: {rows:,} rows\n'
        f"    batch_size: {batch}\n{shuffle}  }}\n}}"
    )


def solver(plan: TablePlan) -> str:
    """`solver.prototxt`."""
    each = plan.iterations
    patience = max(10, plan.epochs // 4)
    return commented(
        [
            ('net: "train_val.prototxt"', "the net, with its two data layers"),
            ('type: "Adam"', "Adam adapts the step of each weight, which suits columns of different kinds"),
            (f"test_iter: {plan.test_iter}", f"batches of a test: all {plan.val:,} validation rows"),
            (f"test_interval: {each}", f"a test after each epoch ({plan.train:,} rows / {plan.batch} a batch)"),
            ("test_initialization: false", "nothing is learned yet, so nothing is tested"),
            (
                "base_lr: 0.002",
                "the learning rate: lower it if the loss becomes NaN, raise it if the loss hardly falls",
            ),
            ('lr_policy: "poly"', "the rate decreases linearly to 0, so that training converges"),
            ("power: 1", "the straight line"),
            ("momentum: 0.9", "each step keeps 0.9 of the previous one"),
            ("momentum2: 0.999", "the running mean of squared gradients, by which the step of each weight is divided"),
            ("weight_decay: 0.0005", "large weights are reduced a little, against overfitting"),
            (f"max_iter: {plan.epochs * each}", f"{plan.epochs} epochs of {each} iterations"),
            (f"display: {max(1, each)}", "a line in the log per epoch"),
            (f"snapshot: {max(1, plan.epochs // 5) * each}", "iterations between two snapshots"),
            (f'snapshot_prefix: "snapshots/{plan.name}"', "under this name"),
            ("random_seed: 1", "the same run each time; another seed gives another one"),
            (
                "keep_best: true",
                "save the weights of the best test (for BVLC Caffe, remove this line and the next two)",
            ),
            ("keep_last: 2", "keep the last two of the other snapshots"),
            (f"early_stop {{ patience: {patience} }}", "stop after this number of tests without improvement"),
        ]
    )


def readme(plan: TablePlan, facts: Mapping[str, str], notes: Sequence[str]) -> str:
    """Return README.md: front matter, commands, the conversion of cells, and the notes about the data."""
    columns, label = plan.columns, plan.columns.label
    if plan.classifies:
        what = f"A net that predicts {label}, one of {len(columns.classes)} classes: {', '.join(columns.classes[:10])}"
    else:
        what = f"A net that predicts {label}, a number, for each row of a table"
    kinds = "".join(f"| {each.name} | {_kind(each)} |\n" for each in columns.columns)
    return f"""{front_matter(facts)}# {plan.name}

{what}. The commands, in this folder:

```
caffe train
caffe test
caffe classify TABLE.csv OUT.csv
caffe doctor solver.prototxt
```

{plan.train:,} rows for training, {plan.val:,} for validation. The conversion of cells uses statistics
of the training rows, which are stored in columns.json:

| column | input of the net |
| --- | --- |
{kinds}
{seen(notes)}"""


def _kind(column: Column) -> str:
    if column.kind == "number":
        text = f"(x - {column.mean:.6g}) / {column.std:.6g}; 0 if the cell is missing"
        return text + (", and a second input that is 1 if the cell is missing" if column.missing else "")
    words = [word or "(missing)" for word in column.values]
    return f"one-hot vector over {', '.join(words[:8])}{' ...' if len(words) > 8 else ''}"
