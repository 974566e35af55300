"""Which Julia to use, and why: one ordered list of candidates, every refusal kept.

1. A Julia that juliacall has already started in this process: two do not fit into one.
2. What the user asked for: a path, or one of the words ``full`` and ``embedded``. Never replaced silently.
3. The full host: juliacall's Julia (1.10 or newer) with the companion packages, when they are installed
   already or when Julia's servers can be reached.
4. The embedded default: Julia 1.5.3, from the wheel ``pymlpgf_julia`` if that is installed, else the Debian
   distribution's, installed privately.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import ProvisioningError, RuntimeUnavailable
from .. import debian, image, manifest, settings
from ..debian import release
from ..julia import Julia, Refused, executable_at, inspect, running_juliacall
from ..report import Progress, Report
from . import juliapkg_state

__all__ = ["Julia", "Refusal", "find"]

OLDEST = (1, 5, 0)
OLDEST_FULL = (1, 10, 0)


@dataclass(frozen=True)
class Refusal:
    """A candidate that cannot be used, and why."""

    candidate: str
    why: str


def find(
    setting: str | os.PathLike[str] | None = None,
    *,
    provision: bool = True,
    report: Report | None = None,
    fresh: bool = False,
) -> tuple[Julia, list[Refusal]]:
    """The Julia to start, and every candidate that was refused before it.

    ``setting`` goes before the environment and the configuration file: a path to a Julia (executable, its
    folder or its prefix), ``"full"`` or ``"embedded"``. With ``provision=False`` nothing is installed.
    ``fresh=True`` forgets that Julia's servers were out of reach within the last hour.
    Raises ``RuntimeUnavailable`` with all refusals.
    """
    wish = settings.load(executable=None if setting is None else os.fspath(setting))
    report = report or Progress()
    refusals: list[Refusal] = []

    running = _running()
    if running is not None:
        if wish.executable not in (None, "full"):
            why = "juliacall has already started a Julia in this process, and two do not fit into one"
            refusals.append(Refusal(wish.executable or "", why))
        return running, refusals

    if wish.executable not in (None, "full", "embedded"):
        candidates = [f"{wish.executable} ({wish.origins['executable']})"]
    else:
        candidates = [wish.executable] if wish.executable else ["full", "embedded"]
    for candidate in candidates:
        try:
            if candidate == "full":
                return _full(wish, provision, report, fresh), refusals
            if candidate == "embedded":
                return _embedded(wish, provision, report), refusals
            return _explicit(wish, provision, report, fresh), refusals
        except (Refused, ProvisioningError) as error:
            refusals.append(Refusal(candidate, str(error)))
    reasons = "\n".join(f"  {refusal.candidate}: {refusal.why}" for refusal in refusals)
    raise RuntimeUnavailable(f"no Julia can be used here:\n{reasons}\nSee `pymlpgf doctor`.")


def _running() -> Julia | None:
    """The Julia of juliacall that runs in this process, if one does."""
    module = running_juliacall()
    if module is None:
        return None
    state: Mapping[str, Any] = module.CONFIG
    main = module.Main
    version = main.VERSION
    bindir = Path(str(main.seval("Sys.BINDIR")))
    return Julia(
        host="juliacall",
        executable=Path(state.get("exepath") or bindir / "julia"),
        bindir=bindir,
        libjulia=Path(state.get("libpath") or ""),
        sysimage=Path(str(main.seval("unsafe_string(Base.JLOptions().image_file)"))),
        version=(int(version.major), int(version.minor), int(version.patch)),
        origin="started by juliacall in this process" if state.get("inited") else "the Julia that runs this Python",
        project=Path(state["project"]) if state.get("project") else None,
    )


def _explicit(wish: settings.Settings, provision: bool, report: Report, fresh: bool) -> Julia:
    executable = executable_at(Path(wish.executable or ""))
    julia = inspect(executable, wish.cache)
    if julia.version < OLDEST:
        raise Refused(f"it is Julia {julia.version_text}; {OLDEST[0]}.{OLDEST[1]} or newer is needed")
    julia = replace(julia, origin=wish.origins["executable"], project=wish.project)
    if julia.version < OLDEST_FULL or juliapkg_state.missing_module():
        return julia
    if wish.project is not None:
        return replace(julia, host="juliacall") if _holds_pythoncall(wish.project) else julia
    try:
        _, project = juliapkg_state.locate(wish.cache, provision, report, fresh, override=str(executable))
    except Refused:  # no companions then, but this Julia can still be loaded directly
        return julia
    return replace(julia, host="juliacall", project=project)


def _full(wish: settings.Settings, provision: bool, report: Report, fresh: bool) -> Julia:
    if missing := juliapkg_state.missing_module():
        raise Refused(f"the Python package {missing} is not installed: `python -m pip install juliacall`")
    given = os.environ.get("PYTHON_JULIACALL_EXE"), os.environ.get("PYTHON_JULIACALL_PROJECT")
    if given[0] and given[1]:
        command = shutil.which(given[0])
        if command is None:
            raise Refused(f"PYTHON_JULIACALL_EXE is {given[0]!r}, which is no program")
        executable, project = Path(command), Path(given[1])
        origin = "environment variables PYTHON_JULIACALL_EXE and PYTHON_JULIACALL_PROJECT"
    else:
        executable, project = juliapkg_state.locate(wish.cache, provision, report, fresh)
        origin = f"juliapkg, project {project}"
    julia = inspect(executable, wish.cache)
    if julia.version < OLDEST_FULL:
        raise Refused(f"it is Julia {julia.version_text}; juliacall needs {OLDEST_FULL[0]}.{OLDEST_FULL[1]} or newer")
    return replace(julia, host="juliacall", origin=origin, project=project)


def _embedded(wish: settings.Settings, provision: bool, report: Report) -> Julia:
    if wheel := _wheel(wish):
        return wheel
    place = release.installation(wish.cache)
    if not provision and (faults := manifest.faults(place.prefix)):
        raise Refused(f"{faults[0]}; `pymlpgf install` installs it")
    if provision:
        place = debian.ensure(wish.cache, source=wish.debian_source, report=report)
    return Julia(
        host="embedded",
        executable=place.executable,
        bindir=place.bindir,
        libjulia=place.libjulia,
        sysimage=place.sysimage,
        version=release.VERSION,
        origin=f"Debian {release.SUITE}, installed privately in {place.prefix}",
        project=wish.project,
        private=True,
    )


def _wheel(wish: settings.Settings) -> Julia | None:
    """The Julia of the wheel ``pymlpgf_julia``, with its system image, if that is installed.

    One of another version is refused: its image belongs to other sources of the Julia package.
    """
    spec = importlib.util.find_spec("pymlpgf_julia")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0])
    place = release.Installation(folder / "tree", release.ARCHITECTURES["x86_64"][1])
    julia = Julia(
        host="embedded",
        executable=place.executable,
        bindir=place.bindir,
        libjulia=place.libjulia,
        sysimage=folder / "image" / image.LIBRARY,
        version=release.VERSION,
        origin=f"the wheel pymlpgf_julia in {folder}",
        project=wish.project,
        private=True,
        image=True,
    )
    if fault := image.Store(wish.cache).fault(folder / "image", image.key(julia, portable=True)):
        why = "install the one of this version of pymlpgf, or remove it: `python -m pip uninstall pymlpgf_julia`"
        raise Refused(f"the wheel pymlpgf_julia in {folder} cannot be used, {fault}: {why}")
    return julia


def _holds_pythoncall(project: Path) -> bool:
    """Whether juliacall can start in this project: it needs PythonCall there."""
    for name in ("Manifest.toml", "JuliaManifest.toml", "Project.toml", "JuliaProject.toml"):
        with contextlib.suppress(OSError):
            if "PythonCall" in (project / name).read_text(encoding="utf-8", errors="replace"):
                return True
    return False
