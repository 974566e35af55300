"""The distinct minima that many runs found, and how often each was reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..network.constraints import ConstrainedNet
from ..network.net import Net
from ..results.result import TrainResult
from ..validate.data import real_number
from ..validate.memory import refuse_square
from .ask import ask
from .classify import classify
from .symmetry import distinct_minima

__all__ = ["Catalogue", "minima_catalogue"]


@dataclass(frozen=True, repr=False)
class Catalogue:
    """The K distinct points at which ``n_runs`` runs ended, in the order of their losses, the lowest first.

    Attributes
    ----------
    loss, gnorm : arrays (K,)
        Of the representatives.
    kind : list of str
        What each is, as ``classify`` says: "minimum", "saddle", "degenerate", "escaping" or "not a fixed point"; among
        the points that obey its constraint, if its run had one.
    count : array (K,)
        How many runs ended there.
    low, high : arrays (K,)
        Confidence interval of the probability that a run ends there (Clopper and Pearson 1934).
    representatives : list of TrainResult
        For each point the run with the lowest loss.
    labels : array (n_runs,)
        The point at which each run ended, a number from 0 to K − 1.
    n_runs : int
    confidence : float
    """

    loss: np.ndarray
    gnorm: np.ndarray
    kind: list[str]
    count: np.ndarray
    low: np.ndarray
    high: np.ndarray
    representatives: list[TrainResult]
    labels: np.ndarray
    n_runs: int
    confidence: float

    def __len__(self) -> int:
        return len(self.loss)

    def __repr__(self) -> str:
        return f"Catalogue({len(self)} distinct points of {self.n_runs} runs, lowest loss {self.loss[0]:.6g})"

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each point."""
        import pandas as pd

        names = ("loss", "gnorm", "kind", "count", "low", "high")
        columns: dict[str, Any] = {name: getattr(self, name) for name in names}
        return pd.DataFrame({**columns, "frequency": self.count / self.n_runs})


def minima_catalogue(
    net: Net, results: Sequence[TrainResult], *, tolerance: float = 1e-4, confidence: float = 0.95
) -> Catalogue:
    """The distinct points at which ``results`` ended, modulo symmetry, and how often each was reached.

    Parameters
    ----------
    net : Net
        All results are of this net.
    results : sequence of TrainResult
        Of independent runs, such as those of a sweep over seeds. Those that did not converge count as runs.
    tolerance : float
        As for ``distinct_minima``. Points in a degenerate valley, or on the way to infinity, stay apart.
    confidence : float
        Probability with which the interval of each point's frequency covers the true one, between 0 and 1.

    Raises
    ------
    InputError
        If there is no result, or ``confidence`` is not between 0 and 1.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", True)], input=[[0.0], [1.0]], target=[1.0, 3.0])
    >>> found = mg.minima_catalogue(net, [mg.minimize(net, net.random_params(seed)) for seed in range(4)])
    >>> found.kind, found.count, found.low.round(3), found.high
    (['minimum'], array([4]), array([0.398]), array([1.]))
    """
    results = list(results)
    for number, result in enumerate(results):
        if not isinstance(result, TrainResult):
            raise InputError(f"entry {number} of results is {type(result).__name__}; TrainResults are needed")
    level = real_number(confidence)
    if not 0 < level < 1:
        raise InputError(f"confidence is {confidence!r}; a number between 0 and 1 is needed")
    refuse_square(net, "minima_catalogue", "distinct_minima groups points without Hessians")
    groups = distinct_minima(net, results, tolerance)
    chosen = [results[i] for i in groups.representatives]
    counts, own = groups.counts, isinstance(net, ConstrainedNet)
    bounds = ask(None, "binomial_intervals", {"n": len(results), "confidence": level}, [counts])
    return Catalogue(
        np.array([r.loss for r in chosen]), np.array([r.gnorm for r in chosen]),
        [classify(net, r.x, constraint=None if own else r.constraint).kind for r in chosen],
        counts, bounds[:, 0], bounds[:, 1], chosen, groups.labels, len(results), level,
    )  # fmt: skip
