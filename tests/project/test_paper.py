"""The paper's experiments, at sizes of seconds: they run, and what they claim already shows."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "paper"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run a script's ``main`` in this process; the rows of its CSV file."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def run(name: str) -> list[dict[str, str]]:
        monkeypatch.setattr(sys, "argv", [name, "--toy", "--output", str(tmp_path)])
        __import__(name).main()
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
        with open(tmp_path / f"{name}.csv", newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return run


def test_ode_methods(run) -> None:
    strays: dict[str, float] = {}
    for row in run("ode_methods"):
        strays[row["method"]] = max(strays.get(row["method"], 0), float(row["distance"]))
    adaptive = [strays[name] for name in ("Rodas5P", "TRBDF2", "QNDF", "RK4", "Tsit5")]
    assert max(adaptive) < 1e-3 * strays["Adam, 0.001"]
    assert max(adaptive) < strays["gradient descent, 0.01"] < strays["Adam, 0.001"]


def test_optimizers(run) -> None:
    losses = {row["method"]: float(row["loss"]) for row in run("optimizers")}
    assert len(losses) == 10
    assert max(losses["NewtonTrustRegion"], losses["BFGS"]) < 1e-3 * min(losses["Adam, 0.001"], losses["Adam, 0.01"])


def test_infinite_data(run) -> None:
    rows = [(float(row["samples"]), float(row["squared_distance"])) for row in run("infinite_data")]
    sizes = sorted({size for size, _ in rows})
    means = [np.mean([distance for size, distance in rows if size == wanted]) for wanted in sizes]
    assert len(sizes) == 4
    assert -1.2 < np.polyfit(np.log(sizes), np.log(means), 1)[0] < -0.8


def test_fixed_points(run) -> None:
    rows = run("fixed_points")
    assert max(float(row["gradient_norm"]) for row in rows) < 1e-8
    assert all(float(row["smallest_eigenvalue"]) > -1e-9 * float(row["largest_eigenvalue"]) for row in rows)


def test_phase_diagram(run) -> None:
    losses = {(int(row["teacher"]), int(row["student"])): float(row["loss"]) for row in run("phase_diagram")}
    assert losses[2, 1] > 1e-3
    assert max(losses[1, 1], losses[1, 2], losses[2, 2]) < 1e-12


def test_digits(run) -> None:
    last = {row["method"]: row for row in run("digits")}
    ours = last.pop("flow, then LBFGS")
    assert len(last) == 2
    assert float(ours["loss"]) < min(float(row["loss"]) for row in last.values())
    assert float(ours["test_accuracy"]) > 0.9
