"""Build an image: Julia writes the object file, a linker makes a library of it, a trial run uses it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from ...errors import ProvisioningError
from .. import manifest
from ..answers import remember
from ..children import run
from ..environment import package, variables
from ..julia import Julia
from ..lock import locked, sweep
from ..report import Report
from ..settings import Settings
from . import linker
from .key import key as key_of
from .store import LIBRARY, VERIFIED, Store

__all__ = ["attempt", "build", "write_library"]

DISK_NEEDED = 900 << 20  # an object file of 250 MB and a library of 220, and room to breathe
LIMIT = 3600.0
EXPECTED = 170.0  # seconds on an idle core, for the fraction that is shown
PATIENCE = 1800.0

#: Run with the finished image: it must start, hold the package and differentiate rightly.
TRIAL = """
using MLPGF
X, Y = [0.1 -0.7 0.4; 0.3 0.2 -0.9], [0.2 0.5 -0.1]
net = Net(layers = ((3, softplus, true), (1, identity, true)), input = X, target = Y)
p = random_params(0, net)
g = gradient(net, p)
slope = (loss(net, p .+ 1e-6 .* g) - loss(net, p .- 1e-6 .* g)) / 2e-6
good = abs(slope - sum(abs2, g)) < 1e-6 && minimize(net, p; maxiterations = 50).loss < loss(net, p)
print(good ? "good" : "wrong", " ", ccall(:jl_is_initialized, Cint, ()))
"""


def build(julia: Julia, wish: Settings, report: Report, *, wait: bool = True) -> Path | None:
    """The folder of the image for ``julia``, built now unless it is there; None where another process builds it.

    With ``wait`` the other process is waited for. What happens is written to the log of this key. Raises
    ``ProvisioningError``; nothing but the log is left then.
    """
    store, key = Store(wish.cache), key_of(julia)
    if store.fault(store.place(key), key) is None:
        if any(store.folder.glob("staging-*")):  # of a builder that was killed when all but this was done
            with contextlib.suppress(OSError), _lock(store, False, report) as owned:
                if owned:
                    sweep(store.folder)
        return store.place(key)
    with _writing_to(store.folder), _lock(store, wait, report) as owned:
        if not owned:
            return None
        fault = store.fault(store.place(key), key)  # another process may have built it
        if fault is None:
            return store.place(key)
        with open(store.log(key), "w", encoding="utf-8") as log:
            try:
                _build(julia, wish, store, key, _logged(report, log))
            except BaseException as error:
                print(getattr(error, "output", "") + f"\nfailed: {type(error).__name__}: {error}", file=log)
                raise
    return store.place(key)


def _build(julia: Julia, wish: Settings, store: Store, key: str, report: Report) -> None:
    started = time.monotonic()
    sweep(store.folder)
    free = shutil.disk_usage(store.folder).free
    if free < DISK_NEEDED:
        raise ProvisioningError(
            f"{store.folder} has {free >> 20} MB free, a system image needs {DISK_NEEDED >> 20} MB while it is built"
        )
    program = linker.find(wish.cache, wish.debian_source, report)
    staging = store.folder / f"staging-{os.getpid()}-{secrets.token_hex(4)}"
    staging.mkdir(mode=0o700)
    try:
        tree = staging / "image"
        tree.mkdir()
        write_library(julia, wish, program, staging, tree / LIBRARY, report)
        report("trying the system image", 0.95)
        attempt(julia, wish, tree / LIBRARY)
        if key_of(julia) != key:
            raise ProvisioningError("the sources changed while the system image was built: it is not kept")
        digest = manifest.sha256(tree / LIBRARY)
        seconds = time.monotonic() - started
        size = (tree / LIBRARY).stat().st_size
        manifest.write(tree, {"key": key, "size": size, "sha256": digest, "seconds": round(seconds, 1)})
        place = store.place(key)
        if os.path.lexists(place):  # damaged, or it would not be built anew
            os.rename(place, staging / "replaced")
        os.rename(tree, place)
        remember(store.cache, VERIFIED, key, None)
        store.fault(place, key)  # computes its hash once more, from the disk, and remembers that it fits
        store.prune(key)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    report(f"the system image is ready ({size / 1e6:.0f} MB, {seconds:.0f} s)")


def write_library(
    julia: Julia, wish: Settings, program: linker.Linker, staging: Path, library: Path, report: Report,
    processors: str | None = None,
) -> None:  # fmt: skip
    """Write the image of ``julia`` to ``library``, for this machine's processor or for ``processors``."""
    source = staging / "MLPGF.o"
    report("compiling a system image, once for this machine (about five minutes) …")
    began = time.monotonic()

    def tick() -> object:
        report("building the system image", min(0.9, (time.monotonic() - began) / EXPECTED))
        return None

    stdlib = Path(julia.bindir).parent / "share" / "julia" / "stdlib" / f"v{julia.version[0]}.{julia.version[1]}"
    target = [] if processors is None else ["--cpu-target", processors]
    command = [
        str(julia.executable), "--startup-file=no", "--history-file=no", "--handle-signals=no",  # else SIGTERM may hang
        f"-J{julia.sysimage}", *target, "--output-o", str(source), str(package() / "image.jl"), str(julia.bindir),
        str(stdlib),
    ]  # fmt: skip
    done = run(
        command, limit=LIMIT, what="compiling the system image", environment=_environment(julia, wish), tick=tick
    )
    for line in (done.stdout + done.stderr).splitlines():
        report(line)
    report("linking the system image", 0.92)
    program.link(source, library, julia.libjulia)
    source.unlink()


def _environment(julia: Julia, wish: Settings) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JULIA_")}
    return kept | variables(julia, wish.cache, 1)


def attempt(julia: Julia, wish: Settings, library: Path) -> None:
    """Start ``julia`` with the image ``library`` and compute a little; raises ``ProvisioningError`` if that fails."""
    command = [str(julia.executable), "--startup-file=no", "--history-file=no", f"-J{library}", "-e", TRIAL]
    said = run(command, limit=300, what="trying the system image", environment=_environment(julia, wish)).stdout
    if said.split() != ["good", "1"]:
        raise ProvisioningError(f"the system image answers {said.strip()!r} to a small test: it is not kept")


def _logged(report: Report, log: TextIO) -> Callable[..., None]:
    began = time.monotonic()

    def tell(text: str, fraction: float | None = None, /) -> None:
        if fraction is None:
            print(f"{time.monotonic() - began:7.1f} s  {text}", file=log, flush=True)
        report(text, fraction)

    return tell


@contextlib.contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ProvisioningError(f"no system image can be kept in {folder} ({error.strerror or error})") from error


def _lock(store: Store, wait: bool, report: Report) -> contextlib.AbstractContextManager[bool]:
    """Whether this process is the one that builds."""
    waiting = "waiting for another process that builds the system image …"
    too_long = f"another process has been building an image for {PATIENCE / 60:.0f} minutes"
    return locked(store.folder / "lock", PATIENCE if wait else 0, waiting, too_long, report)
