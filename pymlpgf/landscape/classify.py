"""What kind of point is this?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..network.constraints import ConstrainedNet, constraint_of, parameters_of
from ..network.net import Net
from ..network.params import ParametersLike
from ..validate.data import real_number
from ..validate.memory import refuse_square
from ..validate.suggest import suggest_keywords

__all__ = ["Classification", "classify", "Explanation"]


#: label of Julia -> sentence
REASONS = {
    "dead unit": "unit {0} of layer {layer} has slope zero on every sample",
    "silent unit": "unit {0} of layer {layer} has no outgoing weights",
    "duplicate units": "units {0} and {1} of layer {layer} have equal outputs on every sample, up to a factor: "
    "outgoing weights can be traded, and a permutation maps the line of such points to itself",
    "scale of a unit": "incoming and outgoing weights of unit {0} of layer {layer} can trade a factor",
    "offset of a derivative": "the bias of unit {1} of layer {layer} is part of the outgoing weights of unit {0}",
    "place of a step": "unit {0} of layer {layer} is a step, which does not move across a sample",
    "step through samples": "unit {0} of layer {layer} is a step with samples inside, which turns around these alone",
    "turn of units": "units {0} and {1} of layer {layer} can be turned into each other without a change of norms",
    "linear units": "linear units {units} of layer {layer} can be mixed",
    "dependent units": "units {units} of layer {layer} are linearly dependent on the samples",
    "dependent inputs": "inputs {units} are linearly dependent on the samples",
    "softmax shift": "the softmax does not change if all logits change equally",
    "scale and offset of an output": "the correlation does not depend on scale and offset of output {0}",
    "interpolation": "the net fits all targets, with more parameters than equations",
    "diverging pair": "units {0} and {1} of layer {layer} merge into the derivative of one, and their outgoing weights "
    "diverge",
    "diverging triple": "units {0}, {1} and {2} of layer {layer} merge into derivatives of one, and their outgoing "
    "weights diverge",
    "curve of three units": "units {0}, {1} and {2} of layer {layer} are second derivatives, whose curve has many "
    "parametrisations",
    "separable classes": "the classes are separable, and the weights of layer {layer} grow without bound",
    "tail unit": "unit {0} of layer {layer} acts by its exponential tail, its bias and outgoing weights diverge",
    "merging tails": "units {0} and {1} of layer {layer} act by their exponential tails and merge into a derivative of "
    "these",
    "step unit": "unit {0} of layer {layer} becomes a step, its incoming weights diverge",
    "relu unit": "unit {0} of layer {layer} becomes a relu, its incoming weights diverge and its outgoing ones vanish",
}


#: the roads to infinity that end where ``minimize(..., at_infinity=True)`` lands
LANDS = (
    "diverging pair",
    "diverging triple",
    "tail unit",
    "merging tails",
    "step unit",
    "relu unit",
    "separable classes",
)


@dataclass(frozen=True)
class Explanation:
    """A reason for ``count`` null directions: its ``label``, and its ``layer`` and ``units``, counted from 0.

    If a reason is about the inputs, ``layer`` is None and ``units`` are features.
    """

    label: str
    layer: int | None
    units: tuple[int, ...]
    count: int

    def __str__(self) -> str:
        units = ", ".join(map(str, self.units))
        return REASONS[self.label].format(*self.units, layer=self.layer, units=units) + f" ({self.count})"


@dataclass(frozen=True, repr=False)
class Classification:
    """What ``classify`` found.

    Attributes
    ----------
    kind : "minimum", "saddle", "degenerate", "escaping" or "not a fixed point"
    index, nullity : int
        Number of eigenvalues below −``tolerance``, and within ±``tolerance``.
    loss, gnorm : float
    eigenvalues : array (n_params,)
        Eigenvalues of the Hessian, ascending; with a constraint, of the Hessian in its coordinates.
    tolerance : float
        Eigenvalues of at most this size count as zero.
    gradient_tolerance : float
        The gradient's components in null directions may be this large at a fixed point.
    displacement, displacement_tolerance : float
        Length of the Newton step in the other directions, and how long it may be at a fixed point.
    explanations : list of Explanation
        The reasons for the null directions of a fixed point, or the units by which an escaping point goes to infinity.
    unexplained : int
        The number of null directions without a known reason.
    direction : array (n_params,) or None
        The lowest eigenvector of a saddle; the direction in which an escaping point descends.
    """

    kind: str
    index: int
    nullity: int
    loss: float
    gnorm: float
    eigenvalues: np.ndarray
    tolerance: float
    gradient_tolerance: float
    displacement: float
    displacement_tolerance: float
    explanations: list[Explanation]
    unexplained: int
    direction: np.ndarray | None

    def __repr__(self) -> str:
        low, high = self.eigenvalues[0], self.eigenvalues[-1]
        index = f" of index {self.index}" if self.kind == "saddle" else ""
        fixed = self.kind in ("minimum", "saddle", "degenerate")
        null = f", {self.nullity} null directions" if fixed and self.nullity else ""
        size = (
            f"loss={self.loss:.6g}, gnorm={self.gnorm:.2g}, eigenvalues {low:.2g} … {high:.2g} ± {self.tolerance:.1g}"
        )
        return f"Classification({self.kind}{index}{null}; {size})"

    def __str__(self) -> str:
        lines = [repr(self)]
        where = "at infinity" if self.kind == "escaping" else "null"
        lines += [f"  {where}: {reason}" for reason in self.explanations]
        if self.unexplained:
            lines.append(f"  null: no known reason ({self.unexplained}); float64 or polish may tell more")
        if self.kind == "escaping":
            lines.append(
                "  the loss has no minimum there: parameters grow without end; a small l2 or maxnorm bounds them"
            )
            if any(reason.label in LANDS for reason in self.explanations):
                lines.append("  minimize(net, p, at_infinity=True) lands on the minimum of the limit")
        if self.kind == "not a fixed point":
            lines.append(
                f"  the Newton step is {self.displacement:.2g} long (tolerance {self.displacement_tolerance:.2g}), or "
                f"the gradient in null directions exceeds {self.gradient_tolerance:.2g}: minimize or polish first "
                "(at a kink of an activation, as relu has, the gradient of a minimum need not vanish)"
            )
        return "\n".join(lines)


@suggest_keywords
def classify(
    net: Net,
    p: ParametersLike,
    *,
    gradient_tolerance: float | None = None,
    freeze: ArrayLike | None = None,
    tie: Any = None,
    constraint: Any = None,
) -> Classification:
    """What kind of point ``p`` is, from the exact Hessian.

    Parameters
    ----------
    net : Net
    p : array of shape (n_params,), Params or TrainResult
    gradient_tolerance : float, optional
        How large the gradient's components in null directions may be at a fixed point. By default a bound on what
        rounding does to them, which grows with N, the outputs and targets, and the largest eigenvalue.
    freeze, tie, constraint
        As for ``flow``: the kind of point among those that obey the constraint, from the Hessian BᵀHB. ``p`` must obey
        it.

    Returns
    -------
    Classification
        "minimum" (isolated), "saddle" (``index`` eigenvalues are negative), "degenerate"
        (none is negative, some are zero to the ``tolerance``), "escaping" (the loss falls without end from here), or
        "not a fixed point".

    Raises
    ------
    InputError
        If ``p`` does not fit, or the Hessian is not finite there.

    Notes
    -----
    The tolerance of eigenvalues is the smallest, from rounding upwards, for which the Newton step over the eigenvalues
    beyond it changes the Hessian by no more than the tolerance: what holds at ``p`` then holds at the fixed point
    nearby. That step must be shorter than eps^(2/5)·(1 + ‖p‖). Null directions are explained where they come from
    duplicate, dead, silent or linearly dependent units or inputs, the scale of homogeneous units, linear layers, the
    shift of a softmax, or interpolation. If all are explained, and none by a silent unit, a degenerate point is a
    minimum up to these symmetries. A run on its way to infinity can end where rounding hides that the loss still falls:
    such a point is "escaping" if its units show the way (a pair that becomes a derivative, a unit that becomes a step
    or an exponential), else "degenerate"; ``polish`` does not converge from it.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", False), (1, "identity", False)], input=[[1.0]], target=[1.0])
    >>> mg.classify(net, [0.0, 0.0]).kind, mg.classify(net, [0.0, 0.0]).index       # L = (1 - ab)²
    ('saddle', 1)
    >>> print(mg.classify(net, [0.5, 2.0]))
    Classification(degenerate, 1 null directions; loss=0, gnorm=0, eigenvalues 0 … 8.5 ± 2e-14)
      null: incoming and outgoing weights of unit 0 of layer 0 can trade a factor (1)
    """
    x = finite_parameters(net, p)
    net, rule = constraint_of(net, freeze, tie, constraint)
    options: dict[str, object] = {} if rule is None else {"constraint": rule}
    if gradient_tolerance is not None:
        if not real_number(gradient_tolerance) >= 0:
            raise InputError(f"gradient_tolerance is {gradient_tolerance!r}; a non-negative number is needed")
        options["gradient_tolerance"] = float(gradient_tolerance)
    refuse_square(net, "classify", "extreme_eigenvalues tells the lowest curvatures")
    bridge = net._core.bridge

    def read(handle: int) -> Classification:
        def get(name: str) -> Any:
            return bridge.field(handle, f"point.{name}")

        numbers = ("index", "nullity", "unexplained", "tolerance", "gradient_tolerance", "displacement")
        direction = get("direction")
        return Classification(
            kind=get("kind"),
            loss=float(get("loss")),
            gnorm=float(get("gnorm")),
            eigenvalues=get("eigenvalues"),
            displacement_tolerance=get("displacement_tolerance"),
            explanations=[_explanation(*found) for found in json.loads(bridge.field(handle, "explanations"))],
            direction=direction if len(direction) else None,
            **{name: get(name) for name in numbers},
        )

    return net._core.tool("classify", options, [x], read)


def _explanation(label: str, layer: int, units: list[int], count: int) -> Explanation:
    # Layers are counted from 0 here, and the input is none of them.
    return Explanation(label, layer - 1 if layer > 0 else None, tuple(unit - 1 for unit in units), count)


def start(net: Net, p: Any) -> np.ndarray:
    """The finite parameters that ``p`` stands for; for a constrained net the coordinates."""
    return _finite(net, p, lambda: net._core.flat(p))


def without_constraint(net: Net, p: Any) -> tuple[Net, np.ndarray]:
    """The net itself, and the finite parameters θ that ``p`` stands for."""
    x = finite_parameters(net, p)
    return net.unconstrained if isinstance(net, ConstrainedNet) else net, x


def finite_parameters(net: Net, p: Any) -> np.ndarray:
    """The finite parameters θ that ``p`` stands for, for a constrained net too."""
    return _finite(net, p, lambda: parameters_of(net, p))


def _finite(net: Net, p: Any, flat: Callable[[], np.ndarray]) -> np.ndarray:
    if not isinstance(net, Net):
        raise InputError(f"net is {type(net).__name__}; a pymlpgf.Net is needed")
    x = flat()
    if not np.isfinite(x).all():
        raise InputError("p contains NaN or infinite entries")
    return x
