"""One process at a time: a lock on a file of the cache, which names its owner; what owners that were killed left."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import ProvisioningError
from .report import Report

__all__ = ["locked", "owner", "sweep"]


@contextlib.contextmanager
def locked(path: Path, patience: float, waiting: str, too_long: str, report: Report) -> Iterator[bool]:
    """Own the lock in the body; False where another process owns it and ``patience``, in seconds, is zero.

    ``waiting`` is reported once, with the number of the other process for ``{owner}``; ``too_long`` is the error.
    """
    import fcntl  # Unix only, and this module is imported everywhere

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        began, told = time.monotonic(), False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pass
            except OSError as error:
                raise ProvisioningError(
                    f"{path.parent} cannot be locked ({error.strerror}): set PYMLPGF_CACHE to a folder on a local disk"
                ) from None
            if not patience:
                yield False
                return
            if not told:
                report(waiting.format(owner=_written(descriptor) or "unknown"))
                told = True
            if time.monotonic() - began > patience:
                raise ProvisioningError(too_long)
            time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield True
    finally:
        os.close(descriptor)


def owner(path: Path) -> int | None:
    """The process that owns the lock (0: it has not said); None if none does. OSError if none ever did."""
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except OSError:
        text = _written(descriptor)
        return int(text) if text.isdecimal() else 0
    finally:
        os.close(descriptor)


def _written(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()


def sweep(folder: Path) -> None:
    """Remove what killed processes left: only the lock's owner has a living staging folder."""
    for leftover in folder.glob("staging-*"):
        for _ in range(50):  # a child of the killed process may still be writing: it ends in a moment
            shutil.rmtree(leftover, ignore_errors=True)
            if not leftover.exists():
                break
            time.sleep(0.1)
