"""Small answers worth keeping between processes: JSON files in the cache folder."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any

__all__ = ["recall", "remember"]


def recall(cache: Path, name: str) -> dict[str, Any]:
    """The answers kept in the file ``name``."""
    try:
        value = json.loads((cache / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def remember(cache: Path, name: str, key: str, value: object) -> None:
    """Keep one answer in the file ``name``; None forgets it."""
    known = recall(cache, name)
    if known.get(key) == value:
        return
    known[key] = value
    with contextlib.suppress(OSError):  # a read-only cache only costs the time to ask again
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = cache / f"{name}.{os.getpid()}.{threading.get_ident()}.part"
        part.write_text(json.dumps({k: v for k, v in known.items() if v is not None}), encoding="utf-8")
        os.replace(part, cache / name)
