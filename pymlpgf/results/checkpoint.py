"""Checkpoints: files from which ``resume`` continues a run whose process has ended."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import npz_path, write_atomically
from ..network.activations import Activation, activation_from_json, activation_to_json
from ..network.net import Net
from .problem import rebuild
from .result import SCHEMA

__all__ = ["Checkpoint"]


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """The state of an unfinished run: what ``pymlpgf.load`` returns for the file of ``train(…, checkpoint=path)``.

    Attributes
    ----------
    x, init : arrays (n_params,)
        The point, and where the run began.
    phase : "flow" or "minimize"
    what : "flow", "minimize" or "train"
        What was called.
    t : float
        Time of the flow.
    loss, gnorm : float
    iterations, seconds : dict
        Iterations and seconds spent in each phase.
    options : dict
        The keywords of the call, without ``tauinv`` if it is an array (n_params,), which is kept apart.
    layers : list of (width, activation, bias)
    net : dict
        Data and settings of the net.
    functions : tuple of str
        Which of the user's functions the run had ("callback", "event", …). They are not saved.
    versions : dict
    """

    x: np.ndarray
    init: np.ndarray
    phase: str
    what: str
    t: float
    loss: float
    gnorm: float
    iterations: dict[str, int]
    seconds: dict[str, float]
    options: dict[str, Any]
    layers: list[tuple[int, Activation, bool]]
    net: dict[str, Any]
    versions: dict[str, str]
    tauinv: np.ndarray | None = None
    functions: tuple[str, ...] = ()

    def __repr__(self) -> str:
        where = f"t={self.t:.4g}" if self.phase == "flow" else f"iteration {self.iterations['minimize']}"
        return f"Checkpoint({self.what}: {self.phase} at {where}, loss={self.loss:.6g}, gnorm={self.gnorm:.2g})"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write an .npz file with a JSON header; it appears whole or not at all."""
        arrays: dict[str, Any] = {}
        header: dict[str, Any] = {"schema": SCHEMA, "type": "pymlpgf.Checkpoint"}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                arrays[field.name] = value
            elif field.name == "net":
                arrays.update({f"net.{name}": a for name, a in value.items() if isinstance(a, np.ndarray)})
                header["net"] = {name: a for name, a in value.items() if not isinstance(a, np.ndarray)}
            else:
                header[field.name] = value
        header["layers"] = [(width, activation_to_json(f), bias) for width, f, bias in self.layers]
        arrays["header"] = np.array(json.dumps(header))
        return write_atomically(npz_path(path), lambda file: np.savez(file, **arrays))

    @classmethod
    def read(cls, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Checkpoint:
        """The checkpoint from the parts of a file."""
        header["layers"] = [(width, activation_from_json(f), bias) for width, f, bias in header["layers"]]
        header["functions"] = tuple(header["functions"])
        for name in [name for name in arrays if name.startswith("net.")]:
            header["net"][name[len("net.") :]] = arrays.pop(name)
        fields: dict[str, Any] = {**header, **arrays}
        return cls(**fields)

    def make_net(self, allow_code: bool = False) -> Net:
        """The net, with its data. An activation or loss that is Julia code is only compiled if ``allow_code`` is set.

        Set it for files that you trust: the code may do whatever Julia can.
        """
        return rebuild(self.layers, self.net, allow_code, {})
