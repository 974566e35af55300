"""The user's functions that run inside a solve: callbacks, events, observables and schedules."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InputError
from ..network.net import Net
from ..validate.data import real_number
from .recordings import Recording

__all__ = ["IntermediateResult", "Questions", "stepwise"]


class IntermediateResult(dict[str, Any]):
    """Where a run is, by attribute or by key, as SciPy's ``OptimizeResult``.

    ``x`` (n_params,) is a copy; ``fun`` and ``loss`` are the loss, ``gnorm`` is ‖∇L‖_∞ (with batches, both at the last
    point where all samples were seen), ``phase`` is "flow" or "minimize", ``iteration`` and ``nit`` count its steps,
    and ``t`` is the time of the flow (None in "minimize").
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        return f"IntermediateResult(phase={self.phase!r}, iteration={self.iteration}, loss={self.loss:.6g})"


def stepwise(callback: Any, net: Net) -> Callable[..., bool] | None:
    """What the bridge calls after each step: whether ``callback`` asks to stop by raising StopIteration."""
    if callback is None:
        return None
    if not callable(callback):
        raise InputError(f"callback is {callback!r}; a function of one argument, the intermediate result, is needed")

    def step(phase: str, iteration: int, t: float, loss: float, gnorm: float, address: int) -> bool:
        where = IntermediateResult(
            x=point(address, net), fun=loss, loss=loss, gnorm=gnorm, t=t if phase == "flow" else None, phase=phase,
            iteration=iteration, nit=iteration,
        )  # fmt: skip
        try:
            callback(where)
        except StopIteration:
            return True
        return False

    return step


def point(address: int, net: Net) -> np.ndarray:
    """A copy of the parameters that a solver shows."""
    return np.frombuffer(ctypes.string_at(address, net.n_params * net.dtype.itemsize), net.dtype).copy()


class Questions:
    """What a solver asks by number (see ``ask`` in julia/src/interface/c_solve.jl): an event, a schedule, observables.

    Parameters
    ----------
    net : Net
    x : array (n_params,)
        Where the run begins: each function is tried there before any work is done.
    event : function of (t, x), optional
    schedule : function of the step's number, optional
    observables : dict, optional
        name -> function of x, pair (input, target), another net, or a ``Recording``.
    constraint : dict, optional
        What the points of the run obey.
    """

    def __init__(
        self, net: Net, x: np.ndarray, event: Any = None, schedule: Any = None, observables: Any = None,
        constraint: Any = None,
    ) -> None:  # fmt: skip
        self._net = net
        self._constraint = {} if constraint is None else {"constraint": constraint}
        self._functions: dict[int, Callable[..., Any]] = {}
        self.options: dict[str, object] = {}
        self.names: list[str] = []
        self._nets: list[Any] = []  # kept alive during the solve
        self._recordings: list[dict[str, Any]] = []
        self._arrays: list[np.ndarray] = [x.astype(np.float64)]  # then those of the recordings
        if event is not None:
            self._add_event(event, x)
        if schedule is not None:
            self.options["schedule"] = "ask"
            self._functions[1] = lambda k, t, address: number(f"schedule({k})", schedule(k), factor=True)
            self._functions[1](0, 0.0, 0)
        if observables:
            self._add_observables(observables, x)

    def __call__(self, what: int, k: int, t: float, address: int) -> float:
        return self._functions[what](k, t, address)

    def __bool__(self) -> bool:
        return bool(self._functions)

    def with_recordings(self, run: Callable[[dict[str, object]], Any]) -> Any:
        """``run(options)``, with what is recorded in Julia made before and released afterwards."""
        if not self._recordings:
            return run(self.options)
        return self._net._core.tool(
            "recordings", {"recordings": self._recordings, **self._constraint}, self._arrays,
            lambda handle: run({**self.options, "recordings": handle}),
        )  # fmt: skip

    def _add_event(self, event: Any, x: np.ndarray) -> None:
        if not callable(event):
            raise InputError(f"event is {event!r}; a function of (t, x) is needed")
        first = event(0.0, x.copy())
        truth = isinstance(first, (bool, np.bool_))
        number("event(t, x)", first, nan=False)
        self.options["event"] = "truth" if truth else "number"

        def value(k: int, t: float, address: int) -> float:
            return number("event(t, x)", event(t, point(address, self._net)), nan=False)

        self._functions[0] = value

    def _add_observables(self, observables: Any, x: np.ndarray) -> None:
        if not isinstance(observables, dict):
            raise InputError(f"observables is {observables!r}; a dictionary of names and functions of x is needed")
        words = []
        for position, (name, what) in enumerate(observables.items()):
            if not isinstance(name, str) or not name:
                raise InputError(f"observables has the name {name!r}; a text is needed")
            if name in ("t", "x", "loss", "gnorm") or re.fullmatch(r"x\d+", name):
                raise InputError(f"observables has the name {name!r}, which the trajectory itself uses; choose another")
            if isinstance(what, type):
                raise InputError(
                    f"the observable {name!r} is the class {what.__name__}; make an object: {what.__name__}()"
                )
            words.append(self._observable(position, name, what, x))
            self.names += what._names(name, self._net) if isinstance(what, Recording) else [name]
        twice = [name for number, name in enumerate(self.names) if name in self.names[:number]]
        if twice:
            raise InputError(f"two observables are called {twice[0]!r}")
        self.options["observables"] = words

    def _observable(self, position: int, name: str, what: Any, x: np.ndarray) -> str | dict[str, int]:
        if isinstance(what, Recording):
            spec, arrays, _ = what._spec(self._net)
            self._recordings.append(spec)
            self._arrays += arrays
            return {"recording": len(self._recordings)}
        if isinstance(what, Net):
            if what.n_params != len(x) or what.dtype != self._net.dtype:
                raise InputError(
                    f"the observable {name!r} is {what!r}: {len(x)} parameters of dtype {self._net.dtype} are needed"
                )
            self._nets.append(what)
            return {"loss": what._core.handle}
        if isinstance(what, (tuple, list)) and len(what) == 2:
            self._nets.append(self._net.on(*what))
            return {"data_loss": self._nets[-1]._core.handle}
        if not callable(what):
            raise InputError(
                f"the observable {name!r} is {what!r}; a function of x, a pair (input, target), a net, or a recording "
                "such as Eigenvalues() is needed"
            )
        title = f"the observable {name!r}"
        number(title, what(x.copy()))
        self._functions[2 + position] = lambda k, t, address: number(title, what(point(address, self._net)))
        return "ask"


def number(name: str, value: Any, *, nan: bool = True, factor: bool = False) -> float:
    """A real number that a user's function returned; an array of one element will do."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    if isinstance(value, (bool, np.bool_)):
        return float(value)
    if not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputError(f"{name} gave {value!r}; a real number is needed")
    result = real_number(value)
    if factor and not 0 <= result < math.inf:
        raise InputError(f"{name} gave {value!r}; a finite factor that is not negative is needed")
    if not nan and math.isnan(result):
        raise InputError(f"{name} gave {value!r}; a real number is needed")
    return result
