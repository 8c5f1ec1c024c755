"""The text of a prototxt as a tree with positions. Fields can be located and edited; comments are kept."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from caffe.proto import files, text
from caffe.proto.files import PathLike

__all__ = ["Entry", "Source"]

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*) | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*') | (?P<mark>[{}<>\[\]:,;])
    | (?P<word>[^\s{}<>\[\]:,;\#"']+) | (?P<other>.)""",
    re.VERBOSE,
)
_CLOSER = {"{": "}", "<": ">"}


@dataclass
class Entry:
    """A field in the text: `text[start:end]`. Its value is `text[value:end]`; `inner` are the fields in its braces.

    `close` is the position of the closing brace of a message, or -1 for a field without braces.
    """

    name: str
    start: int
    value: int
    end: int
    close: int = -1
    inner: list[Entry] = field(default_factory=list)

    def all(self, name: str) -> list[Entry]:
        """Return the inner fields with that name."""
        return [entry for entry in self.inner if entry.name == name]


class Source:
    """The text of a valid prototxt file.

        source = Source("net.prototxt")
        layer = source.layer(3)
        source.line(layer.start)                                   # the line where the block begins
        source.set(layer, "inner_product_param.num_output", "100") # in `source.text`

    Edits change `text` and the tree. The text around an edit, including comments, is unchanged.
    """

    def __init__(self, path: PathLike, content: str | None = None) -> None:
        self.path = path
        self.text = text.decode(files.read_text_bytes(path)) if content is None else content
        self._read()

    def _read(self) -> None:
        self._breaks = [match.start() for match in re.finditer("\n", self.text)]
        tokens = [match for match in _TOKEN.finditer(self.text) if match.lastgroup != "skip"]
        self.entries, _ = _fields(tokens, 0, "")

    def line(self, at: int) -> int:
        """Return the line number of a character, from 1."""
        return bisect_right(self._breaks, at - 1) + 1

    def layers(self) -> list[Entry]:
        """Return the `layer` and `layers` blocks, in order."""
        return [entry for entry in self.entries if entry.name in ("layer", "layers")]

    def string(self, root: Entry, name: str) -> str:
        """Return the text of the first field with that name, without quotes; empty if there is none."""
        found = root.all(name)
        return self.text[found[0].value : found[0].end].strip("\"'") if found else ""

    def find(self, root: Entry | None, path: str) -> Entry | None:
        """Return the field at a path such as `param[1].lr_mult` inside `root`, or in the whole file if `root` is
        None.
        """
        found = root
        for name, index in _steps(path):
            inner = self.entries if found is None else found.inner
            named = [entry for entry in inner if entry.name == name]
            if not -len(named) <= index < len(named):
                return None
            found = named[index]
        return found

    def set(self, root: Entry | None, path: str, value: str) -> None:
        """Set the field at a path to a value in prototxt syntax. A missing field is added."""
        steps, here = _steps(path), root
        for depth, (name, index) in enumerate(steps):
            inner = self.entries if here is None else here.inner
            named = [entry for entry in inner if entry.name == name]
            if -len(named) <= index < len(named):
                here = named[index]
                continue
            names = [name for name, _ in steps[depth:]]
            missing = max(0, index + 1 - len(named)) if depth < len(steps) - 1 else 1
            self._insert(here, [f"{name} {{ }}"] * (missing - 1) + [_nested(names, value)])
            return
        assert here is not None
        self._replace(here.start, here.end, _nested([steps[-1][0]], value))

    def remove(self, entry: Entry) -> None:
        """Remove a field, and its line if nothing else is on it."""
        start, end = entry.start, entry.end
        begin, after = self.text.rfind("\n", 0, start) + 1, self.text.find("\n", end)
        after = len(self.text) if after < 0 else after + 1
        if not self.text[begin:start].strip() and not self.text[end:after].strip():
            start, end = begin, after
        self._replace(start, end, "")

    def insert_after(self, entry: Entry, block: str) -> None:
        """Insert a block on new lines after a field of the file."""
        end = self.text.find("\n", entry.end)
        end = len(self.text) if end < 0 else end
        self._replace(end, end, "\n" + block)

    def _insert(self, root: Entry | None, lines: list[str]) -> None:
        """Add fields at the end of a message, on the same line or on lines of their own, like the existing fields."""
        if root is None:
            text_end = len(self.text.rstrip())
            self._replace(text_end, text_end, "".join(f"\n{line}" for line in lines))
            return
        if self.line(root.value) == self.line(root.close):
            before = "" if self.text[root.close - 1].isspace() else " "
            self._replace(root.close, root.close, before + " ".join(lines) + " ")
            return
        margin = self.text[self.text.rfind("\n", 0, root.close) + 1 : root.close]
        if margin.strip():  # the brace is not at the beginning of its line
            self._replace(root.close, root.close, " ".join(lines) + " ")
        else:
            begin = root.close - len(margin)
            self._replace(begin, begin, "".join(f"{margin}  {line}\n" for line in lines))

    def _replace(self, start: int, end: int, new: str) -> None:
        self.text = self.text[:start] + new + self.text[end:]
        self._read()


def _steps(path: str) -> list[tuple[str, int]]:
    """Split `param[1].lr_mult` into [("param", 1), ("lr_mult", 0)]."""
    steps = []
    for part in path.split("."):
        name, _, index = part.partition("[")
        steps.append((name, int(index.rstrip("]")) if index else 0))
    return steps


def _nested(names: list[str], value: str) -> str:
    """Build `a { b { c: 1 } }` for the names a, b, c. A value in braces is the content of a message."""
    last = f"{names[-1]} {value}" if value.startswith("{") else f"{names[-1]}: {value}"
    return "".join(f"{name} {{ " for name in names[:-1]) + last + " }" * (len(names) - 1)


def _fields(tokens: list[re.Match[str]], at: int, closer: str) -> tuple[list[Entry], int]:
    """Parse the fields from token `at` to the closing mark; returns them and the index of that mark."""
    found: list[Entry] = []
    while at < len(tokens) and tokens[at].group() != closer:
        word = tokens[at]
        at += 1
        if word.lastgroup != "word":
            continue
        if at < len(tokens) and tokens[at].group() == ":":
            at += 1
        if at < len(tokens):
            entry, at = _value(word, tokens, at)
            found.append(entry)
    return found, at


def _value(word: re.Match[str], tokens: list[re.Match[str]], at: int) -> tuple[Entry, int]:
    """Parse the value of a field that begins at token `at`; returns the field and the index of the next token."""
    mark, last = tokens[at].group(), at
    if mark in _CLOSER:
        inner, close = _fields(tokens, at + 1, _CLOSER[mark])
        close = min(close, len(tokens) - 1)
        places = word.start(), tokens[at].start(), tokens[close].end(), tokens[close].start()
        return Entry(word.group(), *places, inner), close + 1
    if mark == "[":
        while last + 1 < len(tokens) and tokens[last].group() != "]":
            last += 1
    elif mark == "-":
        last = min(at + 1, len(tokens) - 1)
    elif tokens[at].lastgroup == "string":  # adjacent strings are joined
        while last + 1 < len(tokens) and tokens[last + 1].lastgroup == "string":
            last += 1
    return Entry(word.group(), word.start(), tokens[at].start(), tokens[last].end()), last + 1
