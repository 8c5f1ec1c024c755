"""Errors for users' code that was written for Python 2, and signals in processes that such code starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import caffe
from caffe.errors import CaffeError, LayerError

NET = 'layer { name: "own" type: "Python" top: "x" python_param { module: "%s" layer: "Own" } }'
LAYER = """
import caffe

class Own(caffe.Layer):
    def setup(self, bottom, top):
        {}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("layer_of_2"):
            del sys.modules[name]


CONVERT = "this is code for Python 2: convert the file"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("print 'a'", CONVERT),
        ("{}.iteritems()", CONVERT),
        ("xrange(3)", CONVERT),
        ("import cPickle", CONVERT),
        ("def load(text, Loader): pass\n        load('a')", r"need yaml\.safe_load"),
        ("{}.itmes()", "'itmes'$"),
        ("import no_such_module", "install what has this module"),
    ],
)
def test_a_layer_for_python_2_has_its_own_error(folder, code, says):
    (folder / "layer_of_2.py").write_text(LAYER.format(code))
    (folder / "net.prototxt").write_text(NET % "layer_of_2")
    with pytest.raises(LayerError, match=says) as found:
        caffe.Net("net.prototxt", caffe.TEST)
    assert "layer_of_2.py:" in str(found.value)


def test_an_import_that_only_python_2_finds_is_named(folder):
    (folder / "layer_of_2").mkdir()
    (folder / "layer_of_2" / "__init__.py").write_text("")
    (folder / "layer_of_2" / "beside.py").write_text("")
    (folder / "layer_of_2" / "own.py").write_text("import beside")
    (folder / "net.prototxt").write_text(NET % "layer_of_2.own")
    with pytest.raises(LayerError, match=r'beside\.py exists, but Python 3 needs "from \.beside import'):
        caffe.Net("net.prototxt", caffe.TEST)


def test_an_imported_file_for_python_2_has_the_same_error(folder):
    from caffe.cli import imports

    (folder / "layer_of_2.py").write_text("x = 1\nprint x")
    with pytest.raises(CaffeError, match=rf"layer_of_2\.py:2\); {CONVERT}"):
        imports.load("layer_of_2.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_process_that_is_forked_under_our_handlers_can_be_terminated():
    """RoIDataLayer's prefetching process is ended by `terminate()` and waited for when the script ends."""
    program = """
import os, signal, time
from caffe.signal_handlers import handling
calls = []
ready, start = os.pipe()
both = ("SIGINT", "SIGTERM")
with (
    handling(both, lambda *_: calls.append(1)),
    handling(both, lambda *_: calls.append(2), workers_ignore=("SIGINT",)),
):
    child = os.fork()
    if not child:
        os.write(start, b"!")
        time.sleep(3)
        os._exit(0)
    os.read(ready, 1)
    os.kill(child, signal.SIGINT)
    time.sleep(0.05)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.kill(os.getpid(), signal.SIGTERM)
print(calls)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["-15", "[2]"]


@pytest.mark.parametrize(("level", "lines"), [("0", ["a line", "a warning"]), ("2", [])])
def test_a_script_that_sets_glogs_level_gets_the_lines_of_that_severity(level, lines):
    program = "from caffe import log; log.info('a.cpp:1', 'a line'); log.warning('a.cpp:2', 'a warning')"
    environment = {**os.environ, "GLOG_minloglevel": level}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert [line.partition("] ")[2] for line in done.stderr.splitlines()] == lines
