"""Units of a layer compared: similar pairs and groups, units that many runs have in common, and merging."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..network.activations import json_layers
from ..network.constraints import ConstrainedNet
from ..network.net import Net
from ..network.params import ParametersLike, Params
from ..network.teacher import TeacherNet
from ..results.result import TrainResult, Trajectory
from ..validate.data import real_number
from ..validate.suggest import nearest
from .ask import ask, hidden_layer, one_based, points_of
from .classify import without_constraint
from .widths import obeying, with_units

__all__ = [
    "Likeness", "NeuronClusters", "NeuronPair", "NeuronsAlong", "cluster_neurons", "compare_neurons", "merge_neurons",
    "neuron_groups", "neuron_pairs", "neurons_along",
]  # fmt: skip

MEASURES = ("angle", "distance")


@dataclass(frozen=True)
class Likeness:
    """Units compared in pairs, by their incoming weights with the bias: arrays (units, others).

    If the activation is odd or even, ``angle`` (radians) and ``distance`` are those of a unit or of its mirror image,
    whichever is nearer; ``sign`` is −1 if the mirror image is. Between units with different activations both are
    infinite. ``cosine`` is that of the weights as they are.
    """

    angle: np.ndarray
    distance: np.ndarray
    sign: np.ndarray
    cosine: np.ndarray


def compare_neurons(
    net: Net,
    p: ParametersLike,
    teacher: Net | TeacherNet | None = None,
    q: ParametersLike | None = None,
    layer: int = 0,
) -> Likeness:
    """Angles and distances between the units of a layer, or between a student's (rows) and a teacher's (columns).

    Parameters
    ----------
    net : Net
        With parameters ``p``.
    teacher : TeacherNet, or Net with parameters ``q``, optional
        Whether mirror images are compared depends on the student's activation.
    layer : int
        Counted from 0.

    Examples
    --------
    >>> import numpy as np, pymlpgf as mg
    >>> net = mg.Net(layers=[(2, "tanh", False), (1, "identity", False)], n_features=2)
    >>> alike = mg.compare_neurons(net, [1.0, 0.0, -3.0, 3.0, 1.0, 1.0])
    >>> bool(np.isclose(alike.angle[0, 1], np.pi / 4)), int(alike.sign[0, 1])      # to the mirror image of unit 1
    (True, -1)
    """
    net, x = without_constraint(net, p)
    arrays = [x]
    options: dict[str, object] = {"layer": one_based("layer", layer, len(net.layers))}
    if teacher is not None:
        if isinstance(teacher, TeacherNet):
            q, teacher = teacher.params, teacher.net
        elif q is None:
            raise InputError("teacher is a Net, and q, its parameters, is missing")
        one_based("layer", layer, len(teacher.layers))
        teacher, y = without_constraint(teacher, q)
        arrays.append(y)
        options.update(teacher=json_layers(teacher.layers), teacher_features=teacher.n_features)

    def read(get: Callable[[str], Any]) -> Likeness:
        return Likeness(get("angle").T, get("distance").T, get("sign").T, get("cosine").T)

    return ask(net, "neurons", options, arrays, read)


@dataclass(frozen=True)
class NeuronPair:
    """Units ``i`` < ``j`` of a layer, as ``Likeness`` compares them."""

    i: int
    j: int
    angle: float
    distance: float
    sign: int
    cosine: float


def neuron_pairs(net: Net, p: ParametersLike, by: str = "angle", layer: int = 0) -> list[NeuronPair]:
    """All pairs of units of a layer with the same activation, the closest first.

    Parameters
    ----------
    net : Net
    p : array of shape (n_params,), Params or TrainResult
    by : "angle" or "distance"
        Modulo sign where the activation is odd or even.
    layer : int
        Counted from 0.
    """
    alike = compare_neurons(net, p, layer=layer)
    measure = getattr(alike, _measure(by))
    first, second = np.triu_indices(len(measure), 1)
    names = ("angle", "distance", "sign", "cosine")
    return [
        NeuronPair(int(i), int(j), *(getattr(alike, name)[i, j].item() for name in names))
        for i, j in sorted(zip(first, second, strict=True), key=lambda pair: measure[pair])
        if np.isfinite(measure[i, j])
    ]


def neuron_groups(
    net: Net, p: ParametersLike, tolerance: float = 0.1, by: str = "angle", layer: int = 0
) -> list[list[int]]:
    """Groups of two or more units that are connected by steps of at most ``tolerance``, for ``merge_neurons``.

    Parameters
    ----------
    net : Net
    p : array of shape (n_params,), Params or TrainResult
    tolerance : float
        The longest step: an angle in radians, or a distance.
    by : "angle" or "distance"
    layer : int
        Counted from 0.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(3, "tanh", False), (1, "identity", False)], n_features=1)
    >>> mg.neuron_groups(net, [1.0, 4.0, -1.01, 1.0, 1.0, 1.0], by="distance")
    [[0, 2]]
    """
    measure = getattr(compare_neurons(net, p, layer=layer), _measure(by))
    labels = ask(None, "linked", {"tolerance": _tolerance(tolerance)}, [measure]) - 1
    groups = [np.flatnonzero(labels == label).tolist() for label in range(labels.max() + 1)]
    return [group for group in groups if len(group) > 1]


def merge_neurons(net: Net, p: ParametersLike, groups: Sequence[Sequence[int]], layer: int = 0) -> tuple[Net, Params]:
    """Replace each group of units by one unit: outgoing weights are added, incoming weights averaged.

    The average is weighted by the norms of the outgoing weights; signs of odd and even units and scales of homogeneous
    units are matched first. If the units of a group compute the same up to sign and scale, the net's outputs do not
    change.

    Parameters
    ----------
    net : Net
    p : array of shape (n_params,), Params or TrainResult
    groups : sequence of sequences of ints
        Units, counted from 0, as from ``neuron_groups`` or ``NeuronClusters.groups(run)``. The new unit takes the place
        of the first of its group. A ``merge`` penalty that names one of the others is removed.
    layer : int
        Hidden layer, counted from 0.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(2, "tanh", False), (1, "identity", False)], n_features=1)
    >>> mg.merge_neurons(net, [1.0, -1.0, 3.0, 2.0], [[0, 1]])[1].to_dict()       # 3 tanh(x) + 2 tanh(-x)
    {'w1': array([[1.]]), 'w2': array([[1.]])}
    """
    (free, x), number = without_constraint(net, p), hidden_layer(net, layer)
    width = net.layers[layer][0]
    if any(np.ndim(group) != 1 for group in groups):
        raise InputError(f"groups is {groups!r}; a sequence of groups of units is needed, such as [[0, 1]]")
    ones = [[one_based("a unit of groups", int(unit), width) for unit in group] for group in groups]
    activation, named = net.layers[layer][1], [int(unit) for group in groups for unit in group]
    if twice := sorted({unit for unit in named if named.count(unit) > 1}):
        raise InputError(f"unit {twice[0]} is in two groups, or twice in one")
    if isinstance(activation, tuple):
        for group in groups:
            if len({activation[int(unit)] for unit in group}) > 1:
                raise InputError(f"the units {list(group)} have different activations")
    y = ask(free, "merge", {"layer": number, "groups": ones}, [x])
    removed = {int(unit) for group in groups for unit in list(group)[1:]}
    small = with_units(net, layer, [unit for unit in range(width) if unit not in removed])
    return small, obeying(small, y.astype(net.dtype))


@dataclass(frozen=True)
class NeuronClusters:
    """The units of S runs of a net with ``width`` units in C clusters, the largest clusters first.

    Attributes
    ----------
    labels, sign : arrays (S, width)
        The cluster of each unit, and its sign relative to the first member of the cluster.
    centre : array (C, features + bias)
        The mean of each cluster's incoming weights with bias; if angles were compared, of these weights normalised.
    spread : array (C,)
        The median angle, or distance, between the members and the centre.
    """

    labels: np.ndarray
    sign: np.ndarray
    centre: np.ndarray
    spread: np.ndarray

    def __len__(self) -> int:
        return len(self.centre)

    @property
    def runs(self) -> np.ndarray:
        """The number of runs in which each cluster has a unit, (C,)."""
        return np.array([(self.labels == number).any(axis=1).sum() for number in range(len(self))])

    def common(self, fraction: float = 0.8) -> np.ndarray:
        """The numbers of the clusters that have a unit in at least this fraction of the runs."""
        if not 0 <= real_number(fraction) <= 1:
            raise InputError(f"fraction is {fraction!r}; a number from 0 to 1 is needed")
        return np.flatnonzero(self.runs >= fraction * len(self.labels))

    def groups(self, run: int, clusters: Iterable[int] | None = None) -> list[list[int]]:
        """The units of one run in each of the ``clusters`` (default all), for ``merge_neurons``."""
        if not -len(self.labels) <= run < len(self.labels):
            raise InputError(f"run is {run}; there are {len(self.labels)} runs")
        wanted = range(len(self)) if clusters is None else clusters
        found = [np.flatnonzero(self.labels[run] == number).tolist() for number in wanted]
        return [units for units in found if units]


def cluster_neurons(
    net: Net, points: Sequence[ParametersLike], tolerance: float = 0.2, by: str = "angle", layer: int = 0
) -> NeuronClusters:
    """The units that many runs have in common, modulo order, sign and, by angle, scale.

    All units of all runs are clustered by average linkage, as in Expand-and-Cluster (Martinelli, Şimşek, Gerstner and
    Brea, arXiv 2304.12794): units that many wide students share are those of the teacher, and the others cancel.

    Parameters
    ----------
    net : Net
    points : sequence of TrainResult, Params or arrays of shape (n_params,)
        One for each run.
    tolerance : float
        Clusters whose mean angle (radians) or distance is at most this are joined.
    by : "angle" or "distance"
    layer : int
        Counted from 0.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(2, "tanh", False), (1, "identity", False)], n_features=2)
    >>> runs = [[1.0, 0.0, 0.0, 2.0, 1.0, 1.0], [0.1, -1.0, 1.0, 0.9, 1.0, 1.0]]
    >>> found = mg.cluster_neurons(net, runs)
    >>> found.labels.tolist(), found.common().tolist()
    ([[1, 0], [0, 2]], [0])
    """
    if isinstance(points, TrainResult):
        raise InputError("points is one TrainResult; a sequence of several is needed")
    found = [without_constraint(net, p) for p in points]
    if not found:
        raise InputError("points is empty")
    net, xs = found[0][0], [x for _, x in found]
    options: dict[str, object] = {"layer": one_based("layer", layer, len(net.layers))}
    options.update(tolerance=_tolerance(tolerance), distances=_measure(by) == "distance")

    def read(get: Callable[[str], Any]) -> NeuronClusters:
        return NeuronClusters(get("labels") - 1, get("sign"), get("centre"), get("spread"))

    return ask(net, "cluster", options, [np.array(xs)], read)


@dataclass(frozen=True)
class NeuronsAlong:
    """Units at M points: ``incoming`` and ``outgoing`` norms (M, width), ``cosine`` and ``angle`` (M, width, width).

    ``incoming`` includes the bias; angles are in radians, from 0 to π. ``t`` (M,) holds the times of a trajectory, or
    the numbers of the points.
    """

    t: np.ndarray
    incoming: np.ndarray
    outgoing: np.ndarray
    cosine: np.ndarray
    angle: np.ndarray


def neurons_along(net: Net, points: Trajectory | TrainResult | ArrayLike, layer: int = 0) -> NeuronsAlong:
    """Norms of the units of a hidden layer, and angles between them, along a trajectory.

    Parameters
    ----------
    net : Net
    points : Trajectory, TrainResult with one, or array (M, n_params)
    layer : int
        Hidden layer, counted from 0.
    """
    X, trajectory = points_of(net, points), getattr(points, "trajectory", points)
    if isinstance(net, ConstrainedNet):
        net, X = net.unconstrained, np.array([net.embed(z).flat for z in X])
    t = trajectory.t if isinstance(trajectory, Trajectory) else np.arange(len(X), dtype=float)

    def read(get: Callable[[str], Any]) -> NeuronsAlong:
        return NeuronsAlong(t, *(get(name) for name in ("incoming", "outgoing", "cosine", "angle")))

    return ask(net, "neurons_along", {"layer": hidden_layer(net, layer)}, [X], read)


def _measure(by: Any) -> str:
    if by not in MEASURES:
        raise InputError(f"unknown by {by!r}{nearest(str(by), MEASURES)}")
    return by


def _tolerance(value: Any) -> float:
    number = real_number(value)
    if not number > 0 or not np.isfinite(number):
        raise InputError(f"tolerance is {value!r}; a positive number is needed")
    return number
