"""The command as a whole: usage, help, versions, errors and exit codes."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from caffe.cli import command, flags, main
from caffe.errors import CaffeError, require_extra


@pytest.fixture
def broken(monkeypatch):
    """Make `caffe layers` raise the given error."""
    entry = command.find("layers")

    def replace(error):
        def run(flags, display):
            raise error

        monkeypatch.setitem(command._COMMANDS, "layers", dataclasses.replace(entry, run=run))

    return replace


def run(*argv, **environment):
    command_line = [sys.executable, "-m", "caffe", *argv]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command_line, capture_output=True, text=True, env=environment, timeout=120)


def test_without_a_command_the_usage_is_printed(capsys):
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name in ("train", "test", "time", "device_query", *command.offered()):
        assert re.search(rf"^  {name} +[a-z]", out, re.M), name
    for flag in flags.CAFFE + flags.GENERAL:
        assert re.search(rf"^    -{flag.name}[ ,]", out, re.M), flag.name
    assert max(map(len, out.splitlines())) <= 100


def test_a_word_stands_for_the_flags_of_help_and_version(capsys):
    for words, flag in ((["help"], "--help"), (["help", "help"], "-h"), (["version"], "--version")):
        assert main([flag]) == 0
        first = capsys.readouterr()
        assert main(words) == 0
        assert capsys.readouterr() == first


def test_every_command_has_help(capsys):
    for name, entry in command.commands().items():
        assert main(["help", name]) == 0
        first = capsys.readouterr().out
        assert main([name, "--help"]) == 0
        assert capsys.readouterr().out == first
        assert entry.summary in first
        assert first.startswith(f"usage: caffe {name} ")
        assert all(f"-{flag.name}" in first for flag in entry.reads)


def test_version_is_caffes_first_then_ours_and_that_of_torch(capsys):
    assert main(["--version"]) == 0
    out, err = capsys.readouterr()
    lines = ["caffe version 1.0.0", f"cafetiere {metadata.version('cafetiere')}", f"torch {metadata.version('torch')}"]
    assert (out.splitlines(), err) == (lines, "")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["trian"], 'Unknown action: trian; did you mean "train"?'),
        (["help", "tset"], 'Unknown action: tset; did you mean "test"?'),
        (["train", "solver.prototxt"], "command 'train' got the arguments: solver.prototxt; expected none"),
        (["test", "a.prototxt"], "expected none (a file is given by its flag: caffe test -model FILE)"),
        (["tset"], "Available caffe actions (see caffe help): average, check"),
        (["plot"], "command 'plot' got the arguments: none; expected \"LOG...\""),
        (["layers", "ReLU", "LRN"], "command 'layers' got the arguments: ReLU LRN; expected \"[TYPE]\""),
        (["time", "--plot=x.png"], "ERROR: flag '--plot' does not belong to 'time'"),
        (["test", "-slover", "x"], "ERROR: unknown command line flag 'slover'\ndid you mean '-solver'?"),
        (["device_query", "-log_dir", "no/such/folder"], "-log_dir no/such/folder: there is no such folder"),
        (["device_query", "-log", "no/such/file.log"], "cannot write the log file no/such/file.log"),
    ],
)
def test_a_wrong_command_line_is_one_error(argv, text, capsys):
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert "Traceback" not in err


def test_a_flag_without_use_is_told(broken, capsys):
    broken(CaffeError("enough"))
    assert main(["layers", "-solver", "x"]) == 1
    assert "flag -solver has no meaning for 'layers' and is not used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (CaffeError("net.prototxt:3: no"), 1, "caffe: error: net.prototxt:3: no\n"),
        (FileNotFoundError(2, "No such file", "a.txt"), 1, "caffe: error: [Errno 2] No such file: 'a.txt'\n"),
        (KeyboardInterrupt(), 130, "caffe: interrupted\n"),
        (ZeroDivisionError("by zero"), 70, "caffe: error in the program: ZeroDivisionError: by zero\n"),
    ],
)
def test_errors_and_exit_codes(broken, capsys, error, code, text):
    broken(error)
    assert main(["layers"]) == code
    err = capsys.readouterr().err
    assert err.startswith(text)
    assert "Traceback" not in err


def test_a_traceback_on_request(broken, capsys, monkeypatch):
    broken(CaffeError("deep"))
    assert main(["layers", "--traceback"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    monkeypatch.setenv("CAFFE_DEBUG", "1")
    assert main(["layers"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_errors_are_red_at_a_terminal(broken, capsys, monkeypatch):
    broken(CaffeError("oh"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["layers"]) == 1
    assert capsys.readouterr().err == "\033[31mcaffe: error: oh\033[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["layers"]) == 1
    assert capsys.readouterr().err == "caffe: error: oh\n"


def test_the_log_file_tells_why_a_run_ended(broken, capsys, tmp_path):
    broken(CaffeError("the cause"))
    assert main(["layers", "-log", str(tmp_path / "a.log"), "-log_dir", str(tmp_path), "-solver=x"]) == 1
    line = r"F\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ caffe\] the cause\n"
    text = (tmp_path / "a.log").read_text()
    assert re.fullmatch(rf"W.*flag -solver.*\n{line}", text)
    assert (tmp_path / "caffe.INFO").read_text() == text
    assert re.fullmatch(r"caffe\..*\.log\.INFO\.\d{8}-\d{6}\.\d+", os.readlink(tmp_path / "caffe.INFO"))


def test_minloglevel(broken, capsys):
    broken(CaffeError("enough"))
    assert main(["layers", "-solver", "x", "-minloglevel", "2"]) == 1
    assert capsys.readouterr().err == "caffe: error: enough\n"


def test_a_missing_extra_names_its_pip_line():
    expected = r"drawing needs the Python package \"no_such_module\", .*pip install 'cafetiere\[plot\]'"
    for module in ("no_such_module", "no_such_module.part"):
        with pytest.raises(CaffeError, match=expected):
            require_extra(module, "plot", "drawing")


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["train", "--help"], ["upgrade_net_proto_text", "-h"]])
def test_help_does_not_import_large_packages(argv):
    large = ["torch", "numpy", "cv2", "google.protobuf"]
    code = f"import sys; from caffe.cli import main; sys.exit(main({argv!r}) or any(x in sys.modules for x in {large}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_as_a_module():
    done = run("train", "-slover=x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == "ERROR: unknown command line flag 'slover'"


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(
        f'{sys.executable} -c "import time, sys; from caffe.cli import main; time.sleep(0.3); sys.exit(main([]))"'
        " | exec true; exit ${PIPESTATUS[0]}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (141, "")


def test_docstrings_are_the_only_help():
    for entry in command.commands().values():
        assert entry.doc, entry.name
        assert Path(sys.modules[entry.run.__module__].__file__).parent.name == "cli"


def test_the_commands_are_listed_by_task(capsys):
    assert main([]) == 0
    listed = capsys.readouterr().out.partition("'caffe help <command>'")[0].split("\n\n")[1:-1]
    groups = {title: {line.split()[0] for line in lines} for title, *lines in map(str.splitlines, listed)}
    assert list(groups) == [f"{title}:" for title in command.TASKS.values()]
    assert {"train", "test"} <= groups["Train and test:"]
    assert {"convert_imageset", "upgrade_net_proto_text"} <= groups["Convert and upgrade files:"]
    assert sorted(name for group in groups.values() for name in group) == sorted(command.offered())


def test_a_command_of_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match='unknown task "tool" of a command; did you mean "tools"'):
        command.command(task="tool")


def test_a_training_without_pictures_does_not_import_opencv(tmp_path):
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "d" type: "DummyData" top: "x" top: "y" '
        "dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }"
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 2 } }'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }'
    )
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 snapshot_prefix: "s"'
    )
    train = "main(['train', '-solver', 'solver.prototxt'])"
    code = f"import sys; from caffe.cli import main; sys.exit({train} or 'cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
