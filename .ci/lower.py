"""The oldest versions that pyproject.toml allows of what the core tests need, for pip; `make lower` (Python 3.11)."""

from __future__ import annotations

import re
from pathlib import Path

import tomllib

CORE_TESTS = ("pytest", "hypothesis", "scipy", "pandas")

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
chosen = [*project["dependencies"], *extras["demo"]]
chosen += [line for line in extras["test"] if re.match(r"[\w-]+", line)[0] in CORE_TESTS]
print(*(line.split(";")[0].strip().replace(">=", "==") for line in chosen))
