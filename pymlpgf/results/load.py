"""Read the files of runs, without Julia."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from ..errors import InputError
from ..network.activations import activation_from_json
from .checkpoint import Checkpoint
from .problem import attach_data
from .result import SCHEMA, DenseSolution, TrainResult, Trajectory

__all__ = ["load", "read", "read_parts"]


def load(path: str | os.PathLike[str]) -> Any:
    """Read a file: the TrainResult that ``save`` wrote, or the Checkpoint of a run that has not ended.

    Needs no Julia and runs no code from the file.
    """
    return read(path)


def read(path: str | os.PathLike[str], known: dict[str, dict[str, Any]] | None = None) -> Any:
    """Like ``load``; results that are read with the same ``known`` share their data."""
    header, arrays, kind = read_parts(path, ("pymlpgf.TrainResult", "pymlpgf.Checkpoint"), SCHEMA)
    if kind == "pymlpgf.Checkpoint":
        return Checkpoint.read(header, arrays)
    header["layers"] = [(width, activation_from_json(f), bias) for width, f, bias in header["layers"]]
    problem = header.get("problem", {})
    problem.update({key[len("problem.") :]: arrays.pop(key) for key in list(arrays) if key.startswith("problem.")})
    header["problem"] = attach_data(problem, path, known)
    for name, part in (("trajectory", Trajectory), ("sol", DenseSolution)):
        prefix = name + "."
        values = {key[len(prefix) :]: arrays.pop(key) for key in list(arrays) if key.startswith(prefix)}
        header[name] = part(**values) if values else None
    try:
        return TrainResult(**header, **arrays)
    except TypeError as error:
        raise InputError(f"{os.fspath(path)} is damaged: {error}") from None


def read_parts(
    path: str | os.PathLike[str], kinds: tuple[str, ...], newest: int
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Header, arrays and kind of a file of this package; the kind must be one of ``kinds``."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        schema, kind = header.pop("schema"), header.pop("type")
        if kind not in kinds:
            raise KeyError(kind)
    except FileNotFoundError:
        raise InputError(f"{os.fspath(path)} does not exist") from None
    except Exception as error:
        raise InputError(
            f"{os.fspath(path)} is no result of pymlpgf, or is damaged: {type(error).__name__}: {error}"
        ) from None
    if schema > newest:
        raise InputError(
            f"{os.fspath(path)} was written by a newer pymlpgf (schema {schema}): update pymlpgf to read it"
        )
    return header, arrays, kind
