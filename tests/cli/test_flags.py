"""Command lines are parsed as gflags parses them."""

from __future__ import annotations

import pytest

from caffe.cli import command, flags
from caffe.cli.flags import Flag, UsageError, parse


@pytest.mark.parametrize("written", ["-solver x=y", "--solver x=y", "-solver=x=y", "--solver=x=y"])
def test_four_ways_to_write_a_value(written):
    assert parse(["train", *written.split()]) == (["train"], {"solver": "x=y"})


@pytest.mark.parametrize(
    ("written", "value"),
    [("-help", True), ("--nohelp", False), ("-help=yes", True), ("--help=0", False), ("--nohelp=false", True)],
)
def test_ways_to_write_a_truth_value(written, value):
    assert parse([written]) == ([], {"help": value})


def test_flags_stand_before_and_after_words():
    words, given = parse(["-solver", "s", "train", "--iterations=0x10", "-v", "more", "--", "-level"])
    assert words == ["train", "more", "-level"]
    assert given == {"solver": "s", "iterations": 16, "verbose": True}


def test_a_dash_in_a_name_is_an_underscore_and_the_last_value_counts():
    assert parse(["--sigint-effect=none", "-sigint_effect", "stop"])[1] == {"sigint_effect": "stop"}


def test_a_negative_number_is_a_value():
    assert parse(["-level", "-3"])[1] == {"level": -3}


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--slover=x"], "ERROR: unknown command line flag 'slover'\ndid you mean '-solver'?"),
        (["-qqqq"], "ERROR: unknown command line flag 'qqqq'"),
        (["--nosolver"], "ERROR: unknown command line flag 'nosolver'\ndid you mean '-solver'?"),
        (["-iterations", "ten"], "ERROR: illegal value 'ten' specified for int32 flag 'iterations'"),
        (["--help=maybe"], "ERROR: illegal value 'maybe' specified for bool flag 'help'"),
        (["train", "-solver"], "ERROR: flag '--solver' is missing its argument"),
        (["-solver", "-gpu", "0"], "ERROR: flag '--solver' is missing its argument"),
    ],
)
def test_what_cannot_be_read_is_told(argv, text):
    with pytest.raises(UsageError) as caught:
        parse(argv)
    assert str(caught.value).startswith(text)


def test_a_flag_means_one_kind_of_value_everywhere():
    with pytest.raises(ValueError, match="iterations is defined as int32 and as string"):
        flags.register([Flag("iterations", "", "text")])


def test_a_command_is_defined_once():
    command.commands()
    with pytest.raises(ValueError, match=r'"train" is defined twice: in caffe\.cli\.train and in'):

        @command.command(task="tools")
        def train(flags, display):
            """A second command of this name."""
