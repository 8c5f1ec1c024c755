"""The effects of image preprocessing: mean, normalization, PCA and ZCA whitening, with covariance and spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caffe.errors import DataError, FileError, require_extra
from caffe.opencv import cv2

__all__ = ["Prepared", "draw", "prepare"]

_MOST, _SHOWN, _DIMENSIONS = 1024, 8, 144
_DAMPING = 0.01


@dataclass(frozen=True)
class Prepared:
    """A batch (N, C, H, W) after each preprocessing, by name, and the eigenvalues and eigenvectors of its covariance.

    `values` (D) are in descending order, with D = C H W; the columns of `vectors` (D, D) are the eigenvectors.
    """

    steps: dict[str, np.ndarray]
    values: np.ndarray
    vectors: np.ndarray


def prepare(images: np.ndarray) -> Prepared:
    """Preprocess images (N, C, H, W) in every way. Large images are reduced first.

        minus the mean    x - m                   m: the mean of each number over the items
        normalized        (x - m) / s             s: its standard deviation
        PCA-whitened      V' (x - m) / sqrt(l)    V, l: eigenvectors and eigenvalues of the covariance
        ZCA-whitened      V V' (x - m) / sqrt(l)

    A hundredth of the mean eigenvalue is added to each l, because the smallest ones are noise. Raises DataError.
    """
    if images.ndim != 4 or len(images) < 2:
        raise DataError(f"a batch of shape {images.shape} cannot be whitened; expected two images (N, C, H, W) or more")
    x = _smaller(images.astype(np.float64))
    shape, flat = x.shape, x.reshape(len(x), -1)
    centred = flat - flat.mean(0)
    deviation = centred.std(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    damped = np.sqrt(values + _DAMPING * max(float(values.mean()), 1e-12))
    whitened = centred @ vectors / damped
    steps = {
        "original": flat,
        "minus the mean": centred,
        "normalized": centred / np.where(deviation > 1e-6 * max(float(deviation.max()), 1e-12), deviation, 1),
        "PCA-whitened": whitened,
        "ZCA-whitened": whitened @ vectors.T,
    }
    return Prepared({name: step.reshape(shape) for name, step in steps.items()}, values, vectors)


def draw(prepared: Prepared, folder: str | Path) -> list[Path]:
    """Write images, covariance, spectrum and eigenvectors as .png into a folder. Raises MissingExtra and FileError."""
    figures: Any = require_extra("matplotlib.figure", "plot", "drawing pictures")
    makers = {"images": _images, "covariance": _covariance, "spectrum": _spectrum, "eigenvectors": _eigenvectors}
    paths = [Path(folder) / f"{name}.png" for name in makers]
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for path, make in zip(paths, makers.values(), strict=True):
            make(figures.Figure, prepared).savefig(path, dpi=110)
    except OSError as error:
        raise FileError(f"cannot write pictures into {folder}: {error.strerror}") from error
    return paths


def _smaller(images: np.ndarray) -> np.ndarray:
    """Reduce images to at most `_MOST` numbers each."""
    _, channels, height, width = images.shape
    scale = (_MOST / (channels * height * width)) ** 0.5
    if scale >= 1:
        return images
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    small = [[cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in image] for image in images]
    return np.array(small)


def _images(figure: Any, prepared: Prepared) -> Any:
    """Draw a row for each step, with a column for each of the first items."""
    count = min(_SHOWN, len(prepared.steps["normalized"]))
    page = figure(figsize=(1.3 + 1.1 * count, 1.25 * len(prepared.steps)), layout="constrained")
    axes = page.subplots(len(prepared.steps), count, squeeze=False)
    for row, (name, step) in zip(axes, prepared.steps.items(), strict=True):
        row[0].set_ylabel(name.replace(" ", "\n", 1), fontsize=8)
        for axis, image in zip(row, step, strict=False):
            _show(axis, image)
    return page


def _show(axis: Any, image: np.ndarray) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    shown = image[::-1].transpose(1, 2, 0) if len(image) == 3 else image[0]  # three channels are in BGR order
    low, high = np.percentile(shown, [1, 99])
    axis.imshow(np.clip((shown - low) / ((high - low) or 1), 0, 1), cmap="gray", vmin=0, vmax=1)


def _covariance(figure: Any, prepared: Prepared) -> Any:
    """Draw the covariance of some numbers, evenly sampled, after each step but the first."""
    names = list(prepared.steps)[1:]
    page = figure(figsize=(3.1 * len(names), 3.4), layout="constrained")
    page.suptitle("Covariance: the diagonal is the variance of each number, the other values are the covariances")
    for axis, name in zip(page.subplots(1, len(names)), names, strict=True):
        flat = prepared.steps[name].reshape(len(prepared.steps[name]), -1)
        chosen = np.unique(np.linspace(0, flat.shape[1] - 1, _DIMENSIONS).round().astype(int))
        matrix = flat[:, chosen].T @ flat[:, chosen] / len(flat)
        limit = float(np.abs(np.diagonal(matrix)).max()) or 1.0
        picture = axis.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axis.set_title(name, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        page.colorbar(picture, ax=axis, shrink=0.75)
    return page


def _spectrum(figure: Any, prepared: Prepared) -> Any:
    """Draw the eigenvalues, and the fraction of the variance in the first ones."""
    values = prepared.values[prepared.values > 1e-9 * max(float(prepared.values[0]), 1e-12)]
    page = figure(figsize=(7.5, 3.6), layout="constrained")
    left, right = page.subplots(1, 2)
    left.semilogy(np.arange(1, len(values) + 1), values, color="tab:blue")
    left.set_xlabel("number of the eigenvalue")
    left.set_ylabel("variance along its vector")
    left.set_title("Spectrum of the covariance")
    share = np.cumsum(values) / max(float(values.sum()), 1e-12)
    enough = int(np.searchsorted(share, 0.99)) + 1
    right.plot(np.arange(1, len(values) + 1), share, color="tab:blue")
    right.axvline(enough, color="tab:orange", linestyle="--", label=f"99 % in {enough} of {len(prepared.values)}")
    right.set_xlabel("eigenvectors that are kept")
    right.set_ylabel("share of the variance")
    right.set_ylim(0, 1.02)
    right.legend(loc="lower right")
    for axis in (left, right):
        axis.grid(alpha=0.25)
    return page


def _eigenvectors(figure: Any, prepared: Prepared) -> Any:
    """Draw the first eigenvectors as images."""
    shape = prepared.steps["normalized"].shape[1:]
    count = min(16, len(prepared.values))
    page = figure(figsize=(9, 2.6), layout="constrained")
    page.suptitle("The first eigenvectors: the directions of largest variance")
    for number, axis in enumerate(page.subplots(2, 8, squeeze=False).ravel()):
        if number < count:
            _show(axis, prepared.vectors[:, number].reshape(shape))
        else:
            axis.set_axis_off()
    return page
