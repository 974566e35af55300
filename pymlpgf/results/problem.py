"""The settings and data of a result's network, from which it can be made again anywhere."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..facts import LOSSES
from ..files import write_atomically
from ..network.activations import Activation, activation_from_json, code_in, json_layers
from ..network.infinite import InfiniteNet
from ..network.net import Net
from ..network.teacher import TeacherNet

__all__ = ["attach_data", "data_file", "describe", "rebuild", "without_data"]

DATA = ("input", "target", "weights")


def describe(net: Net) -> dict[str, Any]:
    """The arguments of ``Net`` besides layers, arrays by reference; of an ``InfiniteNet`` student and teacher.

    The data of an infinite net's student play no part and are left out. Empty for other nets.
    """
    if type(net) is InfiniteNet:
        student = {name: value for name, value in describe(net.student).items() if name not in DATA}
        teacher = net.teacher
        student.update(n_features=net.n_features, teacher_layers=json_layers(teacher.net.layers))
        return {**student, "teacher_dtype": teacher.net.dtype.name, "teacher_params": teacher.params.flat.copy()}
    if type(net) is not Net:
        return {}
    core = net._core
    settings = core.settings
    merge = settings["merge"]
    values: dict[str, Any] = {**settings, "dtype": net.dtype.name, "threads": core.threads}
    values["merge"] = [merge] if isinstance(merge, tuple) else merge
    X, Y, w = core.data
    if X is None:
        return {**values, "n_features": net.n_features}
    values.update(input=X, target=Y)
    return values if w is None else {**values, "weights": w}


def rebuild(
    layers: list[tuple[int, Activation, bool]], values: dict[str, Any], allow_code: bool, given: dict[str, Any]
) -> Net:
    """The net that was described, on its own data, or on those ``given`` if its own were left out."""
    settings = dict(values)
    merge, digest = settings.pop("merge"), settings.pop("data", None)
    teacher = [(width, activation_from_json(f), bias) for width, f, bias in settings.pop("teacher_layers", [])]
    params, dtype = settings.pop("teacher_params", None), settings.pop("teacher_dtype", None)
    found = [("an activation", code) for code in code_in([*layers, *teacher])]
    if values["loss"] not in LOSSES:
        found.append(("the loss", values["loss"]))
    if found and not allow_code:
        what, code = found[0]
        raise InputError(
            f"the file holds Julia code as {what}, {code!r}: give the net, or allow_code=True if you trust it"
        )
    data = {name: value for name, value in given.items() if value is not None}
    if digest is not None and not data:
        raise InputError(
            "this result was saved without its data, and they are not beside its file: give input and target"
        )
    net = Net(layers, merge=None if merge is None else [tuple(entry) for entry in merge], **{**settings, **data})
    if digest is not None and _digest(describe(net)) != digest:
        raise InputError("input, target or weights are not those that this result was made with")
    if teacher:
        made = TeacherNet(layers=teacher, params=params, n_features=net.n_features, dtype=dtype)
        return InfiniteNet(made, net)
    return net


def _digest(values: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in DATA:
        array = values.get(name)
        digest.update(name.encode() if array is None else f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def without_data(values: dict[str, Any]) -> dict[str, Any]:
    """The description with a hash in place of the data."""
    if "input" not in values:
        return values
    return {**{name: value for name, value in values.items() if name not in DATA}, "data": _digest(values)}


def data_file(values: dict[str, Any], folder: Path) -> Path:
    """Write the data, once, into a folder in which results are saved without their data."""
    path = folder / f"data-{_digest(values)[:20]}.npz"
    if not path.exists():
        arrays = {name: values[name] for name in DATA if name in values}
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
    return path


def attach_data(
    values: dict[str, Any], path: str | os.PathLike[str], known: dict[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The description with its data, if these are in a file beside the result's.

    Data that have been read are kept in ``known``, so that many results share their arrays.
    """
    if "data" not in values:
        return values
    digest = values["data"]
    arrays = None if known is None else known.get(digest)
    if arrays is None:
        beside = Path(path).with_name(f"data-{digest[:20]}.npz")
        try:
            with np.load(beside, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files if name in DATA}
        except (OSError, ValueError):
            return values
        if _digest(arrays) != digest:
            return values
        if known is not None:
            known[digest] = arrays
    return {name: value for name, value in {**values, **arrays}.items() if name != "data"}
