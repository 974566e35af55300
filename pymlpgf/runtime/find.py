"""Which Julia to use, and why: one ordered list of candidates, every refusal kept.

1. A Julia that juliacall has already started in this process: two do not fit into one.
2. What the user asked for: a path, or one of the words ``full`` and ``embedded``. Never replaced silently.
3. The full host: juliacall's Julia (1.10 or newer) with the companion packages, when they are installed
   already or when Julia's servers can be reached.
4. The embedded default: the Debian distribution's Julia 1.5.3, installed privately.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import MLPGFError, ProvisioningError, RuntimeUnavailable
from . import debian, settings
from .debian import Progress, Report

__all__ = ["Julia", "Refusal", "find", "inspect", "probe"]

OLDEST = (1, 5, 0)
OLDEST_FULL = (1, 10, 0)
PROBE_SECONDS = 1.5
PROBE_MEMORY = 3600.0
ASK_SECONDS = 20.0
RESOLVE_LIMIT = 3600.0
NOT_YET = "its packages are not installed yet"

# Loaded libraries rather than dlpath("libjulia"): that name needs a link which distributions leave out.
# libjulia-internal (1.6 and newer) is not wanted, it lacks the loader's exports.
FACTS = r"""
import Libdl
lib = first(filter(p -> occursin(r"^libjulia(\.|-?[0-9.]*\.dll)", basename(p)), Libdl.dllist()))
join(stdout, (VERSION, Sys.BINDIR, abspath(lib), abspath(unsafe_string(Base.JLOptions().image_file))), '\0')
"""

# Runs in a process of its own with the paths of this one, on which juliapkg looks for juliapkg.json files.
RESOLVE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
import juliapkg
juliapkg.resolve()
"""


@dataclass(frozen=True)
class Julia:
    """One Julia that can be started."""

    host: str  # "juliacall" or "embedded"
    executable: Path
    bindir: Path
    libjulia: Path
    sysimage: Path
    version: tuple[int, int, int]
    origin: str  # sentence: where it came from
    project: Path | None = None  # Julia project that holds companions, if any


@dataclass(frozen=True)
class Refusal:
    """A candidate that cannot be used, and why."""

    candidate: str
    why: str


class _Refused(Exception):
    """Internal: the candidate at hand cannot be used, for the reason given."""


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
        except (_Refused, ProvisioningError) as error:
            refusals.append(Refusal(candidate, str(error)))
    reasons = "\n".join(f"  {refusal.candidate}: {refusal.why}" for refusal in refusals)
    raise RuntimeUnavailable(f"no Julia can be used here:\n{reasons}\nSee `pymlpgf doctor`.")


# ---- candidates ------------------------------------------------------------------------------------------


def _running() -> Julia | None:
    """The Julia that juliacall has started in this process, if it has."""
    module = sys.modules.get("juliacall")
    state: Mapping[str, Any] = getattr(module, "CONFIG", {})
    if not state.get("inited"):
        return None
    main = module.Main  # type: ignore[union-attr]
    version = main.VERSION
    bindir = Path(str(main.seval("Sys.BINDIR")))
    return Julia(
        host="juliacall",
        executable=Path(state.get("exepath") or bindir / "julia"),
        bindir=bindir,
        libjulia=Path(state.get("libpath") or ""),
        sysimage=Path(str(main.seval("unsafe_string(Base.JLOptions().image_file)"))),
        version=(int(version.major), int(version.minor), int(version.patch)),
        origin="started by juliacall in this process",
        project=Path(state["project"]) if state.get("project") else None,
    )


def _explicit(wish: settings.Settings, provision: bool, report: Report, fresh: bool) -> Julia:
    executable = _executable_at(Path(wish.executable or ""))
    julia = inspect(executable, wish.cache)
    if julia.version < OLDEST:
        raise _Refused(f"it is Julia {_text(julia.version)}; {_text(OLDEST[:2])} or newer is needed")
    julia = replace(julia, origin=wish.origins["executable"], project=wish.project)
    if julia.version < OLDEST_FULL or _missing_modules():
        return julia
    if wish.project is not None:
        return replace(julia, host="juliacall") if _holds_pythoncall(wish.project) else julia
    try:
        _, project = _juliapkg(wish, provision, report, fresh, override=str(executable))
    except _Refused:  # no companions then, but this Julia can still be loaded directly
        return julia
    return replace(julia, host="juliacall", project=project)


def _full(wish: settings.Settings, provision: bool, report: Report, fresh: bool) -> Julia:
    if missing := _missing_modules():
        raise _Refused(f"the Python package {missing} is not installed: `python -m pip install juliacall`")
    given = os.environ.get("PYTHON_JULIACALL_EXE"), os.environ.get("PYTHON_JULIACALL_PROJECT")
    if given[0] and given[1]:
        command = shutil.which(given[0])
        if command is None:
            raise _Refused(f"PYTHON_JULIACALL_EXE is {given[0]!r}, which is no program")
        executable, project = Path(command), Path(given[1])
        origin = "environment variables PYTHON_JULIACALL_EXE and PYTHON_JULIACALL_PROJECT"
    else:
        executable, project = _juliapkg(wish, provision, report, fresh)
        origin = f"juliapkg, project {project}"
    julia = inspect(executable, wish.cache)
    if julia.version < OLDEST_FULL:
        raise _Refused(f"it is Julia {_text(julia.version)}; juliacall needs {_text(OLDEST_FULL[:2])} or newer")
    return replace(julia, host="juliacall", origin=origin, project=project)


def _embedded(wish: settings.Settings, provision: bool, report: Report) -> Julia:
    place = debian.installation(wish.cache)
    if not provision and (faults := debian.faults(place)):
        raise _Refused(f"{faults[0]}; `pymlpgf install` installs it")
    if provision:
        place = debian.ensure(wish.cache, source=wish.debian_source, report=report)
    return Julia(
        host="embedded",
        executable=place.executable,
        bindir=place.bindir,
        libjulia=place.libjulia,
        sysimage=place.sysimage,
        version=debian.VERSION,
        origin=f"Debian {debian.SUITE}, installed privately in {place.prefix}",
        project=wish.project,
    )


# ---- a Julia by its path ---------------------------------------------------------------------------------


def _executable_at(path: Path) -> Path:
    name = "julia.exe" if os.name == "nt" else "julia"
    for candidate in (path, path / name, path / "bin" / name, path / "usr" / "bin" / name):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise _Refused(f"there is no julia program at {path}, {path / name} or {path / 'bin' / name}")


def inspect(executable: Path, cache: Path) -> Julia:
    """What an executable says of itself; remembered in ``cache`` by path, time and size of the file."""
    try:
        stat = executable.stat()
    except OSError as error:
        raise _Refused(f"{executable} cannot be read ({error.strerror})") from None
    key = f"{executable}|{stat.st_mtime_ns}|{stat.st_size}"
    facts = _recall(cache, "julias.json").get(key)
    if not (isinstance(facts, list) and len(facts) == 4 and all(os.path.exists(path) for path in facts[1:])):
        facts = _ask(executable)
        # A launcher (juliaup's) stays the same file when the Julia behind it changes: its answer is not kept.
        if os.path.samefile(executable.resolve().parent, facts[1]):
            _remember(cache, "julias.json", key, facts)
    version, bindir, libjulia, sysimage = facts
    numbers = version.split("-")[0].split("+")[0].split(".")
    own = Path(bindir, executable.name)
    return Julia(
        host="embedded",
        executable=own if own.is_file() else executable,
        bindir=Path(bindir),
        libjulia=Path(libjulia),
        sysimage=Path(sysimage),
        version=(int(numbers[0]), int(numbers[1]), int(numbers[2])),
        origin=str(executable),
    )


def _ask(executable: Path) -> list[str]:
    command = [str(executable), "--startup-file=no", "--history-file=no", "-O0", "--compile=min", "-e", FACTS]
    environment = {name: value for name, value in os.environ.items() if name != "JULIA_PROJECT"}
    environment["JULIA_LOAD_PATH"] = "@stdlib"
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _Refused(f"{executable} did not tell its version within {ASK_SECONDS:.0f} s") from None
    except OSError as error:
        raise _Refused(f"{executable} cannot be started ({error.strerror})") from None
    facts = done.stdout.decode("utf-8", "replace").split("\0")
    if done.returncode != 0 or len(facts) != 4 or not facts[0][:1].isdigit():
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        raise _Refused(f"{executable} does not answer like a Julia: {said[0] if said else 'no output'}")
    return facts


def _holds_pythoncall(project: Path) -> bool:
    """Whether juliacall can start in this project: it needs PythonCall there."""
    for name in ("Manifest.toml", "JuliaManifest.toml", "Project.toml", "JuliaProject.toml"):
        with contextlib.suppress(OSError):
            if "PythonCall" in (project / name).read_text(encoding="utf-8", errors="replace"):
                return True
    return False


# ---- juliapkg --------------------------------------------------------------------------------------------


def _missing_modules() -> str | None:
    """The first module that juliacall's host lacks. Looked up, not imported: importing juliacall resolves."""
    return next((name for name in ("juliacall", "juliapkg") if importlib.util.find_spec(name) is None), None)


def _juliapkg(
    wish: settings.Settings, provision: bool, report: Report, fresh: bool, override: str | None = None
) -> tuple[Path, Path]:
    """Executable and project of juliapkg, resolved first where that is needed and possible.

    That the servers are out of reach is remembered for an hour, with the path of the file that says what
    juliapkg has resolved: while that is missing, later starts need not even import juliapkg (0.2 s).
    """
    places = ("PYTHON_JULIAPKG_PROJECT", "JULIA_DEPOT_PATH", "CONDA_PREFIX", "JULIA_PKG_SERVER")
    key = "|".join([sys.prefix, *(os.environ.get(name, "") for name in places)])
    known = _recall(wish.cache, "probe.json").get(key)
    past = None
    if not fresh and isinstance(known, list) and len(known) == 3 and 0 <= time.time() - known[0] < PROBE_MEMORY:
        past = f"{known[1]} (tried {(time.time() - known[0]) / 60:.0f} min ago; `pymlpgf doctor` tries anew)"
        if not os.path.exists(known[2]):
            raise _Refused(f"{NOT_YET}, and {past}")
    if ready := _resolved(override):
        return ready
    out_of_reach = past or probe()
    if past is None:
        meta = str(importlib.import_module("juliapkg.state").STATE["meta"])
        _remember(wish.cache, "probe.json", key, [time.time(), out_of_reach, meta] if out_of_reach else None)
    if out_of_reach:
        raise _Refused(f"{NOT_YET}, and {out_of_reach}")
    if not provision:
        raise _Refused(f"{NOT_YET} (Julia's servers answer: `pymlpgf install` gets them)")
    report("installing Julia and its packages through juliapkg, once; this takes some minutes …", None)
    _resolve(override)
    if ready := _resolved(override):
        return ready
    raise _Refused("juliapkg resolved its packages, but not for this Python's path; see `python -m juliapkg status`")


def _resolved(override: str | None) -> tuple[Path, Path] | None:
    """Executable and project if juliapkg has resolved the present set of juliapkg.json files, else None.

    This asks juliapkg's own check, which reads one file, compares hashes and runs ``julia --version``; its
    public ``resolve(dry_run=True)`` would create folders and may wait for a lock.
    """
    try:
        deps = importlib.import_module("juliapkg.deps")
        state = importlib.import_module("juliapkg.state").STATE
        before = state["override_executable"]
        state["override_executable"] = override or before
        try:
            if not os.path.exists(state["meta"]):
                return None
            meta = deps.can_skip_resolve()
        finally:
            state["override_executable"] = before
        if not meta or not os.path.isfile(os.path.join(state["project"], "Manifest.toml")):
            return None
        return Path(shutil.which(meta["executable"]) or meta["executable"]), Path(state["project"])
    except MLPGFError:
        raise
    except Exception as error:  # whatever another release of juliapkg does, the next candidate is to be tried
        raise _Refused(f"juliapkg cannot tell its state: {type(error).__name__}: {error}") from None


def _resolve(override: str | None) -> None:
    environment = dict(os.environ)
    if override:
        environment["PYTHON_JULIAPKG_EXE"] = override
    command = [sys.executable, "-c", RESOLVE, json.dumps(sys.path)]
    output = sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,
    )
    try:
        status = process.wait(RESOLVE_LIMIT)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, 9) if hasattr(os, "killpg") else process.kill()
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise _Refused(f"juliapkg took longer than {RESOLVE_LIMIT:.0f} s") from None
        raise
    if status != 0:
        raise _Refused("juliapkg could not install its packages (its messages are above)")


def _has_descriptor(stream: Any) -> bool:
    try:
        return bool(stream.fileno() >= 0)
    except (AttributeError, OSError, ValueError):
        return False


# ---- Julia's servers -------------------------------------------------------------------------------------


def probe() -> str | None:
    """None if Julia's servers answer within 1.5 s, else a clause that says what happened.

    The address is JULIA_PKG_SERVER's, or the one that juliapkg downloads Julia from. Proxies of the
    environment are used, as they would be for the download.
    """
    server = os.environ.get("JULIA_PKG_SERVER", "")
    if server:
        url = f"{server if '://' in server else f'https://{server}'}/registries"
    else:
        try:
            url = str(importlib.import_module("juliapkg.install_julia")._julia_versions_url)
        except (ImportError, AttributeError):
            return "juliapkg does not tell where it downloads Julia from"
    answer: list[str | None] = []

    def ask() -> None:
        import urllib.request  # 60 ms that only a probe needs

        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
                answer.append(None)
        except Exception as error:
            answer.append(f"Julia's servers are out of reach ({getattr(error, 'reason', error)})")

    # A thread, because looking a name up can hang much longer than any time-out of a socket.
    thread = threading.Thread(target=ask, daemon=True, name="pymlpgf-probe")
    thread.start()
    thread.join(PROBE_SECONDS)
    return answer[0] if answer else f"Julia's servers did not answer within {PROBE_SECONDS} s"


# ---- small answers worth keeping -------------------------------------------------------------------------


def _recall(cache: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((cache / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _remember(cache: Path, name: str, key: str, value: object) -> None:
    """Keep one answer; None forgets it."""
    known = _recall(cache, name)
    if known.get(key) == value:
        return
    known[key] = value
    with contextlib.suppress(OSError):  # a read-only cache only costs the time to ask again
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = cache / f"{name}.{os.getpid()}.{threading.get_ident()}.part"
        part.write_text(json.dumps({k: v for k, v in known.items() if v is not None}), encoding="utf-8")
        os.replace(part, cache / name)


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
