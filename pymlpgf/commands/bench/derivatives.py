"""Derivatives in child processes, one for each number of threads; the tables, the goals that are missed, the figure."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .record import Record, child

__all__ = ["goal", "grid_goal", "grid_ratios", "missed", "ratios", "run", "summary", "tables"]

#: contenders that run in Julia, and so are compared with ours called from Julia, in the same process
IN_JULIA = ("SimpleChains.jl", "MLPGradientFlow.jl")
OURS = ("pymlpgf", "pymlpgf-in-Julia")

#: a product with the Hessian may cost so many gradients
HVP_GOAL = 2.5


class Key(NamedTuple):
    """What tells the rows of the table apart."""

    case: str
    threads: int
    dtype: str
    quantity: str


def key(row: dict[str, Any]) -> Key:
    """The key of a row."""
    return Key(*(row[name] for name in Key._fields))


def grid_goal(quantity: str, name: str) -> float:
    """What the ratio of a contender's time to ours is to reach in the paper's grid, with one thread and float64."""
    if name in IN_JULIA or quantity == "hvp":
        return 1.0
    if quantity == "hessian":
        return 2.5 if name == "NumPy + dsyrk" else 10.0
    return 4.0


def goal(row: dict[str, Any], name: str) -> float:
    """The same for a row. For gradients of other nets it is lower: products of matrices decide, the more the wider."""
    if row["quantity"] == "gradient" and not row["grid"] and name not in IN_JULIA:
        return 1.0 if row["wide"] else 2.0
    return grid_goal(row["quantity"], name)


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure what the record does not have yet; print and write tables and figure."""
    output: Path = options.output
    peer = [str(options.peer_julia), str(options.peer_project)] if options.peer_julia else None
    record = Record(output / "derivatives.json", quick=options.quick, peer=peer)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for threads in (1, 2):
        if threads == 2 and len(cores) < 2:
            print("Two threads are left out: this process may use one core only.")
            break
        print(f"{threads} thread{'s' * (threads > 1)}:", flush=True)
        done = [(row["case"], row["dtype"], row["quantity"]) for row in record.rows if row["threads"] == threads]
        settings = {"threads": threads, "quick": options.quick, "cores": cores[:threads], "peer": peer, "done": done}
        for row in child("pymlpgf.commands.bench.rounds", settings, threads):
            record.add(row)
            _print(row)
    print(summary(record.rows))
    page = output / "derivatives.md"
    page.write_text(tables(record.rows), encoding="utf-8")
    written = [record.path, page]
    try:
        from .figure import draw
    except ImportError:
        print("No figure: matplotlib is not installed.")
    else:
        written.append(draw(record.rows, ratios, goal, output / "derivatives.png"))
    print("Written: " + ", ".join(map(str, written)))
    return record.rows


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """Time of each contender over ours, called from where it is called."""
    times = row["seconds"]
    base = {name: "pymlpgf-in-Julia" if name in IN_JULIA else "pymlpgf" for name in times if name not in OURS}
    return {name: times[name] / times[ours] for name, ours in base.items()}


def _anchored(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["threads"] == 1 and row["dtype"] == "float64"]


def grid_ratios(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """(quantity, contender) -> the ratios in the cells of the paper's grid, one thread and float64."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in _anchored(rows):
        for name, ratio in ratios(row).items() if row["grid"] else ():
            found.setdefault((row["quantity"], name), []).append(ratio)
    return found


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """The cells that fall short of their goals, a line each."""
    lines, anchored = [], _anchored(rows)
    gradients = {row["case"]: row["seconds"]["pymlpgf"] for row in anchored if row["quantity"] == "gradient"}
    for row in anchored:
        for name, ratio in ratios(row).items():
            if ratio < goal(row, name):
                lines.append(f"{row['case']}: {row['quantity']} ×{ratio:.2f} of {name}, goal ×{goal(row, name):g}")
        if row["quantity"] == "hvp" and row["case"] in gradients:
            cost = row["seconds"]["pymlpgf"] / gradients[row["case"]]
            if cost > HVP_GOAL:
                lines.append(f"{row['case']}: hvp costs {cost:.2f} gradients, goal {HVP_GOAL:g}")
    return lines


def tables(rows: list[dict[str, Any]]) -> str:
    """A table in Markdown for each number of threads, number type and quantity: our time, and ratios to it."""
    parts = []
    kinds = dict.fromkeys((row["threads"], row["dtype"], row["quantity"]) for row in rows)
    for kind in kinds:
        of_kind = [row for row in rows if (row["threads"], row["dtype"], row["quantity"]) == kind]
        names = list(dict.fromkeys(name for row in of_kind for name in (*row["seconds"], *row["left_out"])))
        names = [name for name in names if name not in OURS]
        lines = [
            f"{kind[2]}, {kind[1]}, {kind[0]} thread{'s' * (kind[0] > 1)}\n",
            "| net, samples | P | µs | " + " | ".join(names) + " |",
            "|---|" + "---|" * (2 + len(names)),
        ]
        for row in of_kind:
            found = {**row["left_out"], **{name: f"{ratio:.3g}" for name, ratio in ratios(row).items()}}
            cells = [f"{row['P']}", f"{row['seconds']['pymlpgf'] * 1e6:.3g}", *(found.get(name, "–") for name in names)]
            lines.append(f"| {row['case']} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _print(row: dict[str, Any]) -> None:
    found = [f"{name} ×{ratio:.3g}" for name, ratio in ratios(row).items()]
    found += [f"{name} – ({reason})" for name, reason in row["left_out"].items()]
    time = f"{row['seconds']['pymlpgf'] * 1e6:10.1f} µs"
    print(f"  {row['case']:<28} {row['dtype']:<8} {row['quantity']:<9} {time}   {'  '.join(found)}", flush=True)


def summary(rows: list[dict[str, Any]]) -> str:
    """Smallest and mean ratios of the paper's grid, the goals that are missed, and what threads and float32 bring."""
    lines = ["\nRatios to pymlpgf in the paper's grid (one thread, float64): smallest, geometric mean"]
    for (quantity, name), cells in grid_ratios(rows).items():
        lines.append(f"  {quantity:<9} {name:<19} ×{min(cells):<7.3g} ×{np.exp(np.mean(np.log(cells))):.3g}")
    ours = {key(row): row["seconds"]["pymlpgf"] for row in rows}

    def line(title: str, over: Callable[[Key], Key], under: Callable[[Key], Key]) -> None:
        found = [ours[over(k)] / ours[under(k)] for k in ours if over(k) in ours and under(k) in ours]
        if found:
            lines.append(f"  {title}: ×{min(found):.3g} to ×{max(found):.3g}")

    lines.append("")
    line("hvp over gradient", lambda k: k._replace(quantity="hvp"), lambda k: k._replace(quantity="gradient"))
    line("float64 over float32", lambda k: k._replace(dtype="float64"), lambda k: k._replace(dtype="float32"))
    line("one thread over two", lambda k: k._replace(threads=1), lambda k: k._replace(threads=2))
    short = missed(rows)
    lines += [
        "",
        f"Goals missed in {len(short)} places" if short else "Every goal is reached",
        *(f"  {s}" for s in short),
    ]
    return "\n".join(lines)
