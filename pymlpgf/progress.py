"""One line on stderr that shows where a long run is."""

from __future__ import annotations

import sys
import time

__all__ = ["ProgressLine"]

QUIET = 1.0  # seconds before a line appears


class ProgressLine:
    """``update`` is a solver's report. verbosity 0: silent; 1: on terminals, after a second; 2: always."""

    def __init__(self, verbosity: int, interval: float) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._active = sys.stderr is not None and (verbosity == 2 or (verbosity == 1 and self._terminal))
        self._interval = interval
        self._start = time.perf_counter()
        self._next = self._start + (0 if verbosity == 2 else QUIET)
        self._width = 0

    def __enter__(self) -> ProgressLine:
        return self

    def update(self, phase: str, iteration: int, t: float, loss: float, gnorm: float) -> None:
        """Show where the solver is, at most every ``interval`` seconds."""
        now = time.perf_counter()
        if not self._active or now < self._next:
            return
        self._next = now + self._interval
        clock = f"t = {t:.4g}  " if phase == "flow" else ""
        size = f"loss {loss:.6g}  |gradient| {gnorm:.2g}"
        line = f"{phase}: {clock}iteration {iteration}  {size}  [{now - self._start:.0f} s]"
        if self._terminal:
            sys.stderr.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def __exit__(self, *exception: object) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
