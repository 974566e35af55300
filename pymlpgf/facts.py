"""What the Julia core says of itself, without Julia: names, defaults, sentences.

``facts.json`` is written by the core (``make facts``; julia/src/interface/facts.jl), where each fact has its home, and
a test compares it. Nothing of it is written a second time in Python.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import fill
from typing import Any, TypeVar

__all__ = [
    "ACTIVATIONS", "DISCRETE_METHODS", "FLOW_DEFAULTS", "FLOW_METHODS", "LOSSES", "MINIMIZERS",
    "MINIMIZE_DEFAULTS", "STOPS", "UNIT_LIMITS", "matrices", "tell",
]  # fmt: skip

_FACTS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("facts.json").read_text(encoding="utf-8"))

#: name -> formula
ACTIVATIONS: dict[str, str] = _FACTS["activations"]
LOSSES: dict[str, str] = _FACTS["losses"]
#: what units can become at infinity ("tail", "step", "relu"), or have ("kink") -> activations
UNIT_LIMITS: dict[str, list[str]] = _FACTS["limits"]
#: name -> summary, number of P × P matrices, provider
FLOW_METHODS = _FACTS["flow_methods"]
MINIMIZERS = _FACTS["minimizers"]
#: name -> summary, options with their defaults
DISCRETE_METHODS = _FACTS["discrete_methods"]
#: option -> default
FLOW_DEFAULTS = _FACTS["flow_options"]
MINIMIZE_DEFAULTS = _FACTS["minimize_options"]
#: reason to stop -> what it means and what can be done
STOPS: dict[str, str] = _FACTS["stops"]


_LISTS = {"{flow_methods}": FLOW_METHODS, "{discrete_methods}": DISCRETE_METHODS, "{minimizers}": MINIMIZERS}
F = TypeVar("F", bound=Callable[..., Any])


def tell(function: F) -> F:
    """The methods that there are in its docstring, in place of lines such as ``{flow_methods}``."""
    lines: list[str] = []
    for line in (function.__doc__ or "").splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        entries = [
            fill(f'"{name}": {method["summary"]}', 118, initial_indent=indent + "- ", subsequent_indent=indent + "  ")
            for name, method in _LISTS.get(line.strip(), {}).items()
            if method.get("provider", "builtin") == "builtin"
        ]
        lines += entries or [line]
    function.__doc__ = "\n".join(lines) if lines else None
    return function


_MATRICES = {name: int(solver["matrices"]) for name, solver in (FLOW_METHODS | MINIMIZERS).items()}
for _name in list(_MATRICES):  # a provider's, where we have none of that name
    _MATRICES.setdefault(_name.rpartition(".")[2], _MATRICES[_name])


def matrices(solver: str) -> int:
    """How many P × P matrices the solver of that name keeps."""
    return _MATRICES.get(solver, 0)
