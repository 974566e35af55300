"""The environment variables with which Julia finds MLPGF, a depot and the right BLAS kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import SettingError
from . import cpu
from .julia import Julia

__all__ = ["blocking_streams", "depot", "open_streams", "package", "spare_depot", "temporary", "variables", "writable"]

OLD_OPENBLAS = (1, 6, 0)  # Julias before this one bring an OpenBLAS that takes today's processors for old ones


def package() -> Path:
    """The folder of the Julia package MLPGF."""
    folder = Path(__file__).resolve().parent.parent / "julia"
    if not (folder / "src" / "MLPGF.jl").is_file():
        raise SettingError(f"{folder} does not hold the Julia package MLPGF: install pymlpgf again")
    return folder


def depot(julia: Julia, cache: Path) -> str | None:
    """The JULIA_DEPOT_PATH to set for ``julia``; None leaves the user's or Julia's own choice.

    A Julia that is loaded without juliacall writes what it compiles into ``cache``, never into ~/.julia. A Julia of
    the user's goes on to read there (its project's packages may be there), and the empty entry is Julia's own depots.
    What is compiled depends on the processor (see ``REGISTER`` in julia/src/kernels/vectors.jl), so that machines that
    share a home folder have depots of their own.
    """
    own = str(_own_depot(julia, cache))
    if julia.private:
        return own
    if julia.host == "juliacall" or os.environ.get("JULIA_DEPOT_PATH"):
        return None
    return os.pathsep.join([own, os.path.expanduser("~/.julia"), ""])


def _own_depot(julia: Julia, cache: Path) -> Path:
    return cache / f"depot-{julia.version_text}-{cpu.fingerprint()}"


def spare_depot(julia: Julia, cache: Path, first: Path) -> Path | None:
    """Where to compile to if nobody may write to ``first``, Julia's first depot; None: there, or nowhere else either.

    What is compiled in ``first`` is found there all the same.
    """
    compiled = first / "compiled" / "v{}.{}".format(*julia.version) / "MLPGF"
    return None if writable(compiled) or not writable(cache) else _own_depot(julia, cache)


def writable(folder: Path) -> bool:
    """Whether ``folder`` can be written to, or made if it is not there."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    return os.access(there, os.W_OK | os.X_OK)


def variables(julia: Julia, cache: Path, threads: int | None, *, session: bool = False) -> dict[str, str]:
    """What to set in the environment in which ``julia`` starts; ``threads`` None leaves the user's choice.

    In a ``session`` of the user's, her load path and active project count too. Inside Python they do not: a project
    of the current folder, made for another Julia, would be in the way.
    """
    values = {}
    load_path = [str(package()), "@stdlib"]
    if session:
        load_path.insert(0, os.environ.get("JULIA_LOAD_PATH") or "@")
    elif julia.project is not None:
        load_path.insert(0, "@")
    values["JULIA_LOAD_PATH"] = os.pathsep.join(load_path)
    if julia.project is not None:
        values["JULIA_PROJECT"] = str(julia.project)
    if threads is not None:
        values["JULIA_NUM_THREADS"] = str(threads)
        if not session and "OPENBLAS_NUM_THREADS" not in os.environ:
            # Left alone it takes every core, for matrices too small for it: 2 to 7 times slower for P = 33 to 601.
            values["OPENBLAS_NUM_THREADS"] = str(threads)
    if path := depot(julia, cache):
        values["JULIA_DEPOT_PATH"] = path
    if julia.version < OLD_OPENBLAS and (coretype := cpu.openblas_coretype()):
        values["OPENBLAS_CORETYPE"] = coretype
    return values


def open_streams() -> None:
    """Open a null device in place of each standard stream that is closed.

    Julia's event loop would take its descriptor, and the process would be aborted at its end.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


@contextmanager
def blocking_streams() -> Iterator[None]:
    """Run the body (which starts Julia), then let reads and writes of the standard streams wait as they did before.

    Julia switches pipes to "do not wait". Reading lines that come late would end early then, and writing more than
    a slow reader takes would fail.
    """
    before = {}
    if os.name == "posix":
        for number in range(3):
            with suppress(OSError):  # closed
                before[number] = os.get_blocking(number)
    try:
        yield
    finally:
        for number, blocking in before.items():
            os.set_blocking(number, blocking)


@contextmanager
def temporary(values: Mapping[str, str]) -> Iterator[None]:
    """``os.environ`` with ``values`` for the body; afterwards as before, so that children do not inherit them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
