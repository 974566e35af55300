"""A host made of juliacall: Julia from 1.10, with DifferentialEquations.jl and Optim.jl beside MLPGF."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import JuliaError, RuntimeUnavailable
from ..environment import blocking_streams, temporary
from ..julia import Julia
from .signals import preserved

__all__ = ["JuliacallHost"]


class JuliacallHost:
    """Starts Julia through juliacall, or joins the one it has started, and evaluates strings."""

    def __init__(self, julia: Julia, threads: int) -> None:
        """``julia`` and ``threads`` count only where juliacall has not started Julia already."""
        # Julia stops its threads for garbage collection by signals, and notices stack overflows by them.
        values = {"THREADS": str(threads), "HANDLE_SIGNALS": "yes"}
        # Setting both keeps juliacall from resolving packages, and so from the network.
        if julia.project is not None:
            values.update(EXE=str(julia.executable), PROJECT=str(julia.project))
        named = {f"PYTHON_JULIACALL_{name}": value for name, value in values.items()}
        unset = {name: value for name, value in named.items() if name not in os.environ}  # the user's own go first
        with preserved(), blocking_streams(), temporary(unset), warnings.catch_warnings(), _guarded_exit():
            warnings.filterwarnings("ignore", message="torch was imported before juliacall")
            try:
                import juliacall
            except Exception as error:
                raise RuntimeUnavailable(f"juliacall could not start Julia: {error}; see `pymlpgf doctor`") from error
        self._main = juliacall.Main

    def eval(self, code: str) -> int:
        """The Int64 that ``code`` evaluates to; an exception is raised as ``JuliaError``."""
        try:
            value = self._main.seval(code)
        except sys.modules["juliacall"].JuliaError as error:
            raise JuliaError(str(error)) from None
        if not isinstance(value, int):
            raise JuliaError(f"Julia could not evaluate: {code}")
        return value


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
