"""The two figures of the README and the site's first page.

`flow_and_minimum.png` draws a run with the network of the README's ten lines of Python; `speed.png` draws numbers that
are read from docs/performance.md.

    python docs/figures/front.py docs/figures
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import pymlpgf as mg

PERFORMANCE = Path(__file__).resolve().parents[1] / "performance.md"
INK, PALE = "#1f4e79", "#9aa5b1"


def flow_and_minimum(path):
    X = np.random.default_rng(0).normal(size=(1000, 2))
    Y = np.tanh(X[:, 0] + X[:, 1]) - np.tanh(X[:, 0])
    net = mg.Net(layers=[(3, "tanh", True), (1, "identity", True)], input=X, target=Y)
    start = net.random_params(seed=0)
    flow = mg.flow(net, start, maxT=1000, save_everystep=True)
    iterations = []
    end = mg.minimize(net, flow, callback=lambda r: iterations.append((r.loss, r.gnorm)))
    losses, gnorms = np.array([(flow.loss, flow.gnorm), *iterations]).T

    shown = 40  # the gradient falls below 1e-16 after 20; the rest lowers the last digits

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    way = flow.trajectory
    for ax, x, loss, gnorm in (
        (left, way.t[1:], way.loss[1:], way.gnorm[1:]),
        (right, np.arange(shown + 1), losses[: shown + 1], gnorms[: shown + 1]),
    ):
        ax.semilogy(x, loss, color="C0", label="loss $L$")
        ax.semilogy(x, gnorm, "--", color="C1", label=r"largest gradient component $\|\nabla L\|_\infty$")
        ax.grid(alpha=0.3)
    left.set(title=f"flow to t = 1000: {flow.ode_iterations} steps", xlabel="time t of the flow", xscale="log")
    right.set(
        title=f"then minimize: ‖∇L‖∞ = {end.gnorm:.0e} at the end",
        xlabel=f"iteration of Newton's method ({shown} of {len(iterations)} shown)",
    )
    left.legend(loc="lower left")
    figure.savefig(path / "flow_and_minimum.png", dpi=150)


def flow_seconds(text):
    """Milliseconds to a distance of 1e-6 with 1000 samples, from the table "The flow beside others"."""
    header = re.search(r"^\| N \| distance \| auto \(ExpAdams\) \|(.+)\|$", text, re.M)[1]
    ours, others = re.search(r"^\| 1\s000 \| 1e-6 \| ([\d.]+) \|(.+)\|$", text, re.M).groups()
    found = {"pymlpgf": 1.0}
    for name, cell in zip(header.split("|"), others.split("|"), strict=True):
        if name.strip() in ("LSODA", "Radau"):
            found[f"SciPy {name.strip()}"] = float(re.search(r"\(([\d.]+)\)", cell)[1])
    return float(ours), found


def derivative_ratios(text):
    """Geometric means over the grid of "Beside others", of gradients and of Hessians."""
    text = " ".join(text.split())
    peer = re.search(r"Geometric means ([\d.]+) and ([\d.]+)\.", text).groups()
    torch = re.search(r"PyTorch's gradient takes at least [\d.]+ times as long \(geometric mean ([\d.]+)\)", text)[1]
    jax = re.search(r"JAX's [\d.]+ \(([\d.]+)\);", text)[1]
    torch_hessian, jax_hessian = re.search(r"PyTorch's Hessian \d+ \((\d+)\), JAX's \d+ \((\d+)\)", text).groups()
    gradients = {"pymlpgf": 1, "MLPGradientFlow.jl": peer[0], "JAX": jax, "PyTorch": torch}
    hessians = {"pymlpgf": 1, "MLPGradientFlow.jl": peer[1], "JAX": jax_hessian, "PyTorch": torch_hessian}
    return ({name: float(value) for name, value in found.items()} for found in (gradients, hessians))


def speed(path):
    text = PERFORMANCE.read_text(encoding="utf-8")
    milliseconds, flows = flow_seconds(text)
    gradients, hessians = derivative_ratios(text)
    panels = (
        (f"flow (pymlpgf: {milliseconds:g} ms)", flows),
        ("gradient", gradients),
        ("Hessian", hessians),
    )
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.9), width_ratios=(1.2, 1, 1), layout="constrained")
    for ax, (title, found) in zip(axes, panels, strict=True):
        names = sorted(found, key=found.get, reverse=True)
        for row, name in enumerate(names):
            ax.plot(found[name], row, "o", markersize=8, color=INK if name == "pymlpgf" else PALE)
            ax.annotate(
                f"{found[name]:g}", (found[name], row), (8, 0), textcoords="offset points", va="center", fontsize=9
            )
        ax.set_yticks(range(len(names)), names)
        ax.set_title(title, fontsize=11)
        ax.set(xscale="log", xlim=(0.7, 6 * max(found.values())), ylim=(-0.6, len(names) - 0.4))
        ax.grid(alpha=0.4)
        ax.spines[["top", "right"]].set_visible(False)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.tick_params(axis="x", which="minor", bottom=False)
    figure.supxlabel("time, relative to pymlpgf (logarithmic)", fontsize=10)
    figure.savefig(path / "speed.png", dpi=150)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    flow_and_minimum(folder)
    speed(folder)
