"""Each mistake of tools/mutate_layers.py still applies to the current source of the layers."""

from __future__ import annotations

import importlib.util
import shutil
import sys

import pytest

from tests.conftest import ROOT

PATH = ROOT / "tools" / "mutate_layers.py"
SPEC = importlib.util.spec_from_file_location("mutate_layers", PATH)
mutate = sys.modules["mutate_layers"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(mutate)


@pytest.mark.parametrize("mutation", mutate.MUTATIONS, ids=range(len(mutate.MUTATIONS)))
def test_a_mistake_can_be_seeded(mutation, tmp_path):
    source = ROOT / "src" / "caffe" / "layers" / mutation.file
    (tmp_path / mutation.file).parent.mkdir(exist_ok=True)
    shutil.copy(source, tmp_path / mutation.file)
    mutate.apply(mutation, tmp_path)
    changed = (tmp_path / mutation.file).read_text()
    assert changed != source.read_text()
    compile(changed, mutation.file, "exec")


def test_there_are_mistakes_in_every_family_and_twenty_of_them():
    assert len(mutate.MUTATIONS) >= 20
    assert len({mutation.file for mutation in mutate.MUTATIONS}) >= 10


@pytest.mark.long
@pytest.mark.parametrize("mutation", mutate.MUTATIONS, ids=range(len(mutate.MUTATIONS)))
def test_a_seeded_mistake_is_caught(mutation):
    assert mutate.is_caught(mutation)
