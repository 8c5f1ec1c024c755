"""Statistics of a database's images: mean, standard deviation, principal components."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np

from caffe.data.databases.base import RecordSource, show_key
from caffe.data.databases.datum import DatumReader
from caffe.data.pipeline.pool import ordered
from caffe.errors import DataError

__all__ = ["Moments", "components", "images", "measure"]

_BLOCK = 256  # images per matrix multiplication
_MOST = 8192  # largest number of values per image for which the covariance is computed: 512 MB


class Moments:
    """Sums over images of one shape (C, H, W): of the values and, if asked, of their squares and products."""

    def __init__(self, shape: tuple[int, ...], squares: bool = False, products: bool = False) -> None:
        size = int(np.prod(shape))
        if products and size > _MOST:
            raise DataError(f"an image has {size} values, too many for principal components (at most {_MOST}); resize")
        self.shape = shape
        self.count = 0
        self.sum = np.zeros(shape)
        self._squares = np.zeros(shape) if squares else None
        self._products = np.zeros((size, size) if products else (0, 0))
        self._multiplied = products
        self._block: list[np.ndarray] = []

    def add(self, image: np.ndarray) -> None:
        """Add an image to the sums. Raises DataError if its shape differs."""
        if image.shape != self.shape:
            wanted = " x ".join(map(str, self.shape))
            raise DataError(f"has {image.size} values, expected {wanted}: Incorrect data field size {image.size}")
        self.count += 1
        self.sum += image
        if self._squares is not None:
            self._squares += np.square(image, dtype=np.float64)
        if self._multiplied:
            self._block.append(image)
            if len(self._block) == _BLOCK:
                self._multiply()

    def mean(self) -> np.ndarray:
        """The mean image, float32."""
        return (self.sum / self.count).astype(np.float32)

    def std(self) -> np.ndarray:
        """The standard deviation of each value, float32. Constant values get 1, so that it can be a divisor."""
        assert self._squares is not None
        mean = self.sum / self.count
        variance = np.maximum(self._squares / self.count - mean * mean, 0)
        variance[variance < 1e-12 * (1 + mean * mean)] = 1
        return np.sqrt(variance).astype(np.float32)

    def covariance(self) -> np.ndarray:
        """The covariance (D, D) of the values, D = C H W."""
        self._multiply()
        mean = self.sum.ravel() / self.count
        return self._products / self.count - np.outer(mean, mean)

    def _multiply(self) -> None:
        if self._block:
            rows = np.stack([image.ravel() for image in self._block]).astype(np.float64)
            self._products += rows.T @ rows
            self._block.clear()


def components(covariance: np.ndarray, count: int = 0, whiten: str = "", epsilon: float = 1e-5) -> np.ndarray:
    """Return the matrix (K, D) that projects centred images on their first K principal components (0: all).

        U, s = eigenvectors and eigenvalues of the covariance, largest first
        ""    U^T                          rotation to the components
        "pca" diag(s + e)^(-1/2) U^T       components of variance 1
        "zca" U diag(s + e)^(-1/2) U^T     whitened, nearest to the image

    e is `epsilon` times the largest eigenvalue.
    Source: Bell & Sejnowski, "The independent components of natural scenes are edge filters", 1997.
    """
    size = len(covariance)
    if not 0 <= count <= size:
        raise DataError(f"{count} components are wanted of images of {size} values")
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1][: count or size], vectors[:, ::-1][:, : count or size]
    signs = np.sign(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])])
    rows = (vectors * signs).T  # otherwise the sign of a component is arbitrary
    if whiten:
        scaled = rows / np.sqrt(np.maximum(values, 0) + epsilon * max(values[0], 1e-30))[:, None]
        rows = rows.T @ scaled if whiten == "zca" else scaled
    return rows.astype(np.float32)


def images(
    source: RecordSource, color: bool | None = None, workers: int = 0
) -> Iterator[tuple[bytes, np.ndarray, int]]:
    """Yield (key, image (C, H, W), label) of every record, decoded in parallel. A DataError names a bad record."""
    reader = DatumReader(color)

    def read(record: tuple[bytes, bytes]) -> tuple[bytes, np.ndarray, int]:
        key, value = record
        try:
            return (key, *reader(value))
        except DataError as error:
            raise DataError(f'"{source.path}": record {show_key(key)} {error}') from error

    with closing(source.scan()) as records:
        yield from ordered(read, ((key, bytes(value)) for key, value in records), workers)


def measure(
    source: RecordSource, squares: bool = False, products: bool = False, progress: Callable[[int], None] | None = None
) -> Moments:
    """Compute the moments of all images of a database. `progress` is called with the number of images so far."""
    moments: Moments | None = None
    for key, image, _ in images(source):
        moments = moments or Moments(image.shape, squares, products)
        try:
            moments.add(image)
        except DataError as error:
            raise DataError(f'"{source.path}": record {show_key(key)} {error}') from error
        if progress is not None:
            progress(moments.count)
    assert moments is not None  # empty databases cannot be opened
    return moments
