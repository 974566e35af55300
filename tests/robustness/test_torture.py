"""Problems that numbers barely hold: each run ends in time with a truthful status, and NaN is never called success."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import pymlpgf as mg
from pymlpgf.solve.options import FLOW_ALGORITHMS, OPTIM_SOLVERS

RNG = np.random.default_rng(11)
X = RNG.normal(size=(30, 2))
Y = np.sin(X[:, 0])
TANH = [(3, "tanh", True), (1, "identity", True)]
LINEAR = [(1, "identity", False)]


def net(x: np.ndarray, y: np.ndarray, layers: list[tuple[int, str, bool]] = TANH) -> mg.Net:
    return mg.Net(layers=layers, input=x, target=y)


def dead() -> tuple[mg.Net, np.ndarray]:
    """Every relu off on every sample."""
    relus = net(X, Y, [(4, "relu", True), (1, "identity", True)])
    p = relus.random_params(seed=0)
    p["b1"][:] = -100
    return relus, p.flat


def start(problem: mg.Net, scale: float = 1.0) -> tuple[mg.Net, np.ndarray]:
    return problem, scale * problem.random_params(seed=1).flat


#: name -> (net, initial parameters)
PROBLEMS = {
    "targets of 1e150": lambda: start(net(X, 1e150 * Y)),
    "targets of 1e-150": lambda: start(net(X, 1e-150 * Y)),
    "targets whose squares overflow": lambda: start(net(X, 1e200 * Y)),
    "constant inputs": lambda: start(net(np.ones_like(X), Y)),
    "inputs of zero": lambda: start(net(np.zeros_like(X), Y)),
    "duplicate samples": lambda: start(net(np.repeat(X[:3], 10, axis=0), np.repeat(Y[:3], 10))),
    "collinear features": lambda: start(net(np.outer(X[:, 0], [1.0, 2.0, -1.0]), Y)),
    "dead relus": dead,
    "weights of 1e300": lambda: start(net(X, Y), 1e300),
    "weights of 1e-300": lambda: start(net(X, Y), 1e-300),
    "fewer samples than parameters": lambda: start(net(X[:2], Y[:2])),
    "one sample": lambda: start(net(X[:1], Y[:1])),
    "condition 1e16": lambda: start(net(X * [1.0, 1e-8], X @ [1.0, 1.0], LINEAR)),
    "condition 1e32": lambda: start(net(X * [1e8, 1e-8], X @ [1.0, 1.0], LINEAR)),
    "exponentials": lambda: start(net(X, Y, [(3, "exp", True), (1, "identity", True)]), 30.0),
}


@pytest.fixture(scope="module", params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> tuple[mg.Net, np.ndarray]:
    return PROBLEMS[request.param]()


def truthful(problem: mg.Net, p: np.ndarray, result: mg.TrainResult) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, after = problem.loss(p), problem.loss(result.x)
    assert np.isfinite(result.x).all()
    assert result.total_time < 5
    if np.isfinite(before):
        assert np.isfinite(result.loss)
        assert result.loss == pytest.approx(after, rel=1e-12, abs=0) or result.loss == after
        assert result.loss <= before * (1 + 1e-10) + 1e-300
    else:
        assert "diverged" in (result.ode_stopped_by, result.optim_stopped_by) or np.isfinite(result.loss)
    if result.success:
        assert np.isfinite([result.loss, result.gnorm]).all()
    assert not (result.converged and np.isnan(result.gnorm))


@pytest.mark.parametrize("alg", FLOW_ALGORITHMS)
def test_flow(problem: tuple[mg.Net, np.ndarray], alg: str) -> None:
    truthful(*problem, mg.flow(*problem, alg=alg, maxtime_ode=0.15, maxiterations_ode=200, verbosity=0))


@pytest.mark.parametrize("solver", OPTIM_SOLVERS)
def test_minimize(problem: tuple[mg.Net, np.ndarray], solver: str) -> None:
    options = {"optim_solver": solver, "maxtime_optim": 0.15, "maxiterations_optim": 200}
    if solver == "VariableProjection" and len(problem[0].layers) == 1:
        with pytest.raises(mg.InputError, match="choose another optim_solver"):
            mg.minimize(*problem, **options, verbosity=0)
        return
    truthful(*problem, mg.minimize(*problem, **options, verbosity=0))


def test_classify() -> None:
    assert mg.classify(*start(net(X, Y), 1e-300)).kind != "minimum"
    with pytest.raises(mg.InputError, match="not finite here"):
        mg.classify(*start(net(X, Y), 1e300))


def test_nothing_asked_for() -> None:
    with pytest.raises(mg.InputError, match="width"):
        mg.Net(layers=[(0, "tanh", True), (1, "identity", True)], input=X, target=Y)
    with pytest.raises(mg.InputError):
        mg.Net(layers=TANH, input=X[:0], target=Y[:0])
    with pytest.raises(mg.InputError):
        mg.Net(layers=TANH, input=X[:, :0], target=Y)
    with pytest.raises(mg.InputError):
        mg.Net(layers=[], input=X, target=Y)
