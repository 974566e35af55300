"""Lines of fixed points on which a unit is split: the criterion against the Hessian of the wide net."""

from __future__ import annotations

import numpy as np
import pytest

import pymlpgf as mg
from pymlpgf import InputError

GAMMAS = np.linspace(-1.5, 2.5, 100)  # none of them is 0 or 1


def _fixed(layers, seed=0, samples=60, **options):
    """A net on the outputs of a teacher and noise, at the minimum near the teacher."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(samples, 2))
    teacher = mg.Net(layers=layers, n_features=2)
    p = rng.normal(size=teacher.n_params)
    clean = teacher(p, X)
    net = mg.Net(layers=layers, input=X, target=clean + 0.1 * rng.normal(size=clean.shape), **options)
    return net, mg.minimize(net, p, maxtime_optim=10, verbosity=0)


@pytest.fixture(scope="module")
def one_output():
    return _fixed([(2, "tanh", True), (1, "identity", True)], seed=2)


@pytest.fixture(scope="module")
def two_outputs():
    return _fixed([(2, "softplus", True), (2, "identity", False)], seed=3)


@pytest.fixture(scope="module")
def deep():
    return _fixed([(2, "tanh", True), (2, ("sigmoid", "tanh"), False), (1, "identity", True)], seed=4)


def _across(line: mg.SaddleLine, gamma: float) -> np.ndarray:
    """The directions (η, B) of Fukumizu and Amari's coordinates as columns in parameter space."""
    wide, layer = line.net.params(np.zeros(line.net.n_params)), line.layer
    columns = []
    for k in range(line.curvature.shape[0]):
        wide.flat[:] = 0
        for unit, part in ((line.unit, 1 - gamma), (line.copy, -gamma)):
            fan_in = wide.weights[layer].shape[1]
            if k < fan_in:
                wide.weights[layer][unit, k] = part
            else:
                wide.biases[layer][unit] = part
        columns.append(wide.flat.copy())
    for o in range(line.coupling.shape[0]):
        wide.flat[:] = 0
        wide.weights[layer + 1][o, line.unit], wide.weights[layer + 1][o, line.copy] = 1, -1
        columns.append(wide.flat.copy())
    return np.array(columns).T


CASES = [("one_output", 0, 0), ("one_output", 0, 1), ("two_outputs", 0, 1), ("deep", 0, 0), ("deep", 1, 0)]


@pytest.mark.parametrize(("which", "layer", "unit"), CASES)
def test_criterion(which, layer, unit, request):
    net, res = request.getfixturevalue(which)
    line = mg.saddle_line(net, res, unit, layer=layer, gamma=GAMMAS)
    # The Hessian of the wide net in those coordinates is the matrix that M and D make.
    for gamma in (-0.7, 0.3):
        J = _across(line, gamma)
        block = J.T @ line.net.hessian(line.point(gamma)) @ J
        M, D = line.curvature, line.coupling
        zero = np.zeros((len(D), len(D)))
        np.testing.assert_allclose(block, np.block([[gamma * (1 - gamma) * M, D.T], [D, zero]]), atol=1e-13)
        assert line.net.loss(line.point(gamma)) == pytest.approx(line.loss, rel=1e-13)
    assert line.null == 0
    found = np.array([mg.classify(line.net, x).index for x in line.x])
    np.testing.assert_array_equal(found, [line.index(gamma) for gamma in GAMMAS])
    assert line.rank == (0 if len(line.coupling) == 1 else 1)
    np.testing.assert_allclose(line.ends, [0, 1], atol=1e-8)
    assert (line.crossing == len(line.curvatures)).all()
    np.testing.assert_array_equal([mg.classify(line.net, line.point(end)).index for end in (0, 1)], line.index(0))


@pytest.mark.parametrize(("which", "layer", "unit"), CASES[1:4])
def test_eigenpairs_are_continued(which, layer, unit, request):
    net, res = request.getfixturevalue(which)
    line = mg.saddle_line(net, res, unit, layer=layer)
    for g in (0, 40, 100):
        H, V = line.net.hessian(line.x[g]), line.eigenvectors[g]
        np.testing.assert_allclose(V @ V.T, np.eye(len(V)), atol=1e-12)
        np.testing.assert_allclose(V @ H @ V.T, np.diag(line.eigenvalues[g]), atol=1e-11)
        np.testing.assert_allclose(np.sort(line.eigenvalues[g]), np.linalg.eigvalsh(H), atol=1e-11)
    # Continued eigenvalues have a continuous slope, which those in ascending order lose at each crossing.
    kinks = [np.abs(np.diff(values, 2, axis=0)).sum() for values in (line.eigenvalues, np.sort(line.eigenvalues))]
    assert kinks[0] < kinks[1]
    frame = line.to_frame()
    assert frame.shape == (101, 2 + line.net.n_params)
    assert frame["index"].tolist() == [line.index(gamma) for gamma in line.gamma]


def test_a_minimum_becomes_a_line_of_minima():
    # One unit of one input on a convex target: M = Σ e a σ″ x² has one sign.
    x = np.linspace(-1, 1, 21)[:, None]
    y = 0.5 + 0.3 * x[:, 0] + np.abs(x[:, 0])
    net = mg.Net(layers=[(1, "softplus", False), (1, "identity", False)], input=x, target=y)
    res = mg.minimize(net, [0.3, 1.0], verbosity=0)
    line = mg.saddle_line(net, res, 0)
    M = line.curvature[0, 0]
    a, h = res.x[1], x[:, 0] * res.x[0]
    s = 1 / (1 + np.exp(-h))
    error = 2 * (net(res)[:, 0] - y)
    assert pytest.approx((error * a * s * (1 - s) * x[:, 0] ** 2).mean(), rel=1e-12) == M
    assert (line.index_inside, line.index_outside) == ((0, 1) if M > 0 else (1, 0))
    stable = 0.5 if M > 0 else 1.5
    assert mg.classify(line.net, line.point(stable)).kind == "degenerate"
    back = line.leave(stable, 1, 1e-4, maxT=1e6, maxtime_ode=5, verbosity=0)
    assert back.where == "back"
    assert back.result.loss == pytest.approx(line.loss, rel=1e-12)
    for side in (1, -1):
        assert line.leave(0.5 if M < 0 else 1.5, side, maxT=1e6, maxtime_ode=5, verbosity=0).result.loss < line.loss


def test_leaving_to_either_side():
    # On one side outside of 0 < γ < 1 the flow enters a channel, on the other it ends at a minimum of two units.
    X = np.linspace(-2, 2, 60)[:, None]
    Y = np.sin(1.5 * X[:, 0]) + 0.3 * X[:, 0] ** 2
    net = mg.Net(layers=[(1, "tanh", True), (1, "identity", True)], input=X, target=Y)
    line = mg.saddle_line(net, mg.minimize(net, net.random_params(seed=1), verbosity=0), 0)
    size = 1e-3
    for gamma, side in ((0.5, 1), (1.5, 1), (-0.5, -1)):
        moved = line.perturb(gamma, side, size)
        assert np.linalg.norm(moved.flat - line.point(gamma).flat) == pytest.approx(size)
        assert line.net.loss(moved) < line.loss
        W, b, q = moved.weights[0], moved.biases[0], moved.weights[1]
        mirrored = mg.Params.from_layers([(W[::-1], b[::-1]), (q[:, ::-1], moved.biases[1])])
        np.testing.assert_allclose(mirrored.flat, line.perturb(1 - gamma, -side, size).flat, atol=1e-15)
    ends = [line.leave(1.5, side, maxT=1e5, maxtime_ode=5, maxtime_optim=5, verbosity=0) for side in (1, -1)]
    assert sorted(end.where for end in ends) == ["away", "channel"]
    for end in ends:
        assert end.result.loss < line.loss
        assert (end.where == "channel") == (end.classification.kind == "escaping")
        if end.where == "channel":
            assert end.gap < 1e-2
            assert end.rest < 1e-2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, p: mg.saddle_line(net, p, 2), "i is 2"),
        (lambda net, p: mg.saddle_line(net, p, 0, layer=1), "layer is 1"),
        (lambda net, p: mg.saddle_line(net, p, 0, gamma=[1.0, 0.0]), "ascend"),
        (lambda net, p: mg.saddle_line(net, p, 0, gamma=[np.nan, 0.0]), "NaN"),
        (lambda net, p: mg.saddle_line(net, p + 0.1, 0), "not a fixed point"),
        (lambda net, p: mg.saddle_line(net.replace(l2=0.1), p, 0), "regulariser"),
        (lambda net, p: mg.saddle_line(net, p, 0).perturb(0.5, 2), "side is 2"),
        (lambda net, p: mg.saddle_line(net, p, 0).perturb(np.inf), "gamma is inf"),
        (lambda net, p: mg.saddle_line(net, np.zeros(9), 0), "not a fixed point"),
    ],
)
def test_bad_input(one_output, call, message):
    net, res = one_output
    with pytest.raises(InputError, match=message):
        call(net, res.x)


def test_a_silent_unit_has_no_line():
    X = np.array([[-1.0], [0.0], [1.0]])
    net = mg.Net(layers=[(1, "tanh", False), (1, "identity", False)], input=X, target=[1.0, 0.0, 1.0])
    with pytest.raises(InputError, match="no outgoing weights"):
        mg.saddle_line(net, [0.0, 0.0], 0)


def test_single_precision(one_output):
    net, res = one_output
    X, Y, _ = net._core.data
    single = mg.Net(layers=net.layers, input=X, target=Y, dtype="float32")
    line, exact = mg.saddle_line(single, mg.minimize(single, res.x, verbosity=0), 0), mg.saddle_line(net, res, 0)
    assert (line.index_inside, line.index_outside) == (exact.index_inside, exact.index_outside)
    np.testing.assert_allclose(line.curvature, exact.curvature, atol=1e-5)
    np.testing.assert_allclose(line.ends, [0, 1], atol=1e-3)


@pytest.mark.parametrize(
    "rule",
    [
        {"freeze": "b2"}, {"freeze": "w1[1]"}, {"freeze": ["b1[0]", "w2[1, 0]"]}, {"tie": [("b1[0]", "b1[1]")]},
        {"tie": [("w1[0, 0]", "w2[0, 1]"), ("w2[0, 0]", "-w2[1, 1]")]}, {"freeze": ["w1[0]", "b1[0]"]},
    ],
    ids=["output bias", "other unit", "bias and weight", "equal biases", "mixed", "all incoming"],
)  # fmt: skip
def test_lines_of_constrained_nets(rule):
    free, near = _fixed([(2, "softplus", True), (2, "identity", True)], seed=3)
    net = mg.ConstrainedNet(free, near, **rule)
    p = mg.minimize(net, net.embed(net.coordinates(near)), verbosity=0)
    line = mg.saddle_line(net, p, 0, gamma=GAMMAS)
    wide = line.net
    assert len(line.curvatures) + line.rank == len(line._open)
    for gamma, x, values in zip(GAMMAS[::10], line.x[::10], line.eigenvalues[::10], strict=True):
        z = wide.coordinates(x)
        np.testing.assert_allclose(wide.embed(z).flat, x, rtol=0, atol=1e-13)
        assert np.abs(wide.gradient(z)).max() < 1e-11  # a fixed point for every gamma
        assert wide.loss(z) == pytest.approx(net.loss(p), rel=1e-13)
        # Eigenvalues of the wide net's own Hessian on the directions that obey the constraint
        basis = wide.B.toarray()
        H = basis.T @ wide.unconstrained.hessian(x) @ basis
        np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(H), atol=1e-10)
        small = 1e-9 * np.abs(values).max()
        if line.null == 0 and (abs(values) > small).all():
            assert (values < 0).sum() == line.index(gamma)
    np.testing.assert_array_equal(line.point(0.3).flat, mg.split_neuron(net.params(p), 0, 0.3).flat)
    if line._open:
        moved = line.perturb(0.3, size=1e-3)
        assert np.linalg.norm(moved.flat - line.point(0.3).flat) == pytest.approx(1e-3)
        assert np.isfinite(wide.loss(moved))
    else:
        with pytest.raises(InputError, match="holds all incoming weights"):
            line.perturb(0.3)
