"""Gradient flow and minima of multilayer perceptrons, computed by a Julia core.

Importing this package starts nothing; Julia is found and started by the first ``Net``, or by ``init``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .activations import ACTIVATIONS, Poly
    from .errors import InputError, JuliaError, KeywordError, MLPGFError, RuntimeUnavailable, ThreadError
    from .infinite import InfiniteNet, gauss_hermite_net
    from .net import Net, TeacherNet
    from .params import Params
    from .result import TrainResult, load
    from .training import flow, minimize, train

__version__ = "0.1.0"

_HOMES = {
    "ACTIVATIONS": "activations",
    "InfiniteNet": "infinite",
    "InputError": "errors",
    "JuliaError": "errors",
    "KeywordError": "errors",
    "MLPGFError": "errors",
    "Net": "net",
    "Poly": "activations",
    "TeacherNet": "net",
    "Params": "params",
    "RuntimeUnavailable": "errors",
    "ThreadError": "errors",
    "TrainResult": "result",
    "flow": "training",
    "gauss_hermite_net": "infinite",
    "load": "result",
    "minimize": "training",
    "train": "training",
}

__all__ = [
    "ACTIVATIONS",
    "InfiniteNet",
    "InputError",
    "JuliaError",
    "KeywordError",
    "MLPGFError",
    "Net",
    "Params",
    "Poly",
    "RuntimeUnavailable",
    "TeacherNet",
    "ThreadError",
    "TrainResult",
    "flow",
    "gauss_hermite_net",
    "init",
    "load",
    "minimize",
    "runtime_info",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


def init(threads: int | str | None = None, julia: str | None = None) -> None:
    """Start Julia now, in this thread, instead of at the first use.

    Parameters
    ----------
    threads : int or "auto", optional
        Julia threads; default from PYMLPGF_THREADS or the configuration file, else 1.
    julia : path, "full" or "embedded", optional
        Which Julia; default from PYMLPGF_JULIA or the configuration file, else the first that is found.
    """
    from . import runtime

    runtime.start(threads=threads, julia=julia)


def runtime_info() -> dict[str, Any]:
    """Julia's version, path, host and threads; ``{"started": False}`` before Julia runs."""
    from . import runtime

    return runtime.info()
