"""A host made of juliacall: Julia from 1.10, with DifferentialEquations.jl and Optim.jl beside MLPGF."""

from __future__ import annotations

import os
import sys
import warnings

from ..errors import JuliaError, RuntimeUnavailable
from .environment import blocking_streams, temporary
from .find import Julia
from .signals import preserved

__all__ = ["JuliacallHost"]


class JuliacallHost:
    """Starts Julia through juliacall, or joins the one it has started, and evaluates strings."""

    def __init__(self, julia: Julia, threads: int) -> None:
        """``julia`` and ``threads`` count only where juliacall has not started Julia already."""
        values = {"THREADS": str(threads)}
        # Setting both keeps juliacall from resolving packages, and so from the network.
        if julia.project is not None:
            values.update(EXE=str(julia.executable), PROJECT=str(julia.project))
        if threads > 1:  # Julia stops its threads for garbage collection by signals
            values["HANDLE_SIGNALS"] = "yes"
        named = {f"PYTHON_JULIACALL_{name}": value for name, value in values.items()}
        unset = {name: value for name, value in named.items() if name not in os.environ}  # the user's own go first
        with preserved(), blocking_streams(), temporary(unset), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch was imported before juliacall")
            try:
                import juliacall
            except Exception as error:
                raise RuntimeUnavailable(f"juliacall could not start Julia: {error}; see `pymlpgf doctor`") from error
        self._main = juliacall.Main

    def eval(self, code: str) -> int:
        """The Int64 that ``code`` evaluates to; an exception is raised as ``JuliaError``."""
        try:
            return int(self._main.seval(code))
        except sys.modules["juliacall"].JuliaError as error:
            raise JuliaError(str(error)) from None
