"""`caffe zoo`."""

from __future__ import annotations

from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.errors import CaffeError, did_you_mean

_ACTIONS = ("list", "show", "get", "add")


@command(task="nets", arguments="list|show|get|add [NAME]")
def zoo(flags: SimpleNamespace, display: Display) -> None:
    """List, show, download or add pretrained models.

    A model is a folder in Caffe's form: prototxts and a readme.md whose front matter names the weights (caffemodel,
    caffemodel_url, sha1) and describes how pictures are prepared. `get` takes the name of a model or such a folder,
    downloads the weights to the user's cache (CAFFE_CACHE) or to the folder, resumes an interrupted download, and
    verifies the sha1. `add` copies a folder to the user's zoo. To use a model: `caffe classify -model NAME`.

        caffe zoo list
        caffe zoo show lenet
        caffe zoo get googlenet
        caffe zoo add my_model
    """
    action, name = [*flags.arguments, ""][:2]
    if action not in _ACTIONS:
        raise CaffeError(
            f'zoo: unknown action "{action}"{did_you_mean(action, _ACTIONS)}; expected {", ".join(_ACTIONS)}'
        )
    if (action == "list") == bool(name):
        raise CaffeError("zoo list takes no name" if name else f"zoo {action}: give the name or the folder of a model")
    {"list": _list, "show": _show, "get": _get, "add": _add}[action](name, display)


def _list(name: str, display: Display) -> None:
    from caffe.zoo import index

    known = index.entries()
    width = max(map(len, known))
    for key, model in known.items():
        state = "weights here" if model.trained else "caffe zoo get" if model.facts.get("caffemodel_url") else "by hand"
        print(f"{key.ljust(width)}  {state.ljust(13)}  {model.name}; {model.facts.get('accuracy', 'accuracy unknown')}")


def _show(name: str, display: Display) -> None:
    from caffe.zoo import index

    model = index.find(name)
    print(f"folder: {model.path}")
    for key, value in model.facts.items():
        print(f"{key}: {value}")
    print(f"weights here: {'yes, ' + str(model.weights) if model.trained else 'no'}")


def _get(name: str, display: Display) -> None:
    from caffe.zoo import index

    with display.bar(name, 0) as bar:
        model = index.get(name, lambda done, total: bar.update(done, total=total or None))
    print(f"{model.name}: {model.weights}")
    print(f"next: caffe classify PICTURE -model {name}")


def _add(name: str, display: Display) -> None:
    from caffe.zoo import index

    model = index.add(name)
    print(f"added {model.name}: {model.path}")
