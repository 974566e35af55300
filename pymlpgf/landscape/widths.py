"""Nets with one unit more or less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..network.activations import json_layers
from ..network.constraints import ConstrainedNet, rewired
from ..network.net import Net
from ..network.params import ParametersLike, Params
from ..results.result import TrainResult, params_of
from ..validate.data import real_number
from .ask import ask, finite, hidden_layer, one_based
from .classify import without_constraint

__all__ = ["grow_net", "shrink_net", "split_neuron"]


# ---- other widths ----------------------------------------------------------------------------------------------


def grow_net(net: Net, p: ParametersLike, layer: int = 0, incoming: ArrayLike | None = None) -> tuple[Net, Params]:
    """Add a unit at the end of a hidden layer, with zero outgoing weights, so that the outputs do not change.

    Parameters
    ----------
    net : Net
        The constraint of a ``ConstrainedNet`` holds of the same parameters in the new one; those of the new unit are
        free.
    p : array of shape (n_params,), Params or TrainResult
    layer : int
        Hidden layer, counted from 0.
    incoming : array of shape (fan_in + bias,), optional
        Incoming weights of the new unit, then its bias if the layer has one; default zero.

    Returns
    -------
    (Net, Params)
        The new unit has the activation of the layer's last unit.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "tanh", True), (1, "identity", False)], input=[[1.0]], target=[1.0])
    >>> wide, q = mg.grow_net(net, [1.0, 2.0, 3.0], incoming=[7.0, 8.0])
    >>> q.to_dict()
    {'w1': array([[1.], [7.]]), 'b1': array([2., 8.]), 'w2': array([[3., 0.]])}
    """
    (free, x), number = without_constraint(net, p), hidden_layer(net, layer)
    arrays = [x]
    if incoming is not None:
        fan_in = net.layers[layer - 1][0] if layer else net.n_features
        arrays.append(finite("incoming", incoming, (fan_in + net.layers[layer][2],)))
    y = ask(free, "grow", {"layer": number}, arrays)
    width, activation, bias = net.layers[layer]
    if isinstance(activation, tuple):
        activation = (*activation, activation[-1])
    wide = _replaced(free, layer, (width + 1, activation, bias), net._core.settings["merge"])
    if isinstance(net, ConstrainedNet):
        wide = rewired(net, wide, layer, [*range(width), -1])
    return wide, obeying(wide, y.astype(net.dtype))


def shrink_net(net: Net, p: ParametersLike, i: int, layer: int = 0, into: int | None = None) -> tuple[Net, Params]:
    """Remove unit ``i`` of a hidden layer; undoes ``grow_net``, and with ``into`` also ``split_neuron``.

    Parameters
    ----------
    net : Net
        A constraint holds of the parameters that are left.
    p : array of shape (n_params,), Params or TrainResult
    i : int
        Unit, counted from 0. A ``merge`` penalty that names it is removed.
    layer : int
        Hidden layer, counted from 0.
    into : int, optional
        The unit to whose outgoing weights those of ``i`` are added.
    """
    (free, x), number = without_constraint(net, p), hidden_layer(net, layer)
    width = net.layers[layer][0]
    options: dict[str, object] = {"layer": number, "unit": one_based("i", i, width)}
    if into is not None:
        options["into"] = one_based("into", into, width)
    y = ask(free, "shrink", options, [x])
    narrow = with_units(net, layer, [unit for unit in range(width) if unit != i])
    return narrow, obeying(narrow, y.astype(net.dtype))


def obeying(net: Net, y: np.ndarray) -> Params:
    """``y`` as parameters of a net that may be constrained."""
    try:
        return net.params(net.unconstrained.params(y) if isinstance(net, ConstrainedNet) else y)
    except InputError as error:
        raise InputError(
            f"the constraint does not allow the weights of what is left: {error}. Give the net itself, without its "
            "constraint"
        ) from None


def with_units(net: Net, layer: int, kept: Sequence[int]) -> Net:
    """The net with only these units of a hidden layer, in this order, and their ``merge`` penalties."""
    if isinstance(net, ConstrainedNet):
        return rewired(net, with_units(net.unconstrained, layer, kept), layer, kept)
    _, activation, bias = net.layers[layer]
    if isinstance(activation, tuple):
        activation = tuple(activation[unit] for unit in kept)
    place = {unit: number for number, unit in enumerate(kept)}
    merge = net._core.settings["merge"]
    entries = merge if isinstance(merge, list) else [] if merge is None else [merge]
    moved = [(m, place.get(a), place.get(b), s) if m == layer else (m, a, b, s) for m, a, b, s in entries]
    return _replaced(net, layer, (len(kept), activation, bias), [e for e in moved if None not in e] or None)


def _replaced(net: Net, layer: int, spec: Any, merge: Any) -> Net:
    layers = net.layers
    layers[layer] = spec
    return net._core.like(layers, merge=merge)


def split_neuron(p: Params | TrainResult, i: int, gamma: float, layer: int = 0, *, j: int | None = None) -> Params:
    """Split unit ``i`` in two, with the parts γ and 1 − γ of its outgoing weights, so that the outputs do not change.

    For a fixed point of the narrow net the results for all γ form a line of fixed points of the wide net (Fukumizu and
    Amari, Neural Networks 13, 2000), unless there are regularisers, whose values change.

    Parameters
    ----------
    p : Params or TrainResult
    i : int
        Unit, counted from 0.
    gamma : float
    layer : int
        Hidden layer, counted from 0.
    j : int, optional
        Where to insert the copy: before unit ``j``; by default it becomes the last unit.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> p = mg.Params.from_layers([([[1.0]], [2.0]), ([[4.0]], None)])
    >>> mg.split_neuron(p, 0, 0.25).to_dict()
    {'w1': array([[1.], [1.]]), 'b1': array([2., 2.]), 'w2': array([[1., 3.]])}
    """
    p = params_of("p", p)
    shapes = list(p.layers)
    if len(shapes) == 1:
        raise InputError("these parameters have no hidden layer")
    number = one_based("layer", layer, len(shapes) - 1)
    if not np.isfinite(real_number(gamma)):
        raise InputError(f"gamma is {gamma!r}; a finite number is needed")
    fan_in, width, bias = shapes[layer]
    lines = json_layers([(w, "identity", b) for _, w, b in shapes])
    options: dict[str, object] = {"layers": lines, "n_features": shapes[0][0], "layer": number}
    place = one_based("j", width if j is None else j, width + 1)
    options.update(unit=one_based("i", i, width), gamma=float(gamma), place=place)
    y = ask(None, "split", options, [p.flat])
    shapes[layer] = (fan_in, width + 1, bias)
    shapes[layer + 1] = (width + 1, *shapes[layer + 1][1:])
    return Params(y.astype(p.dtype), shapes)
