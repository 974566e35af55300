"""Helpers for tests that may crash, hang or signal the process they run in: they get one of their own."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# A test run in the background of a shell inherits that Ctrl-C is ignored, and children would inherit it from there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
(MLPGF_UUID,) = re.findall(r'^uuid = "(.+)"', (ROOT / "julia" / "Project.toml").read_text(encoding="utf-8"), re.M)
LIMIT = 240.0  # seconds; on a free machine the slowest takes ten

#: What every child begins with. ``make_net`` is a noisy regression that no solver finishes early.
PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
import pymlpgf as mg
from pymlpgf import runtime

def make_net(n=60, width=3, features=1, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, features))
    y = np.sin(2 * x[:, 0]) + rng.standard_normal(n)
    return mg.Net(layers=[(width, "tanh", True), (1, "identity", True)], input=x, target=y)

def raises(kind, call, *parts):
    try:
        call()
    except kind as error:
        assert all(part in str(error) for part in parts), error
        return error
    raise AssertionError(f"no {kind.__name__} was raised")
"""


class Child:
    """A Python process of this interpreter, with this environment, that runs ``PRELUDE`` and then ``code``."""

    def __init__(self, code: str, environment: dict[str, str] | None = None, prelude: str = PRELUDE) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-c", prelude + textwrap.dedent(code)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
            text=True,
        )

    def line(self) -> str:
        """The next line the child prints; empty when it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def finish(self, rc: int = 0, stderr: str | None = "", limit: float = LIMIT) -> str:
        """Wait for the end and return the rest of stdout; exit code and stderr (None: any) are checked."""
        try:
            out, err = self._process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self.kill()
            out, err = self._process.communicate()
            pytest.fail(f"still running after {limit:.0f} s\n--- stdout\n{out}\n--- stderr\n{err}")
        assert self._process.returncode == rc, f"--- stdout\n{out}\n--- stderr\n{err}"
        assert stderr is None or err == stderr, f"--- stdout\n{out}\n--- stderr\n{err}"
        self.err = err
        return out

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()


def without_workload(folder: Path) -> dict[str, str]:
    """An environment in which a current Julia compiles MLPGF in seconds, and again although it is compiled already."""
    place = folder / "preferences"
    place.mkdir()
    (place / "Project.toml").write_text(f'[extras]\nMLPGF = "{MLPGF_UUID}"\n')
    (place / "LocalPreferences.toml").write_text("[MLPGF]\nprecompile_workload = false\n")
    return {"JULIA_LOAD_PATH": os.pathsep.join(["@", str(place), "@stdlib"])}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests with a ``chance`` run once, or as often as `make soak` asks for."""
    if "chance" in metafunc.fixturenames:
        rounds = range(int(os.environ.get("PYMLPGF_TEST_ROUNDS", "1")))
        metafunc.parametrize("chance", [pytest.param(n, marks=pytest.mark.chance) for n in rounds], indirect=True)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Random moments and places of faults: in each round others, in each run the same."""
    return random.Random(request.param)


@pytest.fixture
def start_python() -> Iterator[Callable[..., Child]]:
    """Start a ``Child``; what still runs at the end of the test is killed."""
    children: list[Child] = []

    def start(code: str, environment: dict[str, str] | None = None, prelude: str = PRELUDE) -> Child:
        children.append(Child(code, environment, prelude))
        return children[-1]

    yield start
    for child in children:
        child.kill()


@pytest.fixture
def run_python(start_python: Callable[..., Child]) -> Callable[..., str]:
    """Run a ``Child`` to its end: ``run_python(code, rc=0, stderr="", environment=None) -> stdout``."""

    def run(
        code: str,
        rc: int = 0,
        stderr: str | None = "",
        environment: dict[str, str] | None = None,
        prelude: str = PRELUDE,
        limit: float = LIMIT,
    ) -> str:
        return start_python(code, environment, prelude).finish(rc, stderr, limit)

    return run
