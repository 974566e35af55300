"""The only rooms that know Julia exists: find one, start it, talk to it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MLPGFError, SettingError

if TYPE_CHECKING:
    from .bridge import Bridge, Host
    from .julia import Julia
    from .settings import Settings

__all__ = ["evaluate", "info", "init", "runtime_info", "start", "with_image"]

_lock = threading.Lock()
_bridge: Bridge | None = None
_julia_host: Host | None = None
_info: dict[str, Any] = {}


def start(threads: int | str | None = None, julia: str | os.PathLike[str] | None = None) -> Bridge:
    """The bridge to Julia, which is found (see ``find``), started in this thread and given MLPGF at the first call.

    Later calls return the same bridge; they may only ask for the threads and the Julia that run.
    """
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
        # Not above: the bridge imports NumPy, and the commands that only look for Julia do without.
        from . import environment, find, settings
        from .bridge import Bridge

        wish = settings.load(threads=threads, executable=julia)
        found, refusals = find.find(julia)
        count = wish.thread_count or 1
        begin = time.perf_counter()
        environment.open_streams()
        with with_image(found, wish, build=True) as started:
            _julia_host = _host(started, wish.cache, count)
        running = getattr(_julia_host, "threads", count)
        if threads is not None and running != count:
            raise MLPGFError(
                f"juliacall has started Julia with {running} thread{'s' if running > 1 else ''}; threads={threads!r} "
                f"would need a new process with PYTHON_JULIACALL_THREADS={count}, or pymlpgf.init before juliacall"
            )
        count = running
        _bridge = Bridge(_julia_host, environment.package(), count)
        _info.update(
            julia=str(found.executable), version=found.version_text, host=found.host,
            origin=found.origin, image=str(started.sysimage) if started.image else None, threads=count,
            project=None if found.project is None else str(found.project),
            start_seconds=time.perf_counter() - begin, refused=[(r.candidate, r.why) for r in refusals],
        )  # fmt: skip
        return _bridge


def init(threads: int | str | None = None, julia: str | None = None) -> None:
    """Start Julia now, in this thread, instead of at the first use.

    Parameters
    ----------
    threads : int or "auto", optional
        Julia threads; default from PYMLPGF_THREADS or the configuration file, else 1.
    julia : path, "full" or "embedded", optional
        Which Julia; default from PYMLPGF_JULIA or the configuration file, else the first that is found.
    """
    start(threads=threads, julia=julia)


def runtime_info() -> dict[str, Any]:
    """Julia's version, path, host and threads; ``{"started": False}`` before Julia runs."""
    return info()


@contextlib.contextmanager
def with_image(julia: Julia, wish: Settings, *, build: bool = False) -> Iterator[Julia]:
    """``julia`` as it is to be started: with a system image that holds this package, if there is one.

    The image stays there while the body starts Julia. With ``build``, one is begun in the background if there is none.
    """
    if not julia.private or julia.image or wish.image == "off":
        yield julia
        return
    from . import background, image
    from .report import Progress

    store, key = image.Store(wish.cache), image.key(julia)
    place = store.place(key) if wish.image == "auto" else Path(wish.image)
    fault = store.fault(place, key)
    if fault is None:
        with image.held(place / image.LIBRARY) as there:
            if there:
                yield replace(julia, sysimage=place / image.LIBRARY, image=True)
                return
    elif wish.image != "auto":
        raise SettingError(f"{wish.origins['image']}: the system image in {place} cannot be used: {fault}")
    elif build:
        background.begin(key, wish, Progress())
    yield julia


def evaluate(code: str) -> int:
    """The Int64 that Julia ``code`` evaluates to: for diagnosis and tests; starts Julia if need be."""
    start().enter()
    assert _julia_host is not None
    return _julia_host.eval(code)


def info() -> dict[str, Any]:
    """What runs: Julia's path, version, host and threads; ``started`` tells whether it runs at all."""
    return {"started": _bridge is not None, **_info}


def _host(julia: Julia, cache: Path, threads: int) -> Host:
    if julia.host == "juliacall":
        from .hosts.juliacall import JuliacallHost

        return JuliacallHost(julia, threads, cache)
    from . import environment
    from .hosts.embedded import EmbeddedHost

    return EmbeddedHost(julia, environment.variables(julia, cache, threads))
