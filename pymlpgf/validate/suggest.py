"""Errors that name the nearest valid name."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ..errors import KeywordError

__all__ = ["check_keywords", "nearest", "suggest_keywords"]

F = TypeVar("F", bound=Callable[..., Any])


def nearest(name: str, known: Iterable[str], unlisted: Iterable[str] = ()) -> str:
    """The end of a sentence about an unknown ``name``: the nearest of all, and a list of those ``known``."""
    known = sorted(known)
    by_lower = {k.lower(): k for k in (*unlisted, *known)}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    hint = f"; did you mean {by_lower[close[0]]!r}?" if close else ""
    return f"{hint} (known: {', '.join(known)})"


#: keywords of other packages -> what to do here
ELSEWHERE = {
    "saveat": "give dense=True and evaluate res.sol at the times that you want",
    "t_eval": "give dense=True and evaluate res.sol at the times that you want",
    "tspan": "give maxT, where the flow that begins at t = 0 ends",
    "rtol": "it is called reltol here",
    "atol": "it is called abstol here",
    "tol": "give min_gnorm, at which ‖∇L‖_∞ counts as zero, or nothing: round-off ends every run",
    "lr": "it is called learning_rate here",
    "epochs": "give maxiterations_ode, the number of steps",
}


def check_keywords(title: str, given: Iterable[str], known: Iterable[str]) -> None:
    """An error for a keyword of ``title`` that is not ``known``."""
    for name in given:
        if name not in known:
            hint = f": {ELSEWHERE[name]}" if name in ELSEWHERE else nearest(name, known)
            raise KeywordError(f"{title} has no keyword {name!r}{hint}")


def suggest_keywords(function: F) -> F:
    """Let an unknown keyword raise a ``KeywordError`` that names the nearest valid one."""
    names = [p.name for p in inspect.signature(function).parameters.values() if p.name != "self"]
    title = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        check_keywords(title, kwargs, names)
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]
