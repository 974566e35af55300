"""One run of a sweep, as a worker does it."""

from __future__ import annotations

import dataclasses
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..network.net import Net
from ..results.load import load
from ..results.problem import without_data
from ..results.result import TrainResult
from ..solve.train import train

__all__ = ["Run", "Task", "remember", "run_one"]


@dataclass(frozen=True)
class Run:
    """One run of a sweep: its ``result``, or the ``error`` and ``traceback`` that it ended with.

    ``index`` is its place among the seeds or parameters, ``seed`` None if it began from given parameters, and
    ``resumed`` tells whether it was read from the directory.
    """

    index: int
    seed: int | None
    result: TrainResult | None
    error: str | None = None
    traceback: str | None = None
    resumed: bool = False


@dataclass(frozen=True)
class Task:
    """What all runs share, as it goes to the workers; ``directory`` if they are to save what they find."""

    problem: Net | Callable[[int], Any]
    options: dict[str, Any]
    directory: Path | None


#: a worker's task: key, pickled, and unpickled at its first run
_task: dict[str, Any] = {"key": None, "pickled": None, "task": None}


def remember(key: str, pickled: bytes) -> None:
    """Give this worker its task."""
    if _task["key"] != key:
        _task.update(key=key, pickled=pickled, task=None)


def run_one(key: str, pickled: bytes | None, index: int, name: str, point: Any) -> Run:
    """In a worker: one run, with whatever goes wrong as part of the answer."""
    seed = point if isinstance(point, int) else None
    try:
        if pickled is not None:
            remember(key, pickled)
        if _task["task"] is None:
            _task["task"] = pickle.loads(_task["pickled"])
        task: Task = _task["task"]
        if task.directory is not None and (task.directory / name).exists():  # saved, but the answer got lost
            return Run(index, seed, load(task.directory / name))
        net: Any = task.problem
        start = point
        if not isinstance(net, Net):
            made = net(point)
            net, start = made if isinstance(made, tuple) else (made, point)
        if isinstance(start, int):
            start = net.random_params(seed=start)
        result = dataclasses.replace(train(net, start, verbosity=0, **task.options), seed=seed)
        if "interrupted" in (result.ode_stopped_by, result.optim_stopped_by):
            raise KeyboardInterrupt("the run was interrupted")
        shared = isinstance(task.problem, Net)  # the data of all runs, which the parent has and keeps once
        if shared:
            result = dataclasses.replace(result, problem=without_data(result.problem))
        if task.directory is not None:
            result.save(task.directory / name)
        return Run(index, seed, result)
    except (Exception, KeyboardInterrupt) as error:
        return Run(index, seed, None, f"{type(error).__name__}: {error}", traceback.format_exc())
