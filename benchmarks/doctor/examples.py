"""The solvers of examples/ whose data can be generated here, as healthy runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from caffe.data.tools import mnist

__all__ = ["SOLVERS", "make"]

SOURCE = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = ("hdf5_classification/make_data.py", "recurrent/make_data.py")
SOLVERS = (
    "hdf5_classification/solver",
    "hdf5_classification/nonlinear_solver",
    "recurrent/lstm_solver",
    "mnist/lenet_solver",
    "mnist/lenet_adadelta_solver",
    "mnist/lenet_demo_solver",
    "mnist/lenet_multistep_solver",
    "mnist/lenet_solver_adam",
    "mnist/lenet_solver_rmsprop",
    "mnist/mnist_autoencoder_solver",
    "mnist/mnist_autoencoder_solver_adadelta",
    "mnist/mnist_autoencoder_solver_adagrad",
    "mnist/mnist_autoencoder_solver_nesterov",
)


def make(folder: Path) -> None:
    """Copy examples/ to a folder and generate their data there, unless this was done."""
    if (folder / "examples_done").exists():
        return
    shutil.copytree(SOURCE, folder / "examples", dirs_exist_ok=True)
    for script in SCRIPTS:
        subprocess.run([sys.executable, f"examples/{script}"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    mnist.make(folder / "examples" / "mnist", overwrite=True)
    (folder / "examples_done").write_text("")
