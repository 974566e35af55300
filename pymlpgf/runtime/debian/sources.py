"""Where apt gets packages from on this machine, and where Julia's would come from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import ProvisioningError
from .release import SUITE, VERSION_TEXT, architecture

__all__ = ["Source", "sources"]

KEYRINGS = tuple(f"/usr/share/keyrings/debian-archive-keyring.{kind}" for kind in ("gpg", "pgp"))
ROLES = ("stable", "oldstable", "oldoldstable", "testing", "unstable")


@dataclass(frozen=True)
class Source:
    """One suite of one mirror, as apt's configuration has it."""

    uri: str
    suite: str
    components: tuple[str, ...]
    #: what the machine's administrator says of its signature: signed-by=<path of a keyring> or trusted=yes
    trust: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.uri} {self.suite} {' '.join(self.components)}".rstrip()

    @property
    def line(self) -> str:
        """The line of a sources.list that asks for packages only: neither translations nor other extras."""
        options = {"arch": architecture(), "target": "Packages", "lang": "none", **self.trust}
        return f"deb [{' '.join(f'{name}={value}' for name, value in options.items())}] {self.place}"


def sources(wish: str | None, etc: Path = Path("/etc")) -> list[Source]:
    """The machine's own suite, and last the one that holds Julia: ``wish`` ("URI suite component"), if given."""
    system = _os_release(etc)
    debian = system.get("ID") == "debian"
    names = [system["VERSION_CODENAME"]] if system.get("VERSION_CODENAME") else ["sid", "unstable", "testing"]
    entries = [entry for entry in _configured(etc) if "main" in entry.components]
    own = [entry for entry in entries if entry.suite in names]
    if debian:  # a mirror may be configured by role in place of name
        own = (own or [entry for entry in entries if entry.suite in ROLES])[:1]
    if wish is not None:
        given = _one_line(f"deb {wish.removeprefix('deb ')}")
        if given is None or not given.components:
            raise ProvisioningError(
                f"PYMLPGF_DEBIAN_SOURCE is {wish!r}: give a folder that holds the packages, or"
                ' "URI suite component" of a Debian mirror'
            )
        julia = given
    elif not debian:
        raise ProvisioningError(
            f"this machine runs {system.get('PRETTY_NAME', 'an unknown system')}, whose mirrors have"
            f' no Julia {VERSION_TEXT}: set PYMLPGF_DEBIAN_SOURCE to "URI {SUITE} main" of a Debian'
            " mirror or to a folder that holds the packages, or PYMLPGF_JULIA to a Julia of your own"
        )
    elif not own:
        raise ProvisioningError(
            f"no entry of {etc}/apt offers the component main of {names[0]}: set PYMLPGF_DEBIAN_SOURCE"
            f' to "URI {SUITE} main" of a Debian mirror or to a folder that holds the packages'
        )
    else:
        julia = replace(own[0], suite=SUITE, components=("main",))
    own = [entry for entry in own if (entry.uri, entry.suite) != (julia.uri, julia.suite)]
    return [*own, julia if julia.trust else replace(julia, trust={"signed-by": _keyring()})]


def _keyring() -> str:
    """Debian's own keys: another system, or a newer suite, does not trust the old suite's by default."""
    for ring in KEYRINGS:
        if os.path.exists(ring):
            return ring
    raise ProvisioningError(
        f"the signing keys of Debian are missing ({KEYRINGS[0]}), so nothing from its mirror can be trusted:"
        " install the package debian-archive-keyring, or set PYMLPGF_DEBIAN_SOURCE to a folder that holds the packages"
    )


def _os_release(etc: Path) -> dict[str, str]:
    try:
        text = (etc / "os-release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return dict(re.findall(r"""^(\w+)=["']?([^"'\n]*)""", text, re.MULTILINE))


def _configured(etc: Path) -> list[Source]:
    """Binary-package sources of the machine, in the order in which apt reads them."""
    found: list[Source] = []
    parts = etc / "apt" / "sources.list.d"
    for path in [etc / "apt" / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if path.suffix == ".sources":
            found += _deb822(text)
        else:
            found += [entry for entry in map(_one_line, text.splitlines()) if entry]
    return [entry for entry in found if not entry.uri.startswith("cdrom:")]


def _one_line(line: str) -> Source | None:
    match = re.match(r"\s*deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>[^#]*)", line)
    if match is None:
        return None
    options = dict(option.split("=", 1) for option in (match["options"] or "").split() if "=" in option)
    return Source(match["uri"], match["suite"], tuple(match["rest"].split()), _trust(options))


def _deb822(text: str) -> list[Source]:
    found = []
    for stanza in re.split(r"\n\s*\n", "\n".join(line for line in text.splitlines() if not line.startswith("#"))):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "").lower() in ("no", "false", "0"):
            continue
        components = tuple(fields.get("components", "").split())
        found += [
            Source(uri, suite, components, _trust(fields))
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return found


def _trust(options: Mapping[str, str]) -> dict[str, str]:
    given = {name.lower(): value.strip() for name, value in options.items()}
    trust = {}
    if given.get("signed-by", "").startswith("/"):  # not a key that is written out, which a line cannot hold
        trust["signed-by"] = ",".join(given["signed-by"].replace(",", " ").split())
    if given.get("trusted") == "yes":
        trust["trusted"] = "yes"
    return trust
