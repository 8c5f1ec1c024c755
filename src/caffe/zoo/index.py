"""The zoo: the model folders of the package, and those that the user added."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from caffe import models
from caffe.data.tools.download import cache_folder, download
from caffe.errors import FileError, did_you_mean
from caffe.proto import text
from caffe.zoo.folder import ModelFolder

__all__ = ["add", "entries", "find", "get", "own_folder"]

_SHIPPED = Path(__file__).parent / "models"
_KEPT = ("*.prototxt", "*.md", "*.txt", "*.caffemodel", "*.caffemodel.h5", "*.npy", "*.binaryproto")


def own_folder() -> Path:
    """Return the folder for added models, and for models whose weights were downloaded."""
    return cache_folder() / "zoo"


def entries() -> dict[str, ModelFolder]:
    """Return all models by name. The user's models override those of the package."""
    found: dict[str, ModelFolder] = {}
    for top in (_SHIPPED, own_folder()):
        for path in sorted(top.iterdir()) if top.is_dir() else ():
            if path.is_dir() and ModelFolder.is_one(path):
                found[path.name] = ModelFolder.open(path)
    return dict(sorted(found.items()))


def find(name: str) -> ModelFolder:
    """Return the model with that name, or in the folder of that path. Raises FileError for an unknown one."""
    known = entries()
    if name in known:
        return known[name]
    if Path(name).is_dir():
        return ModelFolder.open(name)
    raise FileError(
        f'there is no model "{name}"{did_you_mean(name, known)}: give the folder of a model, or one of: '
        f"{', '.join(known)}"
    )


def get(name: str, progress: Callable[[int, int], None] = lambda *_: None) -> ModelFolder:
    """Return the model with its net and its weights, which are downloaded if missing.

    Models of the package are first copied to the user's folder. For a path, the weights are downloaded to that folder.
    """
    model = find(name)
    if not model.trained:
        if model.path.parent == _SHIPPED:
            model = _copied(model.path, own_folder() / model.path.name)
        _write_net(model)
        _download(model, progress)
    return model


def add(folder: str | Path) -> ModelFolder:
    """Copy a model folder to the user's zoo, under the folder's name. Raises FileError if the name exists."""
    model = ModelFolder.open(folder)
    if not model.facts.get("builder"):
        _ = model.net  # raises an error if there is no front matter
    target = own_folder() / Path(folder).resolve().name
    if target.exists():
        raise FileError(f'"{target}": already exists; remove it to add the model again')
    return _copied(model.path, target)


def _copied(source: Path, target: Path) -> ModelFolder:
    target.mkdir(parents=True, exist_ok=True)
    for pattern in _KEPT:
        for path in source.glob(pattern):
            if not (target / path.name).exists():
                shutil.copyfile(path, target / path.name)
    return ModelFolder.open(target)


def _write_net(model: ModelFolder) -> None:
    """Write the deploy.prototxt of a model that names a builder of this package."""
    builder = model.facts.get("builder")
    if not builder or (model.path / "deploy.prototxt").exists():
        return
    if builder not in models.__all__:
        raise FileError(f'"{model.path}": the readme names the builder "{builder}", which caffe.models does not have')
    build: Any = getattr(models, builder)
    text.write(model.path / "deploy.prototxt", build(batch=1))


def _download(model: ModelFolder, progress: Callable[[int, int], None]) -> None:
    facts = model.facts
    urls = [facts.get("caffemodel_url", ""), *facts.get("mirrors", "").split()]
    name = facts.get("caffemodel") or urls[0].rpartition("/")[2]
    if not name:
        raise FileError(f'"{model.path}": the readme names no caffemodel; put the weights into the folder')
    download([url for url in urls if url], model.path / name, facts.get("sha1", ""), progress)
