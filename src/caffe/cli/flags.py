"""Parses command line flags like gflags.

`-solver x`, `--solver x`, `-solver=x` and `--solver=x` are the same. A boolean is `-verbose` or `-noverbose`. Dashes
inside a name can replace underscores. `--` ends the flags. Flags can be before or after the command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """An invalid command line. The error text is the whole message."""


@dataclass(frozen=True)
class Flag:
    """A flag: its name, its default (whose type is the flag's type), its help text, and other names for it.

    `known` returns the values of a flag whose values are in a registry. Only the flag's description calls it.
    """

    name: str
    default: str | int | bool
    help: str
    aliases: tuple[str, ...] = field(default=())
    known: Callable[[], Iterable[str]] | None = None

    @property
    def description(self) -> str:
        """The help text with the known values."""
        return f"{self.help} Known: {', '.join(self.known())}." if self.known else self.help

    @property
    def kind(self) -> str:
        """The name of the type, as gflags prints it."""
        return {bool: "bool", int: "int32", str: "string"}[type(self.default)]

    def read(self, text: str) -> str | int | bool:
        """Convert `text` to the flag's value; raises a `UsageError` for an invalid one."""
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
        "Numbers of the devices to use, separated by ','; 'all' uses every one. The batch size in the prototxt is per "
        "device. Without a GPU, the CPU is used, with a warning.",
    ),
    Flag("solver", "", "Solver definition (prototxt)."),
    Flag("model", "", "Net definition (prototxt)."),
    Flag("phase", "", "Phase of the net that 'time' builds: TRAIN or TEST."),
    Flag("level", 0, "Level of the net's state, for the include and exclude rules of layers."),
    Flag("stage", "", "Stages of the net's state, separated by ','."),
    Flag(
        "snapshot",
        "",
        "Solver state (.solverstate) to resume from; auto: the newest readable one; last: the newest, which must "
        "exist.",
    ),
    Flag("weights", "", "Initial weights: files separated by ','. Cannot be combined with -snapshot."),
    Flag("iterations", 50, "Number of batches to run."),
    Flag("sigint_effect", "stop", "Effect of an interrupt (Ctrl-C) on training: snapshot, stop or none."),
    Flag("sighup_effect", "snapshot", "Effect of a hang-up signal on training: snapshot, stop or none."),
    Flag("sigterm_effect", "stop", "Effect of a termination signal on training: snapshot, stop or none."),
]
"""The flags of Caffe's own command. Every command accepts them; a command that does not use a given flag says so."""

PRECISION = Flag(
    "precision",
    "",
    "Precision of the layers: fp32, bf16 (faster on processors that support it) or fp16 (only on a GPU). Weights, "
    "losses and statistics remain fp32.",
)
"""Of the commands that run a whole net."""

PROCS = Flag(
    "procs",
    0,
    "Number of processes that train together on this machine, each with the batch size of the file. The default is one "
    "per device in -gpu.",
)
TIMEOUT = Flag("timeout", 600, "Time limit in seconds for waiting for other processes, after which the run ends.")
"""Of the commands that run in several processes."""

_PRECISIONS = {"fp32": "FLOAT", "bf16": "BFLOAT16", "fp16": "FLOAT16"}

COMPILE = Flag(
    "compile",
    False,
    "Run the net with torch.compile. Needs a C++ compiler, and minutes at the first run, less at later ones.",
)
"""A flag of this package that several commands have."""

ENGINE = Flag(
    "engine",
    "torch",
    "Engine of a net in the phase TEST: torch, or openvino (often faster on a CPU; needs the package openvino).",
)
"""Of the commands that run a net forward."""

GENERAL = [
    Flag("help", False, "Show the help of the command, or this text.", ("h",)),
    Flag(
        "version",
        False,
        "Show the versions of Caffe (whose files and flags are supported), of this package and of PyTorch.",
    ),
    Flag("verbose", False, "Show the full log instead of the progress display on a terminal.", ("v",)),
    Flag("log", "", "Also write the full log to this file."),
    Flag("import", "", "Python files or modules to import first, separated by ','. They can define layer types."),
    Flag(
        "python_layers",
        True,
        "Run the Python code of Python layers. --no-python-layers rejects such nets before anything "
        "is imported, as CAFFE_PYTHON_LAYERS=0 does.",
    ),
    Flag("traceback", False, "Show where in the program an error occurred (like CAFFE_DEBUG=1)."),
]
"""The flags of this package that every command accepts."""

GLOG = [
    Flag("log_dir", "", "Also write the full log to a new file in this folder, named as glog does."),
    Flag("minloglevel", -1, "Lowest severity that is logged: 0 info, 1 warning, 2 error, 3 fatal."),
    Flag("logtostderr", True, "Log lines go to standard error: always true."),
    Flag("alsologtostderr", True, "Log lines go to standard error as well as to files: always true."),
]
"""The flags of Caffe's logging library, because scripts pass them."""

_KNOWN: dict[str, Flag] = {}


def register(flags: Iterable[Flag]) -> None:
    """Make flags known to the parser. The same name must have the same type in every command."""
    for flag in flags:
        for name in (flag.name, *flag.aliases):
            other = _KNOWN.setdefault(name, flag)
            if other.kind != flag.kind:
                raise ValueError(f"flag -{name} is defined as {other.kind} and as {flag.kind}")


def known_flags() -> Mapping[str, Flag]:
    """Return all flags by name and alias."""
    return _KNOWN


def parse(argv: Sequence[str]) -> tuple[list[str], dict[str, str | int | bool]]:
    """Parse a command line into positional arguments and flags by their full names."""
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
    """Return the SolverParameter name of a value of -precision; raises a `CaffeError` for an unknown one."""
    if text not in _PRECISIONS:
        raise CaffeError(f"-precision {text}: expected fp32, bf16 or fp16{did_you_mean(text, _PRECISIONS)}")
    return _PRECISIONS[text]


def values(flags: Iterable[Flag], given: Mapping[str, str | int | bool]) -> SimpleNamespace:
    """Return the values of `flags` as attributes, with defaults for flags that are not given."""
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
        raise UsageError(f"ERROR: flag '--{flag.name}' is missing its argument; flag description: {flag.description}")
    return rest.pop(0)


register([*CAFFE, *GENERAL, *GLOG])
