"""Images and arrays for nets: loading, resizing, cropping, preprocessing and conversion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from caffe.errors import ArgumentError, FileError, ImageError, MissingImage, RecordError, did_you_mean
from caffe.limits import why_undecodable
from caffe.proto import blobs, caffe_pb2
from caffe.proto.files import refuse_special

__all__ = [
    "Transformer",
    "array_to_blobproto",
    "array_to_datum",
    "arraylist_to_blobprotovector_str",
    "blobproto_to_array",
    "blobprotovector_str_to_arraylist",
    "datum_to_array",
    "load_image",
    "oversample",
    "resize_image",
]

# -- messages ----------------------------------------------------------------------------------------------------------


def blobproto_to_array(blob: Any, return_diff: bool = False) -> np.ndarray:
    """The data of a BlobProto, or its diff, as an array of float64.

    The shape is `num`, `channels`, `height` and `width` if any of them is set, else `shape`. Raises RecordError if the
    number of values does not match, or if no shape is set for more than one value.
    """
    try:
        array = blobs.blob_from_proto(blob, diff=return_diff)
    except FileError as error:
        raise RecordError(str(error)) from None
    if not any(blob.HasField(name) for name in ("shape", "num", "channels", "height", "width")) and array.ndim:
        raise RecordError(f"the BlobProto holds {array.size} numbers and no shape; set blob.shape.dim first")
    return array.astype(np.float64)


def array_to_blobproto(arr: np.ndarray, diff: np.ndarray | None = None) -> Any:
    """The BlobProto of an array and, if given, its diff."""
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(arr.shape)
    blob.data.extend(np.asarray(arr, np.float64).ravel())
    if diff is not None:
        blob.diff.extend(np.asarray(diff, np.float64).ravel())
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[np.ndarray]) -> bytes:
    """The bytes of a BlobProtoVector of these arrays."""
    return caffe_pb2.BlobProtoVector(blobs=map(array_to_blobproto, arraylist)).SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[np.ndarray]:
    """The arrays in the bytes of a BlobProtoVector."""
    try:
        vector = caffe_pb2.BlobProtoVector.FromString(str)
    except DecodeError as error:
        raise RecordError(
            f"the {len(str)} bytes are not a BlobProtoVector ({error}); they are damaged or truncated"
        ) from None
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(arr: np.ndarray, label: int | None = None) -> Any:
    """The Datum of an array (C, H, W): uint8 is stored as bytes, anything else as floats."""
    if arr.ndim != 3:
        raise RecordError(f"a Datum holds an array (C, H, W), got one of shape {arr.shape}")
    datum = caffe_pb2.Datum(channels=arr.shape[0], height=arr.shape[1], width=arr.shape[2])
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(np.asarray(arr, np.float64).ravel())
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: Any) -> np.ndarray:
    """The array (C, H, W) of a Datum: uint8 from bytes (compressed images are decoded), float64 from floats."""
    if datum.encoded:
        from caffe.data.databases.datum import decode, planes

        return planes(decode(datum.data))
    shape = datum.channels, datum.height, datum.width
    array = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float64)
    if array.size != np.prod(shape):
        raise RecordError(f"the Datum holds {array.size} values, but says channels, height and width are {shape}")
    return array.reshape(shape)


# -- images: (H, W, C), red first, float32 in [0, 1] -------------------------------------------------------------------

_LUMA = np.array([0.2125, 0.7154, 0.0721])  # of red, green and blue


def load_image(filename: str | Path, color: bool = True) -> np.ndarray:
    """An image file as float32 in [0, 1], (H, W, 3) with red first, or (H, W, 1) if not `color`.

    Grey images are repeated for each colour. The alpha channel is dropped; for grey output it is blended with white.
    """
    import cv2

    try:
        refuse_special(filename)
        data = np.fromfile(filename, np.uint8)
    except OSError as error:
        kind = MissingImage if isinstance(error, FileNotFoundError) else ImageError
        raise kind(f"cannot read the image {filename}: {error.strerror}") from error
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error as error:
        raise ImageError(f"{filename}: cannot be decoded as an image: {why_undecodable(error)}") from error
    if pixels is None:
        raise ImageError(
            f"{filename}: cannot be decoded as an image: damaged, or of a format that OpenCV does not read"
        )
    top = {"uint8": 255, "uint16": 65535}.get(pixels.dtype.name, 1)
    image = pixels.reshape(*pixels.shape[:2], -1) / np.float64(top)
    image[..., :3] = image[..., 2::-1] if image.shape[2] >= 3 else image[..., :3]
    if not color and image.shape[2] >= 3:
        opaque = image[..., 3:4] if image.shape[2] == 4 else 1.0
        image = ((image[..., :3] * opaque + (1 - opaque)) @ _LUMA)[..., None]
    if color:
        image = np.tile(image, 3) if image.shape[2] == 1 else image[..., :3]
    return np.ascontiguousarray(image, np.float32)


def resize_image(im: np.ndarray, new_dims: Sequence[int] | np.ndarray, interp_order: int = 1) -> np.ndarray:
    """Resize an image (H, W, C) to `new_dims` (H', W'); float32.

    `interp_order` is 0 (nearest) or 1 (linear). For 1 or 3 channels, pixel areas are aligned, pixels outside have the
    image's smallest value, and shrinking smooths first. For other numbers of channels, the corner pixels are aligned.
    Source: pycaffe, which uses skimage.transform.resize and scipy.ndimage.zoom for the two cases.
    """
    if interp_order not in (0, 1):
        raise ArgumentError(f"resize_image: interp_order is {interp_order}, expected 0 (nearest) or 1 (linear)")
    image = np.asarray(im, np.float64)
    if image.ndim != 3 or len(new_dims) != 2:
        found = f"the image has shape {image.shape} and new_dims is {tuple(new_dims)}"
        raise ArgumentError(f"resize_image: {found}; expected (H, W, C) and (H', W')")
    low, high = image.min(), image.max()
    if image.shape[-1] not in (1, 3):
        rows, cols = (_corner_weights(n, m, interp_order) for n, m in zip(image.shape, new_dims, strict=False))
        resized = _along_axes(rows, cols, image)
    elif high > low:
        rows, cols = (_area_weights(n, m, interp_order) for n, m in zip(image.shape, new_dims, strict=False))
        resized = low + _along_axes(rows, cols, image - low)
    else:
        resized = np.full((*new_dims, image.shape[-1]), low)
    return resized.astype(np.float32)


def oversample(images: Sequence[np.ndarray], crop_dims: Sequence[int] | np.ndarray) -> np.ndarray:
    """Ten crops of each image (H, W, C): the four corners and the centre, then the same mirrored.

    Returns float32 of shape (10 N, crop height, crop width, C).
    """
    height, width = crop_dims
    rows, cols = images[0].shape[:2]
    if height > rows or width > cols:
        raise ArgumentError(f"oversample: crops of {height} x {width} do not fit images of {rows} x {cols}")
    corners = [(y, x) for y in (0, rows - height) for x in (0, cols - width)]
    corners.append(((rows - height) // 2, (cols - width) // 2))
    crops = []
    for image in images:
        cut = [image[y : y + height, x : x + width] for y, x in corners]
        crops += cut + [crop[:, ::-1] for crop in cut]
    return np.array(crops, np.float32)


def _along_axes(rows: np.ndarray, cols: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Apply the matrices rows (H', H) and cols (W', W) to an image (H, W, C)."""
    return np.einsum("yh,xw,hwc->yxc", rows, cols, image, optimize=True)


def _area_weights(size: int, new: int, order: int) -> np.ndarray:
    """The weights (new, size) for aligned pixel areas, with smoothing if `new` is smaller."""
    centres = (np.arange(new) + 0.5) * size / new - 0.5
    weights = _sample_weights(size, centres, order)
    sigma = max(0.0, (size / new - 1) / 2)
    if not sigma:
        return weights
    distance = np.subtract.outer(np.arange(size), np.arange(size))
    reach = int(4 * sigma + 0.5)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    smooth = np.where(abs(distance) <= reach, np.exp(-0.5 * (distance / sigma) ** 2), 0) / bell.sum()
    return weights @ smooth


def _corner_weights(size: int, new: int, order: int) -> np.ndarray:
    """The weights (new, size) for aligned corner pixels."""
    step = (size - 1) / (new - 1) if new > 1 else 1.0
    return _sample_weights(size, np.minimum(np.arange(new) * step, size - 1), order)


def _sample_weights(size: int, at: np.ndarray, order: int) -> np.ndarray:
    """The weights (len(at), size) of the samples 0 .. size - 1 at the positions `at`. Samples outside are 0."""
    if order == 0:
        return (np.floor(at + 0.5)[:, None] == np.arange(size)).astype(np.float64)
    return np.maximum(0, 1 - abs(np.subtract.outer(at, np.arange(size))))


# -- preprocessing -----------------------------------------------------------------------------------------------------


class Transformer:
    """Converts images (H, W, C) to a net's inputs (C, H, W), and back.

        transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
        transformer.set_transpose("data", (2, 0, 1))
        transformer.set_mean("data", mean)                  # (C,) or (C, H, W), in the net's order and scale
        transformer.set_raw_scale("data", 255)
        transformer.set_channel_swap("data", (2, 1, 0))     # red first -> blue first
        net.blobs["data"].data[...] = transformer.preprocess("data", caffe.io.load_image("cat.jpg"))

    The order of the steps is: resize, transpose, channel swap, raw scale, mean, input scale. Steps that are not set are
    skipped. `inputs` maps the names of input blobs to their shapes.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, tuple[int, ...]] = {}
        self.channel_swap: dict[str, tuple[int, ...]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, np.ndarray] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """Convert an image to the net's input `in_`, float32 without the batch axis. `data` is not modified."""
        shape = self._shape(in_)
        try:
            return self._steps(in_, np.array(data, np.float32), shape[2:])
        except (ValueError, IndexError) as error:
            if isinstance(error, ArgumentError):
                raise
            raise ArgumentError(
                f'preprocess: an image of shape {np.shape(data)} does not fit input "{in_}" of shape {shape} and its '
                f"transpose, channel_swap and mean ({error}); expected (H, W, {shape[1] if len(shape) > 1 else 1})"
            ) from None

    def _steps(self, in_: str, image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        """The image after the steps that are set for an input of this size."""
        if image.shape[:2] != size:
            image = resize_image(image, size)
        if in_ in self.transpose:
            image = image.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            image = image[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            image = image * np.float32(self.raw_scale[in_])
        if in_ in self.mean:
            image = image - self.mean[in_].astype(np.float32)
        if in_ in self.input_scale:
            image = image * np.float32(self.input_scale[in_])
        return image

    def deprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """Undo `preprocess`, except the resizing."""
        axes = len(self._shape(in_)) - 1
        try:
            image = np.array(data, np.float32)
            return self._steps_back(in_, image.reshape(image.shape[-axes:]) if image.ndim > axes else image)
        except (ValueError, IndexError) as error:
            raise ArgumentError(
                f'deprocess: an array of shape {np.shape(data)} is not an image for input "{in_}" of shape '
                f"{self.inputs[in_]} and its transpose, channel_swap and mean ({error}); expected (C, H, W)"
            ) from None

    def _steps_back(self, in_: str, image: np.ndarray) -> np.ndarray:
        """Undo the steps that are set for an input."""
        if in_ in self.input_scale:
            image = image / np.float32(self.input_scale[in_])
        if in_ in self.mean:
            image = image + self.mean[in_].astype(np.float32)
        if in_ in self.raw_scale:
            image = image / np.float32(self.raw_scale[in_])
        if in_ in self.channel_swap:
            image = image[np.argsort(self.channel_swap[in_])]
        return image.transpose(np.argsort(self.transpose[in_])) if in_ in self.transpose else image.squeeze()

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of axes, (2, 0, 1) for images (H, W, C)."""
        axes = len(self._shape(in_)) - 1
        if sorted(order) != list(range(axes)):
            raise ArgumentError(f'set_transpose: "{in_}" needs an order of its {axes} axes, got {tuple(order)}')
        self.transpose[in_] = tuple(order)

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of channels, (2, 1, 0) for nets whose first channel is blue."""
        channels = self._shape(in_)[1]
        if sorted(order) != list(range(channels)):
            raise ArgumentError(
                f'set_channel_swap: "{in_}" needs an order of its {channels} channels, got {tuple(order)}'
            )
        self.channel_swap[in_] = tuple(order)

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Set the factor for pixels before the mean is subtracted: 255 for nets trained on 0 .. 255."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: np.ndarray) -> None:
        """Set the mean to subtract: one value per channel, or an image (C, H, W), which is resized to the input."""
        shape, mean = self._shape(in_), np.asarray(mean)
        if mean.ndim == 2:
            mean = mean[None]
        if mean.ndim == 1:
            mean = mean[:, None, None]
        if mean.ndim != 3 or mean.shape[0] not in (shape[1], 1):
            raise ArgumentError(
                f'set_mean: the mean has shape {mean.shape}, input "{in_}" {shape}; expected one value for each of the '
                f"{shape[1]} channels or an image of these"
            )
        if mean.shape[1:] not in (shape[2:], (1, 1)):
            mean = resize_image(mean.transpose(1, 2, 0), shape[2:]).transpose(2, 0, 1)
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Set the factor for the input after the mean is subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            known = ", ".join(self.inputs)
            raise ArgumentError(f'the net has no input "{in_}"{did_you_mean(in_, self.inputs)} (inputs: {known})')
        return self.inputs[in_]
