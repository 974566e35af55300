"""Go on with a run that a limit ended."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from ..network.net import Net
from ..results.join import joined
from ..results.result import TrainResult
from .discrete import DISCRETE_METHODS
from .train import _flow_options, _goals, _minimize_options, _solve, train

__all__ = ["LIMITS", "go_on", "limited_phase"]

#: options of ``train`` that a continuation may have other values of
LIMITS = ("maxT", "maxtime_ode", "maxiterations_ode", "maxtime_optim", "maxiterations_optim", "patience")
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
    bound = inspect.signature(train).bind(net, before.x, **keywords)
    bound.apply_defaults()
    given = bound.arguments
    limits = [given[name] for name in ("optim_solver", "maxtime_optim", "maxiterations_optim", "patience")]
    options, schedule, functions = (
        {**_minimize_options(*limits), **_goals(given["min_gnorm"], given["minloss"])},
        None,
        {},
    )
    what, start = "minimize", before.x
    if limited_phase(before, given) == "flow":
        assert before.ode_x is not None
        what, start = "train", before.ode_x
        flow_options, schedule = _flow_options(**given)
        options.update(flow_options)
        options["maxT"] = max(0.0, options["maxT"] - (before.ode_t or 0.0))
        if options["alg"] in DISCRETE_METHODS:  # its schedule goes on
            options["first_step"] = before.ode_iterations
        functions = {"observables": given["observables"], "schedule": schedule}
        functions["event"] = _later_event(given["event"], before.ode_t or 0.0)
    after = _solve(
        what, net, start, options, given["tauinv"] if what == "train" else 1, given["verbosity"],
        given["progress_interval"], callback=given["callback"], **functions,
    )  # fmt: skip
    return joined(before, after)


def _later_event(event: Any, shift: float) -> Any:
    """The event with the time of the whole run."""
    return (lambda t, x: event(shift + t, x)) if callable(event) else event
