"""`caffe completion`: each script is run by its shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from caffe.cli import command, completion, flags, main

FILES = ["<files>"]
FLAGS = {flag.name for flag in flags.GENERAL} | {"h", "v", "nopython_layers"}

# bash calls the function that `complete` registered for the word; this code does the same as the TAB key.
BASH = r"""
source "$1"; shift
specification=$(complete -p "$1") || exit 1
function=${specification##*-F }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
"${function%% *}" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
if [[ ${#COMPREPLY[@]} != 0 ]]; then printf '%s\n' "${COMPREPLY[@]}"
elif [[ $specification == *"-o default"* ]]; then echo "<files>"; fi
"""

# zsh's line editor needs a terminal, so its functions are replaced by functions that print their arguments.
ZSH = r"""
compdef() { [[ $1 == _caffe ]] && completed=(${@[2,-1]}) }
_files() { print "<files>" }
compset() { words[CURRENT]=${words[CURRENT]#*=} }
_describe() { print -rl -- ${(P)${@[-1]}} }
source $1; shift
(( ${completed[(Ie)$1]} )) || exit 1
words=("$@"); CURRENT=$#
_caffe | while read -r line; do
    [[ $line == "<files>" || $line == ${words[CURRENT]}* ]] && print -r -- ${line%%:*}
done
true
"""

CASES = [
    ("caffe tr", ["train", "try"]),
    ("caffe upgrade_net", ["upgrade_net_proto_binary", "upgrade_net_proto_text"]),
    ("caffe help comp", ["completion", "compute_image_mean"]),
    ("caffe -solver x.prototxt tes", ["test"]),
    ("caffe -v tes", ["test"]),
    ("caffe train -so", ["-solver"]),
    ("caffe train --so", ["--solver"]),
    ("caffe train -v --sigint_effect stop -sna", ["-snapshot"]),
    ("caffe test -so", []),
    ("caffe train -solver ", FILES),
    ("caffe summarize ", FILES),
    ("caffe db ", ["export", "info", "show", "verify"]),
    ("caffe db -o x.png s", ["show"]),
    ("caffe db info ", FILES),
    ("caffe completion ", ["bash", "fish", "zsh"]),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The folder with the script of each shell, for `caffe` and for one of Caffe's executables."""
    folder = tmp_path_factory.mktemp("scripts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(completion, "_executables", lambda: ["convert_imageset"])
        for name in ("bash", "zsh", "fish"):
            (folder / name).write_text(getattr(completion, f"_{name}")())
    return folder


def ask(shell: str, script: str, folder: Path, words: list[str]) -> list[str]:
    """Return the completions that the shell offers for the last word of a command line."""
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [path, *options, "-c", script, shell, str(folder / shell), *words], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(done.stdout.split("\n")[:-1])


@pytest.mark.parametrize(("line", "offered"), CASES)
def test_bash(scripts, line, offered):
    # If no flag or command begins with the word, file names are offered.
    assert ask("bash", BASH, scripts, line.split(" ")) == (offered or FILES)


def test_bash_splits_a_flag_from_its_value(scripts):
    assert ask("bash", BASH, scripts, ["caffe", "train", "-solver", "="]) == FILES
    assert ask("bash", BASH, scripts, ["caffe", "train", "-solver", "=", "a"]) == FILES
    assert ask("bash", BASH, scripts, ["caffe", "-solver", "=", "train", "tes"]) == ["test"]


def test_bash_offers_each_commands_own_flags(scripts):
    for name, entry in command.commands().items():
        own = {written for flag in entry.reads for written in (flag.name, *flag.aliases)}
        assert set(ask("bash", BASH, scripts, ["caffe", name, "-"])) == {f"-{flag}" for flag in own | FLAGS}


def test_bash_completes_caffes_executables(scripts):
    assert ask("bash", BASH, scripts, ["convert_imageset", "-re"]) == ["-resize_height", "-resize_width"]
    assert ask("bash", BASH, scripts, ["convert_imageset", "im"]) == FILES


@pytest.mark.parametrize(("line", "offered"), CASES)
def test_zsh(scripts, line, offered):
    assert ask("zsh", ZSH, scripts, line.split(" ")) == offered


def test_zsh_completes_values_and_caffes_executables(scripts):
    assert ask("zsh", ZSH, scripts, ["caffe", "train", "-solver=a"]) == FILES
    assert ask("zsh", ZSH, scripts, ["convert_imageset", "-re"]) == ["-resize_height", "-resize_width"]


@pytest.mark.parametrize(("line", "offered"), [*CASES, ("convert_imageset -re", ["-resize_height", "-resize_width"])])
def test_fish(scripts, line, offered):
    script = "cd (mktemp -d); touch a-file; source $argv[2]; complete -C $argv[3]"
    found = ask("fish", script, scripts, [line])
    assert [text.partition("\t")[0] for text in found] == (["a-file"] if offered == FILES else offered)


def test_a_shell_that_is_not_known(capsys):
    assert main(["completion", "bsh"]) == 1
    assert 'unknown shell "bsh"; did you mean "bash"? (known: bash, zsh, fish)' in capsys.readouterr().err


def test_the_command_prints_the_script(capsys, scripts, monkeypatch):
    monkeypatch.setattr(completion, "_executables", lambda: ["convert_imageset"])
    for name in ("bash", "zsh", "fish"):
        assert main(["completion", name]) == 0
        assert capsys.readouterr().out == (scripts / name).read_text()
