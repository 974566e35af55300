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
    goal: Callable[[dict[str, Any], str], float],
    path: Path,
) -> Path:
    """Ratios to pymlpgf over the number of samples, a panel a quantity and width, a line a contender."""
    grid = [row for row in rows if row["grid"] and row["threads"] == 1 and row["dtype"] == "float64"]
    quantities = list(dict.fromkeys(row["quantity"] for row in grid))
    widths = sorted({row["k"] for row in grid})
    colors = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(name for row in grid for name in ratios(row)))}
    size = (2 + 3.2 * max(1, len(widths)), 1 + 2.6 * max(1, len(quantities)))
    figure, axes = plt.subplots(
        max(1, len(quantities)), max(1, len(widths)), figsize=size, squeeze=False, sharex=True, sharey="row",
        layout="constrained",
    )  # fmt: skip
    for panels, quantity in zip(axes, quantities, strict=False):
        for ax, k in zip(panels, widths, strict=False):
            shown = [row for row in grid if row["k"] == k and row["quantity"] == quantity]
            for name, color in colors.items():
                found = [(row["N"], ratios(row)[name]) for row in shown if name in ratios(row)]
                if found:
                    ax.plot(*zip(*found, strict=True), "o-", color=color, markersize=4, label=name)
            ax.axhline(1, color="0.3", linewidth=1)
            highest = max((goal(row, name) for row in shown for name in ratios(row)), default=1)
            if highest > 1:
                ax.axhline(highest, color="0.5", linestyle="--", linewidth=1)
            ax.set(xscale="log", yscale="log", title=f"{quantity}, k = {k} units")
            ax.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.4)))
            ax.yaxis.set_major_formatter(LogFormatter())
            ax.grid(alpha=0.3)
        panels[0].set_ylabel("time / time of pymlpgf")
    for ax in axes[-1]:
        ax.set_xlabel("samples N")
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize="small")
    figure.suptitle(
        "One thread, float64, one hidden softplus layer, 2 inputs (above 1: pymlpgf is faster; dashed: goal)"
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
