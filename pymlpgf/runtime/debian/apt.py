"""Fetch Debian packages by apt, as any user and beside the system: apt checks every signature and hash."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from ...errors import ProvisioningError
from ..children import run
from ..report import Report
from .release import VERSION_TEXT
from .sources import Source, sources

__all__ = ["fetch"]

#: Taken from Julia's own suite although the machine may have newer ones. With MPFR 4.2 and newer, Julia 1.5
#: prints one digit of a BigFloat; with libunwind 1.6 it crashes when it formats a backtrace.
PINNED = ("libmpfr6", "libunwind8")
JULIA = tuple(f"{name}={VERSION_TEXT}*" for name in ("julia", "libjulia1", "julia-common"))
#: Hooks of the machine would write to the system or (in container images) delete what is fetched.
CLEARED = (
    "APT::Update::Pre-Invoke",
    "APT::Update::Post-Invoke",
    "APT::Update::Post-Invoke-Success",
    "APT::Update::Post-Invoke-Stats",
    "DPkg::Pre-Invoke",
    "DPkg::Post-Invoke",
    "DPkg::Pre-Install-Pkgs",
    "AptCli::Hooks",
    "APT::Default-Release",
)


def fetch(
    work: Path,
    source: str | None,
    report: Report,
    *,
    wanted: Sequence[str] = JULIA,
    pinned: Sequence[str] = PINNED,
    whole: bool = False,
) -> tuple[list[Path], str]:
    """The packages ``wanted`` that this machine lacks, fetched into the new folder ``work``, and the mirror's place.

    ``source`` ("URI suite component") goes before the machine's own mirror. ``pinned`` packages are taken from Julia's
    suite whatever the machine has; with ``whole`` all of them are, with all that they depend on, as on a machine that
    has nothing. Raises ``ProvisioningError``.
    """
    what = f"Julia {VERSION_TEXT}" if wanted is JULIA else wanted[0]
    if shutil.which("apt-get") is None:
        raise ProvisioningError(
            f"{what} comes through apt-get, which this machine does not have: set"
            " PYMLPGF_JULIA to a Julia of your own, or install juliacall and go online once"
        )
    entries = sources(source)
    mirror = entries[-1]
    if whole:
        entries = [mirror]
    try:
        return _fetch(work, entries, mirror, report, wanted, pinned, whole), mirror.place
    except ProvisioningError as error:
        raise ProvisioningError(
            f'no {what} from "{mirror.place}": {error}; check the network and the proxy, or set'
            ' PYMLPGF_DEBIAN_SOURCE to a mirror ("URI suite component") or to a folder of packages'
        ) from None


def _fetch(
    work: Path,
    entries: Sequence[Source],
    mirror: Source,
    report: Report,
    wanted: Sequence[str],
    pinned: Sequence[str],
    whole: bool,
) -> list[Path]:
    for folder in ("lists/partial", "cache/archives/partial", "packages"):
        (work / folder).mkdir(parents=True)
    (work / "sources.list").write_text("".join(f"{entry.line}\n" for entry in entries), encoding="utf-8")
    (work / "apt.conf").write_text(_configuration(work, whole), encoding="utf-8")
    chosen, size = _choose(work, report, wanted, pinned)
    what = f"fetching {len(chosen)} packages, {size / 1e6:.0f} MB,"
    exact = [f"{name}={version}" for name, version in chosen.items()]
    exact += [f"{name}/{mirror.suite}" for name in pinned]
    _apt(["-o", "Acquire::Retries=2", "download", *exact], work, what, report, limit=3600, stall=60)
    fetched = sorted((work / "packages").glob("*.deb"))
    if missing := {*chosen, *pinned}.difference(path.name.split("_")[0] for path in fetched):
        raise ProvisioningError(f"apt did not deliver {', '.join(sorted(missing))}")
    return fetched


def _choose(work: Path, report: Report, wanted: Sequence[str], pinned: Sequence[str]) -> tuple[dict[str, str], int]:
    """Names and versions of the packages to fetch besides the pinned ones, and their size in bytes."""
    said = _apt(["update"], work, "reading the package lists", report, limit=600, stall=20)[1]
    # --reinstall and the permissions only choose what is listed: nothing is installed into the system
    options = ["-y", "--no-install-recommends", "--reinstall", "--allow-downgrades", "--allow-change-held-packages"]
    try:
        words = ["--print-uris", "install", *options, *wanted]
        plan = _apt(words, work, "choosing packages", report, limit=120, stall=120)[0]
    except ProvisioningError as error:
        lost = [line for line in said.splitlines() if line.startswith(("E:", "W:"))]  # update tells, and succeeds
        raise ProvisioningError(lost[0] if lost else str(error)) from None
    files = re.findall(r"^'[^']*' ([^_\s]+)_([^_\s]+)_\S+\.deb (\d+)", plan, re.MULTILINE)
    chosen = {name: (unquote(version), int(size)) for name, version, size in files if name not in pinned}
    return {name: version for name, (version, _) in chosen.items()}, sum(size for _, size in chosen.values())


def _apt(words: Sequence[str], work: Path, what: str, report: Report, *, limit: float, stall: float) -> tuple[str, str]:
    """What apt-get prints and complains; ended when nothing has arrived for ``stall`` seconds."""
    with open(work / "status", "wb+") as status:

        def tick() -> object:
            status.seek(max(0, os.fstat(status.fileno()).st_size - 300))
            states = re.findall(rb"dlstatus:\d+:([\d.]+):", status.read())
            percent = float(states[-1]) if states else 0.0
            report(what, percent / 100)
            if percent >= 100:
                return time.monotonic()  # computing, not waiting for the network
            arrived = 0
            with contextlib.suppress(OSError):  # apt renames files; any other number counts as progress
                for folder in ("lists", "cache", "packages"):
                    arrived += sum(path.stat().st_size for path in (work / folder).rglob("*"))
            return arrived

        descriptor = status.fileno()
        options = ["-c", str(work / "apt.conf"), "-q", "-o", f"APT::Status-Fd={descriptor}"]
        done = run(
            ["apt-get", *options, *words],
            limit=limit,
            what=what.rstrip(","),
            folder=work / "packages",
            tick=tick,
            stall=stall,
            keep_open=(descriptor,),
        )
        return done.stdout, done.stderr


def _configuration(work: Path, whole: bool) -> str:
    """Read by apt after the machine's own configuration, whose proxies and certificates stay in force."""
    options = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": work / "lists",
        "Dir::Cache": work / "cache",
        "Dir::Cache::archives": "archives/",
        "Dir::Cache::pkgcache": "pkgcache.bin",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Log": work,
        "Debug::NoLocking": "true",
        "Acquire::http::Timeout": 8,
        "Acquire::https::Timeout": 8,
        "Acquire::Retries": 0,
        "Acquire::Queue-Mode": "access",
    }
    if whole:
        (work / "nothing-installed").touch()
        options["Dir::State::status"] = work / "nothing-installed"
    if os.geteuid() == 0:  # the download user of apt may not enter a private cache folder
        options["APT::Sandbox::User"] = "root"
    cleared = [f"#clear {name};\n" for name in CLEARED]
    return "".join([*cleared, *(f'{name} "{value}";\n' for name, value in options.items())])
