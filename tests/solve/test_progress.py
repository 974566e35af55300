"""Where the line of a long run appears."""

from __future__ import annotations

import io
import sys

import pytest

from pymlpgf.solve import progress
from pymlpgf.solve.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


#: what Jupyter puts in the place of sys.stderr, which says that it is no terminal
Notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})

STREAMS = {"terminal": Terminal, "notebook": Notebook, "file": io.StringIO}


@pytest.mark.parametrize(
    ("where", "verbosity", "seconds", "shown"),
    [
        ("terminal", 1, 1.5, True), ("terminal", 1, 0.5, False), ("terminal", 0, 1.5, False),
        ("notebook", 1, 1.5, True), ("notebook", 1, 0.5, False), ("notebook", 0, 1.5, False),
        ("file", 1, 1.5, False), ("file", 2, 1.5, True),
    ],
)  # fmt: skip
def test_where_it_appears(monkeypatch, where, verbosity, seconds, shown):
    now = [100.0]
    stream = STREAMS[where]()
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressLine(verbosity, 1.0) as line:
        now[0] += seconds
        line.update("flow", 12, 3.5, 0.25, 1e-3)
        now[0] += 0.1  # sooner than the interval
        line.update("flow", 13, 3.6, 0.24, 1e-3)
    text = stream.getvalue()
    assert text.count("flow: t = 3.5  iteration 12  loss 0.25") == shown
    assert "iteration 13" not in text
    if shown and where != "file":
        assert text.startswith("\r")
        assert text.endswith("\r")  # the place is left as it was
