"""Creates the HDF5 files of this example: a poem as eight streams of characters.

    python examples/recurrent/make_data.py

The poem is the text that `import this` prints, read cyclically; each stream starts at another position. A row is one
character of every stream: `character` and `next` are indices into the alphabet. `cont` is 0 where a stream starts or
reaches the first character of the poem, else 1. The list poem.txt, which the net names, contains the path of the file.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
from pathlib import Path

import h5py
import numpy as np

STREAMS = 8


def poem() -> str:
    """Return the text of the standard library's module `this`."""
    with contextlib.redirect_stdout(io.StringIO()):
        import this
    return codecs.decode(this.s, "rot13")


def alphabet() -> str:
    """Return the characters of the poem, in the order of their indices."""
    return "".join(sorted(set(poem())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("examples/recurrent/data"), help="folder")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    text, letters = poem(), alphabet()
    places = (np.arange(len(text))[:, None] + len(text) * np.arange(STREAMS) // STREAMS) % len(text)
    indices = np.array([letters.index(character) for character in text])
    with h5py.File(folder / "poem.h5", "w") as file:
        file["character"] = indices[places].astype(np.float32)
        file["next"] = indices[(places + 1) % len(text)].astype(np.float32)
        cont = (places != 0).astype(np.float32)
        cont[0] = 0
        file["cont"] = cont
    (folder / "poem.txt").write_text(f"{(folder / 'poem.h5').as_posix()}\n")
    print(f"{folder / 'poem.txt'}: {len(text)} steps of {STREAMS} streams, {len(letters)} different characters")


if __name__ == "__main__":
    main()
