"""The Julia of the Debian distribution: which version, for which machines, how long, and where it is put.

Debian's suite bullseye holds Julia 1.5.3; newer suites hold none.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ...errors import ProvisioningError

__all__ = ["SUITE", "VERSION", "VERSION_TEXT", "Installation", "architecture", "installation", "past_support"]

VERSION = (1, 5, 3)
VERSION_TEXT = "1.5.3"
SUITE = "bullseye"
END_OF_SUPPORT = date(2026, 8, 31)  # of bullseye's long-term support
#: machine -> (name of the architecture in Debian, folder of its libraries)
ARCHITECTURES = {"x86_64": ("amd64", "x86_64-linux-gnu"), "aarch64": ("arm64", "aarch64-linux-gnu")}


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


def architecture() -> str:
    """Debian's name for this machine's architecture."""
    return ARCHITECTURES[platform.machine()][0]


def past_support(today: date | None = None) -> str | None:
    """A sentence when the suite is past its support, else None."""
    if (today or date.today()) <= END_OF_SUPPORT:
        return None
    return (
        f"Debian {SUITE} is past its support ({END_OF_SUPPORT}): mirrors may drop it; the fetched packages"
        " are kept in the cache, and PYMLPGF_DEBIAN_SOURCE can name another mirror or a folder of packages"
    )
