"""Write where a run is, while it lasts."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import time
import warnings
from typing import Any

import numpy as np

from .. import runtime
from ..errors import InputError
from ..files import npz_path
from ..network.net import Net
from ..results.checkpoint import Checkpoint
from ..results.problem import describe
from ..results.result import TrainResult
from ..runtime.bridge import Report
from ..validate.data import real_number
from ..version import __version__
from .progress import ProgressLine

__all__ = ["Checkpointer"]


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
        self.path, self._interval, self._before = npz_path(path), float(interval), before
        self._dtype, self._size = net.dtype, net.n_params
        phase = "minimize" if what == "minimize" else "flow"
        self._state = before or Checkpoint(
            x=x.copy(), init=x.copy(), phase=phase, what=what, t=0.0, loss=np.inf, gnorm=np.inf,
            iterations={"flow": 0, "minimize": 0}, seconds={"flow": 0.0, "minimize": 0.0}, options=options,
            layers=net.layers, net=describe(net), tauinv=None if tauinv is None else np.array(tauinv),
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
            path = result.trajectory
            within = path.within if before.t == 0 else np.full_like(path.within, np.nan)
            changes["trajectory"] = dataclasses.replace(path, t=path.t + before.t, within=within)
        if result.sol is not None:
            changes["sol"] = dataclasses.replace(result.sol, t=result.sol.t + before.t)
    if before.phase == "minimize" and result.optim_iterations is not None and result.optim_time_run is not None:
        changes.update(
            optim_iterations=result.optim_iterations + before.iterations["minimize"],
            optim_time_run=result.optim_time_run + before.seconds["minimize"],
        )
    return dataclasses.replace(result, **changes)
