"""Puts mistakes into the layers, one at a time, and checks that the tests notice each.

    python tools/mutate_layers.py             # all of them, some minutes
    python tools/mutate_layers.py 0 8         # those from number 0 to 7

A mistake is put into a copy of the package. The tests named with it run without the reference files, so that the result
does not depend on them. The exit code is the number of mistakes that were not noticed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONFORMANCE = "tests/layers/test_conformance.py"


@dataclass(frozen=True)
class Mutation:
    """A mistake: `old`, which occurs once in the file, is replaced by `new`; `keyword` selects the tests to run."""

    file: str
    old: str
    new: str
    tests: str
    keyword: str = ""


MUTATIONS = [
    Mutation(  # 0: no rounding up
        "pooling.py",
        "count = (-(-room // s) if self.ceil else room // s) + 1",
        "count = room // s + 1",
        "test_pooling.py",
    ),
    Mutation(  # 1: a window beyond the image is kept
        "pooling.py", "(any(self.pad) and (count - 1) * s >= n + p)", "0", "test_pooling.py"
    ),
    Mutation(  # 2: cells of the margin count in the mean
        "pooling.py",
        "[min(k, n + 2 * p - i * s) for i in range(count)]",
        "[k for i in range(count)]",
        "test_pooling.py",
    ),
    Mutation(  # 3: a constant on the CPU
        "pooling.py",
        "rows, columns = (x.new_tensor(counts)",
        "rows, columns = (torch.tensor(counts)",
        CONFORMANCE,
        "Pooling and device",
    ),
    Mutation(  # 4: eps twice
        "normalization.py",
        "mean, variance = self.running()\n",
        "mean, variance = self.running()\n            variance = variance + self.opt.eps\n",
        "test_normalization.py",
    ),
    Mutation(  # 5: running statistics that do not fade
        "normalization.py", "self.factor.mul_(fraction).add_(1)", "self.factor.add_(1)", "test_normalization.py"
    ),
    Mutation(  # 6: the wrong factor of the energy
        "normalization.py",
        "rate = opt.alpha / opt.local_size",
        "rate = opt.alpha",
        "test_normalization.py",
    ),
    Mutation(  # 7: beyond the image the first cell, not the last, is dropped
        "convolution.py",
        "lack = margins(self, slide, shape[2:])",
        "lack = [0] * (x.dim() - 2)",
        "test_convolution.py",
    ),
    Mutation(  # 8: blobs of another shape than in weight files
        "convolution.py",
        "return channels, self.outputs",
        "return self.outputs, channels",
        "test_convolution.py",
    ),
    Mutation(  # 9: dilation forgotten in the extent
        "support/geometry.py", "tuple(d * (k - 1) + 1 for k, d", "tuple(d * 0 + k for k, d", "test_convolution.py"
    ),
    Mutation(  # 10: leaky only
        "activation.py",
        "return F.leaky_relu(x, slope) if slope else F.relu(x)",
        "return F.leaky_relu(x, slope or 0.01)",
        "test_activation.py",
    ),
    Mutation(  # 11: a slope without the bottom
        "activation.py",
        "return over.addcmul(under, slopes), (under * x)",
        "return over.addcmul(under, slopes), under",
        CONFORMANCE,
        "PReLU and slope",
    ),
    Mutation(  # 12: no scaling of what is kept
        "activation.py", "return F.dropout(x, ratio)", "return F.dropout(x, ratio) * (1 - ratio)", "test_activation.py"
    ),
    Mutation(  # 13: the bias is forgotten
        "dense.py", "return y + self.bias if self.opt.bias_term else y", "return y", "test_dense.py"
    ),
    Mutation(  # 14: an axis too many
        "dense.py", "flat = x.flatten(self.start)", "flat = x.flatten(1)", CONFORMANCE, "InnerProduct"
    ),
    Mutation(  # 15: ties to the first bottom
        "elementwise.py", "bottoms[0] > bottoms[1]", "bottoms[0] >= bottoms[1]", "test_quirks_shape.py"
    ),
    Mutation(  # 16: coefficients forgotten
        "elementwise.py", "y = torch.add(y, x, alpha=c)", "y = torch.add(y, x)", "test_quirks_shape.py"
    ),
    Mutation(  # 17: ignored labels count
        "loss.py", "return total / valid.sum().clamp(min=1)", "return total / valid.numel()", "test_quirks_loss.py"
    ),
    Mutation(  # 18: half of the distance
        "loss.py", "/ (2 * a.shape[0])\n\n\nclass HingeLoss", "/ a.shape[0]\n\n\nclass HingeLoss", "test_quirks_loss.py"
    ),
    Mutation(  # 19: a gradient of its own that is wrong
        "loss.py",
        "(grads[0] / (distance + 1e-4)).unsqueeze(1) * d",
        "(grads[0] / distance).unsqueeze(1) * d",
        "test_quirks_loss.py",
    ),
    Mutation(  # 20: ties count for the label
        "reduction.py",
        "(~(scores < scores.gather(1, index.unsqueeze(1))))",
        "(~(scores <= scores.gather(1, index.unsqueeze(1))))",
        "test_quirks_loss.py",
    ),
    Mutation(  # 21: the mean of everything
        "reduction.py",
        "rows = x.flatten(self.opt.axis)",
        "rows = x.flatten(0)",
        "test_shape.py",
    ),
    Mutation(  # 22: parts in the wrong order
        "shape.py",
        "return torch.cat(bottoms, self.along)",
        "return torch.cat(bottoms[::-1], self.along)",
        "test_shape.py",
    ),
    Mutation(  # 23: a size that is copied from the wrong axis
        "shape.py",
        "middle.append(x.shape[start + i] if size == 0 else size)",
        "middle.append(x.shape[i] if size == 0 else size)",
        "test_shape.py",
    ),
    Mutation(  # 24: the state goes on where a sequence begins
        "recurrent.py",
        "torch.addmm(x, h * keep, turned, out=all_gates)",
        "torch.addmm(x, h, turned, out=all_gates)",
        "test_recurrent.py",
    ),
    Mutation(  # 25: a gradient that forgets a gate
        "recurrent.py", "slope[:, 2].mul_(dh)", "slope[:, 2].mul_(dc)", CONFORMANCE, "LSTM and slope"
    ),
    Mutation(  # 26: the same rows are delivered again
        "data_memory.py", "self._next = stop % count", "self._next = start", "test_data_memory.py"
    ),
    Mutation(  # 27: the bottom is changed
        "activation.py",
        "return limited(x, self.opt.min, max(self.opt.min, self.opt.max))",
        "return x.data.clamp_(self.opt.min, max(self.opt.min, self.opt.max))",
        CONFORMANCE,
        "Clip and bottoms",
    ),
    Mutation(  # 28: mask A sees its own cell
        "autoregressive.py", "return order < centre + own", "return order < centre + 1", "test_autoregressive.py"
    ),
]


def apply(mutation: Mutation, layers: Path) -> None:
    """Apply the mistake to the copy of caffe/layers. Raises ValueError unless the text occurs there exactly once."""
    path = layers / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.file} has {mutation.old!r} {text.count(mutation.old)} times, expected once")
    path.write_text(text.replace(mutation.old, mutation.new))


def is_caught(mutation: Mutation) -> bool:
    """Whether the mutation's tests fail with it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "src" / "caffe", Path(folder) / "caffe", ignore=shutil.ignore_patterns("__pycache__"))
        apply(mutation, Path(folder) / "caffe" / "layers")
        tests = mutation.tests if "/" in mutation.tests else f"tests/layers/{mutation.tests}"
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not long", tests]
        command += ["-k", mutation.keyword] if mutation.keyword else []
        places = {"PYTHONPATH": folder, "CAFETIERE_SHARED": str(Path(folder) / "none"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **places}, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the tests of {mutation.file} did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", nargs="?", type=int, default=0, help="the first number; default: 0")
    parser.add_argument("stop", nargs="?", type=int, default=len(MUTATIONS), help="the number after the last")
    given = parser.parse_args()
    if not 0 <= given.start < given.stop <= len(MUTATIONS):
        parser.error(f"expected 0 <= START < STOP <= {len(MUTATIONS)}, got {given.start} and {given.stop}")
    survived = 0
    for number, mutation in list(enumerate(MUTATIONS))[given.start : given.stop]:
        caught = is_caught(mutation)
        survived += not caught
        word = "caught  " if caught else "SURVIVED"
        print(
            f"{number:2} {word} {mutation.file:18} {mutation.old.strip()[:60]!r} -> {mutation.new.strip()[:60]!r}",
            flush=True,
        )
    return survived


if __name__ == "__main__":
    sys.exit(main())
