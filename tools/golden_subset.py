"""Copy the part of the reference files that is stored in the repository.

    python tools/golden_subset.py REFERENCE_FOLDER

`tests/golden` contains results of real Caffe for each layer type, for nets, solvers and pycaffe's helpers, so that the
tests compare with Caffe without further files. The environment variable CAFETIERE_SHARED gives the folder of the whole
set, with data, logs and models.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

PARTS = ("layers", "nets", "solvers", "pycaffe", "logs", "api.json", "errors.json", "schema.json")
TARGET = Path(__file__).parent.parent / "tests" / "golden"
MOST = 3 * 2**20


def main(source: Path) -> None:
    """Replace the copy by the current content of `source`/golden."""
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    for part in PARTS:
        path = source / "golden" / part
        copy = shutil.copytree if path.is_dir() else shutil.copyfile
        copy(path, TARGET / part, **({"copy_function": shutil.copyfile} if path.is_dir() else {}))
    files = [path for path in TARGET.rglob("*") if path.is_file()]
    for path in files:
        path.chmod(0o644)
    size = sum(path.stat().st_size for path in files)
    print(f"{len(files)} files, {size / 2**20:.2f} MiB in {TARGET}")
    if size > MOST:
        sys.exit(f"that is more than {MOST / 2**20:.0f} MiB; omit some parts")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="REFERENCE_FOLDER", help="a folder that contains golden/")
    source = parser.parse_args().folder
    if not (source / "golden").is_dir():
        parser.error(f"{source} has no folder golden")
    main(source)
