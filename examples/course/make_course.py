"""Creates the data, nets and solvers of the course. They are small, so that each run takes seconds.

    python examples/course/make_course.py

Everything is written to the folder `course`. The digits are drawn by OpenCV, shifted, blurred and with noise, so
nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffe.exercise.data import drawn_digits
from caffe.exercise.nets import conv, dense, loss, over, pool

FOLDER = Path("course")
SOLVER = """# {title}
net: "course/{net}.prototxt"
base_lr: {rate}
lr_policy: "fixed"
momentum: 0.9
{more}max_iter: {steps}
test_iter: 5  # 500 digits that were not seen in training
test_interval: 50
test_initialization: false
display: 50
snapshot: {steps}
snapshot_prefix: "course/{name}"
random_seed: 1
"""


def data(name: str, batch: int = 50) -> str:
    """Return the two data layers."""
    text = ""
    for phase, part, size in (("TRAIN", name, batch), ("TEST", "test", 100)):
        source = f'array_data_param {{ source: "course/{part}.npz" batch_size: {size} shuffle: true }}'
        text += f'layer {{\n  name: "data" type: "ArrayData" top: "data" top: "label"\n  include {{ phase: {phase} }}\n'
        text += f"  {source}\n}}\n"
    return text


def deep(filler: str, unit: str = "TanH", norm: bool = False, layers: int = 8) -> str:
    """Return a net of many fully connected layers."""
    text, bottom = data("train"), "data"
    for number in range(1, layers + 1):
        name = f"ip{number}"
        text += dense(name, bottom, 60, filler)
        text += over("BatchNorm", name) + over("Scale", name, "scale_param { bias_term: true }") if norm else ""
        text, bottom = text + over(unit, name), name
    return text + dense("out", bottom, 10) + loss()


def convolutional(source: str = "train", drop: float = 0.0, width: int = 60) -> str:
    """Return a net of a convolution, pooling, and two fully connected layers."""
    text = data(source) + conv("conv1", "data", "num_output: 12 kernel_size: 5") + over("ReLU", "conv1")
    text += pool("conv1", "pool1") + dense("ip1", "pool1", width) + over("ReLU", "ip1")
    if drop:
        text += over("Dropout", "ip1", f"dropout_param {{ dropout_ratio: {drop} }}")
    return text + dense("out", "ip1", 10) + loss()


def write(name: str, net: str, title: str, rate: float = 0.02, steps: int = 300, more: str = "") -> None:
    """A net and its solver."""
    (FOLDER / f"{name}.prototxt").write_text(f'name: "{name}"\n{net}')
    text = SOLVER.format(title=title, net=name, name=name, rate=rate, steps=steps, more=more)
    (FOLDER / f"{name}_solver.prototxt").write_text(text)


def main() -> None:
    """Write all files."""
    FOLDER.mkdir(exist_ok=True)
    images, labels = drawn_digits(1, 3000, 16)
    parts = {"train": slice(0, 2500), "test": slice(2500, 3000), "few": slice(0, 150)}
    for name, part in parts.items():
        arrays = {"data": images[part].astype(np.float32), "label": labels[part].astype(np.float32)}
        np.savez(FOLDER / f"{name}.npz", **arrays)  # type: ignore[arg-type]
    write("digits", convolutional(), "a small convolutional net", more="weight_decay: 0.0005\n")
    small, large = ('type: "gaussian" std: 0.01', 'type: "gaussian" std: 1')
    write("init_small", deep(small), "initial weights that are too small")
    write("init_large", deep(large), "initial weights that are too large")
    write("init_xavier", deep('type: "xavier"'), "initial weights that suit the sizes of the layers")
    write("bn_without", deep(small, "ReLU"), "a deep net without batch normalization")
    write("bn_with", deep(small, "ReLU", norm=True), "the same with batch normalization")
    write("drop_without", convolutional("few", width=200), "150 digits to learn from", steps=600)
    write("drop_with", convolutional("few", 0.5, width=200), "the same with dropout", steps=600)
    print(f"written: {len(list(FOLDER.iterdir()))} files in {FOLDER}")


if __name__ == "__main__":
    main()
