"""One line on stderr that shows where a long run is.

Not tqdm: a run has no known length, and one line of text that is replaced needs no dependency.
"""

from __future__ import annotations

import sys
import time

__all__ = ["Line", "ProgressLine"]

QUIET = 1.0  # seconds before a line appears


class Line:
    """A line that replaces itself on a terminal or in a notebook.

    verbosity 0: silent; 1: there, after a second; 2: always.
    """

    def __init__(self, verbosity: int, interval: float) -> None:
        self._terminal = sys.stderr is not None and (sys.stderr.isatty() or _notebook(sys.stderr))
        self._active = sys.stderr is not None and (verbosity == 2 or (verbosity == 1 and self._terminal))
        self._interval = interval
        self._start = time.perf_counter()
        self._next = self._start + (0 if verbosity == 2 else QUIET)
        self._width = 0

    def due(self) -> float | None:
        """Seconds since the start if it is time for a new line."""
        now = time.perf_counter()
        if not self._active or now < self._next:
            return None
        self._next = now + self._interval
        return now - self._start

    def show(self, line: str) -> None:
        """Write ``line``."""
        if self._terminal:
            sys.stderr.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
            self._width = 0


def _notebook(stream: object) -> bool:
    """Whether Jupyter shows what is written here; it knows the carriage return, and says that it is no terminal."""
    return type(stream).__module__ == "ipykernel.iostream"


class ProgressLine(Line):
    """``update`` is a solver's report."""

    def __enter__(self) -> ProgressLine:
        return self

    def update(
        self, phase: str, iteration: int, t: float, loss: float, gnorm: float, _address: int | None = None
    ) -> None:
        """Show where the solver is, at most every ``interval`` seconds."""
        seconds = self.due()
        if seconds is not None:
            clock = f"t = {t:.4g}  " if phase == "flow" else ""
            size = f"loss {loss:.6g}  |gradient| {gnorm:.2g}"
            self.show(f"{phase}: {clock}iteration {iteration}  {size}  [{seconds:.0f} s]")

    def __exit__(self, *exception: object) -> None:
        self.end()
