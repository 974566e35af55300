"""Units beside each other, and the catalogue of minima, against SciPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from scipy.stats import binomtest

import pymlpgf as mg
from pymlpgf import InputError

LAYERS = [(4, "tanh", True), (2, "identity", True)]


@pytest.fixture(scope="module")
def net():
    rng = np.random.default_rng(0)
    return mg.Net(layers=LAYERS, input=rng.normal(size=(30, 2)), target=rng.normal(size=(30, 2)))


@pytest.fixture(scope="module")
def p(net):
    """Unit 2 is nearly the mirror image of unit 0, and unit 3 nearly parallel to unit 1."""
    p = net.params(np.random.default_rng(1).normal(size=net.n_params))
    p["w1"][2], p["b1"][2] = -p["w1"][0], -p["b1"][0] + 1e-6
    p["w1"][3], p["b1"][3] = 2 * p["w1"][1], 2 * p["b1"][1] + 1e-4
    return p


def rows(p):
    return np.column_stack([p["w1"], p["b1"]])


def test_angles_and_distances(net, p):
    alike = mg.compare_neurons(net, p)
    V = rows(p)
    unit = V / np.linalg.norm(V, axis=1, keepdims=True)
    np.testing.assert_allclose(alike.cosine, unit @ unit.T, atol=1e-15)
    np.testing.assert_allclose(np.cos(alike.angle), np.abs(unit @ unit.T), atol=1e-15)
    nearer = np.minimum(
        np.linalg.norm(V[:, None] - V, axis=2), np.linalg.norm(V[:, None] + V, axis=2)
    )  # fmt: skip
    np.testing.assert_allclose(alike.distance, nearer, atol=1e-15)  # with the bias, modulo sign
    assert alike.sign[0, 2] == -1
    # Small angles: the rejection's length over the vector's, which the cosine has no digits of.
    rejection = np.linalg.norm(V[2] - (V[2] @ unit[0]) * unit[0])
    np.testing.assert_allclose(alike.angle[0, 2], np.arctan2(rejection, abs(V[2] @ unit[0])), rtol=1e-9)


def test_pairs_and_groups(net, p):
    by_angle = mg.neuron_pairs(net, p)
    assert [(pair.i, pair.j) for pair in by_angle[:2]] == [(0, 2), (1, 3)]
    assert len(by_angle) == 6
    assert (np.diff([pair.angle for pair in by_angle]) >= 0).all()
    by_distance = mg.neuron_pairs(net, p, by="distance")
    assert (by_distance[0].i, by_distance[0].j, by_distance[0].sign) == (0, 2, -1)
    assert (np.diff([pair.distance for pair in by_distance]) >= 0).all()
    assert mg.neuron_groups(net, p, 1e-3) == [[0, 2], [1, 3]]
    assert mg.neuron_groups(net, p, 1e-3, by="distance") == [[0, 2]]
    mixed = mg.Net(layers=[(3, ("tanh", "relu", "tanh"), False), (1, "identity", False)], n_features=1)
    pairs = mg.neuron_pairs(mixed, np.ones(6))
    assert [(pair.i, pair.j) for pair in pairs] == [(0, 2)]  # units of different kinds are no pair


def test_a_student_beside_its_teacher():
    teacher = mg.TeacherNet(
        layers=[(3, "sigmoid2", False), (1, "identity", False)], params=[*np.eye(3).ravel(), 1, 1, 1], n_features=3
    )
    student = mg.Net(layers=[(2, "sigmoid2", False), (1, "identity", False)], n_features=3)
    p = [-0.7, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0]  # the mirror image of unit 0, and the average of units 1 and 2
    alike = mg.compare_neurons(student, p, teacher)
    np.testing.assert_allclose(alike.angle, np.array([[0, 1 / 2, 1 / 2], [1 / 2, 1 / 4, 1 / 4]]) * np.pi, atol=1e-15)
    assert alike.sign[0, 0] == -1


def test_merged_units(net, p):
    exact = p.copy()
    exact["b1"][2] = -exact["b1"][0]
    small, q = mg.merge_neurons(net, exact, [[0, 2]])
    assert small.layers[0][0] == 3
    np.testing.assert_allclose(small(q), net(exact), atol=1e-13)
    small, q = mg.merge_neurons(net, p, mg.neuron_groups(net, p, 1e-3))
    V, out = rows(p), p["w2"]
    weight = np.linalg.norm(out[:, [0, 2]], axis=0)
    np.testing.assert_allclose(rows(q)[0], (weight[0] * V[0] - weight[1] * V[2]) / weight.sum(), rtol=1e-13)
    np.testing.assert_allclose(q["w2"], np.stack([out[:, 0] - out[:, 2], out[:, 1] + out[:, 3]], 1), rtol=1e-13)
    # penalties and activations of units go along
    penal = net.replace(merge=[(0, 0, 1, 0.5), (0, 1, 3, 0.25), (0, 0, 2, 1.0)])
    small, q = mg.merge_neurons(penal, p, [[0, 2]])
    assert small._settings["merge"] == [(0, 0, 1, 0.5), (0, 1, 2, 0.25)]
    mixed = mg.Net(layers=[(3, ("tanh", "relu", "tanh"), False), (1, "identity", False)], n_features=1)
    assert mg.merge_neurons(mixed, np.arange(1.0, 7), [[0, 2]])[0].layers[0] == (2, ("tanh", "relu"), False)
    with pytest.raises(InputError, match=r"the units \[0, 1\] have different activations"):
        mg.merge_neurons(mixed, np.ones(6), [[0, 1]])
    with pytest.raises(InputError, match="a unit of groups is 4"):
        mg.merge_neurons(net, p, [[0, 4]])
    with pytest.raises(InputError, match="unit 1 is in two groups"):
        mg.merge_neurons(net, p, [[0, 1], [1, 2]])


@pytest.mark.parametrize("by", ["angle", "distance"])
def test_clusters_are_those_of_scipy(net, by):
    rng = np.random.default_rng(3)
    true = rng.normal(size=(4, 3))
    runs = []
    for _ in range(6):
        q = net.params(rng.normal(size=net.n_params))
        V = rng.choice([-1, 1], 4)[:, None] * (true[rng.permutation(4)] + 0.15 * rng.normal(size=(4, 3)))
        q["w1"][:], q["b1"][:] = V[:, :2], V[:, 2]
        runs.append(q)
    V = np.concatenate([rows(q) for q in runs])
    if by == "angle":
        unit = V / np.linalg.norm(V, axis=1, keepdims=True)
        D = np.arccos(np.clip(np.abs(unit @ unit.T), 0, 1))
    else:
        sign = np.where(V @ V.T < 0, -1, 1)
        D = np.linalg.norm(V[:, None] - sign[:, :, None] * V, axis=2)
    np.fill_diagonal(D, 0)
    tree = hierarchy.linkage(squareform(D, checks=False), "average")
    for tolerance in (0.1, 0.3, 0.7):
        found = mg.cluster_neurons(net, runs, tolerance, by=by)
        expected = hierarchy.fcluster(tree, tolerance, "distance").reshape(6, 4)
        pairs = {(a, b) for a, b in zip(found.labels.ravel(), expected.ravel(), strict=True)}
        assert len(pairs) == len(found) == expected.max()
        counts = np.bincount(found.labels.ravel())
        assert (np.diff(counts) <= 0).all()
        member = found.sign.reshape(-1, 1) * V
        for number in range(len(found)):
            mean = member[found.labels.ravel() == number]
            if by == "angle":
                mean = mean / np.linalg.norm(mean, axis=1, keepdims=True)
            np.testing.assert_allclose(found.centre[number], mean.mean(0), atol=1e-13)
            assert found.runs[number] == len({run for run, labels in enumerate(found.labels) if number in labels})
    assert set(found.common(1.0)) == {number for number in range(len(found)) if found.runs[number] == 6}
    groups = found.groups(2)
    assert sorted(unit for group in groups for unit in group) == [0, 1, 2, 3]
    assert found.groups(2, [found.labels[2, 1]]) == [np.flatnonzero(found.labels[2] == found.labels[2, 1]).tolist()]


def test_units_that_many_wide_students_share_are_the_teachers():
    """Expand-and-Cluster, in small: what students wider than their teacher have in common, whatever is left silent."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(400, 2))
    layers = [(2, "tanh", True), (1, "identity", False)]
    teacher = mg.TeacherNet(layers=layers, params=[1.5, 0.5, -0.5, 1.0, 0.3, -0.4, 1.0, 0.8], n_features=2)
    net = mg.Net(layers=[(3, "tanh", True), (1, "identity", False)], input=X, target=teacher(X))
    runs = [mg.train(net, net.random_params(seed), maxT=100, maxiterations_optim=300) for seed in range(5)]
    fits = [run for run in runs if run.loss < 1e-20]
    assert len(fits) >= 3
    found = mg.cluster_neurons(net, fits, 1e-4)  # a silent unit points anywhere
    units = mg.cosine_similarity(found.centre[found.common(0.9)], rows(teacher.params))
    np.testing.assert_allclose(np.abs(units).max(0), 1, atol=1e-6)


def test_along_a_flow(net, p):
    res = mg.flow(net, p, maxT=1, save_everystep=True)
    along = mg.neurons_along(net, res)
    M = len(res.trajectory)
    assert along.cosine.shape == (M, 4, 4)
    np.testing.assert_array_equal(along.t, res.trajectory.t)
    last = net.params(res.trajectory.x[-1])
    np.testing.assert_allclose(along.incoming[-1], np.linalg.norm(rows(last), axis=1))
    np.testing.assert_allclose(along.outgoing[-1], np.linalg.norm(last["w2"], axis=0))
    np.testing.assert_allclose(np.cos(along.angle), along.cosine, atol=1e-14)
    nearly = np.pi - mg.compare_neurons(net, p).angle[0, 2]  # the start, where unit 2 is nearly the mirror image of 0
    np.testing.assert_allclose(along.angle[0, 0, 2], nearly, rtol=1e-15)
    np.testing.assert_allclose(along.cosine[-1], mg.cosine_similarity(rows(last), rows(last)), atol=1e-15)


# ---- the catalogue ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    x = np.linspace(-2, 2, 40).reshape(-1, 1)
    net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=x, target=np.sin(2 * x) + 0.3 * x)
    results = [mg.train(net, net.random_params(seed), maxT=30, maxiterations_optim=300) for seed in range(12)]
    return net, results, mg.minima_catalogue(net, results, confidence=0.9)


def test_catalogue(found):
    net, results, catalogue = found
    groups = mg.distinct_minima(net, results)
    np.testing.assert_array_equal(catalogue.labels, groups.labels)
    np.testing.assert_array_equal(catalogue.count, groups.counts)
    assert catalogue.n_runs == catalogue.count.sum() == 12
    assert len(catalogue) > 1
    assert (np.diff(catalogue.loss) >= 0).all()
    for number, result in enumerate(catalogue.representatives):
        assert result is results[groups.representatives[number]]
        assert result.loss == catalogue.loss[number]
        assert catalogue.kind[number] == mg.classify(net, result).kind
        exact = binomtest(int(catalogue.count[number]), 12).proportion_ci(0.9, method="exact")
        np.testing.assert_allclose([catalogue.low[number], catalogue.high[number]], exact, rtol=1e-9)
    assert repr(catalogue).startswith(f"Catalogue({len(catalogue)} distinct points of 12 runs, lowest loss ")
    pytest.importorskip("pandas")
    frame = catalogue.to_frame()
    assert frame["count"].tolist() == catalogue.count.tolist()
    np.testing.assert_allclose(frame.frequency, catalogue.count / 12)


def test_bad_input(net, p, found):
    for call, message in (
        (lambda: mg.neuron_pairs(net, p, by="cosine"), "unknown by 'cosine'"),
        (lambda: mg.neuron_groups(net, p, 0), "tolerance is 0"),
        (lambda: mg.compare_neurons(net, p, layer=2), "layer is 2"),
        (lambda: mg.neurons_along(net, p), "points has shape"),
        (lambda: mg.cluster_neurons(net, []), "points is empty"),
        (lambda: mg.cluster_neurons(*found[:2]).common(60), "fraction is 60"),
        (lambda: mg.cluster_neurons(*found[:2]).groups(12), "run is 12; there are 12 runs"),
        (lambda: mg.cluster_neurons(found[0], found[1][0]), "points is one TrainResult"),
        (lambda: mg.compare_neurons(net, p, net), "q, its parameters, is missing"),
        (lambda: mg.merge_neurons(net, p, [0, 1]), "a sequence of groups of units is needed"),
        (lambda: mg.neurons_along(found[0], mg.minimize(found[0], found[1][0])), "a result without a trajectory"),
        (lambda: mg.minima_catalogue(net, []), "points is empty"),
        (lambda: mg.minima_catalogue(net, [p]), "entry 0 of results is Params"),
        (lambda: mg.minima_catalogue(found[0], found[1], confidence=1), "confidence is 1"),
    ):
        with pytest.raises(InputError, match=message):
            call()
