"""Where images are kept, and whether one may be loaded::

<cache>/images/<key>/           MLPGF.so and a manifest.json written last; appears by one rename
<cache>/images/<key>.log        what the last build for this key printed, and how it ended
<cache>/images/staging-…/       a build under way; what a killed one left is swept by the next
<cache>/images/lock             held (flock) by the process that builds
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from .. import manifest
from ..answers import recall, remember
from ..lock import owner

__all__ = ["LIBRARY", "Store", "held"]

LIBRARY = "MLPGF.so"
KEPT = 2  # images of other keys go when a new one comes, the oldest first
LOGS = 4
VERIFIED = "images.json"
#: seconds after a failed build in which no other is begun in the background
PATIENCE = 24 * 3600.0


class Store:
    """The images below ``cache``; nothing is created by looking."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.folder = cache / "images"

    def place(self, key: str) -> Path:
        return self.folder / key

    def log(self, key: str) -> Path:
        return self.folder / f"{key}.log"

    def fault(self, folder: Path, key: str) -> str | None:
        """Why the image in ``folder`` cannot be loaded, or None.

        Its hash is computed once for every state of the file that the file system tells apart (identity, size, times):
        300 MB take a quarter of a second.
        """
        known = manifest.read(folder)
        if known is None:
            return "not built" if not os.path.lexists(folder) else f"its {manifest.NAME} is missing or damaged"
        if known.get("key") != key:
            return "it was built for other sources, another version or another processor"
        try:
            stat = os.stat(folder / LIBRARY)
        except OSError as error:
            return f"{LIBRARY} cannot be read ({error.strerror})"
        if stat.st_size != known.get("size"):
            return f"{LIBRARY} has another size than when it was built"
        state = f"{folder}|{stat.st_dev}|{stat.st_ino}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}"
        if recall(self.cache, VERIFIED).get(key) == [state, known.get("sha256")]:
            return None
        if manifest.sha256(folder / LIBRARY) != known.get("sha256"):
            return f"{LIBRARY} has another content than when it was built"
        remember(self.cache, VERIFIED, key, [state, known.get("sha256")])
        return None

    def failed_lately(self, key: str) -> bool:
        """Whether a build for this key failed within the last day."""
        try:
            text = self.log(key).read_text(encoding="utf-8", errors="replace")
            return "\nfailed: " in text and time.time() - self.log(key).stat().st_mtime < PATIENCE
        except OSError:
            return False

    def last_words(self, key: str) -> str | None:
        """The last line of the log of this key."""
        try:
            lines = self.log(key).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return None
        return lines[-1] if lines else None

    def builder(self) -> int | None:
        """The process that builds now, if there is one (0: it has not said)."""
        try:
            return owner(self.folder / "lock")
        except OSError:
            return None

    def prune(self, key: str) -> None:
        """Remove all but ``key`` and the newest others, except those that a process is loading; and old logs."""
        import fcntl

        others = [p for p in self.folder.iterdir() if p.is_dir() and p.name != key and (p / manifest.NAME).exists()]
        for place in sorted(others, key=lambda p: p.stat().st_mtime)[: max(0, len(others) - KEPT + 1)]:
            with contextlib.suppress(OSError), open(place / LIBRARY, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                doomed = self.folder / f"staging-old-{place.name}"
                os.rename(place, doomed)
                shutil.rmtree(doomed, ignore_errors=True)
                remember(self.cache, VERIFIED, place.name, None)
        for log in sorted(self.folder.glob("*.log"), key=lambda p: p.stat().st_mtime)[:-LOGS]:
            log.unlink(missing_ok=True)


@contextlib.contextmanager
def held(library: Path) -> Iterator[bool]:
    """Keep an image from being removed while the body loads it; false if it has gone already."""
    import fcntl

    try:
        descriptor = os.open(library, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        try:
            yield os.path.samestat(os.fstat(descriptor), os.stat(library))
        except FileNotFoundError:
            yield False
    finally:
        os.close(descriptor)
