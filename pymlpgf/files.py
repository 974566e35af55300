"""Files that appear whole or not at all, and survive the end of the process that writes them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["npz_path", "write_atomically"]


def npz_path(path: str | os.PathLike[str]) -> Path:
    """``path`` with the ending .npz."""
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> Path:
    """Let ``write`` fill a file next to ``path``, which then takes its place. Folders that are missing are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
