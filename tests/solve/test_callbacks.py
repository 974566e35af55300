"""Functions of the user's inside a solve, time limits, and what a result tells."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from scipy.optimize import OptimizeResult

import pymlpgf as mg
from pymlpgf import InputError, facts


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 2))
    return X, np.sin(2 * X[:, 0]) + 0.1 * rng.normal(size=120)


@pytest.fixture(scope="module")
def net(data):
    X, y = data
    return mg.Net(layers=[(3, "tanh", True), (1, "identity", True)], input=X, target=y)


@pytest.fixture(scope="module")
def start(net):
    return net.random_params(seed=1)


RUNS = {
    "Tsit5": lambda net, p, **given: mg.flow(net, p, alg="Tsit5", maxiterations_ode=20, **given),
    "Rodas5P": lambda net, p, **given: mg.flow(net, p, alg="Rodas5P", maxiterations_ode=20, **given),
    "GradientDescent": lambda net, p, **given: mg.flow(net, p, alg="GradientDescent", maxiterations_ode=20, **given),
    "batches": lambda net, p, **given: mg.flow(net, p, alg="Adam", batchsize=30, maxiterations_ode=20, **given),
    "Newton": lambda net, p, **given: mg.minimize(net, p, maxiterations_optim=20, **given),
    "BFGS": lambda net, p, **given: mg.minimize(net, p, optim_solver="BFGS", maxiterations_optim=20, **given),
}


# ---- callbacks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS)
def test_the_callback_sees_every_step(net, start, run):
    seen = []
    res = RUNS[run](net, start, callback=seen.append)
    assert [r.iteration for r in seen] == list(range(1, 21))
    phase = "minimize" if run in ("Newton", "BFGS") else "flow"
    assert {r.phase for r in seen} == {phase}
    for r in seen[:5] if run != "batches" else []:
        assert r.loss == r.fun == r["loss"] == pytest.approx(net.loss(r.x), rel=1e-12)
        assert r.gnorm == pytest.approx(np.abs(net.gradient(r.x)).max(), rel=1e-9)
    if phase == "flow":
        times = [r.t for r in seen]
        assert times == sorted(times)
        assert times[-1] == res.ode_t
        np.testing.assert_array_equal(seen[-1].x, res.ode_x)
    else:
        assert seen[-1].t is None
    assert len({r.x.ctypes.data for r in seen}) == 20  # copies, not views of one buffer
    same = RUNS[run](net, start)
    np.testing.assert_array_equal(res.x, same.x)  # looking on changes nothing
    assert pickle.loads(pickle.dumps(seen[0])).iteration == 1


@pytest.mark.parametrize("run", RUNS)
def test_stop_iteration_ends_the_run(net, start, run):
    def callback(r):
        if r.iteration == 5:
            raise StopIteration

    res = RUNS[run](net, start, callback=callback)
    stopped = res.optim_stopped_by if run in ("Newton", "BFGS") else res.ode_stopped_by
    assert stopped == mg.Stop.callback == "callback"
    assert (res.ode_iterations or res.optim_iterations) == 5
    assert res.message == mg.Stop.callback.advice
    assert not res.converged


def test_other_exceptions_are_raised_with_the_result(net, start):
    def callback(r):
        if r.phase == "minimize" and r.iteration == 3:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        mg.train(net, start, maxT=5, callback=callback)
    res = caught.value.result
    assert (res.ode_stopped_by, res.optim_stopped_by, res.optim_iterations) == ("maxT", "callback", 3)
    assert res.loss == pytest.approx(net.loss(res.x), rel=1e-12)
    assert net.loss(start) > res.loss

    def event(t, x):
        if t > 0.5:
            raise KeyError("late")
        return False

    with pytest.raises(KeyError) as caught_key:
        mg.flow(net, start, alg="Tsit5", event=event)
    assert caught_key.value.result.ode_stopped_by == "callback"
    assert 0 < caught_key.value.result.ode_t <= 0.5

    with pytest.raises(InputError, match=r"schedule\(7\) gave nan") as caught_input:
        mg.flow(net, start, alg="Adam", schedule=lambda k: 1.0 if k < 7 else math.nan)
    assert caught_input.value.result.ode_iterations == 7
    assert mg.flow(net, start, maxT=1).ode_stopped_by == "maxT"  # nothing is left behind


def test_a_stop_in_the_flow_is_not_followed_by_a_minimisation(net, start):
    phases = []

    def callback(r):
        phases.append(r.phase)
        if len(phases) == 4:
            raise StopIteration

    res = mg.train(net, start, callback=callback)
    assert (res.ode_stopped_by, res.optim_stopped_by) == ("callback", None)
    both = []
    mg.train(net, start, maxT=2, maxiterations_optim=3, callback=lambda r: both.append((r.phase, r.iteration)))
    flow = [k for phase, k in both if phase == "flow"]
    assert flow == list(range(1, len(flow) + 1))
    assert both[len(flow) :] == [("minimize", 1), ("minimize", 2), ("minimize", 3)]


# ---- events and observables ------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["Tsit5", "Rodas5P"])
def test_events_are_located(alg):
    # θ(t) = e^-2t reaches 1/4 at t = ln 2
    square = mg.Net(layers=[(1, "identity", False)], input=[[1.0]], target=[0.0])
    for event in (lambda t, x: x[0] - 0.25, lambda t, x: bool(x[0] < 0.25), lambda t, x: np.float64(x[0]) < 0.25):
        res = mg.flow(square, [1.0], alg=alg, abstol=1e-10, reltol=1e-10, event=event)
        assert res.ode_stopped_by == "event"
        assert res.success
        assert res.ode_t == pytest.approx(math.log(2), abs=1e-8)
        assert res.x[0] == pytest.approx(0.25, abs=1e-9)
    assert mg.flow(square, [1.0], alg=alg, event=lambda t, x: t >= 0).ode_t == 0


def test_events_of_discrete_methods(net, start):
    res = mg.flow(net, start, alg="GradientDescent", event=lambda t, x: t > 0.0955)
    assert (res.ode_iterations, res.ode_stopped_by) == (10, "event")
    both = mg.train(net, start, event=lambda t, x: t - 0.1, maxiterations_optim=3)
    assert (both.ode_stopped_by, both.optim_iterations) == ("event", 3)


@pytest.mark.parametrize("alg", ["auto", "Adam"])
def test_observables(net, start, data, alg, tmp_path):
    X, y = data
    test = (X[:30] + 0.1, y[:30])
    regularised = mg.Net(layers=net.layers, input=X, target=y, l2=1.0)
    res = mg.flow(
        net, start, alg=alg, maxT=1, maxiterations_ode=100,
        observables={"test set": test, "norm": np.linalg.norm, "first": lambda x: x[:1], "regularised": regularised},
    )  # fmt: skip
    points = res.trajectory.x
    assert len(points) > 5
    on_test = net.on(*test)
    np.testing.assert_allclose(res.trajectory["test set"], [on_test.loss(x) for x in points], rtol=1e-12)
    np.testing.assert_allclose(res.trajectory["norm"], np.linalg.norm(points, axis=1), rtol=1e-14)
    np.testing.assert_array_equal(res.trajectory["first"], points[:, 0])
    np.testing.assert_allclose(res.trajectory["regularised"], [regularised.loss(x) for x in points], rtol=1e-12)
    with pytest.raises(InputError, match="did you mean 'norm'"):
        res.trajectory["Norm"]
    loaded = mg.load(res.save(tmp_path / "run"))
    np.testing.assert_array_equal(loaded.trajectory["test set"], res.trajectory["test set"])
    assert loaded.trajectory.names.tolist() == ["test set", "norm", "first", "regularised"]


def test_the_data_loss_is_observed_without_regularisers(data):
    X, y = data
    net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=X, target=y, l2=3.0)
    p = net.random_params(seed=0)
    res = mg.flow(net, p, maxT=0.1, observables={"data": (X, y)})
    assert res.trajectory["data"][-1] == pytest.approx(res.data_loss, rel=1e-12)
    assert res.loss > 1.01 * res.data_loss


# ---- time ------------------------------------------------------------------------------------------------------


def test_time_limits_hold_although_steps_are_slow(run_python):
    """A step takes longer than the limit, compiling longer still: each run ends within a second of its limit."""
    run_python(
        """
    n, seconds = 300_000, 0
    while seconds <= 0.3:                                      # one step is slow enough to test something
        n *= 2
        net = make_net(n=n, width=50, features=4)
        p = net.random_params()
        begin = time.perf_counter()
        net.hvp(p, p.flat)
        seconds = time.perf_counter() - begin
    runs = (
        lambda: mg.flow(net, p, alg="Rodas5P", maxtime_ode=0.1), lambda: mg.minimize(net, p, maxtime_optim=0.1),
        lambda: mg.flow(net, p, alg="Tsit5", maxtime_ode=0.1),
        lambda: mg.flow(net, p, alg="Adam", batchsize=100, maxtime_ode=0.1),
    )
    for run in runs:
        res = run()
        assert (res.ode_stopped_by or res.optim_stopped_by) == "maxtime", res
        assert res.total_time < 1.1, res
        assert res.compile_time > 0 and np.isfinite(res.x).all() and run().compile_time == 0
    """
    )


# ---- results ---------------------------------------------------------------------------------------------------


def test_stops_are_the_cores():
    assert {reason.value: reason.advice for reason in mg.Stop} == facts.STOPS
    assert tuple(mg.Stop)[:10] == (
        "min_gnorm", "minloss", "roundoff", "maxT", "maxtime", "maxiterations", "patience", "callback", "interrupted",
        "diverged",
    )  # fmt: skip


def test_to_scipy(net, start):
    res = mg.train(net, start, maxT=1, maxiterations_optim=4)
    other = res.to_scipy()
    assert isinstance(other, OptimizeResult)
    np.testing.assert_array_equal(other.x, res.x)
    assert other.fun == res.loss
    assert (other.nfev, other.njev, other.nhev, other.nhvp) == (res.nfev, res.njev, res.nhev, res.nhvp)
    assert other.nit == res.ode_iterations + 4
    assert other.message == res.message
    assert list(mg.Stop)[other.status] == "maxiterations"


def test_a_result_is_continued_from_its_best_point(net, start):
    first = mg.flow(net, start, maxT=1)
    second = mg.flow(net, first, maxT=2)
    np.testing.assert_array_equal(second.init, first.x)
    assert second.trajectory.t[0] == 0
    assert mg.train(net, second, maxT=1, maxiterations_optim=20).loss < second.loss < first.loss


# ---- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"callback": 3}, "callback is 3"),
        ({"event": 1.0}, "event is 1.0"),
        ({"event": lambda t, x: None}, "event\\(t, x\\) gave None"),
        ({"event": lambda t, x: x}, "event\\(t, x\\) gave"),
        ({"observables": [len]}, "observables is"),
        ({"observables": {1: len}}, "the name 1"),
        ({"observables": {"a": 1}}, "'a' is 1"),
        ({"observables": {"a": lambda x: "text"}}, "'a' gave 'text'"),
        ({"observables": {"a": ([[1.0, 2.0]], [1.0, 2.0])}}, "target has shape"),
    ],
)
def test_bad_functions(net, start, given, message):
    with pytest.raises(InputError, match=message):
        mg.flow(net, start, **given)


def test_exceptions_before_the_run_are_the_users_own(net, start):
    with pytest.raises(ZeroDivisionError):
        mg.flow(net, start, observables={"a": lambda x: 1 / 0})
    with pytest.raises(ZeroDivisionError):
        mg.flow(net, start, event=lambda t, x: 1 / 0)
    small = mg.Net(layers=[(1, "identity", False)], input=[[1.0]], target=[0.0])
    with pytest.raises(InputError, match="13 parameters"):
        mg.flow(net, start, observables={"small": small})


def test_an_error_of_julia_tells_where_it_came_from(net, start, monkeypatch):
    def wrong():
        return net._core.tool("spectrum", {"k": "two"}, [start.flat], lambda answer: answer)

    with pytest.raises(mg.JuliaError, match="MethodError") as caught:
        wrong()
    assert "tools.jl" in caught.value.julia_traceback
    assert "tools.jl" not in str(caught.value)
    monkeypatch.setenv("PYMLPGF_DEBUG", "1")
    with pytest.raises(mg.JuliaError, match=r"tools\.jl"):
        wrong()
    with pytest.raises(InputError) as caught:
        net._core.tool("spectrum", {"k": 1}, [start.flat[:-1]], lambda answer: answer)
    assert "tools.jl" in caught.value.julia_traceback
