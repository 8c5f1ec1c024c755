"""tools/census.py: counts, kinds of reasons, and names."""

from __future__ import annotations

import argparse
import importlib.util

from tests.conftest import ROOT

_SPEC = importlib.util.spec_from_file_location("census", ROOT / "tools" / "census.py")
assert _SPEC is not None
assert _SPEC.loader is not None
census = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(census)

NET = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 3, 4, 4] } } }'


def test_files_are_counted_by_what_they_are_and_why_they_do_not_build(tmp_path, capsys):
    (tmp_path / "good.prototxt").write_text(NET)
    (tmp_path / "trt.prototxt").write_text(NET + 'layer { name: "t" type: "TRT" bottom: "x" top: "t" }')
    (tmp_path / "solver.prototxt").write_text('base_lr: 1 prune_method: "Reg_Col"')
    (tmp_path / "template.prototxt").write_text("base_lr: $RATE")
    page, skip = tmp_path / "page.md", tmp_path / "skip.json"
    skip.write_text('["template"]')
    census.main(argparse.Namespace(folder=tmp_path, json=None, markdown=page, skip=skip, names=None))
    text = page.read_text()
    assert "| a net's definition, 2 | 1 (50.0 %) |" in text
    assert "| a solver's definition, 1 | 0 (0.0 %) |" in text
    assert "**A layer type of a fork that is not here: 1**" in text
    assert '| trt.prototxt | layer "t": layer type "TRT" comes from a fork of Caffe (NVCaffe)' in text
    assert text.strip() in capsys.readouterr().out
