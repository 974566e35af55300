"""Long runs that survive the end of their process: checkpoints, and ``resume``."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .activations import Activation, activation_from_json, activation_to_json, code_in
from .data import real_number
from .errors import InputError
from .files import npz_path, write_atomically
from .net import Net
from .result import SCHEMA, TrainResult, load

if TYPE_CHECKING:
    from .progress import ProgressLine
    from .runtime.bridge import Report

__all__ = ["Checkpoint", "Checkpointer", "resume"]


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """Where a run was: what ``pymlpgf.load`` returns for a file of ``train(…, checkpoint=path)`` that has not ended.

    Attributes
    ----------
    x, init : arrays (n_params,)
        The point, and where the run began.
    phase : "flow" or "minimize"
    what : "flow", "minimize" or "train"
        What was called.
    t : float
        Time of the flow.
    loss, gnorm : float
    iterations, seconds : dict
        Iterations and seconds spent in each phase.
    options : dict
        The keywords of the call; ``tauinv`` (n_params,) apart from them if it is an array.
    layers : list of (width, activation, bias)
    net : dict
        Data and settings of the net.
    functions : tuple of str
        Which functions of the user's the run had ("callback", "event", …): they are not saved.
    versions : dict
    """

    x: np.ndarray
    init: np.ndarray
    phase: str
    what: str
    t: float
    loss: float
    gnorm: float
    iterations: dict[str, int]
    seconds: dict[str, float]
    options: dict[str, Any]
    layers: list[tuple[int, Activation, bool]]
    net: dict[str, Any]
    versions: dict[str, str]
    tauinv: np.ndarray | None = None
    functions: tuple[str, ...] = ()

    def __repr__(self) -> str:
        where = f"t={self.t:.4g}" if self.phase == "flow" else f"iteration {self.iterations['minimize']}"
        return f"Checkpoint({self.what}: {self.phase} at {where}, loss={self.loss:.6g}, gnorm={self.gnorm:.2g})"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write an .npz file with a JSON header; it appears whole or not at all."""
        arrays: dict[str, Any] = {}
        header: dict[str, Any] = {"schema": SCHEMA, "type": "pymlpgf.Checkpoint"}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                arrays[field.name] = value
            elif field.name == "net":
                arrays.update({f"net.{name}": a for name, a in value.items() if isinstance(a, np.ndarray)})
                header["net"] = {name: a for name, a in value.items() if not isinstance(a, np.ndarray)}
            else:
                header[field.name] = value
        header["layers"] = [(width, activation_to_json(f), bias) for width, f, bias in self.layers]
        arrays["header"] = np.array(json.dumps(header))
        return write_atomically(npz_path(path), lambda file: np.savez(file, **arrays))

    @classmethod
    def read(cls, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Checkpoint:
        """From the parts of a file."""
        header["layers"] = [(width, activation_from_json(f), bias) for width, f, bias in header["layers"]]
        header["functions"] = tuple(header["functions"])
        for name in [name for name in arrays if name.startswith("net.")]:
            header["net"][name[len("net.") :]] = arrays.pop(name)
        fields: dict[str, Any] = {**header, **arrays}
        return cls(**fields)

    def make_net(self, allow_code: bool = False) -> Net:
        """The net, with its data. An activation that is Julia code is only compiled if ``allow_code`` is set.

        Set it for files that you trust: the code may do whatever Julia can.
        """
        code = code_in(self.layers)
        if code and not allow_code:
            raise InputError(
                f"the file holds Julia code as an activation, {code[0]!r}: "
                "give the net, or allow_code=True if you trust it"
            )
        settings = dict(self.net)
        merge = settings.pop("merge")
        return Net(self.layers, merge=None if merge is None else [tuple(entry) for entry in merge], **settings)


class Checkpointer:
    """Writes checkpoints of one run, and in the end its result, to ``path``."""

    def __init__(
        self, path: Any, interval: Any, net: Net, what: str, x: np.ndarray, options: dict[str, Any], tauinv: Any,
        functions: tuple[str, ...] = (), before: Checkpoint | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"checkpoint is {path!r}; a path is needed")
        if not real_number(interval) > 0:
            raise InputError(f"checkpoint_interval is {interval!r}; a positive number of seconds is needed")
        from . import __version__, runtime

        self.path, self._interval, self._before = npz_path(path), float(interval), before
        self._dtype, self._size = net.dtype, net.n_params
        phase = "minimize" if what == "minimize" else "flow"
        self._state = before or Checkpoint(
            x=x.copy(), init=x.copy(), phase=phase, what=what, t=0.0, loss=np.inf, gnorm=np.inf,
            iterations={"flow": 0, "minimize": 0}, seconds={"flow": 0.0, "minimize": 0.0}, options=options,
            layers=net.layers, net=_describe(net), tauinv=None if tauinv is None else np.array(tauinv),
            functions=functions,
            versions={"pymlpgf": __version__, "julia": runtime.info()["version"], "numpy": np.__version__},
        )  # fmt: skip
        self._start = self._state
        self._clock, self._begin = time.perf_counter(), {phase: time.perf_counter()}
        self._warned = False
        self._state.save(self.path)  # what cannot be written fails now, not after an hour

    @classmethod
    def of(
        cls, path: Any, interval: Any, net: Net, what: str, x: np.ndarray, options: dict[str, Any], tauinv: Any,
        functions: dict[str, Any],
    ) -> Checkpointer:  # fmt: skip
        """``path`` itself if it is a Checkpointer: that of a run which is resumed."""
        if isinstance(path, cls):
            return path
        given = tuple(name for name, function in functions.items() if function is not None)
        return cls(path, interval, net, what, x, options, tauinv, given)

    def after(self, line: ProgressLine) -> Report:
        """A report that shows the state and then saves it."""

        def report(phase: str, iteration: int, t: float, loss: float, gnorm: float, address: int | None) -> None:
            line.update(phase, iteration, t, loss, gnorm)
            self.update(phase, iteration, t, loss, gnorm, address)

        return report

    def update(self, phase: str, iteration: int, t: float, loss: float, gnorm: float, address: int | None) -> None:
        """A solver's report; ``address`` is that of the point."""
        now = time.perf_counter()
        begin = self._begin.setdefault(phase, now)
        if now - self._clock < self._interval or not address:
            return
        self._clock = now
        kind = ctypes.c_float if self._dtype == np.float32 else ctypes.c_double
        x = np.array((kind * self._size).from_address(address), self._dtype)
        self._write(phase, iteration, t, loss, gnorm, x, now - begin)

    def _write(
        self, phase: str, iteration: int, t: float, loss: float, gnorm: float, x: np.ndarray, seconds: float
    ) -> None:
        start = self._start
        self._state = dataclasses.replace(
            start, x=x, phase=phase, loss=loss, gnorm=gnorm,
            t=start.t + t if phase == "flow" else self._state.t,
            iterations={**self._state.iterations, phase: start.iterations[phase] + iteration},
            seconds={**self._state.seconds, phase: start.seconds[phase] + seconds},
        )  # fmt: skip
        self._save(self._state)

    def _save(self, what: Checkpoint | TrainResult) -> None:
        try:
            what.save(self.path)
        except OSError as error:  # a full disk must not cost the run
            if not self._warned:
                warnings.warn(f"{self.path} could not be written: {error}", RuntimeWarning, stacklevel=2)
            self._warned = True

    def finish(self, result: TrainResult) -> TrainResult:
        """Put the result in the place of the checkpoint; a run that was interrupted leaves one where it was."""
        if self._before is not None:
            result = _continued(result, self._before)
        if "interrupted" in (result.ode_stopped_by, result.optim_stopped_by):
            flow = result.optim_stopped_by is None
            t = (result.ode_t or 0.0) - self._start.t
            iterations = (result.ode_iterations if flow else result.optim_iterations) or 0
            phase = "flow" if flow else "minimize"
            seconds = (result.ode_time_run if flow else result.optim_time_run) or 0.0
            self._write(
                phase, iterations - self._start.iterations[phase], t, result.loss, result.gnorm, result.x,
                seconds - self._start.seconds[phase],
            )  # fmt: skip
        else:
            self._save(result)
        return result


def _describe(net: Net) -> dict[str, Any]:
    """What ``Net`` needs besides layers; of a net without samples ``resume`` has to be given the net."""
    if type(net) is not Net:
        return {}
    merge = net._settings["merge"]
    values: dict[str, Any] = {**net._settings, "dtype": net.dtype.name, "threads": net._threads}
    values["merge"] = [merge] if isinstance(merge, tuple) else merge
    if net._kept is None:
        return {**values, "n_features": net.n_features}
    X, Y, w = net._kept
    values.update(input=X, target=Y - 1 if Y.ndim == 1 else Y)
    return values if w is None else {**values, "weights": w}


def _continued(result: TrainResult, before: Checkpoint) -> TrainResult:
    """``result`` of the last part of a run as one of the whole run."""
    changes: dict[str, Any] = {
        "init": before.init,
        "total_time": result.total_time + sum(before.seconds.values()),
    }
    if result.ode_stopped_by is not None:
        assert result.ode_t is not None
        assert result.ode_iterations is not None
        assert result.ode_time_run is not None
        changes.update(
            ode_t=result.ode_t + before.t,
            ode_iterations=result.ode_iterations + before.iterations["flow"],
            ode_time_run=result.ode_time_run + before.seconds["flow"],
        )
        if result.trajectory is not None:
            shifted = dataclasses.replace(result.trajectory, t=result.trajectory.t + before.t)
            changes["trajectory"] = shifted
        if result.sol is not None:
            changes["sol"] = dataclasses.replace(result.sol, t=result.sol.t + before.t)
    if before.phase == "minimize" and result.optim_iterations is not None and result.optim_time_run is not None:
        changes.update(
            optim_iterations=result.optim_iterations + before.iterations["minimize"],
            optim_time_run=result.optim_time_run + before.seconds["minimize"],
        )
    return dataclasses.replace(result, **changes)


def resume(
    path: str | os.PathLike[str],
    net: Net | None = None,
    *,
    callback: Any = None,
    event: Any = None,
    schedule: Any = None,
    observables: Any = None,
    allow_code: bool = False,
    checkpoint_interval: float = 30,
    verbosity: int = 1,
    progress_interval: float = 1.0,
) -> TrainResult:
    """Go on with a run that wrote checkpoints to ``path``, from the last one, and go on writing them there.

    Parameters
    ----------
    path : path
        Of ``train``, ``flow`` or ``minimize`` with ``checkpoint=path``.
    net : Net, optional
        The file has the net with its data, which serves by default.
    callback, event, schedule, observables
        As for ``train``, and needed if the run had them, since functions are not saved; a ``schedule`` only if it was a
        function, which is then called with the number of the step from the beginning of the run.
    allow_code : bool
        Compile an activation that the file holds as Julia code; without it the net must be given.
    checkpoint_interval, verbosity, progress_interval
        As for ``train``.

    Returns
    -------
    TrainResult
        Times, iterations and limits count from the beginning of the run; the trajectory and the dense solution begin at
        the checkpoint. If the run had finished, its result. What a solver had learnt of the landscape (step size, trust
        radius, momentum) is learnt anew.

    Raises
    ------
    InputError
        If there is no checkpoint, ``net`` is another one, or a function is missing.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> res = mg.train(net, p, checkpoint="run.npz")        # doctest: +SKIP
    >>> res = mg.resume("run.npz")                          # doctest: +SKIP
    """
    from .training import _solve

    saved = load(path)
    if isinstance(saved, TrainResult):
        return saved
    if net is None:
        if not saved.net:
            raise InputError(f"{os.fspath(path)} holds no net: give it as net")
        net = saved.make_net(allow_code)
    elif net.layers != saved.layers or net.n_params != len(saved.x):
        raise InputError(f"net has the layers {net.layers}; the run of {os.fspath(path)} had {saved.layers}")
    elif saved.net and isinstance(net, Net) and net._fingerprint() != saved.make_net(allow_code=True)._fingerprint():
        # with the very layers of the net that was given: no other code
        raise InputError(f"net has other data, loss or regularisers than the run of {os.fspath(path)}")
    functions = {"event": event, "schedule": schedule, "observables": observables}
    given = {**functions, "callback": callback}
    missing = [name for name in saved.functions if given[name] is None]
    if missing:
        raise InputError(f"the run of {os.fspath(path)} had {' and '.join(missing)}: give the same again")
    options = {**saved.options, "first_step": saved.iterations["flow"]}
    for name, spent in (
        ("maxtime_ode", saved.seconds["flow"]),
        ("maxiterations_ode", saved.iterations["flow"]),
        ("maxT", saved.t),
        ("maxtime_optim", saved.seconds["minimize"]),
        ("maxiterations_optim", saved.iterations["minimize"]),
    ):
        if name in options:
            options[name] = max(0.0, options[name] - spent)
    what = saved.what if saved.phase == "flow" else "minimize"
    tauinv = saved.tauinv if saved.tauinv is not None else options.pop("tauinv", 1)
    writer = Checkpointer(path, checkpoint_interval, net, what, saved.x, options, tauinv, before=saved)
    return _solve(
        what, net, saved.x, options, tauinv, verbosity, progress_interval, writer, callback=callback,
        **(functions if saved.phase == "flow" else {}),
    )  # fmt: skip
