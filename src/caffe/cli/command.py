"""The registry of commands.

A function decorated with `@command` is known to the parser, the usage text and the tests.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

from caffe.cli import flags
from caffe.cli.flags import Flag, UsageError
from caffe.errors import did_you_mean

__all__ = ["DEPRECATED", "Command", "command", "command_help", "commands", "find", "offered", "usage", "values"]

TASKS = {
    "train": "Train and test",
    "nets": "Look at nets",
    "data": "Data",
    "convert": "Convert and upgrade files",
    "tools": "Tools",
}
"""The tasks of commands, which group the list of commands, in order."""

DEPRECATED = "deprecated"
"""The task of commands that only refer to another command. They work, but lists and completions omit them."""

Run = Callable[..., int | None]
"""The function of a command: takes the flags' values and a `Display`, returns the exit code or None for 0."""

_COMMANDS: dict[str, Command] = {}


@dataclass(frozen=True)
class Command:
    """A command: its function, its flags, its positional arguments, and its task, one of `TASKS`.

    Arguments are written "IN OUT", "[TYPE]" or "LOG...". One in lower case lists its values: "bash|zsh|fish".
    """

    name: str
    run: Run
    reads: tuple[Flag, ...]
    arguments: str
    task: str

    @property
    def choices(self) -> list[str]:
        """The possible values of the first positional argument, if the command lists them."""
        first = self.arguments.partition(" ")[0]
        return first.split("|") if first.islower() else []

    @property
    def doc(self) -> str:
        """The help text: the function's docstring."""
        first, _, rest = (self.run.__doc__ or "").strip().partition("\n")
        return (first + "\n" + textwrap.dedent(rest)).strip()

    @property
    def summary(self) -> str:
        """The docstring's first sentence, for the list of commands."""
        return self.doc.partition("\n")[0].rstrip(".")

    def check(self, words: list[str]) -> None:
        """Raise a `UsageError` unless the number of `words` matches the command's arguments."""
        wanted = self.arguments.split()
        least = sum(not word.startswith("[") for word in wanted)
        most = None if self.arguments.endswith("...") else len(wanted)
        if len(words) < least or (most is not None and len(words) > most):
            shown = " ".join(words) or "none"
            expected = f'expected "{self.arguments}"' if wanted else f"expected none ({self._way()})"
            raise UsageError(
                f"caffe: error: command '{self.name}' got the arguments: {shown}; {expected}\n"
                f"See: caffe help {self.name}"
            )

    def _way(self) -> str:
        """Describe how a command without positional arguments gets its file."""
        flag = next((flag.name for flag in self.reads if flag.name in ("solver", "model")), "")
        return f"a file is given by its flag: caffe {self.name} -{flag} FILE" if flag else "flags start with '-'"

    def unread(self, given: Mapping[str, object]) -> list[str]:
        """Return the given flags that this command ignores, as Caffe's command would.

        A flag of another command is an error.
        """
        read = {flag.name for flag in (*self.reads, *flags.GENERAL, *flags.GLOG)}
        caffe = {flag.name for flag in flags.CAFFE}
        for name in given:
            if name not in read | caffe:
                raise UsageError(
                    f"ERROR: flag '--{name}' does not belong to '{self.name}'; see: caffe help {self.name}"
                )
        return [name for name in given if name not in read]


def command(*reads: str | Flag, task: str, arguments: str = "") -> Callable[[Run], Run]:
    """Register the decorated function as the command of its name.

    `reads` lists its flags: a name for one of Caffe's, a `Flag` for its own. `task` is one of `TASKS`. The function
    gets the flags' values as attributes (positional arguments as `arguments`) and a `Display`, and returns the exit
    code or None for 0.
    """
    if task not in (*TASKS, DEPRECATED):
        raise ValueError(f'unknown task "{task}" of a command{did_you_mean(task, TASKS)} (known: {", ".join(TASKS)})')
    caffe = {flag.name: flag for flag in flags.CAFFE}
    known = tuple(caffe[flag] if isinstance(flag, str) else flag for flag in reads)
    flags.register(known)

    def add(run: Run) -> Run:
        name = run.__name__.rstrip("_")  # `try_`: a keyword of Python cannot name a function
        if name in _COMMANDS:
            other = _COMMANDS[name].run.__module__
            raise ValueError(f'command "{name}" is defined twice: in {other} and in {run.__module__}')
        _COMMANDS[name] = Command(name, run, known, arguments, task)
        return run

    return add


def commands() -> dict[str, Command]:
    """Return all commands by name. Importing the modules of this package registers them.

    A module with a leading underscore defines no command. It may import PyTorch, so it is imported only by commands
    that need it.
    """
    package = importlib.import_module("caffe.cli")
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"caffe.cli.{module.name}")
    return dict(sorted(_COMMANDS.items()))


def offered() -> dict[str, Command]:
    """Return the commands that are not deprecated, by name."""
    return {name: entry for name, entry in commands().items() if entry.task != DEPRECATED}


def find(name: str) -> Command:
    """Return the command called `name`; raises a `UsageError` that suggests the nearest one."""
    known = commands()
    if name not in known:
        raise UsageError(
            f"caffe: error: Unknown action: {name}{did_you_mean(name, offered())}\n"
            f"Available caffe actions (see caffe help): {', '.join(offered())}"
        )
    return known[name]


def usage(version: str) -> str:
    """Return the text that `caffe` without arguments prints."""
    known = offered()
    width = max(map(len, known)) + 2
    lines = [
        f"caffe: train, test and time nets (Cafetiere {version})",
        "usage: caffe <command> <args>",
    ]
    for task, title in TASKS.items():
        lines += ["", f"{title}:"]
        group = [entry for entry in known.values() if entry.task == task]
        lines += [f"  {entry.name:{width}}{entry.summary[0].lower()}{entry.summary[1:]}" for entry in group]
    lines += ["", "'caffe help <command>' describes a command and its own flags."]
    titles = ("Flags of Caffe's command; commands that do not use them ignore them", "Flags of every command")
    for title, shown in zip(titles, (flags.CAFFE, flags.GENERAL), strict=True):
        lines += ["", f"{title}:", *map(_flag_text, sorted(shown, key=lambda flag: flag.name))]
    return "\n".join(lines) + "\n"


def command_help(entry: Command) -> str:
    """Return the text that `caffe help train` prints: the command's docstring and its flags."""
    head = f"usage: caffe {entry.name} {entry.arguments}".rstrip()
    lines = [f"{head} [flags]", "", entry.doc, ""]
    if entry.reads:
        lines += ["  Flags:", *map(_flag_text, entry.reads), ""]
    lines += ["  Flags of every command:", *map(_flag_text, flags.GENERAL)]
    return "\n".join(lines) + "\n"


def values(entry: Command, given: Mapping[str, str | int | bool], words: list[str]) -> SimpleNamespace:
    """Return the argument of a command's function: flags and `arguments` as attributes, and `given`, the flags that
    were set.
    """
    result = flags.values((*entry.reads, *flags.GENERAL, *flags.GLOG), given)
    result.arguments, result.given = words, dict(given)
    return result


def _flag_text(flag: Flag) -> str:
    default = f'"{flag.default}"' if isinstance(flag.default, str) else str(flag.default).lower()
    names = ", ".join(f"-{name}" for name in (flag.name, *flag.aliases))
    text = f"{names} ({flag.description}) type: {flag.kind} default: {default}"
    text = re.sub(r"(type:|default:) ", "\\1\N{NO-BREAK SPACE}", text)
    filled = textwrap.fill(text, 80, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False)
    return filled.replace("\N{NO-BREAK SPACE}", " ")
