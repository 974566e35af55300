"""Go on with a run that a limit ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..facts import FLOW_DEFAULTS, MINIMIZE_DEFAULTS
from ..network.net import Net
from ..results.join import joined
from ..results.result import TrainResult
from .discrete import Continued
from .train import train

__all__ = ["LIMITS", "go_on", "limited_phase"]

#: options of ``train`` that a continuation may have other values of
LIMITS = ("maxT", "maxtime_ode", "maxiterations_ode", "maxtime_optim", "maxiterations_optim")
CUT = ("maxtime", "maxiterations")


def limited_phase(result: TrainResult, options: Mapping[str, Any]) -> str | None:
    """The last phase of a ``train`` that did a step, if a limit ended it and ``options`` allow more."""
    if result.converged:
        return None
    if not result.optim_iterations and _allowed(options, "ode"):
        # a discrete method's clock is a sum of many numbers
        later = (result.ode_t or 0.0) < options.get("maxT", math.inf) * (1 - 1e-9)
        if later and result.ode_stopped_by in (*CUT, "maxT"):
            return "flow"
    return "minimize" if result.optim_stopped_by in CUT and _allowed(options, "optim") else None


def _allowed(options: Mapping[str, Any], phase: str) -> bool:
    return all(options.get(f"{limit}_{phase}", math.inf) > 0 for limit in CUT)


def go_on(net: Net, before: TrainResult, **keywords: Any) -> TrainResult:
    """The result of ``train(net, p, **keywords)`` continued from ``before``, which a limit ended.

    The limits count anew, but for ``maxT``, which is the flow's final time as ever. A callback sees times and steps of
    the continuation alone.
    """
    if limited_phase(before, keywords) != "flow":
        # A flow without a step: the trajectory then ends with the point of the minimisation, and its observables.
        still: dict[str, Any] = {"maxiterations_ode": 0, "event": None, "dense": False}
        solver = keywords.get("optim_solver", MINIMIZE_DEFAULTS["optim_solver"])
        if before.optim_memory is not None and solver == before.optim_solver:
            still["optim_solver"] = Continued(solver, before.optim_memory.tolist())
        after = train(net, before.x, **{**keywords, **still})
        same = "optim_solver" in still and after.optim_stopped_by not in CUT
        return joined(before, after, still=True, same=same)
    shift, step = before.ode_t or 0.0, before.ode_iterations or 0
    later = dict(keywords)
    if "maxT" in later:
        later["maxT"] = max(0.0, later["maxT"] - shift)
    if later.get("event") is not None:
        event = later["event"]
        later["event"] = lambda t, x: event(shift + t, x)
    assert before.ode_x is not None  # a flow that has something left
    memory = [step] if before.memory is None else before.memory.tolist()
    later["alg"] = Continued(later.get("alg", FLOW_DEFAULTS["alg"]), memory)
    return joined(before, train(net, before.ode_x, **later))
