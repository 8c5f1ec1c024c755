"""`caffe layers`."""

from __future__ import annotations

from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag

MARKDOWN = Flag("markdown", False, "Print a document about all types, the content of docs/layers.md.")


@command(MARKDOWN, task="nets", arguments="[TYPE]")
def layers(flags: SimpleNamespace, display: Display) -> None:
    """List the layer types, or describe one.

    The description of a type says what it computes, lists its options with their defaults, and shows an example block.

        caffe layers
        caffe layers Pooling
        caffe layers --markdown > docs/layers.md
    """
    from caffe.cli import _layer_pages
    from caffe.layers import layer_class

    if flags.arguments:
        lines = _layer_pages.page(layer_class(flags.arguments[0]))
    else:
        lines = _layer_pages.markdown() if flags.markdown else _layer_pages.listing()
    print("\n".join(lines))
