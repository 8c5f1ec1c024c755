"""`caffe race`: surfaces, paths, the arithmetic of the page, pictures, and a race on a solver."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from caffe.cli import main
from caffe.errors import CaffeError
from caffe.race import page, paths, surfaces
from caffe.solver.rules import rule_types
from tests.conftest import ROOT

NODE = shutil.which("node") or shutil.which("nodejs")


@pytest.mark.parametrize("name", surfaces.SURFACES)
def test_gradients_are_those_of_torch(name):
    surface = surfaces.surface(name)
    functions = {key: getattr(torch, key) for key in surfaces.FUNCTIONS}
    for at in ((0.3, -0.7), surface.start):
        x, y = (torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in at)
        value = eval(surface.formula, {**functions, "x": x, "y": y})
        value.backward()
        assert surface.value(*at) == pytest.approx(float(value.detach()), rel=1e-12, abs=1e-12)
        assert surface.gradient(*at) == pytest.approx((float(x.grad), float(y.grad)), rel=1e-9, abs=1e-12)


def test_every_rule_races():
    assert {racer.type for racer in paths.RACERS.values()} == set(rule_types())
    for racer in paths.RACERS.values():
        path = paths.race(racer, surfaces.surface("valley"), 60)
        assert path.values[-1] < path.values[0], racer.name


def test_a_path_by_hand():
    racer = paths.RACERS["Momentum"]
    path = paths.race(racer, surfaces.surface("valley"), 2, 0.125)
    w, v = np.array([-9.0, 1.5]), np.zeros(2)
    for step in (1, 2):
        v = np.float32(0.9) * v + 0.125 * w * [1, 20]
        w = w - v
        np.testing.assert_allclose(path.points[step], w, rtol=1e-12)


def test_the_statements_of_the_lecture():
    valley, saddle, noisy = (surfaces.surface(name) for name in ("valley", "saddle", "saddle_noisy"))
    sgd, momentum, adam, adagrad = (paths.RACERS[name] for name in ("SGD", "Momentum", "Adam", "AdaGrad"))
    jumps = paths.race(sgd, valley, 10, 0.095).points[:, 1]
    assert (np.sign(jumps[1:]) != np.sign(jumps[:-1])).all()  # steep: from wall to wall
    assert paths.best_rate(momentum, valley)[0] < paths.best_rate(sgd, valley)[0]
    over = paths.race(momentum, valley, 60, 0.02).points[:, 0]
    assert over.max() > 1  # momentum runs past the minimum
    assert paths.race(sgd, saddle, 300, 0.1).points[-1, 1] == 0  # without noise, no rule leaves the ridge
    assert abs(paths.race(sgd, noisy, 300, 0.1).points[-1, 1]) > 1
    lengths = np.linalg.norm(
        np.diff(paths.race(adagrad, surfaces.surface("rosenbrock"), 200, 0.1).points, axis=0), axis=1
    )
    assert lengths[-1] < lengths[0] / 10
    first = np.abs(np.diff(paths.race(adam, valley, 1, 0.1).points, axis=0))
    np.testing.assert_allclose(first, 0.1, rtol=1e-3)  # with bias correction, the first step has the length of the rate


@pytest.mark.long
@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_page_computes_what_the_package_computes():
    cases, expected = [], []
    for name, surface in surfaces.SURFACES.items():
        for racer in filter(page.live, paths.RACERS.values()):
            for noise in (0.0, 0.3):
                rate = float(np.float32(racer.rate))
                data = page.racer_data(racer)
                cases.append(
                    [data["type"], data["settings"], page.surface_data(surface), 40, rate, surface.start, noise, 7]
                )
                path = paths.race(racer, surface, 40, racer.rate, noise=noise, seed=7)
                expected.append((name, racer.name, noise, path.points))
    script = (
        'const r = require(process.argv[1]); const c = JSON.parse(require("fs").readFileSync(0));'
        "console.log(JSON.stringify(c.map((a) => r.run(...a))))"
    )
    core = ROOT / "src/caffe/race/race.js"
    done = subprocess.run(
        [NODE, "-e", script, str(core)], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    for points, (name, racer, noise, own) in zip(json.loads(done.stdout), expected, strict=True):
        assert len(points) == len(own), (name, racer, noise)
        np.testing.assert_allclose(points[:25], own[:25], rtol=1e-6, atol=1e-6, err_msg=f"{name} {racer} {noise}")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.long
def test_the_page_runs_in_a_browser(tmp_path):
    page.write(tmp_path / "race.html", [surfaces.surface("valley"), surfaces.surface("moons")])
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    done = subprocess.run(
        ["chromium", *flags, f"file://{tmp_path / 'race.html'}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    rows = re.findall(r"<tr><td[^>]*>([\w ]+)</td><td>[\d.e-]+</td><td>([\d.e+-]+)</td></tr>", done.stdout)
    found = dict(rows)
    surface = surfaces.surface("valley")
    for name in ("SGD", "Adam", "AdaDelta"):
        own = paths.race(paths.RACERS[name], surface, 120).values[-1]
        assert float(found[name]) == pytest.approx(own, rel=0.01)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-rules", "Adamm"], 'there is no rule "Adamm"; did you mean "Adam"'),
        (["-surface", "vally"], 'did you mean "valley"'),
        (["-formula", "x**2 + foo(y)"], '"foo" is unknown'),
        (["-formula", "x.real"], "only numbers"),
        (["-formula", "x +"], "write it as Python does"),
        (["-formula", "x", "-surface", "beale"], "exclude each other"),
        (["-start", "1"], "expected X,Y"),
        (["-film", "avi"], "expected gif or mp4"),
        (["-rates", "a"], "expected numbers"),
        (["solver.prototxt", "-film", "gif"], "applies to surfaces"),
        (["solver.prototxt"], "solver.prototxt"),
    ],
)
def test_a_wrong_setting_is_one_error(tmp_path, monkeypatch, capsys, argv, text):
    monkeypatch.chdir(tmp_path)
    assert main(["race", *argv]) == 1
    error = capsys.readouterr().err.partition("caffe: error: ")[2]
    assert text in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_formula_of_the_user(tmp_path, capsys):
    argv = ["-formula", "x**4 - 3*x**2 + abs(y)", "-start", "2,1", "-rules", "SGD,Adam", "-steps", "10"]
    assert main(["race", *argv, "-out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"own_contour.png", "own_space.png", "race.html"}
    html = (tmp_path / "race.html").read_text()
    assert "/*DATA*/" not in html
    assert "src=" not in html
    with pytest.raises(CaffeError):
        surfaces.own("__import__('os')")


def test_a_race_on_a_solver(tmp_path, monkeypatch, capsys):
    from tests.cli.conftest import NET, SOLVER

    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    assert main(["race", "solver.prototxt", "-rules", "Momentum,Adam,AdaGrad", "-steps", "6"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^Momentum \(rate 0\.01\): loss [\d.]+ after 6 steps", out, re.M)
    assert "lowest loss: " in out
    assert (tmp_path / "race/solver.png").stat().st_size > 1000


@pytest.mark.long
@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_films_have_all_frames(tmp_path, ending):
    import cv2

    from caffe.race import pictures

    surface = surfaces.surface("valley")
    target = tmp_path / f"film{ending}"
    pictures.film(target, surface, [paths.race(paths.RACERS["SGD"], surface, 5)], frames=3)
    reader = cv2.VideoCapture(str(target))
    frames = 0
    while reader.read()[0]:
        frames += 1
    assert frames >= (3 if ending == ".gif" else 18)
