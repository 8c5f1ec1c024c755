"""The command `caffe`. Each command is one file, and its docstring is its help text.

Importing this package, parsing the command line and printing help need neither PyTorch nor protobuf.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from types import FrameType, SimpleNamespace

from caffe.cli import command, flags, streams
from caffe.errors import CaffeError
from caffe.signal_handlers import handling

__all__ = ["main", "tool"]

CAFFE_VERSION = "1.0.0"
"""The release of BVLC Caffe whose files, flags and log lines are supported."""
_COMPILED = ("torch", "numpy", "cv2", "google.protobuf", "openvino")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: that of the process) and return the exit code.

    0: success. 1: an error in the user's input, described in a line on standard error. 70: an error in the program.
    130: interrupted. 143: ended by SIGTERM. 141: the reader of the output ended.
    """
    with _ending_in_order(), _collecting_seldom():
        return _main(list(sys.argv[1:] if argv is None else argv))


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Turn termination signals into an exit with the shell's exit code, so that temporary files are removed.

    An exception raised by a signal while a C++ library is being imported would abort the process. At that time there is
    nothing to clean up, so the process exits at once.
    """

    def end(number: int, frame: FrameType | None) -> None:
        if _importing():
            if number == signal.SIGINT:
                _complain("caffe: interrupted")
            os._exit(128 + number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    with handling(("SIGTERM", "SIGHUP", "SIGINT"), end, only=(signal.SIG_DFL, signal.default_int_handler)):
        yield


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Let Python's garbage collector run once in 100,000 new objects, and not in 700.

    The imports create 300,000 objects that stay; to search them again and again takes 5 % of the start. A training step
    leaves no garbage.
    """
    usual = gc.get_threshold()
    gc.set_threshold(100_000, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _importing() -> bool:
    """Whether a C++ library is being imported."""
    specs = (getattr(sys.modules.get(name), "__spec__", None) for name in _COMPILED)
    return any(getattr(spec, "_initializing", False) for spec in specs)


def _main(argv: list[str]) -> int:
    debug = os.environ.get("CAFFE_DEBUG", "0") not in ("", "0")
    streams.ensure()
    try:
        command.commands()
        words, given = flags.parse(argv)
        debug = bool(given.get("traceback", debug))
        code = _run(words, given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        streams.drop_output()
        return 141
    except KeyboardInterrupt:
        _complain("caffe: interrupted")
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _report(error)


def tool() -> int:
    """Run the command that the executable is named after: `convert_imageset ...` is `caffe convert_imageset ...`."""
    name = Path(sys.argv[0]).name.removesuffix(".exe").removesuffix(".bin")
    return main([name, *sys.argv[1:]])


def _run(words: list[str], given: dict[str, str | int | bool]) -> int:
    if given.get("version") or words == ["version"]:
        _show_version()
        return 0
    wants_help = bool(given.get("help"))
    if words and words[0] == "help":
        words, wants_help = words[1:], True
    if words in ([], ["help"]):
        print(command.usage(_installed("cafetiere")), end="")
        return 0
    entry = command.find(words[0])
    if wants_help:
        print(command.command_help(entry), end="")
        return 0
    unread = entry.unread(given)
    entry.check(words[1:])
    return _execute(entry, command.values(entry, given, words[1:]), unread)


def _execute(entry: command.Command, values: SimpleNamespace, unread: list[str]) -> int:
    from caffe import log, python_code
    from caffe.cli import display, imports, logs

    if _follows():
        values.log = values.log_dir = ""
    reads_a_log = any(flag.name == "log" for flag in entry.reads)  # its -log is the input, not the file for log output
    logged = SimpleNamespace(**{**vars(values), "log": ""}) if reads_a_log else values
    with display.choose(values.verbose or _follows()) as screen, logs.session(logged, screen.handler):
        for name in unread:
            log.warning("caffe", f"flag -{name} has no meaning for '{entry.name}' and is not used")
        own = getattr(values, "import")
        if own:
            imports.load(own)
        with python_code.switched(values.python_layers):
            return entry.run(values, screen) or 0


def _follows() -> bool:
    """Whether this process is one of several and not the first. Only the first one displays and logs."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0"


def _show_version() -> None:
    """Print Caffe's line first, because scripts read it."""
    print(f"caffe version {CAFFE_VERSION}")
    print("cafetiere", _installed("cafetiere"))
    print("torch", _installed("torch"))


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _report(error: Exception) -> int:
    if isinstance(error, flags.UsageError):
        _complain(str(error))
        return 1
    text = streams.write_error(error) if isinstance(error, OSError) else None
    if text:
        streams.drop_output()
        _complain(f"caffe: error: {text}")
        return 1
    if isinstance(error, CaffeError | OSError | MemoryError):
        _complain(f"caffe: error: {error or type(error).__name__}")
        return 1
    _complain(
        f"caffe: error in the program: {type(error).__name__}: {error}\n"
        "This is a bug in the program; CAFFE_DEBUG=1 or --traceback shows where it occurred."
    )
    return 70


def _complain(text: str) -> None:
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    with suppress(OSError):  # the reader is gone
        print(f"\033[31m{text}\033[0m" if colour else text, file=sys.stderr, flush=True)
