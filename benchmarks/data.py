"""Images per second of a Data layer, compared with a torch DataLoader and real Caffe.

The records are 256 x 256 x 3, raw and as JPEG, in LMDB. Each image is randomly cropped to 227 and mirrored, and a mean
is subtracted, in batches of 64. The DataLoader does the same with OpenCV and numpy, with its best number of workers.
The candidates take turns; medians are reported. The last line is the fraction of time that the training of LeNet waits
for data.

    python -m benchmarks.data [--rounds 5] [--seconds 2]

Prints a table in Markdown, and writes it to benchmarks/results if there were three rounds or more. Real Caffe is
included if `benchmarks.real` finds it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import lmdb
import numpy as np
import torch
from google.protobuf import text_format

from benchmarks import real
from benchmarks.report import RESULTS, keep, machine
from caffe.data.databases.datum import encode_datum
from caffe.data.databases.lmdb import LmdbWriter
from caffe.data.pipeline.pool import cores
from caffe.layers import layer_class
from caffe.proto import caffe_pb2, upgrade
from caffe.solver import get_solver

RECORDS, SIZE, CROP, BATCH = 768, 256, 227, 64
EXAMPLE = Path(__file__).parent.parent / "examples" / "mnist"
MEAN = (104.0, 117.0, 123.0)
LAYER = """
name: "data" type: "Data" top: "data" top: "label"
transform_param { crop_size: %d mirror: true mean_value: %g mean_value: %g mean_value: %g }
data_param { source: "%s" batch_size: %d backend: LMDB }
"""
REAL = """
import sys, time, caffe
net = caffe.Net(sys.argv[1], caffe.TRAIN)
for _ in range(8):
    net.forward()
start, count = time.time(), 0
while time.time() - start < float(sys.argv[2]):
    net.forward()
    count += %d
print("RATE", count / (time.time() - start))
"""


class Records(torch.utils.data.Dataset):
    """The manual version: reads a record of an LMDB, decodes, crops, mirrors and centres it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.transaction: lmdb.Transaction | None = None
        self.mean = np.array(MEAN, np.float32).reshape(3, 1, 1)

    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.transaction is None:
            cv2.setNumThreads(0)
            self.transaction = lmdb.open(self.path, readonly=True, lock=False).begin(buffers=True)
        datum = caffe_pb2.Datum.FromString(bytes(self.transaction.get(b"%08d" % index)))
        if datum.encoded:
            pixels = cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_COLOR).transpose(2, 0, 1)
        else:
            pixels = np.frombuffer(datum.data, np.uint8).reshape(datum.channels, datum.height, datum.width)
        top, left = np.random.randint(SIZE - CROP + 1, size=2)
        pixels = pixels[:, top : top + CROP, left : left + CROP]
        if np.random.randint(2):
            pixels = pixels[:, :, ::-1]
        return torch.from_numpy(pixels.astype(np.float32) - self.mean), datum.label


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    try:
        options.caffe = real.interpreter()
    except real.Missing as error:
        print(error)
        options.caffe = ""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [(kind, *measure(write(Path(folder), kind), options)) for kind in ("raw", "JPEG")]
    heads = ["records", "Cafetière", "DataLoader", "ratio", "its workers", "real Caffe", "ratio"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for kind, ours, loader, workers, caffe in rows:
        cells = [kind, show(ours), show(loader), ratio(ours, loader), str(workers), show(caffe), ratio(ours, caffe)]
        lines.append("| " + " | ".join(cells) + " |")
    torch.set_num_threads(cores())
    share = 100 * waiting(options.seconds)
    lines = [
        f"Images a second, median of {options.rounds} rounds that take turns (least, most). {machine(cores())}\n",
        *lines,
        f"\nTraining LeNet from an LMDB waits for data {share:.1f} % of its time.",
    ]
    print("\n".join(lines))
    if options.rounds >= 3:
        (RESULTS / "data.md").write_text("\n".join(["# Data\n", *lines]) + "\n")
        keep("data", {kind: middle(ours, loader) for kind, ours, loader, *_ in rows})
    return 0


def waiting(seconds: float) -> float:
    """Return the fraction of the training time in which the next batch of the Data layer is not ready."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "digits")
        with LmdbWriter(path) as writer:
            for index, digit in enumerate(np.random.default_rng(0).integers(0, 256, (2000, 1, 28, 28), np.uint8)):
                writer.put(b"%08d" % index, encode_datum(digit, index % 10))
        param = upgrade.read_solver(EXAMPLE / "lenet_solver.prototxt")
        net = upgrade.read_net(EXAMPLE / "lenet_train_test.prototxt")
        for layer in net.layer:
            if layer.type == "Data":
                layer.data_param.source = path
        param.ClearField("net")
        param.train_net_param.CopyFrom(net)
        for field in ("test_iter", "test_interval", "display", "snapshot"):
            param.ClearField(field)
        solver = get_solver(param)
        (source,) = solver.net.sources.values()
        deliver, waited = source.deliver, [0.0]

        def timed() -> object:
            begun = time.perf_counter()
            tops = deliver()
            waited[0] += time.perf_counter() - begun
            return tops

        solver.step(20)
        source.deliver = timed
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            solver.step(20)
        total = time.perf_counter() - begun
        solver.net.close()
        return waited[0] / total


def measure(path: str, options: argparse.Namespace) -> tuple[list[float], list[float], int, list[float]]:
    """Measure the rates of ours, of the DataLoader, its best number of workers, and the rates of real Caffe."""
    counts = sorted({0, 1, 2, cores(), 2 * cores()})
    trial = {count: rate(lambda count=count: loader_batches(path, count), options.seconds / 2) for count in counts}
    workers = max(counts, key=lambda count: trial[count])
    ours, loader, real = [], [], []
    for _ in range(options.rounds):
        ours.append(rate(lambda: our_batches(path), options.seconds))
        loader.append(rate(lambda: loader_batches(path, workers), options.seconds))
        if options.caffe:
            real.append(real_rate(options.caffe, path, options.seconds))
    return ours, loader, workers, real


def rate(start: Callable[[], Iterator[object]], seconds: float) -> float:
    """Return images per second once the pipeline is full."""
    batches = start()
    for _ in range(8):
        next(batches)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        next(batches)
        count += BATCH
    result = count / (time.perf_counter() - begun)
    batches.close()  # type: ignore[attr-defined]
    return result


def our_batches(path: str) -> Iterator[object]:
    """Yield the batches of a Data layer."""
    spec = text_format.Parse(LAYER % (CROP, *MEAN, path, BATCH), caffe_pb2.LayerParameter())
    layer = layer_class("Data")(spec, caffe_pb2.TRAIN)
    layer.setup()
    try:
        while True:
            yield layer()
    finally:
        layer.close()


def loader_batches(path: str, workers: int) -> Iterator[object]:
    """Yield the batches of a DataLoader, epoch after epoch with the same workers."""
    loader = torch.utils.data.DataLoader(
        Records(path), BATCH, num_workers=workers, persistent_workers=workers > 0, drop_last=True,
        multiprocessing_context=multiprocessing.get_context("fork") if workers else None,
    )  # fmt: skip
    while True:
        yield from loader


def real_rate(python: str, path: str, seconds: float) -> float:
    """Return images per second of real Caffe, in a separate process."""
    net = Path(path).parent / "net.prototxt"
    net.write_text(f"layer {{ {LAYER % (CROP, *MEAN, path, BATCH)} }}\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "GLOG_minloglevel": "2"
    }
    run = subprocess.run(
        [python, "-c", REAL % BATCH, str(net), str(seconds)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    found = [line.split()[1] for line in run.stdout.splitlines() if line.startswith("RATE ")]
    if not found:
        sys.exit(f"{python} cannot drive real Caffe: {run.stderr.strip()[-500:]}")
    return float(found[0])


def write(folder: Path, kind: str) -> str:
    """Write an LMDB of synthetic pictures that compress about as well as photographs."""
    rng = np.random.default_rng(0)
    path = folder / f"{kind}_lmdb"
    with LmdbWriter(path) as writer:
        for index in range(RECORDS):
            coarse = rng.integers(0, 256, (24, 24, 3), np.uint8)
            pixels = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
            pixels = cv2.add(pixels, rng.integers(0, 24, pixels.shape, np.uint8))
            if kind == "raw":
                value = encode_datum(pixels.transpose(2, 0, 1), index % 10)
            else:
                data = cv2.imencode(".jpg", pixels)[1].tobytes()
                value = caffe_pb2.Datum(data=data, encoded=True, label=index % 10).SerializeToString()
            writer.put(b"%08d" % index, value)
    return str(path)


def show(rates: list[float]) -> str:
    """Format `median (least, most)`."""
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}, {max(rates):,.0f})" if rates else "not measured"


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Return the speed of ours relative to the other: the median of the rounds' ratios."""
    return f"{middle(ours, theirs):.2f}" if theirs else ""


def middle(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    sys.exit(main())
