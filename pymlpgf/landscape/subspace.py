"""Lines and planes through a loss landscape, and minima in their complement."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..facts import MINIMIZE_DEFAULTS
from ..network.net import Net
from ..network.params import ParametersLike
from ..results.read import read_result
from ..results.result import TrainResult
from ..solve.options import goals, minimize_options
from ..solve.progress import ProgressLine
from ..validate.data import is_whole, real_number
from ..validate.suggest import check_keywords, suggest_keywords
from .ask import ask, finite
from .classify import start as parameters

__all__ = [
    "LinearSubspace", "SubspaceGrid", "SubspacePoints", "loss_grid", "subspace_grid", "subspace_minloss",
    "subspace_points",
]  # fmt: skip


class LinearSubspace:
    """The points origin + Σᵢ aᵢ directionᵢ of a net's parameter space: a line, a plane, …

    Parameters
    ----------
    net : Net
    origin : array of shape (n_params,), Params or TrainResult
    *directions : arrays of shape (n_params,)
        They must be linearly independent, but need not be orthogonal or of unit length.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", True)], input=[[0.0], [1.0]], target=[1.0, 3.0])
    >>> line = mg.LinearSubspace.through(net, [0.0, 0.0], [2.0, 1.0])
    >>> line.coordinates([2.0, 1.0]), line.point([0.5])
    (array([1.]), array([1. , 0.5]))
    >>> mg.loss_grid(net, line, [0.0, 0.5, 1.0])
    array([5.  , 1.25, 0.  ])
    """

    def __init__(self, net: Net, origin: ParametersLike, *directions: ParametersLike) -> None:
        self.net = net
        self.origin = parameters(net, origin).copy()
        if not 0 < len(directions) < net.n_params:
            raise InputError(f"{len(directions)} directions; 1 to {net.n_params - 1} are possible")
        self.directions = np.array([parameters(net, d) for d in directions])
        self.coordinates(self.origin)  # Julia refuses dependent directions

    @classmethod
    def through(cls, net: Net, *anchors: ParametersLike) -> LinearSubspace:
        """The line, plane, … whose points (0, 0, …), (1, 0, …), (0, 1, …), … are the ``anchors``."""
        first, *others = (parameters(net, anchor) for anchor in anchors)
        return cls(net, first, *(other - first for other in others))

    def point(self, a: ArrayLike) -> np.ndarray:
        """The point (n_params,) with coordinates ``a`` (one for each direction)."""
        return ask(self.net, "point", {}, [*self._arrays, self._coordinates(a)])

    def coordinates(self, p: ParametersLike) -> np.ndarray:
        """Coordinates of the projection of ``p``."""
        return ask(self.net, "coordinates", {}, [*self._arrays, parameters(self.net, p)])

    @property
    def _arrays(self) -> list[np.ndarray]:
        return [self.origin, self.directions]

    def _coordinates(self, a: Any) -> np.ndarray:
        return finite("a", np.atleast_1d(a), (len(self.directions),))

    def _axes(self, axes: tuple[Any, ...]) -> list[np.ndarray]:
        arrays = [finite(f"axis {number}", axis) for number, axis in enumerate(axes)]
        if len(arrays) != len(self.directions) or any(a.ndim != 1 or a.size == 0 for a in arrays):
            raise InputError(f"{len(self.directions)} axes are needed, a sequence of coordinates for each direction")
        return arrays

    def __repr__(self) -> str:
        return f"LinearSubspace(dimension {len(self.directions)} of {len(self.origin)})"


def _belongs(net: Net, subspace: LinearSubspace) -> None:
    if not isinstance(subspace, LinearSubspace) or subspace.net.n_params != net.n_params:
        raise InputError("subspace must be a LinearSubspace of this net's parameters")


def loss_grid(net: Net, subspace: LinearSubspace, *axes: ArrayLike) -> np.ndarray:
    """The loss along a line or on a plane: an array with one dimension for each axis of coordinates."""
    _belongs(net, subspace)
    return ask(net, "loss_grid", {}, [*subspace._arrays, *subspace._axes(axes)]).T


def _search(
    net: Net,
    subspace: LinearSubspace,
    what: str,
    arrays: list[np.ndarray],
    start: Any,
    options: dict[str, object],
    verbosity: int,
    read: Callable[[int, np.ndarray], Any],
) -> Any:
    x = parameters(net, subspace.origin if start is None else start)

    def run(question: int) -> Any:
        with ProgressLine(verbosity, 1.0) as line:
            return net._core.bridge.solve(
                question, x.ctypes.data, "minimize", options, None, line.update, lambda handle: read(handle, x.copy())
            )

    return net._core.tool(what, {}, [*subspace._arrays, *arrays], run)


@suggest_keywords
def subspace_minloss(
    net: Net,
    subspace: LinearSubspace,
    a: ArrayLike,
    start: ParametersLike | None = None,
    *,
    optim_solver: str = MINIMIZE_DEFAULTS["optim_solver"],
    maxtime_optim: float = 10,
    maxiterations_optim: float = np.inf,
    min_gnorm: float = 0,
    minloss: float = 0,
    patience: float = MINIMIZE_DEFAULTS["patience"],
    verbosity: int = 1,
) -> TrainResult:
    """Minimise the loss over all points that project to the coordinates ``a`` of ``subspace``.

    Parameters
    ----------
    net : Net
    subspace : LinearSubspace
    a : array, one number for each direction
    start : array of shape (n_params,), Params or TrainResult, optional
        The search begins at the point that projects to ``a`` and is nearest to ``start``; by default at the point of
        the subspace.
    optim_solver, maxtime_optim, maxiterations_optim, min_gnorm, minloss, patience, verbosity
        As for ``minimize``.

    Returns
    -------
    TrainResult
        ``gnorm`` is the norm of the gradient within the complement.
    """
    _belongs(net, subspace)
    limits = minimize_options(optim_solver, maxtime_optim, maxiterations_optim, patience) | goals(min_gnorm, minloss)
    return _search(
        net, subspace, "on_subspace", [subspace._coordinates(a)], start, limits, verbosity,
        lambda handle, x: read_result(net._core.bridge, handle, "minimize", x, net),
    )  # fmt: skip


SEARCH = [name for name, p in inspect.signature(subspace_minloss).parameters.items() if p.kind is p.KEYWORD_ONLY]


@dataclass(frozen=True, repr=False)
class SubspaceGrid:
    """Minima in the complement of a line or plane: ``loss``, ``gnorm`` and points ``x``, one dimension for each axis.

    ``x`` has a last dimension n_params. ``finished`` is false if the search was interrupted; what it had not reached is
    NaN.
    """

    loss: np.ndarray
    gnorm: np.ndarray
    x: np.ndarray
    finished: bool

    def __repr__(self) -> str:
        return f"SubspaceGrid({' × '.join(map(str, self.loss.shape))}, lowest loss {np.nanmin(self.loss):.6g})"


@suggest_keywords
def subspace_grid(
    net: Net,
    subspace: LinearSubspace,
    *axes: ArrayLike,
    start: ParametersLike | None = None,
    optim_solver: str = MINIMIZE_DEFAULTS["optim_solver"],
    maxtime_optim: float = 10,
    maxiterations_optim: float = np.inf,
    min_gnorm: float = 0,
    minloss: float = 0,
    patience: float = MINIMIZE_DEFAULTS["patience"],
    verbosity: int = 1,
) -> SubspaceGrid:
    """``subspace_minloss`` on a grid: each search begins at ``start`` and at the minima of the grid points before.

    ``axes`` are sequences of coordinates, one for each direction; the other keywords are those of ``minimize``, for
    each search.
    """
    _belongs(net, subspace)
    limits = minimize_options(optim_solver, maxtime_optim, maxiterations_optim, patience) | goals(min_gnorm, minloss)

    def read(handle: int, _x: np.ndarray) -> SubspaceGrid:
        def get(name: str) -> Any:
            return net._core.bridge.field(handle, name)

        x = get("x")  # axes backwards, then parameters
        order = (*range(x.ndim - 2, -1, -1), x.ndim - 1)
        return SubspaceGrid(get("loss").T, get("gnorm").T, x.transpose(order), bool(get("finished")))

    return _search(net, subspace, "on_grid", subspace._axes(axes), start, limits, verbosity, read)


@dataclass(frozen=True, repr=False)
class SubspacePoints:
    """Minima in the complement of a subspace at M points: coordinates ``a``, ``loss`` (M,), ``gnorm`` (M,), ``x``.

    ``a`` has shape (M, directions) and ``x`` (M, n_params). ``finished`` is false if the search was interrupted; what
    it had not reached is NaN.
    """

    a: np.ndarray
    loss: np.ndarray
    gnorm: np.ndarray
    x: np.ndarray
    finished: bool

    def __repr__(self) -> str:
        return f"SubspacePoints({len(self.a)} points, lowest loss {np.nanmin(self.loss):.6g})"


def subspace_points(
    net: Net,
    subspace: LinearSubspace,
    points: ArrayLike,
    *,
    start: ParametersLike | None = None,
    neighbours: int = 3,
    restarts: int = 0,
    scale: float = 1e-2,
    seed: int = 0,
    backwards: bool = True,
    previous: SubspacePoints | SubspaceGrid | None = None,
    **options: Any,
) -> SubspacePoints:
    """``subspace_minloss`` at any points of a line or plane, from several starts each; the lowest minimum counts.

    Parameters
    ----------
    net : Net
    subspace : LinearSubspace
    points : array of shape (M, directions), or (M,) on a line
        Coordinates, in the order in which they are worked on.
    start : array of shape (n_params,), Params or TrainResult, optional
        As for ``subspace_minloss``.
    neighbours : int
        Each search is repeated from the minima that were found at so many nearest points.
    restarts : int
        Each search is also repeated from so many random points around ``start``.
    scale : float
        The standard deviation of the random points in each parameter.
    seed : int
        Of the random points.
    backwards : bool
        Go through the points once more, from the last to the first, and search from the neighbours alone.
    previous : SubspacePoints or SubspaceGrid, optional
        What an earlier call, or ``subspace_grid``, found on this subspace. Its points serve as neighbours; those that
        are among ``points`` are kept, and only the backward pass searches there again. This resumes an interrupted
        search, or adds points to a finished one.
    **options
        ``optim_solver`` and the other keywords of ``subspace_minloss``.

    Returns
    -------
    SubspacePoints
        Ctrl-C ends the search with what it has found.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", True)], input=[[0.0], [1.0]], target=[1.0, 3.0])
    >>> slope = mg.LinearSubspace(net, [0.0, 0.0], [1.0, 0.0])
    >>> mg.subspace_points(net, slope, [0.0, 2.0, 1.0]).loss.round(12)      # the best bias for each slope
    array([1.  , 0.  , 0.25])
    """
    _belongs(net, subspace)
    check_keywords("subspace_points", options, SEARCH)
    a = finite("points", points)
    a = a.reshape(-1, 1) if a.ndim == 1 else a
    if a.ndim != 2 or a.shape[1] != len(subspace.directions) or not len(a):
        raise InputError(f"points has shape {np.shape(points)}; (M, {len(subspace.directions)}) is needed")
    for name, value in (("neighbours", neighbours), ("restarts", restarts)):
        if not is_whole(value) or value < 0:
            raise InputError(f"{name} is {value!r}; a whole number that is not negative is needed")
    if not real_number(scale) >= 0:
        raise InputError(f"scale is {scale!r}; a number that is not negative is needed")
    rng = np.random.default_rng(seed)
    middle = None if start is None else parameters(net, start)
    loss, gnorm = np.full(len(a), np.nan), np.full(len(a), np.nan)
    x = np.full((len(a), net.n_params), np.nan)
    before_a, before_x = np.empty((0, a.shape[1])), np.empty((0, net.n_params))
    if previous is not None:
        before_a, before_loss, before_gnorm, before_x = _found_before(subspace, previous)
        same = (abs(a[:, None] - before_a) <= 1e-9 * (1 + abs(a[:, None]))).all(2)
        for i, k in np.argwhere(same):
            loss[i], gnorm[i], x[i] = before_loss[k], before_gnorm[k], before_x[k]
        before_a, before_x = before_a[~same.any(0)], before_x[~same.any(0)]

    def search(i: int, starts: list[Any]) -> bool:
        for origin in starts:
            res = subspace_minloss(net, subspace, a[i], origin, **options)
            if not res.loss >= loss[i]:
                loss[i], gnorm[i], x[i] = res.loss, res.gnorm, res.x
            if res.optim_stopped_by == "interrupted":
                return False
        return True

    def near(i: int) -> list[Any]:
        known = ~np.isnan(loss)
        found, places = np.concatenate([x[known], before_x]), np.concatenate([a[known], before_a])
        distance = ((places - a[i]) ** 2).sum(1)
        order = [k for k in np.argsort(distance, kind="stable") if distance[k] > 0]
        return list(found[order[:neighbours]])

    for i in np.flatnonzero(np.isnan(loss)).tolist():
        around = subspace.point(a[i]) if middle is None else middle
        random = [around + scale * rng.standard_normal(net.n_params) for _ in range(restarts)]
        if not search(i, [start, *near(i), *random]):
            return SubspacePoints(a, loss, gnorm, x, False)
    for i in reversed(range(len(a) if backwards else 0)):
        if not search(i, near(i)):
            return SubspacePoints(a, loss, gnorm, x, False)
    return SubspacePoints(a, loss, gnorm, x, True)


def _found_before(subspace: LinearSubspace, previous: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates, losses, gradient norms and points of what was found before on this subspace."""
    if not isinstance(previous, (SubspacePoints, SubspaceGrid)):
        raise InputError(
            f"previous is {type(previous).__name__}; what subspace_points or subspace_grid found is needed"
        )
    size = previous.x.shape[-1]
    if size != len(subspace.origin):
        raise InputError(f"previous is about {size} parameters, this net has {len(subspace.origin)}")
    loss, gnorm, x = previous.loss.ravel(), previous.gnorm.ravel(), previous.x.reshape(-1, size)
    known = ~np.isnan(loss)
    a = np.array([subspace.coordinates(point) for point in x[known]]).reshape(-1, len(subspace.directions))
    if isinstance(previous, SubspacePoints):
        given = previous.a[known]
        if given.shape != a.shape or not np.allclose(given, a, rtol=1e-6, atol=1e-6):
            raise InputError(
                "previous is about another subspace: its points do not project to its coordinates on this one"
            )
        a = given
    return a, loss[known], gnorm[known], x[known]
