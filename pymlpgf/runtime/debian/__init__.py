"""A private Julia from the Debian distribution's own packages: the embedded default.

``apt-get`` fetches the packages that this machine lacks (apt.py), and they are made into a tree that needs neither
root nor an environment variable (tree.py). This file sees to it that the tree is whole or absent at any moment::

    <cache>/julia-1.5.3-x86_64/     the tree, with a manifest.json written last; appears by one rename
    <cache>/packages/               the fetched packages and their hashes, so that mending needs no network
    <cache>/staging-<pid>-<random>/ work under way; whatever a killed process left is swept by the next one
    <cache>/lock                    held (flock) by the process that works; the kernel drops it when that ends
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ...errors import ProvisioningError
from .. import manifest
from ..report import Progress, Report, short
from . import apt, packages, tree
from .release import VERSION_TEXT, Installation, installation

__all__ = ["check", "ensure", "lock_state"]

WHAT = f"a private Julia {VERSION_TEXT}"
DISK_NEEDED = 600 << 20  # 310 MB unpacked, 55 MB of packages, 35 MB of package lists, and room to breathe
LOCK_PATIENCE = 1800.0


def ensure(
    cache: Path, *, source: str | None = None, report: Report | None = None, thorough: bool = False
) -> Installation:
    """The private Julia, installed or mended first where needed.

    ``source`` is a folder of .deb files or an apt source ("URI suite component"); without it, the packages that
    ``cache`` has kept or this machine's own mirror serve. ``thorough`` checks hashes too (about a second) before
    it believes what is there. One process installs, others wait for it. Raises ``ProvisioningError``.
    """
    report = report or Progress()
    _refuse_open(cache)
    place = installation(cache)
    if not manifest.faults(place.prefix, hashes=thorough):
        return place
    with _writing_to(cache):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _lock(cache, report):
            found = manifest.faults(place.prefix, hashes=thorough)  # another process may have done it
            if found:
                _sweep(cache)
                if os.path.lexists(place.prefix):
                    report(f"the private Julia in {short(place.prefix)} is damaged ({found[0]}); mending it")
                _install(place, cache, source, report)
    return place


def _refuse_open(cache: Path) -> None:
    with contextlib.suppress(OSError):  # not there yet
        if cache.stat().st_mode & stat.S_IWOTH:
            raise ProvisioningError(
                f"everybody on this machine may write to {cache}, and so put a program there that would run as you: "
                f"run `chmod o-w {cache}`, or set PYMLPGF_CACHE to a folder of your own"
            )


def check(cache: Path) -> list[str]:
    """Faults of the installed tree and of the kept packages, found by their hashes; nothing is changed."""
    wrong = manifest.faults(installation(cache).prefix, hashes=True)
    if (cache / "packages").exists() and packages.kept(cache / "packages") is None:
        wrong.append("the kept packages are incomplete or damaged")
    return wrong


def lock_state(cache: Path) -> str:
    """ "free", or who holds the lock."""
    import fcntl  # Unix only, and this module is imported everywhere

    try:
        descriptor = os.open(cache / "lock", os.O_RDONLY)
    except OSError:
        return "free (never taken)"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return "free"
    except OSError:
        return f"held by process {_holder(descriptor)}"
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _lock(cache: Path, report: Report) -> Iterator[None]:
    import fcntl

    descriptor = os.open(cache / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        started, said = time.monotonic(), False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pass
            except OSError as error:
                raise ProvisioningError(
                    f"{cache} cannot be locked ({error.strerror}): set PYMLPGF_CACHE to a folder on a local disk"
                ) from None
            if not said:
                report(f"waiting for another process (id {_holder(descriptor)}) that is installing Julia …")
                said = True
            if time.monotonic() - started > LOCK_PATIENCE:
                raise ProvisioningError(
                    f"another process has been installing Julia into {cache} for"
                    f" {LOCK_PATIENCE / 60:.0f} minutes: end it, then try again"
                )
            time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"


def _sweep(cache: Path) -> None:
    """Remove what killed processes left: only the lock's holder has a living staging folder."""
    for leftover in cache.glob("staging-*"):
        for _ in range(50):  # a child of the killed process may still be writing: it ends in a moment
            shutil.rmtree(leftover, ignore_errors=True)
            if not leftover.exists():
                break
            time.sleep(0.1)


@contextlib.contextmanager
def _writing_to(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProvisioningError(
            f"cannot write to the cache folder {cache} ({error.strerror or error}): make room or"
            " set PYMLPGF_CACHE to a folder that you can write to, with 600 MB free"
        ) from error


def _install(place: Installation, cache: Path, source: str | None, report: Report) -> None:
    started = time.monotonic()
    tree.require_tools()
    free = shutil.disk_usage(cache).free
    if free < DISK_NEEDED:
        raise ProvisioningError(
            f"{cache} has {free >> 20} MB free, Julia needs {DISK_NEEDED >> 20} MB: make room or set"
            " PYMLPGF_CACHE to a folder on another disk"
        )
    staging = cache / f"staging-{os.getpid()}-{secrets.token_hex(4)}"
    staging.mkdir(mode=0o700)
    try:
        _build(replace(place, prefix=staging / "tree"), cache, source, report)
        if os.path.lexists(place.prefix):
            os.rename(place.prefix, staging / "replaced")
        os.rename(staging / "tree", place.prefix)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    report(f"Julia {VERSION_TEXT} is ready ({time.monotonic() - started:.0f} s)")


def _build(target: Installation, cache: Path, source: str | None, report: Report) -> None:
    """Build the tree from the user's folder of packages, the kept ones, or a mirror's."""
    folder = Path(os.path.expanduser(source)) if source else None
    if folder is not None and folder.is_dir():
        report(f"installing {WHAT} from the packages in {short(folder)} into {short(cache)} …")
        tree.build(target, packages.from_folder(folder), report)
        return
    kept = packages.kept(cache / "packages")
    if kept is not None:
        report(f"installing {WHAT} from the kept packages into {short(cache)} …")
        try:
            tree.build(target, kept, report)
            return
        except ProvisioningError:  # the machine may have lost a library since: apt knows which package has it
            shutil.rmtree(target.prefix, ignore_errors=True)
    mirror = "the configured Debian source" if source else "this machine's Debian mirror"
    report(f"installing {WHAT} (55 MB) from {mirror} into {short(cache)} …")
    fetched, place = apt.fetch(target.prefix.with_name("apt"), source, report)
    tree.build(target, packages.keep(cache / "packages", fetched, place), report)
