"""A model folder in Caffe's form: prototxts, and a readme.md whose front matter names the weights."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from caffe.errors import FileError
from caffe.proto import files
from caffe.zoo.preparation import Preparation

__all__ = ["ModelFolder", "front_matter"]

_READMES = ("readme.md", "README.md", "Readme.md")


def front_matter(path: str | Path) -> dict[str, str]:
    """Read the lines `key: value` between the two lines `---` at the beginning of a file; keys in lower case."""
    lines = files.read_bytes(path).decode("utf-8-sig", "replace").splitlines()
    if not lines or lines[0].strip() != "---":
        raise FileError(f'{path}: has no front matter; expected "---", lines "key: value", and "---" at the beginning')
    facts: dict[str, str] = {}
    for number, line in enumerate(lines[1:], 2):
        if line.strip() == "---":
            return facts
        key, colon, value = line.partition(":")
        if colon:
            facts[key.strip().lower()] = value.strip().strip("\"'")
        elif line.strip() and not line.strip().startswith("#"):
            raise FileError(f'{path}:{number}: "{line.strip()}"; expected "key: value" in the front matter')
    raise FileError(f'{path}: the front matter has no end; expected a second line "---"')


@dataclass(frozen=True)
class ModelFolder:
    """A folder with a net and its readme.

    `facts` is the front matter: Caffe's keys (name, caffemodel, caffemodel_url, sha1, license, gist_id), and additional
    ones: net (the deploy prototxt), labels, snapshot_prefix, and those of `Preparation`.
    """

    path: Path
    facts: Mapping[str, str]

    @classmethod
    def open(cls, folder: str | Path) -> ModelFolder:
        """Open a folder. Raises FileError if it has no readme with front matter."""
        top = Path(folder)
        for name in _READMES:
            if (top / name).is_file():
                return cls(top, front_matter(top / name))
        raise FileError(f'"{folder}": is not a model folder; expected a readme.md with front matter in it')

    @staticmethod
    def is_one(folder: str | Path) -> bool:
        """Whether a folder has a readme with front matter."""
        try:
            ModelFolder.open(folder)
        except FileError:
            return False
        return True

    @property
    def name(self) -> str:
        return self.facts.get("name") or self.path.name

    @property
    def net(self) -> Path:
        """The deploy net."""
        named = self.facts.get("net")
        candidates = [self.path / named] if named else [self.path / "deploy.prototxt"]
        candidates += [] if named else sorted(self.path.glob("*deploy*.prototxt"))
        for path in candidates:
            if path.is_file():
                return path
        raise FileError(f'"{self.path}": has no {candidates[0].name}; name the net by "net:" in the readme')

    @property
    def weights(self) -> Path:
        """The file of weights; for a project the best snapshot, or else the newest one."""
        found = self._weights()
        if found is not None:
            return found
        if prefix := self.facts.get("snapshot_prefix"):
            raise FileError(
                f'there is no snapshot "{self.path / prefix}_iter_*.caffemodel"; '
                f"train first: cd {self.path}; caffe train"
            )
        wanted = self.path / (self.facts.get("caffemodel") or "*.caffemodel")
        where = self.facts.get("caffemodel_url")
        way = f"get it with: caffe zoo get {self.path.name}" if where else "put it there manually"
        raise FileError(f'"{wanted}": no such file; {way}')

    def _weights(self) -> Path | None:
        named = self.facts.get("caffemodel")
        if named and (self.path / named).is_file():
            return self.path / named
        if prefix := self.facts.get("snapshot_prefix"):
            return best_snapshot(str(self.path / prefix))
        found = [] if named else sorted(self.path.glob("*.caffemodel"))
        return found[0] if len(found) == 1 else None

    @property
    def trained(self) -> bool:
        """Whether the weights exist."""
        return self._weights() is not None

    @property
    def deploy_files(self) -> list[Path]:
        """What is needed to use the model elsewhere: net, weights, labels or columns, and the readme with the rest."""
        named = [self.path / (self.facts.get("labels") or "labels.txt")]
        named += [self.path / self.facts["columns"]] if "columns" in self.facts else []
        readme = next(self.path / name for name in _READMES if (self.path / name).is_file())
        return [self.net, self.weights, *(path for path in named if path.is_file()), readme]

    def labels(self) -> list[str]:
        """The names of the classes; empty if the folder has none."""
        name = self.facts.get("labels", "")
        path = self.path / (name or "labels.txt")
        if not name and not path.is_file():
            return []
        return files.read_bytes(path).decode("utf-8", "replace").rstrip("\n").splitlines()

    def preparation(self) -> Preparation:
        """The preparation of pictures for the net."""
        return Preparation.from_facts(self.facts, str(self.path))


def best_snapshot(prefix: str) -> Path | None:
    """Return the weights PREFIX_best.caffemodel, or those of the highest iteration with that prefix."""
    best = Path(f"{prefix}_best.caffemodel")
    if best.is_file():
        return best
    found = {}
    for path in glob.glob(f"{glob.escape(prefix)}_iter_*.caffemodel*"):
        if match := re.fullmatch(r"_iter_(\d+)\.caffemodel(\.h5)?", path[len(prefix) :]):
            found[int(match[1])] = path
    return Path(found[max(found)]) if found else None


def relative(path: str | Path, folder: str | Path) -> str:
    """Return a path relative to a folder."""
    return os.path.relpath(path, folder)
