"""Generate caffe_pb2.py and its types, caffe_pb2.pyi, from caffe.proto and the fork fields in src/caffe/proto/forks.

The files of the forks are merged into caffe.proto: the content of a fork's message or enum is added to the one with the
same name; other messages are appended. Additions to LayerParameter are also made to V1LayerParameter. `make generate`
runs this script in an environment with grpcio-tools 1.62 (protoc 25), whose output works with every protobuf from 4.25
on. The output of later versions requires an equally new protobuf.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "src"
WANTED = "1.62"
_TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:[^"\\]|\\.)*"|(message|enum)\s+(\w+)\s*\{|[{}]', re.DOTALL)


def main() -> int:
    """Run protoc and return its exit code."""
    version = importlib.metadata.version("grpcio-tools")
    if not version.startswith(WANTED + "."):
        print(f"grpcio-tools {version} is installed, expected {WANTED}: see the top of {__file__}", file=sys.stderr)
        return 1
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "caffe", "proto", "caffe.proto")
        target.parent.mkdir(parents=True)
        target.write_text(merged(SOURCES / "caffe" / "proto"))
        return protoc.main(["protoc", f"-I{folder}", f"--python_out={SOURCES}", f"--pyi_out={SOURCES}", str(target)])


def merged(folder: Path) -> str:
    """Return the text of caffe.proto in `folder` with the content of forks/*.proto."""
    text = (folder / "caffe.proto").read_text()
    for path in sorted((folder / "forks").glob("*.proto")):
        text = merge(text, path.read_text())
    return text


def merge(text: str, addition: str) -> str:
    """Return `text` with the messages and enums of `addition`, merged into those with the same name if there are
    any.
    """
    for kind, name, body in blocks(addition):
        text = _insert(text, kind, name, body)
        if name == "LayerParameter":
            text = _insert(text, kind, "V1LayerParameter", body)
    return text


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield kind, name and body of each message and enum at the top level of a text."""
    depth, kind, name, start = 0, "", "", 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token.endswith("{") and not token.startswith(("//", "/*", '"')):
            if depth == 0:
                kind, name, start = match.group(1), match.group(2), match.end()
            depth += 1
        elif token == "}":
            depth -= 1
            if depth == 0:
                yield kind, name, text[start : match.start()]


def _insert(text: str, kind: str, name: str, body: str) -> str:
    """Return `text` with `body` added to the message or enum `name`, or to a new one at the end."""
    found = next((part for part in blocks(text) if part[:2] == (kind, name)), None)
    if found is None:
        return f"{text}\n{kind} {name} {{{body}}}\n"
    inner, own = found[2], body
    for nested_kind, nested, nested_body in blocks(body):
        if any(part[:2] == (nested_kind, nested) for part in blocks(inner)):
            inner = _insert(inner, nested_kind, nested, nested_body)
            own = re.sub(rf"{nested_kind} {nested} {{.*?\n  }}\n", "", own, count=1, flags=re.DOTALL)
    head = re.search(rf"(?<!\w){kind} {name} {{", text)
    assert head is not None
    return text[: head.end()] + inner + own + text[head.end() + len(found[2]) :]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sys.exit(main())
