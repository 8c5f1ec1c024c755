"""The wheel and the source distribution: their files and metadata; the wheel works without the repository."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOLDERS = (".ci", "benchmarks", "docs", "examples", "models", "src", "tests", "tools")
FILES = ("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md", "constraints.txt")
FILES += (".gitignore", "pyproject.toml")
LEFT_BY_RUNS = ("__pycache__", "*.egg-info", "*_lmdb", "*.caffemodel", "*.solverstate", "*.h5", ".*_cache")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, 'build_' + sys.argv[1])('dist')"

NET = """
layer { name: "data" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 3 dim: 5 } shape { dim: 3 } data_filler { type: "gaussian" } data_filler { type: "constant" } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 3 snapshot_prefix: "tiny" solver_mode: CPU'


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the source distribution, built offline from a copy of the sources."""
    copy = tmp_path_factory.mktemp("sources")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns(*LEFT_BY_RUNS))
    for file in FILES:
        shutil.copy(ROOT / file, copy / file)
    # Files that a run creates must not be published.
    (copy / "examples/mnist/lenet_iter_1.caffemodel").write_bytes(b"weights")
    (copy / "examples/mnist/mnist_train_lmdb").mkdir()
    (copy / "examples/mnist/mnist_train_lmdb/data.mdb").write_bytes(b"digits")
    (copy / "examples/gabor/data").mkdir(exist_ok=True)
    (copy / "examples/gabor/data/patches.txt").write_text("patches.h5")
    (copy / "dist").mkdir()
    for kind in ("sdist", "wheel"):
        call([sys.executable, "-W", "error::DeprecationWarning", "-c", BUILD, kind], copy)
    return copy


@pytest.fixture(scope="module")
def wheel(built) -> zipfile.ZipFile:
    (path,) = (built / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def sdist(built) -> set[str]:
    """Return the files in the source distribution, relative to its root."""
    (path,) = (built / "dist").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def call(words: list[str | Path], folder: Path, **environment: str) -> str:
    """Run a command, which must succeed; return its output."""
    environment = {**os.environ, **environment}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_holds_the_package_and_nothing_else(built, wheel):
    package = {f"caffe/{name}" for name in files_below(built / "src/caffe")}
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == package
    assert {"caffe/py.typed", "caffe/proto/caffe.proto", "caffe/proto/caffe_pb2.pyi"} <= found


def test_the_wheel_tells_its_licence_links_and_commands(wheel):
    folder = f"cafetiere-{PROJECT['version']}.dist-info"
    metadata = email.message_from_bytes(wheel.read(f"{folder}/METADATA"))
    assert metadata["License-Expression"] == "BSD-2-Clause"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert wheel.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert not [text for text in metadata.get_all("Classifier") if text.startswith("License ::")]
    assert metadata.get_all("Project-URL") == [f"{name}, {url}" for name, url in PROJECT["urls"].items()]
    assert metadata["Requires-Python"]
    scripts = wheel.read(f"{folder}/entry_points.txt").decode()
    assert all(f"{name} = {target}" in scripts for name, target in PROJECT["scripts"].items())


def test_the_description_has_no_links_that_only_a_checkout_can_follow(wheel):
    description = email.message_from_bytes(wheel.read(f"cafetiere-{PROJECT['version']}.dist-info/METADATA"))
    text = description.get_payload(decode=True).decode()
    assert "make demo" in text
    targets = re.findall(r"\]\(([^)]*)\)|<(?:img|a) [^>]*(?:src|href)=\"([^\"]*)", text)
    assert not [target for target in targets if not "".join(target).startswith(("https://", "#"))]


def test_the_source_distribution_holds_what_a_checkout_holds(built, sdist):
    made = {"PKG-INFO", "setup.cfg"}
    left = {"examples/mnist/lenet_iter_1.caffemodel", "examples/mnist/mnist_train_lmdb/data.mdb"}
    made_by_scripts = re.compile(r"dist/|build/|examples/\w+/data/")
    expected = {name for name in files_below(built) - left if not made_by_scripts.match(name)}
    assert {name for name in (sdist - made) ^ expected if ".egg-info/" not in name} == set()
    for name in ("docs/data.md", "examples/mnist/lenet_solver.prototxt", "tests/conftest.py", "Makefile", "LICENSE"):
        assert name in sdist


@pytest.mark.long
def test_the_wheel_works_in_an_environment_of_its_own(built, tmp_path):
    environment, place = tmp_path / "environment", tmp_path / "place"
    place.mkdir()
    call([sys.executable, "-m", "venv", environment], place)
    (path,) = (built / "dist").glob("*.whl")
    pip = [environment / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    call([*pip, "-c", ROOT / "constraints.txt", path], place, PYTHONPATH="")
    caffe = environment / "bin/caffe"
    version = call([caffe, "--version"], place, PYTHONPATH="")
    assert version.startswith(f"caffe version 1.0.0\ncafetiere {PROJECT['version']}\ntorch ")
    (place / "net.prototxt").write_text(NET)
    (place / "solver.prototxt").write_text(SOLVER)
    call([caffe, "train", "-solver", "solver.prototxt"], place, PYTHONPATH="")
    assert (place / "tiny_iter_3.caffemodel").stat().st_size > 0


WITHOUT_EXTRAS = """
import sys

ABSENT = set(sys.argv[1].split(","))

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError("No module named " + name, name=name)

sys.meta_path.insert(0, Absent())
import caffe
from caffe import net, layers, solver
from caffe.cli import main
caffe.Net, caffe.SGDSolver, caffe.Classifier
assert not ABSENT & set(sys.modules)
sys.exit(main(["train", "-solver", "absent.prototxt"]))
"""
OPTIONAL = {
    *("openvino", "matplotlib", "plyvel", "optuna", "psycopg", "pymysql", "tensorboard", "mlxtend", "scipy", "skimage"),
    *("sklearn", "safetensors", "starlette", "uvicorn", "onnx", "onnxruntime"),
}


def test_the_package_works_without_its_extras(tmp_path):
    """The command starts, and reports the missing file."""
    command = [sys.executable, "-c", WITHOUT_EXTRAS, ",".join(OPTIONAL)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in run.stderr
    assert "absent.prototxt" in run.stderr
    assert run.returncode == 1
