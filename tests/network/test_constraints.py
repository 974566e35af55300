"""Frozen and tied parameters, θ = B z + c: against PyTorch with the same tying and SciPy's minima, in every solver."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

import pymlpgf as mg
from pymlpgf import InputError
from pymlpgf.solve.options import FLOW_ALGORITHMS, OPTIM_SOLVERS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2))
Y = np.tanh(X @ [1.0, -0.5]) + 0.3 * RNG.normal(size=40)
LAYERS = [(3, "tanh", True), (1, "identity", True)]
NET = mg.Net(layers=LAYERS, input=X, target=Y, l2=0.01)
P = np.array(NET.random_params(seed=3))
# w1 0…5, b1 6…8, w2 9…11, b2 12
TIE = [("w1[0]", "-w1[2]"), ("b1[0]", "-b1[2]"), ("w2[0, 0]", "-w2[0, 2]")]
CASES = {
    "frozen": {"freeze": ["w2", "b1[1]"]},
    "tied": {"tie": TIE},
    "both": {"freeze": 12, "tie": [("w1[0, 0]", "w1[1, 1]", "-w2[0, 1]")]},
}


def theta_of(case, z, torch):
    p = torch.tensor(P)
    if case == "frozen":
        return torch.cat([z[:7], p[7:8], z[7:8], p[9:12], z[8:]])
    if case == "tied":  # w1[0] = -w1[2]: 0, 1 and -4, -5; b1: 6 and -8; w2: 9 and -11
        w, b, v, c = z[:4], z[4:6], z[6:8], z[8:]
        return torch.cat([w, -w[:2], b, -b[:1], v, -v[:1], c])
    return torch.cat([z[:3], z[:1], z[3:8], z[8:9], -z[:1], z[9:], p[12:]])


def loss_of(theta, torch):
    W, b, v, c = theta[:6].reshape(3, 2), theta[6:9], theta[9:12], theta[12]
    f = torch.tanh(torch.tensor(X) @ W.T + b) @ v + c
    return ((f - torch.tensor(Y)) ** 2).mean() + 0.005 * (theta**2).sum()


@pytest.mark.parametrize("case", CASES)
def test_derivatives_are_those_of_pytorch_with_the_same_tying(case):
    torch = pytest.importorskip("torch", reason="PyTorch is the independent source of derivatives")
    net = mg.ConstrainedNet(NET, P, **CASES[case])
    z = np.random.default_rng(1).normal(size=net.n_params)
    start = torch.tensor(z)

    def value(z):
        return loss_of(theta_of(case, z, torch), torch)

    np.testing.assert_array_equal(net.embed(z).flat, theta_of(case, start, torch).numpy())
    gradient = torch.autograd.functional.jacobian(value, start).numpy()
    hessian = torch.autograd.functional.hessian(value, start).numpy()
    assert net.loss(z) == pytest.approx(value(start).item(), rel=1e-14)
    np.testing.assert_allclose(net.gradient(z), gradient, rtol=0, atol=1e-14 * np.abs(gradient).max())
    np.testing.assert_allclose(net.hessian(z), hessian, rtol=0, atol=1e-13 * np.abs(hessian).max())
    np.testing.assert_array_equal(net.hessian(z), net.hessian(z).T)
    np.testing.assert_allclose(net.hvp(z, gradient), hessian @ gradient, rtol=1e-12)
    np.testing.assert_allclose(net.extreme_eigenvalues(z, 2), np.linalg.eigvalsh(hessian)[[0, -1]], rtol=1e-10)
    np.testing.assert_allclose(net.hessian_spectrum(z)[0], np.linalg.eigvalsh(hessian), rtol=1e-10)


def scipy_minimum(p, keywords):
    """The nearest point to ``p`` that obeys the constraint, SciPy's minimum from there, and the matrix B."""
    net = mg.ConstrainedNet(NET, p, **keywords)
    B, c = net.B.toarray(), net.c
    z0 = np.linalg.lstsq(B, p - c, rcond=None)[0]
    found = scipy.optimize.minimize(
        lambda z: NET.loss(B @ z + c), z0, jac=lambda z: B.T @ NET.gradient(B @ z + c),
        hess=lambda z: B.T @ NET.hessian(B @ z + c) @ B, method="trust-exact", options={"gtol": 1e-12},
    )  # fmt: skip
    return B @ z0 + c, B @ found.x + c, B


GENERAL = {"constraint": (scipy.sparse.csr_array(RNG.normal(size=(13, 4)) * (RNG.random((13, 4)) < 0.5)), P)}


@pytest.mark.parametrize("keywords", [CASES["frozen"], CASES["tied"], GENERAL], ids=["frozen", "tied", "general"])
def test_minima_are_those_of_scipy(keywords):
    near = mg.flow(NET, P, maxT=100, **keywords).x + 1e-3  # so near that it is the same minimum for all
    start, end, B = scipy_minimum(near, keywords)
    for solver in set(OPTIM_SOLVERS) - {"VariableProjection"}:  # which knows no l2
        res = mg.minimize(NET, near, optim_solver=solver, **keywords)
        np.testing.assert_allclose(res.init, start, rtol=0, atol=1e-14)
        assert res.loss == pytest.approx(NET.loss(end), abs=1e-13), solver
        np.testing.assert_allclose(res.x, end, rtol=0, atol=1e-6)
        assert res.gnorm < 1e-14
        assert res.gnorm == pytest.approx(np.abs(B.T @ NET.gradient(res)).max(), abs=1e-15)
        assert res.data_loss == pytest.approx(NET.data_terms(res)[0], rel=1e-14)
    data = B.T @ (NET.gradient(res) - 0.01 * res.x)
    assert res.data_gnorm == pytest.approx(np.abs(data).max(), rel=1e-9)
    found = mg.classify(NET, res, **keywords)
    assert found.kind == "minimum"
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(B.T @ NET.hessian(res) @ B), rtol=1e-9)
    polished = mg.polish(NET, res, digits=25, **keywords)
    assert polished.converged
    np.testing.assert_allclose(polished.x, res.x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("keywords", [CASES["frozen"], CASES["tied"], CASES["both"]], ids=["frozen", "tied", "both"])
def test_variable_projection_finds_the_least_squares_of_scipy(keywords):
    net = mg.ConstrainedNet(NET.replace(l2=0), P, **keywords)
    B, c = net.B.toarray(), net.c
    found = scipy.optimize.least_squares(
        lambda z: net(z)[:, 0] - Y, net.coordinates(P), jac=lambda z: net.jacobian(z)[:, 0], method="lm",
        xtol=1e-15, ftol=1e-15, gtol=1e-15,
    )  # fmt: skip
    res = mg.minimize(net, B @ found.x + c + 1e-3 * B.sum(1), optim_solver="VariableProjection")
    assert res.loss == pytest.approx(2 * found.cost / len(Y), rel=1e-12)
    np.testing.assert_allclose(net(res), net(found.x), atol=1e-6)
    assert res.gnorm < 1e-12


def test_flows_are_those_of_the_coordinates():
    net = mg.ConstrainedNet(NET, tie=TIE)
    B, z0 = net.B.toarray(), net.coordinates(P)
    reference = scipy.integrate.solve_ivp(
        lambda t, z: -B.T @ NET.gradient(B @ z), (0, 3), z0, method="DOP853", rtol=1e-11, atol=1e-11
    ).y[:, -1]
    for alg in FLOW_ALGORITHMS:
        res = mg.flow(NET, P, alg=alg, tie=TIE, maxT=3, abstol=1e-8, reltol=1e-8, dense=True)
        np.testing.assert_allclose(res.x, B @ reference, atol=1e-6)
        np.testing.assert_allclose(res.sol(3.0), res.x, atol=1e-9)
        np.testing.assert_array_equal(res.trajectory.x[0], B @ z0)
        np.testing.assert_array_equal(res.trajectory.x[:, :2], -res.trajectory.x[:, 4:6])
    res = mg.flow(NET, P, alg="GradientDescent", learning_rate=1e-3, tie=TIE, maxT=3)
    np.testing.assert_allclose(res.x, B @ reference, atol=2e-3)


def test_a_constrained_net_goes_where_nets_go():
    net = mg.ConstrainedNet(NET, P, freeze="w2")
    for run in (
        mg.flow(net, P, maxT=1),
        mg.flow(net, net.coordinates(P), maxT=1),
        mg.flow(NET, P, maxT=1, freeze="w2"),
    ):
        np.testing.assert_array_equal(run.x[9:12], P[9:12])
        np.testing.assert_array_equal(run.x, mg.flow(net, P, maxT=1).x)
    res = mg.train(net, P, maxT=1)
    assert net.loss(res) == res.loss == NET.loss(res)
    assert mg.classify(net, res).kind == "minimum" == mg.classify(NET, res, freeze="w2").kind
    assert mg.spectrum_along(net, net.coordinates(res.trajectory.x)).shape == (len(res.trajectory), 10)
    copy = pickle.loads(pickle.dumps(net))
    z = net.coordinates(res)
    np.testing.assert_array_equal(copy.hessian(z), net.hessian(z))
    assert net.replace(l2=0).loss(z) == NET.replace(l2=0).loss(res)
    assert net.on(X[:5], Y[:5]).loss(z) == NET.on(X[:5], Y[:5]).loss(res)
    assert net.loss(z, X[:5], Y[:5]) == NET.loss(res, X[:5], Y[:5])
    np.testing.assert_array_equal(net(z), NET(res))
    np.testing.assert_allclose(net.jacobian(z), NET.jacobian(res) @ net.B.toarray())
    assert net.unconstrained is NET
    assert net.embed(net.random_params(seed=3)).flat.tolist() == P.tolist()


def test_functions_and_checkpoints_see_parameters(tmp_path):
    seen = []
    keywords = {"freeze": "w2", "tie": [("b1[0]", "b1[1]")], "abstol": 1e-8, "reltol": 1e-8}
    res = mg.flow(
        NET, P, maxT=2, **keywords, callback=lambda r: seen.append(r.x), event=lambda t, x: x[0] - 1e9,
        observables={"last": lambda x: x[12], "other": NET},
    )  # fmt: skip
    assert len(seen) > 3
    assert all((x[9:12] == P[9:12]).all() and x[6] == x[7] for x in seen)
    np.testing.assert_array_equal(res.trajectory["last"], res.trajectory.x[:, 12])
    np.testing.assert_allclose(res.trajectory["other"], res.trajectory.loss)
    path = tmp_path / "run.npz"

    def stop(state):
        if state.iteration == 5:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        mg.flow(NET, P, maxT=2, callback=stop, checkpoint=path, checkpoint_interval=1e-9, **keywords)
    resumed = mg.resume(path, callback=lambda state: None)
    np.testing.assert_allclose(resumed.x, res.x, rtol=1e-5)
    np.testing.assert_array_equal(resumed.x[9:12], P[9:12])
    assert resumed.x[6] == resumed.x[7]
    assert resumed.constraint == res.constraint


@pytest.mark.parametrize(
    "constraint", [{"freeze": "w2", "tie": [("b1[0]", "-b1[1]")]}, {"constraint": (np.eye(13)[:, 4:], P)}]
)
def test_a_result_holds_its_constraint(tmp_path, constraint):
    res = mg.minimize(NET, P, maxiterations_optim=5, **constraint)
    again = mg.load(res.save(tmp_path / "run"))
    assert again.constraint == res.constraint == mg.ConstrainedNet(NET, P, **constraint).constraint
    longer = mg.minimize(again.net(), again, constraint=again.constraint)
    whole = mg.minimize(NET, res, **constraint)
    np.testing.assert_array_equal(longer.x, whole.x)
    assert longer.constraint == res.constraint
    if "freeze" in constraint:  # what the keywords take
        assert res.constraint["freeze"] == [9, 10, 11]
        assert mg.minimize(NET, res, **res.constraint, maxiterations_optim=1).constraint == res.constraint
    assert mg.minimize(NET, P, maxiterations_optim=1).constraint is None
    with pytest.raises(mg.InputError, match="not the constraint of a result about such a net"):
        mg.flow(mg.Net(layers=[(1, "tanh", False)], input=X, target=Y), [0.0] * X.shape[1], constraint=res.constraint)
    for other in ({}, {"freeze": [13], "tie": []}, {"freeze": [], "tie": []}, {"freeze": [1]}):
        with pytest.raises(mg.InputError, match="not the constraint of a result"):
            mg.flow(NET, P, constraint=other)


def test_frozen_by_time_constants_is_frozen():
    rates = np.ones(13)
    rates[9:12] = 0
    a, b = mg.flow(NET, P, maxT=2, tauinv=rates), mg.flow(NET, P, maxT=2, freeze="w2")
    np.testing.assert_array_equal(a.x, b.x)
    assert a.gnorm == b.gnorm
    assert a.data_gnorm < 1
    both = mg.flow(NET, P, maxT=2, tauinv=rates, tie=[("b1[0]", "b1[1]")])
    assert (both.x[9:12] == P[9:12]).all()
    assert both.x[6] == both.x[7]
    assert mg.flow(NET, P, tauinv=0).ode_stopped_by == "min_gnorm"


def test_infinite_nets():
    layers = [(2, "relu", False), (1, "identity", False)]
    teacher = mg.TeacherNet(layers=layers, params=[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], n_features=2)
    net = mg.InfiniteNet(teacher, layers)
    p = [0.9, 0.2, 0.1, 0.8, 1.0, 1.0]
    committee = mg.minimize(net, p, freeze="w2")  # output weights fixed at one
    np.testing.assert_allclose(committee.x, [1, 0, 0, 1, 1, 1], atol=1e-7)
    assert mg.classify(net, p).nullity >= 0
    con = mg.ConstrainedNet(net, p, freeze="w2")
    np.testing.assert_array_equal(con.hessian(p), net.hessian(p)[:4, :4])
    with pytest.raises(InputError, match="Gauss"):
        mg.minimize(net, p, freeze="w2", optim_solver="LevenbergMarquardt")


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        ("w1[1]", [2, 3]), ("w1[:, 0]", [0, 2, 4]), ("w1[-1, 1]", [5]), ("b1[::2]", [6, 8]), (["b2", 0], [0, 12]),
        ([3, 1], [1, 3]), (np.arange(13) > 10, [11, 12]), ([True] + [False] * 12, [0]), (np.array([4, 5]), [4, 5]),
        ("p[2:4]", [2, 3]),
    ],
)  # fmt: skip
def test_names(freeze, frozen):
    net = mg.ConstrainedNet(NET, P, freeze=freeze)
    moved = net.embed(np.full(net.n_params, 100.0)).flat != 100
    np.testing.assert_array_equal(np.flatnonzero(moved), frozen)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"freeze": "w3"}, "freeze names 'w3'; w1, b1, w2, b2, p"),
        ({"freeze": "w1[3]"}, r"freeze names 'w1\[3\]'; w1 has shape"),
        ({"freeze": "w1[x]"}, "is no index"),
        ({"freeze": 13}, "names the parameter 13; this net has 0 to 12"),
        ({"freeze": np.ones(3, bool)}, r"mask of shape \(3,\); \(13,\) is needed"),
        ({"freeze": "p"}, "all 13 parameters are frozen"),
        ({"tie": ("w1[0]", "w1[1]")}, "a list of groups is needed"),
        ({"tie": [("w1[0]", "b1")]}, r"'w1\[0\]' with 2 and 'b1' with 3"),
        ({"tie": [("w1[0]",)]}, "two members at least"),
        ({"tie": [("b2", "-b2")]}, "tied to its own opposite"),
        ({"tie": [(0, 1)], "freeze": 1}, r"p\[1\] is frozen and p\[0\], which is tied to it, is not"),
        ({"tie": [(0, 1), (1, 2)], "freeze": 0}, r"p\[0\] is frozen and p\[1\]"),
        ({"tie": "unit_norm"}, "a fixed norm is not linear"),
        ({"constraint": "unit norm"}, "a fixed norm is not linear"),
        ({"constraint": np.ones((13, 1))}, r"a pair \(B, c\)"),
        ({"constraint": (np.ones((12, 1)), None)}, "the net has 13 parameters"),
        ({"constraint": (np.ones((13, 2)), None)}, "linearly dependent"),
        ({"constraint": (np.ones((13, 1)), None), "freeze": 1}, "B and c describe all of it"),
    ],
)
def test_what_cannot_be_is_refused(keywords, message):
    with pytest.raises(InputError, match=message):
        mg.minimize(NET, P, **keywords)


def test_other_refusals():
    net = mg.ConstrainedNet(NET, tie=TIE)
    for call, message in (
        (lambda: mg.classify(NET, P, tie=TIE), "does not obey the constraint"),
        (lambda: net.loss(mg.Params(P, [(2, 3, True), (3, 1, True)])), "does not obey the constraint"),
        (lambda: mg.ConstrainedNet(NET, freeze=1), "p is missing"),
        (lambda: mg.ConstrainedNet(NET), "nothing is constrained"),
        (lambda: mg.ConstrainedNet(net, tie=TIE), "a net without constraints"),
        (lambda: mg.minimize(net, P, freeze=1), "constrained already"),
        (lambda: net.hessian_blocks(P[:9]), "several layers"),
        (lambda: mg.follow(net, mg.minimize(net, P), "l2", bounds=(0, 0.1)), r"give net.replace\(l2=…\) as to"),
        (
            lambda: mg.InfiniteNet(mg.TeacherNet(layers=LAYERS, params=P, n_features=2), net),
            "constrain the InfiniteNet of student.unconstrained instead",
        ),
        (lambda: mg.flow(NET, P, tie=TIE, tauinv=np.arange(13) + 1.0), "moves together"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_tools_know_what_a_result_obeys():
    results = [mg.minimize(NET, NET.random_params(seed=seed), freeze="w2") for seed in range(2)]
    found = mg.minima_catalogue(NET, results)
    assert found.kind == [mg.classify(NET, r, constraint=r.constraint).kind for r in found.representatives]
    assert "not a fixed point" not in found.kind
    net = mg.ConstrainedNet(NET, P, freeze="w2")
    flow = mg.flow(net, P, maxT=2)
    values = mg.spectrum_along(net, flow)
    assert values.shape == (len(flow.trajectory), net.n_params)
    np.testing.assert_allclose(values[-1], net.hessian_spectrum(flow)[0], atol=1e-12)
    assert isinstance(mg.saddle_passages(net, flow), list)


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (np.array([1] + 12 * [0]), "names the parameter 0 more than once; a mask has truth values"),
        ({"w1": True}, "names, indices or a mask are needed"),
        (slice(0, 3), "names, indices or a mask are needed"),
    ],
)
def test_what_freezes_nothing(freeze, message):
    with pytest.raises(mg.InputError, match=message):
        mg.flow(NET, P, freeze=freeze)
    assert mg.ConstrainedNet(NET, P, freeze={"w2"}).constraint == mg.ConstrainedNet(NET, P, freeze="w2").constraint
    assert mg.ConstrainedNet(NET, P, freeze=np.array(["w2"])).n_params == 10


@pytest.mark.parametrize("alg", ["Tsit5", "Adam"])
def test_recorded_eigenvalues_are_those_of_the_coordinates(alg):
    B = np.random.default_rng(3).normal(size=(13, 4))
    ends = {"ends": mg.Eigenvalues(largest=1, smallest=1), "norms": mg.UnitNorms()}
    for rule in ({"freeze": "w2"}, {"tie": TIE, "freeze": "b2"}, {"constraint": (B, None)}):
        net = mg.ConstrainedNet(NET, P, **rule)
        run = {"alg": alg, "maxiterations_ode": 3, "save_everystep": True, "observables": ends}
        for res in (mg.flow(NET, P, **rule, **run), mg.flow(net, P, **run)):
            for x, found, norms in zip(res.trajectory.x, res.trajectory["ends"], res.trajectory["norms"], strict=True):
                expected = np.linalg.eigvalsh(net.B.T @ NET.hessian(x) @ net.B)
                np.testing.assert_allclose(found, expected[[0, -1]], atol=2e-8 * abs(expected).max())
                W, b = NET.params(x).weights[0], NET.params(x).biases[0]
                np.testing.assert_allclose(norms, np.hypot(np.linalg.norm(W, axis=1), b))
    with pytest.raises(InputError, match="1 to 4 in all are possible"):
        mg.flow(NET, P, constraint=(B, None), observables={"ends": mg.Eigenvalues(largest=5)})


def test_units_of_a_constrained_net():
    """They are those of the network at the point that coordinates stand for."""
    net = mg.ConstrainedNet(NET, P, freeze="w2")
    results = [mg.minimize(net, NET.random_params(seed=seed)) for seed in range(4)]
    points = [r.x for r in results]
    expected = mg.compare_neurons(NET, points[0], NET, points[1])
    for p, q in (results[:2], [net.coordinates(r) for r in results[:2]]):
        np.testing.assert_array_equal(mg.compare_neurons(net, p, net, q).angle, expected.angle)
    np.testing.assert_array_equal(mg.cluster_neurons(net, results).labels, mg.cluster_neurons(NET, points).labels)
    path = mg.flow(net, P, maxT=1)
    np.testing.assert_array_equal(mg.neurons_along(net, path).incoming, mg.neurons_along(NET, path).incoming)
    # Frozen output weights 1, 1, -1: the first two units may be exchanged, which the constraint allows.
    held = P.copy()
    held[9:12] = [1, 1, -1]
    net = mg.ConstrainedNet(NET, held, freeze="w2")
    a = NET.params(net.embed(net.random_params(seed=5)).flat.copy())
    b = NET.params(a.flat.copy())
    b.weights[0][[0, 1]], b.biases[0][[0, 1]] = a.weights[0][[1, 0]], a.biases[0][[1, 0]]
    assert mg.distinct_minima(net, [a, net.coordinates(b), P]).labels.tolist()[:2] in ([0, 0], [1, 1])
    assert len(mg.distinct_minima(net, [a, b, net.random_params(seed=6)])) == 2
    found = mg.minima_catalogue(net, [mg.minimize(net, p) for p in (a, b)])
    assert (len(found), found.kind) == (1, [mg.classify(net, found.representatives[0]).kind])


def test_nets_of_other_widths_keep_their_constraint():
    """By the names of parameters: those of the unit that comes are free, those of the one that goes are gone."""
    rule = {"freeze": ["w2[0, 1]", "b2"], "tie": [("w1[0]", "-w1[2]"), ("b1[0]", "b1[1]")]}
    net = mg.ConstrainedNet(NET, P, **rule)
    p = net.embed(net.random_params(seed=4))
    wide, q = mg.grow_net(net, p, incoming=[1.0, 2.0, 3.0])
    same = mg.ConstrainedNet(wide.unconstrained, q, **rule)
    assert wide.constraint == {"freeze": [13, 16], "tie": [["p[0]", "-p[4]"], ["p[1]", "-p[5]"], ["p[8]", "p[9]"]]}
    np.testing.assert_array_equal(wide.B.toarray(), same.B.toarray())
    np.testing.assert_array_equal(wide.c, same.c)
    assert wide(q).tolist() == net(p).tolist()
    res = mg.minimize(wide, q)
    assert res.loss < mg.minimize(net, p).loss
    assert (res.x[13], res.x[16]) == (p.flat[10], p.flat[12])
    narrow, back = mg.shrink_net(wide, q, 3)
    np.testing.assert_array_equal(back.flat, p.flat)
    np.testing.assert_array_equal(narrow.B.toarray(), net.B.toarray())
    less = mg.shrink_net(net, p, 0)[0]  # of a tie one is left
    assert less.constraint == {"freeze": [6, 8], "tie": []}
    general = mg.ConstrainedNet(NET, constraint=(np.random.default_rng(5).normal(size=(13, 4)), P))
    wide, q = mg.grow_net(general, general.random_params())
    assert wide.n_params == 8
    np.testing.assert_array_equal(np.delete(wide.B.toarray(), [6, 7, 11, 15], axis=0)[:, :4], general.B.toarray())
    with pytest.raises(InputError, match="without its constraint"):
        mg.shrink_net(net, p, 0, into=1)
    twins = mg.ConstrainedNet(NET, tie=[("w1[0]", "w1[1]"), ("b1[0]", "b1[1]")])
    p = twins.embed(twins.random_params(seed=4))
    merged, q = mg.merge_neurons(twins, p, [[0, 1]])
    assert type(merged) is mg.Net  # nothing is tied any more
    np.testing.assert_allclose(merged(q), NET(p), rtol=1e-13)
    with pytest.raises(InputError, match="without its constraint"):
        mg.merge_neurons(mg.ConstrainedNet(NET, P, freeze="w2"), P, [[0, 1]])


def test_alignment_where_the_constraint_allows_it():
    held = P.copy()
    held[9:12] = [1, 1, -1]
    net = mg.ConstrainedNet(NET, held, freeze="w2")
    a = net.embed(net.random_params(seed=5))
    b = NET.params(a.flat.copy())
    b.weights[0][[0, 1]], b.biases[0][[0, 1]] = a.weights[0][[1, 0]], a.biases[0][[1, 0]]
    np.testing.assert_array_equal(mg.align(net, b, net.coordinates(a)).flat, a.flat)
    c = NET.params(a.flat.copy())
    c.weights[0][[0, 2]], c.biases[0][[0, 2]] = -a.weights[0][[2, 0]], -a.biases[0][[2, 0]]
    np.testing.assert_array_equal(mg.align(net, c, a).flat, a.flat)
    held[9:12] = [1, 2, 3]
    net = mg.ConstrainedNet(NET, held, freeze="w2")
    a, b = (net.embed(10 * net.random_params(seed=5)) for _ in range(2))
    b.weights[0][[0, 1]], b.biases[0][[0, 1]] = a.weights[0][[1, 0]], a.biases[0][[1, 0]]
    with pytest.raises(InputError, match="without its constraint"):
        mg.align(net, b, a)


def test_branches_and_subspaces_of_constrained_nets():
    net = mg.ConstrainedNet(NET, P, freeze="b2", tie=[("b1[0]", "b1[1]")])
    res = mg.minimize(net, mg.flow(net, P, maxT=100))
    stronger = net.replace(l2=0.02)
    branch = mg.follow(net, res, stronger, verbosity=0).branches[0]
    assert branch.ended == "bounds"
    end = branch.x[-1] if branch.parameter[-1] == 1 else branch.x[0]
    assert np.abs(stronger.gradient(end)).max() < 1e-9
    np.testing.assert_allclose(stronger.embed(end).flat, mg.minimize(stronger, end).x, atol=1e-7)
    z = net.coordinates(res)
    plane = mg.LinearSubspace(net, z, np.eye(len(z))[0], np.eye(len(z))[5])
    grid = mg.loss_grid(net, plane, [0.0, 0.3], [0.0, -0.2])
    np.testing.assert_allclose(grid[1, 1], net.loss(z + 0.3 * np.eye(len(z))[0] - 0.2 * np.eye(len(z))[5]), rtol=1e-14)
    moved = mg.subspace_minloss(net, plane, [0.1, 0.0], verbosity=0)
    assert res.loss < moved.loss < net.loss(plane.point([0.1, 0.0]))


def test_single_precision():
    net = mg.Net(layers=LAYERS, input=X.astype(np.float32), target=Y.astype(np.float32))
    held = mg.ConstrainedNet(net, net.random_params(), freeze="b2")
    z = held.random_params(seed=1)
    assert mg.channels(held, z) == []
    limit = held.limit([(0, 1)])
    assert limit.from_limit(z, 0.1).flat.dtype == np.float32
    assert held.loss(limit.from_limit(z, 0.1)) == pytest.approx(limit.at_distance(0.1).loss(z), rel=1e-5)
