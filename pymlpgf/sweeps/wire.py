"""Settings and options of a sweep as JSON: equal values become equal texts, in every process."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import write_atomically
from ..network.activations import Poly
from ..network.net import Net
from ..network.params import Params
from ..network.teacher import TeacherNet
from ..solve.discrete import DISCRETE_METHODS, CosineDecay, DiscreteMethod, ExponentialDecay
from ..solve.recordings import RECORDINGS, Recording

__all__ = ["keeper", "name_of", "unwire", "wire"]

SCHEDULES = {"ExponentialDecay": ExponentialDecay, "CosineDecay": CosineDecay}


def wire(value: Any, keep: Callable[[np.ndarray], str] | None = None) -> Any:
    """``value`` for JSON; ``keep`` saves an array and returns its name."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (DiscreteMethod, ExponentialDecay, CosineDecay, Recording)):
        fields = {field.name: wire(getattr(value, field.name), keep) for field in dataclasses.fields(value)}
        return {"method": type(value).__name__, "with": fields}
    if isinstance(value, (np.ndarray, Params)):
        return {"array": (keep or _digest)(np.asarray(value))}
    if isinstance(value, (list, tuple)):
        return [wire(entry, keep) for entry in value]
    if isinstance(value, dict):
        return {"dictionary": {str(name): wire(entry, keep) for name, entry in value.items()}}
    if isinstance(value, Poly):
        return {"poly": list(value.coefficients)}
    if isinstance(value, TeacherNet):
        return {"net": f"{value.net._core.fingerprint()} {_digest(value.params.flat)}"}
    if isinstance(value, Net):
        return {"net": value._core.fingerprint()}
    return {"function": name_of(value)} if callable(value) else {"object": repr(value)}


def unwire(value: Any, folder: Path) -> Any:
    """The inverse of ``wire``, with arrays from the ``folder``; LookupError for a function or another object."""
    if isinstance(value, list):
        return [unwire(entry, folder) for entry in value]
    if not isinstance(value, dict):
        return value
    if "method" in value:
        fields = {name: unwire(entry, folder) for name, entry in value["with"].items()}
        if isinstance(fields.get("betas"), list):
            fields["betas"] = tuple(fields["betas"])
        return {**DISCRETE_METHODS, **SCHEDULES, **RECORDINGS}[value["method"]](**fields)
    if "array" in value:
        return np.load(folder / f"array-{value['array']}.npy", allow_pickle=False)
    if "poly" in value:
        return Poly(*value["poly"])
    if "dictionary" in value:
        return {name: unwire(entry, folder) for name, entry in value["dictionary"].items()}
    raise LookupError(next(iter(value.values())))


def keeper(folder: Path) -> Callable[[np.ndarray], str]:
    """A function that saves an array in the ``folder``, once, and returns its hash."""

    def keep(array: np.ndarray) -> str:
        digest = _digest(array)
        path = folder / f"array-{digest}.npy"
        if not path.exists():
            write_atomically(path, lambda file: np.save(file, array, allow_pickle=False))
        return digest

    return keep


def _digest(array: np.ndarray) -> str:
    if array.dtype.kind not in "biuf":
        raise InputError(f"an option is an array of {array.dtype}; real numbers are needed")
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()[:20]


def name_of(function: Any) -> str:
    """A name of the function that is the same in every process, unlike its ``repr``."""
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
