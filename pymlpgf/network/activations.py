"""Activation functions by name; what they compute is written in Julia (julia/src/network/activations.jl)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..facts import ACTIVATIONS, UNIT_LIMITS
from ..validate.data import is_whole
from ..validate.suggest import nearest

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Derivative",
    "Inside",
    "Poly",
    "Sharp",
    "Tail",
    "activation_from_json",
    "activation_to_json",
    "check_layers",
    "code_in",
    "json_layers",
]


@dataclass(frozen=True, init=False, repr=False)
class Poly:
    """The activation c0 + c1 x + c2 x² + ….

    >>> Poly(0, 1, 0.5)
    Poly(0.0, 1.0, 0.5)
    """

    coefficients: tuple[float, ...]

    def __init__(self, *coefficients: float) -> None:
        if not coefficients or not all(np.isfinite(c) for c in coefficients):
            raise InputError(f"Poly{coefficients} needs finite coefficients, at least one")
        object.__setattr__(self, "coefficients", tuple(float(c) for c in coefficients))

    def __repr__(self) -> str:
        return f"Poly({', '.join(map(str, self.coefficients))})"


@dataclass(frozen=True)
class Derivative:
    """The activation of a unit that is a derivative of unit ``of`` of its layer, as in the limit of merging units.

    With σ the activation and h the pre-activation of unit ``of``, s that of its Derivative of order 1, and k that of
    order 2, their outputs are σ(h), s σ′(h) and k σ′(h) + s² σ″(h)/2. With ``eps`` > 0, for order 1 alone, the two are
    (σ(h + eps s) + σ(h − eps s))/2 and (σ(h + eps s) − σ(h − eps s))/(2 eps), without cancellation: two ordinary
    units in other parameters. Units are counted from 0. ``Net.limit`` makes such layers.

    If unit ``of`` is a ``Tail`` of α + β (exp(x) + β₂ exp(2x) + …), the output is s exp(h) + β₂ exp(2h): what two units
    tend to that draw together on their way out, as their outgoing weights grow so fast that the second term remains.

    >>> Derivative(of=2)
    Derivative(of=2, order=1, eps=0.0)
    """

    of: int
    order: int = 1
    eps: float = 0.0


@dataclass(frozen=True)
class Tail:
    """exp, as the limit of a unit with ``activation`` "tanh", "sigmoid", "softplus" or "g" whose bias goes to −∞.

    With ``eps`` > 0 it is a unit of that activation in other parameters, for tanh 1/(exp(−x) + eps²). ``Net.limit``
    makes such units.

    >>> Tail("tanh")
    Tail(activation='tanh', eps=0.0)
    """

    activation: str
    eps: float = 0.0


@dataclass(frozen=True)
class Sharp:
    """A step or a relu, as the limit of a unit with ``activation`` whose incoming weights go to infinity.

    The sign for "tanh" and "sigmoid2", a step from 0 to 1 for "sigmoid" and "normal_cdf"; max(x, 0) for "softplus",
    "gelu" and "silu", whose outgoing weights go to zero at the same time. With ``eps`` > 0 it is f(x/eps), or
    eps f(x/eps), a unit of that activation in other parameters. ``Net.limit`` makes such units. The derivative of a
    step is zero.

    >>> Sharp("softplus")
    Sharp(activation='softplus', eps=0.0)
    """

    activation: str
    eps: float = 0.0


@dataclass(frozen=True)
class Inside:
    """A step with samples inside: ``activation``, but exactly its ends where the pre-activation is beyond ±40.

    It is the limit of a unit with "tanh", "sigmoid", "sigmoid2" or "normal_cdf" whose weights go to infinity, while the
    pre-activations of some samples stay finite; those of all others are beyond 40. ``minimize(..., at_infinity=True)``
    makes such units.

    >>> Inside("tanh")
    Inside(activation='tanh')
    """

    activation: str


#: a name, a Poly, a Julia function as text, or one of these for each unit; the others are in limits of nets
Activation = str | Poly | Tail | Sharp | Inside | tuple[str | Poly | Derivative | Tail | Sharp | Inside, ...]

#: activations that have an exponential tail, that become a step or a relu, that have no second derivative everywhere
WITH_TAIL, WITH_STEP, WITH_KINK = UNIT_LIMITS["tail"], UNIT_LIMITS["step"], UNIT_LIMITS["kink"]
WITH_SHARP = [*WITH_STEP, *UNIT_LIMITS["relu"]]


def check_activation(activation: object, where: str, width: int) -> Activation:
    """``activation`` if it can be used; else an ``InputError`` that names the nearest one."""
    if isinstance(activation, Poly):
        return activation
    if isinstance(activation, Tail):
        if activation.activation not in WITH_TAIL:
            raise InputError(f"{where}: {activation!r} is not possible; {', '.join(WITH_TAIL)} have exponential tails")
        _check_eps(activation, where)
        return activation
    if isinstance(activation, Sharp):
        if activation.activation not in WITH_SHARP:
            raise InputError(f"{where}: {activation!r} is not possible; {', '.join(WITH_SHARP)} become steps or relus")
        _check_eps(activation, where)
        return activation
    if isinstance(activation, Inside):
        if activation.activation not in WITH_STEP:
            raise InputError(f"{where}: {activation!r} is not possible; {', '.join(WITH_STEP)} become steps")
        return activation
    if isinstance(activation, (tuple, list)):
        if len(activation) != width:
            raise InputError(f"{where}: {len(activation)} activations for {width} units")
        if any(isinstance(unit, (tuple, list)) for unit in activation):
            raise InputError(f"{where}: a tuple holds one activation for each unit")
        for unit in activation:
            if isinstance(unit, Derivative):
                _check_derivative(unit, activation, where)
        return tuple(
            unit if isinstance(unit, Derivative) else check_activation(unit, where, 1)  # type: ignore[misc]
            for unit in activation
        )
    if not isinstance(activation, str):
        raise InputError(f"{where}: an activation is a name such as 'softplus', got {activation!r}")
    if activation in ACTIVATIONS or "->" in activation:
        return activation
    raise InputError(
        f"{where}: unknown activation {activation!r}{nearest(activation, ACTIVATIONS)}; a function of Julia is written "
        f"as 'x -> …'"
    )


def _check_derivative(unit: Derivative, units: tuple[Any, ...] | list[Any], where: str) -> None:
    _check_eps(unit, where)
    if not isinstance(unit.of, (int, np.integer)) or not 0 <= unit.of < len(units):
        raise InputError(f"{where}: {unit!r} names a unit that is not there; 0 to {len(units) - 1} are")
    if isinstance(units[unit.of], (Derivative, Sharp, Inside)) or units[unit.of] in WITH_KINK:
        raise InputError(f"{where}: {unit!r} is of a unit with {units[unit.of]!r}; a smooth activation is needed")
    orders = sorted(other.order for other in units if isinstance(other, Derivative) and other.of == unit.of)
    if orders not in ([1], [1, 2]) or (unit.eps > 0 and len(orders) > 1):
        raise InputError(
            f"{where}: unit {unit.of} has Derivatives of orders {orders}; 1, or 1 and 2 with eps=0, are needed"
        )


def _check_eps(unit: Derivative | Tail | Sharp, where: str) -> None:
    if not isinstance(unit.eps, (int, float, np.number)) or not 0 <= unit.eps < np.inf:
        raise InputError(f"{where}: {unit!r} has eps = {unit.eps!r}; a finite number that is not negative is needed")


def code_in(layers: list[tuple[int, Activation, bool]]) -> list[str]:
    """The activations among ``layers`` that are Julia code."""
    units = [unit for _, f, _ in layers for unit in (f if isinstance(f, tuple) else (f,))]
    return [unit for unit in units if isinstance(unit, str) and unit not in ACTIVATIONS]


def json_layers(layers: list[tuple[int, Activation, bool]]) -> list[list[Any]]:
    """``layers`` in JSON's types, as files hold them and the core reads them."""
    return [[width, activation_to_json(f), bias] for width, f, bias in layers]


def activation_to_json(activation: Activation | Derivative) -> Any:
    """``activation`` in JSON's types."""
    if isinstance(activation, Poly):
        return {"poly": list(activation.coefficients)}
    if isinstance(activation, Derivative):
        return {"derivative": int(activation.of), "order": int(activation.order), "eps": float(activation.eps)}
    if isinstance(activation, Tail):
        return {"tail": activation.activation, "eps": float(activation.eps)}
    if isinstance(activation, Inside):
        return {"inside": activation.activation}
    if isinstance(activation, Sharp):
        return {"sharp": activation.activation, "eps": float(activation.eps)}
    return list(map(activation_to_json, activation)) if isinstance(activation, tuple) else activation


def activation_from_json(value: Any) -> Activation:
    """The inverse of ``activation_to_json``; text stays text, nothing is compiled."""
    if isinstance(value, dict):
        if "derivative" in value:
            return Derivative(value["derivative"], value["order"], value["eps"])  # type: ignore[return-value]
        if "inside" in value:
            return Inside(value["inside"])
        if "sharp" in value:
            return Sharp(value["sharp"], value["eps"])
        return Tail(value["tail"], value["eps"]) if "tail" in value else Poly(*value["poly"])
    return tuple(map(activation_from_json, value)) if isinstance(value, list) else value  # type: ignore[arg-type]


def check_layers(layers: Any) -> list[tuple[int, Activation, bool]]:
    """``layers`` as (width, activation, bias) tuples whose parts can be used."""
    form = "(width, activation, bias), such as (5, 'softplus', True)"
    try:
        specs = [tuple(spec) for spec in layers]
    except TypeError:
        raise InputError(f"layers must be a sequence of {form}, got {layers!r}") from None
    if not specs:
        raise InputError("layers is empty: give at least the output layer")
    checked = []
    for number, spec in enumerate(specs, 1):
        if len(spec) != 3:
            raise InputError(f"layer {number} is {spec!r}; {form} is needed")
        width, activation, bias = spec
        if not is_whole(width) or width < 1:
            raise InputError(f"layer {number} has width {width!r}; a positive whole number is needed")
        if not isinstance(bias, (bool, np.bool_)):
            raise InputError(f"layer {number} has bias {bias!r}; True or False is needed")
        checked.append((int(width), check_activation(activation, f"layer {number}", int(width)), bool(bias)))
    for number, (_, activation, _) in enumerate(checked, 1):
        inside = activation == "softmax" and number < len(checked)
        if inside or (isinstance(activation, tuple) and "softmax" in activation):
            raise InputError(f"layer {number}: softmax is for the output layer as a whole")
    return checked
