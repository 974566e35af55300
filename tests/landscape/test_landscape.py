"""Tools for landscapes, each by an invariant."""

from __future__ import annotations

import numpy as np
import pytest

import pymlpgf as mg
from pymlpgf import InputError

LAYERS = [(3, "tanh", True), (2, ("sigmoid", "relu"), False), (1, "identity", True)]


@pytest.fixture(scope="module")
def deep():
    rng = np.random.default_rng(0)
    net = mg.Net(layers=LAYERS, input=rng.normal(size=(50, 2)), target=rng.normal(size=50), merge=(0, 1, 2, 0.3))
    return net, net.params(rng.normal(size=net.n_params))


@pytest.fixture(scope="module")
def minimum():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 2))
    y = np.tanh(X[:, 0] + 1) - 0.7 * np.tanh(X[:, 1]) + 0.1 * rng.normal(size=200)
    net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=X, target=y)
    return net, mg.minimize(net, [1.0, 0.1, 0.1, 1.0, 1.0, 0.1, 1.0, -1.0, 0.1])


@pytest.mark.parametrize("layer", [0, 1])
def test_shrinking_undoes_growing_and_splitting(deep, layer):
    net, p = deep
    width = net.layers[layer][0]
    rng = np.random.default_rng(2)
    fan_in = p.weights[layer].shape[1] + net.layers[layer][2]
    wide, q = mg.grow_net(net, p, layer, incoming=rng.normal(size=fan_in))
    assert wide.layers[layer][0] == width + 1
    assert wide.loss(q) == pytest.approx(net.loss(p), rel=1e-14)
    np.testing.assert_array_equal(wide(q), net(p))
    narrow, r = mg.shrink_net(wide, q, width, layer)
    assert narrow.layers == net.layers
    np.testing.assert_array_equal(r, p)
    assert narrow.loss(r) == net.loss(p)
    split = mg.split_neuron(p, width - 1, -0.4, layer)
    assert wide.loss(split) == pytest.approx(net.loss(p), rel=1e-13)
    np.testing.assert_array_equal(split.weights[layer][width], p.weights[layer][width - 1])
    back, s = mg.shrink_net(wide, split, width - 1, layer, into=width)  # the first one goes: the order changes
    np.testing.assert_allclose(back(s), net(p), rtol=1e-12)


def test_merge_follows_its_units(deep):
    net, p = deep
    narrow, q = mg.shrink_net(net, p, 0)
    W, b = q["w1"], q["b1"]
    penalty = 0.3 / 2 * (((W[0] - W[1]) ** 2).sum() + (b[0] - b[1]) ** 2)
    assert narrow.loss(q) - narrow.data_terms(q)[0] == pytest.approx(penalty)
    narrow, q = mg.shrink_net(net, p, 1)
    assert narrow.loss(q) == narrow.data_terms(q)[0]


def test_plane_contains_its_anchors(deep):
    net, p = deep
    rng = np.random.default_rng(3)
    anchors = [p.flat, *(p.flat + rng.normal(size=p.size) for _ in range(2))]
    plane = mg.LinearSubspace.through(net, *anchors)
    for anchor, a in zip(anchors, ([0, 0], [1, 0], [0, 1]), strict=True):
        np.testing.assert_allclose(plane.coordinates(anchor), a, atol=1e-12)
        np.testing.assert_allclose(plane.point(a), anchor, atol=1e-12)
    grid = mg.loss_grid(net, plane, [0, 0.5, 1], [0, 1])
    assert grid.shape == (3, 2)
    expected = [[net.loss(plane.point([a, b])) for b in (0, 1)] for a in (0, 0.5, 1)]
    np.testing.assert_allclose(grid, expected, rtol=1e-12)


def test_minimum_in_the_complement(minimum):
    net, res = minimum
    rng = np.random.default_rng(4)
    u, v = rng.normal(size=(2, net.n_params))
    plane = mg.LinearSubspace(net, res, u, v)
    found = mg.subspace_minloss(net, plane, [0.05, -0.1], maxtime_optim=5)
    np.testing.assert_allclose(plane.coordinates(found), [0.05, -0.1], atol=1e-12)
    # At such a minimum the gradient lies in the plane.
    g = net.gradient(found.x)
    inside = np.linalg.lstsq(np.array([u, v]).T, g, rcond=None)[0] @ np.array([u, v])
    np.testing.assert_allclose(g, inside, atol=1e-10)
    assert res.loss <= found.loss < net.loss(plane.point([0.05, -0.1]))
    grid = mg.subspace_grid(net, plane, [-0.05, 0, 0.05], [0], start=res, maxiterations_optim=100)
    assert grid.finished
    assert grid.loss.shape == (3, 1)
    assert grid.x.shape == (3, 1, net.n_params)
    assert grid.loss.argmin() == 1
    assert grid.loss[1, 0] == pytest.approx(res.loss, rel=1e-12)
    for i in range(3):
        assert net.loss(grid.x[i, 0]) == pytest.approx(grid.loss[i, 0], rel=1e-12)
        np.testing.assert_allclose(plane.coordinates(grid.x[i, 0]), [[-0.05, 0, 0.05][i], 0], atol=1e-12)


def test_matching_and_distinct_minima(minimum):
    net, res = minimum
    p = net.params(res.x)
    (W, b), (v, c) = zip(p.weights, p.biases, strict=True)
    twin = mg.Params.from_layers([(-W[::-1], -b[::-1]), (-v[:, ::-1], c)])
    assert net.loss(twin) == pytest.approx(res.loss, rel=1e-12)
    teacher = mg.TeacherNet(layers=net.layers, params=p, n_features=2)
    m = mg.match_neurons(net, twin, teacher)
    assert (m.unit.tolist(), m.sign.tolist()) == ([1, 0], [-1, -1])
    np.testing.assert_allclose(m.similarity, 1)
    rows = np.column_stack([W, b])
    np.testing.assert_allclose(m.cosines, mg.cosine_similarity(-rows[::-1], rows))
    np.testing.assert_allclose(mg.align(net, twin, p), p, rtol=1e-12)
    other = net.random_params(seed=9)
    groups = mg.distinct_minima(net, [other, twin, res, other.flat + 1e-7])
    assert groups.labels.tolist() in ([1, 0, 0, 1],)
    assert len(groups) == 2
    assert groups.counts.tolist() == [2, 2]
    assert groups.representatives[0] in (1, 2)


def test_cosines_of_a_wider_student(minimum):
    net, res = minimum
    p = net.params(res.x)
    wide, _ = mg.grow_net(net, p)
    q = mg.split_neuron(p, 0, 0.5)
    m = mg.match_neurons(wide, q, net, p)
    assert m.unit[1] == 1
    assert m.unit[0] in (0, 2)
    m = mg.match_neurons(net, p, wide, q)
    assert sorted(m.unit) == [-1, 0, 1]


def test_escape_lowers_the_loss(minimum):
    net, res = minimum
    wide, _ = mg.grow_net(net, res)
    p = mg.split_neuron(net.params(res.x), 0, 0.5)
    if mg.classify(wide, p).index == 0:
        p = mg.split_neuron(net.params(res.x), 0, 1.5)
    for sign in (1, -1):
        q = mg.escape_saddle(wide, p, sign)
        assert wide.loss(q) < wide.loss(p)
        assert mg.minimize(wide, q, maxiterations_optim=50).loss < res.loss
    with pytest.raises(InputError, match="no direction of escape"):
        mg.escape_saddle(net, res)


def test_saddles_on_the_way_and_spectrum():
    # L = |M - BA|² with singular values 2 and ½, learnt one after the other from a small start
    net = mg.Net(
        layers=[(2, "identity", False), (2, "identity", False)], input=np.eye(2), target=[[4.0, 0.0], [0.0, 0.5]]
    )
    start = 1e-4 * np.random.default_rng(0).normal(size=8)
    res = mg.flow(net, start, maxT=1e4, save_everystep=True)
    passages = mg.saddle_passages(net, res)
    assert [s.index for s in passages] == sorted((s.index for s in passages), reverse=True)
    assert len(passages) == 2
    assert passages[0].loss == pytest.approx((16 + 0.25) / 2, rel=1e-3)
    assert passages[1].loss == pytest.approx(0.25 / 2, rel=1e-3)
    for s in passages:
        assert s.t_start <= s.t <= s.t_end
        assert np.linalg.eigvalsh(net.hessian(s.x))[0] == pytest.approx(s.lowest)
    spectrum = mg.spectrum_along(net, res)
    assert spectrum.shape == res.trajectory.x.shape
    np.testing.assert_allclose(spectrum[-1], np.linalg.eigvalsh(net.hessian(res.x)), atol=1e-12)
    np.testing.assert_array_equal(mg.spectrum_along(net, res.trajectory, k=1), spectrum[:, [0, -1]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, p: mg.grow_net(net, p, layer=2), "layer is 2"),
        (lambda net, p: mg.grow_net(net, p, incoming=[1.0]), r"incoming has shape \(1,\)"),
        (lambda net, p: mg.shrink_net(net, p, 3), "i is 3"),
        (lambda net, p: mg.shrink_net(net, p, 1, into=1), "into itself"),
        (lambda net, p: mg.split_neuron(p.flat, 0, 0.5), "Params are needed"),
        (lambda net, p: mg.split_neuron(p, 0, np.nan), "gamma is nan"),
        (lambda net, p: mg.LinearSubspace(net, p), "0 directions"),
        (lambda net, p: mg.LinearSubspace(net, p, p, 2 * p), "linearly dependent"),
        (lambda net, p: mg.LinearSubspace(net, p, p[:-1]), "this net has"),
        (lambda net, p: mg.loss_grid(net, mg.LinearSubspace(net, p, p), [0], [1]), "1 axes are needed"),
        (lambda net, p: mg.cosine_similarity([[1.0]], [[1.0, 2.0]]), "shapes"),
        (lambda net, p: mg.distinct_minima(net, []), "points is empty"),
        (lambda net, p: mg.escape_saddle(net, p, sign=2), "sign is 2"),
        (lambda net, p: mg.saddle_passages(net, p), "Trajectory"),
        (lambda net, p: mg.spectrum_along(net, [[1.0]]), "points has shape"),
    ],
)
def test_bad_input(deep, call, message):
    with pytest.raises(InputError, match=message):
        call(*deep)


def test_single_precision():
    rng = np.random.default_rng(1)
    X, y, p = rng.normal(size=(20, 2)), rng.normal(size=20), rng.normal(size=9)
    layers = [(2, "tanh", True), (1, "identity", True)]
    grids = []
    for dtype in ("float64", "float32"):
        net = mg.Net(layers=layers, input=X, target=y, dtype=dtype)
        grids.append(mg.loss_grid(net, mg.LinearSubspace(net, p, *np.eye(9)[:2]), [0.0, 0.1], [0.0, 0.2, 0.4]))
    np.testing.assert_allclose(*grids, rtol=1e-5)
    saddle = mg.Net(layers=[(1, "identity", False)] * 2, input=[[1.0]], target=[1.0], dtype="float32")
    assert saddle.loss(mg.escape_saddle(saddle, [0.0, 0.0])) < 1
