"""Proofs that a critical point exists, is the only one nearby, and has a certain index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..network.constraints import ConstrainedNet, constrained, constraint_of
from ..network.net import Net
from ..network.params import ParametersLike, Params
from ..validate.data import contiguous, numeric
from ..validate.suggest import suggest_keywords
from .certificate import Certificate, prove

__all__ = ["certify"]


@suggest_keywords
def certify(
    net: Net,
    p: ParametersLike,
    *,
    precision: int = 128,
    within: float | None = None,
    maxtime: float = 600,
    freeze: ArrayLike | None = None,
    tie: Any = None,
    constraint: Any = None,
) -> Certificate:
    """Prove that the loss has a critical point near ``p``, that it is the only one in a box, and what its index is.

    The statement is about the loss as a real function of real parameters, with the data, weights and penalties as the
    exact numbers that they are in the net's dtype. Every operation rounds outwards, so that rounding errors are
    included.

    Parameters
    ----------
    net : Net
        Its activations have two derivatives, or kinks (as relu) that no pre-activation meets in the box.
    p : array of shape (n_params,), Params or TrainResult
        A good guess, such as the result of ``minimize``. Newton's method takes it to the critical point nearby.
    precision : int
        Bits of the numbers in which the gradient is evaluated, 64 to 10000.
    within : float, optional
        The uniqueness radius to be proved; by default the largest that a few attempts find.
    maxtime : float
        Seconds.
    freeze, tie, constraint
        As for ``flow``: the loss is that of the points which obey the constraint, with B and c as the exact numbers
        that they are. ``p`` must be one of them.

    Returns
    -------
    Certificate
        ``certified`` says whether there is a proof; if not, ``reason`` says why, and what may help.

    Raises
    ------
    InputError
        If ``p`` does not fit or is not finite, or a number is out of range.

    Notes
    -----
    Krawczyk's operator: with A ≈ ∇²L(x)⁻¹, Y ≥ ‖A ∇L(x)‖ and Z(R) ≥ ‖I − A ∇²L‖ over the box of radius R around x, in
    the largest norm, Y + Z(R) R ≤ R and Z(R) < 1 prove that the box holds exactly one critical point (R. Krawczyk,
    Computing 4, 1969; S. M. Rump, Acta Numerica 19, 2010). The gradient is evaluated in intervals of BigFloat, the
    Hessian over the box in intervals of float64, by the package's own formulas; products of matrices by BLAS with
    bounds of its rounding errors. The page "Proofs" of the documentation says what is taken for granted.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "square", False)], input=[[1.0]], target=[1.0])     # L = (θ²/2 - 1)²
    >>> proof = mg.certify(net, [1.4])
    >>> proof.certified, proof.kind, proof.index, abs(proof.x[0] - 2**0.5) < proof.radius < 1e-15
    (True, 'minimum', 0, True)
    """
    if not isinstance(net, Net):
        raise InputError(f"net is {type(net).__name__}; a pymlpgf.Net is needed")
    free, rule = constraint_of(net, freeze, tie, constraint)
    if rule is not None and not isinstance(net, ConstrainedNet):
        net = constrained(free, rule, p)
    start = _point(net, p) if rule is None else net._core.flat(p).astype(np.float64)
    return prove(net, start, precision, True, within, maxtime)


def _point(net: Net, p: ParametersLike) -> np.ndarray:
    """``p`` in float64, which holds more of a critical point than float32 may."""
    x = getattr(p, "x", p)
    array = numeric("p", x.flat if isinstance(x, Params) else x)
    if array.shape != (net.n_params,):
        raise InputError(f"p has shape {array.shape}; this net has {net.n_params} parameters")
    if not np.isfinite(array).all():
        raise InputError("p contains NaN or infinite entries")
    return contiguous("p", array, np.dtype(np.float64))
