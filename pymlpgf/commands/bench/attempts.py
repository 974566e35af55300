"""One process of the time to a minimum: seed by seed and problem by problem, every contender in turn.

Its argument is JSON, its output a JSON object a line: a row for each problem, seed and contender, or a note.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .problems import PROBLEMS, Problem
from .solvers import CONTENDERS, Attempt, Goal, available

GNORM = 1e-9
NEAR = 1e-12  # of the loss to that of the end
REPEATS = 3  # of what takes less than 0.1 s


def main(settings: dict[str, Any]) -> None:
    """Print a row for each attempt that is not among those done; with the name of one contender, do that alone."""
    if settings["cores"]:
        os.sched_setaffinity(0, settings["cores"])
    if "contender" in settings:
        alone(settings["contender"], PROBLEMS[settings["problem"]])
        return
    done = {tuple(key) for key in settings["done"]}
    found = available(lambda text: print(json.dumps({"note": text}), flush=True))
    prepared: dict[tuple[str, str], Any] = {}
    for seed in range(settings["seeds"]):
        for problem in (PROBLEMS[i] for i in settings["problems"]):
            X, Y = problem.data(seed)
            wanted = [contender for contender in found if (problem.name, seed, contender.name) not in done]
            rows = []
            for contender in wanted:
                key = (problem.name, contender.name)
                if key not in prepared:
                    prepared[key] = contender.prepare(problem)
                    if prepared[key] is not None:  # compile
                        prepared[key](X, Y, problem.start(seed), Goal(GNORM, -np.inf, settings["limit"]))
                        prepared[key](X, Y, problem.start(seed), Goal(0.0, 1e300, settings["limit"]))
                if prepared[key] is not None:
                    rows.append(_row(problem, seed, contender.name, prepared[key], X, Y, settings["limit"]))
            for row in rows:
                print(json.dumps(row), flush=True)


def _row(
    problem: Problem, seed: int, name: str, solve: Callable[..., Attempt], X: np.ndarray, Y: np.ndarray, limit: float
) -> dict[str, Any]:
    """Seconds to a small gradient, and to a loss next to that of the end; nothing for what was not reached in time."""
    start = problem.start(seed)
    attempt = _shortest(lambda: solve(X, Y, start, Goal(GNORM, -np.inf, limit)))
    loss, slope = problem.value_and_gradient(X, Y, attempt.theta)
    gnorm = float(np.abs(slope).max())
    # rounding of another order of sums
    arrived = gnorm <= 1.001 * GNORM and attempt.seconds <= limit
    # the end of a perfect fit is zero
    goal = (0.0 if problem.overparameterised and loss < NEAR else loss) + NEAR
    near = None
    if attempt.trace is not None:
        near = next((seconds for seconds, value, _ in attempt.trace if value <= goal), None)
    elif arrived and name != "scikit-learn lbfgs":
        again = _shortest(lambda: solve(X, Y, start, Goal(0.0, goal, limit)))
        near = again.seconds if again.seconds <= limit else None
    return {
        "problem": problem.name, "overparameterised": problem.overparameterised, "seed": seed, "contender": name,
        "seconds": attempt.seconds if arrived else None, "near": near if arrived else None, "spent": attempt.seconds,
        "loss": loss, "gnorm": gnorm,
    }  # fmt: skip


def _shortest(run: Callable[[], Attempt]) -> Attempt:
    best = run()
    for _ in range(REPEATS - 1):
        if best.seconds < 0.1:
            best = min(best, run(), key=lambda attempt: attempt.seconds)
    return best


def alone(name: str, problem: Problem) -> None:
    """One minimum, in a process that does nothing else."""
    X, Y = problem.data(0)
    solve = CONTENDERS[name]().prepare(problem)
    attempt = solve(X, Y, problem.start(0), Goal(GNORM, -np.inf, 20.0))
    gnorm = float(np.abs(problem.value_and_gradient(X, Y, attempt.theta)[1]).max())
    print(json.dumps({"contender": name, "gnorm": gnorm}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
