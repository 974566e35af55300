"""The time to a minimum: the tables, the goals that are missed, the figure."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .problems import PROBLEMS
from .record import Record, child
from .solvers import CONTENDERS

__all__ = ["missed", "overall", "run", "score", "tables"]

OURS = "pymlpgf"
LIMIT = 5.0  # seconds of CPU time for one attempt
MEAN_GOAL, PROBLEM_GOAL = 20.0, 5.0
NEAR = 1e-12  # losses as near as this, or in six digits, count as the same minimum

#: the problem of whole processes
ALONE = 0


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure what the record does not have yet; print and write tables and figure."""
    output: Path = options.output
    limit = 1.5 if options.quick else LIMIT
    record = Record(output / "minimum.json", quick=options.quick, limit=limit)
    cores = sorted(os.sched_getaffinity(0))[:1] if hasattr(os, "sched_getaffinity") else []
    print("From random parameters to a gradient of 1e-9:", flush=True)
    settings = {
        "seeds": 2 if options.quick else 20, "problems": [0, 4, 5] if options.quick else list(range(len(PROBLEMS))),
        "limit": limit, "cores": cores,
        "done": [(row["problem"], row["seed"], row["contender"]) for row in record.rows if "problem" in row],
    }  # fmt: skip
    for row in child("pymlpgf.commands.bench.attempts", settings):
        record.add(row)
        found = "  – " if row["seconds"] is None else f"{row['seconds'] * 1e3:10.2f} ms"
        print(
            f"  {row['problem']:<24} seed {row['seed']:<3} {row['contender']:<30} {found}  loss {row['loss']:.3e}",
            flush=True,
        )
    if not options.quick:
        _alone(record, cores)
    text = tables(record.rows)
    print("\n" + text)
    page = output / "minimum.md"
    page.write_text(text, encoding="utf-8")
    written = [record.path, page]
    try:
        from .figure import draw_minimum
    except ImportError:
        print("No figure: matplotlib is not installed.")
    else:
        written.append(draw_minimum(score(record.rows), OURS, overall, output / "minimum.png"))
    print("Written: " + ", ".join(map(str, written)))
    return record.rows


def _alone(record: Record, cores: list[int]) -> None:
    """Whole processes, in turns: interpreter, imports, compilation and one minimum, by the CPU time of children."""
    names = [name for name in CONTENDERS if any(row.get("contender") == name for row in record.rows)]
    for turn in range(3):
        for name in names:
            if any(row.get("turn") == turn and row["contender"] == name for row in record.rows):
                continue
            before, begin = os.times(), time.perf_counter()
            settings = {"contender": name, "problem": ALONE, "cores": cores}
            (row,) = child("pymlpgf.commands.bench.attempts", settings)
            used, wall = os.times(), time.perf_counter() - begin
            cpu = used.children_user + used.children_system - before.children_user - before.children_system
            record.add({**row, "turn": turn, "wall": wall, "cpu": cpu})


def score(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Problem -> contender -> attempts, arrivals, lowest losses; geometric means of seconds and of ratios to ours.

    Seconds are of attempts that arrived, ratios of seeds on which both did; not a number where there is none.
    """
    rows = [row for row in rows if "problem" in row]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for problem in dict.fromkeys(row["problem"] for row in rows):
        by_name: dict[str, dict[int, dict[str, Any]]] = {}
        for row in rows:
            if row["problem"] == problem:
                by_name.setdefault(row["contender"], {})[row["seed"]] = row
        ours = by_name[OURS]
        found[problem] = {}
        for name, of in by_name.items():
            arrived = {seed: row["seconds"] for seed, row in of.items() if row["seconds"] is not None}
            lowest = 0
            for seed, row in of.items():
                best = min(other[seed]["loss"] for other in by_name.values() if seed in other)
                lowest += row["loss"] <= best * (1 + 1e-6) + NEAR
            found[problem][name] = {
                "attempts": len(of), "arrived": len(arrived), "lowest": lowest, "mean": _mean(arrived.values()),
                "slowest": max(arrived.values(), default=np.nan), "failed": sorted(set(of) - set(arrived)),
                "loss": float(np.median([row["loss"] for row in of.values()])),
                **{kind: _mean(of[s][kind] / ours[s][kind] for s in of if s in ours and of[s][kind] and ours[s][kind])
                   for kind in ("seconds", "near")},
            }  # fmt: skip
    return found


def _mean(values: Iterable[float]) -> float:
    """The geometric mean; not a number of nothing."""
    logarithms = np.log(list(values))
    return float(np.exp(logarithms.mean())) if len(logarithms) else np.nan


def overall(found: dict[str, dict[str, dict[str, Any]]], name: str) -> float:
    """The geometric mean of a contender's ratios over the problems."""
    return _mean(of[name]["seconds"] for of in found.values() if name in of and of[name]["seconds"] > 0)


def missed(found: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """The goals that are missed, a line each."""
    lines = []
    for name in dict.fromkeys(name for of in found.values() for name in of if name != OURS):
        if (mean := overall(found, name)) < MEAN_GOAL:
            lines.append(f"{name}: ×{mean:.3g} in the geometric mean, goal ×{MEAN_GOAL:g}")
    for problem, of in found.items():
        for name, values in of.items():
            if name != OURS and values["seconds"] < PROBLEM_GOAL:
                lines.append(f"{problem}: ×{values['seconds']:.3g} of {name}, goal ×{PROBLEM_GOAL:g}")
        for seed in of[OURS]["failed"]:
            others = [name for name, values in of.items() if seed not in values["failed"] and name != OURS]
            if others:
                lines.append(f"{problem}: seed {seed} fails, but not with {', '.join(others)}")
    return lines


def tables(rows: list[dict[str, Any]]) -> str:
    """Tables in Markdown: times, ratios to a near loss, losses, arrivals, whole processes; and the goals missed."""
    found = score(rows)
    names = list(dict.fromkeys(name for of in found.values() for name in of))
    others = [name for name in names if name != OURS]

    def table(first: str, columns: list[str], cell: Any) -> str:
        lines = [f"| problem | {first}" + " | ".join(columns) + " |", "|---|" + "---|" * (len(columns) + bool(first))]
        for problem, of in found.items():
            cells = [cell(of[name]) if name in of else "–" for name in columns]
            own = f"{of[OURS]['mean'] * 1e3:.3g} ({of[OURS]['slowest'] * 1e3:.3g}) | " if first else ""
            lines.append(f"| {problem} | {own}" + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    parts = [
        "Time to ‖∇L‖_∞ ≤ 1e-9: ours in ms (slowest seed), and how many times as long others take (geometric\n"
        "means over the seeds on which both arrive)\n",
        table("ms | ", others, lambda values: f"{values['seconds']:.3g}".replace("nan", "none")),
        "Time to a loss within 1e-12 of the end, as a ratio to ours\n",
        table("", others, lambda values: f"{values['near']:.3g}".replace("nan", "none")),
        "Median of the losses at the end\n",
        table("", names, lambda values: f"{values['loss']:.3g}"),
        "How many arrived at ‖∇L‖_∞ ≤ 1e-9, of how many; in brackets how many had the lowest loss of all\n",
        table("", names, lambda values: f"{values['arrived']} of {values['attempts']} ({values['lowest']})"),
    ]
    processes = [row for row in rows if "turn" in row]
    if processes:
        lines = ["| whole process | CPU, s | elapsed, s | ‖∇L‖_∞ |", "|---|---|---|---|"]
        for name in names:
            turns = [row for row in processes if row["contender"] == name]
            if turns:
                best = [min(row[kind] for row in turns) for kind in ("cpu", "wall")]
                lines.append(f"| {name} | {best[0]:.2f} | {best[1]:.2f} | {turns[0]['gnorm']:.0e} |")
        parts += [f"{PROBLEMS[ALONE].name}, one seed, from the start of the interpreter\n", "\n".join(lines) + "\n"]
    short = missed(found)
    parts.append(
        "\n".join([f"Goals missed in {len(short)} places:\n", *(f"- {line}" for line in short)]) + "\n" if short else ""
    )
    return "\n".join(parts)
