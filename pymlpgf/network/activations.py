"""Activation functions by name; what they compute is written in Julia (julia/src/network/activations.jl)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..facts import ACTIVATIONS
from ..validate.suggest import nearest

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Poly",
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


#: a name, a Poly, a Julia function as text, or one of these for each unit
Activation = str | Poly | tuple[str | Poly, ...]


def check_activation(activation: object, where: str, width: int) -> Activation:
    """``activation`` if it can be used; else an ``InputError`` that names the nearest one."""
    if isinstance(activation, Poly):
        return activation
    if isinstance(activation, (tuple, list)):
        if len(activation) != width:
            raise InputError(f"{where}: {len(activation)} activations for {width} units")
        if any(isinstance(unit, (tuple, list)) for unit in activation):
            raise InputError(f"{where}: a tuple holds one activation for each unit")
        return tuple(check_activation(unit, where, 1) for unit in activation)  # type: ignore[misc]
    if not isinstance(activation, str):
        raise InputError(f"{where}: an activation is a name such as 'softplus', got {activation!r}")
    if activation in ACTIVATIONS or "->" in activation:
        return activation
    raise InputError(
        f"{where}: unknown activation {activation!r}{nearest(activation, ACTIVATIONS)}; a function of Julia is written "
        f"as 'x -> …'"
    )


def code_in(layers: list[tuple[int, Activation, bool]]) -> list[str]:
    """The activations among ``layers`` that are Julia code."""
    units = [unit for _, f, _ in layers for unit in (f if isinstance(f, tuple) else (f,))]
    return [unit for unit in units if isinstance(unit, str) and unit not in ACTIVATIONS]


def json_layers(layers: list[tuple[int, Activation, bool]]) -> list[list[Any]]:
    """``layers`` in JSON's types, as files hold them and the core reads them."""
    return [[width, activation_to_json(f), bias] for width, f, bias in layers]


def activation_to_json(activation: Activation) -> Any:
    """``activation`` in JSON's types."""
    if isinstance(activation, Poly):
        return {"poly": list(activation.coefficients)}
    return list(map(activation_to_json, activation)) if isinstance(activation, tuple) else activation


def activation_from_json(value: Any) -> Activation:
    """The inverse of ``activation_to_json``; text stays text, nothing is compiled."""
    if isinstance(value, dict):
        return Poly(*value["poly"])
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
        if not isinstance(width, (int, np.integer)) or isinstance(width, bool) or width < 1:
            raise InputError(f"layer {number} has width {width!r}; a positive whole number is needed")
        if not isinstance(bias, (bool, np.bool_)):
            raise InputError(f"layer {number} has bias {bias!r}; True or False is needed")
        checked.append((int(width), check_activation(activation, f"layer {number}", int(width)), bool(bias)))
    for number, (_, activation, _) in enumerate(checked, 1):
        inside = activation == "softmax" and number < len(checked)
        if inside or (isinstance(activation, tuple) and "softmax" in activation):
            raise InputError(f"layer {number}: softmax is for the output layer as a whole")
    return checked
