"""One run of a sweep, in a worker."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..network.net import Net
from ..results.load import load
from ..results.problem import data_file, without_data
from ..results.result import TrainResult
from ..solve.go_on import go_on, limited_phase
from ..solve.train import train
from .settings import seed_of, settings_of, split
from .wire import wire

__all__ = ["Run", "Task", "remember", "run_one", "save"]


@dataclass(frozen=True)
class Run:
    """One run of a sweep: its ``result``, or the ``error`` and ``traceback`` with which it ended.

    ``index`` is its place among the seeds, parameters or grid points; ``seed`` is None if the run began from given
    parameters; ``resumed`` says whether it was read from the directory. ``settings`` are those of the grid, or the
    seed.
    """

    index: int
    seed: int | None
    result: TrainResult | None
    error: str | None = None
    traceback: str | None = None
    resumed: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What all runs share, as sent to the workers; they save results if there is a ``directory``.

    ``problem`` is None if only a directory was given; then only runs that a limit ended can continue.
    """

    problem: Net | Callable[..., Any] | None
    options: dict[str, Any]
    directory: Path | None
    continue_unconverged: bool = False
    allow_code: bool = False

    def limited(self, result: TrainResult, point: Any) -> bool:
        """Whether a limit ended the run and it is to be continued."""
        _, options = self.parts(point)
        return self.continue_unconverged and limited_phase(result, options) is not None

    def parts(self, point: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments of the function for a grid point, and the options of ``train``."""
        if not isinstance(point, dict):
            return {}, self.options
        if self.problem is None:
            return {}, {**self.options, **{name: v for name, v in point.items() if name in OPTIONS and name != "seed"}}
        own, others = split(self.problem, point, OPTIONS)
        return own, {**self.options, **others}


#: keywords of ``train`` that a sweep has too
OPTIONS = tuple(
    name
    for name in inspect.signature(train).parameters
    if name not in ("net", "p", "verbosity") and not name.startswith("checkpoint")
)

#: a worker's task: key, pickled, and unpickled at its first run
_task: dict[str, Any] = {"key": None, "pickled": None, "task": None}


def remember(key: str, pickled: bytes) -> None:
    """Give this worker its task."""
    if _task["key"] != key:
        _task.update(key=key, pickled=pickled, task=None)


def run_one(
    key: str, pickled: bytes | None, index: int, name: str, point: Any, before: TrainResult | None = None
) -> Run:
    """In a worker: one run, or the continuation of ``before``; an error becomes part of the answer."""
    seed, settings = seed_of(point), settings_of(point)
    try:
        if pickled is not None:
            remember(key, pickled)
        if _task["task"] is None:
            _task["task"] = pickle.loads(_task["pickled"])
        task: Task = _task["task"]
        folder = task.directory
        if folder is not None and before is None and (folder / name).exists():
            before = load(folder / name)
            if not task.limited(before, point):  # saved, but the answer got lost
                return Run(index, seed, before, settings=settings)
        _, options = task.parts(point)
        if before is None:
            net, start = _begin(task, point)
            result = train(net, start, verbosity=0, **options)
            result = dataclasses.replace(result, seed=seed, settings={k: wire(v) for k, v in settings.items()})
        else:
            net = _net_of(before, task.allow_code) if task.problem is None else _begin(task, point)[0]
            result = go_on(net, before, verbosity=0, **options)
        if "interrupted" in (result.ode_stopped_by, result.optim_stopped_by):
            raise KeyboardInterrupt("the run was interrupted")
        if folder is not None:
            save(result, folder, name)
        if folder is not None or isinstance(task.problem, Net):  # the parent has the data, or finds them in the folder
            result = dataclasses.replace(result, problem=without_data(result.problem))
        return Run(index, seed, result, settings=settings)
    except (Exception, KeyboardInterrupt) as error:
        why = f"{type(error).__name__}: {error}"
        return Run(index, seed, None, why, traceback.format_exc(), settings=settings)


def _begin(task: Task, point: Any) -> tuple[Net, Any]:
    """The net of a run, and its initial parameters."""
    if isinstance(task.problem, Net):
        net, start = task.problem, None
    elif task.problem is None:
        raise InputError("this run is missing in the folder: give the net, or the function that makes it, to begin it")
    else:
        made: Any = task.problem(**task.parts(point)[0]) if isinstance(point, dict) else task.problem(point)
        net, start = made if isinstance(made, tuple) else (made, None)
    if start is None:
        start = point.get("seed", 0) if isinstance(point, dict) else point
    return net, net.random_params(seed=start) if isinstance(start, int) else start


def _net_of(result: TrainResult, allow_code: bool) -> Net:
    """The net of a result, with the number of threads of this process."""
    problem = {name: value for name, value in result.problem.items() if name != "threads"}
    return dataclasses.replace(result, problem=problem).net(allow_code=allow_code)


def save(result: TrainResult, folder: Path, name: str) -> None:
    """Save a result, and the data of its net once for all results that share them."""
    if "input" in result.problem:
        data_file(result.problem, folder)
    result.save(folder / name, data=False)
