"""The process of one engine: sets it up, then answers requests, one line each, until its input ends.

    python benchmarks/worker.py ENGINE JOB FOLDER OPTIONS

ENGINE is a module of `benchmarks.engines`, JOB a function in it, called with FOLDER and the keywords of OPTIONS (JSON);
it returns a function that does the work once. Written for Python 3.8 as well, which real Caffe needs.

    turn SECONDS   calls the function once unmeasured, unless this takes longer than SECONDS; then repeatedly for
                   SECONDS: {"ms": of a call, "least": of the fastest call}
    once           calls the function once: {"ms": ...}
    result FILE    calls the function once and saves the returned arrays by name
    memory         kilobytes: {"before": peak after the imports, "peak": peak until now}
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def peak_memory():
    """Return the peak memory of the process in kilobytes; 0 if the system does not report it."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:
        return 0


def timed(work):
    """Return the milliseconds of one call."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1e3


def turn(work, seconds):
    """Call once to warm up, unless that takes longer than the turn; then until the time is over."""
    begun, times = time.perf_counter(), [timed(work)]
    if seconds == 0 or times[0] < seconds * 1e3:
        begun, times = time.perf_counter(), []
    while not times or time.perf_counter() - begun < seconds:
        times.append(timed(work))
    return {"ms": sum(times) / len(times), "least": min(times)}


def result(work, path):
    """Save the arrays that a call returns."""
    import numpy as np

    np.savez(path, **work())
    return {}


def main(engine, job, folder, options):
    """Set up the engine, then answer requests."""
    answers, sys.stdout = sys.stdout, sys.stderr  # output of libraries must not be mixed with the answers
    module = importlib.import_module("benchmarks.engines." + engine)
    before = peak_memory()
    work = getattr(module, job)(folder, **json.loads(options))
    if engine not in ("ours", "real_caffe") and "caffe.net" in sys.modules:
        sys.exit("the peer's process imported our runtime, which changes how memory is allocated")
    print("ready", file=answers, flush=True)
    requests = {
        "turn": lambda seconds: turn(work, float(seconds)),
        "once": lambda: {"ms": timed(work)},
        "result": lambda path: result(work, path),
        "memory": lambda: {"before": before, "peak": peak_memory()},
    }
    for line in sys.stdin:
        name, *arguments = line.split()
        print(json.dumps(requests[name](*arguments)), file=answers, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
