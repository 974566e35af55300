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
from ..lock import locked, owner, sweep
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
                sweep(cache)
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
    try:
        number = owner(cache / "lock")
    except OSError:
        return "free (never taken)"
    return "free" if number is None else f"held by process {number or 'unknown'}"


def _lock(cache: Path, report: Report) -> contextlib.AbstractContextManager[bool]:
    waiting = "waiting for another process (id {owner}) that is installing Julia …"
    too_long = (
        f"another process has been installing Julia into {cache} for {LOCK_PATIENCE / 60:.0f} minutes: end it, then "
        "try again"
    )
    return locked(cache / "lock", LOCK_PATIENCE, waiting, too_long, report)


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
