"""Many runs: from many initial points, in many processes, streamed as they finish and resumed where they stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import os
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, KeywordError
from ..files import write_atomically
from ..landscape.symmetry import DistinctMinima, distinct_minima
from ..network.net import Net
from ..network.params import Params
from ..proof.certificate import Certificate
from ..proof.certify import certify
from ..results.load import load
from ..results.problem import data_file, describe
from ..results.result import TrainResult
from ..solve.progress import Line
from ..solve.train import train
from ..validate.suggest import nearest
from .run import Run, Task, run_one

__all__ = ["Sweep", "sweep"]

SCHEMA = 1


class SweepLine(Line):
    """How many of ``total`` runs have finished."""

    def __init__(self, verbosity: int, total: int) -> None:
        super().__init__(verbosity, 0.5)
        self._total = total

    def update(self, runs: list[Run]) -> None:
        """Show the state, at most every half second."""
        seconds = self.due()
        if seconds is not None:
            losses = [run.result.loss for run in runs if run.result is not None]
            failed = f", {len(runs) - len(losses)} failed" if len(losses) < len(runs) else ""
            lowest = f"  lowest loss {min(losses):.6g}" if losses else ""
            self.show(f"sweep: {len(runs)} of {self._total} runs{failed}{lowest}  [{seconds:.0f} s]")


class Sweep:
    """The runs of ``sweep``: iterate over it to get each ``Run`` as it finishes.

    The work is done while it is iterated over, or by ``runs``, ``table`` and the like, which wait for all. What has
    finished is kept, so that it can be iterated over again.
    """

    def __init__(
        self, task: Task, points: list[Any], executor: Executor | None, directory: Path | None, workers: int,
        verbosity: int,
    ) -> None:  # fmt: skip
        self._points, self._directory = points, directory
        self._names = [_file_name(point) for point in points]
        self._problem = task.problem
        self._finished: list[Run] = []
        self._line = SweepLine(verbosity, len(points))
        self._begin = functools.partial(self._start, task, executor, workers)
        self._work: Iterator[Run] | None = self._begin()

    def _start(self, task: Task, executor: Executor | None, workers: int) -> Iterator[Run]:
        todo = []
        finished = {run.index for run in self._finished}
        for index, (point, name) in enumerate(zip(self._points, self._names, strict=True)):
            if index in finished:
                continue
            result = self._found(name)
            if result is None:
                todo.append(index)
            else:
                yield Run(index, point if isinstance(point, int) else None, result, resumed=True)
        if not todo:
            return
        if self._directory is not None and isinstance(self._problem, Net) and "input" in describe(self._problem):
            data_file(describe(self._problem), self._directory)
        if executor is None:
            from .pool import run_in_processes

            task = dataclasses.replace(task, directory=self._directory)
            jobs = [(index, self._names[index], self._points[index]) for index in todo]
            yield from run_in_processes(_pickled(task), jobs, min(workers, len(jobs)))
        else:
            yield from self._run_elsewhere(executor, _pickled(task), todo)

    def _found(self, name: str) -> TrainResult | None:
        if self._directory is None:
            return None
        try:
            return load(self._directory / name)
        except InputError:  # not there, or damaged
            return None

    def _run_elsewhere(self, executor: Executor, pickled: bytes, todo: list[int]) -> Iterator[Run]:
        key = hashlib.sha256(pickled).hexdigest()
        flying: dict[Future[Run], int] = {}
        try:
            for i in todo:
                flying[executor.submit(run_one, key, pickled, i, self._names[i], self._points[i])] = i
            for future in as_completed(flying):
                index = flying[future]
                try:
                    run = future.result()
                except Exception as error:  # the executor's own: a worker that died, a task that cannot be sent
                    seed = self._points[index] if isinstance(self._points[index], int) else None
                    run = Run(index, seed, None, f"{type(error).__name__}: {error}", traceback.format_exc())
                if run.result is not None and self._directory is not None:
                    run.result.save(self._directory / self._names[index])
                yield run
        finally:
            for future in flying:
                future.cancel()

    def __iter__(self) -> Iterator[Run]:
        position = 0
        while position < len(self._finished) or self._advance():
            yield self._finished[position]
            position += 1

    def _whole(self, run: Run) -> Run:
        """The run with the data that all runs share."""
        if run.result is None or not isinstance(self._problem, Net):
            return run
        return dataclasses.replace(run, result=dataclasses.replace(run.result, problem=describe(self._problem)))

    def _advance(self) -> bool:
        """Wait for the next run; false when there is none."""
        if self._work is None:
            return False
        try:
            run = next(self._work, None)
            if run is not None:
                self._finished.append(self._whole(run))
        except BaseException:  # such as Ctrl-C: the next iteration goes on from here
            self._work = self._begin()
            self._line.end()
            raise
        if run is None and len(self._finished) < len(self):  # a second Ctrl-C came in between
            self._work = self._begin()
            return self._advance()
        if run is None:
            self.close()
            return False
        self._line.update(self._finished)
        return True

    def close(self) -> None:
        """Stop: what runs is given up; what has finished is kept."""
        if self._work is not None:
            self._work.close()  # type: ignore[attr-defined]
        self._work = None
        self._line.end()

    def __enter__(self) -> Sweep:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._points)

    def __repr__(self) -> str:
        failed = sum(run.result is None for run in self._finished)
        return f"Sweep({len(self._finished)} of {len(self)} runs finished, {failed} failed)"

    @property
    def runs(self) -> list[Run]:
        """All runs, in the order of the seeds or parameters; waits for them."""
        return sorted(self, key=lambda run: run.index)

    @property
    def failures(self) -> list[Run]:
        """The runs that ended with an error; waits for all."""
        return [run for run in self.runs if run.result is None]

    @property
    def best(self) -> Run:
        """The run with the lowest loss; waits for all."""
        return min(self._successes(), key=lambda run: run.result.loss if run.result else np.inf)

    def _successes(self) -> list[Run]:
        successes = [run for run in self.runs if run.result is not None]
        if not successes:
            raise InputError("every run failed; the first one with " + str(self.runs[0].error))
        return successes

    def table(self) -> list[dict[str, Any]]:
        """One dictionary of numbers and strings for each run, with the same keys, for ``pandas.DataFrame``."""
        names = (
            "loss", "gnorm", "data_loss", "converged", "ode_stopped_by", "ode_t", "ode_iterations", "ode_loss",
            "optim_stopped_by", "optim_iterations", "nfev", "njev", "nhev", "nhvp", "total_time", "alg", "optim_solver",
        )  # fmt: skip
        return [
            {
                "index": run.index,
                "seed": run.seed,
                **{name: getattr(run.result, name, None) for name in names},
                "error": run.error,
            }
            for run in self.runs
        ]

    def to_frame(self) -> Any:
        """``table`` as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.table()).set_index("index")

    def distinct_minima(self, net: Net | None = None, tolerance: float = 1e-4) -> DistinctMinima:
        """Which runs found the same minimum (see ``pymlpgf.distinct_minima``); counted are those without an error.

        A sweep over a factory needs a ``net`` for the shape and the loss.
        """
        if net is None:
            if not isinstance(self._problem, Net):
                raise InputError("net is needed, since this sweep made one for each run")
            net = self._problem
        return distinct_minima(net, [run.result for run in self._successes()], tolerance)

    def certificates(self, net: Net | None = None, tolerance: float = 1e-4, **options: Any) -> list[Certificate]:
        """``certify`` of the best run of each group of ``distinct_minima``, lowest loss first; some may have no proof.

        ``mg.distinct`` of those with a proof says how many different minima there are at least. ``options`` are
        keywords of ``certify``.
        """
        groups = self.distinct_minima(net, tolerance)
        about: Any = self._problem if net is None else net
        runs = self._successes()
        return [certify(about, runs[i].result, **options) for i in groups.representatives]


def sweep(
    net_or_factory: Net | Callable[[int], Any],
    seeds_or_params: Sequence[Any],
    executor: Executor | None = None,
    directory: str | os.PathLike[str] | None = None,
    *,
    max_workers: int | None = None,
    verbosity: int = 1,
    **train_options: Any,
) -> Sweep:
    """Train from many initial points.

    Parameters
    ----------
    net_or_factory : Net, or function of a seed
        A function returns a Net, or a Net and initial parameters; it must be importable by the workers.
    seeds_or_params : sequence of ints, or of arrays of shape (n_params,)
        All different. A seed stands for ``net.random_params(seed)``.
    executor : concurrent.futures.Executor, optional
        Default a pool of processes on this machine, each with one Julia thread. On a cluster
        ``dask.distributed.Client(…).get_executor()``, whose workers need one thread each.
    directory : path, optional
        Where each result is saved as soon as it is there. A sweep over a directory with results runs what is missing;
        failed runs are tried again. It belongs to one net and one set of options.
    max_workers : int, optional
        Processes of the default pool; default the number of processors.
    verbosity : 0, 1 or 2
        No progress line, one on terminals and in notebooks after a second, or always.
    **train_options
        Keywords of ``train``.

    Returns
    -------
    Sweep
        Iterate over it for each ``Run`` as it finishes. A run that raises is a ``Run`` with an ``error``; so is one
        that ends its process twice (the pool is renewed).

    Raises
    ------
    InputError
        For points that do not fit or repeat, a directory of another sweep, or a function that cannot be pickled.

    Notes
    -----
    Processes are started with the "spawn" method, which imports the main script anew: begin it with
    ``if __name__ == "__main__":``. Results are the same for every number of workers as long as no run is ended by a
    time limit.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", False)], input=[[1.0]], target=[2.0])
    >>> with mg.sweep(net, range(50), maxT=10, directory="runs") as runs:          # doctest: +SKIP
    ...     for run in runs:
    ...         print(run.seed, run.result.loss if run.result else run.error)
    >>> runs.to_frame().sort_values("loss")                                       # doctest: +SKIP
    """
    known = [name for name in inspect.signature(train).parameters if name not in ("net", "p", "verbosity")]
    for name in train_options:
        if name not in known or name.startswith("checkpoint"):
            raise KeywordError(f"sweep has no keyword {name!r}{nearest(name, known)}")
    if not isinstance(net_or_factory, Net) and not callable(net_or_factory):
        raise InputError(f"net_or_factory is {type(net_or_factory).__name__}; a Net or a function of a seed is needed")
    if max_workers is not None and (not isinstance(max_workers, int) or max_workers < 1):
        raise InputError(f"max_workers is {max_workers!r}; a positive whole number is needed")
    points = _points(net_or_factory, seeds_or_params)
    folder = None if directory is None else _claim(Path(directory), net_or_factory, train_options)
    task = Task(net_or_factory, train_options, None)
    _pickled(task)
    return Sweep(task, points, executor, folder, max_workers or _processors(), verbosity)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _points(problem: Any, given: Any) -> list[Any]:
    """Seeds as ints, parameters as arrays; all different."""
    if isinstance(given, (int, np.integer, str, Params)) or not hasattr(given, "__iter__"):
        raise InputError(f"seeds_or_params is {given!r}; a sequence is needed, such as range(50)")
    points: list[Any] = []
    for number, point in enumerate(given):
        if isinstance(point, (int, np.integer)) and not isinstance(point, bool):
            if not 0 <= point < 2**64:
                raise InputError(f"the seed {point} is not a whole number from 0 to 2**64 - 1")
            points.append(int(point))
        elif isinstance(problem, Net):
            x = problem._flat(getattr(point, "x", point), f"entry {number} of seeds_or_params").copy()
            if not np.isfinite(x).all():
                raise InputError(f"entry {number} of seeds_or_params contains NaN or infinite entries")
            points.append(x)
        else:
            raise InputError("a function makes its own parameters: give it seeds")
    if not points:
        raise InputError("seeds_or_params is empty")
    names = [_file_name(point) for point in points]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise InputError(f"entries {names.index(name)} and {number} of seeds_or_params are the same")
    return points


def _file_name(point: Any) -> str:
    if isinstance(point, int):
        return f"seed-{point:05d}.npz"
    return f"params-{hashlib.sha256(point.tobytes()).hexdigest()[:16]}.npz"


def _pickled(task: Task) -> bytes:
    # Here, in the thread that calls: an executor would do it in a thread of its own, and once for every run.
    try:
        return pickle.dumps(task)
    except Exception as error:
        raise InputError(f"the sweep cannot be sent to other processes: {error}") from None


def _claim(directory: Path, problem: Any, options: dict[str, Any]) -> Path:
    """Mark ``directory`` as that of this sweep, or check that it is."""
    identity = problem._fingerprint() if isinstance(problem, Net) else _name(problem)
    mine = {"schema": SCHEMA, "type": "pymlpgf.Sweep", "net": identity, "options": _plain(options)}
    path = directory / "sweep.json"
    if path.exists():
        theirs: Any = None
        with contextlib.suppress(ValueError):
            theirs = json.loads(path.read_text())
        if not isinstance(theirs, dict) or theirs.get("type") != "pymlpgf.Sweep":
            raise InputError(f"{path} is no file of a sweep, or is damaged: choose another directory")
        if theirs["schema"] > SCHEMA:
            raise InputError(f"{path} was written by a newer pymlpgf: update pymlpgf to go on")
        for name in ("net", "options"):
            if theirs[name] != mine[name]:
                given = f"{theirs[name]} there, {mine[name]} now" if name == "options" else "their fingerprints differ"
                raise InputError(f"{directory} holds a sweep with other {name} ({given}): choose another directory")
    else:
        write_atomically(path, lambda file: file.write(json.dumps(mine, indent=1).encode()))
    return directory


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON gives them back."""
    plain: dict[str, Any] = {}
    for name, value in sorted(options.items()):
        if isinstance(value, (np.ndarray, list, tuple, Params)):
            plain[name] = hashlib.sha256(np.asarray(value, np.float64).tobytes()).hexdigest()
        elif callable(value):
            plain[name] = _name(value)
        else:
            plain[name] = value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
    return json.loads(json.dumps(plain))


def _name(function: Any) -> str:
    """The same in every process, unlike its ``repr``."""
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
