"""Run a command that must succeed in time; one that does not is ended together with its children."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import ProvisioningError

__all__ = ["run"]


def run(
    command: Sequence[str],
    *,
    limit: float,
    what: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    tick: Callable[[], object] = lambda: None,
    stall: float = math.inf,
    keep_open: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Output of a command that succeeds within ``limit`` seconds, ``tick()`` changing within ``stall``.

    It runs in a process group of its own, which is killed whole when the time is over or on Ctrl-C.
    ``what`` begins the sentence of the ``ProvisioningError`` that is raised when it fails.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=complaints,
                env={**(os.environ if environment is None else environment), "LC_ALL": "C"},
                cwd=folder,
                start_new_session=True,
                pass_fds=keep_open,
            )
        except OSError as error:
            raise ProvisioningError(f"{what} failed: {command[0]} cannot be started ({error.strerror})") from None
        try:
            _wait(process, limit, what, tick, stall)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        texts = []
        for file in (output, complaints):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    if process.returncode != 0:
        said = texts[1].strip().splitlines()
        lines = [line for line in said if line.startswith("E:")] or said[-1:]  # E: is how apt begins an error
        status = f"status {process.returncode}" if process.returncode > 0 else f"ended by signal {-process.returncode}"
        failure = ProvisioningError(f"{what} failed: {lines[0] if lines and process.returncode > 0 else status}")
        failure.output = "".join(texts)
        raise failure
    return subprocess.CompletedProcess(command, process.returncode, *texts)


def _wait(process: subprocess.Popen[bytes], limit: float, what: str, tick: Callable[[], object], stall: float) -> None:
    began = changed = time.monotonic()
    state: object = None
    while True:
        try:
            process.wait(0.1)
            return
        except subprocess.TimeoutExpired:
            now = time.monotonic()
        if (new := tick()) != state:
            state, changed = new, now
        if now - began > limit:
            raise ProvisioningError(f"{what} took longer than {limit:.0f} s")
        if now - changed > stall:
            raise ProvisioningError(f"{what} made no progress for {stall:.0f} s")
