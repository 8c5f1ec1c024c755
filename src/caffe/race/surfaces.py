"""Surfaces f(x, y) for the race, as formulas that both Python and the page in the browser evaluate."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from caffe.errors import ArgumentError, did_you_mean

__all__ = ["FUNCTIONS", "SURFACES", "Surface", "own", "surface"]

FUNCTIONS = ("exp", "log", "sqrt", "sin", "cos", "tan", "tanh", "abs")
"""The functions that a formula can call."""
_NODES = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Call, ast.Name, ast.Constant, ast.Load)
_SIGNS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub, ast.UAdd)


@dataclass(frozen=True)
class Surface:
    """A formula of x and y, the window to draw, the start of the racers, and the noise of the gradients.

    `least` is the minimum; None if it is to be found on a fine grid of the window.
    """

    name: str
    formula: str
    window: tuple[float, float, float, float]
    start: tuple[float, float]
    about: str = ""
    noise: float = 0.0
    least: float | None = field(default=None)
    pace: float = 1.0
    """A factor for the rates of rules whose step size is proportional to the gradient."""

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        """Return the formula and its derivatives as sympy expressions."""
        import sympy

        x, y = sympy.symbols("x y", real=True)
        names = {name: getattr(sympy, name) for name in FUNCTIONS if name != "abs"}
        _check(self.formula)
        f = sympy.sympify(eval(self.formula, {"__builtins__": {}}, {**names, "abs": sympy.Abs, "x": x, "y": y}))
        return f, sympy.diff(f, x), sympy.diff(f, y)

    @cached_property
    def value(self) -> Callable[[Any, Any], Any]:
        """Evaluate f(x, y) for numbers or arrays."""
        return self._numbers(self._parts[0], "numpy")

    @cached_property
    def gradient(self) -> Callable[[float, float], tuple[float, float]]:
        """Evaluate the derivatives at a point."""
        dx, dy = (self._numbers(part, "math") for part in self._parts[1:])

        def at(x: float, y: float) -> tuple[float, float]:
            try:
                return float(dx(x, y)), float(dy(x, y))
            except (OverflowError, ValueError, ZeroDivisionError):
                return math.nan, math.nan

        return at

    @cached_property
    def javascript(self) -> dict[str, str]:
        """Return the bodies of f, df/dx and df/dy in JavaScript."""
        import sympy

        return dict(zip(("f", "dx", "dy"), (sympy.jscode(part) for part in self._parts), strict=True))

    @cached_property
    def minimum(self) -> float:
        """The minimum in the window."""
        if self.least is not None:
            return self.least
        *_, values = self.grid(401)
        lowest = np.unravel_index(np.nanargmin(values), values.shape)
        return float(values[lowest])

    def grid(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return x, y and f on a grid of the window, each (count, count)."""
        x, y = np.meshgrid(np.linspace(*self.window[:2], count), np.linspace(*self.window[2:], count))
        with np.errstate(all="ignore"):
            values = np.broadcast_to(np.asarray(self.value(x, y), float), x.shape)
        return x, y, np.array(values)

    @staticmethod
    def _numbers(part: Any, kind: str) -> Any:
        import sympy

        return sympy.lambdify(sympy.symbols("x y", real=True), part, kind)


def _check(formula: str) -> None:
    """Raise an ArgumentError for anything but arithmetic with x, y, numbers and `FUNCTIONS`."""
    try:
        tree = ast.parse(formula, mode="eval")
    except (SyntaxError, ValueError) as error:
        raise ArgumentError(f'formula "{formula}": {error}; write it as Python does: x**2 + sin(3*y)') from None
    for node in ast.walk(tree):
        fine = isinstance(node, (*_NODES, *_SIGNS))
        if isinstance(node, ast.Constant):
            fine = isinstance(node.value, (int, float)) and not isinstance(node.value, bool)
        if isinstance(node, ast.Call):
            fine = isinstance(node.func, ast.Name) and not node.keywords
        if isinstance(node, ast.Name) and node.id not in ("x", "y", *FUNCTIONS):
            hint = did_you_mean(node.id, FUNCTIONS)
            raise ArgumentError(
                f'formula "{formula}": "{node.id}" is unknown{hint}; known: x, y, {", ".join(FUNCTIONS)}'
            )
        if not fine:
            raise ArgumentError(f'formula "{formula}": only numbers, x, y, + - * / ** and {", ".join(FUNCTIONS)}')


def _moons(count: int = 20) -> str:
    """The loss of a linear classifier (weights x and y) on noisy points of two moons, with a small weight decay."""
    rng = np.random.default_rng(3)
    angle = np.pi * rng.random(count)
    first = np.stack([np.cos(angle), np.sin(angle)], 1)
    second = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)
    points = np.concatenate([first, second])
    points = points + 0.2 * rng.normal(size=points.shape) - [0.5, 0.25]
    signs = np.repeat([-1.0, 1.0], count)
    terms = [f"log(1+exp({-s * p:.3f}*x+{-s * q:.3f}*y))" for s, (p, q) in zip(signs, points, strict=True)]
    return f"({' + '.join(terms)})/{2 * count} + 0.005*(x**2+y**2)"


SURFACES = {
    each.name: each
    for each in (
        Surface("valley", "(x**2 + 20*y**2)/2", (-10, 4, -3, 3), (-9, 1.5), "steep along y, shallow along x", 0, 0),
        Surface(
            "saddle", "(x**2 - y**2)/2 + y**4/8", (-3, 3, -2.5, 2.5), (-2.5, 0.0),
            "the start is on the ridge: without noise the racers stay on it", 0, -0.5,
        ),
        Surface(
            "saddle_noisy", "(x**2 - y**2)/2 + y**4/8", (-3, 3, -2.5, 2.5), (-2.5, 0.0),
            "the same with a little noise in the gradients: all racers leave the ridge, at different times", 0.01, -0.5,
        ),
        Surface(
            "beale", "(1.5-x+x*y)**2 + (2.25-x+x*y**2)**2 + (2.625-x+x*y**3)**2", (-1, 4.5, -2, 2), (0.5, -1.5),
            "flat plains and steep walls; the minimum is at (3, 0.5)", 0, 0, 0.5,
        ),
        Surface(
            "rosenbrock", "(1-x)**2 + 100*(y-x**2)**2", (-2, 2, -1, 3), (-1.2, 1.0),
            "a curved valley; its floor descends slowly to (1, 1)", 0, 0, 0.05,
        ),
        Surface(
            "plateau", "1 - exp(-(x**2+y**2)/4) + 0.002*(x**2+y**2)", (-6, 6, -6, 6), (-4.5, -3.0),
            "almost no slope at the start", 0, 0, 10,
        ),
        Surface(
            "moons", _moons(), (-4, 6, -8, 3), (-2, 2),
            "a linear classifier of two moons, with noisy gradients", 0.1, None, 10,
        ),
    )
}  # fmt: skip


def surface(name: str) -> Surface:
    """Return the surface with that name."""
    if name not in SURFACES:
        raise ArgumentError(f'there is no surface "{name}"{did_you_mean(name, SURFACES)}; known: {", ".join(SURFACES)}')
    return SURFACES[name]


def own(formula: str, start: tuple[float, float] = (-2.0, 2.0)) -> Surface:
    """Create the surface of a user's formula, in a window around the origin that contains the start."""
    reach = max(3.0, 1.3 * max(map(abs, start)))
    made = Surface("own", formula, (-reach, reach, -reach, reach), start, formula)
    made.gradient(*start)
    return made
