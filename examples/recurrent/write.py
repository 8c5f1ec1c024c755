"""Lets the trained net write the poem, character by character.

    python examples/recurrent/write.py [weights]

The net runs one step at a time. The LSTM keeps its state between calls of forward, until cont is 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import caffe

sys.path.append(str(Path(__file__).parent))
from make_data import alphabet, poem

HERE = Path(__file__).parent


def write(weights: str, length: int) -> str:
    """Return the first character of the poem and the characters that the net predicts next."""
    net = caffe.Net(str(HERE / "lstm_deploy.prototxt"), caffe.TEST, weights=weights)
    letters = alphabet()
    text = poem()[0]
    for step in range(length - 1):
        net.blobs["character"].data[...] = letters.index(text[-1])
        net.blobs["cont"].data[...] = step > 0
        text += letters[net.forward()["probability"].argmax()]
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="?", default="examples/recurrent/data/lstm_iter_800.caffemodel")
    written = write(parser.parse_args().weights, len(poem()))
    print(written)
    right = sum(a == b for a, b in zip(written, poem(), strict=True))
    print(f"\n{right} of {len(written)} characters are those of the poem")
