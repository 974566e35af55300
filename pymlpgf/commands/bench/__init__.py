"""Derivatives, the time to a minimum, and what a fresh process waits for: ``pymlpgf bench``."""

from __future__ import annotations

import argparse

__all__ = ["main"]


def main(options: argparse.Namespace) -> int:
    """The command ``pymlpgf bench``."""
    from . import derivatives, minimum, startup

    options.output.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        if part == "derivatives":
            derivatives.run(options)
        elif part == "minimum":
            minimum.run(options)
        elif part == "startup":
            startup.table(1 if options.quick else 5, options.quick)
    return 0
