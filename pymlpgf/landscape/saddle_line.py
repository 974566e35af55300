"""The line of fixed points on which a unit is split in two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..network.constraints import ConstrainedNet, split
from ..network.net import Net
from ..network.params import ParametersLike, Params
from ..results.result import TrainResult
from ..solve.train import train
from ..validate.data import real_number
from ..validate.memory import refuse_square
from ..validate.suggest import suggest_keywords
from .ask import ask, finite, hidden_layer, one_based
from .classify import Classification, classify, start
from .widths import _replaced, split_neuron

__all__ = ["Departure", "saddle_line", "SaddleLine"]


@dataclass(frozen=True, repr=False)
class Departure:
    """Where a run ended that began beside a saddle line (``SaddleLine.leave``).

    Attributes
    ----------
    gamma, side : float, int
        Where it began.
    where : "channel", "back" or "away"
        "channel": the two units approach each other while their outgoing weights grow with opposite signs. "back": the
        run returned to the line; the units' incoming weights agree to the square root of the rounding error. "away":
        anywhere else.
    gap : float
        Distance between the two units' incoming weights, relative to 1 + their norm.
    rest : float
        Norm of the sum of their outgoing weights, relative to the sum of their norms: small in a channel.
    result : TrainResult
    classification : Classification
        What kind of point the run ended at.
    """

    gamma: float
    side: int
    where: str
    gap: float
    rest: float
    result: TrainResult
    classification: Classification

    def __repr__(self) -> str:
        left = f"gamma={self.gamma:.4g}, side={self.side:+d}"
        return f"Departure({left}: {self.where}, {self.classification.kind}, loss={self.result.loss:.6g})"


@dataclass(frozen=True, repr=False)
class SaddleLine:
    """The splits of a unit of a fixed point, for all parts γ of its outgoing weights (see ``saddle_line``).

    Attributes
    ----------
    net : Net
        The net with one unit more: the line lies in its parameter space.
    params : Params
        The fixed point of the narrow net that is split.
    layer, unit, copy : int
        Units ``unit`` and ``copy`` (the layer's last) of ``layer`` share their incoming weights.
    curvature : array (d, d)
        Fukumizu and Amari's matrix M of the unit with its d incoming weights (and bias): the mean over samples of
        ∂L/∂a f″(h) x xᵀ, a the unit's output and h its input.
    coupling : array (units of the next layer, d)
        D, the mean of ∂L/∂h′ f′(h) x, h′ the next layer's inputs. Zero where that is a single unit.
    rank : int
        Rank of ``coupling``.
    curvatures : array (d - rank,)
        Eigenvalues of M on the kernel of D; ``null`` of them are zero within ``tolerance``. With a constraint only the
        incoming weights that are coordinates of their own count, in ``rank``, too.
    tolerance : float
    null : int
        If positive, the Hessian does not decide about stability in that many directions.
    narrow_index, index_inside, index_outside : int
        Index of the fixed point that is split, and the index that the criterion predicts on the line for 0 < γ < 1 and
        for γ < 0 or γ > 1.
    ends : array
        The γ at which eigenvalues of the Hessian change sign, found from the eigenvalues themselves.
    crossing : array of int
        How many eigenvalues change sign at each of ``ends``.
    gamma : array (G,)
    x : array (G, n_params)
        Points of the line.
    loss : float
        The loss, which is the same at all points of the line.
    eigenvalues : array (G, n_params)
        Eigenvalues of the Hessian of ``net``, in its coordinates if it is constrained: each column is one eigenvalue,
        continued along the line.
    eigenvectors : array (G, n_params, n_params)
        ``eigenvectors[g, k]`` belongs to ``eigenvalues[g, k]``.
    """

    net: Net
    narrow: Net
    params: Params
    layer: int
    unit: int
    copy: int
    curvature: np.ndarray
    coupling: np.ndarray
    rank: int
    curvatures: np.ndarray
    tolerance: float
    null: int
    narrow_index: int
    index_inside: int
    index_outside: int
    ends: np.ndarray
    crossing: np.ndarray
    gamma: np.ndarray
    x: np.ndarray
    loss: float
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    _index_at_ends: int
    _open: list[int]

    def __repr__(self) -> str:
        ends = ", ".join(f"{end:.9g}" for end in self.ends.round(9) + 0.0)
        index = f"index {self.index_inside} for 0 < γ < 1, {self.index_outside} outside"
        changes = f", eigenvalues change sign at γ = {ends}" if len(self.ends) else ""
        return f"SaddleLine(unit {self.unit} of layer {self.layer}, loss={self.loss:.6g}: {index}{changes})"

    def index(self, gamma: float) -> int:
        """The index that the criterion predicts at ``gamma``."""
        gamma = _finite_number("gamma", gamma)
        return self._index_at_ends if gamma in (0, 1) else self.index_inside if 0 < gamma < 1 else self.index_outside

    def point(self, gamma: float) -> Params:
        """The split with the parts ``gamma`` and 1 − ``gamma`` of the outgoing weights."""
        return split_neuron(self.params, self.unit, gamma, self.layer)

    def perturb(self, gamma: float, side: int = 1, size: float = 1e-3) -> Params:
        """The split, displaced by the length ``size`` across the line, in the direction of lowest curvature.

        Both units turn, in opposite directions. ``side`` 1 or −1 chooses between the two signs; exchanging the units
        maps side 1 at γ to side −1 at 1 − γ.
        """
        gamma, size = _finite_number("gamma", gamma), _finite_number("size", size)
        if side not in (1, -1):
            raise InputError(f"side is {side!r}; 1 or -1 is needed")
        options: dict[str, object] = {"layer": self.layer + 1, "unit": self.unit + 1, "rank": self.rank}
        options.update(gamma=gamma, side=int(side), size=size, open=self._open)
        x = ask(self.narrow, "off_line", options, [self.params.flat, self.curvature, self.coupling])
        return self.net.params(x.astype(self.net.dtype))

    def leave(self, gamma: float, side: int = 1, size: float = 1e-3, **options: Any) -> Departure:
        """``train`` from the point of ``perturb``; ``options`` are those of ``train``."""
        result = train(self.net, self.perturb(gamma, side, size), **options)
        state: dict[str, object] = {"layer": self.layer + 1, "unit": self.unit + 1, "other": self.copy + 1}
        gap, rest, channel = ask(
            self.net, "pair_state", state, [result.x], lambda get: (get("gap"), get("rest"), bool(get("channel")))
        )
        merged = gap <= np.sqrt(np.finfo(self.net.dtype).eps)
        where = "channel" if channel else "back" if merged else "away"
        return Departure(float(gamma), int(side), where, gap, rest, result, classify(self.net, result))

    def to_frame(self) -> Any:
        """A pandas DataFrame: γ, the index from the criterion, and the continued eigenvalues, a row for each γ."""
        import pandas as pd

        columns: dict[str, Any] = {"gamma": self.gamma, "index": [self.index(g) for g in self.gamma]}
        columns |= {f"eigenvalue_{k}": self.eigenvalues[:, k] for k in range(self.eigenvalues.shape[1])}
        return pd.DataFrame(columns)


def _finite_number(name: str, value: Any) -> float:
    number = real_number(value)
    if not np.isfinite(number):
        raise InputError(f"{name} is {value!r}; a finite number is needed")
    return number


@suggest_keywords
def saddle_line(net: Net, p: ParametersLike, i: int, *, layer: int = 0, gamma: ArrayLike | None = None) -> SaddleLine:
    """The line of fixed points on which unit ``i`` is split in two, and where it is stable.

    If ``p`` is a fixed point, then so is every split of a unit in two with the same incoming weights and the parts γ
    and 1 − γ of its outgoing ones, a point of the net with one unit more (``split_neuron``). The Hessian there has the
    inertia of that of ``p`` together with [γ(1 − γ)M, Dᵀ; D, 0], with the curvature matrix M and the coupling D of the
    unit. For one output, or one unit in the next layer, D vanishes: where ``p`` is a minimum and M is positive
    definite, the line consists of minima for 0 < γ < 1 and of saddles outside; where M is negative definite it is the
    other way round; where M is indefinite all its points are saddles. If D has a rank r > 0 (more units in the next
    layer), there are r more negative eigenvalues for every γ, and only M on the kernel of D matters.

    Parameters
    ----------
    net : Net
        A net with data and without regularisers, under which a split is not a fixed point. The constraint of a
        ``ConstrainedNet`` holds in the wide net of both units' incoming weights, and of the sum of their outgoing ones.
    p : array of shape (n_params,), Params or TrainResult
        A minimum or a saddle.
    i : int
        Unit, counted from 0.
    layer : int
        Hidden layer, counted from 0.
    gamma : array (G,), optional
        Where to compute the spectrum, ascending; by default 101 values from −1 to 2.

    Returns
    -------
    SaddleLine
        Its method ``leave`` displaces a point to either side of the line and trains from there.

    Raises
    ------
    InputError
        If ``p`` is not a fixed point, the unit has no outgoing weights, or the net has a regulariser.

    Notes
    -----
    K. Fukumizu and S. Amari, *Local minima and plateaus in hierarchical structures of multilayer perceptrons*, Neural
    Networks 13 (2000) 317–327, theorem 3, for one output. Eigenpairs are those of the exact Hessian, continued by the
    overlap of eigenvectors, with steps in γ that are halved where these turn fast.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "square", False), (1, "identity", False)], input=[[1.0]], target=[1.0])
    >>> mg.saddle_line(net.replace(weights=[0.5]), [1.0, 2.0], 0)        # zero loss: M vanishes
    SaddleLine(unit 0 of layer 0, loss=0: index 0 for 0 < γ < 1, 0 outside)
    """
    free = net.unconstrained if isinstance(net, ConstrainedNet) else net
    if type(free) is not Net:
        raise InputError(f"net is {type(free).__name__}; a pymlpgf.Net with data is needed")
    x, number = start(net, p), hidden_layer(net, layer)
    width, activation, bias = net.layers[layer]
    unit = one_based("i", i, width)
    grid = np.linspace(-1, 2, 101) if gamma is None else finite("gamma", gamma)
    if isinstance(activation, tuple):
        activation = (*activation, activation[i])
    wide = _replaced(free, layer, (width + 1, activation, bias), net._core.settings["merge"])
    if isinstance(net, ConstrainedNet):
        wide = split(net, wide, int(layer), int(i))
    refuse_square(wide, "saddle_line", "classify tells the index of single points")

    def read(get: Callable[[str], Any]) -> SaddleLine:
        return SaddleLine(
            net=wide,
            narrow=net,
            params=net.params(x.copy()),
            layer=int(layer),
            unit=int(i),
            copy=width,
            curvature=get("curvature"),
            coupling=get("coupling").T,
            curvatures=get("curvatures"),
            index_inside=get("index_inside"),
            index_outside=get("index_outside"),
            _index_at_ends=get("index_at_ends"),
            _open=get("open").tolist(),
            gamma=get("gamma"),
            loss=net.loss(x),
            eigenvalues=get("eigenvalues"),
            eigenvectors=get("eigenvectors"),
            **{name: get(name) for name in ("rank", "tolerance", "null", "narrow_index", "ends", "crossing", "x")},
        )

    return ask(net, "saddle_line", {"layer": number, "unit": unit}, [x, grid], read)
