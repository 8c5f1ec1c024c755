"""Arguments that are lists of names or numbers, which the benchmarks share."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence

__all__ = ["check_names", "numbers", "words"]


def words(text: str) -> list[str]:
    """The words between the commas; none for ""."""
    return [word for word in text.split(",") if word]


def numbers(text: str) -> list[int]:
    """The numbers between the commas."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, got {text}") from None


def check_names(parser: argparse.ArgumentParser, what: str, given: Sequence[str], known: Collection[str]) -> None:
    """Exit with an error that lists the known names if one of the given names is not known."""
    unknown = [name for name in given if name not in known]
    if unknown:
        parser.error(f"no {what} {', '.join(unknown)}; expected one of: {', '.join(known)}")
