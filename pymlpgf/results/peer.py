"""Reading results of MLPGradientFlow.jl, and writing results for it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..facts import ACTIVATIONS
from ..files import write_atomically
from ..network.activations import Activation, Derivative, Inside, Poly, Sharp, Tail, check_layers, code_in
from ..network.params import Params
from ..validate.suggest import nearest
from .jld2_file import read_jld2_file
from .result import REASONS, TrainResult, Trajectory
from .torch_file import read_torch_file, write_torch_file

__all__ = ["read_peer", "write_peer"]

PEER = "MLPGradientFlow.jl"
#: what Julia calls the functions of other names there
NAMES = {"sigmoid_fast": "sigmoid", "tanh_fast": "tanh"}


def read_peer(
    path: str | os.PathLike[str], key: str | int | None = None, *, activations: Mapping[str, Activation] | None = None
) -> TrainResult:
    """Read a result of MLPGradientFlow.jl, which its ``pickle`` wrote in the format of PyTorch, or JLD2.jl.

    Parameters
    ----------
    path : path
        Files of JLD2.jl need h5py.
    key : str or int, optional
        Name or place of the result, if the file holds several.
    activations : dict, optional
        The activations that stand for names that this package does not have: ``{"f": "x -> x * exp(-x^2)"}``. Names of
        this package, ``tanh_fast`` and ``sigmoid_fast`` are known.

    Returns
    -------
    TrainResult
        Parameters are in this package's order. Times are those of the file: of the flow of the summed loss, which is
        ``tauinv=n_samples`` here, or steps of a discrete method. ``res.net()`` is the net with data and weights.
        Regularisers are not in these files, so that loss and gradient norm are those of the data term. Gradient norms
        of the trajectory, which are not in the file either, are NaN, and numbers of evaluations 0. The result of a
        student on infinite data has no net.

    Raises
    ------
    InputError
        If the file is not such a result, or contains anything but arrays, numbers, texts and containers. No code of the
        file is run.

    Examples
    --------
    >>> import tempfile, pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", False)], input=[[1.0], [2.0]], target=[2.0, 4.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = mg.write_peer(mg.minimize(net, [1.0]), folder + "/result.pt")
    ...     mg.read_peer(path).net().loss([1.0])
    2.5
    """
    path = Path(path)
    try:
        value = _read(path)
        found = _pick(value, key)
        return _result(found, activations or {})
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except InputError as error:
        raise InputError(f"{path} cannot be read as a result of {PEER}: {error}") from None
    except Exception as error:  # whatever a damaged file leads to
        raise InputError(f"{path} is no result of {PEER}, or is damaged: {type(error).__name__}: {error}") from None


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        start = file.read(8)
    if start[:4] == b"HDF5" or start == b"\x89HDF\r\n\x1a\n":  # JLD2 has a block of its own in front
        return read_jld2_file(path)
    return read_torch_file(path)


def _pick(value: Any, key: str | int | None) -> dict[str, Any]:
    if key is not None:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            raise InputError(f"it holds no {key!r}{nearest(str(key), _entries(value))}") from None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict) and not _is_result(value):
        inside = [name for name, part in value.items() if isinstance(part, dict) and _is_result(part)]
        if len(inside) == 1:
            return value[inside[0]]
    if not isinstance(value, dict) or not _is_result(value):
        raise InputError(f"x and layerspec are needed; it holds {', '.join(_entries(value)) or 'nothing'}: give key")
    return value


def _is_result(value: dict[str, Any]) -> bool:
    return "x" in value and "layerspec" in value


def _entries(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [str(name) for name in value]
    return [str(place) for place in range(len(value))] if isinstance(value, list) else []


def _result(found: dict[str, Any], activations: Mapping[str, Activation]) -> TrainResult:
    layers = check_layers([(int(k), _activation(f, activations), bool(b)) for k, f, b in found["layerspec"]])
    fan_ins = [_array(found["x"]["w1"]).shape[1] - layers[0][2], *(width for width, _, _ in layers)]
    X = None if "input" not in found else _array(found["input"])
    if X is not None and layers[0][2] and not (X[-1] == 1).all():  # the user's own row in place of the biases'
        layers[0], fan_ins[0] = (*layers[0][:2], False), fan_ins[0] + 1
    shapes = [(fan_in, width, bias) for fan_in, (width, _, bias) in zip(fan_ins, layers, strict=False)]

    def flat(parameters: Any) -> np.ndarray:
        return Params.from_peer({name: _array(block) for name, block in parameters.items()}, shapes).flat

    phases = {name: _reason(found.get(f"{name}_stopped_by"), name) for name in ("ode", "optim")}
    ran = {"ode": "ode_x" in found, "optim": found.get("optim_iterations", 0) > 0}
    fields: dict[str, Any] = {}
    if ran["ode"]:
        fields.update(ode_x=flat(found["ode_x"]), ode_loss=_number(found, "ode_loss"), alg=PEER)
    if ran["optim"]:
        fields.update(optim_solver=PEER)
    for phase in [name for name in ran if ran[name]]:
        fields[f"{phase}_iterations"] = int(found.get(f"{phase}_iterations", 0))
        fields[f"{phase}_time_run"] = _number(found, f"{phase}_time_run")
        fields[f"{phase}_stopped_by"] = phases[phase]
    trajectory = found.get("trajectory")
    if trajectory:
        t = np.array(list(trajectory), float)
        x = np.array([flat(point) for point in trajectory.values()])
        loss = _array(found.get("loss_curve", np.full(len(t), np.nan)))
        fields["trajectory"] = Trajectory(t, x, loss, np.full(len(t), np.nan))
        fields["ode_t"] = float(t[-2] if ran["optim"] and ran["ode"] else t[-1])
    last = "optim" if ran["optim"] else "ode"
    said = found.get(f"{last}_stopped_by")
    ended = f", where the run ended by {said}" if isinstance(said, str) and said else ""
    x = flat(found["x"])
    own = (_number(found, "loss"), _number(found, "gnorm"))
    return TrainResult(
        x=x, loss=own[0], gnorm=own[1], data_loss=own[0], data_gnorm=own[1],
        init=flat(found["init"]) if "init" in found else np.full_like(x, np.nan),
        total_time=_number(found, "total_time"), nfev=0, njev=0, nhev=0, nhvp=0,
        status=REASONS.index(phases[last]),
        message=f"Read from a file of {PEER}{ended}.",
        layers=layers, versions={"written by": PEER}, provider=PEER, problem=_problem(layers, X, found),
        **fields,
    )  # fmt: skip


def _problem(layers: list[tuple[int, Activation, bool]], X: np.ndarray | None, found: dict[str, Any]) -> dict[str, Any]:
    if X is None or "target" not in found:
        return {}
    nll = layers[-1][1] == "softmax"
    Y = _array(found["target"])
    values = {
        "loss": "nll" if nll else "mse", "l2": 0, "maxnorm": math.inf, "merge": None, "output_factor": 1,
        "dtype": "float32" if X.dtype == np.float32 else "float64", "threads": None,
        "input": np.ascontiguousarray((X[:-1] if layers[0][2] else X).T),
        "target": Y - 1 if Y.ndim == 1 and nll else np.ascontiguousarray(Y.T),  # labels count from 1 there
    }  # fmt: skip
    if found.get("weights") is not None:
        values["weights"] = _array(found["weights"]).reshape(-1)
    return values


def _array(value: Any) -> np.ndarray:
    """An array, or a list of whole numbers, as labels are written."""
    if isinstance(value, list) and all(type(entry) is int for entry in value):
        return np.array(value)
    if not isinstance(value, np.ndarray):
        raise InputError(f"it has a {type(value).__name__} where an array should be")
    return value


def _activation(name: Any, activations: Mapping[str, Activation]) -> Activation:
    if isinstance(name, (list, tuple)) and all(isinstance(unit, str) for unit in name):
        return tuple(_activation(unit, activations) for unit in name)  # type: ignore[misc]
    if not isinstance(name, str):
        raise InputError(f"it has a {type(name).__name__} where an activation's name should be")
    if name in activations:
        return activations[name]
    if poly := re.fullmatch(r"Poly\{.*\}\(\((.*?),?\)\)", name):
        return Poly(*(float(c) for c in poly[1].split(",")))
    own = NAMES.get(name, name)
    if own not in ACTIVATIONS:
        raise InputError(f"it has the activation {name!r}{nearest(name, ACTIVATIONS)}; say what it is by activations=")
    return own


def _number(found: dict[str, Any], name: str) -> float:
    value = found.get(name)
    return math.nan if value is None else float(value)


def _reason(said: Any, phase: str) -> str:
    """The reason to stop that the text means; texts of Optim.jl and NLopt mean no progress."""
    text = said if isinstance(said, str) else ""
    if not text or text.startswith("t >"):
        return "maxT" if phase == "ode" else "patience"
    word = re.split(r"[^a-zA-Z_]", text)[0]
    named = {"maxiterations_ode": "maxiterations", "maxtime_ode": "maxtime", "maxeval": "maxiterations"}
    word = named.get(word, word)
    return word if word in REASONS else "patience"


def write_peer(result: TrainResult, path: str | os.PathLike[str]) -> Path:
    """Write a result in the format of MLPGradientFlow.jl's ``pickle``, for its ``unpickle`` and for ``torch.load``.

    Names are those of that package; ``x``, ``init`` and the trajectory have its layout (``[W b]`` for each layer), and
    samples are columns of the data, with a row of ones if the first layer has biases. Times remain those of this
    package. Returns the path. ``read_peer`` restores what such files hold. Losses and activations of your own, the
    correlation, logits and an ``output_factor`` have no place in them and are refused.
    """
    if not isinstance(result, TrainResult):
        raise InputError(f"result is {type(result).__name__}; a TrainResult is needed")
    _refuse_other_nets(result)
    shapes = result.params.layers

    def blocks(x: np.ndarray) -> dict[str, np.ndarray]:
        return Params(x, shapes).to_peer()

    values: dict[str, Any] = {
        "x": blocks(result.x), "init": blocks(result.init), "loss": result.data_loss, "gnorm": result.data_gnorm,
        "gnorm_regularized": result.gnorm, "converged": result.converged, "total_time": result.total_time,
        "layerspec": tuple((width, _name(f), bias) for width, f, bias in result.layers),
        "optim_iterations": result.optim_iterations or 0, "optim_time_run": result.optim_time_run or 0,
        "ode_iterations": result.ode_iterations or 0, "ode_time_run": result.ode_time_run or 0.0,
    }  # fmt: skip
    for name in ("ode_stopped_by", "optim_stopped_by", "ode_loss"):
        if getattr(result, name) is not None:
            values[name] = getattr(result, name)
    if result.ode_x is not None:
        values["ode_x"] = blocks(result.ode_x)
    if result.trajectory is not None:
        points = zip(result.trajectory.t, result.trajectory.x, strict=True)
        values["trajectory"] = {float(t): blocks(x) for t, x in points}
        values["loss_curve"] = result.trajectory.loss
    if "input" in result.problem:
        X, Y = result.problem["input"], result.problem["target"]
        ones = [np.ones((1, len(X)), X.dtype)] if result.layers[0][2] else []
        values["input"] = np.concatenate([X.T, *ones])
        labels = result.problem["loss"] == "nll" and Y.ndim == 1
        values["target"] = [int(label) + 1 for label in Y] if labels else np.atleast_2d(Y.T)
        if "weights" in result.problem:
            values["weights"] = result.problem["weights"]
    return write_atomically(Path(path), lambda file: write_torch_file(file, values))


def _refuse_other_nets(result: TrainResult) -> None:
    """An error for nets that mean something else, or nothing, to MLPGradientFlow.jl."""
    loss, factor = result.problem.get("loss", "mse"), result.problem.get("output_factor", 1)
    softmax = result.layers[-1][1] == "softmax"
    if loss not in ("mse", "nll") or (loss == "nll" and not softmax):
        what = "logits with the loss 'nll': end the net with softmax" if loss == "nll" else f"the loss {loss!r}"
        raise InputError(f"MLPGradientFlow.jl's files cannot hold {what}")
    if factor != 1:
        raise InputError(
            f"MLPGradientFlow.jl's files cannot hold output_factor={factor}: multiply the output layer's weights by it"
        )
    for code in code_in(result.layers):
        raise InputError(f"MLPGradientFlow.jl's files cannot hold the activation {code!r}")


def _name(activation: Any) -> Any:
    if isinstance(activation, tuple):
        return [_name(unit) for unit in activation]
    if isinstance(activation, Poly):
        inside = ", ".join(map(str, activation.coefficients))
        comma = "," if len(activation.coefficients) == 1 else ""
        return f"Poly{{{len(activation.coefficients)}, Float64}}(({inside}{comma}))"
    if isinstance(activation, (Derivative, Inside, Sharp, Tail)):
        raise InputError("the peer has no units of limit networks")
    return "sigmoid_fast" if activation == "sigmoid" else activation
