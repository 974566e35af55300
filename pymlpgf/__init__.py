"""Gradient flow and minima of multilayer perceptrons, computed by a Julia core.

Importing this package starts nothing; Julia is found and started by the first ``Net``, or by ``init``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .activations import ACTIVATIONS, Poly
    from .checkpoint import resume
    from .discrete import (
        Adam,
        AdamW,
        CosineDecay,
        ExponentialDecay,
        GradientDescent,
        Momentum,
        Nesterov,
        RMSprop,
    )
    from .distance import TrajectoryDistance, trajectory_distance
    from .errors import InputError, JuliaError, KeywordError, MLPGFError, RuntimeUnavailable, ThreadError
    from .fixed_points import Classification, classify, polish
    from .infinite import InfiniteNet, gauss_hermite_net
    from .landscape import (
        align,
        cosine_similarity,
        distinct_minima,
        escape_saddle,
        grow_net,
        match_neurons,
        saddle_passages,
        shrink_net,
        spectrum_along,
        split_neuron,
    )
    from .net import Net, TeacherNet
    from .params import Params
    from .result import TrainResult, load
    from .stops import Stop
    from .subspace import LinearSubspace, loss_grid, subspace_grid, subspace_minloss
    from .sweeps import sweep
    from .training import flow, minimize, train

__version__ = "0.1.0"

_HOMES = {
    "Adam": "discrete",
    "AdamW": "discrete",
    "CosineDecay": "discrete",
    "ExponentialDecay": "discrete",
    "GradientDescent": "discrete",
    "Momentum": "discrete",
    "Nesterov": "discrete",
    "RMSprop": "discrete",
    "Stop": "stops",
    "TrajectoryDistance": "distance",
    "trajectory_distance": "distance",
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
    "Classification": "fixed_points",
    "classify": "fixed_points",
    "polish": "fixed_points",
    "align": "landscape",
    "cosine_similarity": "landscape",
    "distinct_minima": "landscape",
    "escape_saddle": "landscape",
    "grow_net": "landscape",
    "match_neurons": "landscape",
    "saddle_passages": "landscape",
    "shrink_net": "landscape",
    "spectrum_along": "landscape",
    "split_neuron": "landscape",
    "LinearSubspace": "subspace",
    "loss_grid": "subspace",
    "subspace_grid": "subspace",
    "subspace_minloss": "subspace",
    "sweep": "sweeps",
    "resume": "checkpoint",
}

__all__ = [
    "Adam",
    "AdamW",
    "CosineDecay",
    "ExponentialDecay",
    "GradientDescent",
    "Momentum",
    "Nesterov",
    "RMSprop",
    "Stop",
    "TrajectoryDistance",
    "trajectory_distance",
    "ACTIVATIONS",
    "Classification",
    "InfiniteNet",
    "InputError",
    "JuliaError",
    "KeywordError",
    "LinearSubspace",
    "MLPGFError",
    "Net",
    "Params",
    "Poly",
    "RuntimeUnavailable",
    "TeacherNet",
    "ThreadError",
    "TrainResult",
    "align",
    "classify",
    "cosine_similarity",
    "distinct_minima",
    "escape_saddle",
    "flow",
    "grow_net",
    "gauss_hermite_net",
    "init",
    "load",
    "loss_grid",
    "match_neurons",
    "minimize",
    "polish",
    "resume",
    "runtime_info",
    "saddle_passages",
    "shrink_net",
    "spectrum_along",
    "split_neuron",
    "subspace_grid",
    "subspace_minloss",
    "sweep",
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
