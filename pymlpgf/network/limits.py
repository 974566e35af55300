"""The limit of a net whose units merge, go out to their exponential tails, or become steps or relus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..validate.data import is_whole, numeric
from .activations import WITH_KINK, WITH_SHARP, WITH_TAIL, Activation, Derivative, Inside, Sharp, Tail
from .params import ParametersLike, Params

__all__ = ["Limits"]


class Limits:
    """The methods of a ``Net`` that are about limits."""

    _layers: list[tuple[int, Activation, bool]]
    _settings: dict[str, Any]
    _bridge: Any
    _handle: int

    def limit(
        self,
        pairs: Sequence[Sequence[int]] = (),
        *,
        tails: Sequence[int] = (),
        sharp: Sequence[int] = (),
        layer: int = 0,
        eps: float = 0,
    ) -> Any:
        """The net that this one tends to as units merge while their outgoing weights diverge, or go out alone.

        With incoming weights w ± εΔ and outgoing weights (c ± a/ε)/2 a pair of units tends for ε → 0 to
        c σ(w·x + b) + a (Δ·x + δ) σ′(w·x + b). The limit is a net like any other, with as many parameters as this one:
        those of unit i are (w, b) and c, those of unit j (Δ, δ) and a (``Derivative``).

        Parameters
        ----------
        pairs : sequence of (i, j) or (i, j, k)
            Units of one activation without kinks, counted from 0. Three units tend to second derivatives. Two units
            that are tails already can merge, too, without an ``eps``: ask that limit for its limit.
        tails : sequence of int
            Units that tend to the exponential tail (``Tail``) of "tanh", "sigmoid", "softplus" or "g".
        sharp : sequence of int
            Units whose incoming weights go to infinity: steps, or relus whose outgoing weights vanish (``Sharp``).
        layer : int
            Hidden layer, counted from 0; for several layers ask the limit for its limit.
        eps : float
            With ``eps`` > 0 this net in the parameters of its limit, at this distance from it: the same function, in
            coordinates in which loss and derivatives have no cancellation as ``eps`` → 0. For all but triples.

        Returns
        -------
        Net
            On the same data.

        Raises
        ------
        InputError
            For units that are not there or do not fit, or for a net with ``l2``, ``maxnorm`` or ``merge``, which has no
            minimum at infinity.

        Examples
        --------
        >>> import pymlpgf as mg
        >>> net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=[[0.5]], target=[1.0])
        >>> limit = net.limit([(0, 1)])
        >>> limit.layers[0]
        (2, ('tanh', Derivative(of=0, order=1, eps=0.0)), True)
        >>> q, eps = limit.to_limit([1.01, 0.99, 0.0, 0.0, 50.5, -49.5, 0.0])
        >>> q.flat.round(12), eps.round(12)      # w = 1, Δ = 1, c = 1, a = 1
        (array([1., 1., 0., 0., 1., 1., 0.]), array([0.01]))
        """
        if self._settings["l2"] or self._settings["merge"] or self._settings["maxnorm"] != float("inf"):
            raise InputError("a net with l2, maxnorm or merge has no minimum at infinity: net.replace sets them aside")
        hidden = len(self._layers) - 1
        if not is_whole(layer) or not 0 <= layer < hidden:
            raise InputError(f"layer is {layer!r}; hidden layers are counted from 0, and this net has {hidden}")
        width, activation, bias = self._layers[layer]
        units = _units(activation, width)
        taken = {unit.of for unit in units if isinstance(unit, Derivative)}
        groups = [("pairs", tuple(group)) for group in pairs]
        groups += [("tails", (unit,)) for unit in tails] + [("sharp", (unit,)) for unit in sharp]
        for name, group in groups:
            where = f"{name} has {group if name == 'pairs' else group[0]!r}"
            count = (2, 3) if name == "pairs" else (1,)
            if len(group) not in count or any(not 0 <= j < width for j in map(_whole, group)):
                needed = "two or three units" if name == "pairs" else "a unit"
                raise InputError(f"{where}; {needed} from 0 to {width - 1} {'are' if name == 'pairs' else 'is'} needed")
            gone = (Derivative, Inside, Sharp) if len(group) == 2 else (Derivative, Inside, Sharp, Tail)
            if any(j in taken or isinstance(units[j], gone) for j in group) or len(set(group)) < len(group):
                raise InputError(f"{where}; each unit can go to one limit only")
            taken.update(group)
            f = units[group[0]]
            if any(units[j] != f for j in group) or f in WITH_KINK:
                raise InputError(f"{where}; units of one activation without kinks are needed")
            if name == "sharp":
                if f not in WITH_SHARP or not bias:
                    raise InputError(
                        f"{where}; a bias and an activation that becomes a step or a relu are needed: "
                        f"{', '.join(WITH_SHARP)}"
                    )
                units[group[0]] = Sharp(f, float(eps))
            if name == "tails":
                if f not in WITH_TAIL or not bias:
                    raise InputError(
                        f"{where}; a bias and an activation with a tail are needed: {', '.join(WITH_TAIL)}"
                    )
                units[group[0]] = Tail(f, float(eps))
            for order, j in enumerate(group[1:], 1):
                units[j] = Derivative(int(group[0]), order, float(eps))
        layers = list(self._layers)
        layers[layer] = (width, tuple(units), bias)
        return self._like(layers)  # type: ignore[attr-defined]

    def ordinary(self) -> Any:
        """The net of which this is a limit."""
        layers: list[tuple[int, Activation, bool]] = []
        for width, activation, bias in self._layers:
            units = _units(activation, width)
            units = [units[unit.of] if isinstance(unit, Derivative) else unit for unit in units]
            units = [unit.activation if isinstance(unit, (Tail, Sharp, Inside)) else unit for unit in units]
            layers.append((width, units[0] if len(set(units)) == 1 else tuple(units), bias))
        return self._like(layers)  # type: ignore[attr-defined]

    def with_samples_inside(self, units: Sequence[int], layer: int) -> Any:
        """The net in which these units are steps that have samples inside (``Inside``)."""
        width, activation, bias = self._layers[layer]
        inside = tuple(Inside(f) if j in units else f for j, f in enumerate(_units(activation, width)))
        layers = list(self._layers)
        layers[layer] = (width, inside, bias)
        return self._like(layers)  # type: ignore[attr-defined]

    def at_distance(self, eps: float) -> Any:
        """This limit in the same parameters at the distance ``eps``, or with 0 at infinity; see ``limit``.

        Steps with samples inside stay as they are.
        """
        layers: list[tuple[int, Activation, bool]] = []
        for width, activation, bias in self._layers:
            units = _units(activation, width)
            units = [replace(u, eps=float(eps)) if isinstance(u, (Derivative, Tail, Sharp)) else u for u in units]
            layers.append((width, tuple(units) if isinstance(activation, tuple) else units[0], bias))
        return self._like(layers)  # type: ignore[attr-defined]

    def to_limit(self, p: ParametersLike) -> tuple[Params, np.ndarray]:
        """Parameters of this limit that are nearest to ``p`` of the ordinary net, and how far ``p`` is from the limit.

        The inverse of ``from_limit``: of a pair with incoming weights w ± εΔ and outgoing weights (c ± a/ε)/2 they are
        (w, Δ) and (c, a) with ‖Δ‖ = 1. Where the limit has an ``eps`` of its own, that is kept, and ``p`` is the same
        function. Units of odd activations may have the opposite sign.

        Parameters
        ----------
        p : array of shape (n_params,), Params or TrainResult

        Returns
        -------
        (Params, array)
            The second has one ε for each pair, triple, tail and sharp unit: layer by layer, pairs and triples in the
            order of their first units, then the others; tails that merge have one in common.
        """
        self._count()
        x = self._flat(p)  # type: ignore[attr-defined]

        def read(handle: int) -> tuple[np.ndarray, np.ndarray]:
            return self._bridge.field(handle, "q"), self._bridge.field(handle, "eps")

        q, eps = self._bridge.tool(self._handle, "to_limit", {}, [x], read)
        return self.params(q.astype(x.dtype)), np.asarray(eps, float)  # type: ignore[attr-defined]

    def from_limit(self, q: ParametersLike, eps: ArrayLike | None = None) -> Params:
        """Parameters of the ordinary net (see ``ordinary``) at the distance ``eps`` from ``q`` of this limit.

        Parameters
        ----------
        q : array of shape (n_params,), Params or TrainResult
        eps : float, or array with a number for each pair, triple, tail and sharp unit
            Positive; not needed for a limit with an ``eps`` of its own.
        """
        count, own = self._count()
        x = self._flat(q)  # type: ignore[attr-defined]
        given = numeric("eps", own if eps is None else eps).astype(float)
        if given.shape not in ((), (count,)) or not (np.isfinite(given).all() and (given > 0).all()):
            raise InputError(f"eps is {eps!r}; a positive number, or one for each of {count} limits of units")
        distances = np.broadcast_to(given, count).copy()
        flat = self._bridge.tool(
            self._handle, "from_limit", {}, [x, distances], lambda handle: self._bridge.field(handle, "")
        )
        return self.params(flat.astype(x.dtype))  # type: ignore[attr-defined]

    def tauinv(self) -> np.ndarray:
        """Inverse time constants with which the flow of a limit with an ``eps`` is the flow of the ordinary net.

        For pairs at a distance: ``mg.flow(chart, q, tauinv=chart.tauinv())`` is ``mg.flow(net, chart.from_limit(q))``,
        in other parameters.
        """
        self._count()
        read = self._bridge.field
        return self._bridge.tool(self._handle, "original_metric", {}, [], lambda handle: read(handle, "").copy())

    def _count(self) -> tuple[int, np.ndarray]:
        """How many pairs, triples, tails and sharp units there are, and their own eps, in the order of the core."""
        own: list[float] = []
        for width, activation, _ in self._layers:
            units = _units(activation, width)
            first = [unit for unit in units if isinstance(unit, Derivative) and unit.order == 1]
            own += [unit.eps for unit in sorted(first, key=lambda unit: unit.of)]
            merged = {unit.of for unit in first}
            own += [
                getattr(unit, "eps", 0.0)
                for j, unit in enumerate(units)
                if isinstance(unit, (Tail, Sharp, Inside)) and j not in merged
            ]
        if not own:
            raise InputError("this net is no limit: net.limit(pairs) makes one")
        return len(own), np.array(own)


def _units(activation: Activation, width: int) -> list[Any]:
    """The activation of each unit of a layer."""
    return list(activation) if isinstance(activation, tuple) else [activation] * width


def _whole(unit: Any) -> int:
    return int(unit) if is_whole(unit) else -1
