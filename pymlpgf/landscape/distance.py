"""How far a trajectory strays from a reference flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .. import runtime
from ..errors import InputError
from ..results.result import DenseSolution, TrainResult, Trajectory
from ..validate.data import contiguous, numeric

__all__ = ["TrajectoryDistance", "trajectory_distance"]


@dataclass(frozen=True)
class TrajectoryDistance:
    """The ``distance`` (M,) of M points to the reference, and the times ``t`` (M,) at which it is nearest."""

    distance: np.ndarray
    t: np.ndarray

    def __repr__(self) -> str:
        return f"TrajectoryDistance({len(self.t)} points, at most {self.distance.max():.4g})"


def trajectory_distance(
    a: TrainResult | Trajectory | ArrayLike, b: TrainResult | DenseSolution | Trajectory
) -> TrajectoryDistance:
    """How far trajectory ``a`` strays from the path ``b``, and at which of its times.

    The distance of each point x_m of ``a`` is ‖x_m − b(t_m)‖, where the times t_1 ≤ t_2 ≤ … minimise the sum of the
    squared distances. Since the times ascend, no point is compared with an earlier or later part of the path that
    happens to pass nearby.

    Parameters
    ----------
    a : TrainResult, Trajectory or array of shape (M, n_params)
    b : TrainResult, DenseSolution or Trajectory
        The dense solution where there is one, else straight lines between the points of the trajectory.

    Returns
    -------
    TrajectoryDistance

    Raises
    ------
    InputError
        If ``a`` or ``b`` is of another type, or their numbers of parameters differ.

    Examples
    --------
    >>> import numpy as np, pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", False)], input=[[1.0, 0.0], [0.0, 1.0]], target=[0.0, 0.0])
    >>> steps = mg.flow(net, [1.0, 2.0], alg="GradientDescent", learning_rate=0.1, maxT=1)
    >>> reference = mg.flow(net, [1.0, 2.0], maxT=2, dense=True)
    >>> strayed = mg.trajectory_distance(steps, reference)     # both go straight to the minimum, the steps faster
    >>> bool(strayed.distance.max() < 1e-4), bool(abs(strayed.t[-1] - 10 * np.log(1 / 0.9)) < 1e-4)
    (True, True)
    """
    if isinstance(a, TrainResult):
        a = _trajectory("a", a)
    points = a.x if isinstance(a, Trajectory) else a
    points = contiguous("a", numeric("a", points), np.dtype(np.float64))
    if isinstance(b, TrainResult):
        b = b.sol if b.sol is not None else _trajectory("b", b)
    if not isinstance(b, (Trajectory, DenseSolution)):
        raise InputError(f"b is {type(b).__name__}; a TrainResult, a DenseSolution or a Trajectory is needed")
    path = b.x if isinstance(b, Trajectory) else b.coefficients
    size = path.shape[-1]
    if points.ndim != 2 or points.shape[1] != size:
        raise InputError(f"a has points of shape {points.shape}; (M, {size}) is needed, the parameters of b")
    bridge = runtime.start()

    def read(handle: int) -> TrajectoryDistance:
        return TrajectoryDistance(bridge.field(handle, "1"), bridge.field(handle, "2"))

    options: dict[str, object] = {"parameters": size, "terms": 0 if isinstance(b, Trajectory) else path.shape[1]}
    return bridge.tool(0, "trajectory_distance", options, [points, b.t, path], read)


def _trajectory(name: str, result: TrainResult) -> Trajectory:
    if result.trajectory is None:
        raise InputError(f"{name} is the result of minimize, which has no trajectory")
    return result.trajectory
