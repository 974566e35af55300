"""Options that scripts written for MLPGradientFlow.jl use, and what they amount to."""

from __future__ import annotations

import numpy as np
import pytest

import pymlpgf as mg
from pymlpgf import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2))
Y = np.sin(X[:, 0]) + 0.1 * RNG.normal(size=60)


def _net(**given):
    return mg.Net(layers=[(3, "tanh", True), (1, "identity", True)], input=X, target=Y, **given)


NET = _net()
P = NET.random_params(seed=1)


# ---- the end of a trajectory ---------------------------------------------------------------------------------------


def test_a_trajectory_ends_with_the_optimum():
    seen = {"norm": lambda x: float(x @ x), "half": (X[:30], Y[:30]), "other": _net(l2=0.1)}
    res = mg.train(NET, P, maxT=5, maxiterations_optim=20, observables=seen, verbosity=0)
    points = res.trajectory
    np.testing.assert_array_equal(points.x[-1], res.x)
    np.testing.assert_array_equal(points.x[-2], res.ode_x)
    assert (points.t[-2], points.t[-1]) == (5, 6)
    assert (points.loss[-1], points.gnorm[-1]) == (res.loss, res.gnorm)
    np.testing.assert_allclose(points["norm"], (points.x**2).sum(1), rtol=1e-14)
    half, other = NET.on(X[:30], Y[:30]), _net(l2=0.1)
    np.testing.assert_allclose(points["half"], [half.loss(x) for x in points.x], rtol=1e-13)
    np.testing.assert_allclose(points["other"], [other.loss(x) for x in points.x], rtol=1e-13)


def test_times_increase_to_the_end_however_late_it_is():
    res = mg.train(NET, P, maxiterations_optim=5, maxtime_ode=3, verbosity=0)
    assert (np.diff(res.trajectory.t) > 0).all()
    np.testing.assert_array_equal(res.trajectory.x[-1], res.x)


# ---- batches -------------------------------------------------------------------------------------------------------


def test_batches_in_the_order_of_the_data():
    res = mg.flow(NET, P, alg="GradientDescent", learning_rate=0.1, batchsize=25, shuffle=False, maxiterations_ode=7)
    x = P.flat.copy()
    for k in range(7):  # the third of an epoch has ten samples
        part = slice(25 * (k % 3), min(25 * (k % 3) + 25, 60))
        x -= 0.1 * NET.on(X[part], Y[part]).gradient(x)
    np.testing.assert_allclose(res.ode_x, x, rtol=1e-13)


def test_a_flow_on_batches_follows_each_for_some_steps():
    settings = {"alg": "RK4", "abstol": 1e-9, "reltol": 1e-9, "dt": 0.01, "verbosity": 0}
    res = mg.flow(NET, P, batchsize=20, shuffle=False, batch_steps=2, maxiterations_ode=4, **settings)
    x, t = P, 0.0
    for k in range(4):
        part = slice(20 * (k % 3), 20 * (k % 3) + 20)
        one = mg.flow(NET.on(X[part], Y[part]), x, maxiterations_ode=2, **settings)
        x, t = one.ode_x, t + one.ode_t
    np.testing.assert_allclose(res.ode_x, x, rtol=1e-13)
    np.testing.assert_allclose(res.ode_t, t, rtol=1e-14)
    np.testing.assert_allclose(res.ode_loss, NET.loss(x), rtol=1e-13)
    assert (res.alg, res.batchsize, res.ode_iterations) == ("RK4 on batches", 20, 4)


def test_a_flow_on_one_batch_of_all_samples_is_the_flow():
    tight = {"maxT": 3, "abstol": 1e-10, "reltol": 1e-10, "verbosity": 0}
    pieces = mg.flow(NET, P, alg="Tsit5", batchsize=60, batch_steps=5, **tight)
    np.testing.assert_allclose(pieces.x, mg.flow(NET, P, alg="Tsit5", **tight).x, atol=1e-8)
    assert pieces.ode_stopped_by == "maxT"
    assert pieces.ode_t == pytest.approx(3, rel=1e-12)


@pytest.mark.parametrize("alg", ["Rodas5P", "TRBDF2", "QNDF", "Exprb53s3", "ExpAdams", "auto"])
def test_every_flow_takes_batches_and_the_mean_descends(alg):
    res = mg.flow(NET, P, alg=alg, batchsize=30, batch_steps=2, maxT=4, seed=3, verbosity=0)
    assert res.ode_stopped_by == "maxT"
    assert res.loss < 0.5 * NET.loss(P)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"alg": "Tsit5", "batchsize": 20, "dense": True}, "dense"),
        ({"alg": "Adam", "shuffle": 1}, "shuffle is 1"),
        ({"alg": "Tsit5", "batchsize": 20, "batch_steps": 0}, "batch_steps is 0"),
        ({"alg": "Tsit5", "batchsize": 2.5}, "batchsize is 2.5"),
    ],
)
def test_batches_that_cannot_be(given, says):
    with pytest.raises(InputError, match=says):
        mg.flow(NET, P, **given)


# ---- a rule of one's own -------------------------------------------------------------------------------------------

RULES = {
    "GradientDescent": ("(x, g, s, k) -> (g, s)", []),
    "Nesterov": ("(x, g, (v,), k) -> (v = 0.9v + g; (g + 0.9v, (v,)))", [0.0]),
    "RMSprop": ("(x, g, (v,), k) -> (v = 0.99v + 0.01g^2; (g / (sqrt(v) + 1e-8), (v,)))", [0.0]),
    "Adam": (
        "(x, g, (m, v), k) -> (m = 0.9m + 0.1g; v = 0.999v + 0.001g^2; "
        "(m / (1 - 0.9^(k + 1)) / (sqrt(v / (1 - 0.999^(k + 1))) + 1e-8), (m, v)))",
        [0.0, 0.0],
    ),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_known_methods_as_rules(name, dtype):
    rule, state = RULES[name]
    net = _net(dtype=dtype)
    common = {"learning_rate": 0.01, "schedule": mg.ExponentialDecay(0.99)}
    own = {"maxiterations_ode": 40, "batchsize": 20, "tauinv": {"b1": 0.5}, "verbosity": 0}
    a = mg.flow(net, P.flat.astype(dtype), alg=mg.UpdateRule(rule=rule, state=state, **common), **own)
    b = mg.flow(net, P.flat.astype(dtype), alg=name, **common, **own)
    np.testing.assert_allclose(a.x, b.x, rtol=1e-12 if dtype == "float64" else 2e-5)
    assert a.alg == "UpdateRule"


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("(x, g, s, k) -> g", "gives a Float64"),
        ("(x, g, s, k) -> (g, (1.0,))", "with 0 numbers of state"),
        ("(x, g, s, k) -> (undefined_name, s)", "undefined_name"),
        ("(x, g -> 1", "is not a function"),
        ("x -> (x, ())", "MethodError"),
        ("descent", "a function of Julia is needed"),
    ],
)
def test_rules_that_cannot_be(rule, says):
    with pytest.raises(mg.MLPGFError, match=says):
        mg.flow(NET, P, alg=mg.UpdateRule(rule=rule), maxiterations_ode=1)


def test_a_rule_that_leads_away_ends_as_diverged():
    res = mg.flow(NET, P, alg=mg.UpdateRule(rule="(x, g, s, k) -> (k > 3 ? NaN : g, s)"), verbosity=0)
    assert res.ode_stopped_by == "diverged"
    assert np.isfinite(res.x).all()


def test_a_rule_of_a_file_is_not_run_without_leave(tmp_path):
    path = tmp_path / "run.npz"
    alg = mg.UpdateRule(rule="(x, g, s, k) -> (g, s)")

    def stop(now):
        if now.iteration == 300:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        mg.flow(NET, P, alg=alg, callback=stop, checkpoint=path, checkpoint_interval=1e-6, verbosity=0)
    with pytest.raises(InputError, match="holds Julia code as a rule"):
        mg.resume(path, callback=lambda now: None)


# ---- time constants, parameters ------------------------------------------------------------------------------------


def test_time_constants_by_name():
    flat = np.ones(NET.n_params)
    flat[6:9], flat[9:12] = 0, [1, 2, 3]
    short = {"maxT": 1, "abstol": 1e-9, "reltol": 1e-9, "verbosity": 0}
    a = mg.flow(NET, P, tauinv={"b1": 0, "w2": [[1, 2, 3]]}, **short)
    np.testing.assert_array_equal(a.x, mg.flow(NET, P, tauinv=flat, **short).x)
    np.testing.assert_array_equal(a.x[6:9], P.flat[6:9])
    with pytest.raises(InputError, match="names 'b3'"):
        mg.flow(NET, P, tauinv={"b3": 1})
    with pytest.raises(InputError, match=r"w2 has shape \(3,\)"):
        mg.flow(NET, P, tauinv={"w2": [1, 2, 3]})


def test_generators_and_random_biases():
    rng = np.random.default_rng(5)
    first, second = NET.random_params(rng), NET.random_params(rng)
    np.testing.assert_array_equal(first, NET.random_params(np.random.default_rng(5)))
    assert not np.array_equal(first, second)
    assert not any(b.any() for b in first.biases)
    wide = mg.Net(layers=[(4000, "tanh", True), (1, "identity", False)], n_features=2)
    p = wide.random_params(seed=3, biases=0.5)
    np.testing.assert_array_equal(p.weights[0], wide.random_params(seed=3).weights[0])
    assert p.biases[0].std() == pytest.approx(0.5, rel=0.05)  # 4000 numbers: one percent
    own = wide.random_params(seed=3, biases=lambda shape, rng: rng.uniform(1, 2, shape))
    assert own.biases[0].min() > 1
    with pytest.raises(InputError, match="biases returned shape"):
        wide.random_params(biases=lambda shape, rng: [1.0])
    with pytest.raises(InputError, match="biases is -1"):
        wide.random_params(biases=-1)


def test_a_teacher_with_random_parameters():
    layers = [(2, "tanh", True), (1, "identity", False)]
    teacher = mg.TeacherNet(layers, n_features=3, seed=4)
    np.testing.assert_array_equal(teacher.params, mg.Net(layers=layers, n_features=3).random_params(seed=4))


@pytest.mark.parametrize("j", range(4))
def test_the_place_of_a_split_unit(j):
    q = mg.split_neuron(P, 1, 0.25, j=j)
    order = [0, 1, 2]
    order.insert(j, 1)
    np.testing.assert_array_equal(q["w1"], P["w1"][order])
    np.testing.assert_array_equal(q["b1"], P["b1"][order])
    wide = mg.Net(layers=[(4, "tanh", True), (1, "identity", True)], input=X, target=Y)
    np.testing.assert_allclose(wide(q), NET(P), atol=1e-14)
    np.testing.assert_allclose(q["w2"][0, j], 0.75 * P["w2"][0, 1])
    with pytest.raises(InputError, match="j is 4"):
        mg.split_neuron(P, 1, 0.25, j=4)


# ---- minima in the complement of a plane ---------------------------------------------------------------------------

QUICK = {"maxiterations_optim": 60, "verbosity": 0}


def _plane():
    return mg.LinearSubspace(NET, P, np.eye(13)[0], np.eye(13)[4])


def test_minima_at_any_points():
    plane = _plane()
    points = RNG.normal(size=(4, 2))
    found = mg.subspace_points(NET, plane, points, restarts=2, scale=0.3, seed=1, **QUICK)
    assert found.finished
    np.testing.assert_allclose([plane.coordinates(x) for x in found.x], points, atol=1e-9)
    np.testing.assert_allclose([NET.loss(x) for x in found.x], found.loss, rtol=1e-12)
    alone = [mg.subspace_minloss(NET, plane, a, **QUICK).loss for a in points]
    assert (found.loss <= alone).all()
    again = mg.subspace_points(NET, plane, points, restarts=2, scale=0.3, seed=1, **QUICK)
    np.testing.assert_array_equal(again.x, found.x)


def test_restarts_and_neighbours_find_what_one_run_misses():
    """L = q(w + b)² with q > 0 of two valleys; with w fixed, b = 1 lies in the higher one."""
    q = np.polynomial.Polynomial([2, 0.5, -2, 0, 1])
    valleys = sorted(q(np.sort(q.deriv().roots().real)[[0, 2]]) ** 2)
    net = mg.Net(layers=[(1, mg.Poly(*q.coef), True)], input=[[1.0]], target=[0.0])
    line = mg.LinearSubspace(net, [0.0, 1.0], [1.0, 0.0])

    def found(points, **given):
        return mg.subspace_points(net, line, points, verbosity=0, **given)

    np.testing.assert_allclose(found([0.0]).loss, valleys[1], rtol=1e-12)
    np.testing.assert_allclose(found([0.0], restarts=6, scale=1.5).loss, valleys[0], rtol=1e-12)
    low = found([0.1], start=[0.1, -1.0])
    np.testing.assert_allclose(low.loss, valleys[0], rtol=1e-12)
    np.testing.assert_allclose(found([0.0], previous=low).loss, valleys[0], rtol=1e-12)
    np.testing.assert_allclose(found([0.0], previous=low, neighbours=0).loss, valleys[1], rtol=1e-12)
    both = found([0.0, 0.1], previous=low, neighbours=0)  # 0.1 is kept, and 0 sees it on the way backwards alone
    np.testing.assert_allclose(both.loss, valleys[::-1], rtol=1e-12)
    for backwards in (False, True):
        more = found([0.0, 0.1], previous=both, neighbours=1, backwards=backwards)
        np.testing.assert_allclose(more.loss, [valleys[1 - backwards], valleys[0]], rtol=1e-12)


def test_a_search_goes_on_where_another_ended(monkeypatch):
    plane, points = _plane(), np.linspace(-1, 1, 8).reshape(4, 2)
    whole = mg.subspace_points(NET, plane, points, backwards=False, **QUICK)
    first = mg.subspace_points(NET, plane, points[:2], backwards=False, **QUICK)
    calls = []
    from pymlpgf.landscape import subspace

    search = subspace.subspace_minloss
    monkeypatch.setattr(subspace, "subspace_minloss", lambda *a, **k: calls.append(tuple(a[2])) or search(*a, **k))
    rest = mg.subspace_points(NET, plane, points, backwards=False, previous=first, **QUICK)
    np.testing.assert_array_equal(rest.x, whole.x)
    assert set(calls) == {tuple(points[2]), tuple(points[3])}
    finer = mg.subspace_points(NET, plane, points, previous=rest, **QUICK)
    assert (finer.loss <= rest.loss).all()


def test_points_go_on_from_a_grid_of_the_same_subspace():
    line = mg.LinearSubspace.through(NET, *(NET.random_params(seed=seed) for seed in (0, 1)))
    grid = mg.subspace_grid(NET, line, [0.0, 0.5, 1.0], **QUICK)
    found = mg.subspace_points(NET, line, [0.5, 0.25], previous=grid, backwards=False, **QUICK)
    assert found.loss[0] == grid.loss[1]
    np.testing.assert_allclose(line.coordinates(found.x[1]), [0.25])
    other = mg.LinearSubspace.through(NET, *(NET.random_params(seed=seed) for seed in (2, 3)))
    with pytest.raises(InputError, match="previous is about another subspace"):
        mg.subspace_points(NET, other, [0.5], previous=found, **QUICK)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"points": [1.0, 2.0]}, r"points has shape \(2,\); \(M, 2\) is needed"),
        ({"points": [[1.0, 2.0]], "restarts": -1}, "restarts is -1"),
        ({"points": [[1.0, 2.0]], "neighbours": 1.5}, "neighbours is 1.5"),
        ({"points": [[1.0, 2.0]], "scale": "wide"}, "scale is 'wide'"),
        ({"points": [[1.0, 2.0]], "previous": 3}, "previous is int"),
        ({"points": [[1.0, 2.0]], "solver": "BFGS"}, "subspace_points has no keyword 'solver'; did you mean"),
    ],
)
def test_searches_that_cannot_be(given, says):
    with pytest.raises((InputError, mg.KeywordError), match=says):
        mg.subspace_points(NET, _plane(), **given)
