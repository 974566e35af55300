"""Branches of critical points of a loss that depends on a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..network.infinite import InfiniteNet
from ..network.net import Net
from ..network.params import ParametersLike
from ..solve.progress import ProgressLine
from ..validate.data import is_whole, real_number
from ..validate.memory import refuse_square
from ..validate.suggest import suggest_keywords
from .classify import start

__all__ = ["Branch", "follow", "Followed", "SpecialPoint"]


@dataclass(frozen=True, repr=False)
class SpecialPoint:
    """A fold, where a branch turns back in the parameter, or a branch point, where another one crosses it.

    Attributes
    ----------
    kind : "fold" or "branch point"
    parameter : float
    x : array (n_params,)
    loss : float
    eigenvalue : float
        The eigenvalue of the Hessian that changes sign here, as computed; NaN if the point was only enclosed.
    kernel : array (n_params,)
        Its eigenvector.
    multiplicity : int
        How many eigenvalues vanish together: the dimension of the Hessian's null space, beside symmetries.
    branch : int
        The branch, counted from 0, on which it was found first.
    converged : bool
        Whether Newton's method converged to it; otherwise it was enclosed between two points of the branch.
    """

    kind: str
    parameter: float
    x: np.ndarray
    loss: float
    eigenvalue: float
    kernel: np.ndarray
    multiplicity: int
    branch: int
    converged: bool

    def __repr__(self) -> str:
        many = f", multiplicity {self.multiplicity}" if self.multiplicity > 1 else ""
        return f"SpecialPoint({self.kind} at {self.parameter:.9g}, loss={self.loss:.6g}{many}, on branch {self.branch})"


@dataclass(frozen=True, repr=False)
class Branch:
    """A curve of critical points.

    Attributes
    ----------
    parameter : array (M,)
        Not monotonic if there are folds.
    x : array (M, n_params)
    loss, gnorm : arrays (M,)
    eigenvalues : array (M, n_params)
        Eigenvalues of the Hessian, ascending.
    index : array (M,) of int
        Number of negative eigenvalues: 0 for minima.
    arclength : array (M,)
        Length along the branch, in the space of p and the parameter scaled so that its bounds are 1 + ‖p‖ apart.
    began, ended : str
        Why the branch has no more points at either end: "bounds", "branch point" (it starts there), "known branch" (it
        continues along a branch that was followed already), "closed", "max_points", "diverging", "stuck" or
        "interrupted".
    parent : int or None
        The place in ``Followed.points`` of the branch point from which it starts.
    """

    parameter: np.ndarray
    x: np.ndarray
    loss: np.ndarray
    gnorm: np.ndarray
    eigenvalues: np.ndarray
    index: np.ndarray
    arclength: np.ndarray
    began: str
    ended: str
    parent: int | None

    def __len__(self) -> int:
        return len(self.parameter)

    def __repr__(self) -> str:
        low, high, least, most = self.parameter.min(), self.parameter.max(), self.index.min(), self.index.max()
        index = f"index {least}" if least == most else f"index {least} to {most}"
        ends = f"{self.began} … {self.ended}"
        return f"Branch({len(self)} points, parameter {low:.4g} to {high:.4g}, {index}, {ends})"


@dataclass(frozen=True, repr=False)
class Followed:
    """Branches of critical points, as ``follow`` found them.

    Attributes
    ----------
    branches : list of Branch
        The first is the one through the start; its points run through it in one direction.
    points : list of SpecialPoint
        Folds and branch points, in the order in which they were found.
    parameter : str
        "l2", or "homotopy" for the way from one net to another.
    finished : bool
        False if the time limit or Ctrl-C ended the search before everything was followed.
    """

    branches: list[Branch]
    points: list[SpecialPoint]
    parameter: str
    finished: bool

    @property
    def folds(self) -> list[SpecialPoint]:
        """The folds among ``points``."""
        return [point for point in self.points if point.kind == "fold"]

    @property
    def branch_points(self) -> list[SpecialPoint]:
        """The branch points among ``points``."""
        return [point for point in self.points if point.kind == "branch point"]

    def __repr__(self) -> str:
        counts = f"{len(self.branches)} branches, {len(self.folds)} folds, {len(self.branch_points)} branch points"
        return f"Followed({self.parameter}: {counts}{'' if self.finished else ', not finished'})"

    def __str__(self) -> str:
        return "\n  ".join([repr(self), *map(repr, self.branches), *map(repr, self.points)])

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each point: branch, parameter, loss, gnorm, index, lowest eigenvalue, …"""
        import pandas as pd

        def rows(number: int, branch: Branch) -> Any:
            columns = {"branch": number, "parameter": branch.parameter, "arclength": branch.arclength}
            columns |= {"loss": branch.loss, "gnorm": branch.gnorm, "index": branch.index}
            return pd.DataFrame({**columns, "lowest_eigenvalue": branch.eigenvalues[:, 0]})

        return pd.concat([rows(number, branch) for number, branch in enumerate(self.branches)], ignore_index=True)


@suggest_keywords
def follow(
    net: Net,
    p: ParametersLike,
    to: Net | str,
    *,
    bounds: tuple[float, float] | None = None,
    max_step: float = 0.05,
    max_points: int = 1000,
    max_branches: int = 20,
    maxtime: float = 60,
    verbosity: int = 1,
) -> Followed:
    """The branches of critical points through ``p`` as a parameter μ of the loss changes, and those that leave them.

    Pseudo-arclength continuation with the exact Hessian, which goes around folds. An eigenvalue changes sign at a fold
    or a branch point; both are located by Newton's method, and the branches that leave a branch point are followed
    too.

    Parameters
    ----------
    net : Net
        In float64.
    p : array of shape (n_params,), Params or TrainResult
        A minimum or saddle of ``net``.
    to : "l2" or a Net with the same parameters
        "l2": μ is the net's ``l2`` and begins at its present value. A net: μ leads from ``net`` at μ = 0 to ``to`` at
        μ = 1. If the nets differ in activations only, the activations between are (1 − μ) f + μ F; if they differ in
        anything else (data, targets, weights, regularisers), the losses between are (1 − μ) L + μ L′.
    bounds : (float, float), optional
        Lowest and highest μ; required for "l2", otherwise (0, 1) by default.
    max_step : float
        The longest step, relative to 1 + the norm of the parameters; steps are shorter where the branch bends.
    max_points : int
        The largest number of points on a branch, in each direction.
    max_branches : int
    maxtime : float
        Seconds.
    verbosity : int
        0 shows no progress.

    Returns
    -------
    Followed

    Raises
    ------
    InputError
        If ``p`` is not a fixed point of ``net``, or the two nets do not fit together.

    Notes
    -----
    H. B. Keller, in *Applications of Bifurcation Theory* (1977); E. L. Allgower and K. Georg, *Introduction to
    Numerical Continuation Methods* (2003). The tangents at a simple branch point are the roots of Keller's algebraic
    bifurcation equation. Where several eigenvalues vanish, as at p = 0 of a net with several equal units, there may be
    any number of branches: those are followed to which Newton's method leads from sums and differences of the null
    vectors, and others may be missed. Eigenvalues that vanish at ``p`` by a symmetry are assumed to vanish on all
    branches, and steps are orthogonal to their eigenvectors; from points with several others no branches are followed
    then.

    Examples
    --------
    With L = (1 - ab)² + (l2/2)(a² + b²), two minima a = b = ±(1 - l2/2)^½ meet at a = b = 0 for l2 = 2:

    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", False), (1, "identity", False)], input=[[1.0]], target=[1.0])
    >>> found = mg.follow(net, [0.0, 0.0], "l2", bounds=(0, 3), verbosity=0)
    >>> found, found.points
    (Followed(l2: 3 branches, 0 folds, 1 branch points), [SpecialPoint(branch point at 2, loss=1, on branch 0)])
    >>> [bool(abs(branch.x[-1]).round(9).max() == 1) for branch in found.branches[1:]]
    [True, True]
    """
    for name, given in (("net", net), ("to", to)):
        if not isinstance(given, (Net, InfiniteNet)) and not (name == "to" and given == "l2"):
            allowed = "a pymlpgf.Net" if name == "net" else 'a pymlpgf.Net or "l2"'
            raise InputError(f"{name} is {given!r}; {allowed} is needed")
        if not isinstance(given, str) and given.dtype != np.float64:
            raise InputError(f'{name} computes in {given.dtype}; make it with dtype="float64"')
    x = start(net, p)
    options: dict[str, object] = {}
    if isinstance(to, str):
        if type(net) is not Net:
            raise InputError('"l2" is for a pymlpgf.Net without constraints; give net.replace(l2=…) as to')
        if bounds is None:
            raise InputError("bounds of l2 are needed, such as bounds=(0, 0.1)")
    else:
        options["to"] = to._core.handle
    low, high = _bounds((0, 1) if bounds is None else bounds)
    if not 0 < real_number(max_step) <= 1:
        raise InputError(f"max_step is {max_step!r}; a positive number up to 1 is needed")
    for name, number in (("max_points", max_points), ("max_branches", max_branches)):
        if not is_whole(number) or number < 1:
            raise InputError(f"{name} is {number!r}; a positive whole number is needed")
    if not real_number(maxtime) > 0:
        raise InputError(f"maxtime is {maxtime!r}; a positive number is needed")
    refuse_square(net, "follow", "there is no continuation without the Hessian")
    options.update(low=low, high=high, max_step=float(max_step))
    options.update(max_points=int(max_points), max_branches=int(max_branches))
    bridge = net._core.bridge

    def read(handle: int) -> Followed:
        def get(name: str) -> Any:
            return bridge.field(handle, name)

        def branch(at: str) -> Branch:
            names = ("x", "loss", "gnorm", "index", "began", "ended")
            kept: dict[str, Any] = {name: get(f"{at}.{name}") for name in names}
            parent = get(f"{at}.parent")
            return Branch(
                parameter=get(f"{at}.parameter"),
                eigenvalues=get(f"{at}.eigenvalues"),
                arclength=get(f"{at}.arclength"),
                parent=parent - 1 if parent > 0 else None,
                **kept,
            )

        def special(at: str) -> SpecialPoint:
            names = ("kind", "x", "loss", "eigenvalue", "kernel", "multiplicity")
            kept: dict[str, Any] = {name: get(f"{at}.{name}") for name in names}
            converged, on = bool(get(f"{at}.converged")), get(f"{at}.branch") - 1
            return SpecialPoint(parameter=get(f"{at}.parameter"), branch=on, converged=converged, **kept)

        return Followed(
            branches=[branch(f"branches.{number + 1}") for number in range(get("n_branches"))],
            points=[special(f"points.{number + 1}") for number in range(get("n_points"))],
            parameter=to if isinstance(to, str) else "homotopy",
            finished=bool(get("finished")),
        )

    def run(question: int) -> Followed:
        with ProgressLine(verbosity, 1.0) as line:
            return bridge.solve(
                question, x.ctypes.data, "minimize", {"maxtime": float(maxtime)}, None, line.update, read
            )

    return bridge.tool(net._core.handle, "following", options, [], run)


def _bounds(bounds: Any) -> tuple[float, float]:
    try:
        low, high = map(real_number, bounds)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not -np.inf < low < high < np.inf:
        raise InputError(f"bounds is {bounds!r}; a pair of finite numbers that ascend is needed")
    return float(low), float(high)
