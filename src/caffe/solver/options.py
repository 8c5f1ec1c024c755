"""Checks a solver's settings. A setting that Caffe does not have must be used by the rule or policy of the solver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caffe import log
from caffe.errors import SolverError, did_you_mean
from caffe.proto.forks import effects, foreign_value
from caffe.proto.forks.fields import REFUSED, WITHOUT_EFFECT
from caffe.solver import detections, goals, snapshot
from caffe.solver.momentum import Momentum
from caffe.solver.policy import Policy
from caffe.solver.rules import Rule, rule_class, rule_types
from caffe.solver.settings import check_ranges

__all__ = ["check_own", "check_settings"]

_OURS = 20000  # field numbers from here on are additions of this package
_GENERAL = {"warmup_iter", "warmup_start", "momentum_policy", "ema_decay", "precision", "nan_patience", "recompute"}
_GENERAL |= {"global_batch_norm", "global_normalization", "global_dropout"}
_GENERAL |= {"shard", "tensor_parallel", "pipeline"}
_GENERAL |= {"max_epochs", "test_every_epoch", "keep_best", "keep_last", "early_stop"}
_GENERAL |= {
    "eval_type",
    "ap_version",
    "show_per_class_result",
    "warmup_start_lr",
    "rampup_lr",
    "rampup_interval",
    "larc",
    "larc_policy",
    "larc_eta",
    "larc_turbo",
    "local_lr_auto",
    "local_gw_ratio",
    "max_weight_decay",
    "weight_decay_power",
    "min_lr",
    "weight_decay_policy",
    *WITHOUT_EFFECT["SolverParameter"],
}
_GENERAL |= set(REFUSED["SolverParameter"])  # `refuse_solver` reports their unsupported values


def check_settings(param: Any, source: str | Path | None = None) -> None:
    """Raise a `SolverError` for invalid settings, before any net is built. `source` is the solver's file."""
    for name in ("average_loss", "iter_size"):
        if getattr(param, name) < 1:
            raise SolverError(f"{name} is {getattr(param, name)}, expected at least 1")
    if param.weight_decay and param.regularization_type not in ("L1", "L2"):
        kind = param.regularization_type
        hint = foreign_value(kind) or did_you_mean(kind, ("L1", "L2"))
        raise SolverError(f'unknown regularization_type "{param.regularization_type}"{hint}; expected "L1" or "L2"')
    goals.check_goals(param)
    effects.refuse_solver(param)
    detections.check_evaluation(param)
    check_ranges(param, source)
    if not param.base_lr:
        log.warning("solver.py", "base_lr is 0 or not set: the weights will not change")
    if param.snapshot:
        snapshot.check_prefix(param)


def check_own(param: Any, rule: Rule, policy: Policy, momentum: Momentum | None) -> None:
    """Raise a `SolverError` for a setting of this package that is out of range, or that this solver does not use."""
    read = _GENERAL.union(*(part.options for part in (rule, policy, momentum) if part is not None))
    for field, _ in param.ListFields():
        if field.number >= _OURS and field.name not in read:
            owners = " or ".join(_owners(field.name))
            fact = f"{field.name} is set, but not used by this solver: it belongs to {owners}"
            if field.number < effects.FIRST:
                raise SolverError(f"{fact}; remove it")
            log.warning("options.py", f"{fact}. Its fork of Caffe ignores it, too")
    if param.recompute and param.debug_info:
        raise SolverError("recompute cannot be used with debug_info, which runs layer by layer; remove one of them")
    if param.warmup_iter < 0 or not 0 <= param.warmup_start <= 1:
        found = f"warmup_iter is {param.warmup_iter} and warmup_start {param.warmup_start:g}"
        raise SolverError(f"{found}, expected 0 or more, and a number from 0 to 1")
    if param.warmup_start and not param.warmup_iter:
        raise SolverError("warmup_start is set without warmup_iter; set warmup_iter, the iterations to the full rate")
    if param.HasField("warmup_start_lr") and (param.warmup_start or not param.warmup_iter):
        fact = "needs warmup_iter and excludes warmup_start, which gives the initial rate as a fraction"
        raise SolverError(f"warmup_start_lr is {param.warmup_start_lr:g} (Intel's Caffe), which {fact}")
    if param.rampup_interval < 0 or (param.rampup_interval and param.warmup_iter):
        fact = "expected 0 or more, and no warmup_iter beside it"
        raise SolverError(f"rampup_interval is {param.rampup_interval} (NVCaffe), {fact}")
    _check_forks(param)
    if param.HasField("ema_decay") and not 0 < param.ema_decay < 1:
        raise SolverError(f"ema_decay is {param.ema_decay:g}, expected above 0 and below 1, such as 0.995")


def _check_forks(param: Any) -> None:
    """Raise a `SolverError` for settings of NVCaffe and Intel's Caffe that are out of range or have no effect."""
    if param.min_lr < 0:
        raise SolverError(f"min_lr is {param.min_lr:g}, expected 0 or more")
    kind = param.weight_decay_policy
    if kind not in ("fixed", "poly"):
        raise SolverError(
            f'weight_decay_policy is "{kind}"{did_you_mean(kind, ("fixed", "poly"))}; expected one of them'
        )
    if kind == "poly" and not (param.max_iter > 0 and param.HasField("max_weight_decay")):
        raise SolverError('weight_decay_policy is "poly", which needs max_iter and max_weight_decay; set both')
    for field, owner, used in (
        ("larc_policy", "larc", param.larc),
        ("larc_eta", "larc", param.larc),
        ("larc_turbo", "larc", param.larc),
        ("local_gw_ratio", "local_lr_auto", param.local_lr_auto),
    ):
        if param.HasField(field) and not used:
            log.warning("options.py", f"{field} has no effect, because {owner} is not true")
    if param.local_lr_auto and not param.local_gw_ratio > 0:
        raise SolverError(f"local_gw_ratio is {param.local_gw_ratio:g}, expected a number above 0")


def _owners(name: str) -> Iterator[str]:
    """Yield the settings whose rule or policy uses the field."""
    yield from (f'type: "{kind}"' for kind in rule_types() if name in rule_class(kind).options)
    for family, field in ((Policy, "lr_policy"), (Momentum, "momentum_policy")):
        yield from (f'{field}: "{kind}"' for kind in family.names() if name in family.find(kind).options)
