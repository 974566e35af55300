"""Units and minima that are the same up to permutations and signs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..network.activations import json_layers
from ..network.net import Net
from ..network.params import ParametersLike, Params
from ..network.teacher import TeacherNet
from ..validate.data import real_number
from .ask import ask, finite, one_based
from .classify import without_constraint

__all__ = ["align", "cosine_similarity", "distinct_minima", "DistinctMinima", "match_neurons", "NeuronMatching"]


# ---- symmetries ------------------------------------------------------------------------------------------------


def cosine_similarity(A: ArrayLike, B: ArrayLike) -> np.ndarray:
    """Cosines (m, n) between the rows of ``A`` (m, D) and of ``B`` (n, D); 0 where a row is zero.

    >>> import pymlpgf as mg
    >>> mg.cosine_similarity([[1.0, 0.0], [3.0, 4.0]], [[0.0, 2.0]])
    array([[0. ], [0.8]])
    """
    A, B = finite("A", A), finite("B", B)
    if A.ndim != 2 or B.ndim != 2 or A.shape[1] != B.shape[1]:
        raise InputError(f"A and B have shapes {A.shape} and {B.shape}; (m, D) and (n, D) are needed")
    return ask(None, "cosines", {"columns": A.shape[1]}, [A, B]).T


@dataclass(frozen=True)
class NeuronMatching:
    """For each unit of the teacher the ``unit`` of the student (−1 for none), its ``sign`` and the ``similarity``.

    ``cosines`` (student units, teacher units) are those of all pairs, of the weights as they are.
    """

    unit: np.ndarray
    sign: np.ndarray
    similarity: np.ndarray
    cosines: np.ndarray


def match_neurons(
    net: Net, p: ParametersLike, teacher: Net | TeacherNet, q: ParametersLike | None = None, layer: int = 0
) -> NeuronMatching:
    """A different unit of the student for each of the teacher, with the largest sum of cosine similarities.

    Incoming weights with the bias are compared, modulo sign if the student's activation is odd or even.

    Parameters
    ----------
    net : Net
        The student, with parameters ``p``.
    teacher : TeacherNet, or Net with parameters ``q``
    layer : int
        Counted from 0.
    """
    if isinstance(teacher, TeacherNet):
        q, teacher = teacher.params, teacher.net
    (net, x), (teacher, y) = without_constraint(net, p), without_constraint(teacher, q)
    number = one_based("layer", layer, min(len(net.layers), len(teacher.layers)))
    lines = json_layers(teacher.layers)
    options: dict[str, object] = {"layer": number, "teacher": lines, "teacher_features": teacher.n_features}

    def read(get: Callable[[str], Any]) -> NeuronMatching:
        return NeuronMatching(get("unit") - 1, get("sign"), get("similarity"), get("cosines").T)

    return ask(net, "match", options, [x, y], read)


def align(net: Net, p: ParametersLike, reference: ParametersLike) -> Params:
    """``p`` with hidden units permuted, flipped and scaled to be near ``reference``; the outputs do not change.

    Signs of odd and even units are flipped; homogeneous units are scaled to equal norms of incoming and outgoing
    weights. For one hidden layer this is the nearest such point, for more layers a good one. Where a constraint does
    not allow it, as with frozen output weights that are not equal, it is refused.
    """
    (free, x), (_, y) = without_constraint(net, p), without_constraint(net, reference)
    aligned = free.params(ask(free, "align", {}, [x, y]).astype(net.dtype))
    try:
        return net.params(aligned)
    except InputError as error:
        raise InputError(f"{error}: align with the net itself, without its constraint") from None


@dataclass(frozen=True)
class DistinctMinima:
    """Groups of equal minima: ``labels`` (M,) of the points, and ``representatives`` (K,), indices of the best members.

    Groups are numbered from 0, the lowest loss first; ``counts`` (K,) is the number of members of each.
    """

    labels: np.ndarray
    representatives: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """The number of members of each group, (K,)."""
        return np.bincount(self.labels, minlength=len(self.representatives))

    def __len__(self) -> int:
        return len(self.representatives)


def distinct_minima(net: Net, points: Sequence[ParametersLike], tolerance: float = 1e-4) -> DistinctMinima:
    """Which ``points`` are the same modulo permutation, sign and scale of hidden units (see ``align``).

    Parameters
    ----------
    net : Net
    points : sequence of TrainResult, Params or arrays of shape (n_params,)
    tolerance : float
        Distance of equal points, relative to 1 + their norm. Points in a degenerate valley stay apart.

    Notes
    -----
    Points under a constraint are compared as networks: two that permute units are the same, whether or not the
    constraint has a path between them.
    """
    found = [without_constraint(net, p) for p in points]
    if not found:
        raise InputError("points is empty")
    net, xs = found[0][0], [x for _, x in found]
    if not real_number(tolerance) > 0:
        raise InputError(f"tolerance is {tolerance!r}; a positive number is needed")
    losses = np.array([net.loss(x) for x in xs])

    def read(get: Callable[[str], Any]) -> DistinctMinima:
        return DistinctMinima(get("labels") - 1, get("representatives") - 1)

    return ask(net, "distinct", {"tolerance": float(tolerance)}, [np.array(xs), losses], read)
