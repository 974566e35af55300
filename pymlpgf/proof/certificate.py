"""What a proof says, with all that is needed to repeat it."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..files import npz_path, write_atomically
from ..network.activations import Activation, activation_from_json, activation_to_json
from ..network.constraints import ConstrainedNet, constrained
from ..network.net import Net
from ..results.load import read_parts
from ..results.problem import attach_data, describe, rebuild, without_data
from ..validate.data import is_whole, real_number
from ..validate.memory import refuse_matrices

__all__ = ["Certificate", "Gauge", "prove"]

SCHEMA = 1


@dataclass(frozen=True)
class Gauge:
    """A symmetry of the loss that a proof holds fixed: ``label``, ``layer`` and ``units``, counted from 0."""

    label: str
    layer: int
    units: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Certificate:
    """What ``certify`` proved, or why it could not.

    Attributes
    ----------
    certified : bool
    reason : str
        Why there is no proof, and what may help; empty if there is one.
    x : array (n_params,)
        The parameters, polished, in float64.
    radius, uniqueness_radius : float
        A critical point lies within ``radius`` of ``x`` in every parameter, and it is the only one within
        ``uniqueness_radius`` that agrees with ``x`` in the parameters ``fixed``.
    index : int or None
        How many eigenvalues of the Hessian are negative at the critical point; its rows and columns ``fixed`` are left
        out.
    kind : "minimum", "saddle", "maximum" or "unknown"
    loss_interval : (float, float)
        Lower and upper bound of the loss at the critical point.
    eigenvalue_bounds : array (n_params - len(fixed), 2)
        Lower and upper bounds of the Hessian's eigenvalues at the critical point, ascending, without its rows and
        columns ``fixed``.
    fixed : array of int
        Parameters that are held at their values, since ``gauges`` move them without a change of the loss.
    gauges : list of Gauge
    contraction : float
        The bound of ‖I − A ∇²L‖ over the box of radius ``radius``.
    precision : int
        Bits of the numbers in which the gradient was evaluated.
    total_time : float
        Seconds.
    layers, problem
        The net's layers, and its settings and data.
    coordinates : array (n,) or None
        With a constraint those of ``x``; ``uniqueness_radius``, ``eigenvalue_bounds``, ``fixed`` and ``contraction``
        are about these.
    constraint : dict or None
    """

    certified: bool
    reason: str
    x: np.ndarray
    radius: float
    uniqueness_radius: float
    index: int | None
    kind: str
    loss_interval: tuple[float, float]
    eigenvalue_bounds: np.ndarray
    fixed: np.ndarray
    gauges: list[Gauge]
    contraction: float
    precision: int
    total_time: float
    layers: list[tuple[int, Activation, bool]]
    problem: dict[str, Any] = field(default_factory=dict, compare=False)
    coordinates: np.ndarray | None = None
    constraint: dict[str, Any] | None = None

    def __repr__(self) -> str:
        if not self.certified:
            return f"Certificate(not certified: {self.reason})"
        kind = f"saddle of index {self.index}" if self.kind == "saddle" else self.kind
        low, high = self.loss_interval
        return (
            f"Certificate({kind}, within {self.radius:.2g}, the only one within {self.uniqueness_radius:.2g}; "
            f"loss in [{low!r}, {high!r}])"
        )

    def net(
        self,
        input: ArrayLike | None = None,
        target: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        *,
        allow_code: bool = False,
    ) -> Net:
        """The net of this certificate, without its constraint; arguments and errors as of ``TrainResult.net``."""
        given = {"input": input, "target": target, "weights": weights}
        return rebuild(self.layers, self.problem, allow_code, given)

    def verify(self, net: Net | None = None, *, allow_code: bool = False) -> bool:
        """Whether everything that this certificate says can be proved again from its own numbers.

        Parameters
        ----------
        net : Net, optional
            The net with its data, for a certificate that was saved without data. The statements are then proved for
            this net.
        allow_code : bool
            Compile an activation that is Julia code. Set it for files that you trust.

        Notes
        -----
        The critical point is not searched again: the gradient at ``x`` and the Hessian over the two boxes are bounded
        anew. A certificate fails if any of its numbers was changed so that it claims more.
        """
        if not self.certified:
            return False
        if net is None:
            net = self.net(allow_code=allow_code)
        if isinstance(net, ConstrainedNet):
            net = net.unconstrained
        if self.x.shape != (net.n_params,) or not np.isfinite(self.x).all():
            return False
        start: np.ndarray | None = self.x
        if self.constraint is not None:
            net, start = constrained(net, self.constraint, self.x), self.coordinates
        if start is None or start.shape != (net.n_params,) or not np.isfinite(start).all():
            return False
        again = prove(net, start, self.precision, False, self.uniqueness_radius, np.inf)
        if not np.array_equal(again.x, self.x):
            return False
        if not again.certified or again.kind != self.kind or again.index != self.index:
            return False
        mine, theirs = self.eigenvalue_bounds, again.eigenvalue_bounds
        return bool(
            again.radius <= self.radius
            and self.loss_interval[0] <= again.loss_interval[0]
            and again.loss_interval[1] <= self.loss_interval[1]
            and np.array_equal(self.fixed, again.fixed)
            and mine.shape == theirs.shape
            and (mine[:, 0] <= theirs[:, 0]).all()
            and (theirs[:, 1] <= mine[:, 1]).all()
        )

    def save(self, path: str | os.PathLike[str], *, data: bool = True) -> Path:
        """Write an .npz file with a JSON header; it appears whole or not at all. Returns its path.

        With ``data=False`` a hash stands for the net's data.
        """
        problem = self.problem if data else without_data(self.problem)
        arrays: dict[str, Any] = {f"problem.{key}": v for key, v in problem.items() if isinstance(v, np.ndarray)}
        header: dict[str, Any] = {"schema": SCHEMA, "type": "pymlpgf.Certificate"}
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if value is None and entry.name in ("coordinates", "constraint"):
                continue
            if isinstance(value, np.ndarray):
                arrays[entry.name] = value
            elif entry.name == "problem":
                header["problem"] = {key: v for key, v in problem.items() if not isinstance(v, np.ndarray)}
            else:
                header[entry.name] = value
        header["layers"] = [(width, activation_to_json(f), bias) for width, f, bias in self.layers]
        header["gauges"] = [dataclasses.astuple(gauge) for gauge in self.gauges]
        arrays["header"] = np.array(json.dumps(header))
        return write_atomically(npz_path(path), lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Certificate:
        """The certificate that ``save`` wrote. Needs no Julia and runs no code from the file.

        A file proves nothing: call ``verify``.
        """
        header, arrays, _ = read_parts(path, ("pymlpgf.Certificate",), SCHEMA)
        header["layers"] = [(width, activation_from_json(f), bias) for width, f, bias in header["layers"]]
        header["gauges"] = [Gauge(label, layer, tuple(units)) for label, layer, units in header["gauges"]]
        header["loss_interval"] = tuple(header["loss_interval"])
        problem = header["problem"]
        problem.update({key[len("problem.") :]: arrays.pop(key) for key in list(arrays) if key.startswith("problem.")})
        header["problem"] = attach_data(problem, path)
        try:
            return cls(**header, **arrays)
        except TypeError as error:
            raise InputError(f"{os.fspath(path)} is damaged: {error}") from None


def prove(net: Net, x: np.ndarray, precision: int, polish: bool, within: float | None, maxtime: float) -> Certificate:
    """What ``certify`` returns; without ``polish``, ``x`` is taken as it is."""
    if not is_whole(precision) or not 64 <= precision <= 10_000:
        raise InputError(f"precision is {precision!r}; a whole number of bits from 64 to 10000 is needed")
    options: dict[str, object] = {"precision": int(precision), "polish": polish}
    if within is not None:
        if not 0 < real_number(within) < np.inf:
            raise InputError(f"within is {within!r}; a positive number is needed")
        options["within"] = float(within)
    if not real_number(maxtime) >= 0:
        raise InputError(f"maxtime is {maxtime!r}; a non-negative number is needed")
    square = (net.n_params, net.n_params)
    refuse_matrices("certify", square, np.dtype(np.float64), "only smaller nets have certificates", count=3)
    bridge = net._core.bridge
    unused = np.zeros(net.n_params, net.dtype)

    def read(handle: int) -> Certificate:
        def get(name: str) -> Any:
            return bridge.field(handle, f"proved.{name}")

        certified = bool(get("certified"))
        bounds = np.stack([get("eigenvalue_bounds.1"), get("eigenvalue_bounds.2")], axis=1)
        return Certificate(
            certified=certified,
            reason=get("reason"),
            x=get("x"),
            radius=get("radius"),
            uniqueness_radius=get("uniqueness_radius"),
            index=get("index") if certified else None,
            kind=get("kind"),
            loss_interval=(get("loss_interval.1"), get("loss_interval.2")),
            eigenvalue_bounds=bounds,
            fixed=get("fixed") - 1,
            gauges=[Gauge(label, layer - 1, tuple(i - 1 for i in units))
                    for label, layer, units in json.loads(bridge.field(handle, "gauges"))],
            contraction=get("contraction"),
            precision=int(precision),
            total_time=bridge.field(handle, "total_time"),
            layers=net.layers,
            problem=describe(net.unconstrained if isinstance(net, ConstrainedNet) else net),
            coordinates=get("coordinates") if isinstance(net, ConstrainedNet) else None,
            constraint=net.constraint if isinstance(net, ConstrainedNet) else None,
        )  # fmt: skip

    def run(question: int) -> Certificate:
        limits: dict[str, object] = {"maxtime_optim": float(maxtime)}
        return bridge.solve(question, unused.ctypes.data, "minimize", limits, None, lambda *report: None, read)

    return net._core.tool("certification", options, [x], run)
