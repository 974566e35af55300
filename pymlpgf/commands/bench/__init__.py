"""Derivatives against PyTorch, JAX and MLPGradientFlow.jl, in one run: ``pymlpgf bench``."""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import MLPGFError

__all__ = ["grid_ratios", "main", "ratios", "run"]

#: what a ratio to ours, in the paper's grid, one thread and float64, is to reach: quantity -> contender -> factor
GOALS = {
    "gradient": {"PyTorch": 5.0, "JAX": 3.0, "MLPGradientFlow.jl": 1.0},
    "hessian": {"PyTorch": 50.0, "JAX": 10.0, "MLPGradientFlow.jl": 2.0},
}

#: contenders that run in Julia, and so are compared with ours called from Julia, in the same process
IN_JULIA = {"MLPGradientFlow.jl": "pymlpgf in Julia"}


class Key(NamedTuple):
    """What tells the rows of the table apart."""

    case: str
    threads: int
    dtype: str
    quantity: str


def main(options: argparse.Namespace) -> int:
    """The command ``pymlpgf bench``."""
    if options.startup:
        from . import startup

        startup.table(1 if options.quick else 5, options.quick)
        return 0
    run(options)
    return 0


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the contenders in child processes, one for each number of threads; write table, CSV and figure."""
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for threads in (1, 2):
        if threads == 2 and len(cores) < 2:
            print("Two threads are left out: this process may use one core only.")
            break
        print(f"{threads} thread{'s' * (threads > 1)}:", flush=True)
        for row in _child(options, threads, cores):
            rows.append(row)
            _print(row)
    path = output / "derivatives.csv"
    with open(path, "w", newline="") as file:
        shown = ["threads", "case", "k", "N", "P", "dtype", "quantity"]
        writer = csv.DictWriter(file, [*shown, "contender", "microseconds"])
        writer.writeheader()
        for row in rows:
            shared = {name: row[name] for name in shown}
            writer.writerows(
                {**shared, "contender": name, "microseconds": f"{seconds * 1e6:.3f}"}
                for name, seconds in row["seconds"].items()
            )
    print(_summary(rows))
    written = [path]
    try:
        from .figure import draw
    except ImportError:
        print("No figure: matplotlib is not installed.")
    else:
        written.append(draw(rows, ratios, GOALS, output / "derivatives.png"))
    print("Written: " + ", ".join(map(str, written)))
    return rows


def _child(options: argparse.Namespace, threads: int, cores: list[int]) -> Iterator[dict[str, Any]]:
    """The rows that a process of ``threads`` threads, tied to as many cores, prints."""
    environment = {**os.environ, "PYMLPGF_THREADS": str(threads)}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(threads)
    if threads == 1:
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + os.environ.get("XLA_FLAGS", "")
    settings = {
        "threads": threads, "quick": options.quick, "cores": cores[:threads],
        "peer": [str(options.peer_julia), str(options.peer_project)] if options.peer_julia else None,
    }  # fmt: skip
    command = [sys.executable, "-m", "pymlpgf.commands.bench.rounds", json.dumps(settings)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            message = json.loads(line)
            if "note" in message:
                print(message["note"], flush=True)
            else:
                yield message
    if child.returncode:
        raise MLPGFError(f"the benchmark process ended with code {child.returncode}; its message is above")


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """Time of each contender over ours, called from where it is called."""
    times = row["seconds"]
    ours = {"pymlpgf", *IN_JULIA.values()}
    return {name: s / times[IN_JULIA.get(name, "pymlpgf")] for name, s in times.items() if name not in ours}


def grid_ratios(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """(quantity, contender) -> the ratios in the cells of the paper's grid, one thread and float64."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["grid"] and row["threads"] == 1 and row["dtype"] == "float64":
            for name, ratio in ratios(row).items():
                found.setdefault((row["quantity"], name), []).append(ratio)
    return found


def _print(row: dict[str, Any]) -> None:
    others = "  ".join(f"{name} ×{ratio:.3g}" for name, ratio in ratios(row).items())
    time = f"{row['seconds']['pymlpgf'] * 1e6:10.1f} µs"
    print(f"  {row['case']:<28} {row['dtype']:<8} {row['quantity']:<9} {time}   {others}", flush=True)


def _summary(rows: list[dict[str, Any]]) -> str:
    """Smallest and mean ratios of the paper's grid against the goals, and what threads and float32 bring."""
    lines = [
        "\nRatios to pymlpgf in the paper's grid (one thread, float64): smallest, geometric mean, goal for each cell"
    ]
    for (quantity, name), cells in grid_ratios(rows).items():
        mean = np.exp(np.mean(np.log(cells)))
        lines.append(f"  {quantity:<9} {name:<19} ×{min(cells):<7.3g} ×{mean:<7.3g} ×{GOALS[quantity][name]:.3g}")
    ours = {Key(*(r[name] for name in Key._fields)): r["seconds"]["pymlpgf"] for r in rows}

    def line(title: str, over: Callable[[Key], Key], under: Callable[[Key], Key]) -> None:
        found = [ours[over(key)] / ours[under(key)] for key in ours if over(key) in ours and under(key) in ours]
        if found:
            lines.append(f"  {title}: ×{min(found):.3g} to ×{max(found):.3g}")

    lines.append("")
    line("hvp over gradient", lambda k: k._replace(quantity="hvp"), lambda k: k._replace(quantity="gradient"))
    line("float64 over float32", lambda k: k._replace(dtype="float64"), lambda k: k._replace(dtype="float32"))
    line("one thread over two", lambda k: k._replace(threads=1), lambda k: k._replace(threads=2))
    return "\n".join(lines)
