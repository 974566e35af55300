"""The main job on real input: a student that learns from its teacher, and a network fitted to the diabetes data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .. import runtime_info
from ..errors import MLPGFError
from ..network.net import Net
from ..results.result import TrainResult
from ..solve.train import train

__all__ = ["diabetes", "main", "teacher_student"]


def teacher_student(n_samples: int = 10_000, student: int = 8, teacher: int = 4, seed: int = 0) -> Net:
    """The paper's problem: a softplus student learns from a narrower softplus teacher on 2-d Gaussian input.

    Teacher weights and biases are standard normal; with 8 hidden units the student has 33 parameters.
    """
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_samples, 2))

    def layers(width: int) -> list[tuple[int, str, bool]]:
        return [(width, "softplus", True), (1, "identity", True)]

    model = Net(layers=layers(teacher), input=X, target=np.zeros(n_samples))
    return Net(layers=layers(student), input=X, target=model(rng.normal(size=model.n_params)))


def diabetes() -> Net:
    """scikit-learn's diabetes data (442 patients, 10 features), standardised, and a network with two hidden units.

    Their activation is the paper's g, with which the minimum is isolated: saturating units fit these data best
    with infinite weights.
    """
    try:
        from sklearn.datasets import load_diabetes
    except ImportError:
        raise MLPGFError("the demo reads its data from scikit-learn: pip install 'pymlpgf[demo]'") from None
    X, y = load_diabetes(return_X_y=True)
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    return Net(layers=[(2, "g", True), (1, "identity", True)], input=X, target=y)


def main(options: argparse.Namespace) -> int:
    """Run both, print a table, save results and figure into ``options.output``."""
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    seconds = 1.0 if options.quick else 5.0
    print("Starting Julia …", flush=True)
    problems = {"teacher-student": teacher_student(seed=options.seed), "diabetes": diabetes()}
    info = runtime_info()
    print(f"Julia {info['version']} ({info['host']}), {info['threads']} thread{'s' * (info['threads'] > 1)}\n")
    rows, results = [], {}
    for name, net in problems.items():
        print(f"{name}: {net}", flush=True)
        start = net.random_params(seed=options.seed)
        result = train(net, start, reltol=1e-4, maxtime_ode=seconds, maxtime_optim=seconds)
        result.save(output / name)
        results[name] = result
        rows.append(_row(name, net, net.loss(start), result))
    print("\n" + _table(rows))
    for name, result in results.items():
        print(f"{name}: {result.message}")
    saved = [f"{name}.npz" for name in results]
    try:
        _figure(results, output / "flow.png")
        saved.append("flow.png")
    except ImportError:
        print("No figure: pip install 'pymlpgf[demo]' brings matplotlib.", file=sys.stderr)
    print(f"Saved in {output}/: {', '.join(saved)}")
    return 0


HEADER = (
    "problem", "params", "loss: start", "after flow", "end", "|gradient|", "min eigenvalue", "steps", "iterations",
    "seconds", "flow stopped by", "minimize stopped by",
)  # fmt: skip


def _row(name: str, net: Net, initial: float, result: TrainResult) -> list[str]:
    smallest = net.hessian_spectrum(result.x)[0][0]
    return [
        name, str(net.n_params), f"{initial:.4g}", f"{result.ode_loss:.4g}", f"{result.loss:.4g}",
        f"{result.gnorm:.1e}", f"{smallest:.1e}", str(result.ode_iterations), str(result.optim_iterations),
        f"{result.total_time:.1f}", str(result.ode_stopped_by), str(result.optim_stopped_by),
    ]  # fmt: skip


def _table(rows: list[list[str]]) -> str:
    """Quantities down, problems across: fits into 80 columns."""
    columns = [list(HEADER), *rows]
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for number, cells in enumerate(zip(*columns, strict=True)):
        first, *others = zip(cells, widths, strict=True)
        lines.append(first[0].ljust(first[1]) + "".join(f"   {cell:>{width}}" for cell, width in others))
        if number == 0:
            lines.append("-" * len(lines[0]))
    return "\n".join(lines) + "\n"


def _figure(results: dict[str, TrainResult], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, result in results.items():
        flow: Any = result.trajectory
        later = flow.t > 0
        style: Any = {"marker": "."} if len(flow) <= 200 else {"linewidth": 0.7}  # marks of thousands hide the line
        (line,) = left.loglog(flow.t[later], flow.loss[later], label=name, **style)
        right.loglog(flow.t[later], flow.gnorm[later], color=line.get_color(), label=name, **style)
        for axes, value in ((left, result.loss), (right, result.gnorm)):
            axes.axhline(value, color=line.get_color(), linestyle=":", linewidth=1)
    left.set(xlabel="time $t$ of the flow", ylabel="loss $L$", title="loss (dotted: after minimize)")
    right.set(xlabel="time $t$ of the flow", ylabel=r"$\|\nabla L\|_\infty$", title="gradient (dotted: after minimize)")
    left.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
