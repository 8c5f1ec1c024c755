"""Peak memory of each process of a divided net, compared with that of one process with the whole net.

    python -m benchmarks.divided_memory [STEPS]

Most of the weights are in a fully connected layer of 200 MB, or, for the pipeline, which can only be cut between
layers, in two layers of 100 MB. The figures are the peaks over STEPS steps of SGD with momentum: of the whole resident
memory (VmHWM), and of the private memory of the process (RssAnon, sampled every 2 ms), which does not include torch's
libraries, whose pages all processes of a machine share.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

_SOURCE = (
    'layer {{ name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param {{ shape {{ dim: {batch} dim: {inputs} }} '
    'shape {{ dim: {batch} }} data_filler {{ type: "gaussian" }} data_filler {{ type: "constant" value: 3 }} }} }}'
)
_PRODUCT = (
    'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" inner_product_param {{ '
    'num_output: {outputs} weight_filler {{ type: "xavier" }} }} }}'
)
_RELU = 'layer { name: "relu" type: "ReLU" bottom: "one" top: "one" }'
_LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "last" bottom: "y" top: "loss" }'
_SIZE = 7232  # of a square matrix of 200 MB
_HALF = 5120  # of one of 100 MB
BATCH = 16
MODES = {
    "shard": "shard: FULL",
    "tensor_parallel": "tensor_parallel: 2",
    "pipeline": "pipeline { stages: 2 micro_batches: 4 }",
}


def net(mode: str, batch: int) -> str:
    """The net that a mode is measured with."""
    if mode == "pipeline":
        widths = [("one", "x", _HALF), ("two", "one", _HALF), ("last", "two", 10)]
        inputs = _HALF
    else:
        widths, inputs = [("one", "x", _SIZE), ("last", "one", 10)], _SIZE
    products = [_PRODUCT.format(name=name, bottom=bottom, outputs=outputs) for name, bottom, outputs in widths]
    return "\n".join([_SOURCE.format(batch=batch, inputs=inputs), products[0], _RELU, *products[1:], _LOSS])


def main() -> int:
    """Measure all modes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="?", type=int, default=4, help="steps of each run; default: 4")
    steps = str(parser.parse_args().steps)
    for mode, option in MODES.items():
        with tempfile.TemporaryDirectory() as folder:
            one = _measure(mode, "", BATCH, 1, folder, steps)
            batch = BATCH if mode == "pipeline" else BATCH // 2
            both = _measure(mode, option, batch, 2, folder, steps)
        for rank, found in enumerate(both):
            shown = [
                f"{what} {own:4.0f} MB, one process {whole:4.0f} MB: {own / whole:.2f}"
                for what, own, whole in zip(("all", "its own"), found, one[0], strict=True)
            ]
            print(f"{mode:16} process {rank}: {'; '.join(shown)}", flush=True)
    return 0


def _measure(mode: str, option: str, batch: int, count: int, folder: str, steps: str) -> list[tuple[float, float]]:
    """The peaks of all memory and of the process's own, in MB, of each process."""
    solver = f'base_lr: 0.001 lr_policy: "fixed" momentum: 0.9 type: "SGD" random_seed: 3 solver_mode: CPU {option}'
    Path(folder, "solver.prototxt").write_text(f"{solver} net_param {{ {net(mode, batch)} }}")
    start = ["-m", "benchmarks.divided_memory", "worker", folder, steps]
    code = f"from caffe.parallel.launch import launch; raise SystemExit(launch({start!r}, {count}, 2))"
    command = [sys.executable, *start] if count == 1 else [sys.executable, "-c", code]
    text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = re.findall(r"memory (\d+) ([\d.]+) ([\d.]+)", text)
    return [(float(peak), float(own)) for _, peak, own in sorted(found)]


def worker(folder: str, steps: str) -> None:
    """Train, and print what this process has needed."""
    from caffe.parallel import environment, group
    from caffe.solver import get_solver

    largest, done = [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.002):
            largest[0] = max(largest[0], _status("RssAnon"))

    with group.joined(environment.join(limit=120)):
        watch = threading.Thread(target=look, daemon=True)
        watch.start()
        solver = get_solver(os.path.join(folder, "solver.prototxt"))
        solver.net.slim()
        solver.step(int(steps))
        done.set()
        watch.join()
        sys.stdout.write(f"memory {environment.rank()} {_status('VmHWM')} {largest[0]}\n")
        sys.stdout.flush()
        group.current().leave()


def _status(name: str) -> float:
    found = re.search(rf"^{name}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return round(int(found[1]) / 1000, 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(*sys.argv[2:])
    else:
        raise SystemExit(main())
