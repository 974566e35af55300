"""Fixed points of known kind; the mathematics is tested in julia/test/landscape_tests.jl."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from scipy.optimize import brentq, least_squares

import pymlpgf as mg
from pymlpgf import InputError

TRUTH = [1.0, -0.5, 0.3, 0.8, 0.2, -0.4, 1.2, -0.7, 0.1]


@pytest.fixture(scope="module")
def problem():
    """A minimum with positive loss."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 2))
    layers = [(2, "tanh", True), (1, "identity", True)]
    teacher = mg.TeacherNet(layers=layers, params=TRUTH, n_features=2)
    net = mg.Net(layers=layers, input=X, target=teacher(X)[:, 0] + 0.1 * rng.normal(size=300))
    return net, mg.minimize(net, teacher.params)


def test_minimum(problem):
    net, res = problem
    for p in (res, res.x, net.params(res.x)):
        c = mg.classify(net, p)
        assert (c.kind, c.index, c.nullity, c.direction) == ("minimum", 0, 0, None)
    np.testing.assert_allclose(c.eigenvalues, np.linalg.eigvalsh(net.hessian(res.x)), atol=1e-13)
    assert c.loss == res.loss
    assert 0 < c.tolerance < c.eigenvalues[0]
    assert repr(c).startswith("Classification(minimum; loss=")


def test_not_a_fixed_point(problem):
    net, _ = problem
    c = mg.classify(net, net.random_params(seed=0))
    assert c.kind == "not a fixed point"
    assert "minimize or polish first" in str(c)
    assert c.displacement > c.displacement_tolerance or c.gnorm > c.gradient_tolerance


def test_split_neurons_lie_on_a_line_of_saddles(problem):
    net, res = problem
    wide, _ = mg.grow_net(net, res)
    p = mg.split_neuron(net.params(res.x), 1, 0.3)
    c = mg.classify(wide, p)
    assert (c.kind, c.nullity, c.unexplained) == ("saddle", 1, 0)
    assert c.index == (np.linalg.eigvalsh(wide.hessian(p)) < -1e-10).sum() > 0
    (reason,) = c.explanations
    assert (reason.label, reason.layer, reason.units, reason.count) == ("duplicate units", 0, (1, 2), 1)
    assert "units 1 and 2 of layer 0" in str(c)
    np.testing.assert_allclose(wide.hvp(p, c.direction), c.eigenvalues[0] * c.direction, atol=1e-12)


def test_dead_relu_and_scales():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2))
    y = np.maximum(X[:, 0] + 0.5, 0) + 0.1 * rng.normal(size=200)
    net = mg.Net(layers=[(1, "relu", True), (1, "identity", True)], input=X, target=y)
    res = mg.minimize(net, [1.0, 0.0, 0.5, 1.0, 0.0])
    c = mg.classify(net, res)
    assert (c.kind, c.nullity, [e.label for e in c.explanations]) == ("degenerate", 1, ["scale of a unit"])
    wide, p = mg.grow_net(net, res, incoming=[0.0, 0.0, -1.0])
    c = mg.classify(wide, p)
    assert (c.kind, c.nullity, c.unexplained) == ("degenerate", 5, 0)
    assert {e.label: e.count for e in c.explanations} == {"dead unit": 4, "scale of a unit": 1}


@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_lines_of_minima_under_decay(activation):
    """A unit (w, b, a) as two, c (w, b, a) and s (w, b, a) with c² + s² = 1: the same function and norm."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = np.maximum(X @ [1.0, 0.5] + 0.2, 0) + 0.05 * rng.normal(size=60)
    data = {"input": X, "target": y, "l2": 0.02}
    one = mg.Net(layers=[(1, activation, True), (1, "identity", True)], **data)
    res = mg.minimize(one, [1.0, 0.5, 0.1, 1.0, 0.0])
    assert mg.classify(one, res).kind == "minimum"
    two = mg.Net(layers=[(2, activation, True), (1, "identity", True)], **data)
    w, b, a, d = res.x[:2], res.x[2], res.x[3], res.x[4]
    for angle in (0.2, 0.8, 1.3):
        c, s = np.cos(angle), np.sin(angle)
        p = np.array([*c * w, *s * w, c * b, s * b, c * a, s * a, d])
        assert abs(two.loss(p) - res.loss) < 1e-15
        assert np.abs(two.gradient(p)).max() < 1e-14
        found = mg.classify(two, p)
        assert (found.kind, found.index, found.nullity, found.unexplained) == ("degenerate", 0, 1, 0)
        assert [(e.label, e.units) for e in found.explanations] == [("turn of units", (0, 1))]


def test_weights_without_bound():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 2))
    labels = (X[:, 0] > 0).astype(int)
    net = mg.Net(layers=[(2, "softmax", True)], input=X, target=labels, loss="nll")
    res = mg.flow(net, net.random_params(seed=0), maxT=1e4)
    c = mg.classify(net, res)
    assert c.kind == "escaping"
    assert np.linalg.norm(c.direction) == pytest.approx(1)
    assert net.loss(res.x + 100 * c.direction) < net.loss(res.x + 10 * c.direction) < res.loss
    labels[:5] = 1 - labels[:5]
    mixed = mg.Net(layers=[(2, "softmax", True)], input=X, target=labels, loss="nll")
    c = mg.classify(mixed, mg.minimize(mixed, np.zeros(6)))
    assert (c.kind, [(e.label, e.count) for e in c.explanations]) == ("degenerate", [("softmax shift", 3)])


def test_smallest_net():
    net = mg.Net(layers=[(1, "tanh", False), (1, "identity", False)], input=[[1.0]], target=[0.5])
    c = mg.classify(net, [np.arctanh(0.5), 1.0])  # one equation, two parameters
    assert (c.kind, c.nullity, c.unexplained) == ("degenerate", 1, 0)
    assert c.explanations[0].label == "interpolation"


def test_gradient_tolerance_of_the_user():
    # L = (1 - ab)² off the minimum by an amount that only a loose tolerance forgives
    net = mg.Net(layers=[(1, "identity", False), (1, "identity", False)], input=[[1.0]], target=[1.0], l2=1e-9)
    assert mg.classify(net, [2.0, 0.5]).kind == "not a fixed point"
    assert mg.classify(net, [2.0, 0.5], gradient_tolerance=1e-6).kind == "degenerate"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, p: mg.classify("net", p), "pymlpgf.Net is needed"),
        (lambda net, p: mg.classify(net, p[:-1]), "this net has 9 parameters"),
        (lambda net, p: mg.classify(net, p * np.nan), "p contains NaN"),
        (lambda net, p: mg.classify(net, p, gradient_tolerance=-1), "gradient_tolerance is -1"),
        (lambda net, p: mg.polish(net, p, digits=1), "digits is 1"),
        (lambda net, p: mg.polish(net, p, maxtime="long"), "maxtime is 'long'"),
    ],
)
def test_bad_input(problem, call, message):
    net, res = problem
    with pytest.raises(InputError, match=message):
        call(net, res.x)


def test_infinite_data_are_not_polished():
    teacher = mg.TeacherNet(layers=[(1, "normal_cdf", False), (1, "identity", False)], n_features=2, seed=0)
    net = mg.InfiniteNet(teacher, teacher.net.layers)
    p = net.random_params(0)
    for given in (net, mg.ConstrainedNet(net, p, freeze=[0])):
        with pytest.raises(InputError, match="polish needs a Net with data"):
            mg.polish(given, p)


def test_polish_against_a_closed_form():
    # dL/dθ = 0 for L = ((exp θ - 1)² + (exp 2θ - 2)²)/2: with u = exp θ, 2u³ - 3u - 1 = 0, so u = (1 + √3)/2.
    net = mg.Net(layers=[(1, "exp", False)], input=[[1.0], [2.0]], target=[1.0, 2.0])
    res = mg.polish(net, [0.3], digits=40)
    exact = ((1 + Decimal(3).sqrt()) / 2).ln()
    assert res.converged
    assert abs(res.digits[0] - exact) < Decimal("1e-26")  # Decimal's own 28 digits
    assert res.x[0] == pytest.approx(brentq(lambda t: 2 * np.exp(3 * t) - 3 * np.exp(t) - 1, 0, 1), rel=1e-12)
    assert res.gnorm < Decimal("1e-38")


def test_polish_keeps_to_a_saddle(problem):
    net, res = problem
    fine = mg.polish(net, res, digits=40)
    assert fine.converged
    assert fine.gnorm < Decimal("1e-38")
    np.testing.assert_allclose(fine.x, res.x, atol=1e-12)
    wide, _ = mg.grow_net(net, res)
    saddle = mg.polish(wide, mg.split_neuron(net.params(res.x), 0, 0.5), digits=40)
    assert saddle.converged
    assert abs(saddle.loss - fine.loss) < Decimal("1e-26")
    rough = mg.polish(net, net.random_params(seed=1), maxiterations=2)
    assert (rough.converged, rough.stopped_by) == (False, "maxiterations")


def _limit_loss(f, z, y):
    """The lowest loss of a limit network, found by SciPy."""
    fit = least_squares(lambda z: f(z) - y, z, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return np.mean(fit.fun**2)


def _affine(z, X):
    return X @ z[:2] + z[2]


def _report():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = np.tanh(X[:, 0] - X[:, 1]) + 0.1 * rng.normal(size=60)
    return X, y, mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=X, target=y)


def _escaping(net, res, label):
    c = mg.classify(net, res)
    assert c.kind == "escaping"
    assert [e.label for e in c.explanations] == [label]
    assert "at infinity" in str(c)
    assert c.unexplained == 0
    p = net.params(res)
    incoming = np.hstack([p.weights[0], p.biases[0][:, None]])
    return list(c.explanations[0].units), incoming, p.weights[1][0], p.biases[1][0]


def test_unit_that_acts_by_its_exponential_tail():
    X, y, net = _report()
    res = mg.minimize(net, net.random_params(seed=0), optim_solver="NewtonTrustRegion")
    (tail,), V, a, c = _escaping(net, res, "tail unit")
    other, s = 1 - tail, np.sign(V[tail, 2])  # tanh(h) → s (1 - 2 exp(-2 s h))
    z = np.r_[V[other], a[other], V[tail, :2], -2 * s * a[tail] * np.exp(-2 * s * V[tail, 2]), c + s * a[tail]]

    def limit(z):
        return z[3] * np.tanh(_affine(z, X)) + z[6] * np.exp(-2 * s * (X @ z[4:6])) + z[7]

    lowest = _limit_loss(limit, z, y)
    assert lowest < res.loss < lowest * (1 + 1e-6)


def test_unit_that_becomes_a_step():
    X, y, net = _report()
    res = mg.minimize(net, net.random_params(seed=10), optim_solver="BFGS")
    (step,), V, a, c = _escaping(net, res, "step unit")
    other, h = 1 - step, _affine(V[step], X)
    near = np.argmin(np.abs(h))  # this sample may lie on the step itself
    z = np.r_[V[other], a[other], a[step], np.tanh(h[near]), c]

    def limit(z):
        sides = np.sign(h)
        sides[near] = z[5]
        return z[3] * np.tanh(_affine(z, X)) + z[4] * sides + z[6]

    lowest = _limit_loss(limit, z, y)
    assert lowest <= res.loss * (1 + 1e-12)
    assert res.loss < lowest * (1 + 1e-9)


def test_pair_that_becomes_a_derivative():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(80, 2))
    y = np.cos(2 * X[:, 0]) * X[:, 1] + 0.05 * rng.normal(size=80)
    net = mg.Net(layers=[(3, "tanh", True), (1, "identity", True)], input=X, target=y)
    ends = [mg.minimize(net, net.random_params(seed=seed)) for seed in range(8)]
    pairs = [r for r in ends if [e.label for e in mg.classify(net, r).explanations] == ["diverging pair"]]
    assert pairs
    for res in pairs:
        (i, j), V, a, c = _escaping(net, res, "diverging pair")
        sign = np.sign(V[i] @ V[j])  # odd units merge up to the sign
        V[j], a[j] = sign * V[j], sign * a[j]
        k = 3 - i - j
        z = np.r_[(V[i] + V[j]) / 2, a[i] + a[j], (V[i] - V[j]) * (a[i] - a[j]) / 2, V[k], a[k], c]

        def limit(z):
            t = np.tanh(_affine(z, X))
            return z[3] * t + _affine(z[4:], X) * (1 - t**2) + z[10] * np.tanh(_affine(z[7:], X)) + z[11]

        lowest = _limit_loss(limit, z, y)
        assert lowest < res.loss < lowest * (1 + 1e-2)
