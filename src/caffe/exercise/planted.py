"""Runs with one planted fault each, and the codes of the causes whose repair alone makes them healthy."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.exercise.nets import NETS, Run, auto, curves, lenet, loss, lstm, mlp, norm, over, small

__all__ = ["GOOD", "planted"]

M = {"momentum": 0.9, "weight_decay": 0.0005}
ADAM = {"type": '"Adam"', "momentum": 0.9, "momentum2": 0.999}
GOOD: dict[str, dict[str, object]] = {
    "lenet": {"base_lr": 0.01, **M, "test_iter": 10},
    "small": {"base_lr": 0.02, **M},
    "mlp": {"base_lr": 0.3, **M},
    "tanh": {"base_lr": 0.03, **M},
    "norm": {"base_lr": 0.02, **M},
    "lstm": {"base_lr": 0.005, **ADAM, "test_iter": 20},
    "auto": {"base_lr": 0.003, **ADAM},
    "curves": {"base_lr": 0.02, **M},
}
"""Solvers that suit the nets."""
CONSTANT = 'type: "constant" value: 0.01'


def gauss(std: float) -> str:
    return f'type: "gaussian" std: {std}'


def uniform(end: float) -> str:
    return f'type: "uniform" min: -{end} max: {end}'


def drop(blob: str, ratio: float) -> str:
    return over("Dropout", blob, f"dropout_param {{ dropout_ratio: {ratio} }}")


def twice(bottom: str = "out", kind: str = "Softmax", final: str = "") -> str:
    layer = f'layer {{ name: "prob" type: "{kind}" bottom: "{bottom}" top: "prob" }}\n'
    return layer + (final or loss("prob"))


def dropped(bottom: str = "out") -> str:
    layer = f'layer {{ name: "last_drop" type: "Dropout" bottom: "{bottom}" top: "dropped" }}\n'
    return layer + loss("dropped")


FROZEN = "param { lr_mult: 0 } param { lr_mult: 0 }"


def planted() -> Iterator[Run]:
    """Return all planted runs."""
    yield from _rates()
    yield from _solvers()
    yield from _fillers()
    yield from _layers()
    yield from _data()


def _run(base: str, code: str, net: str, solver: dict[str, object] | None = None, also: str = "") -> Run:
    codes = (code, *also.split())
    return Run(f"{base}: {code}", net, {**GOOD[base], **(solver or {})}, codes)


def _rates() -> Iterator[Run]:
    nets = {"lenet": lenet(), "small": small(), "mlp": mlp(), "tanh": mlp(unit="TanH"), "norm": norm(), "lstm": lstm()}
    nets |= {"auto": auto(), "curves": curves()}
    high = {"lenet": 0.7, "small": 3, "mlp": 60, "tanh": 8, "norm": 500, "lstm": 3, "auto": 3, "curves": 3}
    for base, net in nets.items():
        yield _run(base, "rate-too-high", net, {"base_lr": high[base]})
        yield _run(base, "rate-too-low", net, {"base_lr": float(GOOD[base]["base_lr"]) * 1e-5})  # type: ignore[arg-type]
    yield _run("small", "rate-too-low", small(), {"base_lr": 1e-5})
    yield _run("lenet", "rate-too-high", lenet(), {"base_lr": 10})
    yield _run("small", "rate-too-high", small("patterns"), {"base_lr": 1.5})


def _solvers() -> Iterator[Run]:
    for base, net, decay in (
        ("lenet", lenet(), 1),
        ("small", small(), 0.5),
        ("curves", curves(), 2),
        ("norm", norm(), 10),
    ):
        yield _run(
            base, "weight-decay-too-high", net, {"weight_decay": decay}, "rate-too-high" if base == "norm" else ""
        )
    for base, net, momentum in (
        ("small", small(), 0.999),
        ("lenet", lenet(), 0.998),
        ("small", small(), 1.0),
        ("tanh", mlp(unit="TanH"), 0.999),
    ):
        yield _run(base, "momentum-too-high", net, {"momentum": momentum}, "rate-too-high")
    yield _run("small", "rate-not-finite", small(), {"lr_policy": '"poly"', "power": 1, "max_iter": None})
    yield _run("curves", "schedule", curves(), {"lr_policy": '"step"', "gamma": 0.1, "stepsize": 100000})
    yield _run("lstm", "schedule", lstm(), {"lr_policy": '"multistep"', "gamma": 0.1, "stepvalue": 9000})
    yield _run("norm", "too-few-epochs", norm(), {"max_iter": 10, "snapshot": 10})
    yield _run("mlp", "test-coverage", mlp(), {"test_iter": 1})
    yield _run("auto", "snapshot-never", auto(), {"snapshot": 0, "snapshot_after_train": "false"})
    yield _run("auto", "nothing-learns", auto(), {"base_lr": 0})
    yield _run("mlp", "nothing-learns", mlp(), {"clip_gradients": 0})
    yield _run("lstm", "nothing-learns", lstm(), {"base_lr": 0})
    yield _run("small", "rate-too-low", small(), {"clip_gradients": 1e-5}, "clip-too-strong")


def _fillers() -> Iterator[Run]:
    for base in ("lenet", "small", "mlp", "norm", "auto", "curves"):
        yield _run(base, "weights-all-equal", NETS[base](filler=CONSTANT if base != "lenet" else 'type: "constant"'))
    yield _run("lstm", "weights-all-equal", lstm(filler='type: "constant"', top=CONSTANT))
    for base, net in (("lenet", lenet(gauss(1e-4))), ("small", small(filler=gauss(1e-4))), ("auto", auto(gauss(1e-4)))):
        yield _run(base, "activations-vanish", net)
    yield _run("tanh", "activations-vanish", mlp(filler=gauss(1e-4), unit="TanH"))
    yield _run("curves", "activations-vanish", curves(filler=uniform(1e-4)))
    yield _run("small", "activations-explode", small(filler=gauss(3)), also="rate-too-high")
    yield _run("lenet", "activations-explode", lenet(uniform(3)), also="rate-too-high")
    yield _run("tanh", "activations-saturate", mlp(filler=gauss(5), unit="TanH"))
    yield _run("mlp", "activations-saturate", mlp(filler=gauss(20)))
    yield _run("curves", "activations-saturate", curves(filler=gauss(8)), also="rate-too-high activations-explode")
    yield _run("small", "dead-units", small(bias="value: -30"))
    yield _run("lenet", "dead-units", lenet(bias="value: -20"))
    yield _run("auto", "dead-units", auto(bias="value: -10"))


def _layers() -> Iterator[Run]:
    yield _run("lenet", "softmax-twice", lenet(end=twice()))
    yield _run("norm", "softmax-twice", norm(end=twice()))
    yield _run("mlp", "softmax-twice", mlp(end=twice()))
    yield _run("lenet", "wrong-loss", lenet(end=loss(kind="MultinomialLogisticLoss")))
    yield _run("small", "wrong-loss", small(end=loss(kind="MultinomialLogisticLoss")))
    euclid = loss(kind="EuclideanLoss")
    yield _run("tanh", "wrong-loss", mlp(unit="TanH", classes="1", end=euclid))
    yield _run("small", "wrong-loss", small(end=euclid).replace("num_output: 10", "num_output: 1"))
    yield _run("tanh", "no-nonlinearity", mlp(unit=""))
    yield _run("mlp", "no-nonlinearity", mlp("patterns", unit=""), GOOD["tanh"])
    yield _run("lenet", "narrow-layer", lenet(width="1"))
    yield _run("small", "narrow-layer", small(width="2"))
    yield _run("tanh", "narrow-layer", mlp(unit="TanH", first="2"))
    yield _run("lenet", "dropout-too-strong", lenet(drop=drop("ip1", 0.99)))
    yield _run("tanh", "dropout-too-strong", mlp(unit="TanH", drop=drop("h1", 0.98)))
    yield _run("lenet", "dropout-misplaced", lenet(end=dropped()))
    yield _run("norm", "dropout-misplaced", norm(end=dropped()))
    yield _run("lenet", "frozen-layers", lenet(conv2=FROZEN))
    yield _run("mlp", "frozen-layers", mlp(h1=FROZEN))
    yield _run("curves", "frozen-layers", curves(h2=FROZEN))
    yield _run("norm", "batch-norm-frozen", norm(stats="use_global_stats: true"))
    yield _run("norm", "batch-too-small", norm(batch=1), also="rate-too-high")
    yield _run("norm", "batch-too-small", norm(batch=2), also="rate-too-high")
    yield _run("mlp", "unused-layer", mlp(unit="TanH").replace('"h2" top: "out"', '"h1" top: "out"'), GOOD["tanh"])
    yield _run("small", "loss-missing", small(end=loss().splitlines(keepends=True)[0]))


def _data() -> Iterator[Run]:
    yield _run("lenet", "constant-input", lenet(scale="scale: 0"))
    yield _run("small", "constant-input", small("digits_same"))
    yield _run("lenet", "input-scale", lenet(scale="scale: 0.00001"))
    yield _run("lenet", "input-scale", lenet(scale="scale: 10"), also="rate-too-high")
    yield _run("small", "input-scale", small("digits_small"))
    yield _run("tanh", "input-scale", mlp("digits_away", unit="TanH"))
    yield _run("small", "input-scale", small("patterns_huge"), also="rate-too-high")
    yield _run("curves", "input-scale", curves("curves_large"))
    yield _run("small", "non-finite-data", small("digits_nan"))
    yield _run("mlp", "non-finite-data", mlp("digits_nan"))
    yield _run("small", "label-range", small("digits_from1"))
    yield _run("lenet", "label-range", lenet(classes="8"))
    yield _run("small", "label-order", small("digits_sorted"))
    yield _run("mlp", "label-order", mlp("digits_sorted"))
    yield _run("tanh", "class-imbalance", mlp("digits_rare", unit="TanH"))
    yield _run("small", "labels-unrelated", small("digits_shuffled"))
    yield _run("mlp", "labels-unrelated", mlp("patterns_shuffled", unit="TanH"), GOOD["tanh"])
    yield _run("small", "duplicate-records", small("digits_twice"))
    yield _run("norm", "train-test-overlap", norm("digits_overlap"))
    mixed = lenet().replace("scale: 0.00390625", "scale: 1", 2).replace("scale: 1 ", "scale: 0.00390625 ", 1)
    yield _run("lenet", "phase-mismatch", mixed)
    yield Run(
        "lenet: weights-not-loaded",
        lenet().replace('"conv', '"c').replace('"ip1', '"i').replace('"out"', '"o"'),
        GOOD["lenet"],
        ("weights-not-loaded",),
        "lenet",
    )
