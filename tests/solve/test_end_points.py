"""What "roundoff" claims of a minimiser's end point: nobody gets on from there. Each is handed to all the others."""

import numpy as np
import pytest
from scipy.optimize import minimize as scipy_minimize

import pymlpgf as mg

SOLVERS = ("auto", "NewtonLBFGS", "NewtonTrustRegion", "LevenbergMarquardt", "Newton", "BFGS", "LBFGS", "NewtonKrylov")
ITERATIONS = 300  # for whoever tries to get on


def _noisy(dtype):
    """Noise in the targets; a loss that was low by rounding blocked the line search here."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    Y = np.tanh(X[:, 0] - X[:, 1]) + 0.1 * rng.normal(size=60)
    return mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=X, target=Y, dtype=dtype)


def _sine(dtype):
    """More parameters than samples: a long flat valley."""
    X = np.random.default_rng(1).normal(size=(40, 2))
    return mg.Net(layers=[(10, "tanh", True), (1, "identity", True)], input=X, target=np.sin(3 * X[:, 0]), dtype=dtype)


def _labels(dtype):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(100, 3))
    labels = (rng.random(100) < 1 / (1 + np.exp(-2 * X[:, 0] + X[:, 1] ** 2))).astype(int)
    layers = [(3, "sigmoid", True), (2, "softmax", True)]
    return mg.Net(layers=layers, input=X, target=labels, loss="nll", l2=1e-3, dtype=dtype)


def _deep(dtype):
    rng = np.random.default_rng(4)
    X = rng.normal(size=(80, 2))
    Y = np.cos(2 * X[:, :1]) * X[:, 1:] + 0.05 * rng.normal(size=(80, 1))
    layers = [(4, "sigmoid", True), (3, "tanh", True), (1, "identity", False)]
    return mg.Net(layers=layers, input=X, target=Y, l2=1e-4, dtype=dtype)


def _rounding(net, x):
    """How much the gradient's largest component and the loss change when parameters change by their last bit."""
    rng = np.random.default_rng(0)
    x = np.asarray(x, net.dtype)
    loss, gradient = net.value_and_gradient(x)
    losses, gradients = [], []
    for _ in range(20):
        moved = np.nextafter(x, rng.choice([-np.inf, np.inf], size=x.size).astype(net.dtype))
        value, slope = net.value_and_gradient(moved)
        losses.append(abs(value - loss))
        gradients.append(np.abs(slope - gradient).max())
    return max(losses), max(gradients)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("problem", [_noisy, _sine, _labels, _deep])
def test_nobody_gets_on_from_roundoff(problem, solver, dtype):
    net = problem(dtype)
    res = mg.minimize(
        net, net.random_params(seed=10), optim_solver=solver, maxtime_optim=10, maxiterations_optim=20_000
    )
    assert res.optim_stopped_by in ("roundoff", "patience", "maxiterations", "maxtime")
    if problem in (_labels, _deep):  # the minimum is a point there
        assert res.optim_stopped_by == "roundoff"
    if res.optim_stopped_by != "roundoff":
        assert not res.converged
        return
    loss_rounding, gradient_rounding = _rounding(net, res.x)
    eps = float(np.finfo(dtype).eps)
    loss_rounding = max(loss_rounding, 32 * eps * res.loss, 4 * eps * np.sqrt(res.loss))
    ends = {}
    for other in SOLVERS:
        end = mg.minimize(net, res.x, optim_solver=other, maxiterations_optim=ITERATIONS, maxtime_optim=5)
        ends[other] = (end.loss, end.gnorm)
    if dtype == "float64":
        end = scipy_minimize(
            net.loss,
            res.x,
            jac=net.gradient,
            hess=net.hessian,
            method="trust-exact",
            options={"gtol": 0, "maxiter": 300},
        )
        ends["SciPy"] = (end.fun, np.abs(net.gradient(end.x)).max())
    for other, (loss, gnorm) in ends.items():
        assert loss > res.loss - loss_rounding, other
        assert 10 * max(gnorm, gradient_rounding) > res.gnorm, other


@pytest.mark.parametrize("seed", [0, 10])
def test_newton_is_not_stopped_by_a_loss_that_is_low_by_rounding(seed):
    net = _noisy("float64")
    res = mg.minimize(net, net.random_params(seed=seed), optim_solver="Newton")
    assert res.gnorm < 1e-10  # it said "roundoff" at 4e-7


@pytest.mark.parametrize("solver", ["BFGS", "LBFGS"])
def test_quasi_newton_methods_in_float32_follow_the_valley(solver):
    net = _sine("float32")
    for seed in (0, 1, 2):
        p = net.random_params(seed=seed)
        res = mg.minimize(net, p, optim_solver=solver, maxtime_optim=10)
        other = mg.minimize(net, res.x, optim_solver="NewtonTrustRegion", maxtime_optim=10)
        assert res.optim_stopped_by != "roundoff" or other.loss > 0.5 * res.loss


@pytest.mark.parametrize("seed", [10, 11, 12, 13])
def test_rounding_of_the_loss_is_not_progress(seed):
    net = _deep("float64")
    res = mg.minimize(net, net.random_params(seed=seed), optim_solver="BFGS", maxiterations_optim=20_000)
    assert res.optim_stopped_by == "roundoff"
    assert res.optim_iterations < 4000  # a loss that went up and down by its last digits kept it going, for 13 000
