"""`caffe race`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.errors import ArgumentError, CaffeError, require_extra

OUT = Flag("out", "race", "Folder for pictures, films, the table and the page.", ("o",))
RULES = Flag("rules", "", "Rules to compare, separated by ','; all: every rule.")
SURFACE = Flag("surface", "", "Surfaces, separated by ','; the default is all.")
FORMULA = Flag("formula", "", 'Formula of your own surface, such as "x**2 + sin(3*y)**2".')
START = Flag("start", "", "Start point: X,Y.")
RACE_STEPS = Flag("steps", 0, "Number of steps; the default is 120 on surfaces and 200 on a solver.")
RATES = Flag("rates", "", "Learning rates, separated by ','; by default each rule has its own.")
FILM = Flag("film", "", "Also write films: gif or mp4.")
TABLE = Flag(
    "table", False, "Also measure the number of steps of every rule on every surface, at its best of 16 rates."
)
_USUAL = "SGD,Momentum,Nesterov,AdaGrad,RMSProp,AdaDelta,Adam"


@command("gpu", OUT, RULES, SURFACE, FORMULA, START, RACE_STEPS, RATES, FILM, TABLE, task="train", arguments="[SOLVER]")
def race(flags: SimpleNamespace, display: Display) -> None:
    """Compare update rules on surfaces or on a solver.

    Without a solver, the rules run on surfaces of two variables. OUT then contains pictures with contours and in 3D,
    and race.html, an interactive page with controls for rate, momentum, start and noise. With a solver, each rule
    trains its net with the same data and seed. OUT/solver.png shows the loss over iterations and over seconds.

        caffe race
        caffe race -surface rosenbrock -rules Momentum,Adam,LBFGS -film gif
        caffe race -formula "x**4 - 3*x**2 + y**2" -start 2,1 -table
        caffe race solver.prototxt -rules Momentum,Adam,Muon -steps 500
    """
    from caffe.race import paths

    if len(flags.arguments) > 1:
        raise CaffeError(f"caffe race takes one solver, got {len(flags.arguments)}")
    require_extra("matplotlib", "plot", "caffe race")
    racers, rates = paths.racers(flags.rules or _USUAL), _numbers("rates", flags.rates)
    if flags.film not in ("", "gif", "mp4"):
        raise ArgumentError(f"-film {flags.film}: expected gif or mp4")
    if flags.steps < 0:
        raise ArgumentError(f"-steps {flags.steps}: expected at least 1")
    surfaces = [] if flags.arguments else _surfaces(flags)
    if flags.arguments:
        _on_solver(flags, racers, rates)
    else:
        _on_surfaces(flags, surfaces, racers, rates, display)


def _on_solver(flags: SimpleNamespace, racers: Any, rates: list[float]) -> None:
    from caffe.cli import _device
    from caffe.race import solvers

    if given := [f"-{name}" for name in ("surface", "formula", "start", "film", "table") if getattr(flags, name)]:
        raise ArgumentError(f"{', '.join(given)}: applies to surfaces, not to a solver; remove it")
    _device.use(flags.gpu, "race", f'"-gpu {flags.gpu}"')

    def tell(lap: Any) -> None:
        seconds = f"{lap.seconds[-1]:.1f} s" if lap.seconds else ""
        result = lap.error or f"loss {lap.final:.4g} after {len(lap.losses)} steps, {seconds}"
        print(f"{lap.name} (rate {lap.rate:g}): {result}", flush=True)

    found = solvers.laps(flags.arguments[0], racers, flags.steps or 200, rates, tell)
    best = min(found, key=lambda lap: lap.final)
    print(f"lowest loss: {best.name} with rate {best.rate:g}")
    Path(flags.out).mkdir(parents=True, exist_ok=True)
    solvers.draw(found, str(Path(flags.out) / "solver.png"))
    print(f"drawn: {Path(flags.out) / 'solver.png'}")


def _on_surfaces(flags: SimpleNamespace, surfaces: Any, racers: Any, rates: list[float], display: Display) -> None:
    from caffe.race import page, paths, pictures

    folder = Path(flags.out)
    folder.mkdir(parents=True, exist_ok=True)
    for surface in surfaces:
        runs = [
            paths.race(racer, surface, flags.steps or 120, rate)
            for racer in racers
            for rate in (rates or [racer.pace(surface)])
        ]
        for name, make in (("contour", pictures.contour), ("space", pictures.space)):
            make(surface, runs).savefig(folder / f"{surface.name}_{name}.png", dpi=110)
        if flags.film:
            pictures.film(folder / f"{surface.name}.{flags.film}", surface, runs)
    print(f"drawn: {len(surfaces)} surface(s) in {folder}")
    page.write(folder / "race.html", surfaces)
    print(f"written: {folder / 'race.html'}")
    if flags.table:
        _table(folder, surfaces, flags.steps or 300, display)


def _table(folder: Path, surfaces: Any, steps: int, display: Display) -> None:
    from caffe.proto import files
    from caffe.race import paths

    lines = [["rule", *(surface.name for surface in surfaces)]]
    with display.bar("table", len(paths.RACERS)) as bar:
        for index, racer in enumerate(paths.RACERS.values()):
            found = [paths.best_rate(racer, surface, steps) for surface in surfaces]
            lines.append([racer.name, *("-" if each is None else f"{each[0]} ({each[1]:g})" for each in found)])
            bar.update(index + 1)
    text = "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], ["---"] * len(lines[0]), *lines[1:]))
    print(
        f"steps (of {steps}) until the point stays below 1 % of its start height; best rates in brackets:\n{text}",
        end="",
    )
    with files.atomic(folder / "table.md") as file:
        file.write(text.encode())


def _surfaces(flags: SimpleNamespace) -> list[Any]:
    from dataclasses import replace

    from caffe.race import surfaces

    if flags.formula and flags.surface:
        raise ArgumentError("-formula and -surface exclude each other")
    start = _numbers("start", flags.start)
    if start and len(start) != 2:
        raise ArgumentError(f"-start {flags.start}: expected X,Y")
    place = (start[0], start[1]) if start else None
    if flags.formula:
        return [surfaces.own(flags.formula, *([place] if place else []))]
    names = [name.strip() for name in flags.surface.split(",") if name.strip()] or list(surfaces.SURFACES)
    chosen = [surfaces.surface(name) for name in names]
    return [replace(each, start=place) for each in chosen] if place else chosen


def _numbers(flag: str, text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise ArgumentError(f"-{flag} {text}: expected numbers, separated by ','") from None
