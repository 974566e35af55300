"""What distinguishes the runs of a sweep: a seed, initial parameters, or the settings of a grid."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError, KeywordError
from ..network.net import Net
from ..network.params import Params
from ..validate.data import is_whole
from ..validate.suggest import nearest
from .wire import wire

__all__ = ["Point", "file_name", "points_of_grid", "points_of_seeds", "seed_of", "settings_of", "split"]

#: a seed, initial parameters (n_params,), or the settings of a grid
Point = "int | np.ndarray | dict[str, Any]"


def points_of_seeds(problem: Any, given: Any) -> list[Any]:
    """Seeds as ints, parameters as arrays; an error if two are equal."""
    if isinstance(given, (int, np.integer, str, Params)) or not hasattr(given, "__iter__"):
        raise InputError(f"seeds_or_params is {given!r}; a sequence is needed, such as range(50)")
    points: list[Any] = []
    for number, point in enumerate(given):
        if is_whole(point):
            points.append(_seed(int(point)))
        elif isinstance(problem, Net):
            x = problem._core.flat(getattr(point, "x", point), f"entry {number} of seeds_or_params").copy()
            if not np.isfinite(x).all():
                raise InputError(f"entry {number} of seeds_or_params contains NaN or infinite entries")
            points.append(x)
        else:
            raise InputError("seeds_or_params contains parameters, but a function makes its own: give seeds")
    if not points:
        raise InputError("seeds_or_params is empty")
    _refuse_repetition("seeds_or_params", points)
    return points


def points_of_grid(grid: Any) -> list[dict[str, Any]]:
    """The settings of every run: all combinations of a dictionary's values, the last name varying fastest."""
    if isinstance(grid, Mapping):
        for name, values in grid.items():
            if isinstance(values, str) or not hasattr(values, "__iter__"):
                raise InputError(f"grid[{name!r}] is {values!r}; a sequence is needed, such as range(50)")
        axes = {name: [_plain(value) for value in values] for name, values in grid.items()}
        empty = [name for name, values in axes.items() if not values]
        if empty or not axes:
            raise InputError(f"grid{f'[{empty[0]!r}]' if empty else ''} is empty")
        points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    elif isinstance(grid, Sequence) and grid and all(isinstance(entry, Mapping) and entry for entry in grid):
        points = [{name: _plain(value) for name, value in entry.items()} for entry in grid]
        for number, entry in enumerate(points):
            if set(entry) != set(points[0]):
                raise InputError(f"entry {number} of grid names {sorted(entry)}, the first one {sorted(points[0])}")
    else:
        raise InputError(f"grid is {grid!r}; a dictionary of sequences, or a list of dictionaries, is needed")
    for name in points[0]:
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"grid has the name {name!r}; names of arguments are needed")
    if "seed" in points[0]:
        for point in points:
            if not isinstance(point["seed"], int) or isinstance(point["seed"], bool):
                raise InputError(f"grid has the seed {point['seed']!r}; whole numbers are needed")
            _seed(point["seed"])
    _refuse_repetition("grid", points)
    return points


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _seed(seed: int) -> int:
    if not 0 <= seed < 2**64:
        raise InputError(f"the seed {seed} is not a whole number from 0 to 2**64 - 1")
    return seed


def _refuse_repetition(what: str, points: list[Any]) -> None:
    first: dict[str, int] = {}
    for number, point in enumerate(points):
        before = first.setdefault(file_name(point), number)
        if before != number:
            raise InputError(f"entries {before} and {number} of {what} are the same")


def seed_of(point: Any) -> int | None:
    """The seed of a run's initial parameters, if it has one."""
    return point if isinstance(point, int) else point.get("seed") if isinstance(point, dict) else None


def settings_of(point: Any) -> dict[str, Any]:
    """What distinguishes this run from the others, as a table shows it."""
    if isinstance(point, dict):
        return dict(point)
    return {"seed": point} if isinstance(point, int) else {}


def file_name(point: Any) -> str:
    """The name of the file with this run's result: the same in every process and on every machine."""
    if isinstance(point, int):
        return f"seed-{point:05d}.npz"
    if isinstance(point, np.ndarray):
        return f"params-{hashlib.sha256(point.tobytes()).hexdigest()[:16]}.npz"
    plain = (bool, int, float, str, type(None))
    text = ",".join(f"{name}={value if isinstance(value, plain) else '…'}" for name, value in point.items())
    if not re.fullmatch(r"[\w.,=+-]{1,150}", text, re.ASCII):
        digest = hashlib.sha256(json.dumps(wire(point), sort_keys=True).encode()).hexdigest()[:16]
        text = re.sub(r"[^\w.,=+-]+", "_", text, flags=re.ASCII)[:100] + "-" + digest
    return text + ".npz"


def split(problem: Any, settings: dict[str, Any], options: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ``settings`` that the function ``problem`` takes, and those that are options of ``train``.

    A name that the function has as a parameter belongs to the function. The seed is that of the initial parameters,
    also if the function does not take it.
    """
    takes: list[str] = []
    anything = False
    if not isinstance(problem, Net):
        parameters = inspect.signature(problem).parameters.values()
        takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        anything = any(p.kind == p.VAR_KEYWORD for p in parameters)
    own: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in settings.items():
        if name in takes:
            own[name] = value
        elif name == "seed":
            continue
        elif name in options:
            others[name] = value
        elif anything:
            own[name] = value
        else:
            raise KeywordError(f"grid has the name {name!r}{nearest(name, ['seed', *takes, *options])}")
    return own, others
