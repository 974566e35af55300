"""Minimisation that goes on at infinity."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ..errors import InputError
from ..network.constraints import ConstrainedNet, carried
from ..network.net import Net
from ..results.at_infinity import SHARP, Channel, MinimumAtInfinity
from .progress import ProgressLine

__all__ = ["find_channels", "minimum_at_infinity"]


def find_channels(net: Net, found: list[list[Any]], x: np.ndarray) -> list[Channel]:
    """The channels that the core ``found`` at ``x``, counted from 0, with the parameters of their limits."""
    channels = []
    for layer, units, kind, cosine, distance, growth, eps in found:
        group = tuple(unit - 1 for unit in units)
        tails, sharp = (group if kind in kinds else () for kinds in (("tail", "tails"), SHARP))
        limit = net.limit(tails=tails, sharp=sharp, layer=layer - 1)
        if len(group) > 1:
            limit = limit.limit([group], layer=layer - 1)
        q = limit.to_limit(x)[0]
        W, b, V = q.weights[layer - 1], q.biases[layer - 1], q.weights[layer]
        incoming = W[list(group)] if b is None else np.column_stack([W, b])[list(group)]
        outgoing = V[:, list(group)].T.copy()
        channels.append(Channel(layer - 1, group, kind, cosine, distance, growth, eps, incoming, outgoing))
    return channels


def limit_of(net: Net, groups: list[tuple[int, tuple[int, ...], str]]) -> Net:
    """The limit of units of several layers: those that merge, and those that do another thing alone or before."""
    if isinstance(net, ConstrainedNet):  # what the constraint ties goes there together
        return carried(net, limit_of(net.unconstrained, groups))
    for layer in sorted({layer for layer, *_ in groups}):
        units = {name: [group for where, group, does in groups if (where, does) == (layer, name)]
                 for name in ("merge", "tails", "tail", "sharp")}  # fmt: skip
        alone = {name: [unit for group in units[name] for unit in group] for name in ("tails", "tail", "sharp")}
        net = net.limit(tails=alone["tail"] + alone["tails"], sharp=alone["sharp"], layer=layer)
        net = net.limit(units["merge"] + units["tails"], layer=layer)
        inside = [group[0] for where, group, does in groups if (where, does) == (layer, "inside")]
        net = net.with_samples_inside(inside, layer)
    return net


def minimum_at_infinity(
    net: Net, x: np.ndarray, options: dict[str, Any], verbosity: int, interval: float
) -> MinimumAtInfinity:
    """What ``minimize`` with ``at_infinity=True`` returns; ``x`` and ``options`` are checked."""
    free = net.unconstrained if isinstance(net, ConstrainedNet) else net
    if type(free) is not Net:
        raise InputError(f"at_infinity needs a Net with data; this is {type(free).__name__}")
    if not net.n_samples:
        raise InputError("at_infinity needs a net with data")

    def read(handle: int) -> MinimumAtInfinity:
        def get(name: str) -> Any:
            return net._core.bridge.field(handle, name)

        chains = [(layer - 1, tuple(j - 1 for j in units), does) for layer, units, does in json.loads(get("chains"))]
        end = get("x")
        return MinimumAtInfinity(
            kind=get("kind"), x=end, loss=float(get("loss")), gnorm=float(get("gnorm")),
            limit=limit_of(net, chains) if chains else None, q=get("q"),
            channels=find_channels(free, json.loads(get("channels")), end), coefficients=get("coefficients"),
            constraint=json.loads(get("constraint") or "null"),
            iterations=get("iterations"), stopped_by=get("stopped_by"), reason=get("reason"),
            total_time=float(get("total_time")),
        )  # fmt: skip

    def run(question: int) -> MinimumAtInfinity:
        with ProgressLine(verbosity, interval) as line:
            return net._core.bridge.solve(question, x.ctypes.data, "minimize", options, None, line.update, read)

    return net._core.tool("at_infinity", {}, [], run)
