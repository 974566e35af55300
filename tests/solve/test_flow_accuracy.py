"""The flow of the 33-parameter student against SciPy's Radau at 1e-12, method by method and tolerance by tolerance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import pymlpgf as mg
from pymlpgf.solve.options import FLOW_ALGORITHMS

TIMES = (1.0, 10.0, 100.0)


@pytest.fixture(scope="module")
def problem():
    """2 inputs, 8 softplus units, biases; a teacher of 4 units; N = 60."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    teacher = mg.Net(layers=[(4, "softplus", True), (1, "identity", True)], input=X, target=np.zeros(60))
    y = teacher(np.random.default_rng(7).normal(size=teacher.n_params))
    net = mg.Net(layers=[(8, "softplus", True), (1, "identity", True)], input=X, target=y)
    assert net.n_params == 33
    start = net.random_params(seed=3).flat
    reference = solve_ivp(
        lambda t, x: -net.gradient(x), (0, TIMES[-1]), start, method="Radau", rtol=1e-12, atol=1e-12,
        jac=lambda t, x: -net.hessian(x), t_eval=TIMES,
    ).y  # fmt: skip
    return net, start, dict(zip(TIMES, reference.T, strict=True))


def distance(problem, alg, tol, T):
    net, start, reference = problem
    x = mg.flow(net, start, alg=alg, maxT=T, abstol=tol, reltol=tol).x
    return np.linalg.norm(x - reference[T]) / np.linalg.norm(reference[T])


# (algorithm, largest distance in units of the tolerance, least exponent of the tolerance that it falls with).
# TRBDF2 is of order 2 with an error estimate of order 3.
METHODS = [
    ("Tsit5", 5, 0.7), ("RK4", 20, 0.7), ("Rodas5P", 5, 0.75), ("QNDF", 60, 0.65), ("Exprb53s3", 5, 0.75),
    ("ExpAdams", 5, 0.75),
]  # fmt: skip


@pytest.mark.parametrize("T", TIMES)
@pytest.mark.parametrize(("alg", "bound", "exponent"), METHODS)
def test_error_is_proportional_to_the_tolerance(problem, alg, bound, exponent, T):
    tolerances = np.array([1e-5, 1e-7, 1e-9])
    errors = np.array([distance(problem, alg, tol, T) for tol in tolerances])
    assert (errors < bound * tolerances).all()
    # Where stability, not the tolerance, sets the step the error is far below it and need not fall.
    if errors[0] > 0.01 * tolerances[0]:
        assert np.log(errors[0] / errors[-1]) / np.log(tolerances[0] / tolerances[-1]) > exponent


@pytest.mark.parametrize("T", TIMES)
def test_trbdf2(problem, T):
    errors = np.array([distance(problem, "TRBDF2", tol, T) for tol in (1e-4, 1e-7)])
    assert errors[1] < 2e-5
    assert np.log10(errors[0] / errors[1]) > 1.3


@pytest.mark.parametrize("T", TIMES)
@pytest.mark.parametrize("alg", ["Rodas5P", "QNDF"])
def test_stiff_methods_at_1e8(problem, alg, T):
    assert distance(problem, alg, 1e-8, T) < 1e-6


@pytest.mark.parametrize("alg", FLOW_ALGORITHMS)
def test_dense_output_and_what_ran(problem, alg):
    net, start, reference = problem
    res = mg.flow(net, start, alg=alg, maxT=10, abstol=1e-7, reltol=1e-7, dense=True)
    bound = 1e-4 if alg == "TRBDF2" else 2e-5
    assert np.linalg.norm(res.sol(1.0) - reference[1.0]) < bound
    assert res.alg.startswith("Tsit5" if alg == "auto" else alg)
    assert res.loss == pytest.approx(net.loss(res.x), rel=1e-13)
    np.testing.assert_allclose(res.sol(10.0), res.x, rtol=1e-13, atol=1e-13)


def test_large_nets_need_no_hessian():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(20, 2))
    net = mg.Net(layers=[(300, "softplus", True), (1, "identity", True)], input=X, target=np.sin(X[:, 0]))
    start = net.random_params(seed=0)
    exact = mg.flow(net, start, alg="Tsit5", maxT=0.5, abstol=1e-10, reltol=1e-10).x
    for alg in ("QNDF", "TRBDF2"):
        res = mg.flow(net, start, alg=alg, maxT=0.5)
        assert res.nhev == 0
        assert np.linalg.norm(res.x - exact) < 1e-4 * np.linalg.norm(exact)


class Relu:
    """A net of relu units of two inputs, and its gradient in NumPy."""

    def __init__(self, widths, bias):
        rng = np.random.default_rng(1)
        self.X, self.bias, self.widths = rng.normal(size=(40, 2)), bias, [2, *widths, 1]
        self.y = np.sin(3 * self.X[:, :1])
        layers = [*((width, "relu", bias) for width in widths), (1, "identity", bias)]
        self.net = mg.Net(layers=layers, input=self.X, target=self.y)
        self.start = self.net.random_params(seed=3).flat

    def gradient(self, x):
        at, layers, values = 0, [], [self.X]
        for n, m in zip(self.widths, self.widths[1:], strict=False):
            W, at = x[at : at + m * n].reshape(m, n), at + m * n
            b, at = (x[at : at + m], at + m) if self.bias else (np.zeros(m), at)
            layers.append(W)
            values.append(values[-1] @ W.T + b)
            if len(layers) < len(self.widths) - 1:
                np.maximum(values[-1], 0, out=values[-1])
        delta, parts = 2 / len(self.X) * (values[-1] - self.y), []
        for W, before in zip(layers[::-1], values[-2::-1], strict=True):
            parts += [delta.sum(0)] if self.bias else []
            parts.append((delta.T @ before).ravel())
            delta = delta @ W * (before > 0)
        return np.concatenate(parts[::-1])

    def tiny_steps(self, T, m):
        x, h = self.start.copy(), T / m
        for _ in range(m):
            x -= h * self.gradient(x - h / 2 * self.gradient(x))
        return x


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("widths", [(10, 10), (8,)])
def test_relu_nets_cross_kinks_and_slide_along_them(widths, bias):
    relu = Relu(widths, bias)
    np.testing.assert_allclose(relu.gradient(relu.start), relu.net.gradient(relu.start), rtol=1e-12, atol=1e-14)
    reference = relu.tiny_steps(3.0, 30_000)
    for alg, bound in [("auto", 2e-5), ("Tsit5", 2e-5), ("Rodas5P", 2e-5), ("TRBDF2", 1e-4), ("QNDF", 1e-4)]:
        x = mg.flow(relu.net, relu.start, alg=alg, maxT=3.0).x
        assert np.linalg.norm(x - reference) / np.linalg.norm(reference) < bound, alg
    steps = {alg: mg.flow(relu.net, relu.start, alg=alg, maxT=10.0) for alg in ("auto", "Tsit5", "Rodas5P", "QNDF")}
    assert all(res.trajectory.t[-1] == 10.0 for res in steps.values())
    # Kinks were once taken for stiffness: some ten thousand steps, each as dear as twenty of Tsit5.
    assert steps["auto"].ode_iterations <= 2 * min(res.ode_iterations for res in steps.values()) < 600
