"""Matrices that no memory holds are refused before they are asked for."""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np

from ..errors import InputError

__all__ = ["refuse_matrices", "refuse_square"]


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


class _Sized(Protocol):
    @property
    def n_params(self) -> int: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


def refuse_square(net: _Sized, what: str, instead: str) -> None:
    """Raise an InputError if this machine has no memory for an (n_params, n_params) matrix of the net."""
    refuse_matrices(what, (net.n_params, net.n_params), net.dtype, instead)


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
