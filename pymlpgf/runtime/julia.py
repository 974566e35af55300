"""One Julia that can be started: where its parts are, as it says itself."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from .answers import recall, remember

__all__ = ["Julia", "Refused", "executable_at", "inspect", "running_juliacall"]

ASK_SECONDS = 20.0

# Loaded libraries rather than dlpath("libjulia"): that name needs a link which distributions leave out.
# libjulia-internal (1.6 and newer) is not wanted, it lacks the loader's exports.
FACTS = r"""
import Libdl
lib = first(filter(p -> occursin(r"^libjulia(\.|-?[0-9.]*\.dll)", basename(p)), Libdl.dllist()))
join(stdout, (VERSION, Sys.BINDIR, abspath(lib), abspath(unsafe_string(Base.JLOptions().image_file))), '\0')
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
    private: bool = False  # installed by this package, which keeps a depot and system images for it
    image: bool = False  # whether ``sysimage`` is one that holds the compiled package

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))


class Refused(Exception):
    """The candidate at hand cannot be used, for the reason given; ``find`` goes on to the next."""


def running_juliacall() -> ModuleType | None:
    """juliacall, if Julia runs in this process: juliacall has started it, or it runs Python, by PythonCall."""
    module = sys.modules.get("juliacall")
    runs = getattr(module, "CONFIG", {}).get("inited") or hasattr(module, "Main")
    return module if runs else None


def executable_at(path: Path) -> Path:
    """The julia program at ``path``: the program itself, its folder or its prefix."""
    name = "julia.exe" if os.name == "nt" else "julia"
    for candidate in (path, path / name, path / "bin" / name, path / "usr" / "bin" / name):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise Refused(f"there is no julia program at {path}, {path / name} or {path / 'bin' / name}")


def inspect(executable: Path, cache: Path) -> Julia:
    """What an executable says of itself; remembered in ``cache`` by path, time and size of the file."""
    try:
        stat = executable.stat()
    except OSError as error:
        raise Refused(f"{executable} cannot be read ({error.strerror})") from None
    key = f"{executable}|{stat.st_mtime_ns}|{stat.st_size}"
    facts = recall(cache, "julias.json").get(key)
    if not (isinstance(facts, list) and len(facts) == 4 and all(os.path.exists(path) for path in facts[1:])):
        facts = _ask(executable)
        # A launcher (juliaup's) stays the same file when the Julia behind it changes: its answer is not kept.
        if os.path.samefile(executable.resolve().parent, facts[1]):
            remember(cache, "julias.json", key, facts)
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
        raise Refused(f"{executable} did not tell its version within {ASK_SECONDS:.0f} s") from None
    except OSError as error:
        raise Refused(f"{executable} cannot be started ({error.strerror})") from None
    facts = done.stdout.decode("utf-8", "replace").split("\0")
    if done.returncode != 0 or len(facts) != 4 or not facts[0][:1].isdigit():
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        raise Refused(f"{executable} does not answer like a Julia: {said[0] if said else 'no output'}")
    return facts
