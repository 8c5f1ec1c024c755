"""Healthy runs: the nets with rates, rules, batch sizes and seeds around good values, and the examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from caffe.exercise.nets import Run, auto, curves, lenet, loss, lstm, mlp, norm, small
from caffe.exercise.planted import ADAM, FROZEN, GOOD, M, drop, gauss

__all__ = ["healthy"]

RULES: dict[str, dict[str, object]] = {
    "Nesterov": {"type": '"Nesterov"'},
    "Adam": {**ADAM, "base_lr": 0.002},
    "AdaGrad": {"type": '"AdaGrad"', "base_lr": 0.02, "momentum": None},
    "RMSProp": {"type": '"RMSProp"', "base_lr": 0.002, "rms_decay": 0.95, "momentum": None},
    "AdaDelta": {"type": '"AdaDelta"', "base_lr": 1.0, "momentum": 0.95, "delta": 1e-6},
}
BASES: dict[str, Callable[..., str]] = {
    "lenet": lenet,
    "small": small,
    "mlp": mlp,
    "tanh": lambda **options: mlp(unit="TanH", **options),
    "norm": norm,
    "lstm": lstm,
    "auto": auto,
    "curves": curves,
}


def healthy() -> Iterator[Run]:
    """Return all healthy runs except the examples, which the command adds if their data exist."""
    for base, net in BASES.items():
        yield from _around(base, net)
    yield from _rules()
    yield from _special()


def _run(base: str, name: str, net: str, solver: dict[str, object] | None = None, weights: str = "") -> Run:
    return Run(f"ok {base} {name}", net, {**GOOD[base], **(solver or {})}, weights=weights)


def _around(base: str, net: Callable[..., str]) -> Iterator[Run]:
    rate = float(GOOD[base]["base_lr"])  # type: ignore[arg-type]
    for factor in (0.33, 0.6, 1, 1.7, 2.5):
        yield _run(base, f"rate x{factor}", net(), {"base_lr": f"{rate * factor:.3g}"})
    sizes = (8, 32) if base == "lstm" else (25, 100)
    for batch in sizes:
        yield _run(base, f"batch {batch}", net(batch=batch))
    for seed in (11, 12):
        yield _run(base, f"seed {seed}", net(), {"random_seed": seed})
    yield _run(base, "inv", net(), {"lr_policy": '"inv"', "gamma": 0.0001, "power": 0.75})
    yield _run(base, "step", net(), {"lr_policy": '"step"', "gamma": 0.1, "stepsize": 1000})
    yield _run(base, "poly", net(), {"lr_policy": '"poly"', "power": 1})
    yield _run(base, "no decay", net(), {"weight_decay": 0})


def _rules() -> Iterator[Run]:
    for name, rule in RULES.items():
        for base in ("lenet", "small", "tanh", "norm", "curves"):
            own = dict(rule)
            if name == "AdaGrad" and base == "tanh":
                own["base_lr"] = 0.02
            yield _run(base, name, BASES[base](), own)
    yield _run("auto", "Nesterov", auto(), {"type": '"Nesterov"', "base_lr": 0.01, "momentum2": None})
    yield _run("auto", "RMSProp", auto(), RULES["RMSProp"] | {"momentum2": None})
    yield _run("lstm", "RMSProp", lstm(), RULES["RMSProp"] | {"base_lr": 0.005, "momentum2": None})
    yield _run("lstm", "SGD", lstm(), {"type": None, "base_lr": 1, "momentum2": None, "clip_gradients": 10})


def _special() -> Iterator[Run]:
    msra = 'type: "msra"'
    # 0..255 without its mean, as in ImageNet nets: gaussian weights of the original nets, a small rate
    for rate in (0.0002, 0.0005, 0.001):
        yield _run("small", f"0..255 without mean, {rate}", small("patterns255", gauss(0.01)), {"base_lr": rate})
    mean = "mean_value: 33"
    for rate in (0.0001, 0.0003):
        yield _run("lenet", f"0..255 without mean, {rate}", lenet(scale=mean), {"base_lr": rate})
    for base in ("lenet", "small", "norm"):
        yield _run(base, "msra", BASES[base](filler=msra))
        yield _run(base, "dropout 0.5", BASES[base](drop=drop("conv2" if base == "norm" else "ip1", 0.5)))
        yield _run(base, "weights", BASES[base](), weights=base)
    for unit in ("ReLU", "ELU", "TanH"):
        yield _run("tanh", f"patterns {unit}", mlp("patterns", unit=unit))
    for seed in (3, 4, 5):
        yield _run("tanh", f"auxiliary head {seed}", _auxiliary(), {"random_seed": seed})
    for rate in (0.003, 0.01):
        frozen = lenet(conv2=FROZEN).replace("param { lr_mult: 1 } param { lr_mult: 2 }", FROZEN, 1)
        yield _run("lenet", f"frozen features {rate}", frozen, {"base_lr": rate}, weights="lenet")
    fine = lenet().replace('name: "out"', 'name: "out_new"')
    for rate in (0.001, 0.003, 0.01):
        yield _run("lenet", f"fine-tuning {rate}", fine, {"base_lr": rate}, weights="lenet")
    for decay in (0.0001, 0.002):
        yield _run("small", f"decay {decay}", small(), {"weight_decay": decay})
    for momentum in (0, 0.5, 0.95):
        rate = 0.1 * (1 - momentum) * 2
        yield _run("small", f"momentum {momentum}", small(), {"momentum": momentum, "base_lr": f"{rate:.3g}"})
    yield _run(
        "norm", "global statistics with weights", norm(stats="use_global_stats: true"), {"base_lr": 0.002}, "norm"
    )
    yield _run("curves", "ReLU", curves(unit="ReLU"), {"base_lr": 0.01})
    yield Run("ok small clip", small(), {**GOOD["small"], **M, "clip_gradients": 5})


def _auxiliary() -> str:
    """Return a second loss on h1 with dropout of 0.7, as in GoogLeNet."""
    aux = 'layer { name: "aux_ip" type: "InnerProduct" bottom: "h1" top: "aux_ip" inner_product_param { num_output: 40 '
    aux += 'weight_filler { type: "xavier" } } }\n'
    aux += 'layer { name: "aux_relu" type: "ReLU" bottom: "aux_ip" top: "aux_ip" }\n' + drop("aux_ip", 0.7)
    aux += 'layer { name: "aux_out" type: "InnerProduct" bottom: "aux_ip" top: "aux_out" inner_product_param { '
    aux += 'num_output: 10 weight_filler { type: "xavier" } } }\n'
    aux += (
        loss("aux_out")
        .splitlines(keepends=True)[1]
        .replace('"loss"', '"aux_loss"')
        .replace("}\n", " loss_weight: 0.3 include { phase: TRAIN } }\n")
    )
    return mlp(unit="TanH", aux=aux)
