"""What the tools of this folder share: calls of the core, and checks of arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import runtime
from ..errors import InputError
from ..network.constraints import ConstrainedNet
from ..network.net import Net
from ..validate.data import is_whole, numeric

__all__ = ["ask", "finite", "hidden_layer", "one_based", "points_of"]


def ask(
    net: Net | None,
    what: str,
    options: dict[str, object],
    arrays: list[np.ndarray],
    read: Callable[[Callable[[str], Any]], Any] = lambda get: get(""),
) -> Any:
    """The answer of the tool ``what`` of the core (julia/src/interface/tools.jl) for ``net``, which may be None."""
    bridge, handle = (runtime.start(), 0) if net is None else (net._core.bridge, net._core.handle)
    return bridge.tool(handle, what, options, arrays, lambda answer: read(lambda name: bridge.field(answer, name)))


def one_based(name: str, value: Any, count: int) -> int:
    """A whole number below ``count``, counted from 1 as in Julia."""
    if not is_whole(value) or not 0 <= value < count:
        raise InputError(f"{name} is {value!r}; a whole number from 0 to {count - 1} is needed")
    return int(value) + 1


def hidden_layer(net: Net, layer: Any) -> int:
    """The number of a hidden layer, counted from 1 as in Julia."""
    if len(net.layers) == 1:
        raise InputError("this net has no hidden layer")
    return one_based("layer", layer, len(net.layers) - 1)


def finite(name: str, value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """``value`` as an array of finite float64 numbers, which has that ``shape`` if one is given."""
    array = numeric(name, value).astype(np.float64)
    if shape is not None and array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}; {shape} is needed")
    if not np.isfinite(array).all():
        raise InputError(f"{name} contains NaN or infinite entries")
    return array


def points_of(net: Net, points: Any) -> np.ndarray:
    """The points (M, n_params) of a trajectory, a result with one, or an array; of a constrained net coordinates."""
    trajectory = getattr(points, "trajectory", points)
    if trajectory is None:
        raise InputError("points is a result without a trajectory, as those of minimize are: give that of a flow")
    X = finite("points", getattr(trajectory, "x", trajectory))
    if isinstance(net, ConstrainedNet) and X.ndim == 2 and X.shape[1] == net.unconstrained.n_params:
        X = net.coordinates(X.astype(net.dtype)).astype(np.float64)
    if X.ndim != 2 or X.shape[1] != net.n_params:
        raise InputError(f"points has shape {X.shape}; (M, {net.n_params}) is needed")
    return X
