"""Dependencies point one way: a module imports only from its own room and from those to the left of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = (
    "version", "errors", "facts", "files", "validate", "runtime", "network", "results", "solve", "landscape", "proof",
    "sweeps", "sklearn", "torch", "plot", "commands", "__main__",
)  # fmt: skip
RUNTIME = (
    "report", "lock", "answers", "children", "settings", "manifest", "julia", "cpu", "environment", "debian", "image",
    "find", "background", "hosts", "bridge",
)  # fmt: skip


def _imports() -> dict[str, set[str]]:
    """Module -> modules of the package that it imports, lazily and for types too."""
    files = {}
    for path in sorted((ROOT / "pymlpgf").rglob("*.py")):
        if path.relative_to(ROOT).parts[1] != "julia":
            files[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found[name] = set()
        for line in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(line, ast.Import):
                found[name] |= {alias.name for alias in line.names if alias.name in files}
            if isinstance(line, ast.ImportFrom):
                base = package.split(".")[: len(package.split(".")) - line.level + 1] if line.level else []
                module = ".".join([*base, *([line.module] if line.module else [])])
                named = {f"{module}.{alias.name}" for alias in line.names}
                found[name] |= (named & set(files)) or ({module} & set(files))
        found[name].discard(name)
    return found


IMPORTS = _imports()


@pytest.mark.parametrize("name", [name for name in IMPORTS if name.count(".")])
def test_modules_import_from_the_left(name: str) -> None:
    room = name.split(".")[1]
    for other in IMPORTS[name]:
        assert other != "pymlpgf" or room == "commands", f"{name} imports the package's face"
        if other != "pymlpgf":
            assert ROOMS.index(other.split(".")[1]) <= ROOMS.index(room), f"{name} imports {other}"
        if room == "runtime" == other.split(".")[1] and name.count(".") > 1 and other.count(".") > 1:
            places = [RUNTIME.index(module.split(".")[2]) for module in (other, name)]
            assert places[0] <= places[1], f"{name} imports {other}"


def test_there_are_no_circles() -> None:
    left = {name: set(imported) for name, imported in IMPORTS.items()}
    while free := [name for name, imported in left.items() if not imported]:
        for name in free:
            del left[name]
        for imported in left.values():
            imported.difference_update(free)
    assert not left


def test_the_face_lists_what_is_there() -> None:
    import pymlpgf

    for name in pymlpgf.__all__:
        assert getattr(pymlpgf, name) is not None, name


def _room(path: Path) -> str:
    return path.relative_to(ROOT / "pymlpgf").with_suffix("").parts[0]


def test_private_names_stay_in_their_room() -> None:
    """All that other rooms see of a net is its ``_core``; the fields of a named tuple are public."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "pymlpgf").rglob("*.py"))}
    trees = {path: tree for path, tree in trees.items() if _room(path) != "julia"}
    at_home: dict[str, set[str]] = {}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                at_home.setdefault(node.name, set()).add(_room(path))
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                at_home.setdefault(node.attr, set()).add(_room(path))
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not re.match("_(?!_|core$|fields$|replace$)", node.attr):
                continue
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                continue
            rooms = at_home.get(node.attr, {_room(path)})  # else another package's
            assert _room(path) in rooms, f"{path.relative_to(ROOT)}:{node.lineno} reaches into {ast.unparse(node)}"


JULIA_ROOMS = (
    "kernels", "network", "derivatives", "linear_algebra", "flow", "discrete", "minimize", "solve", "infinite",
    "landscape", "proof", "interface",
)  # fmt: skip


def test_julia_includes_its_rooms_from_left_to_right() -> None:
    source = (ROOT / "julia/src/MLPGF.jl").read_text(encoding="utf-8")
    rooms = [name.split("/")[0] for name in re.findall(r'^\s*include\("(.+?)"\)', source, re.M) if "/" in name]
    assert rooms == sorted(rooms, key=JULIA_ROOMS.index)


def test_lines_of_julia_are_no_longer_than_120() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "julia").rglob("*.jl"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 120
    ]
    assert long == []
