"""The figures of docs/howto/lines-and-branches.md, drawn by the code of that page.

python docs/figures/lines.py docs/figures
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PAGE = Path(__file__).resolve().parents[1] / "howto" / "lines-and-branches.md"


def main(path: Path) -> None:
    """Run the page, and keep each figure under the name that the page gives it."""
    plt.rcParams.update({"figure.figsize": (7, 4), "savefig.dpi": 110})
    names = re.findall(r"\]\(\.\./figures/(\w+\.png)\)", PAGE.read_text(encoding="utf-8"))
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)), {})
    for number, name in zip(plt.get_fignums(), names, strict=True):
        plt.figure(number).savefig(path / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
