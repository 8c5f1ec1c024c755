"""Limits on the size of layer classes, and the tables of passed reference files that `make test-all` prints."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from caffe.layers import Layer
from tests.layers import tables


@pytest.fixture(scope="module")
def sizes():
    return tables.sizes()


def test_a_layer_fits_on_one_screen(sizes):
    for size in sizes:
        assert 1 <= size.doc <= 12, size
        assert size.code <= 40, size


def test_size_counts_code_only():
    class Sample(Layer, abstract=True):
        """One.

        Three.
        """

        # a comment

        first = 1

        def forward(self, x):
            """Two lines
            of text."""
            return x + (
                1
            )  # fmt: skip

    assert tables.size(Sample) == tables.Size("Sample", 3, 6)


def test_the_table_counts_reports_by_type(sizes, monkeypatch):
    monkeypatch.setattr(tables, "sizes", lambda: sizes)

    def report(node: str, when: str = "call") -> SimpleNamespace:
        return SimpleNamespace(nodeid=node, when=when)

    golden, net = "tests/layers/test_golden.py::test_it[%s]", "tests/net/test_reference.py::test_net_case[a]"
    passed = [report(golden % name) for name in ("ReLU__a", "ReLU__b__c", "Tile__a")] + [report(net)]
    passed += [report(golden % "ReLU__a", "setup"), report("tests/test_errors.py::test_it[ReLU__a]")]
    lines = list(tables.lines({"passed": passed, "failed": [report(golden % "Tile__b")]}))
    assert lines[0] == "reference files passed: 3 of 2 layer types; 1 of nets"
    assert [line.split() for line in lines[1:4]] == [["ReLU", "2"], ["Tile", "1", "failed:", "1"], ["nets", "1"]]
    assert "lines of code in the median" in lines[4]
