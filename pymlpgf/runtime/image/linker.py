"""The program that makes a shared library of an object file: the machine's, or the distribution's, kept privately."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import ProvisioningError
from .. import manifest
from ..children import run
from ..debian import apt
from ..debian.release import installation
from ..report import Report

__all__ = ["Linker", "find"]

NAMES = ("ld", "ld.gold", "ld.lld")


@dataclass(frozen=True)
class Linker:
    """A linker, and the environment that it needs."""

    program: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def link(self, source: Path, target: Path, library: Path) -> None:
        """Make ``target``, a shared library that needs ``library``, of ``source``, an archive of object files."""
        command = [self.program, "-shared", "-o", str(target), "--whole-archive", str(source), "--no-whole-archive"]
        command.append(str(library))
        run(command, limit=600, what="linking the system image", environment={**os.environ, **self.environment})

    def strip(self, library: Path) -> None:
        """Remove the symbols of ``library`` that only debuggers read."""
        program = Path(self.program).with_name(Path(self.program).name.replace("ld", "strip", 1))
        if program.exists():
            command = [str(program), "--strip-unneeded", str(library)]
            run(command, limit=600, what="stripping the system image", environment={**os.environ, **self.environment})


def find(cache: Path, source: str | None, report: Report) -> Linker:
    """A linker that works here; the distribution's is fetched where the machine has none.

    Raises ``ProvisioningError``.
    """
    for name in NAMES:
        if program := shutil.which(name):
            return Linker(program)
    triplet = installation(cache).triplet
    folder = cache / f"linker-{triplet}"
    if manifest.faults(folder):
        _fetch(folder, triplet, source, report)
    libraries = folder / "usr" / "lib" / triplet
    return Linker(str(folder / "usr" / "bin" / f"{triplet}-ld"), {"LD_LIBRARY_PATH": str(libraries)})


def _packages(triplet: str, work: Path, source: str | None, report: Report) -> list[Path]:
    """The linker of the distribution and its libraries, of which the machine may have some already."""
    main = f"binutils-{triplet.replace('_', '-')}"
    own = Path(os.path.expanduser(source)) if source else None
    if own is None or not own.is_dir():
        return apt.fetch(work, source, report, wanted=[main, "libbinutils", "binutils-common"], pinned=())[0]
    if not list(own.glob(f"{main}_*.deb")):
        raise ProvisioningError(
            f"this machine has no linker (ld), and the folder {own} holds no package {main}: put it there with "
            "the packages that it depends on, or install binutils"
        )
    return [path for name in ("binutils", "lib") for path in sorted(own.glob(f"{name}*.deb"))]


def _fetch(folder: Path, triplet: str, source: str | None, report: Report) -> None:
    report("fetching a linker from the distribution, once …")
    staging = folder.with_name(f"staging-{folder.name}-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True, mode=0o700)
    try:
        packages = _packages(triplet, staging / "apt", source, report)
        tree = staging / "tree"
        tree.mkdir()
        for path in packages:
            run(["dpkg-deb", "-x", str(path), str(tree)], limit=300, what=f"unpacking {path.name}")
        manifest.describe(tree, {path.name: manifest.sha256(path) for path in packages}, [])
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(tree, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
