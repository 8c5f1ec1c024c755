"""Command line flags as gflags takes them.

`-solver x`, `--solver x`, `-solver=x` and `--solver=x` are the same, a truth value is `-verbose` or `-noverbose`, a
dash inside a name may stand for an underscore, `--` ends the flags, and flags may stand before or after the command.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

from caffe.errors import CaffeError, did_you_mean

__all__ = [
    "CAFFE",
    "COMPILE",
    "ENGINE",
    "GENERAL",
    "GLOG",
    "PRECISION",
    "PROCS",
    "TIMEOUT",
    "Flag",
    "UsageError",
    "known_flags",
    "parse",
    "precision_name",
    "register",
    "values",
]

_TRUE, _FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")


class UsageError(CaffeError):
    """A command line that cannot be understood; its text is the whole message."""


@dataclass(frozen=True)
class Flag:
    """A flag: its name, its default (whose type is the flag's), what it means, and other names for it."""

    name: str
    default: str | int | bool
    help: str
    aliases: tuple[str, ...] = field(default=())

    @property
    def kind(self) -> str:
        """The type's name as gflags prints it."""
        return {bool: "bool", int: "int32", str: "string"}[type(self.default)]

    def read(self, text: str) -> str | int | bool:
        """The value that `text` stands for, or a `UsageError`."""
        if isinstance(self.default, str):
            return text
        word = text.strip().lower()
        if isinstance(self.default, bool):
            if word in _TRUE + _FALSE:
                return word in _TRUE
        else:
            try:
                return int(word, 0)
            except ValueError:
                pass
        raise UsageError(f"ERROR: illegal value '{text}' specified for {self.kind} flag '{self.name}'")


CAFFE = [
    Flag(
        "gpu",
        "",
        "Devices to run on, by number, separated by ','; 'all' takes every one. The batch of the prototxt is that of "
        "one device. Without a GPU the run goes on the CPU, with a warning.",
    ),
    Flag("solver", "", "Solver definition (prototxt)."),
    Flag("model", "", "Net definition (prototxt)."),
    Flag("phase", "", "TRAIN or TEST: the phase of the net that 'time' builds."),
    Flag("level", 0, "Level of the net's state, which layers' include and exclude rules refer to."),
    Flag("stage", "", "Stages of the net's state, separated by ','."),
    Flag(
        "snapshot",
        "",
        "Solver state (.solverstate) to resume training from; auto: the newest whole one; last: the newest, which must "
        "exist.",
    ),
    Flag("weights", "", "Trained weights to start from, files separated by ','. Not together with -snapshot."),
    Flag("iterations", 50, "How many batches to run."),
    Flag("sigint_effect", "stop", "What an interrupt (Ctrl-C) does to training: snapshot, stop or none."),
    Flag("sighup_effect", "snapshot", "What a hang-up signal does to training: snapshot, stop or none."),
    Flag("sigterm_effect", "stop", "What a termination signal does to training: snapshot, stop or none."),
]
"""The flags of Caffe's own command: every command takes them, and one that does not use a given flag says so."""

PRECISION = Flag(
    "precision",
    "",
    "Numbers that layers compute in: fp32, bf16 (faster where the processor has it) or fp16 (on a GPU only). Weights, "
    "losses and statistics stay fp32.",
)
"""Of the commands that run a net as one piece."""

PROCS = Flag(
    "procs",
    0,
    "How many processes train together on this machine, each with the batch of the file; by default one a device of "
    "-gpu.",
)
TIMEOUT = Flag("timeout", 600, "Seconds that a process waits for the others before the run ends.")
"""Of the commands that run in several processes."""

_PRECISIONS = {"fp32": "FLOAT", "bf16": "BFLOAT16", "fp16": "FLOAT16"}

COMPILE = Flag(
    "compile",
    False,
    "Run the net through torch.compile: minutes at the first run, less at later ones; needs a C++ compiler.",
)
"""A flag of ours that several commands take."""

ENGINE = Flag(
    "engine",
    "torch",
    "What computes a net in the phase TEST: torch, or openvino (on a CPU, often faster; needs the package openvino).",
)
"""Of the commands that run a net forward."""

GENERAL = [
    Flag("help", False, "Show the help of the command, or this text.", ("h",)),
    Flag(
        "version",
        False,
        "Show the versions: of Caffe, whose files and flags are understood, our own, PyTorch's.",
    ),
    Flag("verbose", False, "Show the full log on a terminal too, in place of the progress display.", ("v",)),
    Flag("log", "", "Also write the full log to this file."),
    Flag("import", "", "Python files or modules to load first, separated by ',': they define layer types of your own."),
    Flag(
        "python_layers",
        True,
        "Run the Python code that layers of the type Python name. --no-python-layers refuses such nets before anything "
        "is imported, as CAFFE_PYTHON_LAYERS=0 does.",
    ),
    Flag("traceback", False, "Show where in the program an error arose (as CAFFE_DEBUG=1 does)."),
]
"""The flags of ours that every command takes."""

GLOG = [
    Flag("log_dir", "", "Also write the full log to a new file in this folder, under glog's name for it."),
    Flag("minloglevel", -1, "Least severity that is logged: 0 info, 1 warning, 2 error, 3 fatal."),
    Flag("logtostderr", True, "Log lines go to standard error: always true."),
    Flag("alsologtostderr", True, "Log lines go to standard error as well as to files: always true."),
]
"""The flags of Caffe's logging library that scripts pass."""

_KNOWN: dict[str, Flag] = {}


def register(flags: Iterable[Flag]) -> None:
    """Make flags known to the parser; the same name must mean the same kind of value in every command."""
    for flag in flags:
        for name in (flag.name, *flag.aliases):
            other = _KNOWN.setdefault(name, flag)
            if other.kind != flag.kind:
                raise ValueError(f"flag -{name} is defined as {other.kind} and as {flag.kind}")


def known_flags() -> Mapping[str, Flag]:
    """All flags by name and alias."""
    return _KNOWN


def parse(argv: Sequence[str]) -> tuple[list[str], dict[str, str | int | bool]]:
    """The plain words of a command line, and the flags it gives by their full name."""
    words: list[str] = []
    given: dict[str, str | int | bool] = {}
    rest = list(argv)
    while rest:
        item = rest.pop(0)
        if item == "--":
            return words + rest, given
        if not item.startswith("-") or item == "-":
            words.append(item)
            continue
        name, equals, text = item.lstrip("-").partition("=")
        flag, negated = _find(name.replace("-", "_"), name)
        if negated:
            given[flag.name] = not flag.read(text) if equals else False
        elif equals:
            given[flag.name] = flag.read(text)
        elif isinstance(flag.default, bool):
            given[flag.name] = True
        else:
            given[flag.name] = flag.read(_argument(flag, rest))
    return words, given


def precision_name(text: str) -> str:
    """The name in SolverParameter of a value of -precision, or a `CaffeError`."""
    if text not in _PRECISIONS:
        raise CaffeError(f"-precision {text}: expected fp32, bf16 or fp16{did_you_mean(text, _PRECISIONS)}")
    return _PRECISIONS[text]


def values(flags: Iterable[Flag], given: Mapping[str, str | int | bool]) -> SimpleNamespace:
    """The values of `flags` as attributes, defaults where nothing is given."""
    return SimpleNamespace(**{flag.name: given.get(flag.name, flag.default) for flag in flags})


def _find(name: str, written: str) -> tuple[Flag, bool]:
    if name in _KNOWN:
        return _KNOWN[name], False
    positive = _KNOWN.get(name[2:].removeprefix("_")) if name.startswith("no") else None
    if positive is not None and isinstance(positive.default, bool):
        return positive, True
    close = did_you_mean(name, _KNOWN) or did_you_mean(name.removeprefix("no"), _KNOWN)
    hint = close.removeprefix("; ").replace('"', "'-", 1).replace('"', "'")
    raise UsageError(f"ERROR: unknown command line flag '{written}'" + (f"\n{hint}" if hint else ""))


def _argument(flag: Flag, rest: list[str]) -> str:
    follows_flag = bool(rest) and rest[0].startswith("-") and rest[0].lstrip("-").partition("=")[0] in _KNOWN
    if not rest or follows_flag:
        raise UsageError(f"ERROR: flag '--{flag.name}' is missing its argument; flag description: {flag.help}")
    return rest.pop(0)


register([*CAFFE, *GENERAL, *GLOG])
