"""Matrices that no memory holds are refused before they are asked for."""

from __future__ import annotations

import os

import numpy as np

from .errors import InputError

__all__ = ["refuse_matrices"]

#: the P × P matrices that a solver keeps
MATRICES = {
    "NewtonTrustRegion": 3, "Newton": 3, "LevenbergMarquardt": 3, "BFGS": 1, "Rodas5P": 2, "Exprb53s3": 3,
}  # fmt: skip


def refuse_matrices(
    what: str, shape: tuple[int, ...], dtype: np.dtype[np.floating], instead: str, count: int = 1
) -> None:
    """Raise an InputError if ``count`` arrays of that shape need more than this machine's memory.

    Linux grants what is not there and kills the process that uses it: the sum is done before.
    """
    needed = count * dtype.itemsize
    for extent in shape:
        needed *= extent
    there = _physical()
    if there is not None and needed > there:
        raise InputError(
            f"{what} needs {_size(needed)} for {'a matrix' if count == 1 else f'{count} matrices'} of "
            f"{' × '.join(map(str, shape))}, this machine has {_size(there)}: {instead}"
        )


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
