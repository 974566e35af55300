"""The program that makes a shared library of an object file: the machine's, or the distribution's, kept privately."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import ProvisioningError
from .. import apt, manifest
from ..children import run
from ..release import architecture
from ..report import Report

__all__ = ["Linker", "find"]

NAMES = ("ld", "ld.gold", "ld.lld")
PACKAGE = "binutils"


@dataclass(frozen=True)
class Linker:
    """A linker, and the environment that it needs."""

    program: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def link(self, source: Path, target: Path, libraries: Path, library: Path) -> None:
        """Make ``target``, a shared library, of the object file ``source``; ``library`` is libjulia."""
        command = [self.program, "-shared", "-o", str(target), "--whole-archive", str(source), "--no-whole-archive"]
        command += [f"-L{libraries}", f"-l:{library.name}"]
        run(command, limit=600, what="linking the system image", environment=os.environ | self.environment)


def find(cache: Path, source: str | None, report: Report) -> Linker:
    """A linker that works here; the distribution's is fetched where the machine has none.

    Raises ``ProvisioningError``.
    """
    for name in NAMES:
        if program := shutil.which(name):
            return Linker(program)
    folder = cache / f"{PACKAGE}-{architecture()}"
    if manifest.faults(folder):
        _fetch(folder, source, report)
    return _private(folder)


def _private(folder: Path) -> Linker:
    libraries = [str(path) for path in (folder / "usr" / "lib").glob("*-linux-gnu")]
    program = next((path for name in NAMES for path in (folder / "usr" / "bin").glob(f"*{name}*")), None)
    if program is None:
        raise ProvisioningError(
            f"the package {PACKAGE} in {folder} holds no linker: remove this folder, then try again"
        )
    return Linker(str(program), {"LD_LIBRARY_PATH": os.pathsep.join(libraries)})


def _packages(staging: Path, source: str | None, report: Report) -> list[Path]:
    own = Path(os.path.expanduser(source)) if source else None
    if own is not None and own.is_dir():
        found = sorted(own.glob("*.deb"))
        if not any(path.name.startswith(f"{PACKAGE}_") for path in found):
            raise ProvisioningError(
                f"this machine has no linker (ld), and the folder {own} holds no package {PACKAGE}: put it there with "
                "its dependencies, or install it"
            )
        return [path for path in found if "binutils" in path.name or path.name.startswith(("libctf", "libjansson"))]
    return apt.fetch(staging / "apt", source, report, wanted=[PACKAGE], pinned=())[0]


def _fetch(folder: Path, source: str | None, report: Report) -> None:
    report("fetching a linker from this machine's Debian mirror, once …")
    staging = folder.with_name(f"staging-{folder.name}-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True, mode=0o700)
    try:
        packages = _packages(staging, source, report)
        tree = staging / "tree"
        tree.mkdir()
        for path in packages:
            run(["dpkg-deb", "-x", str(path), str(tree)], limit=300, what=f"unpacking {path.name}")
        manifest.describe(tree, {path.name: manifest.sha256(path) for path in packages}, [])
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(tree, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
