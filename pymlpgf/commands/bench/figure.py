"""The ratios of a benchmark as figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogFormatter

__all__ = ["draw", "draw_minimum"]

INK, PALE = "#1f4e79", "#9aa5b1"


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
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize="small")
    figure.suptitle(
        "One thread, float64, one hidden softplus layer, 2 inputs (above 1: pymlpgf is faster; dashed: goal)"
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def draw_minimum(
    found: dict[str, dict[str, dict[str, Any]]], ours: str, overall: Callable[..., float], path: Path
) -> Path:
    """For each contender: time relative to ours on every problem and its geometric mean, and the share that arrived."""
    names = list(dict.fromkeys(name for of in found.values() for name in of))
    means = {name: overall(found, name) for name in names}
    names.sort(key=lambda name: means[name] if means[name] > 0 else np.inf, reverse=True)
    names.sort(key=lambda name: name == ours)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 0.8 + 0.42 * len(names)), width_ratios=(3, 1), sharey=True, layout="constrained"
    )
    for row, name in enumerate(names):
        color = INK if name == ours else PALE
        of = [problem[name] for problem in found.values() if name in problem]
        if name != ours:
            left.plot([values["seconds"] for values in of], [row] * len(of), "o", color=PALE, markersize=5, alpha=0.6)
        if np.isnan(means[name]):
            left.annotate("never arrives", (1, row), (6, 0), textcoords="offset points", va="center", fontsize=9)
        left.plot(means[name], row, "|", color=color if name == ours else "0.2", markersize=18, markeredgewidth=2.5)
        left.annotate(
            _digits(means[name]),
            (means[name], row),
            (0, 11),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
        arrived, attempts = (sum(values[kind] for values in of) for kind in ("arrived", "attempts"))
        right.barh(row, arrived / attempts, color=color, height=0.55)
        right.annotate(f"{arrived} of {attempts}", (1.04, row), va="center", fontsize=9, annotation_clip=False)
    left.axvline(1, color="0.6", linewidth=1, zorder=0)
    left.set_yticks(range(len(names)), names)
    left.set(xscale="log", title="time to a minimum (points: problems; bar: geometric mean)")
    left.set(xlabel="time, relative to pymlpgf (logarithmic)", ylim=(-0.5, len(names) - 0.2))
    left.xaxis.set_major_formatter("{x:g}")
    left.grid(alpha=0.4)
    right.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "50%", "100%"], title="‖∇L‖∞ ≤ 1e-9 reached")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _digits(value: float) -> str:
    """Two digits, without exponent; nothing for what is not a number."""
    return "" if np.isnan(value) else f"{value:.0f}" if value >= 10 else f"{value:.2g}"
