"""Results of a minimisation that continues at infinity."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..network.net import Net
from ..network.params import Params

__all__ = ["Channel", "MinimumAtInfinity", "name_of", "towards_infinity"]


@dataclass(frozen=True)
class Channel:
    """Hidden units on their way to infinity.

    Two or three units merge while their outgoing weights diverge, or a single one acts by its exponential tail, or
    becomes a step or a relu as its incoming weights diverge.

    Attributes
    ----------
    layer : int
        Hidden layer, counted from 0.
    units : tuple of int
    kind : "pair", "triple", "tail", "tails", "step", "relu", "kink" or "line"
        "kink" is a relu with samples on its kink, "line" one that is on at all samples: a linear unit.
    cosine : float
        Cosine between the two units' incoming weights with biases, up to the sign for odd units; for three units the
        smallest one.
    distance : float
        Distance between these weights, relative to their length; for a tail its largest slope on the samples; for a
        step or a relu how far the activation is from it at the nearest sample.
    growth : float
        How many times larger the outgoing weights are than their sum; for a tail how many times larger its size is than
        its variation; for a step or a relu the pre-activation nearest to zero.
    eps : float
        How far the units are from the limit: half of their distance; for a tail eps² is the exponential of its bias;
        for a step or a relu 1/eps is the length of its incoming weights.
    incoming, outgoing : arrays (len(units), fan_in + bias) and (len(units), n_next)
        The limit's parameters: w, Δ and for triples the curvature; c, a and for triples the factor of it.
    """

    layer: int
    units: tuple[int, ...]
    kind: str
    cosine: float
    distance: float
    growth: float
    eps: float
    incoming: np.ndarray
    outgoing: np.ndarray

    def __str__(self) -> str:
        return name_of(self.layer, self.units, self.kind, self.eps)


#: what the units of a channel do
DOES = {
    "pair": "merge into a derivative",
    "triple": "merge into second derivatives",
    "tails": "act by their exponential tails and merge",
    "tail": "acts by its exponential tail",
    "step": "becomes a step",
    "relu": "becomes a relu",
    "kink": "becomes a relu with samples on its kink",
    "line": "becomes linear",
}

#: kinds of channels of a single unit that ``Net.limit`` takes as ``sharp``
SHARP = ("step", "relu", "kink", "line")


def name_of(layer: int, units: Sequence[int], kind: str, eps: float) -> str:
    """A channel in words; layer and units count from 0."""
    names = " and ".join(map(str, units)) if len(units) < 3 else "{}, {} and {}".format(*units)
    return f"{'unit' if len(units) == 1 else 'units'} {names} of layer {layer} {DOES[kind]}, eps={eps:.2g}"


def towards_infinity(found: str) -> str:
    """A sentence about the way to infinity that a run has ended on.

    ``found`` is "separable", or channels: an array of ``[layer, units, …, eps]``, counted from 1.
    """
    if found == "separable":
        return (
            " The classes are separable, so that the loss falls to zero as weights grow without end: minimize with "
            "at_infinity=True finds the direction."
        )
    channels = json.loads(found)
    names = "; ".join(name_of(layer - 1, [j - 1 for j in units], kind, eps) for layer, units, kind, *_, eps in channels)
    return f" {names[0].upper()}{names[1:]}: minimize with at_infinity=True lands on the limit, if that is a minimum."


@dataclass(frozen=True, repr=False)
class MinimumAtInfinity:
    """What ``minimize(..., at_infinity=True)`` found.

    Attributes
    ----------
    kind : "minimum", "minimum at infinity" or "open"
        A finite minimum; a minimum of the limit of ``channels``, to which they lead down; or neither, for the
        ``reason``.
    x : array (n_params,)
        The finite minimum, or the point of the ordinary net that was reached before the limit was taken.
    loss, gnorm : float
        Loss and ‖∇L‖_∞ at ``x``; for a minimum at infinity the limit's loss L₀ and ‖∇L₀‖_∞ at ``q``.
    limit : Net or None
        The limit of the net, for a minimum at infinity.
    q : array (n_params,)
        The minimum of ``limit``. For separable classes there is no limit net, and ``q`` is the direction, of unit
        length, in which the parameters grow: that of the largest margin for a net of one layer.
    channels : list of Channel
    coefficients : array (len(channels),)
        h of L = L₀ + Σ h ε² + …; the parameters at the distances ε are ``limit.from_limit(q, eps)``. For a step it is
        h of L₀ + h δ(m/ε), with m the pre-activation nearest to zero at ``q``, without those of samples inside, and
        δ(m) how far f(m) is from its end; for a relu of L₀ + h ε δ(m/ε), with δ(m) = ``|f(−m)|``; for a relu with
        samples on its kink of L₀ + h ε.
    constraint : dict or None
        Where samples are on kinks of relus: that they stay there, to be given as ``constraint=`` with ``limit`` and
        ``q``. The loss of ``limit`` has a kink at ``q`` in the other directions, in which it grows.
    iterations : int
    stopped_by : str
    reason : str
    total_time : float
    """

    kind: str
    x: np.ndarray
    loss: float
    gnorm: float
    limit: Net | None
    q: np.ndarray
    channels: list[Channel]
    coefficients: np.ndarray
    iterations: int
    stopped_by: str
    reason: str
    total_time: float
    constraint: dict[str, Any] | None = None

    @property
    def attracts(self) -> bool:
        """Whether the loss falls towards the limit: h > 0 in every channel, a perfect fit, or separable classes."""
        return self.kind == "minimum at infinity"

    def point(self, eps: ArrayLike) -> Params:
        """Parameters of the ordinary net in the channels, at the distance ``eps``, or at one for each channel."""
        if self.limit is None:
            raise InputError(f"this result has kind {self.kind!r} and no limit: there is no channel")
        return self.limit.from_limit(self.q, eps)

    def next_coefficients(self) -> np.ndarray:
        """K of L = L₀ + Σ h ε² + Σ Kᵢⱼ εᵢ² εⱼ² + …, the lowest loss at the distances ε, for pairs and tails.

        Here ‖Δ‖ = 1 for each pair, the bias of each tail is fixed, and all other parameters minimise the loss.

        Returns
        -------
        array (len(channels), len(channels))
        """
        if self.limit is None:
            raise InputError(f"this result has kind {self.kind!r} and no limit: there is no channel")
        core = self.limit._core
        return core.tool("next_coefficients", {}, [self.q], lambda answer: core.bridge.field(answer, ""))

    def __repr__(self) -> str:
        h = ", h=" + ", ".join(f"{h:.4g}" for h in self.coefficients) if self.channels else ""
        return f"MinimumAtInfinity({self.kind}: loss={self.loss:.10g}, gnorm={self.gnorm:.2g}{h})"

    def __str__(self) -> str:
        lines = [repr(self), *(f"  {channel}" for channel in self.channels)]
        return "\n".join([*lines, f"  {self.reason}"] if self.reason else lines)
