"""A run and its continuation, as one result."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .result import DenseSolution, TrainResult, Trajectory

__all__ = ["joined"]


def joined(before: TrainResult, after: TrainResult, *, still: bool = False, same: bool = False) -> TrainResult:
    """The result of a run that was cut off and of its continuation: from ``before.ode_x``, or a minimisation.

    Times, counts and trajectories continue; the reason to stop is that of the continuation, and the point is the better
    one of both. If only the minimisation was continued, the flow of ``after`` made no step: it stood ``still``. If it
    went on as the ``same`` and ended by itself, its point counts, which is the uninterrupted run's: the steps that
    ``before`` made for its limit's sake, to end well, may have led a rounding error lower.
    """
    changes: dict[str, Any] = {"init": before.init, "seed": before.seed, "settings": before.settings}
    for name in ("nfev", "njev", "nhev", "nhvp", "total_time", "compile_time"):
        changes[name] = getattr(before, name) + getattr(after, name)
    lower = before.loss < after.loss and not same
    if lower:
        changes.update({name: getattr(before, name) for name in ("x", "loss", "gnorm", "data_loss", "data_gnorm")})
    shift = before.ode_t or 0.0
    if before.trajectory is not None and after.trajectory is not None:
        changes["trajectory"] = _paths(before, after, shift, lower)
    if still:
        names = [f"ode_{name}" for name in ("x", "loss", "t", "iterations", "time_run", "stopped_by")]
        for name in (*names, "alg", "memory", "sol", "batchsize", "batch_seed"):
            changes[name] = getattr(before, name)
    else:
        changes.update(_sums(before, after, "ode_t", "ode_iterations", "ode_time_run"))
        changes["alg"] = after.alg if after.alg == before.alg else f"{before.alg}+{after.alg}"
        if before.sol is not None and after.sol is not None:
            changes["sol"] = _solutions(before.sol, after.sol, shift)
    if before.optim_stopped_by is not None and after.optim_stopped_by is not None:
        changes.update(_sums(before, after, "optim_iterations", "optim_time_run"))
    providers = [name for part in (before.provider, after.provider) for name in part.split("+")]
    changes["provider"] = "+".join(dict.fromkeys(providers))
    return dataclasses.replace(after, **changes)


def _sums(before: TrainResult, after: TrainResult, *names: str) -> dict[str, Any]:
    return {name: getattr(before, name) + getattr(after, name) for name in names}


def _paths(before: TrainResult, after: TrainResult, shift: float, lower: bool) -> Trajectory:
    """The points of ``after`` behind the flow of ``before``, which ended at ``shift``; the first ones are its last.

    A point behind that flow is the one of its minimisation. Since the minimisation was continued it is left out, unless
    its point is the ``lower`` one: then it is the last of all.
    """
    a, b = before.trajectory, after.trajectory
    assert a is not None
    assert b is not None
    flow, new = np.flatnonzero(a.t <= shift), np.arange(1, len(b))
    kept = np.flatnonzero(a.t > shift) if lower else flow[:0]
    if len(kept) and after.optim_stopped_by is not None and len(new):
        new = new[:-1]
    later = np.maximum(shift + b.t[new], np.nextafter(shift, np.inf))  # at 1e300 a unit of time is nothing
    times = np.concatenate([a.t[flow], later])
    last = np.maximum(a.t[kept], np.nextafter(times[-1], np.inf))
    parts: dict[str, Any] = {
        name: np.concatenate([values[flow], getattr(b, name)[new], values[kept]])
        for name, values in (("x", a.x), ("loss", a.loss), ("gnorm", a.gnorm))
    }
    parts["t"] = np.concatenate([times, last])
    # Lines over log t are others where time began anew; a result of an earlier version knows nothing of them.
    parts["within"] = np.full((len(parts["t"]), 2), np.nan)
    if len(a.within):
        parts["within"][: len(flow)] = a.within[flow]
    if len(a.names):
        parts["observables"] = np.concatenate(
            [a.observables[:, flow], b.observables[:, new], a.observables[:, kept]], 1
        )
    return dataclasses.replace(b, **parts)


def _solutions(a: DenseSolution, b: DenseSolution, shift: float) -> DenseSolution:
    if not np.diff(b.t).any():  # no step
        return b if not np.diff(a.t).any() else a
    if not np.diff(a.t).any():
        return b
    terms = max(a.coefficients.shape[1], b.coefficients.shape[1])
    padded = [np.pad(s.coefficients, ((0, 0), (0, terms - s.coefficients.shape[1]), (0, 0))) for s in (a, b)]
    return DenseSolution(np.concatenate([a.t, shift + b.t[1:]]), np.concatenate(padded))
