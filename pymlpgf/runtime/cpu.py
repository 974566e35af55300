"""What the processor can do, for libraries that are too old to ask it properly."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Set as AbstractSet
from pathlib import Path

__all__ = ["features", "fingerprint", "openblas_coretype"]

SKYLAKEX = {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"}
HASWELL = {"avx2", "fma"}


def features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Feature names of the first processor as Linux spells them; empty where there is no such file."""
    try:
        with open(cpuinfo, encoding="ascii", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        pass
    return frozenset()


def fingerprint(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Eight letters that tell processors with other features apart."""
    return hashlib.sha256(" ".join(sorted(features(cpuinfo))).encode()).hexdigest()[:8]


def openblas_coretype(flags: AbstractSet[str] | None = None) -> str | None:
    """The OPENBLAS_CORETYPE to set for an OpenBLAS that is older than this processor, or None for none.

    OpenBLAS 0.3.9 knows processors by model number and takes a newer one for the oldest of its maker: on a
    Zen 4 it chose Barcelona, and a product of two 1000 x 1000 matrices took 136 ms where SkylakeX takes 45.
    A value that the user has set is left alone. For the embedded default only: newer Julias know newer CPUs.
    """
    if os.environ.get("OPENBLAS_CORETYPE"):
        return None
    known = features() if flags is None else flags
    if known >= SKYLAKEX:
        return "SkylakeX"
    if known >= HASWELL:
        return "Haswell"
    return None
