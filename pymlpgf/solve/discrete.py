"""Methods that descend by steps instead of following the flow, and schedules of their learning rate.

An object says all about a method: ``mg.flow(net, p, alg=mg.Adam(learning_rate=1e-2), batchsize=64, seed=1)``. Its name
stands for its defaults, and ``learning_rate`` and ``schedule`` can then be given to ``flow`` and ``train`` themselves:
``mg.flow(net, p, alg="Adam", learning_rate=1e-2)``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..validate.data import is_whole, numeric, real_number
from ..validate.suggest import suggest_keywords

__all__ = [
    "Adam", "AdamW", "Continued", "CosineDecay", "DISCRETE_METHODS", "DiscreteMethod", "ExponentialDecay",
    "GradientDescent", "Momentum", "Nesterov", "RMSprop", "UpdateRule",
]  # fmt: skip


@dataclass(frozen=True)
class ExponentialDecay:
    """A schedule: the learning rate is multiplied by ``rate**k`` at step k = 0, 1, …"""

    rate: float

    def __post_init__(self) -> None:
        _within("rate", self.rate, 0, 1, open_low=True)

    def _wire(self) -> dict[str, Any]:
        return {"exponential": float(self.rate)}


@dataclass(frozen=True)
class CosineDecay:
    """A schedule: a factor from 1 to ``final`` along half a cosine in ``steps`` steps, ``final`` from then on."""

    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        if not is_whole(self.steps) or not 1 <= self.steps < 2**62:
            raise InputError(f"steps is {self.steps!r}; a positive whole number is needed")
        _within("final", self.final, 0, 1)

    def _wire(self) -> dict[str, Any]:
        return {"cosine": [int(self.steps), float(self.final)]}


@dataclass(frozen=True)
class Continued:
    """The algorithm ``alg``, or minimizer, of a run that goes on, with its ``memory``, as ``TrainResult`` has it."""

    alg: Any
    memory: list[float]


@dataclass(frozen=True, kw_only=True)
class DiscreteMethod:
    """What the methods share.

    Parameters
    ----------
    learning_rate : float
        η > 0.
    schedule : ExponentialDecay, CosineDecay, array or function, optional
        The factor on the learning rate at step k = 0, 1, …: an array's last entry stays; a function is called with k.
    """

    learning_rate: float = 0.01
    schedule: Any = None

    def __post_init__(self) -> None:
        _within("learning_rate", self.learning_rate, 0, math.inf, open_low=True, open_high=True)
        _schedule(self.schedule)
        for name in ("momentum", "alpha"):
            if hasattr(self, name):
                _within(name, getattr(self, name), 0, 1, open_high=True)
        if hasattr(self, "eps"):
            _within("eps", self.eps, 0, math.inf, open_low=True, open_high=True)
        if hasattr(self, "weight_decay"):
            _within("weight_decay", self.weight_decay, 0, math.inf, open_high=True)
        if hasattr(self, "betas"):
            if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
                raise InputError(f"betas is {self.betas!r}; a pair of numbers is needed")
            for beta in self.betas:
                _within("betas", beta, 0, 1, open_high=True)

    def _options(self) -> tuple[dict[str, Any], Callable[[int], Any] | None]:
        """Names and values as the Julia core reads them, and the schedule if that is the user's function."""
        options: dict[str, Any] = {"alg": type(self).__name__}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "betas":
                options["betas"] = [float(beta) for beta in value]
            elif field.name != "schedule":
                options[field.name] = float(value)
        wire, function = _schedule(self.schedule)
        if wire is not None:
            options["schedule"] = wire
        return options, function


@dataclass(frozen=True, kw_only=True)
class GradientDescent(DiscreteMethod):
    """θ ← θ − η ∇L, Euler's method for the flow. Time t = Σ η: points compare with the flow at the same t."""


@dataclass(frozen=True, kw_only=True)
class Momentum(DiscreteMethod):
    """v ← μ v + ∇L, θ ← θ − η v (Polyak 1964; PyTorch's SGD).

    Time is what the same recursion makes of a constant gradient of one: it grows by η/(1 − μ) a step before long.
    """

    momentum: float = 0.9


@dataclass(frozen=True, kw_only=True)
class Nesterov(DiscreteMethod):
    """v ← μ v + ∇L, θ ← θ − η (∇L + μ v) (Nesterov 1983; PyTorch's SGD). Time as for ``Momentum``."""

    momentum: float = 0.9


@dataclass(frozen=True, kw_only=True)
class RMSprop(DiscreteMethod):
    """v ← α v + (1 − α) (∇L)², θ ← θ − η ∇L/(√v + ε) (Tieleman and Hinton 2012). t = Σ η, which is no flow's time."""

    alpha: float = 0.99
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class Adam(DiscreteMethod):
    """Adam (Kingma and Ba, arXiv 1412.6980). Time t = Σ η, which is no flow's time."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class AdamW(DiscreteMethod):
    """Adam after θ ← (1 − ηλ) θ with λ = ``weight_decay`` (Loshchilov and Hutter, arXiv 1711.05101).

    The decay is not part of the loss that is reported: that is what ``l2`` of the net is for. Time t = Σ η.
    """

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01


@dataclass(frozen=True, kw_only=True)
class UpdateRule(DiscreteMethod):
    """A rule of your own: θ ← θ − η d, with d from Julia code. t = Σ η.

    Parameters
    ----------
    rule : str
        A function ``(x, g, s, k) -> (d, s)`` of one parameter ``x``, its component ``g`` of the gradient, the tuple
        ``s`` of the numbers that the rule remembers of this parameter, and the number k = 0, 1, … of the step. It
        returns the decrease and what to remember.
    state : sequence of floats
        ``s`` before the first step; as many numbers as the rule remembers of each parameter.
    learning_rate, schedule
        As for every ``DiscreteMethod``.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> sign = mg.UpdateRule(rule="(x, g, s, k) -> (sign(g), s)", learning_rate=0.25)
    >>> net = mg.Net(layers=[(1, "identity", False)], input=[[1.0]], target=[0.0])      # L = θ²
    >>> mg.flow(net, [1.0], alg=sign, maxiterations_ode=3).x
    array([0.25])
    >>> heavy_ball = mg.UpdateRule(rule="(x, g, (v,), k) -> (0.9v + g, (0.9v + g,))", state=[0.0])
    """

    rule: str
    state: Sequence[float] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.rule, str) or "->" not in self.rule:
            raise InputError(f"rule is {self.rule!r}; a function of Julia is needed, such as '(x, g, s, k) -> (g, s)'")
        numbers = numeric("state", self.state)
        if numbers.ndim != 1 or not np.isfinite(numbers).all():
            raise InputError(f"state is {self.state!r}; a sequence of finite numbers is needed")

    def _options(self) -> tuple[dict[str, Any], Callable[[int], Any] | None]:
        wire, function = _schedule(self.schedule)
        options = {
            "alg": "UpdateRule", "rule": self.rule, "state": [float(number) for number in self.state],
            "learning_rate": float(self.learning_rate),
        }  # fmt: skip
        return options if wire is None else {**options, "schedule": wire}, function


DISCRETE_METHODS: dict[str, type[DiscreteMethod]] = {
    method.__name__: method for method in (GradientDescent, Momentum, Nesterov, RMSprop, Adam, AdamW)
}
for _class in (*DISCRETE_METHODS.values(), UpdateRule, ExponentialDecay, CosineDecay):
    _class.__init__ = suggest_keywords(_class.__init__)  # type: ignore[misc]


def _within(name: str, value: Any, low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> None:
    number = real_number(value)
    if not (low < number if open_low else low <= number) or not (number < high if open_high else number <= high):
        below = "<" if open_low else "≤"
        above = "" if math.isinf(high) else f" {'<' if open_high else '≤'} {high:g}"
        raise InputError(f"{name} is {value!r}; a finite number with {low:g} {below} {name}{above} is needed")


def _schedule(schedule: Any) -> tuple[Any, Callable[[int], Any] | None]:
    """A schedule as the core reads it, or the user's function."""
    if schedule is None:
        return None, None
    if isinstance(schedule, (ExponentialDecay, CosineDecay)):
        return schedule._wire(), None
    if callable(schedule) and not isinstance(schedule, type):
        return None, schedule
    if isinstance(schedule, (str, bytes, type)):
        raise InputError(
            f"schedule is {schedule!r}; ExponentialDecay(…), CosineDecay(…), an array or a function is needed"
        )
    factors = numeric("schedule", schedule)
    if factors.ndim != 1 or not len(factors) or not (np.isfinite(factors).all() and (factors >= 0).all()):
        raise InputError("schedule must be a function, or an array (steps,) of finite factors that are not negative")
    return [float(factor) for factor in factors], None
