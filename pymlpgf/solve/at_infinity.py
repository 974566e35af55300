"""Minimisation that goes on at infinity."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InputError
from ..network.net import Net
from ..results.at_infinity import Channel, MinimumAtInfinity
from .progress import ProgressLine

__all__ = ["find_channels", "minimum_at_infinity", "towards_infinity"]

#: how near units are, and how large their outgoing weights, where a message speaks of them
NEAR, GROWN = 0.1, 10.0


#: Samples times pairs of units that are looked at after each run: some 12 ms.
MOST_WORK = 4e6


def find_channels(net: Net, found: list[list[Any]], x: np.ndarray) -> list[Channel]:
    """The channels that the core ``found`` at ``x``, counted from 0, with the parameters of their limits."""
    channels = []
    for layer, units, cosine, distance, growth, eps in found:
        group = tuple(unit - 1 for unit in units)
        one = {"tails": group} if len(group) == 1 else {"pairs": [group]}
        limit = net.limit(layer=layer - 1, **one)
        q = limit.to_limit(x)[0]
        W, b, V = q.weights[layer - 1], q.biases[layer - 1], q.weights[layer]
        incoming = W[list(group)] if b is None else np.column_stack([W, b])[list(group)]
        outgoing = V[:, list(group)].T.copy()
        channels.append(Channel(layer - 1, group, cosine, distance, growth, eps, incoming, outgoing))
    return channels


def towards_infinity(net: Net, x: np.ndarray) -> str:
    """A sentence about units that draw together at ``x``, if there are any."""
    bounded = net._core.settings["l2"] or net._core.settings["merge"] or net._core.settings["maxnorm"] != np.inf
    if type(net) is not Net or not net.n_samples or len(net.layers) == 1 or bounded or not np.isfinite(x).all():
        return ""
    if net.n_samples * max(width for width, _, _ in net.layers[:-1]) ** 2 > MOST_WORK:
        return ""
    options: dict[str, object] = {"distance": NEAR, "growth": GROWN}
    read = net._core.bridge.field
    found = json.loads(net._core.tool("channels", options, [x], lambda handle: read(handle, "")))
    if not found:
        return ""
    names = "; ".join(str(channel) for channel in find_channels(net, found, x))
    return f" {names[0].upper()}{names[1:]}: minimize with at_infinity=True lands on the limit, if that is a minimum."


def limit_of(net: Net, groups: list[tuple[int, tuple[int, ...]]]) -> Net:
    """The limit of units of several layers."""
    for layer in sorted({layer for layer, _ in groups}):
        units = [group for where, group in groups if where == layer]
        singles = [group[0] for group in units if len(group) == 1]
        net = net.limit([group for group in units if len(group) > 1], tails=singles, layer=layer)
    return net


def minimum_at_infinity(
    net: Net, x: np.ndarray, options: dict[str, Any], verbosity: int, interval: float
) -> MinimumAtInfinity:
    """What ``minimize`` with ``at_infinity=True`` returns; ``x`` and ``options`` are checked."""
    if type(net) is not Net:
        raise InputError(f"at_infinity needs a Net with data; this is {type(net).__name__}")
    if not net.n_samples:
        raise InputError("at_infinity needs a net with data")
    bridge = net._core.bridge

    def read(handle: int) -> MinimumAtInfinity:
        def get(name: str) -> Any:
            return bridge.field(handle, name)

        chains = [(layer - 1, tuple(unit - 1 for unit in units)) for layer, units in json.loads(get("chains"))]
        end = get("x").copy()
        return MinimumAtInfinity(
            kind=get("kind"), x=end, loss=float(get("loss")), gnorm=float(get("gnorm")),
            limit=limit_of(net, chains) if chains else None, q=get("q").copy(),
            channels=find_channels(net, json.loads(get("channels")), end), coefficients=get("coefficients").copy(),
            iterations=get("iterations"), stopped_by=get("stopped_by"), reason=get("reason"),
            total_time=float(get("time_run")),
        )  # fmt: skip

    def run(question: int) -> MinimumAtInfinity:
        with ProgressLine(verbosity, interval) as line:
            return bridge.solve(question, x.ctypes.data, "minimize", options, None, line.update, read)

    solve: Callable[[int], MinimumAtInfinity] = run
    return bridge.tool(net._core.handle, "at_infinity", {}, [], solve)
