"""The only rooms that know Julia exists: find one, start it, talk to it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MLPGFError, SettingError
from .bridge import Bridge, Host

if TYPE_CHECKING:
    from .find import Julia

__all__ = ["bridge", "evaluate", "info", "start"]

_lock = threading.Lock()
_bridge: Bridge | None = None
_julia_host: Host | None = None
_info: dict[str, Any] = {}


def bridge() -> Bridge:
    """The bridge to Julia, which is started at the first use."""
    return _bridge if _bridge is not None else start()


def start(threads: int | str | None = None, julia: str | os.PathLike[str] | None = None) -> Bridge:
    """Find Julia (see ``find``), start it in this thread and load MLPGF. Once in a process."""
    global _bridge, _julia_host
    with _lock:
        if _bridge is not None:
            wanted = {"threads": threads, "julia": julia}
            given = [f"{name}={value!r}" for name, value in wanted.items() if value is not None]
            if given and any(str(_info[name]) != str(value) for name, value in wanted.items() if value is not None):
                raise MLPGFError(
                    f"Julia runs already, with threads={_info['threads']} from {_info['julia']}; "
                    f"{', '.join(given)} would need a new process: call pymlpgf.init before any other use"
                )
            return _bridge
        from . import find, settings

        wish = settings.load(threads=threads, executable=julia)
        found, refusals = find.find(julia)
        count = (os.cpu_count() or 1) if wish.threads == 0 else wish.threads or 1
        begin = time.perf_counter()
        _julia_host = _host(found, count, wish.cache)
        _bridge = Bridge(_julia_host, _package(), count)
        _info.update(
            julia=str(found.executable), version=".".join(map(str, found.version)), host=found.host,
            origin=found.origin, threads=count, project=None if found.project is None else str(found.project),
            start_seconds=time.perf_counter() - begin, refused=[(r.candidate, r.why) for r in refusals],
        )  # fmt: skip
        return _bridge


def evaluate(code: str) -> int:
    """The Int64 that Julia ``code`` evaluates to: for diagnosis and tests; starts Julia if need be."""
    bridge().enter()
    assert _julia_host is not None
    return _julia_host.eval(code)


def info() -> dict[str, Any]:
    """What runs: Julia's path, version, host and threads; ``started`` tells whether it runs at all."""
    return {"started": _bridge is not None, **_info}


def _host(julia: Julia, threads: int, cache: Path) -> Host:
    if julia.host == "juliacall":
        from .juliacall_host import JuliacallHost

        return JuliacallHost(julia, threads)
    from . import cpu
    from .embedded_host import EmbeddedHost

    environment = {"JULIA_NUM_THREADS": str(threads), "JULIA_LOAD_PATH": f"@stdlib{os.pathsep}{_package()}"}
    if julia.version < (1, 6, 0):
        coretype = cpu.openblas_coretype()
        if coretype:
            environment["OPENBLAS_CORETYPE"] = coretype
        environment["JULIA_DEPOT_PATH"] = str(cache / f"depot-{'.'.join(map(str, julia.version))}")
    if julia.project is not None:
        environment["JULIA_PROJECT"] = str(julia.project)
        environment["JULIA_LOAD_PATH"] = f"@{os.pathsep}@stdlib{os.pathsep}{_package()}"
    return EmbeddedHost(julia, environment)


def _package() -> Path:
    folder = Path(__file__).resolve().parent.parent / "julia"
    if not (folder / "src" / "MLPGF.jl").is_file():
        raise SettingError(f"{folder} does not hold the Julia package MLPGF: install pymlpgf again")
    return folder
