"""What has been measured, in a JSON file that a second call of the benchmark continues."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import MLPGFError
from ...files import write_atomically

__all__ = ["Record", "child"]

LIBRARIES = ("pymlpgf", "numpy", "scipy", "torch", "jax", "optimistix", "scikit-learn")


class Record:
    """The rows of one benchmark, and what they were measured with."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        versions = {name: importlib.metadata.version(name) for name in LIBRARIES if _installed(name)}
        self.settings = {**settings, "versions": versions}
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["settings"] == self.settings:
                self.rows = found["rows"]
                print(f"{path} has {len(self.rows)} rows already, which are not measured again.")
            else:
                print(f"{path} was measured with other versions or settings, and is written anew.")

    def add(self, row: dict[str, Any]) -> None:
        """Write ``row`` down."""
        self.rows.append(row)
        text = json.dumps({"settings": self.settings, "rows": self.rows})
        write_atomically(self.path, lambda file: file.write(text.encode()))


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def child(module: str, settings: dict[str, Any], threads: int = 1) -> Iterator[dict[str, Any]]:
    """The rows that ``python -m module`` prints in a process of so many threads, tied to as many cores."""
    environment = {**os.environ, "PYMLPGF_THREADS": str(threads)}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(threads)
    if threads == 1:
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + os.environ.get("XLA_FLAGS", "")
    command = [sys.executable, "-m", module, json.dumps(settings)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            message = json.loads(line)
            if "note" in message:
                print(message["note"], flush=True)
            else:
                yield message
    if process.returncode:
        raise MLPGFError(f"the benchmark process ended with code {process.returncode}; its message is above")
