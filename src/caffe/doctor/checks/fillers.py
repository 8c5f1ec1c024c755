"""`weights-all-equal`, `activations-vanish`, `activations-explode`, `activations-saturate`: initial weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from caffe.doctor.changes import Change, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.doctor.view import Node

_SMALL, _LARGE, _FULL = 1e-2, 1e2, 0.5


def filler(node: Node) -> Any:
    """Return the weight filler of a layer; None for layers without one."""
    return getattr(node.spec, node.options).weight_filler if node.learned else None


def refill(nodes: list[Node], kind: str = "xavier") -> Change:
    """Create the change that gives layers a weight filler that depends on the layer sizes."""
    edits = tuple(SetField(node.index, f"{node.options}.weight_filler", f'{{ type: "{kind}" }}') for node in nodes)
    names = ", ".join(node.name for node in nodes[:3]) + (" ..." if len(nodes) > 3 else "")
    return Change(f"weight_filler {kind} in {names}", edits)


class Fillers(Check):
    """Checks the size of the activations through the net with its fillers."""

    faults = {
        "weights-all-equal": Fault(
            "all units of a layer start equal and stay equal",
            "`weight_filler` is missing: its default is the constant 0",
        ),
        "activations-vanish": Fault("the activations become small", "standard deviations fall layer by layer"),
        "activations-explode": Fault("the activations become large", "standard deviations grow layer by layer"),
        "activations-saturate": Fault("sigmoids are saturated", "most outputs are 0 or 1 (-1 or 1 for TanH)"),
    }
    stage = Stage.START

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        nodes = [n for n in exam.case.train.nodes if filler(n) is not None and n.name not in exam.case.stored]
        facts = {layer.name: layer for layer in exam.layers}
        sizes = [facts[node.name].std for node in nodes if node.name in facts]
        if sizes:
            yield Line(
                "activations at the first step",
                f"standard deviation {sizes[0]:.2g} in the first learned layer, {sizes[-1]:.2g} in the last",
            )
        equal = self._equal(exam, nodes)
        if equal:
            yield self._all_equal(exam, equal, [node for node in nodes if filler(node).type == "constant"])
            return
        random = [node for node in nodes if filler(node).type in ("gaussian", "uniform")]
        if not random:
            return
        stds = {node.name: facts[node.name].std for node in random if node.name in facts}
        full = [layer for layer in exam.layers if layer.saturated > _FULL]
        if full:
            evidence = (
                f"{100 * full[0].saturated:.0f} % of its numbers are at the ends of the range; below 10 % is usual"
            )
            yield self._finding(exam, "activations-saturate", full[0].name, random, "is saturated", evidence)
        worst = min(stds, key=lambda name: stds[name], default="")
        if worst and stds[worst] < _SMALL:
            evidence = f"standard deviation {stds[worst]:.1e}; about 1 is usual"
            yield self._finding(
                exam, "activations-vanish", worst, random, "gives almost the same output for every input", evidence
            )
        worst = max(stds, key=lambda name: stds[name], default="")
        if worst and stds[worst] > _LARGE and not full:  # else reported as saturation
            evidence = f"standard deviation {stds[worst]:.1e}; about 1 is usual"
            yield self._finding(
                exam, "activations-explode", worst, random, "gives numbers that are too large", evidence
            )

    @staticmethod
    def _equal(exam: Exam, nodes: list[Node]) -> list[Node]:
        """Yield layers whose units all have equal initial weights and are followed by other learned layers."""
        found = []
        for node in nodes:
            follows = any(other in nodes for other in exam.case.train.after(node))
            many = getattr(node.spec, node.options).num_output > 1
            if filler(node).type == "constant" and many and follows and not _frozen(node):
                found.append(node)
        return found

    @staticmethod
    def _all_equal(exam: Exam, nodes: list[Node], constant: list[Node]) -> Finding:
        value = filler(nodes[0]).value
        return Finding(
            "weights-all-equal",
            Severity.ERROR,
            f'layer "{nodes[0].name}": all weights start as {value:g} (weight_filler constant, the default), so all '
            "its units stay equal",
            'give it weight_filler { type: "xavier" }, or "msra" before ReLUs',
            f"{len(nodes)} layer(s) with equal weights",
            layer=nodes[0].name,
            place=exam.case.place(nodes[0].index, f"{nodes[0].options}.weight_filler"),
            change=refill(constant),
        )

    @staticmethod
    def _finding(exam: Exam, code: str, layer: str, nodes: list[Node], fact: str, evidence: str) -> Finding:
        node = next((node for node in nodes if node.name == layer), nodes[0])
        own = filler(node)
        text = f"std: {own.std:g}" if own.type == "gaussian" else f"min: {own.min:g} max: {own.max:g}"
        return Finding(
            code,
            Severity.WARNING,
            f'layer "{layer}" {fact} with its first weights (weight_filler {own.type}, {text})',
            'use a filler that depends on the layer sizes: weight_filler { type: "xavier" }, or "msra" before ReLUs',
            evidence,
            layer=layer,
            place=exam.case.place(node.index, f"{node.options}.weight_filler"),
            change=refill(nodes),
            may_pass=code == "activations-vanish",
        )


def _frozen(node: Node) -> bool:
    return bool(node.spec.param) and node.spec.param[0].lr_mult == 0
