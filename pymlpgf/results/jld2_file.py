"""What JLD2.jl wrote, as containers and arrays: its files are HDF5, and the names of fields tell Julia's types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

__all__ = ["read_jld2_file"]

DEEPEST = 40  # a result is seven containers deep; a file whose references run in a circle is endlessly so


def read_jld2_file(path: Path) -> dict[str, Any]:
    """The variables of the file by their names. Needs h5py."""
    try:
        import h5py
    except ImportError:
        raise InputError("it is an HDF5 file, for which h5py is needed: pip install h5py") from None
    with h5py.File(path, "r") as file:
        for name in file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise InputError(f"{name} is a link to somewhere else; that is not followed")
        return {name: _value(file, item, 0) for name, item in file.items() if name != "_types"}


def _value(file: Any, item: Any, depth: int) -> Any:
    import h5py

    if depth > DEEPEST:
        raise InputError("its references run in a circle")
    if isinstance(item, h5py.Group):
        return {name: _value(file, part, depth + 1) for name, part in item.items()}
    if not isinstance(item, h5py.Dataset):
        raise InputError(f"it holds a {type(item).__name__}")
    if item.external or item.is_virtual:
        raise InputError("an array of it lies in another file; that is not read")
    return _plain(file, item[()], depth)


def _plain(file: Any, value: Any, depth: int) -> Any:
    """What h5py returns, as numbers, texts, containers and arrays."""
    import h5py

    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, h5py.Reference):
        if not value:
            return None
        try:
            item = file[value]
        except KeyError:  # a text of length 0, which JLD2 writes as a type that HDF5 does not have
            return ""
        return _value(file, item, depth + 1)
    if isinstance(value, np.ndarray) and value.dtype.names is None and value.dtype != object:
        return value.T  # the last index runs fastest in the file, as the first does in Julia
    if isinstance(value, np.ndarray):
        items = [_plain(file, part, depth + 1) for part in value]
        return dict(items) if value.dtype.names == ("first", "second") else items
    names = getattr(getattr(value, "dtype", None), "names", None)
    if names is None:
        return value.item() if isinstance(value, np.generic) else value
    parts = {name: _plain(file, value[name], depth + 1) for name in names}
    if names == ("kvvec",):  # Dict: a vector of pairs
        pairs = parts["kvvec"]
        return pairs if isinstance(pairs, dict) else dict(pairs)
    if names == ("first", "second") or all(name.isdigit() for name in names):  # Pair, Tuple
        return tuple(parts.values())
    if {"keys", "vals"} <= set(names):  # OrderedDict
        keys = parts["keys"]
        return dict(zip(keys.tolist() if isinstance(keys, np.ndarray) else keys, parts["vals"], strict=True))
    return parts
