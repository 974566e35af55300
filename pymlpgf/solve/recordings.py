"""What a run can record in Julia along its trajectory: ``observables={"sharpness": mg.Eigenvalues()}``."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..network.net import Net
from ..network.params import Params
from ..network.teacher import TeacherNet
from ..validate.data import is_whole, numeric

__all__ = ["Eigenvalues", "ParameterNorm", "Projections", "RECORDINGS", "Recording", "UnitCosines", "UnitNorms"]


@dataclass(frozen=True)
class Recording:
    """What the recordings share: values at each point of a trajectory, computed without leaving Julia.

    ``res.trajectory["name"]`` has the shape (M,) for one value a point, and (M, k) for k of them, which are called
    "name[0]" to "name[k−1]" in a data frame. A discrete method with ``save_everystep=True`` has them at every step.
    """

    def _spec(self, net: Net) -> tuple[dict[str, Any], list[np.ndarray], int]:
        """What Julia is told, the arrays that go with it, and how many values there are."""
        raise NotImplementedError

    def _names(self, name: str, net: Net) -> list[str]:
        count = self._spec(net)[2]
        return [name] if count == 1 else [f"{name}[{number}]" for number in range(count)]


@dataclass(frozen=True)
class Eigenvalues(Recording):
    """The ``smallest`` lowest and the ``largest`` highest eigenvalues of the Hessian, ascending.

    With ``freeze``, ``tie`` or ``constraint`` it is the Hessian in their coordinates, BᵀHB, as ``classify`` has it.
    By Lanczos's method on Hessian-vector products, begun at each point from the eigenvectors of the one before: a few
    products a step of gradient descent. The error of a value is below 1.5e-8 of the largest in size (3e-4 in float32).

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", False)], input=[[1.0, 0.0], [0.0, 3.0]], target=[0.0, 0.0])
    >>> steps = mg.flow(net, [1.0, 1.0], alg="GradientDescent", maxiterations_ode=2, save_everystep=True,
    ...                 observables={"ends": mg.Eigenvalues(smallest=1)})
    >>> steps.trajectory["ends"].round(9)               # L = (θ₀² + 9 θ₁²)/2
    array([[1., 9.],
           [1., 9.],
           [1., 9.]])
    """

    largest: int = 1
    smallest: int = 0

    def __post_init__(self) -> None:
        for name in ("largest", "smallest"):
            value = getattr(self, name)
            if not is_whole(value) or value < 0:
                raise InputError(f"{name} is {value!r}; a whole number that is not negative is needed")
        if self.largest + self.smallest == 0:
            raise InputError("largest and smallest are 0: nothing would be recorded")

    def _spec(self, net: Net) -> tuple[dict[str, Any], list[np.ndarray], int]:
        spec = {"what": "eigenvalues", "lowest": int(self.smallest), "highest": int(self.largest)}
        return spec, [], int(self.smallest + self.largest)


@dataclass(frozen=True)
class ParameterNorm(Recording):
    """‖θ‖."""

    def _spec(self, net: Net) -> tuple[dict[str, Any], list[np.ndarray], int]:
        return {"what": "norm"}, [], 1


@dataclass(frozen=True)
class Projections(Recording):
    """Scalar products of θ − ``origin`` (default 0) with ``vectors``, of shape (n_params,) or (k, n_params)."""

    vectors: Any
    origin: Any = None

    def _spec(self, net: Net) -> tuple[dict[str, Any], list[np.ndarray], int]:
        given = self.vectors.flat if isinstance(self.vectors, Params) else self.vectors
        V = np.atleast_2d(numeric("vectors", given)).astype(np.float64)
        if V.ndim != 2 or V.shape[1] != net.n_params or not len(V):
            raise InputError(f"vectors has shape {np.shape(given)}; (k, {net.n_params}) is needed")
        origin = (
            np.zeros(net.n_params) if self.origin is None else net._core.flat(self.origin, "origin").astype(np.float64)
        )
        for name, array in (("vectors", V), ("origin", origin)):
            if not np.isfinite(array).all():
                raise InputError(f"{name} contains NaN or infinite entries")
        return {"what": "projections"}, [origin, V], len(V)


@dataclass(frozen=True)
class UnitNorms(Recording):
    """Norms of the units of a layer: of their incoming weights with bias, or of their ``outgoing`` weights."""

    layer: int = 0
    outgoing: bool = False

    def _spec(self, net: Net) -> tuple[dict[str, Any], list[np.ndarray], int]:
        layer = _layer(self.layer, net, len(net.layers) - bool(self.outgoing))
        return {"what": "unit norms", "layer": layer + 1, "outgoing": bool(self.outgoing)}, [], net.layers[layer][0]


@dataclass(frozen=True)
class UnitCosines(Recording):
    """Cosines between units of a layer, by their incoming weights with bias.

    Of all ``pairs`` (i, j), counted from 0, in the order of ``itertools.combinations``, or of those that are given; or,
    with a ``teacher`` (a TeacherNet, or an array of vectors), of each of its units in turn with all of the net's.
    """

    layer: int = 0
    pairs: Any = None
    teacher: Any = None

    def _spec(self, net: Net) -> tuple[dict[str, Any], list[np.ndarray], int]:
        layer = _layer(self.layer, net, len(net.layers))
        width, _, bias = net.layers[layer]
        size = (net.layers[layer - 1][0] if layer else net.n_features) + bias
        if self.teacher is not None:
            if self.pairs is not None:
                raise InputError("pairs and teacher are given; one of them is needed")
            rows = self._teacher(layer)
            if rows.ndim != 2 or rows.shape[1] != size or not np.isfinite(rows).all():
                raise InputError(
                    f"teacher has vectors of shape {rows.shape}; finite ones of shape (k, {size}) are needed"
                )
            return {"what": "cosines", "layer": layer + 1, "rows": size}, [rows], len(rows) * width
        pairs = list(itertools.combinations(range(width), 2) if self.pairs is None else self.pairs)
        for pair in pairs:
            if np.ndim(pair) != 1 or len(pair) != 2 or not all(0 <= int(unit) < width for unit in pair):
                raise InputError(f"pairs has the entry {pair!r}; two of the units 0 to {width - 1} are needed")
        if not pairs:
            raise InputError("pairs is empty")
        ones = [[int(i) + 1, int(j) + 1] for i, j in pairs]
        return {"what": "cosines of pairs", "layer": layer + 1, "pairs": ones}, [], len(pairs)

    def _teacher(self, layer: int) -> np.ndarray:
        if not isinstance(self.teacher, TeacherNet):
            return np.atleast_2d(numeric("teacher", self.teacher)).astype(np.float64)
        p = self.teacher.params
        bias = p.biases[layer]
        return (p.weights[layer] if bias is None else np.column_stack([p.weights[layer], bias])).astype(np.float64)


def _layer(layer: Any, net: Net, count: int) -> int:
    if not is_whole(layer) or not 0 <= layer < count:
        raise InputError(f"layer is {layer!r}; a whole number from 0 to {count - 1} is needed")
    return int(layer)


RECORDINGS = {kind.__name__: kind for kind in (Eigenvalues, ParameterNorm, Projections, UnitNorms, UnitCosines)}
