"""A classifier from a folder of pictures: `caffe new`, Keras 3 on torch, and fastai, with the same net and data.

python -m benchmarks.first_hour                       the three, one after the other
python -m benchmarks.first_hour -epochs 10 -only ours,keras
python -m benchmarks.first_hour -images FOLDER        another folder with train/CLASS and val/CLASS

Each program runs in its own process with one thread. The time is measured from the start of Python to the accuracy. The
net is CIFAR quick at 64 x 64 pixels, trained from scratch for the same number of epochs. Each program uses the learning
rate and the schedule that its documentation shows first. Lines are commands, or lines of Python that are not empty.
Without -images the pictures are those of `caffe data materials`. For a program that is not installed, the table shows
the error.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.arguments import check_names, words

OURS = """
caffe new project -images {images} -epochs {epochs} -batch 32 -net cifar_quick -size 64
cd project
caffe train
caffe test
"""
KERAS = """
import os
import keras
import numpy as np
from keras import layers
def pictures(folder):
    classes = sorted(os.listdir(folder))
    files = [(os.path.join(folder, name, file), label) for label, name in enumerate(classes)
             for file in os.listdir(os.path.join(folder, name))]
    images = [keras.utils.img_to_array(keras.utils.load_img(path, color_mode="grayscale", target_size=(64, 64)))
              for path, _ in files]
    return np.stack(images), np.array([label for _, label in files]), classes
train_x, train_y, classes = pictures("{images}/train")
val_x, val_y, _ = pictures("{images}/val")
model = keras.Sequential([
    layers.Input((64, 64, 1)), layers.Rescaling(1 / 127.5, offset=-1),
    layers.Conv2D(32, 5, padding="same"), layers.MaxPooling2D(3, 2), layers.ReLU(),
    layers.Conv2D(32, 5, padding="same", activation="relu"), layers.AveragePooling2D(3, 2),
    layers.Conv2D(64, 5, padding="same", activation="relu"), layers.AveragePooling2D(3, 2),
    layers.Flatten(), layers.Dense(64), layers.Dense(len(classes), activation="softmax"),
])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
best = keras.callbacks.ModelCheckpoint("best.keras", monitor="val_accuracy", save_best_only=True)
model.fit(train_x, train_y, batch_size=32, epochs={epochs}, validation_data=(val_x, val_y), callbacks=[best], verbose=0)
print("accuracy", keras.models.load_model("best.keras").evaluate(val_x, val_y, verbose=0)[1])
"""
FASTAI = """
from fastai.vision.all import *
data = ImageDataLoaders.from_folder("{images}", train="train", valid="val", img_cls=PILImageBW, bs=32, num_workers=0)
net = nn.Sequential(
    nn.Conv2d(1, 32, 5, padding=2), nn.MaxPool2d(3, 2), nn.ReLU(),
    nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2),
    nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2),
    nn.Flatten(), nn.LazyLinear(64), nn.Linear(64, data.c),
)
net(data.one_batch()[0])
learner = Learner(data, net, loss_func=CrossEntropyLossFlat(), metrics=accuracy)
learner.fit_one_cycle({epochs})
print("accuracy", learner.validate()[1])
"""
PROGRAMS = {"ours": OURS, "keras": KERAS, "fastai": FASTAI}


def run(name: str, folder: Path, images: Path, epochs: int) -> tuple[str, float]:
    """The accuracy, or the error, of a program, and the seconds that it took."""
    text = PROGRAMS[name].format(images=images, epochs=epochs)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "KERAS_BACKEND": "torch", "TQDM_DISABLE": "1"}
    if name == "ours":
        words = ["bash", "-ec", text.replace("caffe ", f"{sys.executable} -W ignore -m caffe ")]
    else:
        (folder / "program.py").write_text(text)
        words = [sys.executable, "-W", "ignore", "program.py"]
    begun = time.perf_counter()
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    took = time.perf_counter() - begun
    found = re.findall(r"^accuracy ([\d.]+)", done.stdout, re.M)
    if done.returncode or not found:
        return (done.stderr.strip().splitlines() or ["no accuracy was printed"])[-1], took
    return f"{100 * float(found[-1]):.1f} %", took


def main() -> None:
    """Run the programs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-images", type=Path)
    parser.add_argument("-epochs", type=int, default=15)
    parser.add_argument("-only", type=words, default=list(PROGRAMS))
    given = parser.parse_args()
    check_names(parser, "program", given.only, PROGRAMS)
    with tempfile.TemporaryDirectory() as top:
        images = given.images.resolve() if given.images else Path(top, "materials")
        if not given.images:
            subprocess.run([sys.executable, "-W", "ignore", "-m", "caffe", "data", "materials", "-o", top], check=True)
        print("| program | lines | seconds | accuracy |\n| --- | --- | --- | --- |", flush=True)
        for name in given.only:
            folder = Path(top, f"run_{name}")
            folder.mkdir()
            lines = len(PROGRAMS[name].strip().splitlines())
            result, took = run(name, folder, images, given.epochs)
            print(f"| {name} | {lines} | {took:.0f} | {result} |", flush=True)


if __name__ == "__main__":
    main()
