"""Runs that end in the middle, by kill -9 or Ctrl-C, and go on."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

import pymlpgf as mg
from pymlpgf import InputError
from pymlpgf.results.checkpoint import Checkpoint
from pymlpgf.results.problem import describe
from pymlpgf.solve.checkpointer import Checkpointer

PROBLEM = """
def problem():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20000, 2))
    y = np.tanh(1.5 * X[:, 0]) - 0.5 * np.tanh(2 * X[:, 1] - X[:, 0] + 0.3) + 0.3 * rng.normal(size=20000)
    layers = [(2, "tanh", True), (1, "identity", True)]
    net = mg.Net(layers=layers, input=X, target=y, l2=1e-6, merge=(0, 0, 1, 1e-7))
    return net, net.random_params(seed=2)
"""
exec(PROBLEM)
INTERVAL = 0.1
SLOW = {"alg": "Tsit5", "reltol": 1e-12, "abstol": 1e-12, "maxT": 60, "maxtime_optim": 60, "min_gnorm": 1e-12}


def state_at(problem, x, **fields):
    """The checkpoint of a run at its beginning."""
    zero = {"flow": 0, "minimize": 0}
    given = {"what": "flow", "phase": "flow", "t": 0.0, "iterations": zero, "seconds": zero, "options": {}, **fields}
    x = np.asarray(x)
    given = {"net": describe(problem), "layers": problem.layers, "init": x, **given}
    return Checkpoint(x=x, loss=1.0, gnorm=1.0, versions={}, **given)


@pytest.fixture(scope="module")
def uninterrupted():
    net, p = problem()  # noqa: F821
    return net, p, mg.train(net, p, **{**SLOW, "alg": "auto"})


#: a run that kills its process when a report of the solver satisfies a condition
DEADLY = """
from pymlpgf.solve.checkpointer import Checkpointer
update = Checkpointer.update

def deadly(self, phase, iteration, t, *rest):
    update(self, phase, iteration, t, *rest)
    if {condition}:
        print(time.time(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

Checkpointer.update = deadly
net, p = problem()
mg.train(net, p, checkpoint={path!r}, checkpoint_interval={interval}, verbosity=0, **{options!r})
"""


def killed_run(start_python, path, condition, interval, options):
    """The time at which a run was killed."""
    code = PROBLEM + DEADLY.format(condition=condition, path=str(path), interval=interval, options=options)
    return float(start_python(code).finish(rc=-9, stderr=None))


def test_kill_9_in_a_flow(start_python, tmp_path, uninterrupted, chance):
    net, p, whole = uninterrupted
    path = tmp_path / "run.npz"
    killed = killed_run(start_python, path, f"t > {chance.uniform(10, 40)}", INTERVAL, SLOW)
    assert killed - path.stat().st_mtime < INTERVAL + 1  # and a step, and the time that a busy machine takes
    assert [f.name for f in tmp_path.iterdir()] == ["run.npz"]
    state = mg.load(path)
    assert (state.phase, state.what) == ("flow", "train")
    assert 0 < state.t < 60
    assert killed - path.stat().st_mtime < INTERVAL + 2  # and the time that a kill and a step take
    assert [f.name for f in tmp_path.iterdir()] == ["run.npz"] or any(f.suffix == ".part" for f in tmp_path.iterdir())
    np.testing.assert_array_equal(state.init, p.flat)
    assert net.loss(state.x) == pytest.approx(state.loss, rel=1e-12)
    res = mg.resume(path)  # the net comes with the file
    assert res.ode_stopped_by == "maxT"
    assert res.ode_t == pytest.approx(60)
    assert res.trajectory.t[0] == state.t
    assert res.ode_time_run > state.seconds["flow"] > 0
    assert res.ode_iterations > state.iterations["flow"] > 0
    np.testing.assert_array_equal(res.init, p.flat)
    np.testing.assert_allclose(res.ode_x, whole.ode_x, atol=1e-6)
    assert res.loss == pytest.approx(whole.loss, rel=1e-12)
    np.testing.assert_allclose(res.x, whole.x, atol=1e-8)
    assert isinstance(mg.load(path), mg.TrainResult)
    np.testing.assert_array_equal(mg.resume(path).x, res.x)


def test_a_minimisation_that_ends_with_an_error(tmp_path, uninterrupted, monkeypatch):
    net, p, whole = uninterrupted
    options = {"maxT": 1, "optim_solver": "BFGS", "maxtime_optim": 60, "min_gnorm": 1e-9}
    update = Checkpointer.update

    def fail(self, phase, iteration, *rest):
        update(self, phase, iteration, *rest)
        time.sleep(0.06 * (phase == "minimize"))  # solvers report every 50 ms: now at each iteration
        if phase == "minimize" and iteration > 5:
            raise RuntimeError("power cut")

    monkeypatch.setattr(Checkpointer, "update", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        mg.train(net, p, checkpoint=tmp_path / "run", checkpoint_interval=1e-6, **options)  # the ending is added
    monkeypatch.undo()
    state = mg.load(tmp_path / "run.npz")
    assert (state.phase, state.what) == ("minimize", "train")
    assert state.iterations["minimize"] > 5
    res = mg.resume(tmp_path / "run.npz", net)
    assert res.ode_stopped_by is None
    assert res.optim_iterations > state.iterations["minimize"]
    assert res.loss == pytest.approx(whole.loss, rel=1e-9)
    np.testing.assert_array_equal(res.init, p.flat)


def test_ctrl_c_leaves_a_checkpoint(tmp_path, uninterrupted, monkeypatch):
    net, p, whole = uninterrupted
    path = tmp_path / "new" / "run.npz"

    def press(self, phase, iteration, t, *rest):
        if t > 5:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "update", press)
        res = mg.train(net, p, checkpoint=path, **SLOW)
    assert res.ode_stopped_by == "interrupted"
    state = mg.load(path)
    assert (state.phase, state.t) == ("flow", res.ode_t)
    np.testing.assert_array_equal(state.x, res.x)
    assert "flow at t=" in repr(state)
    again = mg.resume(path)
    np.testing.assert_allclose(again.x, whole.x, atol=1e-8)
    assert again.total_time > res.total_time


def test_limits_count_from_the_beginning(tmp_path):
    net = mg.Net(layers=[(1, "tanh", True), (1, "identity", True)], input=[[0.5], [1.0], [2.0]], target=[1.0, 0.0, 1.0])
    state_of = {}
    for name, limit in (("whole", 30), ("part", 10)):
        res = mg.flow(net, net.random_params(seed=0), alg="Tsit5", tauinv=[1.0, 2.0, 0.0, 1.0], maxiterations_ode=limit)
        state_of[name] = res
    path = tmp_path / "run.npz"
    mg.flow(
        net, net.random_params(seed=0), alg="Tsit5", tauinv=[1.0, 2.0, 0.0, 1.0], maxiterations_ode=30, checkpoint=path
    )
    assert mg.load(path).ode_iterations == 30
    part = state_of["part"]
    state = state_at(
        net, part.x, init=part.init, t=part.ode_t, net={}, tauinv=np.array([1.0, 2.0, 0.0, 1.0]),
        iterations={"flow": 10, "minimize": 0}, options={"alg": "Tsit5", "maxT": np.inf, "maxiterations_ode": 30.0},
    )  # fmt: skip
    state.save(path)
    with pytest.raises(InputError, match="holds no net"):
        mg.resume(path)
    res = mg.resume(path, net)
    assert res.ode_iterations == 30
    assert res.x[2] == part.x[2]  # frozen
    assert res.ode_t == pytest.approx(state_of["whole"].ode_t, rel=0.5)


def half(step):
    """A schedule of the user's."""
    return 0.9**step


@pytest.mark.parametrize(
    ("schedule", "wire"),
    [
        (mg.ExponentialDecay(0.9), {"exponential": 0.9}),
        (np.linspace(1, 0.1, 20), np.linspace(1, 0.1, 20).tolist()),
        (half, None),
    ],
)
def test_gradient_descent_goes_on_with_its_schedule(tmp_path, schedule, wire):
    net = mg.Net(layers=[(1, "tanh", True), (1, "identity", True)], input=[[0.5], [1.0], [2.0]], target=[1.0, 0.0, 1.0])
    p = net.random_params(seed=0)
    options = {"alg": "GradientDescent", "learning_rate": 0.3, "schedule": schedule}
    part, whole = (mg.flow(net, p, maxiterations_ode=n, **options) for n in (10, 30))
    path = tmp_path / "run.npz"
    saved = {"alg": "GradientDescent", "learning_rate": 0.3, "maxT": np.inf, "maxiterations_ode": 30.0}
    if wire is not None:
        saved["schedule"] = wire
    function = None if wire is not None else half
    state_at(
        net, part.x, t=part.ode_t, options=saved, iterations={"flow": 10, "minimize": 0},
        functions=() if function is None else ("schedule",),
    ).save(path)  # fmt: skip
    if function is not None:
        with pytest.raises(InputError, match="had schedule: give the same again"):
            mg.resume(path)
    res = mg.resume(path, schedule=function)
    np.testing.assert_allclose(res.ode_x, whole.ode_x, rtol=1e-12)
    assert (res.ode_iterations, res.ode_t) == (30, pytest.approx(whole.ode_t))


def test_classification_with_labels_comes_back(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 2)).astype(np.float32)
    net = mg.Net(
        layers=[(2, ("tanh", mg.Poly(0, 1, 0.5)), True), (3, "softmax", False)], input=X, loss="nll",
        weights=rng.random(30), target=rng.integers(0, 3, 30), l2=1e-3, dtype="float32",
    )  # fmt: skip
    path = tmp_path / "run.npz"
    p = net.random_params(seed=0)
    state_at(net, p, phase="minimize", what="minimize").save(path)
    twin = mg.load(path).make_net()
    assert twin.layers == net.layers
    assert twin.dtype == np.float32
    assert twin.loss(p) == net.loss(p)
    assert twin._core.fingerprint() == net._core.fingerprint()


def test_files_are_read_without_julia(run_python, tmp_path, uninterrupted):
    net, p, whole = uninterrupted
    result, state = tmp_path / "result.npz", tmp_path / "state.npz"
    whole.save(result)
    state_at(net, p, options={"maxT": np.inf}).save(state)
    out = run_python(
        f"""
        res, state = mg.load({str(result)!r}), mg.load({str(state)!r})
        print(res.loss, res.params["w1"].shape, state.options["maxT"], type(state).__name__, runtime.info())
        """,
        environment={"PYMLPGF_JULIA": "/nowhere/julia"},
    )
    assert out.split(" ", 1) == [str(whole.loss), "(2, 2) inf Checkpoint {'started': False}\n"]


def test_state_dict(tmp_path, uninterrupted):
    torch = pytest.importorskip("torch")
    net, _, whole = uninterrupted
    path = whole.to_torch(tmp_path / "model.pt")
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1)).double()
    module.load_state_dict(torch.load(path))
    X = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(module(torch.from_numpy(X)).detach().numpy(), net(whole.x, X), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda net, p, d: mg.train(net, p, checkpoint=3), InputError, "checkpoint is 3"),
        (
            lambda net, p, d: mg.train(net, p, checkpoint=d / "a", checkpoint_interval=0),
            InputError,
            "checkpoint_interval",
        ),
        (lambda net, p, d: mg.train(net, p, checkpoint="/proc/run.npz"), OSError, "/proc"),
        (lambda net, p, d: mg.resume(d / "nowhere.npz"), InputError, "does not exist"),
        (lambda net, p, d: mg.resume(d / "run.npz", mg.Net([(1, "tanh", True)], [[1.0]], [0.0])), InputError, "layers"),
        (lambda net, p, d: mg.resume(d / "run.npz", net.on([[1.0, 2.0]], [1.0])), InputError, "other data"),
    ],
)
def test_bad_input(tmp_path, uninterrupted, call, error, message):
    net, p, _ = uninterrupted
    state_at(net, p).save(tmp_path / "run.npz")
    with pytest.raises(error, match=message):
        call(net, p, tmp_path)
