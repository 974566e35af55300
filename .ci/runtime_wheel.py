"""Build ``pymlpgf_julia``, a wheel with the private Julia, its libraries and a system image for several processors.

    python .ci/runtime_wheel.py [FOLDER]

For Linux on x86-64 with glibc 2.31 or newer. Everything beyond glibc comes from Julia's own suite of the distribution,
whatever this machine has; what the machine's C++ libraries can do better is left to them (see ``fallback`` below).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from pymlpgf import __version__
from pymlpgf.runtime import manifest, settings
from pymlpgf.runtime.children import run
from pymlpgf.runtime.debian import apt, tree
from pymlpgf.runtime.debian.release import VERSION, VERSION_TEXT, Installation
from pymlpgf.runtime.image import LIBRARY, build, key, linker
from pymlpgf.runtime.julia import Julia
from pymlpgf.runtime.report import Progress

TRIPLET = "x86_64-linux-gnu"
TAG = "py3-none-manylinux_2_31_x86_64"
#: The first serves every x86-64 processor; the second, for all code, those with AVX2 and FMA: every one since 2015.
PROCESSORS = "generic;haswell,clone_all"
#: glibc's own, which every machine has
GLIBC = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|util|resolv|nsl|crypt|mvec|anl|BrokenLocale|thread_db))\.so.*")
#: Taken from the machine where it has them: newer ones serve Julia too, and other packages of a process may need them.
FALLBACK = re.compile(r"lib(stdc\+\+|gcc_s)\.so.*")
#: What Julia loads by name, at its start or when numbers of that kind are used; Pkg's network libraries are left out.
LOADED = ("libLLVM", "libamd", "libcamd", "libccolamd", "libcholmod", "libcolamd", "libdSFMT", "libgmp", "libmpfr",
          "libopenblas64_", "libopenlibm", "libpcre2-8", "libspqr", "libsuitesparse_wrapper", "libsuitesparseconfig",
          "libumfpack", "libunwind", "libutf8proc")  # fmt: skip

report = Progress()


def main() -> None:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "dist").absolute()
    target.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pymlpgf-wheel-") as folder:
        work = Path(folder)
        packages = fetch(work)
        for path in packages:
            run(["dpkg-deb", "-x", str(path), str(work / "all")], limit=300, what=f"unpacking {path.name}")
        package = work / "wheel" / "pymlpgf_julia"
        (package).mkdir(parents=True)
        julia = assemble(work, package / "tree")
        image(julia, work, package / "image")
        (package / "tree" / "usr" / "lib" / TRIPLET / "julia" / "sys.so").unlink()
        licences(work, packages, package / "licences")
        (package / "__init__.py").write_text(f'"""The private Julia of pymlpgf."""\n\n__version__ = "{__version__}"\n')
        wheel = pack(work / "wheel", target, [path.name for path in packages])
    report(f"{wheel} is ready ({wheel.stat().st_size / 1e6:.0f} MB, {time.monotonic() - began:.0f} s)")


def fetch(work: Path) -> list[Path]:
    """Julia and all that it depends on but glibc, from its own suite."""
    packages, _ = apt.fetch(work / "apt", settings.load().debian_source, report, pinned=(), whole=True)
    return [
        path
        for path in packages
        if path.name.split("_")[0] not in ("libc6", "libcrypt1", "libc-bin", "debconf", "dpkg")
    ]


def assemble(work: Path, prefix: Path) -> Julia:
    """A tree without links in ``prefix``: a wheel holds none. Each library has one name, which all others use."""
    everything = work / "all"
    own = [everything / "usr" / "lib" / TRIPLET, everything / "lib" / TRIPLET]
    libraries = prefix / "usr" / "lib" / TRIPLET
    fallback = prefix / "fallback"
    for folder in (libraries / "julia", prefix / "usr" / "bin", fallback):
        folder.mkdir(parents=True)
    shutil.copytree(everything / "usr" / "share" / "julia" / "stdlib", prefix / "usr" / "share" / "julia" / "stdlib")
    shutil.copy(everything / "usr" / "bin" / "julia", prefix / "usr" / "bin" / "julia")
    names: dict[Path, Path] = {}  # file -> where it is put

    def locate(name: str) -> Path | None:
        # links of the packages are absolute here and there: looked up by name
        for folder in (own[0] / "julia", *own, *own[0].glob("openblas64-*")):
            path = folder / name
            while path.is_symlink():
                goal = os.readlink(path)
                path = everything / goal.lstrip("/") if goal.startswith("/") else path.parent / goal
            if path.exists():
                return path.resolve()
            if os.path.lexists(folder / name):
                found = locate(os.path.basename(os.readlink(folder / name)))
                if found is not None:
                    return found
        return None

    renamed: dict[str, str] = {}
    queue = [f"{name}.so" for name in LOADED]
    for name in queue:
        path = locate(name)
        if path is None:
            raise SystemExit(f"no package holds {name}")
        names.setdefault(path, libraries / "julia" / name)
    names[locate("libjulia.so.1")] = libraries / "libjulia.so.1"  # type: ignore[index]
    names[own[0] / "julia" / "sys.so"] = libraries / "julia" / "sys.so"
    todo = [*names, everything / "usr" / "bin" / "julia"]
    while todo:
        path = todo.pop()
        for name in needed(path):
            if GLIBC.fullmatch(name):
                continue
            found = locate(name)
            if found is None:
                raise SystemExit(f"{path.name} needs {name}, which no package holds")
            if found not in names:
                names[found] = (fallback if FALLBACK.fullmatch(name) else libraries) / name
                todo.append(found)
            if names[found].name != name:
                renamed[name] = names[found].name
    for source, place in names.items():
        shutil.copyfile(source, place)
        place.chmod(0o755)
    patch(names, libraries, prefix / "usr" / "bin" / "julia", renamed)
    place = Installation(prefix, TRIPLET)
    return Julia(
        "embedded", place.executable, place.bindir, place.libjulia, place.sysimage, VERSION, "wheel", private=True
    )


def needed(path: Path) -> list[str]:
    return run([tree.patchelf(), "--print-needed", str(path)], limit=60, what=f"reading {path.name}").stdout.split()


def patch(names: dict[Path, Path], libraries: Path, program: Path, renamed: dict[str, str]) -> None:
    for place in [*names.values(), program]:
        if place.name == "sys.so":  # 188 MB, which nothing keeps
            continue
        words = [word for old in needed(place) if old in renamed for word in ("--replace-needed", old, renamed[old])]
        path = "$ORIGIN:$ORIGIN/julia:$ORIGIN/.."
        if place == program:
            path = ":".join(f"$ORIGIN/../{p}" for p in (f"lib/{TRIPLET}", f"lib/{TRIPLET}/julia", "../fallback"))
        command = [tree.patchelf(), *words, "--force-rpath", "--set-rpath", path, str(place)]
        run(command, limit=120, what=f"patching {place.name}")


def image(julia: Julia, work: Path, folder: Path) -> None:
    """The system image, for several processors, with the manifest that tells what it was built from."""
    folder.mkdir()
    wish = settings.load(cache=work / "cache")
    program = linker.find(settings.load().cache, wish.debian_source, report)
    began = time.monotonic()
    build.write_library(julia, wish, program, work, folder / LIBRARY, report, PROCESSORS)
    program.strip(folder / LIBRARY)
    build.attempt(julia, wish, folder / LIBRARY)
    manifest.write(folder, {
        "key": key(julia, portable=True), "size": (folder / LIBRARY).stat().st_size,
        "sha256": manifest.sha256(folder / LIBRARY), "seconds": round(time.monotonic() - began, 1),
    })  # fmt: skip


def licences(work: Path, packages: list[Path], folder: Path) -> None:
    """The copyright file of every package, and the texts of the licences that they name."""
    folder.mkdir()
    for path in packages:
        name = path.name.split("_")[0]
        source = work / "all" / "usr" / "share" / "doc" / name / "copyright"
        if source.exists():
            shutil.copyfile(source, folder / f"{name}.txt")
    common = Path("/usr/share/common-licenses")
    for path in common.iterdir() if common.exists() else ():
        with contextlib.suppress(OSError):
            shutil.copyfile(path, folder / f"common-{path.name}.txt")


def pack(source: Path, target: Path, packages: list[str]) -> Path:
    """Zip the folder ``source`` into a wheel."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in files)
    info = f"pymlpgf_julia-{__version__}.dist-info"
    listed = "\n".join(f"- {name}" for name in packages)
    texts = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: pymlpgf-julia\nVersion: {__version__}\n"
        f"Summary: Julia {VERSION_TEXT} with the compiled core of pymlpgf, for Linux on x86-64\n"
        f"Requires-Python: >=3.10\nRequires-Dist: pymlpgf=={__version__}\n"
        "License: MIT (Julia, pymlpgf); the libraries' own are in pymlpgf_julia/licences\n"
        "Description-Content-Type: text/markdown\n\n"
        f"{size / 1e6:.0f} MB unpacked. Built by .ci/runtime_wheel.py of pymlpgf {__version__}: the packages below, "
        f"unpacked, linked to each other, and a system image for the processors `{PROCESSORS}`.\n\n{listed}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: pymlpgf\nRoot-Is-Purelib: false\nTag: {TAG}\n",
    }
    wheel = target / f"pymlpgf_julia-{__version__}-{TAG}.whl"
    record = []
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in files:
            name = str(path.relative_to(source))
            archive.write(path, name)
            record.append(_line(name, path.read_bytes()))
        for name, text in texts.items():
            archive.writestr(name, text)
            record.append(_line(name, text.encode()))
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")
    return wheel


def _line(name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}"


if __name__ == "__main__":
    main()
