"""Generate caffe_pb2.py and its types, caffe_pb2.pyi, from src/caffe/proto/caffe.proto.

Needs grpcio-tools 1.62 (protoc 25), whose output works with every protobuf from 4.25 on; what later versions write
demands a protobuf as new as themselves:

    python -m venv /tmp/protoc && /tmp/protoc/bin/pip install grpcio-tools==1.62.3
    /tmp/protoc/bin/python tools/generate_proto.py
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "src"
WANTED = "1.62"


def main() -> int:
    """Run protoc and return its exit code."""
    version = importlib.metadata.version("grpcio-tools")
    if not version.startswith(WANTED + "."):
        print(f"grpcio-tools {version} is installed, expected {WANTED}: see the top of {__file__}", file=sys.stderr)
        return 1
    from grpc_tools import protoc

    source = SOURCES / "caffe" / "proto" / "caffe.proto"
    return protoc.main(["protoc", f"-I{SOURCES}", f"--python_out={SOURCES}", f"--pyi_out={SOURCES}", str(source)])


if __name__ == "__main__":
    sys.exit(main())
