"""Settings and where each came from: argument, then environment, then configuration file, then default.

The configuration file is ``$XDG_CONFIG_HOME/pymlpgf/config.ini`` (``~/.config`` when that is not set)::

    [julia]
    executable = /opt/julia/bin/julia     # or: full, embedded
    project = /home/me/julia-project
    threads = 4                           # or: auto
    cache = /scratch/me/pymlpgf
    debian_source = http://mirror.example/debian bullseye main
    image = off                           # or: auto, or the folder of a system image

Nothing is read from the current directory.
"""

from __future__ import annotations

import configparser
import difflib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import SettingError

__all__ = ["ENVIRONMENT", "KEYS", "Settings", "config_file", "load"]

#: setting -> environment variable
ENVIRONMENT: Mapping[str, str] = {
    "executable": "PYMLPGF_JULIA",
    "project": "PYMLPGF_JULIA_PROJECT",
    "threads": "PYMLPGF_THREADS",
    "cache": "PYMLPGF_CACHE",
    "debian_source": "PYMLPGF_DEBIAN_SOURCE",
    "image": "PYMLPGF_IMAGE",
}
KEYS = tuple(ENVIRONMENT)
SECTION = "julia"
HOSTS = ("full", "embedded")


@dataclass(frozen=True)
class Settings:
    """Checked settings; ``origins`` tells for every key where its value came from."""

    executable: str | None  # absolute path, or "full", or "embedded"
    project: Path | None
    threads: int | None  # None: not set; 0: as many as there are cores ("auto")
    cache: Path
    debian_source: str | None
    image: Path | str  # "auto", "off", or the folder of a system image
    origins: Mapping[str, str]

    @property
    def thread_count(self) -> int | None:
        """The number of threads, "auto" counted; None: not set."""
        return os.cpu_count() or 1 if self.threads == 0 else self.threads


def load(**arguments: str | os.PathLike[str] | int | None) -> Settings:
    """Settings from the arguments (None means "not given"), the environment, the file and the defaults.

    Raises ``SettingError`` for a name that does not exist or a value that cannot be used.
    """
    _reject_unknown(arguments, "argument")
    texts: dict[str, str] = {}
    origins: dict[str, str] = {}
    layers: list[tuple[Mapping[str, str], Mapping[str, str]]] = [
        (
            {key: str(value) for key, value in arguments.items() if value is not None},
            {key: f"argument {key}=" for key in KEYS},
        ),
        (
            {key: os.environ[name] for key, name in ENVIRONMENT.items() if os.environ.get(name)},
            {key: f"environment variable {name}" for key, name in ENVIRONMENT.items()},
        ),
        (_read_file(), {key: f"{key} in {config_file()}" for key in KEYS}),
    ]
    for values, names in layers:
        for key, value in values.items():
            if key not in texts and value.strip():
                texts[key], origins[key] = value.strip(), names[key]
    for key in KEYS:
        origins.setdefault(key, "default")
    return Settings(
        executable=_executable(texts.get("executable"), origins["executable"]),
        project=_project(texts.get("project"), origins["project"]),
        threads=_threads(texts.get("threads"), origins["threads"]),
        cache=_path(texts["cache"], origins["cache"]) if "cache" in texts else _default_cache(),
        debian_source=texts.get("debian_source"),
        image=_image(texts.get("image", "auto"), origins["image"]),
        origins=origins,
    )


def config_file() -> Path:
    """The configuration file, whether it exists or not."""
    return _xdg("XDG_CONFIG_HOME", ".config") / "pymlpgf" / "config.ini"


def _default_cache() -> Path:
    return _xdg("XDG_CACHE_HOME", ".cache") / "pymlpgf"


def _xdg(variable: str, below_home: str) -> Path:
    value = os.environ.get(variable, "")
    if os.path.isabs(value):  # the XDG specification: a relative path is to be ignored
        return Path(value)
    return _home() / below_home


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise SettingError(
            "this user has no home folder: set PYMLPGF_CACHE and XDG_CONFIG_HOME to folders of your own"
        ) from None


def _read_file() -> dict[str, str]:
    path = config_file()
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#",))
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except (configparser.Error, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not a configuration file that can be read: {error}") from None
    for section in parser.sections():
        if section != SECTION:
            raise SettingError(f"{path}: unknown section [{section}]; the only section is [{SECTION}]")
    values = dict(parser[SECTION]) if parser.has_section(SECTION) else {}
    _reject_unknown(values, f"{path}: key")
    return values


def _reject_unknown(names: Mapping[str, object], what: str) -> None:
    for name in names:
        if name not in KEYS:
            near = difflib.get_close_matches(name, KEYS, n=1, cutoff=0.0)[0]
            raise SettingError(f"{what} {name!r} is unknown; did you mean {near!r}? (known: {', '.join(KEYS)})")


def _path(text: str, origin: str) -> Path:
    path = Path(os.path.expanduser(text))
    if not path.is_absolute():
        if " in " in origin:  # a file that serves every folder must not depend on one of them
            raise SettingError(f"{origin}: {text!r} is relative; write an absolute path or one that begins with ~")
        path = Path(os.path.abspath(path))
    return path


def _executable(text: str | None, origin: str) -> str | None:
    if text is None or text in HOSTS:
        return text
    command = None if os.sep in text or text.startswith("~") else shutil.which(text)
    return command or str(_path(text, origin))


def _project(text: str | None, origin: str) -> Path | None:
    if text is None:
        return None
    path = _path(text, origin)
    if path.name in ("Project.toml", "JuliaProject.toml"):
        path = path.parent
    if not any((path / name).is_file() for name in ("Project.toml", "JuliaProject.toml")):
        raise SettingError(f"{origin}: {path} holds no Project.toml; give the folder of a Julia project")
    return path


def _image(text: str, origin: str) -> Path | str:
    if text in ("auto", "off"):
        return text
    path = _path(text, origin)
    folder = path.parent if path.suffix == ".so" else path
    if not folder.is_dir():
        raise SettingError(f"{origin}: {folder} is no folder; give 'off', 'auto' or the folder of a system image")
    return folder


def _threads(text: str | None, origin: str) -> int | None:
    if text is None:
        return None
    if text == "auto":
        return 0
    if text.isdecimal() and 1 <= int(text) <= 4096:
        return int(text)
    raise SettingError(f"{origin}: {text!r} is no number of threads; give a whole number from 1, or 'auto'")
