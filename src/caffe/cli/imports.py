"""Loads the files and modules of `-import`, which define the user's layer types."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from caffe import user_code
from caffe.errors import CaffeError, FileError

__all__ = ["load"]


def load(names: str) -> None:
    """Import each of the comma-separated `names`: the path of a Python file, or a module name.

    Modules are searched on Python's path, then in the working directory. An error in one becomes a `CaffeError` that
    names the file and the line.
    """
    if "" not in sys.path:
        sys.path.append("")
    importlib.invalidate_caches()
    for name in filter(None, (part.strip() for part in names.split(","))):
        try:
            if name.endswith(".py") or os.sep in name:
                _load_file(Path(name))
            else:
                importlib.import_module(name)
        except CaffeError as error:
            raise error.reworded(f"-import {name}: {error}") from error.__cause__
        except ModuleNotFoundError as error:
            if error.name and f"{name}.".startswith(f"{error.name}."):
                raise CaffeError(
                    f'-import {name}: no module "{error.name}"; looked in the working directory ({os.getcwd()}), '
                    "$PYTHONPATH and the installed packages; a file may also be given by its path"
                ) from error
            raise _blame(name, error) from error
        except Exception as error:
            raise _blame(name, error) from error


def _load_file(path: Path) -> ModuleType:
    """Load the file once as the module of its name, so that `import` finds the same module afterwards."""
    if not os.path.isfile(path):
        raise FileError("no such file; give a Python file, or a module's name without .py")
    loaded = sys.modules.get(path.stem)
    if loaded is not None:
        if Path(loaded.__file__ or "").resolve() == path.resolve():
            return loaded
        raise FileError(f'a module "{path.stem}" is loaded already, from {loaded.__file__}; rename the file')
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise FileError("is not a Python file")
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _blame(name: str, error: Exception) -> CaffeError:
    place = user_code.place(error, own=(__file__,))
    fact = f"-import {name}: {type(error).__name__}: {error}{f' ({place})' if place else ''}"
    return CaffeError("; ".join(filter(None, (fact, user_code.remedy(error)))))
