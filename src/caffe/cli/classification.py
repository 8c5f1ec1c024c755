"""`caffe classification`: Caffe's example cpp_classification."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from caffe.cli.classify import class_names
from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.errors import CaffeError, FileError

if TYPE_CHECKING:
    import numpy as np

_BEST = 5


@command("gpu", task="train", arguments="MODEL WEIGHTS MEAN LABELS IMAGE")
def classification(flags: SimpleNamespace, display: Display) -> None:
    """Print the best classes of one image, as cpp_classification does.

    The image is resized to the net's input, and the mean of each channel over the whole MEAN file is subtracted.
    LABELS has one class name per line. For several images, crops or other settings use `caffe classify`.

        caffe classification deploy.prototxt net.caffemodel mean.binaryproto synset_words.txt cat.jpg
    """
    import numpy as np

    from caffe.cli import _device
    from caffe.net import Net
    from caffe.proto.caffe_pb2 import TEST

    model, weights, mean_file, labels, image = flags.arguments
    _device.use(flags.gpu, "caffe", f'"-gpu {flags.gpu}"')
    net = Net(model, TEST, weights=weights)
    name, out = _one(net, "input"), _one(net, "output")
    channels, *size = net.blobs[name].shape[1:]
    if channels not in (1, 3) or len(size) != 2:
        raise CaffeError(
            f'input "{name}" has shape {net.blobs[name].shape}, expected (N, C, H, W) with 1 or 3 channels'
        )
    pixels = _pixels(image, channels, size) - _mean(mean_file, channels)
    names = class_names(labels, net.blobs[out].shape[1])
    net.blobs[name].reshape(1, channels, *size)
    net.reshape()
    scores = net.forward(**{name: pixels.transpose(2, 0, 1)[None]})[out].reshape(-1)
    print(f"---------- Prediction for {image} ----------")
    for index in np.argsort(-scores, kind="stable")[:_BEST]:
        print(f'{scores[index]:.4f} - "{names[index]}"')


def _one(net: Any, kind: str) -> str:
    names = net.inputs if kind == "input" else net.outputs
    if len(names) != 1:
        raise CaffeError(f'net "{net.name}" has the {kind}s {names}, expected exactly one')
    return names[0]


def _pixels(path: str, channels: int, size: list[int]) -> np.ndarray:
    """Read the image as pixels (H, W, C) in BGR order, from 0 to 255, in the size of the net's input."""
    import cv2
    import numpy as np

    from caffe.limits import why_undecodable
    from caffe.proto.files import refuse_special

    try:
        refuse_special(path)
        image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    except OSError as error:
        raise FileError(f"Unable to decode image {path}: {error.strerror}") from error
    except cv2.error as error:
        raise FileError(f"Unable to decode image {path}: {why_undecodable(error)}") from error
    if image is None:
        raise FileError(f"Unable to decode image {path}: it is damaged, or in a format unknown to OpenCV")
    have = 1 if image.ndim == 2 else image.shape[2]
    codes = {
        (3, 1): cv2.COLOR_BGR2GRAY,
        (4, 1): cv2.COLOR_BGRA2GRAY,
        (4, 3): cv2.COLOR_BGRA2BGR,
        (1, 3): cv2.COLOR_GRAY2BGR,
    }
    if have != channels:
        image = cv2.cvtColor(image, codes[have, channels])
    if image.shape[:2] != tuple(size):
        image = cv2.resize(image, (size[1], size[0]))
    return image.reshape(*size, channels).astype(np.float32)


def _mean(path: str, channels: int) -> np.ndarray:
    """Return the mean of each channel of a mean file, (C)."""
    import numpy as np

    from caffe.proto import weights

    mean = weights.read_mean(path)
    mean = mean[0] if mean.ndim == 4 else mean
    if mean.ndim != 3 or mean.shape[0] != channels:
        raise FileError(f"{path}: the mean has shape {mean.shape}, expected {channels} channels as the net's input has")
    return mean.mean((1, 2), dtype=np.float64).astype(np.float32)
