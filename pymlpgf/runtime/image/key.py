"""What an image depends on: the sources of the Julia package, Julia, this package's version and the processor."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...version import __version__
from ..environment import package
from ..julia import Julia

__all__ = ["features", "key"]

FORMAT = 1  # of images; another number makes all that were built before unknown
#: of the first processor in /proc/cpuinfo: what the compiler's choice of instructions depends on
TRAITS = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU architecture", "CPU part", "Features")


def key(julia: Julia, cpuinfo: Path = Path("/proc/cpuinfo"), *, portable: bool = False) -> str:
    """The name of the image for ``julia`` on this machine, 24 hexadecimal digits.

    A ``portable`` image is one for several processors, which comes with the Julia that it belongs to.
    """
    digest = hashlib.sha256(f"{FORMAT} {__version__} {julia.version_text}".encode())
    folder = package()
    for path in sorted([folder / "image.jl", *(folder / "src").rglob("*.jl")]):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    if not portable:
        digest.update(f"{_system(julia)} {features(cpuinfo)}".encode())
    return digest.hexdigest()[:24]


def features(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor, as far as native code depends on it; empty where the machine does not tell."""
    found: dict[str, str] = {}
    try:
        with open(cpuinfo, encoding="ascii", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if not line.strip() and found:
                    break
                if name.strip() in TRAITS:
                    found[name.strip()] = " ".join(sorted(value.split()))
    except OSError:
        pass
    return "\n".join(f"{name}: {value}" for name, value in sorted(found.items()))


def _system(julia: Julia) -> str:
    """Julia's own image, of which each new one is an extension: another build of the same version has another size."""
    try:
        return str(julia.sysimage.stat().st_size)
    except OSError:
        return "unknown"
