"""The reader thread keeps the order of batches and errors, limits the number of waiting batches, and always ends."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from caffe.data.pipeline.prefetch import Prefetcher, Stream
from caffe.errors import DataError


class Counter(Stream):
    """Batches 0, 1, 2, ...; fails at batch `bad`, waits at batch `slow`."""

    def __init__(self, bad: int = -1, slow: int = -1) -> None:
        self.made = 0
        self.bad, self.slow = bad, slow
        self.go = threading.Event()

    def start(self, seed):
        return {"number": seed}

    def shapes(self, state):
        return [()]

    def batch(self, state):
        if state["number"] == self.bad:
            raise DataError("bad batch")
        if state["number"] == self.slow:
            self.go.wait(20)
        self.made += 1
        return (np.array(state["number"]),), {"number": state["number"] + 1}


def eventually(condition) -> bool:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def readers() -> int:
    return sum(thread.name.startswith("caffe data") for thread in threading.enumerate())


def test_batches_come_in_order_with_the_state_after_them():
    prefetcher = Prefetcher(Counter(), {"number": 3}, 2)
    for number in range(3, 30):
        (value,), state = prefetcher.next()
        assert (value, state) == (number, {"number": number + 1})
    prefetcher.close()
    assert readers() == 0


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_depth_batches_wait(depth):
    stream = Counter()
    prefetcher = Prefetcher(stream, {"number": 0}, depth)
    assert eventually(lambda: stream.made == depth + 1), "one more than wait is in the making"
    time.sleep(0.05)
    assert stream.made == depth + 1
    prefetcher.next()
    assert eventually(lambda: stream.made == depth + 2)
    prefetcher.close()


def test_an_error_comes_in_its_turn_and_stays():
    prefetcher = Prefetcher(Counter(bad=2), {"number": 0}, 4)
    assert [int(prefetcher.next()[0][0]) for _ in range(2)] == [0, 1]
    for _ in range(3):
        with pytest.raises(DataError, match="bad batch"):
            prefetcher.next()
    prefetcher.close()


def test_the_consumer_waits_for_a_slow_batch():
    stream = Counter(slow=1)
    prefetcher = Prefetcher(stream, {"number": 0}, 2)
    prefetcher.next()
    threading.Timer(0.3, stream.go.set).start()
    assert prefetcher.next()[0][0] == 1
    prefetcher.close()


def test_after_close_next_is_an_error():
    prefetcher = Prefetcher(Counter(), {"number": 0}, 2)
    prefetcher.close()
    prefetcher.close()
    with pytest.raises(DataError, match="reading was stopped"):
        prefetcher.next()


def test_a_collected_prefetcher_ends_its_thread():
    prefetcher = Prefetcher(Counter(), {"number": 0}, 2)
    prefetcher.next()
    assert readers() == 2, "one reads, one finishes"
    del prefetcher
    gc.collect()
    assert eventually(lambda: readers() == 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_is_told(tmp_path):
    prefetcher = Prefetcher(Counter(), {"number": 0}, 2)
    prefetcher.next()
    child = os.fork()
    if child == 0:
        try:
            prefetcher.next()
        except DataError as error:
            os._exit(7 if "forked" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    prefetcher.close()


def test_the_interpreter_exits_while_threads_read():
    script = """
        import numpy as np
        from caffe.data.pipeline.prefetch import Prefetcher, Stream
        class Endless(Stream):
            def start(self, seed): return {}
            def shapes(self, state): return [()]
            def batch(self, state): return (np.zeros(100000),), {}
        kept = [Prefetcher(Endless(), {}, 3) for _ in range(3)]
        print(kept[0].next()[0][0].shape)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(100000,)\n", "")
