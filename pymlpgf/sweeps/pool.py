"""A pool of processes that is renewed when a process dies, and ends with its parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any

from .. import runtime
from ..errors import MLPGFError
from .run import Run, remember, run_one
from .settings import seed_of, settings_of

__all__ = ["run_in_processes"]

Job = tuple[int, str, Any]  # index, file name, seed, parameters or settings
DEATHS = 2  # of its process, when it ran alone, make a run a failure


class Pool:
    """Processes that hold the task, ignore Ctrl-C, and end with their parent."""

    def __init__(self, workers: int, pickled: bytes, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        # The processes see the end of this pipe when the parent closes it, or ends in whatever way.
        lifeline, self._line = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(workers, context, _begin, (lifeline, pickled, threads))
        try:
            with _importable_main():  # processes are started by the first jobs
                self._pool.submit(os.getpid).result()
        except BrokenProcessPool:
            self.close()
            raise MLPGFError(
                "the worker processes ended before their first run: a script that starts a sweep must do so below "
                '`if __name__ == "__main__":`, since each process imports the script'
            ) from None

    def submit(self, job: Job) -> Future[Run]:
        with _importable_main():
            return self._pool.submit(run_one, "", None, *job)

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        self._line.close()
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _importable_main() -> Iterator[None]:
    """Start processes although the script came through standard input: there is no file that they could import."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or os.path.exists(file):
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = file


def _begin(lifeline: Connection, pickled: bytes, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(PYMLPGF_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads))
    threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    remember("", pickled)


def _watch(lifeline: Connection) -> None:
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os._exit(1)


def run_in_processes(pickled: bytes, jobs: list[Job], workers: int, threads: int) -> Iterator[Run]:
    """Each job's ``Run`` as it finishes.

    When a process dies, any of the jobs that were running may be the cause: they are tried again one at a time, so that
    this job is found and the others are not lost.
    """
    runtime.start()  # what it installs and compiles at the first start must not be done by all workers at once
    queue, suspects = deque(jobs), deque[Job]()
    deaths: dict[int, int] = {}
    flying: dict[Future[Run], Job] = {}
    alone = False
    pool: Pool | None = None
    try:
        while queue or suspects or flying:
            if pool is None:
                pool = Pool(workers, pickled, threads)
            if not flying:
                alone = bool(suspects)
            waiting, most = (suspects, 1) if alone else (queue, 2 * workers)
            while waiting and len(flying) < most:
                job = waiting.popleft()
                try:
                    flying[pool.submit(job)] = job
                except BrokenProcessPool:
                    waiting.appendleft(job)
                    break
            broken, lost = not flying, deque[Job]()
            done = wait(flying, return_when=FIRST_COMPLETED).done if flying else set()
            for future in done:
                job = flying.pop(future)
                error = future.exception()
                if error is None:
                    yield future.result()
                elif isinstance(error, BrokenProcessPool):
                    lost.append(job)
                else:  # the result could not be sent
                    yield _failure(job, f"{type(error).__name__}: {error}")
            if broken or lost:
                pool.close()
                pool = None
                lost.extend(flying.values())
                flying.clear()
                for job in sorted(lost, key=lambda job: job[0]):
                    deaths[job[0]] = deaths.get(job[0], 0) + alone
                    if deaths[job[0]] >= DEATHS:
                        yield _failure(job, "the process of this run died twice: it was killed, or ran out of memory")
                    else:
                        suspects.append(job)
    finally:
        if pool is not None:
            pool.close()


def _failure(job: Job, why: str) -> Run:
    return Run(job[0], seed_of(job[2]), None, why, settings=settings_of(job[2]))
