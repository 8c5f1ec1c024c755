"""Each mistake of tests.ownership.mistakes applies to the current sources, and the sequences find it."""

from __future__ import annotations

import shutil

import pytest

from tests.ownership.mistakes import MISTAKES, ROOT, Mistake, apply, noticed


@pytest.mark.parametrize("mistake", MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_can_be_seeded(mistake, tmp_path):
    source = ROOT / "src" / "caffe" / mistake.file
    (tmp_path / mistake.file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, tmp_path / mistake.file)
    apply(mistake, tmp_path)
    changed = (tmp_path / mistake.file).read_text()
    assert changed != source.read_text()
    compile(changed, mistake.file, "exec")


def test_a_mistake_that_is_not_there_is_told(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="0 times, expected once"):
        apply(Mistake("nothing", "a.py", "y", "z"), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("mistake", MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_noticed(mistake):
    assert noticed(mistake)
