"""`caffe inspect`."""

from __future__ import annotations

from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag

JSON = Flag("json", "", "Also write all of it into this file, as JSON.")
HTML = Flag("html", "", "Also write all of it into this file, as one page of HTML.")


@command(JSON, HTML, task="tools", arguments="FILE")
def inspect(flags: SimpleNamespace, display: Display) -> None:
    """Tell what a file is, which Caffe made it, and what of it runs here.

    Reads the definition of a net or solver (prototxt), weights (.caffemodel), solver states, means (.binaryproto), LMDB
    and LevelDB databases, HDF5 and ONNX files. Of a net it lists the layers with shapes, parameters and arithmetic,
    the data it needs, the fork of Caffe whose fields and layer types it uses, which fields have no effect here, and
    what is not supported, with the way out. Data need not exist: where crop_size and batch_size tell their shape,
    constants stand for them.

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
