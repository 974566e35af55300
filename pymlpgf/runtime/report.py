"""What is told while something takes its time: lines, and on terminals a fraction that moves."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Protocol, TextIO

__all__ = ["Progress", "Report", "short"]


class Report(Protocol):
    """Called with a text, and with the fraction done (0 to 1) while a step goes on."""

    def __call__(self, text: str, fraction: float | None = None, /) -> None:
        """Without a fraction the text is a line of its own."""


class Progress:
    """Report to a stream: lines as they come; fractions only on a terminal, on one line that is rewritten."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream
        self.open_line = False

    def __call__(self, text: str, fraction: float | None = None, /) -> None:
        stream = self.stream or sys.stderr
        if stream is None:  # pythonw and some daemons have none
            return
        if fraction is None:
            stream.write(("\r\x1b[K" if self.open_line else "") + f"pymlpgf: {text}\n")
            self.open_line = False
        elif stream.isatty():
            stream.write(f"\r\x1b[Kpymlpgf: {text} {100 * min(max(fraction, 0.0), 1.0):3.0f} %")
            self.open_line = True
        stream.flush()


def short(path: Path) -> str:
    """The path as people write it, with ~ for the home folder."""
    home = os.path.expanduser("~")
    text = str(path)
    return "~" + text[len(home) :] if home != "/" and text.startswith(home + os.sep) else text
