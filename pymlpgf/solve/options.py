"""What users say to a solver, checked and as the core takes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from ..facts import FLOW_METHODS, MINIMIZERS
from ..network.net import Net
from ..validate.data import is_whole, numeric, real_number
from ..validate.suggest import nearest
from .discrete import DISCRETE_METHODS, Continued, DiscreteMethod

__all__ = [
    "FLOW_ALGORITHMS", "OPTIM_SOLVERS", "called", "flow_options", "goals", "minimize_options", "number_option",
    "time_constants",
]  # fmt: skip

#: our own methods
FLOW_ALGORITHMS = tuple(name for name, method in FLOW_METHODS.items() if method["provider"] == "builtin")
OPTIM_SOLVERS = tuple(name for name, method in MINIMIZERS.items() if method["provider"] == "builtin")


def flow_options(
    *, alg: Any, learning_rate: Any, schedule: Any, batchsize: Any, seed: Any, dt: Any, dense: Any, **given: Any
) -> tuple[dict[str, Any], Callable[[int], Any] | None]:
    memory = None
    if isinstance(alg, Continued):
        alg, memory = alg.alg, alg.memory
    options, function = _method(alg, learning_rate, schedule, dt, dense, batchsize is not None)
    if batchsize is not None or isinstance(alg, DiscreteMethod) or alg in DISCRETE_METHODS:
        options.update(_batches(batchsize, given["batch_steps"], given["shuffle"], seed))
    for name in ("maxT", "maxtime_ode", "maxiterations_ode"):
        options[name] = number_option(name, given[name])
    for name in ("abstol", "reltol"):
        options[name] = number_option(name, given[name], finite=True)
    if (points := given["n_samples_trajectory"]) is not None:
        options["n_samples_trajectory"] = number_option("n_samples_trajectory", points, finite=True)
    options["save_everystep"] = bool(given["save_everystep"])
    if memory is not None:
        options["memory"] = memory
    return options, function


def minimize_options(
    solver: Any, maxtime: float, maxiterations: float, patience: float, own: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    memory = {}
    if isinstance(solver, Continued):
        memory = {"optim_memory": solver.memory}
        solver = solver.alg
    return {
        **_optim_options(own),
        **memory,
        "optim_solver": _solver("optim_solver", solver, OPTIM_SOLVERS),
        "maxtime_optim": number_option("maxtime_optim", maxtime),
        "maxiterations_optim": number_option("maxiterations_optim", maxiterations),
        "patience": number_option("patience", patience, positive=True),
    }


def _optim_options(own: Mapping[str, Any] | None) -> dict[str, Any]:
    """What goes to the method's package unseen."""
    if own is None:
        return {}
    if not isinstance(own, Mapping):
        raise InputError(f"optim_options is {own!r}; a dictionary of names and values is needed")
    for name, value in own.items():
        plain = isinstance(value, (bool, str)) or (isinstance(value, (int, float)) and math.isfinite(value))
        if not isinstance(name, str) or not plain:
            raise InputError(
                f"optim_options has {name!r}: {value!r}; names and finite numbers, bools or texts are needed"
            )
    return {"optim_options": dict(own)}


def goals(min_gnorm: float, minloss: float) -> dict[str, Any]:
    return {
        "min_gnorm": number_option("min_gnorm", min_gnorm, finite=True),
        "minloss": number_option("minloss", minloss, finite=True),
    }


def _method(
    alg: Any, learning_rate: Any, schedule: Any, dt: Any, dense: Any, batches: bool
) -> tuple[dict[str, Any], Callable[[int], Any] | None]:
    """The options of the flow's algorithm, and the schedule if that is a function."""
    if isinstance(alg, type) and issubclass(alg, DiscreteMethod):
        raise InputError(f"alg is the class {alg.__name__}; {alg.__name__}() is needed")
    own = {name: v for name, v in (("learning_rate", learning_rate), ("schedule", schedule)) if v is not None}
    if isinstance(alg, DiscreteMethod):
        if own:
            raise InputError(f"{' and '.join(own)}: give it to {type(alg).__name__}(…) alone")
        method = alg
    elif _solver("alg", alg, (*FLOW_ALGORITHMS, *DISCRETE_METHODS)) in DISCRETE_METHODS:
        method = DISCRETE_METHODS[alg](**own)
    else:
        if dense and batches:
            raise InputError("dense: for flows on all samples; batchsize is given")
        if own:
            raise InputError(f"{' and '.join(own)}: for discrete methods such as 'Adam'; alg is {alg!r}")
        options: dict[str, Any] = {"alg": alg, "dense": bool(dense)}
        if dt is not None:
            options["dt"] = number_option("dt", dt, finite=True, positive=True)
        return options, None
    if dense or dt is not None:
        raise InputError(f"{'dense' if dense else 'dt'}: for flows; alg is the discrete method {method!r}")
    return method._options()


def _batches(batchsize: Any, batch_steps: Any, shuffle: Any, seed: Any) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value, rest in (
        ("batchsize", batchsize, "a positive whole number, or None for all samples, is needed"),
        ("batch_steps", batch_steps, "a positive whole number is needed"),
    ):
        if value is not None:
            if not is_whole(value) or not 1 <= value < 2**53:
                raise InputError(f"{name} is {value!r}; {rest}")
            options[name] = int(value)
    if not isinstance(shuffle, (bool, np.bool_)):
        raise InputError(f"shuffle is {shuffle!r}; True or False is needed")
    if not is_whole(seed) or not 0 <= seed < 2**64:
        raise InputError(f"seed is {seed!r}; a whole number from 0 to 2**64 - 1 is needed")
    return {**options, "shuffle": bool(shuffle), "seed": int(seed)}


def _solver(argument: str, value: object, own: tuple[str, ...]) -> str:
    """A solver: one of our own, or of the Julia packages, with or without its provider's name; or a call of one."""
    name = called(value) if isinstance(value, str) else ""
    if name in own and not (name != value and name in DISCRETE_METHODS):
        return str(value)
    if name in DISCRETE_METHODS:
        raise InputError(f"alg is {value!r}; options of {name} are those of the object pymlpgf.{name}(…)")
    others = [known for known in (FLOW_METHODS if argument == "alg" else MINIMIZERS) if known not in own]
    short = {known.partition(".")[2] for known in others}
    if name not in others and name not in short:
        raise InputError(f"unknown {argument} {value!r}{nearest(str(value), own, (*others, *short))}")
    return str(value)


def called(text: str) -> str:
    """The name of a method that is given with its options, as a call in Julia."""
    return text.partition("(")[0].rstrip() if text.endswith(")") else text


def number_option(argument: str, value: Any, *, finite: bool = False, positive: bool = False) -> float:
    number = real_number(value)
    if not number >= 0 or (positive and number == 0) or (finite and math.isinf(number)):
        kind = "a positive" if positive else "a non-negative"
        raise InputError(f"{argument} is {value!r}; {kind}{' finite' if finite else ''} number is needed")
    return number


def time_constants(value: Any, net: Net) -> float | np.ndarray:
    if isinstance(value, int) and value == 1:  # the default: 15 µs saved
        return 1.0
    size = net.n_params
    if isinstance(value, Mapping):
        constants = net.params(np.ones(size))
        for name, part in value.items():
            if name not in constants._names():
                raise InputError(f"tauinv names {name!r}{nearest(str(name), constants._names())}")
            block, given = constants[name], numeric(f"tauinv of {name}", part)
            if given.shape not in ((), block.shape):
                raise InputError(f"tauinv of {name} has shape {given.shape}; a number or shape {block.shape} is needed")
            block[...] = given
        value = constants.flat
    array = numeric("tauinv", value)
    if array.shape not in ((), (size,)):
        raise InputError(f"tauinv has shape {array.shape}; a number or shape ({size},) is needed")
    array = np.ascontiguousarray(array, np.float64).reshape(array.shape)
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise InputError("tauinv must be finite and not negative")
    return array if array.ndim else float(array)
