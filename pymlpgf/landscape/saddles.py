"""Saddles: leaving one, finding those that a flow passed, and eigenvalues along a trajectory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..network.net import Net
from ..network.params import ParametersLike, Params
from ..results.result import TrainResult, Trajectory
from ..validate.data import real_number
from ..validate.memory import refuse_square
from .ask import ask, one_based, points_of
from .classify import start

__all__ = ["escape_saddle", "saddle_passages", "SaddlePassage", "spectrum_along"]


# ---- saddles and trajectories --------------------------------------------------------------------------------


def spectrum_along(net: Net, points: Trajectory | TrainResult | ArrayLike, k: int | None = None) -> np.ndarray:
    """Eigenvalues of the Hessian at every point, ascending: all (M, n_params), or the k lowest and k highest (M, 2k).

    ``points`` is a Trajectory, a TrainResult with one, or an array (M, n_params).
    """
    X = points_of(net, points)
    refuse_square(net, "spectrum_along", "extreme_eigenvalues tells the ends of the spectrum")
    return ask(net, "spectrum", {} if k is None else {"k": one_based("k", k, net.n_params + 1) - 1}, [X])


def escape_saddle(net: Net, p: ParametersLike, sign: int = 1) -> Params:
    """The lowest point along the lowest eigenvector of the Hessian, on the side that ``sign`` (1 or −1) names.

    Raises
    ------
    InputError
        If no eigenvalue is negative.
    """
    if sign not in (1, -1):
        raise InputError(f"sign is {sign!r}; 1 or -1 is needed")
    x = start(net, p)
    refuse_square(net, "escape_saddle", "a flow leaves it by itself, after a small step")
    y = ask(net, "escape", {"sign": float(sign)}, [x])
    return net.params(y.astype(net.dtype))


@dataclass(frozen=True)
class SaddlePassage:
    """A saddle that a flow passed: the gradient was smallest at time ``t``, on a plateau from ``t_start`` to ``t_end``.

    ``x`` (n_params,) is the point at ``t`` and ``lowest`` its lowest eigenvalue; ``index`` eigenvalues were negative
    enough to act during the plateau.
    """

    t: float
    t_start: float
    t_end: float
    loss: float
    gnorm: float
    index: int
    lowest: float
    x: np.ndarray

    def __repr__(self) -> str:
        span = f"t={self.t:.4g} ({self.t_start:.4g} … {self.t_end:.4g})"
        return f"SaddlePassage({span}, loss={self.loss:.6g}, gnorm={self.gnorm:.2g}, index={self.index})"


def saddle_passages(
    net: Net, trajectory: Trajectory | TrainResult, *, contrast: float = 3.0, plateau: float = 0.05
) -> Sequence[SaddlePassage]:
    """The saddles that a flow passed, in order of time.

    Near a saddle ‖∇L‖ has a minimum in time. The index of a plateau counts the eigenvalues λ with
    λ·(t_end − t_start) < −1; a plateau without such eigenvalues is not a saddle.

    Parameters
    ----------
    net : Net
    trajectory : Trajectory or TrainResult
        With ``save_everystep=True`` no passage is missed.
    contrast : float
        The factor by which ‖∇L‖ must rise afterwards.
    plateau : float
        Relative change of the loss that ends a plateau.
    """
    trajectory = getattr(trajectory, "trajectory", trajectory)
    if not isinstance(trajectory, Trajectory):
        raise InputError(f"trajectory is {type(trajectory).__name__}; a Trajectory, or the result of a flow, is needed")
    if not real_number(contrast) > 1:
        raise InputError(f"contrast is {contrast!r}; a number above 1 is needed")
    if not real_number(plateau) > 0:
        raise InputError(f"plateau is {plateau!r}; a positive number is needed")

    def read(get: Callable[[str], Any]) -> list[SaddlePassage]:
        names = ("t", "t_start", "t_end", "loss", "gnorm", "index", "lowest")
        return [SaddlePassage(*row) for row in zip(*(get(name).tolist() for name in names), get("x"), strict=True)]

    refuse_square(net, "saddle_passages", "extreme_eigenvalues tells the lowest curvatures")
    arrays = [trajectory.t, points_of(net, trajectory), trajectory.loss, trajectory.gnorm]
    return ask(net, "passages", {"contrast": float(contrast), "plateau": float(plateau)}, arrays, read)
