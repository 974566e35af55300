"""The ratios of a benchmark as a figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import LogFormatter

__all__ = ["draw"]


def draw(
    rows: list[dict[str, Any]],
    ratios: Callable[[dict[str, Any]], dict[str, float]],
    goals: dict[str, dict[str, float]],
    path: Path,
) -> Path:
    """Ratios to pymlpgf over the number of samples, a panel a quantity and contender, a line a width."""
    grid = [row for row in rows if row["grid"] and row["threads"] == 1 and row["dtype"] == "float64"]
    names = sorted({name for row in grid for name in ratios(row)}, key=list(goals["gradient"]).index)
    figure, axes = plt.subplots(
        len(goals), max(1, len(names)), figsize=(1 + 3.4 * max(1, len(names)), 6), squeeze=False, sharex=True,
        layout="constrained",
    )  # fmt: skip
    for panels, (quantity, wanted) in zip(axes, goals.items(), strict=True):
        for ax, name in zip(panels, names, strict=False):
            for k in sorted({row["k"] for row in grid}):
                found = [
                    (row["N"], ratios(row)[name])
                    for row in grid
                    if row["k"] == k and row["quantity"] == quantity and name in row["seconds"]
                ]
                if found:
                    ax.plot(*zip(*found, strict=True), "o-", label=f"k = {k} units")
            ax.axhline(wanted[name], color="0.5", linestyle="--", label="goal for each point")
            ax.set(xscale="log", yscale="log", title=f"{quantity}: {name}")
            ax.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.4)))
            ax.yaxis.set_major_formatter(LogFormatter())
            ax.grid(alpha=0.3)
            if ax is panels[0]:
                ax.set_ylabel("time / time of pymlpgf")
    axes[0, 0].legend(fontsize="small")
    for ax in axes[-1]:
        ax.set_xlabel("samples N")
    figure.suptitle("One thread, float64, one hidden softplus layer, 2 inputs (above 1: pymlpgf is faster)")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
