"""Units on their way to a minimum at infinity."""

from __future__ import annotations

import json

from ..errors import InputError
from ..network.net import Net
from ..network.params import ParametersLike
from ..results.at_infinity import Channel
from ..solve.at_infinity import find_channels
from ..validate.data import real_number
from .ask import ask
from .classify import start, without_constraint

__all__ = ["channels"]


def channels(net: Net, p: ParametersLike, *, distance: float = 0.3, growth: float = 3.0) -> list[Channel]:
    """Hidden units on their way to infinity at ``p``: pairs and triples that merge, exponential tails, steps and relus.

    Two units merge while their outgoing weights diverge with opposite signs: a *channel* (Martinelli, van Meegen,
    Şimşek, Gerstner and Brea, arXiv 2506.14951). Each unit is in one channel at most; the channels of the nearest units
    come first. A channel need not lead to infinity; ``minimize(..., at_infinity=True)`` finds out whether it does. Of
    a ``ConstrainedNet`` these are the channels that its constraint leaves open (``ConstrainedNet.limit``).

    Parameters
    ----------
    net : Net
    p : array of shape (n_params,), Params or TrainResult
    distance : float
        How near units must be, relative to the length of their incoming weights; for others see ``Channel``.
    growth : float
        How many times larger their outgoing weights must be than what remains of them.

    Returns
    -------
    list of Channel

    Raises
    ------
    InputError
        For a net without data, or if ``distance`` or ``growth`` is not a positive number.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(2, "tanh", False), (1, "identity", True)], input=[[0.5]], target=[1.0])
    >>> [found] = mg.channels(net, [1.01, 0.99, 50.5, -49.5, 0.0])
    >>> print(found)
    units 0 and 1 of layer 0 merge into a derivative, eps=0.01
    >>> found.incoming.round(12).tolist(), found.outgoing.round(12).tolist()     # w and Δ, c and a
    ([[1.0], [1.0]], [[1.0], [1.0]])
    """
    for name, value in (("distance", distance), ("growth", growth)):
        if not real_number(value) > 0:
            raise InputError(f"{name} is {value!r}; a positive number is needed")
    x, (free, point) = start(net, p), without_constraint(net, p)
    if type(free) is not Net or not net.n_samples:
        raise InputError(f"channels needs a Net with data; this is {net!r}")
    options: dict[str, object] = {"distance": float(distance), "growth": float(growth)}
    found = ask(net, "channels", options, [x], lambda get: json.loads(get("")))
    return find_channels(free, found, point)
