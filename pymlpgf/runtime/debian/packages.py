"""The Debian packages that make a private Julia, and their hashes: kept, so that mending needs no network."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ...errors import ProvisioningError
from .. import manifest
from . import release

__all__ = ["from_folder", "keep", "kept"]


def kept(folder: Path) -> dict[Path, str] | None:
    """The packages that apt had verified, with their hashes, if all of them are there and unchanged."""
    known = manifest.read(folder)
    if known is None:
        return None
    packages: dict[Path, str] = {folder / Path(name).name: digest for name, digest in known["packages"].items()}
    if not packages or any(manifest.sha256(path) != digest for path, digest in packages.items()):
        return None
    return packages


def keep(folder: Path, fetched: Iterable[Path], mirror: str) -> dict[Path, str]:
    """Move freshly fetched packages into ``folder``, in place of what is there; path -> hash."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for stale in folder.iterdir():
        stale.unlink()
    packages = {folder / path.name: manifest.sha256(path) for path in fetched}
    for path in fetched:
        os.replace(path, folder / path.name)
    names = {path.name: digest for path, digest in packages.items()}
    manifest.write(folder, {"from": mirror, "packages": names})
    return packages


def from_folder(folder: Path) -> dict[Path, str]:
    """The packages in a folder of the user's, a copy of another machine's kept ones for instance; path -> hash."""
    if (folder / manifest.NAME).exists():
        packages = kept(folder)
        if packages is None:
            raise ProvisioningError(f"the packages in {folder} do not fit its {manifest.NAME}: copy the folder again")
        return packages
    fitting = (release.architecture(), "all")
    return {path: manifest.sha256(path) for path in folder.glob("*.deb") if path.stem.rpartition("_")[2] in fitting}
