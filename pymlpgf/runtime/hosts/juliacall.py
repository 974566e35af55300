"""A host made of juliacall: Julia from 1.10, with DifferentialEquations.jl and Optim.jl beside MLPGF."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...errors import JuliaError, RuntimeUnavailable
from ..environment import blocking_streams, spare_depot, temporary, writable
from ..julia import Julia
from .signals import preserved

__all__ = ["JuliacallHost"]


class JuliacallHost:
    """Starts Julia through juliacall, or joins the one it has started, and evaluates strings."""

    def __init__(self, julia: Julia, threads: int, cache: Path) -> None:
        """``julia`` and ``threads`` count only where juliacall has not started Julia already.

        A depot that cannot be written to, as on some clusters, gets one in ``cache`` before it.
        """
        # Julia stops its threads for garbage collection by signals, and notices stack overflows by them.
        values = {"THREADS": str(threads), "HANDLE_SIGNALS": "yes"}
        # Setting both keeps juliacall from resolving packages, and so from the network.
        if julia.project is not None:
            values.update(EXE=str(julia.executable), PROJECT=str(julia.project))
        named = {f"PYTHON_JULIACALL_{name}": value for name, value in values.items()}
        unset = {name: value for name, value in named.items() if name not in os.environ}  # the user's own go first
        depots = _depots(julia, cache)  # even PythonCall is compiled there, if it was compiled for another processor
        with (
            preserved(),
            blocking_streams(),
            temporary({**unset, **depots}),
            warnings.catch_warnings(),
            _guarded_exit(),
        ):
            warnings.filterwarnings("ignore", message="torch was imported before juliacall")
            try:
                import juliacall
            except Exception as error:
                raise RuntimeUnavailable(f"juliacall could not start Julia: {error}; see `pymlpgf doctor`") from error
        if not hasattr(juliacall, "Main"):
            raise RuntimeUnavailable("PYTHON_JULIACALL_INIT=no keeps juliacall from starting Julia: unset it")
        self._main = juliacall.Main
        #: Julia's threads, which are juliacall's affair where it has started Julia, or was told a number
        self.threads = int(self._main.seval("Threads.nthreads()"))
        first = Path(str(self._main.seval('isempty(DEPOT_PATH) ? "" : first(DEPOT_PATH)')))
        if spare := spare_depot(julia, cache, first):  # the user has started juliacall
            self._main.DEPOT_PATH.insert(0, str(spare))
            first = spare
        self._nowhere = () if writable(first) else (first, cache)

    def eval(self, code: str) -> int:
        """The Int64 that ``code`` evaluates to; an exception is raised as ``JuliaError``."""
        try:
            value = self._main.seval(code)
        except sys.modules["juliacall"].JuliaError as error:
            if self._nowhere and str(self._nowhere[0]) in str(error):
                depot, cache = self._nowhere
                raise RuntimeUnavailable(
                    f"MLPGF is not compiled for this Julia, and neither Julia's depot {depot} nor {cache} can be "
                    "written to: set PYMLPGF_CACHE to a folder that can, with 500 MB free"
                ) from error
            raise JuliaError(str(error)) from None
        if not isinstance(value, int):
            raise JuliaError(f"Julia could not evaluate: {code}")
        return value


def _depots(julia: Julia, cache: Path) -> dict[str, str]:
    """The JULIA_DEPOT_PATH for a Julia that juliacall starts, where the user's cannot be written to."""
    given = os.environ.get("JULIA_DEPOT_PATH") or os.pathsep.join([os.path.expanduser("~/.julia"), ""])
    first = given.split(os.pathsep)[0] or os.path.expanduser("~/.julia")
    spare = spare_depot(julia, cache, Path(first))
    return {"JULIA_DEPOT_PATH": f"{spare}{os.pathsep}{given}"} if spare else {}


@contextlib.contextmanager
def _guarded_exit() -> Iterator[None]:
    """Let juliacall's hook, which ends Julia at exit, run only where Julia began: in this process and the main thread.

    In a forked child it fails, and for a Julia that another thread has started it waits for ever.
    """
    register, process, thread = atexit.register, os.getpid(), threading.current_thread()

    def guard(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        if function.__module__ != "juliacall":
            return register(function, *arguments, **keywords)

        def leave() -> None:
            if os.getpid() == process and threading.current_thread() is thread:
                function(*arguments, **keywords)

        register(leave)
        return function

    atexit.register = guard  # type: ignore[assignment]
    try:
        yield
    finally:
        atexit.register = register
