"""Fixed points to many digits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..network.constraints import constraint_of, nearest_point
from ..network.infinite import InfiniteNet
from ..network.net import Net
from ..network.params import ParametersLike
from ..solve.progress import ProgressLine
from ..validate.data import real_number
from ..validate.memory import refuse_square
from ..validate.suggest import suggest_keywords
from .classify import finite_parameters

__all__ = ["polish", "Polished"]


@dataclass(frozen=True, repr=False)
class Polished:
    """What ``polish`` found.

    Attributes
    ----------
    x : array (n_params,)
        The point, rounded to float64.
    digits : list of Decimal, n_params of them
        The point, to the digits asked for.
    loss, gnorm : Decimal
        Loss and ‖∇L‖_∞ at the point; not rounded, since they lie far below what float64 can compute.
    converged : bool
    iterations : int
    stopped_by : str
    message : str
    total_time : float
    """

    x: np.ndarray
    digits: list[Decimal]
    loss: Decimal
    gnorm: Decimal
    converged: bool
    iterations: int
    stopped_by: str
    message: str
    total_time: float

    def __repr__(self) -> str:
        state = "converged" if self.converged else f"not converged: {self.stopped_by}"
        return f"Polished({state}, loss={self.loss:.6g}, gnorm={self.gnorm:.2g}, {self.iterations} iterations)"


@suggest_keywords
def polish(
    net: Net,
    p: ParametersLike,
    *,
    digits: int = 50,
    maxtime: float = 120,
    maxiterations: int = 200,
    freeze: ArrayLike | None = None,
    tie: Any = None,
    constraint: Any = None,
    verbosity: int = 1,
    progress_interval: float = 1.0,
) -> Polished:
    """The fixed point near ``p``, of any index, to ``digits`` decimal digits.

    Newton's method with gradients in Julia's BigFloat; the data are taken as the exact numbers that they are in the
    net's dtype. Steps are solved with the Hessian in Float64 without its null directions: each gains some ten digits,
    and iterates converge to manifolds of degenerate points too. Where that fails, at an ill-conditioned minimum,
    ``minimize`` runs in BigFloat, which is slow.

    Parameters
    ----------
    net : Net
    p : array of shape (n_params,), Params or TrainResult
        A good guess, such as the result of ``minimize``.
    digits : int
        2 to 10000.
    maxtime : float
        Seconds.
    maxiterations : int
    freeze, tie, constraint
        As for ``flow``.
    verbosity, progress_interval
        As for ``flow``.

    Returns
    -------
    Polished

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "square", False)], input=[[1.0]], target=[1.0])     # L = (θ²/2 - 1)²
    >>> abs(mg.polish(net, [1.4], digits=25).digits[0] - Decimal(2).sqrt()) < Decimal("1e-25")
    True
    """
    x = finite_parameters(net, p)
    net, rule = constraint_of(net, freeze, tie, constraint)
    if isinstance(net, InfiniteNet):
        raise InputError(
            "polish needs a Net with data, since integrals over infinite data are computed to the digits of float64; "
            "certify encloses them where they have closed forms"
        )
    question: dict[str, object] = {}
    if rule is not None:
        x = nearest_point(net, rule, x)
        question["constraint"] = rule
    for name, value, low, high in (
        ("digits", digits, 2, 10_000),
        ("maxtime", maxtime, 0, np.inf),
        ("maxiterations", maxiterations, 0, np.inf),
    ):
        if not low <= real_number(value) <= high:
            raise InputError(f"{name} is {value!r}; a number from {low} to {high} is needed")
    refuse_square(net, "polish", "minimize comes as near as its dtype can tell")
    bridge = net._core.bridge
    options: dict[str, object] = {"maxtime_optim": float(maxtime), "maxiterations_optim": float(maxiterations)}

    def read(handle: int) -> Polished:
        def get(name: str) -> Any:
            return bridge.field(handle, name)

        return Polished(
            x=get("x"),
            digits=[Decimal(digits) for digits in json.loads(get("exact_x"))],
            loss=Decimal(get("exact_loss")),
            gnorm=Decimal(get("exact_gnorm")),
            converged=bool(get("converged")),
            iterations=get("iterations"),
            stopped_by=get("stopped_by"),
            message=get("stopped_by.advice"),
            total_time=get("total_time"),
        )

    def run(handle: int) -> Polished:
        with ProgressLine(verbosity, progress_interval) as line:
            return bridge.solve(handle, x.ctypes.data, "minimize", options, None, line.update, read)

    return net._core.tool("polishing", {**question, "digits": float(digits)}, [], run)
