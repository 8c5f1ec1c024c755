"""Each script of tools/ and benchmarks/ has --help, and rejects a wrong argument with one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

OWN_WORDS = {"benchmarks/__main__.py", "benchmarks/worker.py"}
"""Scripts that pass their arguments on to others."""


def scripts() -> list[str]:
    paths = [*(ROOT / "tools").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    paths += [*(ROOT / "examples" / "ssd_shapes").glob("*.py"), ROOT / "examples" / "recurrent" / "write.py"]
    names = [path.relative_to(ROOT).as_posix() for path in paths if '__name__ == "__main__"' in path.read_text()]
    return sorted(set(names) - OWN_WORDS)


@pytest.mark.parametrize("name", scripts())
def test_scripts_parse_their_arguments(name):
    text = (ROOT / name).read_text()
    parsed = "ArgumentParser(" in text or "options(" in text or "inference.main(" in text
    assert parsed, f"{name} has no parser of arguments"
    assert "sys.argv) > 1" not in text


@pytest.mark.long
@pytest.mark.parametrize("name", scripts())
def test_help_and_a_wrong_argument(name):
    place = [name] if name.startswith(("tools", "examples")) else ["-m", name.removesuffix(".py").replace("/", ".")]
    for argument, code in (("--help", 0), ("--wrong", 2)):
        done = subprocess.run([sys.executable, *place, argument], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
