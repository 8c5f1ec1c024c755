"""`caffe test -ensemble`: the table of an ensemble and its members."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

from caffe import log
from caffe.cli.display import Display
from caffe.cli.flags import precision_name
from caffe.ensemble import combine, score
from caffe.ensemble.members import pair
from caffe.errors import ArgumentError
from caffe.proto import files

__all__ = ["run"]


def run(flags: SimpleNamespace, display: Display) -> None:
    """Score the members and the ensemble, print the table, and write the file of -json."""
    combine.check_method(flags.combine)
    if (flags.combine == "weights") != bool(flags.validation):
        raise ArgumentError(
            "-combine weights fits the members' weights on the data of -validation SOURCE: give both flags, or neither"
        )
    if precision_name(flags.precision or "fp32") != "FLOAT":
        raise ArgumentError(f"-precision {flags.precision}: an ensemble is scored in fp32; remove it")
    models, weights = (_words(text) for text in (flags.model, flags.weights))
    members = pair(models, weights)
    fitted = None
    if flags.validation:
        answers = _collect(flags, display, members, "validation", flags.validation)
        fitted = combine.fit_weights(answers.members, answers.labels).tolist()
    scores = score.score(_collect(flags, display, members, "test"), flags.combine, fitted)
    for line in lines(scores):
        print(line)
    log.info("caffe", f"ensemble of {len(members)}: accuracy = {log.number(scores.ensemble.accuracy)}")
    if flags.json:
        with files.atomic(flags.json) as file:
            file.write((json.dumps(as_dict(scores), indent=2) + "\n").encode())


def _collect(flags: SimpleNamespace, display: Display, members: Any, what: str, source: str = "") -> score.Answers:
    with display.bar(f"{what}: {len(members)} members", len(members)) as bar:
        return score.collect(
            members,
            flags.iterations,
            flags.level,
            flags.stage.split(","),
            (lambda model: score.sources_replaced(model, source)) if source else (lambda model: model),
            bar.update,
            compile=flags.compile,
            engine=flags.engine,
        )


def lines(scores: score.Scores) -> list[str]:
    """Return the table as text."""
    width = max(len("members: mean"), *(len(row.name) for row in scores.members))
    shares = list(scores.weights) or [math.nan] * len(scores.members)
    head = f"{'':{width}}  accuracy     loss" + ("   weight" if scores.weights else "")
    table = [head]
    for row, share in zip(scores.members, shares, strict=True):
        weight = f"   {share:6.3f}" if scores.weights else ""
        table.append(f"{row.name:{width}}  {_percent(row.accuracy)}  {_loss(row.loss)}{weight}")
    accuracy, loss = scores.spread("accuracy"), scores.spread("loss")
    for title, index in (("mean", 0), ("spread", 1), ("least", 2), ("most", 3)):
        name = f"members: {title}"
        table.append(f"{name:{width}}  {_percent(accuracy[index])}  {_loss(loss[index])}")
    table.append(f"{'ensemble':{width}}  {_percent(scores.ensemble.accuracy)}  {_loss(scores.ensemble.loss)}")
    gain = 100 * (scores.ensemble.accuracy - accuracy[0])
    table += [
        f"{scores.items} items, combined by {scores.method}; 95 % interval of the ensemble's accuracy "
        f"+-{100 * scores.error_bar:.2f} %",
        f"vs. the members' mean: {gain:+.2f} %; vs. the best ({scores.best.name}): {scores.gained} items gained, "
        f"{scores.lost} lost; two members differ on {100 * scores.apart:.2f} % of the items",
    ]
    return table


def as_dict(scores: score.Scores) -> dict[str, Any]:
    """Return the table as a JSON-compatible dict. Unknown values are None."""

    def row(each: score.Row) -> dict[str, Any]:
        return {"name": each.name, "accuracy": each.accuracy, "loss": None if math.isnan(each.loss) else each.loss}

    return {
        "combine": scores.method,
        "items": scores.items,
        "members": [row(each) for each in scores.members],
        "ensemble": row(scores.ensemble),
        "weights": list(scores.weights) or None,
        "error_bar": scores.error_bar,
        "gained": scores.gained,
        "lost": scores.lost,
        "apart": scores.apart,
    }


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _percent(share: float) -> str:
    return f"{100 * share:6.2f} %"


def _loss(value: float) -> str:
    return f"{'-':>7}" if math.isnan(value) else f"{value:7.4f}"
