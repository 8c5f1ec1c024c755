"""One image at a time; see `benchmarks.inference`."""

from __future__ import annotations

import sys

from benchmarks import inference
from benchmarks.workloads import SINGLE

if __name__ == "__main__":
    inference.main(sys.argv[1:], "single", SINGLE)
