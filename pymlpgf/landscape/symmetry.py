"""Tools for loss landscapes: other widths, symmetries, saddles. The mathematics is in julia/src/landscape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import runtime
from ..errors import InputError
from ..network.activations import json_layers
from ..network.net import Net, TeacherNet
from ..network.params import Params
from ..results.result import Trajectory
from ..validate.data import numeric, real_number
from ..validate.memory import refuse_square
from .classify import start

__all__ = [
    "DistinctMinima",
    "NeuronMatching",
    "SaddlePassage",
    "align",
    "cosine_similarity",
    "distinct_minima",
    "escape_saddle",
    "grow_net",
    "match_neurons",
    "saddle_passages",
    "shrink_net",
    "spectrum_along",
    "split_neuron",
]


def _tool(
    net: Net | None,
    what: str,
    options: dict[str, object],
    arrays: list[np.ndarray],
    read: Callable[[Callable[[str], Any]], Any] = lambda get: get(""),
) -> Any:
    bridge = runtime.start() if net is None else net._bridge
    handle = 0 if net is None else net._handle
    return bridge.tool(handle, what, options, arrays, lambda answer: read(lambda name: bridge.field(answer, name)))


def _one_based(name: str, value: Any, count: int) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not 0 <= value < count:
        raise InputError(f"{name} is {value!r}; a whole number from 0 to {count - 1} is needed")
    return int(value) + 1


def _hidden(net: Net, layer: Any) -> int:
    if len(net.layers) == 1:
        raise InputError("this net has no hidden layer")
    return _one_based("layer", layer, len(net.layers) - 1)


# ---- other widths ----------------------------------------------------------------------------------------------


def grow_net(net: Net, p: Any, layer: int = 0, incoming: Any = None) -> tuple[Net, Params]:
    """One unit more at the end of a hidden layer, with outgoing weights zero: the outputs stay what they are.

    Parameters
    ----------
    net : Net
    p : array of shape (n_params,), Params or TrainResult
    layer : int
        Hidden layer, counted from 0.
    incoming : array of shape (fan_in + bias,), optional
        Incoming weights of the new unit, then its bias if the layer has one; default zero.

    Returns
    -------
    (Net, Params)
        The new unit has the activation of the layer's last.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "tanh", True), (1, "identity", False)], input=[[1.0]], target=[1.0])
    >>> wide, q = mg.grow_net(net, [1.0, 2.0, 3.0], incoming=[7.0, 8.0])
    >>> q.to_dict()
    {'w1': array([[1.], [7.]]), 'b1': array([2., 8.]), 'w2': array([[3., 0.]])}
    """
    x, number = start(net, p), _hidden(net, layer)
    arrays = [x]
    if incoming is not None:
        arrays.append(_finite("incoming", incoming, (net._shapes[layer][0] + net._shapes[layer][2],)))
    y = _tool(net, "grow", {"layer": number}, arrays)
    width, activation, bias = net.layers[layer]
    if isinstance(activation, tuple):
        activation = (*activation, activation[-1])
    wide = _replaced(net, layer, (width + 1, activation, bias), net._settings["merge"])
    return wide, wide.params(y.astype(net.dtype))


def shrink_net(net: Net, p: Any, i: int, layer: int = 0, into: int | None = None) -> tuple[Net, Params]:
    """Without unit ``i`` of a hidden layer; undoes ``grow_net``, and with ``into`` also ``split_neuron``.

    Parameters
    ----------
    net : Net
    p : array of shape (n_params,), Params or TrainResult
    i : int
        Unit, counted from 0. A ``merge`` penalty that names it goes with it.
    layer : int
        Hidden layer, counted from 0.
    into : int, optional
        The unit to whose outgoing weights those of ``i`` are added.
    """
    x, number = start(net, p), _hidden(net, layer)
    width, activation, bias = net.layers[layer]
    options: dict[str, object] = {"layer": number, "unit": _one_based("i", i, width)}
    if into is not None:
        options["into"] = _one_based("into", into, width)
    y = _tool(net, "shrink", options, [x])
    if isinstance(activation, tuple):
        activation = activation[:i] + activation[i + 1 :]
    merge = net._settings["merge"]
    if merge is not None:
        entries = merge if isinstance(merge, list) else [merge]
        kept = [entry for entry in entries if entry[0] != layer or i not in entry[1:3]]
        merge = [(m, a - (m == layer and a > i), b - (m == layer and b > i), s) for m, a, b, s in kept] or None
    narrow = _replaced(net, layer, (width - 1, activation, bias), merge)
    return narrow, narrow.params(y.astype(net.dtype))


def _replaced(net: Net, layer: int, spec: Any, merge: Any) -> Net:
    layers = net.layers
    layers[layer] = spec
    return net._like(layers, merge)


def split_neuron(p: Params, i: int, gamma: float, layer: int = 0) -> Params:
    """Unit ``i`` twice, with the parts γ and 1 − γ of its outgoing weights: the outputs stay what they are.

    The copy is the last unit of its layer. For a fixed point of the narrow net the results for all γ are a line of
    fixed points of the wide one (Fukumizu and Amari, Neural Networks 13, 2000). Regularisers see other parameters.

    Parameters
    ----------
    p : Params
    i : int
        Unit, counted from 0.
    gamma : float
    layer : int
        Hidden layer, counted from 0.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> p = mg.Params.from_layers([([[1.0]], [2.0]), ([[4.0]], None)])
    >>> mg.split_neuron(p, 0, 0.25).to_dict()
    {'w1': array([[1.], [1.]]), 'b1': array([2., 2.]), 'w2': array([[1., 3.]])}
    """
    if not isinstance(p, Params):
        raise InputError(f"p is {type(p).__name__}; Params are needed, such as net.params(x)")
    shapes = list(p.layers)
    if len(shapes) == 1:
        raise InputError("these parameters have no hidden layer")
    number = _one_based("layer", layer, len(shapes) - 1)
    if not np.isfinite(real_number(gamma)):
        raise InputError(f"gamma is {gamma!r}; a finite number is needed")
    fan_in, width, bias = shapes[layer]
    lines = json_layers([(w, "identity", b) for _, w, b in shapes])
    options: dict[str, object] = {"layers": lines, "n_features": shapes[0][0], "layer": number}
    options.update(unit=_one_based("i", i, width), gamma=float(gamma))
    y = _tool(None, "split", options, [p.flat])
    shapes[layer] = (fan_in, width + 1, bias)
    shapes[layer + 1] = (width + 1, *shapes[layer + 1][1:])
    return Params(y.astype(p.dtype), shapes)


# ---- symmetries ------------------------------------------------------------------------------------------------


def cosine_similarity(A: Any, B: Any) -> np.ndarray:
    """Cosines (m, n) between the rows of ``A`` (m, D) and of ``B`` (n, D); 0 where a row is zero.

    >>> import pymlpgf as mg
    >>> mg.cosine_similarity([[1.0, 0.0], [3.0, 4.0]], [[0.0, 2.0]])
    array([[0. ], [0.8]])
    """
    A, B = _finite("A", A), _finite("B", B)
    if A.ndim != 2 or B.ndim != 2 or A.shape[1] != B.shape[1]:
        raise InputError(f"A and B have shapes {A.shape} and {B.shape}; (m, D) and (n, D) are needed")
    return _tool(None, "cosines", {"columns": A.shape[1]}, [A, B]).T


@dataclass(frozen=True)
class NeuronMatching:
    """For each unit of the teacher: ``unit`` of the student (−1 for none), ``sign`` and ``similarity``.

    ``cosines`` (student units, teacher units) are all similarities, without signs.
    """

    unit: np.ndarray
    sign: np.ndarray
    similarity: np.ndarray
    cosines: np.ndarray


def match_neurons(net: Net, p: Any, teacher: Net | TeacherNet, q: Any = None, layer: int = 0) -> NeuronMatching:
    """A different unit of the student for each of the teacher, with the largest sum of cosine similarities.

    Compared are incoming weights with the bias, modulo sign where the student's activation is odd or even.

    Parameters
    ----------
    net : Net
        The student, with parameters ``p``.
    teacher : TeacherNet, or Net with parameters ``q``
    layer : int
        Counted from 0.
    """
    if isinstance(teacher, TeacherNet):
        teacher, q = teacher.net, teacher.params
    x, y = start(net, p), start(teacher, q)
    number = _one_based("layer", layer, min(len(net.layers), len(teacher.layers)))
    lines = json_layers(teacher.layers)
    options: dict[str, object] = {"layer": number, "teacher": lines, "teacher_features": teacher.n_features}

    def read(get: Callable[[str], Any]) -> NeuronMatching:
        return NeuronMatching(get("unit") - 1, get("sign"), get("similarity"), get("cosines").T)

    return _tool(net, "match", options, [x, y], read)


def align(net: Net, p: Any, reference: Any) -> Params:
    """``p`` with hidden units permuted, flipped and scaled, without a change of outputs, to be near ``reference``.

    Signs of odd and even units are flipped, homogeneous ones scaled to equal norms of incoming and outgoing weights.
    The nearest such point for one hidden layer, a good one for more.
    """
    y = _tool(net, "align", {}, [start(net, p), start(net, reference)])
    return net.params(y.astype(net.dtype))


@dataclass(frozen=True)
class DistinctMinima:
    """Groups of equal minima: ``labels`` (M,) of the points, ``representatives`` (K,) their best members' indices.

    Groups are numbered from 0 by their lowest loss; ``counts`` (K,) says how many members each has.
    """

    labels: np.ndarray
    representatives: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Members of each group."""
        return np.bincount(self.labels, minlength=len(self.representatives))

    def __len__(self) -> int:
        return len(self.representatives)


def distinct_minima(net: Net, points: Any, tolerance: float = 1e-4) -> DistinctMinima:
    """Which ``points`` are the same modulo permutation, sign and scale of hidden units (see ``align``).

    Parameters
    ----------
    net : Net
    points : sequence of TrainResult, Params or arrays of shape (n_params,)
    tolerance : float
        Distance of equal points, relative to 1 + their norm. Points in a degenerate valley stay apart.
    """
    xs = [start(net, p) for p in points]
    if not xs:
        raise InputError("points is empty")
    if not real_number(tolerance) > 0:
        raise InputError(f"tolerance is {tolerance!r}; a positive number is needed")
    losses = np.array([net.loss(x) for x in xs])

    def read(get: Callable[[str], Any]) -> DistinctMinima:
        return DistinctMinima(get("labels") - 1, get("representatives") - 1)

    return _tool(net, "distinct", {"tolerance": float(tolerance)}, [np.array(xs), losses], read)


# ---- saddles and trajectories --------------------------------------------------------------------------------


def spectrum_along(net: Net, points: Any, k: int | None = None) -> np.ndarray:
    """Eigenvalues of the Hessian, ascending, at every point: (M, n_params), or (M, 2k), the k lowest and k highest.

    ``points`` is a Trajectory, a TrainResult with one, or an array (M, n_params).
    """
    trajectory = getattr(points, "trajectory", points)
    X = _finite("points", getattr(trajectory, "x", trajectory))
    if X.ndim != 2 or X.shape[1] != net.n_params:
        raise InputError(f"points has shape {X.shape}; (M, {net.n_params}) is needed")
    refuse_square(net, "spectrum_along", "extreme_eigenvalues tells the ends of the spectrum")
    return _tool(net, "spectrum", {} if k is None else {"k": _one_based("k", k, net.n_params + 1) - 1}, [X])


def escape_saddle(net: Net, p: Any, sign: int = 1) -> Params:
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
    y = _tool(net, "escape", {"sign": float(sign)}, [x])
    return net.params(y.astype(net.dtype))


@dataclass(frozen=True)
class SaddlePassage:
    """A saddle that a flow passed: ``t`` where the gradient was smallest, from ``t_start`` to ``t_end`` the plateau.

    ``index`` eigenvalues had time to tell, the ``lowest`` was negative; ``x`` (n_params,) is the point.
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
    net: Net, trajectory: Any, *, contrast: float = 3.0, plateau: float = 0.05
) -> Sequence[SaddlePassage]:
    """The saddles that a flow passed, in order of time.

    Near a saddle ‖∇L‖ has a minimum. A plateau's index counts the eigenvalues λ with λ·(t_end − t_start) < −1; where
    there is none it was no saddle.

    Parameters
    ----------
    net : Net
    trajectory : Trajectory or TrainResult
        ``save_everystep=True`` misses no passage.
    contrast : float
        By how much ‖∇L‖ rises afterwards.
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
    arrays = [trajectory.t, trajectory.x, trajectory.loss, trajectory.gnorm]
    return _tool(net, "passages", {"contrast": float(contrast), "plateau": float(plateau)}, arrays, read)


def _finite(name: str, value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    array = numeric(name, value).astype(np.float64)
    if shape is not None and array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}; {shape} is needed")
    if not np.isfinite(array).all():
        raise InputError(f"{name} contains NaN or infinite entries")
    return array
