"""Names of the activation functions; what they compute is written in Julia (julia/src/activations.jl)."""

from __future__ import annotations

from .errors import InputError
from .suggest import nearest

__all__ = ["ACTIVATIONS", "check_activation"]

#: name -> formula
ACTIVATIONS = {
    "identity": "x",
    "relu": "max(x, 0)",
    "softplus": "log(1 + exp(x))",
    "sigmoid": "1/(1 + exp(-x))",
    "tanh": "tanh(x)",
    "sigmoid2": "erf(x/sqrt(2))",
    "g": "sigmoid(4x) + softplus(x)",
}


def check_activation(name: object, where: str) -> str:
    """``name`` if it is known; else an ``InputError`` that names the nearest one."""
    if not isinstance(name, str):
        raise InputError(f"{where}: an activation is a name such as 'softplus', got {name!r}")
    if name not in ACTIVATIONS:
        raise InputError(f"{where}: unknown activation {name!r}{nearest(name, ACTIVATIONS)}")
    return name
