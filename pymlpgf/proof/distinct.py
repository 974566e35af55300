"""Proofs that critical points are different."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..landscape.ask import ask
from ..network.activations import json_layers
from .certificate import Certificate

__all__ = ["ProvedDistinct", "distinct"]


@dataclass(frozen=True, repr=False)
class ProvedDistinct:
    """What ``distinct`` proved about M certificates.

    Attributes
    ----------
    different : bool array (M, M)
        Whether two of them are proved to be different. False means unknown: they may be equal or different.
    representatives : int array (K,)
        Indices of certificates that are all proved to be different from each other, the lowest loss first.
    """

    different: np.ndarray
    representatives: np.ndarray

    def __len__(self) -> int:
        return len(self.representatives)

    def __repr__(self) -> str:
        return f"ProvedDistinct(at least {len(self)} different among {len(self.different)})"


def distinct(certificates: Sequence[Certificate]) -> ProvedDistinct:
    """Prove that critical points are different, whatever hidden units are permuted, flipped or scaled.

    Parameters
    ----------
    certificates : sequence of Certificate
        All of the same net, and all with a proof.

    Returns
    -------
    ProvedDistinct
        Its ``len`` is a lower bound of how many different points there are.

    Raises
    ------
    InputError
        If a certificate has no proof, or is about another net.

    Notes
    -----
    Two points are different if their loss intervals do not overlap, if their indices differ, or if their first hidden
    layers cannot be mapped to each other: no order of the units, with signs where the activation allows them (odd and
    even ones, sigmoid and normal_cdf) and scales where it is homogeneous, brings all units into each other's boxes.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "square", False)], input=[[1.0]], target=[1.0])     # L = (θ²/2 - 1)²
    >>> mg.distinct([mg.certify(net, [x]) for x in (-1.4, 0.0, 1.4)])
    ProvedDistinct(at least 2 different among 3)
    """
    given = list(certificates)
    if not given:
        raise InputError("certificates is empty")
    for number, certificate in enumerate(given):
        if not isinstance(certificate, Certificate):
            raise InputError(f"entry {number} is {type(certificate).__name__}; a Certificate is needed")
        if not certificate.certified:
            raise InputError(f"entry {number} has no proof: {certificate.reason}")
        if (
            certificate.layers != given[0].layers
            or not _same(certificate.problem, given[0].problem)
            or (certificate.constraint != given[0].constraint)
        ):
            raise InputError(f"entry {number} is about another net than the first one")
    first = given[0]
    n_features = (len(first.x) - sum(w * b for w, _, b in first.layers) - _later(first.layers)) // first.layers[0][0]
    options: dict[str, object] = {"layers": json_layers(first.layers), "n_features": n_features}
    columns = [[c.radius for c in given], *zip(*(c.loss_interval for c in given), strict=True)]
    # Of coordinates it need not be the same where units are permuted.
    indices = np.array([c.index if c.constraint is None else 0 for c in given])
    arrays = [np.array([c.x for c in given]), *map(np.array, columns), indices]

    def read(get: Callable[[str], Any]) -> ProvedDistinct:
        return ProvedDistinct(get("different") != 0, get("representatives") - 1)

    return ask(None, "proved_different", options, arrays, read)


def _later(layers: Sequence[tuple[int, Any, bool]]) -> int:
    """How many weights the layers after the first one have."""
    return sum(a * b for (a, _, _), (b, _, _) in itertools.pairwise(layers))


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(name == "threads" or np.array_equal(a[name], b[name]) for name in a)
