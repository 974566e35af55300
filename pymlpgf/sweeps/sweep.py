"""Many runs, over initial points and settings: in many processes, streamed as they finish, resumed and continued."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pickle
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, KeywordError
from ..landscape.catalogue import Catalogue, minima_catalogue
from ..landscape.symmetry import DistinctMinima, distinct_minima
from ..network.net import Net
from ..proof.certificate import Certificate
from ..proof.certify import certify
from ..results.load import read
from ..results.problem import attach_data, data_file, describe
from ..results.result import TrainResult
from ..solve.go_on import LIMITS
from ..solve.progress import Line
from ..validate.data import is_whole
from ..validate.suggest import check_keywords, nearest
from .folder import claim, options_in, points_in, remember_points, whole_net
from .run import OPTIONS, Run, Task, run_one, save
from .settings import file_name, points_of_grid, points_of_seeds, seed_of, settings_of, split

__all__ = ["Sweep", "sweep"]


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

    The runs are made while the sweep is iterated over, or by ``runs``, ``table`` and the like, which wait for all of
    them. Finished runs are kept, so that a sweep can be iterated over again.
    """

    def __init__(
        self, task: Task, points: dict[int, Any], executor: Executor | None, directory: Path | None, workers: int,
        verbosity: int, threads: int = 1, read_only: bool = False,
    ) -> None:  # fmt: skip
        self._points, self._directory = points, directory
        self._names = {index: file_name(point) for index, point in points.items()}
        self._task, self._problem = task, task.problem
        self._finished: list[Run] = []
        self._known: dict[str, dict[str, Any]] = {}  # data that results share
        self._line = SweepLine(verbosity, len(points))
        self._read_only = read_only
        self._begin = functools.partial(self._start, executor, workers, threads)
        self._work: Iterator[Run] | None = self._begin()

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Sweep:
        """The runs that a directory holds, without Julia; missing runs are not made."""
        folder = Path(directory)
        task = Task(None, {}, None)
        return cls(task, dict(enumerate(points_in(folder))), None, folder, 1, 0, read_only=True)

    def _start(self, executor: Executor | None, workers: int, threads: int) -> Iterator[Run]:
        todo: dict[int, TrainResult | None] = {}
        finished = {run.index for run in self._finished}
        for index, point in self._points.items():
            if index in finished:
                continue
            result = self._found(self._names[index])
            if result is None or self._task.limited(result, point):
                # a worker that has the directory reads the result itself
                todo[index] = None if executor is None else result
            else:
                yield Run(index, seed_of(point), result, resumed=True, settings=settings_of(point))
        if self._read_only or not todo:
            return
        if self._directory is not None and isinstance(self._problem, Net) and "input" in describe(self._problem):
            data_file(describe(self._problem), self._directory)
        if executor is None:
            from .pool import run_in_processes

            task = dataclasses.replace(self._task, directory=self._directory)
            jobs = [(index, self._names[index], self._points[index]) for index in todo]
            yield from run_in_processes(_pickled(task), jobs, min(workers, len(jobs)), threads)
        else:
            yield from self._run_elsewhere(executor, _pickled(self._task), todo)

    def _found(self, name: str) -> TrainResult | None:
        if self._directory is None:
            return None
        try:
            return read(self._directory / name, self._known)
        except InputError:  # not there, or damaged
            return None

    def _run_elsewhere(self, executor: Executor, pickled: bytes, todo: dict[int, TrainResult | None]) -> Iterator[Run]:
        key = hashlib.sha256(pickled).hexdigest()
        flying: dict[Future[Run], int] = {}
        try:
            for i, before in todo.items():
                flying[executor.submit(run_one, key, pickled, i, self._names[i], self._points[i], before)] = i
            for future in as_completed(flying):
                index = flying[future]
                try:
                    run = future.result()
                except Exception as error:  # the executor's own: a worker that died, a task that cannot be sent
                    why, point = f"{type(error).__name__}: {error}", self._points[index]
                    run = Run(index, seed_of(point), None, why, traceback.format_exc(), settings=settings_of(point))
                result = self.is_whole(run).result
                if result is not None and self._directory is not None:
                    save(result, self._directory, self._names[index])
                yield run
        finally:
            for future in flying:
                future.cancel()

    def __iter__(self) -> Iterator[Run]:
        position = 0
        while position < len(self._finished) or self._advance():
            yield self._finished[position]
            position += 1

    def is_whole(self, run: Run) -> Run:
        """The run with the data of its net, which many runs share."""
        if run.result is None:
            return run
        if isinstance(self._problem, Net):
            problem = describe(self._problem)
        elif self._directory is not None:
            problem = attach_data(run.result.problem, self._directory / self._names[run.index], self._known)
        else:
            return run
        return dataclasses.replace(run, result=dataclasses.replace(run.result, problem=problem))

    def _advance(self) -> bool:
        """Wait for the next run; false when there is none."""
        if self._work is None:
            return False
        try:
            run = next(self._work, None)
            if run is not None:
                self._finished.append(self.is_whole(run))
        except BaseException:  # such as Ctrl-C: the next iteration goes on from here
            self._work = self._begin()
            self._line.end()
            raise
        if run is None and len(self._finished) < len(self) and not self._read_only:  # a second Ctrl-C came in between
            self._work = self._begin()
            return self._advance()
        if run is None:
            self.close()
            return False
        self._line.update(self._finished)
        return True

    def close(self) -> None:
        """Stop: running runs are abandoned, finished ones are kept."""
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
        """All runs, in the order of the seeds, parameters or grid points; waits for them."""
        return sorted(self, key=lambda run: run.index)

    @property
    def failures(self) -> list[Run]:
        """The runs that ended with an error; waits for all."""
        return [run for run in self.runs if run.result is None]

    @property
    def unconverged(self) -> list[Run]:
        """The runs that ended neither at a fixed point nor at a goal; waits for all."""
        return [run for run in self.runs if run.result is not None and not run.result.success]

    @property
    def missing(self) -> list[dict[str, Any]]:
        """The settings of runs without a result; waits for all, unless the sweep was loaded."""
        there = {run.index for run in self if run.result is not None}
        return [settings_of(point) for index, point in self._points.items() if index not in there]

    @property
    def best(self) -> Run:
        """The run with the lowest loss; waits for all."""
        return min(self._successes(), key=lambda run: run.result.loss if run.result else np.inf)

    def select(self, **settings: Any) -> list[Run]:
        """The runs with these settings, such as ``width=4``; waits for all."""
        names = {name for point in self._points.values() for name in settings_of(point)}
        for name in settings:
            if name not in names:
                raise KeywordError(f"no run has the setting {name!r}{nearest(name, names)}")
        return [run for run in self.runs if all(run.settings[name] == value for name, value in settings.items())]

    def _successes(self, **settings: Any) -> list[Run]:
        runs = self.select(**settings)
        successes = [run for run in runs if run.result is not None]
        if not successes:
            first = f"; the first one with {runs[0].error}" if runs else ", for there is none with a result"
            raise InputError(f"every run failed{first}")
        return successes

    def table(self) -> list[dict[str, Any]]:
        """A dictionary for each run, with the same keys, for ``pandas.DataFrame``: settings, then numbers and strings.

        If a field of the result has the name of a setting, such as ``alg``, the field is called ``result_alg``.
        """
        names = (
            "loss", "gnorm", "data_loss", "converged", "ode_stopped_by", "ode_t", "ode_iterations", "ode_loss",
            "optim_stopped_by", "optim_iterations", "nfev", "njev", "nhev", "nhvp", "total_time", "alg", "optim_solver",
        )  # fmt: skip
        rows = []
        for run in self.runs:
            row = {"index": run.index, "seed": run.seed, **run.settings}
            row.update({f"result_{n}" if n in run.settings else n: getattr(run.result, n, None) for n in names})
            rows.append({**row, "error": run.error})
        return rows

    def to_frame(self) -> Any:
        """``table`` as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.table()).set_index("index")

    def distinct_minima(self, net: Net | None = None, tolerance: float = 1e-4) -> DistinctMinima:
        """Which runs found the same minimum (see ``pymlpgf.distinct_minima``), without those that ended with an error.

        All runs must have the same layers and data. The net is that of the results, unless they do not hold it (those
        of an ``InfiniteNet``).
        """
        results = [run.result for run in self._successes() if run.result is not None]
        return distinct_minima(self._one_net(results) if net is None else net, results, tolerance)

    def catalogue(
        self, net: Net | None = None, *, tolerance: float = 1e-4, confidence: float = 0.95, **settings: Any
    ) -> Catalogue:
        """The minima that the runs with these ``settings`` found (see ``pymlpgf.minima_catalogue``).

        These runs must have the same layers and data; those that ended with an error do not count. The net is that of
        the results, unless they do not hold it (those of an ``InfiniteNet``).
        """
        results = [run.result for run in self._successes(**settings) if run.result is not None]
        if net is None:
            net = self._one_net(results)
        return minima_catalogue(net, results, tolerance=tolerance, confidence=confidence)

    def certificates(self, net: Net | None = None, tolerance: float = 1e-4, **options: Any) -> list[Certificate]:
        """``certify`` for the best run of each group of ``distinct_minima``, lowest loss first; some may have no proof.

        ``mg.distinct`` of the certificates with a proof gives a lower bound of the number of different minima.
        ``options`` are keywords of ``certify``.
        """
        results = [run.result for run in self._successes() if run.result is not None]
        about = self._one_net(results) if net is None else net
        groups = distinct_minima(about, results, tolerance)
        return [certify(about, results[i], **options) for i in groups.representatives]

    def _one_net(self, results: list[TrainResult]) -> Net:
        """The net of all these results."""
        if isinstance(self._problem, Net):
            return self._problem
        first = results[0]
        for result in results:
            if result.layers != first.layers or not _same(result.problem, first.problem):
                raise InputError("these runs have different nets or data: choose by their settings, such as width=4")
        if not first.problem:
            raise InputError("net is needed: the results of this sweep do not hold it")
        return first.net()


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(v is b[name] or np.array_equal(v, b[name]) for name, v in a.items())


def sweep(
    net_or_factory: Net | Callable[..., Any] | None = None,
    seeds_or_params: Sequence[Any] | None = None,
    executor: Executor | None = None,
    directory: str | os.PathLike[str] | None = None,
    *,
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]] | None = None,
    part: tuple[int, int] | None = None,
    continue_unconverged: bool = False,
    allow_code: bool = False,
    max_workers: int | None = None,
    threads_per_worker: int = 1,
    verbosity: int = 1,
    **train_options: Any,
) -> Sweep:
    """Train from many initial points, or over a grid of settings.

    Parameters
    ----------
    net_or_factory : Net, or function
        A function takes a seed, or names of the ``grid``, and returns a Net, or a Net and initial parameters; the
        workers must be able to import it. The argument may be left out if ``directory`` holds a sweep over one net.
    seeds_or_params : sequence of ints, or of arrays of shape (n_params,)
        All different. A seed stands for ``net.random_params(seed)``.
    executor : concurrent.futures.Executor, optional
        By default a pool of processes on this machine. On a cluster use
        ``dask.distributed.Client(…).get_executor()`` with one thread for each worker.
    directory : path, optional
        Where each result is saved when its run has finished. A sweep over a directory with results makes the missing
        runs; failed runs are tried again. A directory belongs to one net, or function, and one set of options. Without
        seeds and ``grid`` the runs and their options are those of the directory.
    grid : dict of name -> sequence, or list of dicts with the same names, optional
        All combinations of a dictionary's values, or the settings of each run. Names are parameters of the function,
        which has precedence, or keywords of ``train``; ``seed`` is that of the initial parameters, by default 0.
    part : (i, n), optional
        Make only the i-th of n shares of the runs, counted from 0: the runs whose index is i modulo n.
    continue_unconverged : bool
        Continue runs in ``directory`` that a limit (``maxtime_…``, ``maxiterations_…``) ended, or that reached an
        earlier ``maxT``: the phase that ended last continues from where it was, and the results are joined,
        trajectories and counts too. Limits may differ from those before; except for ``maxT`` they count anew. A
        discrete method, or a flow on batches, makes the very steps of an uninterrupted run: momentum, averages and the
        place in the epoch are in the files. Only one that ``maxtime_ode`` ended before all samples could be seen once
        more begins anew with these. A flow chooses its steps anew, and ends within its tolerances. A minimisation
        makes the steps of an uninterrupted run, too, if its state is in the file (``TrainResult.optim_memory``);
        otherwise it begins anew from its best point, and may end in another minimum.
    allow_code : bool
        Compile an activation or a loss that is Julia code in the files of ``directory``. Set it for files that you
        trust; with ``net_or_factory`` it is not needed.
    max_workers : int, optional
        Number of processes of the default pool; by default the number of processors, divided by ``threads_per_worker``.
    threads_per_worker : int
        Julia's threads in each process of the default pool, for runs that are few and large.
    verbosity : 0, 1 or 2
        0 shows no progress line, 1 shows it on terminals and in notebooks after a second, 2 always.
    **train_options
        Keywords of ``train``.

    Returns
    -------
    Sweep
        Iterate over it to get each ``Run`` as it finishes. A run that raises an error is a ``Run`` with an ``error``;
        so is one whose process dies twice (the pool is renewed).

    Raises
    ------
    InputError
        For points that do not fit or are equal, a directory of another sweep, or a function that cannot be pickled.

    Notes
    -----
    Processes are started with the "spawn" method, which imports the main script anew: begin it with
    ``if __name__ == "__main__":``. Results are the same for every number of workers and of shares as long as no run is
    ended by a time limit.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", False)], input=[[1.0]], target=[2.0])
    >>> with mg.sweep(net, range(50), maxT=10, directory="runs") as runs:          # doctest: +SKIP
    ...     for run in runs:
    ...         print(run.seed, run.result.loss if run.result else run.error)
    >>> runs.to_frame().sort_values("loss")                                       # doctest: +SKIP
    >>> grid = {"optim_solver": ["BFGS", "Newton"], "seed": range(50)}
    >>> runs = mg.sweep(net, grid=grid, directory="solvers", maxT=10)             # doctest: +SKIP
    """
    check_keywords("sweep", train_options, OPTIONS)
    for name, number in (
        ("max_workers", 1 if max_workers is None else max_workers),
        ("threads_per_worker", threads_per_worker),
    ):
        if not is_whole(number) or number < 1:
            raise InputError(f"{name} is {number!r}; a positive whole number is needed")
    if executor is not None and threads_per_worker != 1:
        raise InputError(
            "threads_per_worker is for the default pool: give the executor's workers theirs by PYMLPGF_THREADS"
        )
    folder = None if directory is None else Path(directory)
    if seeds_or_params is not None and grid is not None:
        raise InputError("seeds_or_params and grid are both given; only one is possible: a grid may name the seed")
    if continue_unconverged and folder is None:
        raise InputError("continue_unconverged continues runs in a directory: give directory")
    free = LIMITS if continue_unconverged else ()
    if seeds_or_params is None and grid is None:
        if folder is None:
            raise InputError("seeds_or_params, grid, or a directory that says which runs there are, is needed")
        points, train_options = points_in(folder), options_in(folder, train_options, free)
        problem = whole_net(folder, allow_code) if net_or_factory is None else net_or_factory
    else:
        problem = net_or_factory
        if not isinstance(problem, Net) and not callable(problem):
            raise InputError(f"net_or_factory is {type(problem).__name__}; a Net or a function of a seed is needed")
        points = points_of_seeds(problem, seeds_or_params) if grid is None else points_of_grid(grid)
    chosen = _share(points, part)
    if problem is not None:
        for point in points:
            if isinstance(point, dict):
                split(problem, point, OPTIONS)
                _refuse_both(point, train_options)
                break
        if folder is not None:
            claim(folder, problem, train_options, free)
    if folder is not None:
        remember_points(folder, points)
    task = Task(problem, train_options, None, bool(continue_unconverged), bool(allow_code))
    _pickled(task)
    workers = max_workers or max(1, _processors() // threads_per_worker)
    return Sweep(task, chosen, executor, folder, workers, verbosity, threads_per_worker)


def _share(points: list[Any], part: Any) -> dict[int, Any]:
    if part is None:
        return dict(enumerate(points))
    whole = isinstance(part, (tuple, list)) and len(part) == 2 and all(type(number) is int for number in part)
    if not whole or not 0 <= part[0] < part[1]:
        raise InputError(f"part is {part!r}; a pair (i, n) with 0 ≤ i < n is needed, the i-th of n shares from 0 on")
    return {index: point for index, point in enumerate(points) if index % part[1] == part[0]}


def _refuse_both(point: dict[str, Any], options: dict[str, Any]) -> None:
    for name in point:
        if name in options and name != "seed":
            raise InputError(f"{name} is an option of all runs, {options[name]!r}, and in the grid: give one of them")


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pickled(task: Task) -> bytes:
    # Here, in the thread that calls: an executor would do it in a thread of its own, and once for every run.
    try:
        return pickle.dumps(task)
    except Exception as error:
        raise InputError(f"the sweep cannot be sent to other processes: {error}") from None
