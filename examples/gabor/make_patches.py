"""Cut patches out of photographs, whiten them, and write them as an HDF5 file.

    python examples/gabor/make_patches.py [--images FOLDER]

The photographs are those of FOLDER, or those in scikit-image or scikit-learn, or the one in matplotlib. Whitening
computes the principal components of the patches and divides each by its standard deviation; the weakest components are
omitted. `data` (N, 60) holds the components. `pixels` (60, 256) in whitening.npz converts components back to pixels.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import cv2
import h5py
import numpy as np

SIDE = 12
PLACES = {
    "skimage": ("data", ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "gravel.png", "grass.png")),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
    "matplotlib": ("mpl-data/sample_data", ("grace_hopper.jpg",)),
}


def photographs(folder: Path | None = None) -> list[Path]:
    """The pictures of a folder, or of the first package that is installed and has some."""
    if folder is not None:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for package, (inside, names) in PLACES.items():
        spec = importlib.util.find_spec(package)  # the package itself, which may need others, is not imported
        if spec is None or not spec.submodule_search_locations:
            continue
        paths = [Path(spec.submodule_search_locations[0]) / inside / name for name in names]
        if found := [path for path in paths if path.is_file()]:
            return found
    return []


def patches(paths: list[Path], count: int, rng: np.random.Generator) -> np.ndarray:
    """Grey patches (count, SIDE * SIDE) of mean 0, as many from each photograph, none of them flat."""
    found = []
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32)
        image = np.log1p(image)
        windows = np.lib.stride_tricks.sliding_window_view(image, (SIDE, SIDE))
        tops, lefts = (rng.integers(0, size, 3 * count // len(paths)) for size in windows.shape[:2])
        made = windows[tops, lefts].reshape(len(tops), -1)
        made = made - made.mean(1, keepdims=True)
        found.append(made[np.argsort(-made.std(1))[: -(-count // len(paths))]])
    mixed = np.concatenate(found)
    return mixed[rng.permutation(len(mixed))[:count]]


def whitening(values: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a matrix (pixels, kept) that whitens patches, and its inverse (kept, pixels)."""
    strength, direction = np.linalg.eigh(values.T @ values / len(values))
    strength, direction = strength[::-1][:kept], direction[:, ::-1][:, :kept]
    return direction / np.sqrt(strength), (direction * np.sqrt(strength)).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder with photographs")
    parser.add_argument("--output", type=Path, default=Path("examples/gabor/data"), help="folder")
    parser.add_argument("--count", type=int, default=40_000, help="patches")
    parser.add_argument("--components", type=int, default=60, help="that are kept")
    options = parser.parse_args()
    paths = photographs(options.images)
    if not paths:
        raise SystemExit("no photographs found; name a folder with --images, or install scikit-image")
    values = patches(paths, options.count, np.random.default_rng(1))
    white, back = whitening(values, options.components)
    options.output.mkdir(parents=True, exist_ok=True)
    with h5py.File(options.output / "patches.h5", "w") as file:
        file["data"] = (values @ white).astype(np.float32)
    (options.output / "patches.txt").write_text(f"{(options.output / 'patches.h5').as_posix()}\n")
    np.savez(options.output / "whitening.npz", white=white, pixels=back)
    print(f"{options.output / 'patches.txt'}: {len(values)} patches of {', '.join(path.name for path in paths)}")


if __name__ == "__main__":
    main()
