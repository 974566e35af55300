"""Flows against SciPy's integrators at tight tolerance, minima against SciPy's optimisers, and what a run reports."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import minimize as scipy_minimize

import pymlpgf as mg
from pymlpgf import InputError, KeywordError
from pymlpgf.commands.demo import diabetes, teacher_student
from pymlpgf.solve.options import OPTIM_SOLVERS


def student(N=200, width=3, teacher=2, seed=0, activation="softplus"):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, 2))

    def layers(k):
        return [(k, activation, True), (1, "identity", True)]

    model = mg.Net(layers=layers(teacher), input=X, target=np.zeros(N))
    truth = rng.normal(size=model.n_params)
    return mg.Net(layers=layers(width), input=X, target=model(truth)), truth


@pytest.fixture(scope="module")
def net():
    return student()[0]


@pytest.fixture(scope="module")
def start(net):
    return net.random_params(seed=1)


@pytest.fixture(scope="module")
def reference(net, start):
    """The flow by another integrator at tight tolerance, from our (separately verified) gradient and Hessian."""
    return solve_ivp(
        lambda t, x: -net.gradient(x), (0, 50), start.flat, method="Radau", rtol=1e-11, atol=1e-12,
        jac=lambda t, x: -net.hessian(x), dense_output=True,
    )  # fmt: skip


@pytest.mark.parametrize("alg", ["Tsit5", "Rodas5P", "auto"])
def test_flow_agrees_with_scipy(net, start, reference, alg):
    errors = []
    for tol in (1e-5, 1e-9):
        res = mg.flow(net, start, alg=alg, maxT=50, abstol=tol, reltol=tol, dense=True)
        assert res.ode_stopped_by == "maxT"
        assert res.ode_t == 50
        errors.append(np.abs(res.x - reference.y[:, -1]).max())
        times = np.linspace(0, 50, 201)
        assert np.abs(res.sol(times) - reference.sol(times).T).max() < 500 * tol
        points = np.abs(res.trajectory.x - reference.sol(res.trajectory.t).T).max()
        assert points < 500 * tol
    assert errors[0] < 500e-5
    assert errors[1] < 500e-9
    np.testing.assert_array_equal(res.sol(0.0), start.flat)
    # the rounding of a polynomial whose terms are of the size of the parameters
    np.testing.assert_allclose(res.sol(50.0), res.x, rtol=1e-14, atol=1e-15)


def test_flow_of_a_deep_network():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(77, 3))
    net = mg.Net(
        layers=[(4, "tanh", True), (3, "sigmoid2", False), (2, "identity", True)],
        input=X,
        target=rng.normal(size=(77, 2)),
    )
    p = net.random_params(seed=0)
    exact = solve_ivp(lambda t, x: -net.gradient(x), (0, 20), p.flat, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    for alg in ("Tsit5", "Rodas5P"):
        res = mg.flow(net, p, alg=alg, maxT=20, abstol=1e-10, reltol=1e-10)
        np.testing.assert_allclose(res.x, exact, atol=1e-8)


def test_tauinv_scales_time_and_freezes(net, start, reference):
    # The peer integrates the sum over samples: tauinv = N is its clock.
    fast = mg.flow(net, start, maxT=50 / 200, tauinv=200, abstol=1e-9, reltol=1e-9)
    np.testing.assert_allclose(fast.x, reference.y[:, -1], atol=1e-6)
    rates = np.ones(net.n_params)
    rates[[0, 5]] = 0
    rates[3] = 4
    res = mg.flow(net, start, maxT=5, tauinv=rates, abstol=1e-10, reltol=1e-10)
    tight = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-13}
    exact = solve_ivp(lambda t, x: -rates * net.gradient(x), (0, 5), start.flat, **tight)
    np.testing.assert_allclose(res.x, exact.y[:, -1], atol=1e-8)
    assert res.x[0] == start.flat[0]
    assert res.x[5] == start.flat[5]


@pytest.mark.parametrize(
    ("solver", "gnorm"),
    [
        ("auto", 1e-13),
        ("NewtonLBFGS", 1e-13),
        ("VariableProjection", 1e-13),
        ("NewtonTrustRegion", 1e-13),
        ("Newton", 1e-13),
        ("LevenbergMarquardt", 1e-13),
        ("NewtonKrylov", 1e-13),
        ("BFGS", 1e-8),
        ("LBFGS", 1e-8),
    ],
)
def test_minimum_agrees_with_scipy(solver, gnorm):
    net, truth = student(N=500, width=2, teacher=2, seed=3)
    begin = truth + 0.05 * np.random.default_rng(0).normal(size=truth.size)
    res = mg.minimize(net, begin, optim_solver=solver, maxtime_optim=5)
    derivatives = {"jac": net.gradient, "hess": net.hessian}
    other = scipy_minimize(net.loss, begin, **derivatives, method="trust-exact", options={"gtol": 1e-10})
    assert res.gnorm <= gnorm
    assert res.loss <= other.fun + 1e-18
    np.testing.assert_allclose(res.x, other.x, atol=1e-5)
    np.testing.assert_allclose(res.x, truth, atol=1e-5)
    assert res.gnorm == pytest.approx(np.abs(net.gradient(res.x)).max(), rel=1e-12, abs=1e-300)


def test_a_minimum_with_noise_left_over():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(300, 2))
    y = np.tanh(1.5 * X[:, 0]) - 0.5 * np.tanh(2 * X[:, 1] - X[:, 0]) + 0.3 * rng.normal(size=300)
    net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=X, target=y)
    for solver in ("auto", "NewtonTrustRegion", "BFGS"):
        res = mg.minimize(net, net.random_params(seed=2), optim_solver=solver, maxtime_optim=5)
        derivatives = {"jac": net.gradient, "hess": net.hessian}
        other = scipy_minimize(net.loss, res.x, **derivatives, method="trust-exact", options={"gtol": 1e-12})
        assert res.gnorm < (1e-7 if solver == "BFGS" else 1e-13)
        assert res.loss == pytest.approx(other.fun, rel=1e-12)
        assert net.hessian_spectrum(res.x)[0][0] > 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demos_student_ends_at_round_off(seed):
    net = teacher_student(seed=seed)
    start = net.random_params(seed=seed)
    res = mg.train(net, start, reltol=1e-4, maxiterations_ode=300, maxtime_ode=60, maxtime_optim=60)
    assert res.ode_loss > 1e-13  # the flow is not there yet
    assert res.loss < 1e-29
    assert np.abs(res.x).max() < 100  # a fit by weights that cancel would have lost its digits
    assert res.optim_stopped_by in ("roundoff", "patience")


def test_train_is_flow_then_minimize(net, start):
    res = mg.train(net, start, maxT=30, maxtime_optim=3)
    flow = mg.flow(net, start, maxT=30)
    np.testing.assert_array_equal(res.ode_x, flow.x)
    assert (res.ode_stopped_by, res.ode_iterations, res.ode_loss) == ("maxT", flow.ode_iterations, flow.ode_loss)
    assert res.loss <= res.ode_loss < net.loss(start)
    assert res.optim_solver == "auto"
    assert res.loss == net.loss(res.x)
    np.testing.assert_array_equal(res.init, start.flat)
    assert res.nfev > 0
    assert res.nhev > 0
    again = mg.train(net, res, maxT=1, maxtime_optim=0.2)
    np.testing.assert_array_equal(again.init, res.x)


def test_float32_runs_in_float32():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(100, 2)).astype(np.float32)
    net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=X, target=np.sin(X[:, 0]))
    res = mg.train(net, net.random_params(seed=0), maxT=20, maxtime_optim=1)
    assert res.x.dtype == res.trajectory.x.dtype == np.float32
    assert res.gnorm < 1e-4


# ---- stops -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason", "converged"),
    [
        ({"maxT": 1}, "maxT", False),
        ({"maxiterations_ode": 3}, "maxiterations", False),
        ({"maxtime_ode": 0}, "maxtime", False),
        ({"min_gnorm": 0.02}, "min_gnorm", True),
        ({"minloss": 0.05}, "minloss", True),
    ],
)
def test_flow_stops(net, start, options, reason, converged):
    res = mg.flow(net, start, alg="Rodas5P", **options)
    assert res.ode_stopped_by == reason
    assert res.converged is converged
    assert res.success is (converged or reason == "maxT")
    assert res.message.endswith(".")
    assert res.optim_stopped_by is None


@pytest.mark.parametrize("solver", OPTIM_SOLVERS)
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"maxiterations_optim": 3}, "maxiterations"),
        ({"maxtime_optim": 0}, "maxtime"),
        ({"min_gnorm": 1e-3}, "min_gnorm"),
        ({"minloss": 0.01}, "minloss"),
    ],
)
def test_minimize_stops(net, start, solver, options, reason):
    res = mg.minimize(net, start, optim_solver=solver, **options)
    assert res.optim_stopped_by == reason
    if reason == "min_gnorm":
        assert res.gnorm <= 1e-3
    assert res.ode_stopped_by is None


def test_unbounded_flow_ends_at_the_minimum():
    net = mg.Net(layers=[(1, "identity", False)], input=[[1.0], [2.0]], target=[3.0, 6.0])
    res = mg.flow(net, [0.0], alg="Rodas5P")
    assert res.x[0] == pytest.approx(3, abs=1e-12)
    assert math.isinf(res.ode_t) or res.ode_t > 10


@pytest.mark.parametrize("alg", ["auto", "Rodas5P", "QNDF"])
def test_a_loss_of_zero_is_no_wall(alg):
    """README's problem: steps fail where the loss is some 1e-32, since nothing is left to resolve."""
    X = np.random.default_rng(0).normal(size=(1000, 2))
    Y = np.tanh(X[:, 0] + X[:, 1]) - np.tanh(X[:, 0])
    net = mg.Net(layers=[(3, "tanh", True), (1, "identity", True)], input=X, target=Y)
    res = mg.flow(net, net.random_params(seed=0), alg=alg, maxtime_ode=60)
    assert (res.ode_stopped_by, res.converged) == ("roundoff", True)
    assert res.loss < 1e-30


def test_a_leap_beyond_what_floats_hold_is_no_divergence():
    # at round-off, where steps of 1e19 now and then lead to numbers that are not finite
    net = teacher_student(300, seed=3)
    res = mg.flow(net, net.random_params(seed=3), alg="Rodas5P", maxtime_ode=60)
    assert (res.ode_stopped_by, res.converged) == ("roundoff", True)
    assert res.gnorm < 1e-13


# ---- what a run reports ------------------------------------------------------------------------------------------


def test_trajectory_is_bounded_and_keeps_both_ends(net, start):
    res = mg.flow(net, start, alg="Tsit5", maxT=200, n_samples_trajectory=20)
    assert len(res.trajectory) <= 20
    assert res.trajectory.t[0] == 0
    assert res.trajectory.t[-1] == 200
    np.testing.assert_array_equal(res.trajectory.x[-1], res.x)
    assert res.trajectory.loss[3] == pytest.approx(net.loss(res.trajectory.x[3]), rel=1e-13)
    assert res.trajectory.gnorm[3] == pytest.approx(np.abs(net.gradient(res.trajectory.x[3])).max(), rel=1e-10)
    every = mg.flow(net, start, alg="Tsit5", maxT=200, save_everystep=True)
    assert len(every.trajectory) == every.ode_iterations + 1
    assert (np.diff(every.trajectory.loss) <= 1e-12).all()


@pytest.mark.parametrize("problem", [lambda: teacher_student(1000), diabetes], ids=["teacher-student", "diabetes"])
@pytest.mark.parametrize("alg", ["auto", "Tsit5"])
def test_lines_of_the_demo_miss_little(problem, alg):
    net = problem()
    options = {"alg": alg, "reltol": 1e-4, "maxiterations_ode": 1000}
    kept, every = (
        mg.flow(net, net.random_params(seed=0), save_everystep=all_steps, **options).trajectory
        for all_steps in (False, True)
    )
    assert 100 <= len(kept) <= len(every)
    assert not every.within.any()
    segment = np.searchsorted(kept.t, every.t[1:])
    for values, other, within in (
        (kept.loss, every.loss, kept.within[:, 0]),
        (kept.gnorm, every.gnorm, kept.within[:, 1]),
    ):
        lines = np.interp(np.log(every.t[1:]), np.log(kept.t[1:]), np.log(values[1:]))
        assert (np.abs(lines - np.log(other[1:])) <= within[segment] + 1e-9).all()
    assert kept.within.max() <= 0.05


def test_save_and_load(net, start, tmp_path):
    res = mg.train(net, start, maxT=5, maxtime_optim=0.2, dense=True)
    path = res.save(tmp_path / "new" / "run")
    assert path == tmp_path / "new" / "run.npz"
    assert [f.name for f in path.parent.iterdir()] == ["run.npz"]
    for other in (mg.load(path), pickle.loads(pickle.dumps(res))):
        assert repr(other) == repr(res)
        assert other.layers == res.layers
        assert other.message == res.message
        np.testing.assert_array_equal(other.trajectory.x, res.trajectory.x)
        np.testing.assert_array_equal(other.trajectory.within, res.trajectory.within)
        np.testing.assert_array_equal(other.sol(2.5), res.sol(2.5))
        assert other.to_dict().keys() == res.to_dict().keys()


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:200] + b"\xff" * 40 + b[240:]]
)
def test_a_damaged_file_is_refused(net, start, tmp_path, damage):
    path = mg.flow(net, start, maxT=1).save(tmp_path / "run.npz")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="damaged"):
        mg.load(path)
    with pytest.raises(InputError, match="does not exist"):
        mg.load(tmp_path / "nowhere.npz")


def test_no_code_is_loaded(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="damaged"):
        mg.load(path)


def test_dense_solution_refuses_other_times(net, start):
    res = mg.flow(net, start, maxT=1, dense=True)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        res.sol(1.5)
    assert mg.flow(net, start, maxT=1).sol is None


def test_progress_line(net, start, capfd):
    mg.flow(net, start, alg="Tsit5", maxT=1e4, maxtime_ode=0.4, verbosity=2, progress_interval=0.1)
    lines = capfd.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 6
    assert lines[0].startswith("flow: t = ")
    assert "loss" in lines[0]
    mg.flow(net, start, alg="Tsit5", maxT=1e4, maxtime_ode=0.1)
    assert capfd.readouterr().err == ""


# ---- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, p: mg.flow(net, p, alg="tsit5"), "did you mean 'Tsit5'"),
        (lambda net, p: mg.flow(net, p, alg=None), "unknown alg"),
        (lambda net, p: mg.minimize(net, p, optim_solver="Newtom"), "did you mean 'Newton'"),
        (lambda net, p: mg.flow(net, p, maxT=-1), "maxT is -1"),
        (lambda net, p: mg.flow(net, p, maxT="long"), "maxT is 'long'"),
        (lambda net, p: mg.flow(net, p, abstol=math.nan), "abstol is nan"),
        (lambda net, p: mg.flow(net, p, reltol=math.inf), "reltol is inf"),
        (lambda net, p: mg.flow(net, p, dt=0), "dt is 0"),
        (lambda net, p: mg.flow(net, p, tauinv=[1, 2]), "tauinv has shape"),
        (lambda net, p: mg.flow(net, p, tauinv=-1), "tauinv must be"),
        (lambda net, p: mg.train(net, p, maxtime_optim=-3), "maxtime_optim is -3"),
        (lambda net, p: mg.train(net, p, patience=0), "patience is 0"),
        (lambda net, p: mg.train(net, p, verbosity=9), "verbosity is 9"),
        (lambda net, p: mg.train(net, p.flat[:-1]), "this net has"),
        (lambda net, p: mg.train(net, p.flat * np.nan), "p contains NaN"),
        (lambda net, p: mg.train("net", p), "pymlpgf.Net is needed"),
    ],
)
def test_bad_runs(net, start, call, message):
    with pytest.raises(InputError, match=message):
        call(net, start)


def test_unknown_keyword(net, start):
    with pytest.raises(KeywordError, match="did you mean 'maxtime_ode'"):
        mg.train(net, start, max_time_ode=3)
