"""`caffe convert`."""

from __future__ import annotations

from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.errors import CaffeError, FileError

MAP = Flag("map", "", "File with a line `LAYER MODULE` for each layer whose weights another module of the file holds.")
BY_ORDER = Flag(
    "by_order",
    False,
    "Match layers and modules of equal shapes in order. A .safetensors file stores no order: its modules are sorted by "
    "name, with numbers in the names compared by value.",
)


@command("model", MAP, BY_ORDER, task="convert", arguments="IN OUT")
def convert(flags: SimpleNamespace, display: Display) -> None:
    """Convert weights between .caffemodel, .h5, .safetensors and .pt.

    The suffixes select the formats. .pt and .pth are state dictionaries of torch; only their tensors are read, and no
    code is run. With -model, the net's prototxt, tensors get the names of `caffe.torch.load(NET).state_dict()`.

    To write a .caffemodel or .h5, -model is required. Tensors are matched with the net's layers by name, then by shapes
    that occur once on both sides, and each pair is printed. A batch norm of torch is matched with BatchNorm and Scale
    together. Layers with equal shapes are not guessed: name the pairs in a file for -map, or give -by_order. Layers
    without tensors in the file are omitted.

        caffe convert net.caffemodel net.safetensors -model deploy.prototxt
        caffe convert resnet18.pth resnet18.caffemodel -model deploy.prototxt -by_order
        caffe convert net.caffemodel net.caffemodel.h5
    """
    from caffe import convert as conversion

    source, out = flags.arguments
    into, origin = conversion.form_of(out), conversion.form_of(source)
    ours = ("caffe", "hdf5")
    if (flags.map or flags.by_order) and (origin in ours or into not in ours):
        raise CaffeError("-map and -by_order are about tensors that become the weights of a net")
    if origin in ours and into in ours:
        _between(source, out, into)
    elif origin in ours:
        count = conversion.export_weights(source, out, flags.model)
        print(f"wrote {out}: {count} tensors")
        return
    elif into not in ours:
        tensors = conversion.read_tensors(source)
        conversion.write_tensors(out, tensors)
        print(f"wrote {out}: {len(tensors)} tensors")
        return
    else:
        if not flags.model:
            raise CaffeError(f"{out}: which net are the weights for? Give its prototxt with -model FILE")
        found = conversion.import_weights(source, out, flags.model, _listed(flags.map), flags.by_order)
        print("\n".join(found.lines()))
    print(f"wrote {out}")


def _between(source: str, out: str, into: str) -> None:
    from caffe.proto import weights

    data = weights.read(source)
    if into == "hdf5":
        weights.write_hdf5(out, dict(data))
    else:
        weights.write(out, weights.skeleton(source), data)


def _listed(path: str) -> dict[str, str]:
    """The pairs of layer and module in a file."""
    from caffe.proto import files

    pairs = {}
    for number, line in enumerate(files.lines(path, "list of layers") if path else (), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 2:
            raise FileError(f'{path}:{number}: "{line}"; expected LAYER MODULE')
        pairs[words[0]] = words[1]
    return pairs
