"""The folder of a sweep: its results, and all that is needed to continue it elsewhere.

- ``sweep.json``: the net (its settings, if it is one net) or the name of the function, and the options of ``train``;
- ``points-….json``: the seeds, parameters or settings of a sweep over this folder, one file for each such list;
- ``array-….npy``: initial parameters and options that are arrays; ``data-….npz``: data of the nets, each once;
- one ``.npz`` for each run, named by its settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_atomically
from ..network.activations import activation_from_json, activation_to_json
from ..network.net import Net
from ..results.problem import attach_data, data_file, describe, rebuild, without_data
from .settings import file_name
from .wire import keeper, name_of, unwire, wire

__all__ = ["claim", "options_in", "points_in", "remember_points", "whole_net"]

SCHEMA = 1


def _header(folder: Path) -> dict[str, Any] | None:
    """The content of ``sweep.json``; None if there is no such file."""
    path = folder / "sweep.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    found: Any = None
    with contextlib.suppress(ValueError):
        found = json.loads(text)
    if not isinstance(found, dict) or found.get("type") != "pymlpgf.Sweep":
        raise InputError(f"{path} is not a file of a sweep, or is damaged: choose another directory")
    if found["schema"] > SCHEMA:
        raise InputError(f"{path} was written by a newer pymlpgf: update pymlpgf to go on")
    return found


def _whole_header(folder: Path) -> dict[str, Any]:
    """The content of ``sweep.json``; an error if there is no such file."""
    header = _header(folder)
    if header is None:
        raise InputError(f"{folder} holds no sweep: there is no sweep.json in it")
    return header


def claim(folder: Path, problem: Any, options: dict[str, Any], may_differ: tuple[str, ...] = ()) -> None:
    """Mark ``folder`` as belonging to this sweep, or check that it does."""
    mine: dict[str, Any] = {"schema": SCHEMA, "type": "pymlpgf.Sweep"}
    mine["net"] = problem._core.fingerprint() if isinstance(problem, Net) else name_of(problem)
    mine["options"] = {name: wire(value) for name, value in sorted(options.items())}
    theirs = _header(folder)
    if theirs is None:
        keep = keeper(folder)
        for value in options.values():
            wire(value, keep)
        values = describe(problem) if isinstance(problem, Net) else {}
        if values:
            if "input" in values:
                data_file(values, folder)
            mine["layers"] = [(width, activation_to_json(f), bias) for width, f, bias in problem.layers]
            mine["problem"] = {name: wire(value, keep) for name, value in without_data(values).items()}
        text = json.dumps(mine, indent=1).encode()
        write_atomically(folder / "sweep.json", lambda file: file.write(text))
        theirs = _whole_header(folder)  # another share of an array job may have been faster
    if theirs["net"] != mine["net"]:
        raise InputError(f"{folder} holds a sweep over another net or function: choose another directory")
    for name in sorted({*theirs["options"], *mine["options"]} - {*may_differ}):
        there, now = (json.loads(json.dumps(o["options"].get(name, "its default"))) for o in (theirs, mine))
        if there != now:
            given = f"{name}: {there} there, {now} now"
            raise InputError(f"{folder} holds a sweep with other options ({given}): choose another directory")


def whole_net(folder: Path, allow_code: bool) -> Net | None:
    """The net of a sweep over one net; None for a sweep over many, or over a net that a file cannot describe."""
    header = _whole_header(folder)
    if "problem" not in header:
        return None
    layers = [(width, activation_from_json(f), bias) for width, f, bias in header["layers"]]
    values = {name: unwire(value, folder) for name, value in header["problem"].items() if name != "threads"}
    if values.get("merge") is not None:
        values["merge"] = [tuple(entry) for entry in values["merge"]]
    return rebuild(layers, attach_data(values, folder / "sweep.json"), allow_code, {})


def options_in(folder: Path, given: dict[str, Any], may_differ: tuple[str, ...]) -> dict[str, Any]:
    """The options of the sweep in ``folder`` together with those ``given``; only some of these may differ."""
    options: dict[str, Any] = {}
    for name, value in _whole_header(folder)["options"].items():
        if name in given and (name in may_differ or wire(given[name]) == value):
            options[name] = given[name]
            continue
        if name in given:
            raise InputError(f"{folder} holds a sweep with other options ({name}): leave {name} out")
        try:
            options[name] = unwire(value, folder)
        except LookupError as error:
            raise InputError(f"the sweep in {folder} had {name}={error.args[0]}: give it again") from None
    for name in given:
        if name not in options and name not in may_differ:
            raise InputError(f"{folder} holds a sweep without the option {name}: leave it out")
    return {**given, **options}


def remember_points(folder: Path, points: list[Any]) -> None:
    """Write the list of the runs, for ``points_in``."""
    text = json.dumps({"points": [wire(point, keeper(folder)) for point in points]}).encode()
    path = folder / f"points-{hashlib.sha256(text).hexdigest()[:16]}.json"
    if not path.exists():
        write_atomically(path, lambda file: file.write(text))


def points_in(folder: Path) -> list[Any]:
    """The runs of all sweeps over ``folder``, each once; those of the longest list come first."""
    lists = []
    for path in sorted(folder.glob("points-*.json")):
        lists.append([unwire(point, folder) for point in json.loads(path.read_text(encoding="utf-8"))["points"]])
    found: dict[str, Any] = {}
    for points in sorted(lists, key=len, reverse=True):
        for point in points:
            found.setdefault(file_name(point), point)
    if not found:
        raise InputError(f"{folder} holds no sweep: there is no list of its runs in it")
    return list(found.values())
