"""Ratios, goals and tables, tested with invented figures."""

from __future__ import annotations

from benchmarks import goals, report
from benchmarks.goals import Goal

ROWS = {
    "one": {"batch": 3, "engines": {"Cafetière": {"ms": 2.0}, "A": {"ms": 8.0}, "B": {"ms": 6.0, "threads": 1}}},
    "two": {"batch": 5, "engines": {"Cafetière": {"ms": 10.0}, "A": {"ms": 12.0}, "B": {"error": "B: it is ill"}}},
}


def test_ratio_is_the_best_peers_time_over_ours() -> None:
    assert goals.ratios(Goal("p", "", ("A", "B")), ROWS, "Cafetière") == {"one": 3.0, "two": 1.2}
    assert goals.ratios(Goal("p", "", ("B",)), ROWS, "Cafetière") == {"one": 3.0}
    assert goals.ratios(Goal("p", "", ("A",), rows=("two",)), ROWS, "Cafetière") == {"two": 1.2}


def test_the_quicker_of_two_engines_of_ours_counts() -> None:
    rows = {name: {**row, "engines": {**row["engines"], "own": {"ms": 4.0}}} for name, row in ROWS.items()}
    assert goals.ratios(Goal("p", "", ("A",)), rows, "Cafetière or own") == {"one": 4.0, "two": 3.0}


def test_goal_needs_its_mean_and_its_least() -> None:
    found = {"one": 3.0, "two": 1.2}  # geometric mean 1.897
    assert Goal("p", "", (), 1.89, 1.2).judge(found) == ("geometric mean 1.90, least 1.20 (two)", "met")
    assert Goal("p", "", (), 1.91, 1.2).judge(found)[1] == "**missed**"
    assert Goal("p", "", (), 1.0, 1.21).judge(found)[1] == "**missed**"


def test_goal_of_a_bound_is_ours_over_theirs() -> None:
    assert Goal("p", "", (), most=0.9).judge({"a": 2.0, "b": 1.25}) == ("at most 0.80 (b)", "met")
    assert Goal("p", "", (), most=0.9).judge({"a": 2.0, "b": 1.0})[1] == "**missed**"


def test_table_shows_multiples_threads_and_what_is_missing() -> None:
    lines = list(report.table(ROWS))
    assert lines[2] == "| one, batch 3 | 2.00 | 8.00 (4.00x) | 6.00 (3.00x)¹ |"
    assert lines[3] == "| two, batch 5 | 10.0 | 12.0 (1.20x) | - |"
    assert lines[4] == "| geometric mean | 1 | 2.19x | 3.00x |"
    assert list(report.notes(ROWS)) == [
        "¹ with one thread, which was faster than with more.",
        "Not measured: B: it is ill.",
    ]


def test_table_has_no_multiple_of_nothing() -> None:
    rows = {name: {"engines": {"Cafetière": {"ms": ms}, "A": {"ms": 3.0}}} for name, ms in (("one", 0.0), ("two", 2.0))}
    lines = list(report.table(rows))
    assert lines[2:] == ["| one | 0.000 | 3.00 |", "| two | 2.00 | 3.00 (1.50x) |", "| geometric mean | 1 | 1.50x |"]


def test_limit_is_three_forward_passes_at_the_rate_of_a_matrix_product() -> None:
    engines = {"Cafetière": {"ms": 40.0}, "A": {"ms": 8.0}, "matrix product": {"ms": 99.0, "least": 2 * 2048**3 / 1e8}}
    steps, limits = report.tables("training", {"net": {"flops": 1e9, "engines": engines}}).values()
    assert list(steps["net"]["engines"]) == ["Cafetière", "A"]
    assert limits["net"]["GFLOP/s"] == 100  # this many ms correspond to a rate of 100 for the matrix product
    assert limits["net"]["engines"]["limit"]["ms"] == 30
    assert list(limits["net"]["engines"]) == ["Cafetière", "limit"]
