"""A result, copied out of Julia."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import runtime
from ..network.net import Net
from ..runtime.bridge import Bridge
from ..version import __version__
from .at_infinity import towards_infinity
from .problem import describe
from .result import REASONS, DenseSolution, TrainResult, Trajectory

__all__ = ["read_result"]

# What a result is made of, by its path in Julia's: see ``Solved`` in julia/src/interface/c_solve.jl.
_RUN = ["x", "loss", "gnorm", "data_loss", "data_gnorm", "total_time", "compile_time", "provider", "channels"]
_FLOW = ["x", "loss", "t", "iterations", "time_run", "stopped_by", "alg", "memory"]
_MINIMIZE = ["iterations", "time_run", "stopped_by", "optim_solver", "memory"]
_EVALUATIONS = ["nfev", "nhev", "nhvp"]
_COUNTS = ["nfev", "njev", "nhev", "nhvp"]
_POINTS = [f"trajectory.{name}" for name in ("t", "x", "loss", "gnorm", "within", "observables")]
_SOLUTION = ["sol.t", "sol.coefficients"]


def _paths(flows: bool, minimizes: bool) -> tuple[str, ...]:
    of_flow = [f"ode.{name}" for name in (*_FLOW, *_EVALUATIONS, *_POINTS, *_SOLUTION, "stopped_by.advice")]
    of_minimum = [f"optim.{name}" for name in (*_MINIMIZE, *_COUNTS, "stopped_by.advice")]
    return (*_RUN, *(of_flow if flows else ()), *(of_minimum if minimizes else ()))


_PATHS = {"flow": _paths(True, False), "minimize": _paths(False, True), "train": _paths(True, True)}


def read_result(
    bridge: Bridge, handle: int, what: str, init: np.ndarray, net: Net, names: list[str] | None = None
) -> TrainResult:
    """Copy a result of a "flow", a "minimize" or a "train" out of Julia; ``names`` are those of the observables."""
    paths = _PATHS[what]
    got = dict(zip(paths, bridge.fields(handle, paths), strict=True))
    fields: dict[str, Any] = {}
    counts = [0, 0, 0, 0]
    last = ""
    if got.get("ode.stopped_by") is not None:
        last = "ode."
        fields.update({name if name in ("alg", "memory") else f"ode_{name}": got[f"ode.{name}"] for name in _FLOW})
        t, x, loss, gnorm, within = (got[f"ode.{path}"] for path in _POINTS[:5])
        seen = got["ode.trajectory.observables"].T.copy() if names else np.zeros((0, 0))
        fields["trajectory"] = Trajectory(t, x, loss, gnorm, np.array(names or [], "U"), seen, within)
        counts = [got["ode.nfev"], got["ode.nfev"], got["ode.nhev"], got["ode.nhvp"]]
        coefficients = got["ode.sol.coefficients"]
        if coefficients is not None:
            times = got["ode.sol.t"]
            if not len(coefficients):  # no step: a solution on [0, 0]
                times, coefficients = np.zeros(2), init[None, None].copy()
            fields["sol"] = DenseSolution(times, coefficients)
    if got.get("optim.stopped_by") is not None:
        last = "optim."
        fields.update({name if name == "optim_solver" else f"optim_{name}": got[last + name] for name in _MINIMIZE})
        counts = [a + got[last + name] for a, name in zip(counts, _COUNTS, strict=True)]
    return TrainResult(
        x=got["x"],
        loss=float(got["loss"]),
        gnorm=float(got["gnorm"]),
        data_loss=float(got["data_loss"]),
        data_gnorm=float(got["data_gnorm"]),
        init=init,
        total_time=float(got["total_time"]),
        compile_time=float(got["compile_time"]),
        provider=got["provider"],
        nfev=counts[0],
        njev=counts[1],
        nhev=counts[2],
        nhvp=counts[3],
        status=REASONS.index(got[last + "stopped_by"]),
        message=got[last + "stopped_by.advice"] + (towards_infinity(got["channels"]) if got["channels"] else ""),
        layers=net.layers,
        output_factor=net.output_factor,
        problem=describe(net),
        versions={"pymlpgf": __version__, "julia": runtime.info()["version"], "numpy": np.__version__},
        **fields,
    )
