"""The implementation and output of `caffe search`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from caffe import log
from caffe.cli.display import Display, Terminal
from caffe.doctor.case import Case, close, quiet
from caffe.errors import SolverError, require_extra
from caffe.proto import files
from caffe.search import finals, runs, split
from caffe.search.lease import locked
from caffe.search.space import read_space
from caffe.search.study import Plan, Search
from caffe.solver import get_solver

__all__ = ["run"]


def run(flags: SimpleNamespace, display: Display) -> None:
    """Search, evaluate the finalists, and write the results."""
    folder = Path(flags.out)
    case, space = Case(flags.arguments[0]), read_space(flags.arguments[1])
    _check(flags, case)
    space.check(case)
    plan = Plan(flags.trials, flags.method, flags.prune, flags.seed, flags.steps or case.param.max_iter, flags.storage)
    plan.check()
    require_extra("optuna", "search", "caffe search")
    with locked(folder / "data.lock"):
        parts = split.parts(case, folder / "data", flags.share / 100, flags.folds, flags.seed, flags.validation)
    goal = _goal(case, parts[0], plan.steps, flags)
    searches = [Search(case, space, plan, folder, goal, parts, "search")]
    _search(searches[0], display)
    if flags.fine and (best := searches[0].ranked):
        fine = Plan(flags.fine, "tpe", plan.pruner, plan.seed + 1, plan.steps, plan.storage)
        searches.append(Search(case, space.narrowed(best[0].params), fine, folder, goal, parts, "fine"))
        _search(searches[1], display)
    _write_table(searches, folder / "trials.csv")
    report = finals.finish(searches, folder, flags.finalists, flags.repeats, lambda text: _say(display, text))
    for line in lines(report):
        print(line)
    for each in searches:
        for path in _pictures(each, folder):
            print(f"drawn: {path}")


def _check(flags: SimpleNamespace, case: Case) -> None:
    for name, least in (("folds", 1), ("finalists", 1), ("repeats", 1), ("share", 1), ("fine", 0), ("steps", 0)):
        if getattr(flags, name) < least:
            raise SolverError(f"-{name} {getattr(flags, name)}: expected at least {least}")
    if flags.share > 90:
        raise SolverError(f"-share {flags.share}: expected at most 90 percent")
    if flags.validation and flags.folds > 1:
        raise SolverError("-validation and -folds exclude each other: folds are parts of the training data")
    if flags.direction not in ("", "maximize", "minimize"):
        raise SolverError(f"-direction {flags.direction}: expected maximize or minimize")
    case.check_editable()


def _goal(case: Case, part: split.Part, steps: int, flags: SimpleNamespace) -> runs.Goal:
    """Determine the value to optimize. Builds the nets once, so that errors in the user's files are reported first."""
    with quiet():
        solver = get_solver(runs.parameters(case, None, part, 1, steps, Path(flags.out)), source=None)
        try:
            return runs.Goal.of(solver, flags.metric, flags.direction)
        finally:
            close(solver)


def _search(search: Search, display: Display) -> None:
    told: set[int] = set()
    with _live(search, display) as refresh:

        def hear(search: Search, number: int) -> None:
            refresh()
            trial = search.trials[number]
            if trial.state.is_finished() and number not in told:
                told.add(number)
                if not display.terminal:
                    print(_line(search, trial), flush=True)
                log.info("caffe", _line(search, trial))

        search.run(hear)


def _line(search: Search, trial: Any) -> str:
    params = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
    return f"{search.title} {trial.number}: {_result(search, trial)} ({params})"


def _result(search: Search, trial: Any) -> str:
    steps = max(trial.intermediate_values, default=0)
    if trial.state.name == "COMPLETE":
        return f"{search.goal.output} {trial.value:.4f}"
    if trial.state.name == "FAIL":
        return f"failed: {trial.user_attrs.get('error', '')}"
    if trial.state.name == "PRUNED":
        return f"{trial.user_attrs.get('stopped', 'stopped')} at iteration {steps}"
    now = trial.intermediate_values.get(steps)
    value = "" if now is None else f", {search.goal.output} {now:.4f}"
    return f"iteration {steps} of {search.plan.steps}{value}"


@contextmanager
def _live(search: Search, display: Display) -> Iterator[Any]:
    """Show a table of all trials on a terminal; yields the function that redraws it."""
    if not isinstance(display, Terminal):
        yield lambda: None
        return
    from rich.live import Live

    with Live(_table(search), console=display.console, auto_refresh=False, redirect_stdout=False) as live:
        yield lambda: live.update(_table(search), refresh=True)


def _table(search: Search) -> Any:
    from rich.table import Table

    done = sum(trial.state.is_finished() for trial in search.trials)
    table = Table(title=f"{search.name}: {done} of {search.wanted} trials")
    names = [dimension.name for dimension in search.space.dimensions]
    for name in ("trial", *(name.rpartition(".")[2] for name in names), "result"):
        table.add_column(name)
    best = [trial.number for trial in search.ranked[:1]]
    for trial in search.trials[-30:]:
        style = "bold green" if trial.number in best else "" if trial.state.is_finished() else "cyan"
        values = [_short(trial.params[name]) if name in trial.params else "" for name in names]
        table.add_row(str(trial.number), *values, _result(search, trial), style=style)
    return table


def lines(report: finals.Report) -> list[str]:
    """Return the report as text."""
    width = max(len(each.name) for each in (report.baseline, *report.finalists))
    table = [f"{'':{width}}  search    validation          test"]
    for each in (report.baseline, *report.finalists):
        searched = "-" if math.isnan(each.searched) else f"{each.searched:.4f}"
        mark = "  <- chosen" if each.name == report.chosen.name else ""
        test = report.chosen.test if mark else each.test
        table.append(f"{each.name:{width}}  {searched:8}  {_mean(each.validation):18}  {_mean(test) or '-':18}{mark}")
    seeds = len(report.baseline.validation)
    table.append(
        f"{report.goal.output}: means over {seeds} seeds, 95 % intervals; the test data were used once, at the end"
    )
    gain, half = report.test_gain
    seen, luck = report.gain, report.luck
    share = f" ({100 * luck / seen:.0f} %)" if seen > 0 else ""
    table.append(f"gain in the search: {seen:+.4f}; part that disappeared with other seeds (luck): {luck:+.4f}{share}")
    if not math.isnan(gain):
        sure = "" if abs(gain) > half else "; this may be chance" if half == half else "; one seed gives no interval"
        table.append(f"gain on the test data: {gain:+.4f} +-{half:.4f}{sure}")
    table += [f"written: {path}" for path in report.written]
    return table


def _mean(values: list[float]) -> str:
    if not values:
        return ""
    half = finals.half_interval(values)
    return f"{float(np.mean(values)):.4f}" + ("" if math.isnan(half) else f" +-{half:.4f}")


def _write_table(searches: list[Search], path: Path) -> None:
    text = io.StringIO()
    names = [dimension.name for dimension in searches[0].space.dimensions]
    writer = csv.writer(text)
    writer.writerow(["search", "trial", "state", "value", "iterations", *names, "folds", "note"])
    for search in searches:
        for trial in search.trials:
            note = trial.user_attrs.get("error", trial.user_attrs.get("stopped", ""))
            values = [trial.params.get(name, "") for name in names]
            steps = max(trial.intermediate_values, default=0)
            folds = trial.user_attrs.get("folds", "")
            writer.writerow([search.name, trial.number, trial.state.name, trial.value, steps, *values, folds, note])
    with files.atomic(path) as file:
        file.write(text.getvalue().encode())


def _pictures(search: Search, folder: Path) -> list[Path]:
    try:
        require_extra("matplotlib", "plot", "drawing pictures")
    except ImportError as error:
        log.warning("caffe", str(error))
        return []
    from caffe.search import pictures

    return pictures.draw(search, folder / "pictures")


def _say(display: Display, text: str) -> None:
    display.say(text)
    log.info("caffe", text)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
