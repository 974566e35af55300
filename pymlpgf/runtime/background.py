"""Build an image in the background: a process of the lowest priority, which outlives the one that began it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

from ..errors import MLPGFError
from .image.store import Store
from .report import Report
from .settings import Settings

__all__ = ["begin"]

#: Leaves its child to init, so that the process that began it has no child to wait for.
LAUNCH = """
import os, sys
if os.fork() == 0:
    os.setsid()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def begin(key: str, wish: Settings, report: Report) -> bool:
    """Begin to build the image ``key`` unless that is under way, has failed lately, or makes no sense here."""
    store = Store(wish.cache)
    if wish.image != "auto" or not sys.executable or multiprocessing.parent_process() is not None:
        return False
    if store.builder() is not None or store.failed_lately(key) or not os.access(wish.cache, os.W_OK):
        return False
    environment = {**os.environ, "PYMLPGF_CACHE": str(wish.cache)}
    path = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", LAUNCH, "-m", __spec__.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            check=True,
            timeout=20,
        )
        report(
            "a background process of lowest priority keeps the compiled code in a system image (some minutes); later"
            " processes start in a second (PYMLPGF_IMAGE=off: never)"
        )
        return True
    return False


def main() -> int:
    """The background process."""
    with contextlib.suppress(OSError):
        os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    from . import settings
    from .find import find
    from .image.build import build

    def silent(text: str, fraction: float | None = None, /) -> None:
        pass

    try:
        julia, _ = find("embedded", provision=False)
        return 0 if build(julia, settings.load(), silent, wait=False) else 1
    except MLPGFError:  # the log has it
        return 1


if __name__ == "__main__":
    sys.exit(main())
