"""Branches of critical points: closed forms, polynomials' roots, and SciPy's root solves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import brentq, minimize, root

import pymlpgf as mg
from pymlpgf import InputError

CUBIC = mg.Poly(0, -1, 0, 1 / 3)  # f = w³/3 - w, with f′ = w² - 1


def _quiet(*args, **options) -> mg.Followed:
    found = mg.follow(*args, verbosity=0, **options)
    assert found.finished
    return found


def _scalar(target, l2=0.0):
    """L = (f(w) - y)² + (l2/2) w² of one weight."""
    return mg.Net(layers=[(1, CUBIC, False)], input=[[1.0]], target=[target], l2=l2)


@pytest.fixture(scope="module")
def regression():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 2))
    y = np.tanh(X[:, 0] + X[:, 1]) - np.tanh(X[:, 0]) + 0.1 * rng.normal(size=100)
    net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=X, target=y, l2=1e-3)
    return net, mg.minimize(net, net.random_params(seed=0), verbosity=0)


def test_pitchfork():
    # L = (1 - ab)² + (l2/2)(a² + b²): a = b = 0, with eigenvalues l2 ± 2, and a = b = ±√(1 - l2/2).
    net = mg.Net(layers=[(1, "identity", False)] * 2, input=[[1.0]], target=[1.0])
    found = _quiet(net, [0.0, 0.0], "l2", bounds=(0, 3))
    (point,) = found.points
    assert point.kind == "branch point"
    assert point.converged
    assert point.parameter == pytest.approx(2, abs=1e-12)
    np.testing.assert_allclose(point.x, 0, atol=1e-12)
    np.testing.assert_allclose(np.abs(point.kernel), np.sqrt(0.5), atol=1e-12)
    trunk, *arms = found.branches
    assert (trunk.parameter[0], trunk.parameter[-1]) == (0, 3)
    np.testing.assert_array_equal(trunk.x, 0)
    np.testing.assert_allclose(trunk.eigenvalues, trunk.parameter[:, None] + [-2, 2], atol=1e-14)
    np.testing.assert_array_equal(trunk.index, trunk.parameter < 2 - 1e-9)
    assert sorted(np.sign(arm.x[-1, 0]) for arm in arms) == [-1, 1]
    for arm in arms:
        assert (arm.parent, arm.began, arm.ended) == (0, "branch point", "bounds")
        np.testing.assert_allclose(arm.x**2, np.c_[1 - arm.parameter / 2, 1 - arm.parameter / 2], atol=1e-14)
        assert (arm.index == 0).all()
    # From an arm the same point is met where μ turns back while no eigenvalue changes sign.
    arm = _quiet(net.replace(l2=1.0), np.sqrt([0.5, 0.5]), "l2", bounds=(0.5, 3))
    assert [p.kind for p in arm.points] == ["branch point"]
    assert arm.points[0].parameter == pytest.approx(2, abs=1e-12)
    ends = sorted((round(b.parameter[-1], 9), round(abs(b.x[-1, 0]), 6)) for b in arm.branches)
    assert ends == [(0.5, 0.0), (0.5, round(np.sqrt(0.75), 6)), (3.0, 0.0)]


def test_fold_and_the_roots_of_polynomials():
    # ∇L = 2 (w³/3 - w - y)(w² - 1) + l2 w
    l2 = 0.05
    net = _scalar(-1.0, l2)
    found = _quiet(net, mg.minimize(net, [-2.0], verbosity=0), net.on([[1.0]], [1.0]))
    (fold,) = found.points
    assert fold.kind == "fold"

    def target(w):  # of which w is a critical point
        return w**3 / 3 - w + l2 * w / (w**2 - 1) / 2

    def slope(w):
        return w**2 - 1 - l2 * (w**2 + 1) / (w**2 - 1) ** 2 / 2

    w = brentq(slope, -1.5, -1.1, xtol=1e-14)
    assert fold.x[0] == pytest.approx(w, abs=1e-9)  # a fold is flat: w is known to less than μ
    assert 2 * fold.parameter - 1 == pytest.approx(target(w), abs=1e-12)
    (branch,) = found.branches
    np.testing.assert_allclose(target(branch.x[:, 0]), 2 * branch.parameter - 1, atol=1e-10)
    assert (branch.index == (branch.x[:, 0] > w)).all()
    at_half = np.roots(np.polyadd(2 * np.polymul([1 / 3, 0, -1, 0], [1, 0, -1]), [l2, 0])).real  # y = 0
    half = [
        root(lambda z: net.on([[1.0]], [0.0]).gradient(z), branch.x[k]).x[0]
        for k in np.flatnonzero(np.diff(np.sign(branch.parameter - 0.5)))
    ]
    assert len(half) == 2
    for z in half:
        assert np.abs(at_half - z).min() < 1e-9


def test_branches_that_cross_twice():
    # Without l2: f = y, a cubic that turns back at w = ±1, where the branches w = ±1 cross it.
    net = _scalar(-1.0)
    found = _quiet(net, mg.minimize(net, [-2.0], verbosity=0), net.on([[1.0]], [1.0]))
    assert found.folds == []
    np.testing.assert_allclose(sorted(p.parameter for p in found.branch_points), [1 / 6, 5 / 6], atol=1e-12)
    first, *others = found.branches
    np.testing.assert_allclose(first.x[:, 0] ** 3 / 3 - first.x[:, 0], 2 * first.parameter - 1, atol=1e-12)
    assert first.parameter[-1] == 1
    assert first.x[-1, 0] == pytest.approx(np.roots([1 / 3, 0, -1, -1]).real.max(), abs=1e-12)
    for branch in others:
        np.testing.assert_allclose(np.abs(branch.x), 1, atol=1e-12)
    assert len(others) == 4


def _at(net, to, mu):
    """Gradient and Hessian of the homotopy, from the two nets alone."""

    def gradient(x):
        return (1 - mu) * net.gradient(x) + mu * to.gradient(x)

    def hessian(x):
        return (1 - mu) * net.hessian(x) + mu * to.hessian(x)

    return gradient, hessian


def _others(net):
    X, y, _ = net._core.data
    rng = np.random.default_rng(1)
    teacher = mg.TeacherNet(layers=net.layers, params=rng.normal(size=net.n_params), n_features=2)
    return {
        "weights": net.replace(weights=rng.uniform(0.2, 2, size=len(X))),
        "teacher": net.on(X, teacher(X)),
        "data": net.on(X + 0.3 * rng.normal(size=X.shape), y),
        "l2": net.replace(l2=0.05),
    }


@pytest.mark.parametrize("which", ["weights", "teacher", "data", "l2"])
def test_against_scipy(regression, which):
    net, res = regression
    to = _others(net)[which]
    found = _quiet(net, res, to, max_branches=2, max_points=200)
    branch = found.branches[0]
    np.testing.assert_allclose(branch.x[branch.parameter == 0][0], res.x, atol=1e-12)
    rng = np.random.default_rng(2)
    for k in np.linspace(0, len(branch) - 1, 6).astype(int):
        mu, x = branch.parameter[k], branch.x[k]
        gradient, hessian = _at(net, to, mu)
        assert np.abs(gradient(x)).max() < 1e-13
        solved = root(gradient, x + 1e-4 * rng.normal(size=len(x)), jac=hessian, tol=1e-13)
        np.testing.assert_allclose(solved.x, x, atol=1e-9)
        np.testing.assert_allclose(np.linalg.eigvalsh(hessian(x)), branch.eigenvalues[k], atol=1e-12)
        assert branch.loss[k] == pytest.approx((1 - mu) * net.loss(x) + mu * to.loss(x), rel=1e-12)
    for point in found.points:
        gradient, hessian = _at(net, to, point.parameter)
        assert np.abs(gradient(point.x)).max() < 1e-12
        assert np.abs(np.linalg.eigvalsh(hessian(point.x))).min() < 1e-12
    turns = np.count_nonzero(np.diff(np.sign(np.diff(branch.parameter))))
    assert turns == sum(p.kind == "fold" and p.branch == 0 for p in found.points)


def test_l2_of_a_net(regression):
    net, res = regression
    found = _quiet(net, res, "l2", bounds=(1e-4, 1), max_branches=4)
    assert [p.multiplicity for p in found.branch_points].count(2) == 1
    # Two tanh units become equal up to their signs: a pitchfork, by their exchange. Later both vanish.
    meeting = found.branch_points[0]
    u, b, a = (meeting.x[k] for k in (slice(0, 4), slice(4, 6), slice(6, 8)))
    np.testing.assert_allclose(u[:2], np.sign(u[0] * u[2]) * u[2:], atol=1e-12)
    np.testing.assert_allclose(np.abs(b[0]), np.abs(b[1]), atol=1e-12)
    np.testing.assert_allclose(np.abs(a[0]), np.abs(a[1]), atol=1e-12)
    for branch in found.branches:
        for k in (0, len(branch) // 2, -1):
            at = net.replace(l2=branch.parameter[k])
            assert np.abs(at.gradient(branch.x[k])).max() < 1e-12
            if k != 0 or branch.parent is None:
                assert mg.classify(at, branch.x[k]).index == branch.index[k]
    for point in found.branch_points:
        H = net.replace(l2=point.parameter).hessian(point.x)
        assert np.abs(np.linalg.eigvalsh(H)).min() < 1e-12
        assert np.abs(H @ point.kernel).max() < 1e-12
    frame = found.to_frame()
    assert len(frame) == sum(map(len, found.branches))
    assert frame[frame.branch == 1].parameter.tolist() == found.branches[1].parameter.tolist()
    assert "branch point at" in str(found)


@pytest.mark.parametrize("width", [2, 3])
def test_several_eigenvalues_at_once(width):
    """Equal units are born together: any of them, with any signs, and all that are there are equal."""
    x = np.linspace(-2, 2, 21)
    y = np.tanh(1.5 * x) + 0.3 * x
    net = mg.Net(layers=[(width, "tanh", False), (1, "identity", False)], input=x[:, None], target=y, l2=3)
    birth = 2 * np.mean(x * y)  # L = mean (y - v.tanh(w x))² + l2/2 ‖θ‖² is (l2 ± birth)/4 (v ± w)² and more at 0
    found = _quiet(net, np.zeros(2 * width), "l2", bounds=(0.9 * birth, 3.5), max_branches=50)
    (point,) = found.branch_points
    assert (point.multiplicity, point.converged) == (width, True)
    assert point.parameter == pytest.approx(birth, rel=1e-12)
    signs = {tuple(np.sign(b.x[-1].round(9)).astype(int)[:width]) for b in found.branches[1:]}
    assert signs == {s for s in itertools.product((-1, 0, 1), repeat=width) if any(s)}
    assert len(found.branches) == 3**width
    for branch in found.branches[1:]:
        w, v = np.split(branch.x[-1], 2)
        active = np.abs(w) > 1e-9
        n = active.sum()

        def loss(p, n=n):
            return np.mean((y - n * p[1] * np.tanh(p[0] * x)) ** 2) + 0.45 * birth * n * (p[0] ** 2 + p[1] ** 2)

        one = minimize(loss, [0.3, 0.3], tol=1e-12).x
        np.testing.assert_allclose(np.abs([w[active], v[active]]), np.outer(np.abs(one), np.ones(n)), atol=1e-6)
        assert (branch.index[-1] == 0) == (n == width)


def test_activations(regression):
    net, res = regression
    X, y, _ = net._core.data

    def with_units(*units):
        return mg.Net(layers=[(2, units, True), (1, "identity", True)], input=X, target=y, l2=1e-3)

    to = with_units("x -> x / (1 + x^2)", "softplus")
    end = _quiet(net, res, to, bounds=(0, 0.5)).branches[0]
    assert end.parameter[-1] == 0.5
    half = with_units("x -> (tanh(x) + x / (1 + x^2)) / 2", "x -> (tanh(x) + log(1 + exp(x))) / 2")
    assert np.abs(half.gradient(end.x[-1])).max() < 1e-12
    np.testing.assert_allclose(np.linalg.eigvalsh(half.hessian(end.x[-1])), end.eigenvalues[-1], atol=1e-11)
    through = _quiet(net, res, to).branches[0]
    assert through.parameter[-1] == 1
    assert np.abs(to.gradient(through.x[-1])).max() < 1e-12


def test_a_symmetry_stays_one():
    # L = (y - ab)²: the scale of the unit is free, and one point of each hyperbola ab = y is found.
    net = mg.Net(layers=[(1, "identity", False)] * 2, input=[[1.0]], target=[1.0])
    found = _quiet(net, [2.0, 0.5], net.on([[1.0]], [3.0]))
    assert found.points == []
    (branch,) = found.branches
    np.testing.assert_allclose(branch.x.prod(1), 1 + 2 * branch.parameter, atol=1e-12)
    assert (branch.index == 0).all()
    np.testing.assert_allclose(branch.eigenvalues[:, 0], 0, atol=1e-12)
    np.testing.assert_allclose(branch.eigenvalues[:, 1], 2 * (branch.x**2).sum(1), rtol=1e-12)


def test_infinite_data():
    teacher = mg.TeacherNet(layers=[(1, "tanh", False), (1, "identity", False)], params=[1.0, 0.5, 1.0], n_features=2)
    other = mg.TeacherNet(layers=[(1, "tanh", False), (1, "identity", False)], params=[0.5, 1.0, 2.0], n_features=2)
    nets = [mg.InfiniteNet(t, t.net.layers) for t in (teacher, other)]
    found = _quiet(nets[0], teacher.params, nets[1])
    (branch,) = found.branches
    np.testing.assert_allclose(branch.x[-1], other.params, atol=1e-8)


def test_limits(regression):
    net, res = regression
    few = mg.follow(net, res, "l2", bounds=(1e-4, 0.3), max_points=5, max_branches=1, verbosity=0)
    assert (few.branches[0].began, few.branches[0].ended) == ("max_points", "max_points")
    stopped = mg.follow(net, res, "l2", bounds=(1e-4, 0.3), maxtime=1e-9, verbosity=0)
    assert not stopped.finished
    assert len(stopped.branches) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, p: mg.follow(net, p, "l2"), "bounds of l2"),
        (lambda net, p: mg.follow(net, p, "l3"), "'l3'"),
        (lambda net, p: mg.follow(net, p, "l2", bounds=(1, 0)), "ascend"),
        (lambda net, p: mg.follow(net, p, "l2", bounds=(0.1, 1)), "contain the start"),
        (lambda net, p: mg.follow(net, p + 0.1, "l2", bounds=(0, 1)), "not a fixed point"),
        (lambda net, p: mg.follow(net, p, mg.grow_net(net, p)[0]), "parameters|shapes"),
        (lambda net, p: mg.follow(net, p, net, max_step=0), "max_step"),
        (lambda net, p: mg.follow(net, p, net, max_points=0), "max_points"),
        (lambda net, p: mg.follow(net, p, net, maxtime=0), "maxtime"),
        (
            lambda net, p: mg.follow(net, p, mg.Net([(2, "relu", True), (1, "identity", True)], *net._core.data[:2])),
            "activations and in data or settings",
        ),
        (lambda net, p: mg.follow(mg.Net(net.layers, *net._core.data[:2], dtype="float32"), p, "l2"), "float64"),
    ],
)
def test_bad_input(regression, call, message):
    net, res = regression
    with pytest.raises(InputError, match=message):
        call(net, res.x)
