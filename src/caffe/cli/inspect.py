"""`caffe inspect`."""

from __future__ import annotations

from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag

JSON = Flag("json", "", "Also write everything to this file, as JSON.")
HTML = Flag("html", "", "Also write everything to this file, as an HTML page.")


@command(JSON, HTML, task="tools", arguments="FILE")
def inspect(flags: SimpleNamespace, display: Display) -> None:
    """Show what a file is, which Caffe created it, and what of it runs here.

    Reads net and solver definitions (prototxt), weights (.caffemodel), solver states, means (.binaryproto), LMDB and
    LevelDB databases, HDF5 and ONNX files. For a net it lists the layers with shapes, parameters and arithmetic, the
    required data, the fork of Caffe whose fields and layer types it uses, the fields without effect here, and what is
    not supported, with an alternative. The data need not exist: if crop_size and batch_size give their shape, constants
    are used instead.

        caffe inspect deploy.prototxt
        caffe inspect model.caffemodel -html model.html
    """
    import json

    from caffe import inspection
    from caffe.proto import files

    report = inspection.inspect(flags.arguments[0])
    print(report.text())
    content = json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n"
    for path, written in ((flags.json, content), (flags.html, report.html())):
        if path:
            with files.atomic(path) as file:
                file.write(written.encode())
            print(f"wrote {path}")
