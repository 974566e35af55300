"""The time to a minimum: contenders of the benchmark solve the same problem, and its tables say what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pymlpgf as mg
from pymlpgf.commands.bench import attempts, minimum, solvers
from pymlpgf.commands.bench.cases import Case
from pymlpgf.commands.bench.problems import OUT, PROBLEMS, Problem

SMALL = Problem(Case("small", 2, 60, ((2, "tanh", True), OUT)), noise=0.2)
GOAL = solvers.Goal(1e-7, -np.inf, 5.0)
NEEDS = {"SciPy": "jax", "optimistix": "optimistix", "PyTorch": "torch", "scikit-learn": "sklearn"}


@pytest.mark.parametrize("problem", [PROBLEMS[4], PROBLEMS[5], PROBLEMS[6]], ids=lambda problem: problem.name)
def test_problems_are_those_of_our_nets(problem: Problem) -> None:
    X, Y = problem.data(0)
    p = problem.start(0)
    net = mg.Net(layers=problem.case.layers, input=X, target=Y, loss=problem.case.loss, l2=problem.l2)
    loss, slope = problem.value_and_gradient(X, Y, p)
    assert loss == pytest.approx(net.loss(p), rel=1e-13)
    np.testing.assert_allclose(slope, net.gradient(p), rtol=1e-10, atol=1e-14)
    assert np.array_equal(X, problem.data(0)[0])
    assert not np.array_equal(X, problem.data(1)[0])


def test_labels_are_drawn_from_the_softmax_and_perfect_fits_exist() -> None:
    _, labels = PROBLEMS[5].data(0)
    assert set(labels) == {0, 1, 2}
    X, Y = PROBLEMS[6].data(0)
    net = mg.Net(layers=PROBLEMS[6].case.layers, input=X, target=Y)
    assert mg.minimize(net, PROBLEMS[6].start(0), minloss=1e-18, verbosity=0).loss <= 1e-18


@pytest.mark.parametrize("name", solvers.CONTENDERS)
def test_contenders_find_the_minimum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for word, module in NEEDS.items():
        if name.startswith(word):
            pytest.importorskip(module)
    monkeypatch.setattr(solvers.Torch, "compiles", lambda self: "not in tests: it takes ten seconds")
    monkeypatch.setattr(solvers, "ADAM_STEPS", 50)
    X, Y = SMALL.data(0)
    solve = solvers.CONTENDERS[name]().prepare(SMALL)
    start = SMALL.start(0)
    attempt = solve(X, Y, start, GOAL)
    loss, slope = SMALL.value_and_gradient(X, Y, attempt.theta)
    assert attempt.seconds > 0
    assert loss < 0.9 * SMALL.value_and_gradient(X, Y, start)[0]
    if name == "scikit-learn lbfgs":  # it stops by the decrease of the loss
        assert np.abs(slope).max() < 1e-3
        return
    assert np.abs(slope).max() <= GOAL.gnorm
    if attempt.trace is None:
        early = solve(X, Y, start, solvers.Goal(0.0, 1.01 * loss, 5.0))
        assert loss < SMALL.value_and_gradient(X, Y, early.theta)[0] <= 1.01 * loss
    else:
        assert attempt.trace[-1][2] <= GOAL.gnorm < attempt.trace[0][2]


def test_what_does_not_know_a_loss_is_left_out() -> None:
    pytest.importorskip("sklearn")
    assert solvers.Sklearn().prepare(PROBLEMS[4]) is None


def test_attempts_are_checked_by_hand() -> None:
    X, Y = SMALL.data(0)
    solve = solvers.Ours().prepare(SMALL)
    row = attempts._row(SMALL, 0, "pymlpgf", solve, X, Y, 5.0)
    assert row["gnorm"] <= 1e-9
    assert 0 < row["near"] < 5
    idle = attempts._row(SMALL, 0, "idle", lambda X, Y, start, goal: solvers.Attempt(0.2, start), X, Y, 5.0)
    assert idle["seconds"] is None
    assert idle["near"] is None
    slow = attempts._row(SMALL, 0, "slow", lambda *given: solve(*given)._replace(seconds=6.0), X, Y, 5.0)
    assert slow["seconds"] is None


def row(problem: str, seed: int, contender: str, seconds: float | None, loss: float, near: float | None = None) -> dict:
    return {
        "problem": problem, "overparameterised": False, "seed": seed, "contender": contender, "seconds": seconds,
        "near": near, "spent": seconds or 5.0, "loss": loss, "gnorm": 0.0,
    }  # fmt: skip


ROWS = [
    row("a", 0, "pymlpgf", 0.001, 0.5, near=0.001), row("a", 0, "SciPy BFGS", 0.004, 0.5, near=0.002),
    row("a", 1, "pymlpgf", 0.001, 0.5), row("a", 1, "SciPy BFGS", 0.256, 0.4),
    row("a", 2, "pymlpgf", None, 0.5), row("a", 2, "SciPy BFGS", 1.0, 0.5),
    row("b", 0, "pymlpgf", 0.002, 0.1), row("b", 0, "SciPy BFGS", 0.004, 0.1),
    row("b", 0, "scikit-learn lbfgs", None, 0.2),
]  # fmt: skip


def test_ratios_are_of_seeds_on_which_both_arrive() -> None:
    found = minimum.score(ROWS)
    scipy, ours = found["a"]["SciPy BFGS"], found["a"]["pymlpgf"]
    assert scipy["seconds"] == pytest.approx(32)  # of 4 and 256
    assert scipy["near"] == pytest.approx(2)
    assert (scipy["arrived"], scipy["attempts"], scipy["lowest"]) == (3, 3, 3)
    assert (ours["arrived"], ours["lowest"], ours["failed"]) == (2, 2, [2])
    assert minimum.overall(found, "SciPy BFGS") == pytest.approx(8)  # of 32 and 2


def test_missed_goals_tables_and_figure(tmp_path: Path) -> None:
    found = minimum.score(ROWS)
    assert minimum.missed(found) == [
        "SciPy BFGS: ×8 in the geometric mean, goal ×20",
        "a: seed 2 fails, but not with SciPy BFGS",
        "b: ×2 of SciPy BFGS, goal ×5",
    ]
    processes = [{"contender": "pymlpgf", "turn": t, "cpu": 1.5 + t, "wall": 2.0 + t, "gnorm": 3e-10} for t in (0, 1)]
    text = minimum.tables(ROWS + processes)
    assert "| a | 1 (1) | 32 | – |" in text
    assert "| b | 2 (2) | 2 | none |" in text
    assert "| a | 2 of 3 (2) | 3 of 3 (3) | – |" in text
    assert "| pymlpgf | 1.50 | 2.00 | 3e-10 |" in text
    figure = pytest.importorskip("pymlpgf.commands.bench.figure")
    path = figure.draw_minimum(found, "pymlpgf", minimum.overall, tmp_path / "m.png")
    assert path.stat().st_size > 10_000
