"""What ought to be in a folder: a manifest.json, written last, with sizes, links and hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

__all__ = ["FORMAT", "NAME", "describe", "faults", "read", "sha256", "write"]

NAME = "manifest.json"
FORMAT = 1


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest of ``folder``, or None where there is none that can be understood."""
    try:
        value = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and value.get("format") == FORMAT else None


def write(folder: Path, content: Mapping[str, object]) -> None:
    """Write the manifest of ``folder``; it appears by one rename."""
    part = folder / f"{NAME}.part"
    part.write_text(json.dumps({"format": FORMAT, **content}), encoding="utf-8")
    os.replace(part, folder / NAME)


def describe(tree: Path, packages: Mapping[str, str], system: Iterable[str]) -> None:
    """Write down every file and link of ``tree``, its packages, and the machine's files that it relies on."""
    files: dict[str, int] = {}
    links: dict[str, str] = {}
    for path in tree.rglob("*"):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            links[name] = os.readlink(path)
        elif path.is_file():
            files[name] = path.stat().st_size
    sums = _hashes(tree, files)
    content = {"packages": packages, "system": sorted(system), "files": files, "links": links, "sha256": sums}
    write(tree, content)


def faults(tree: Path, *, hashes: bool = False) -> list[str]:
    """What is wrong with ``tree``: a listed file missing or of another size, optionally of another hash."""
    manifest = read(tree)
    if manifest is None:
        return [f"no {NAME}" if os.path.lexists(tree) else "not installed"]
    wrong = []
    for name, size in manifest["files"].items():
        try:
            if os.lstat(f"{tree}/{name}").st_size != size:
                wrong.append(f"{name} has another size")
        except OSError:
            wrong.append(f"{name} is missing")
    for name, target in manifest["links"].items():
        try:
            if os.readlink(f"{tree}/{name}") != target:
                wrong.append(f"{name} points elsewhere")
        except OSError:
            wrong.append(f"{name} is missing")
    wrong += [f"the machine's {name} is gone" for name in manifest["system"] if not os.path.exists(name)]
    if hashes and not wrong:
        found = _hashes(tree, manifest["sha256"])
        wrong = [f"{name} has another content" for name, known in manifest["sha256"].items() if found[name] != known]
    return wrong


def sha256(path: Path) -> str:
    """The hash of a file, or a text that is no hash where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return digest.hexdigest()


def _hashes(tree: Path, names: Iterable[str]) -> dict[str, str]:
    names = list(names)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, pool.map(lambda name: sha256(tree / name), names), strict=True))
