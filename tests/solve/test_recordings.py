"""What is recorded in Julia along a run, and derivatives that a callback asks for while it lasts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.sparse.linalg import eigsh

import pymlpgf as mg
from pymlpgf import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2))
Y = np.sin(2 * X[:, 0]) + 0.1 * RNG.normal(size=60)


@pytest.fixture(scope="module")
def net():
    return mg.Net(layers=[(4, "tanh", True), (1, "identity", True)], input=X, target=Y)


@pytest.mark.parametrize("options", [{"alg": "GradientDescent", "learning_rate": 0.05}, {"alg": "auto"}])
def test_recordings(net, options):
    p = net.random_params(seed=0)
    V = RNG.normal(size=(2, net.n_params))
    teacher = mg.TeacherNet(layers=[(2, "tanh", True), (1, "identity", True)], params=np.arange(9.0), n_features=2)
    res = mg.flow(net, p, maxT=2, save_everystep=True, **options, observables={
        "ends": mg.Eigenvalues(largest=2, smallest=1), "sharpness": mg.Eigenvalues(), "norm": mg.ParameterNorm(),
        "along": mg.Projections(V, origin=p), "in": mg.UnitNorms(), "out": mg.UnitNorms(outgoing=True),
        "pairs": mg.UnitCosines(), "one": mg.UnitCosines(pairs=[(3, 1)]), "teacher": mg.UnitCosines(teacher=teacher),
        "plain": np.sum,
    })  # fmt: skip
    seen = res.trajectory
    M = len(seen)
    assert M > 10
    spectra = mg.spectrum_along(net, res)
    scale = np.abs(spectra).max()
    np.testing.assert_allclose(seen["ends"], spectra[:, [0, -2, -1]], atol=2e-8 * scale)
    np.testing.assert_allclose(seen["sharpness"], spectra[:, -1], atol=2e-8 * scale)
    np.testing.assert_allclose(seen["norm"], np.linalg.norm(seen.x, axis=1))
    np.testing.assert_allclose(seen["along"], (seen.x - p.flat) @ V.T, atol=1e-12)
    np.testing.assert_allclose(seen["plain"], seen.x.sum(1), atol=1e-12)
    along = mg.neurons_along(net, res)
    np.testing.assert_allclose(seen["in"], along.incoming)
    np.testing.assert_allclose(seen["out"], along.outgoing)
    for column, (i, j) in enumerate(itertools.combinations(range(4), 2)):
        np.testing.assert_allclose(seen["pairs"][:, column], along.cosine[:, i, j], atol=1e-14)
    np.testing.assert_allclose(seen["one"], along.cosine[:, 3, 1], atol=1e-14)
    last, other = net.params(seen.x[-1]), teacher.params
    cosines = mg.cosine_similarity(*(np.column_stack([q["w1"], q["b1"]]) for q in (last, other)))
    np.testing.assert_allclose(seen["teacher"][-1], cosines.T.ravel(), atol=1e-14)
    assert seen["teacher"].shape == (M, 8)
    assert "ends[2]" in seen.names
    frame = pytest.importorskip("pandas") and seen.to_frame()
    np.testing.assert_array_equal(frame["ends[0]"], seen["ends"][:, 0])


def test_eigenvalues_of_a_large_net_are_arpacks(tmp_path):
    rng = np.random.default_rng(1)
    net = mg.Net(layers=[(30, "tanh", True), (10, "tanh", True), (1, "identity", True)], input=rng.normal(size=(80, 5)),
                 target=rng.normal(size=80))  # fmt: skip
    res = mg.flow(net, net.random_params(1), alg="GradientDescent", learning_rate=0.1, maxiterations_ode=15,
                  save_everystep=True, observables={"ends": mg.Eigenvalues(2, 2)})  # fmt: skip
    for x, values in zip(res.trajectory.x[::5], res.trajectory["ends"][::5], strict=True):
        expected = np.sort(eigsh(net.linear_operator(x), k=4, which="BE", v0=np.ones(net.n_params))[0])
        np.testing.assert_allclose(values, expected, atol=1e-7 * np.abs(expected).max())
    path = res.save(tmp_path / "run")
    np.testing.assert_array_equal(mg.load(path).trajectory["ends"], res.trajectory["ends"])


def test_other_nets():
    layers = [(2, "sigmoid2", False), (1, "identity", False)]
    teacher = mg.TeacherNet(layers=layers, params=[1.0, 0, 0, 1, 1, 1], n_features=2)
    infinite = mg.InfiniteNet(teacher, layers)
    single = mg.Net(layers=layers, input=X.astype(np.float32), target=Y.astype(np.float32))
    for net, accuracy in ((infinite, 1e-7), (single, 1e-3)):
        res = mg.flow(net, net.random_params(0), maxT=1, observables={"λ": mg.Eigenvalues(1, 1), "c": mg.UnitCosines()})
        spectra = mg.spectrum_along(net, res)
        np.testing.assert_allclose(res.trajectory["λ"], spectra[:, [0, -1]], atol=accuracy * np.abs(spectra).max())
        assert res.trajectory["c"].shape == res.trajectory.t.shape


def test_recordings_in_a_sweep(net, tmp_path):
    watched = {"sharpness": mg.Eigenvalues(), "along": mg.Projections(np.eye(net.n_params)[0])}
    options = {"directory": tmp_path, "max_workers": 1, "maxT": 1, "maxiterations_optim": 0, "observables": watched}
    with mg.sweep(net, [0], **options) as sweep:
        (run,) = sweep
    again = mg.sweep(directory=tmp_path).runs[0]
    assert again.resumed
    np.testing.assert_array_equal(again.result.trajectory["along"], run.result.trajectory.x[:, 0])


@pytest.mark.parametrize(
    ("observable", "message"),
    [
        (lambda: mg.Eigenvalues(0, 0), "nothing would be recorded"),
        (lambda: mg.Eigenvalues(-1), "largest is -1"),
        (lambda: mg.Eigenvalues(30), "30 highest eigenvalues"),
        (lambda: mg.Projections(np.ones(3)), "vectors has shape"),
        (lambda: mg.Projections(np.full(17, np.nan)), "vectors contains NaN"),
        (lambda: mg.UnitNorms(layer=2), "layer is 2"),
        (lambda: mg.UnitNorms(layer=1, outgoing=True), "layer is 1"),
        (lambda: mg.UnitCosines(pairs=[(0, 4)]), r"pairs has the entry \(0, 4\)"),
        (lambda: mg.UnitCosines(pairs=(0, 1)), "pairs has the entry 0"),
        (lambda: mg.Eigenvalues, r"is the class Eigenvalues; make an object: Eigenvalues\(\)"),
        (lambda: mg.UnitCosines(teacher=np.ones((2, 2))), "teacher has vectors of shape"),
        (lambda: mg.UnitCosines(pairs=[(0, 1)], teacher=np.ones((2, 3))), "one of them"),
    ],
)
def test_bad_recordings(net, observable, message):
    with pytest.raises(InputError, match=message):
        mg.flow(net, net.random_params(0), maxT=1, observables={"a": observable()})


def test_names_that_meet(net):
    with pytest.raises(InputError, match=r"two observables are called 'a\[1\]'"):
        mg.flow(net, net.random_params(0), maxT=1, observables={"a": mg.Eigenvalues(2), "a[1]": np.sum})
    for name in ("t", "loss", "x3"):
        with pytest.raises(InputError, match="which the trajectory itself uses"):
            mg.flow(net, net.random_params(0), maxT=1, observables={name: np.sum})


# ---- callbacks that ask ----------------------------------------------------------------------------------------


RUNS = {
    "flow": lambda net, p, **given: mg.flow(net, p, maxT=3, **given),
    "stiff": lambda net, p, **given: mg.flow(net, p, alg="Rodas5P", maxT=3, **given),
    "descent": lambda net, p, **given: mg.flow(net, p, alg="Adam", batchsize=16, maxiterations_ode=20, **given),
    "trust region": lambda net, p, **given: mg.minimize(net, p, maxiterations_optim=15, **given),
    "least squares": lambda net, p, **given: mg.minimize(
        net, p, optim_solver="LevenbergMarquardt", maxiterations_optim=15, **given
    ),
    "quasi-Newton": lambda net, p, **given: mg.minimize(net, p, optim_solver="LBFGS", maxiterations_optim=15, **given),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_callback_may_ask_the_running_net(run, activation):
    """It gets what it would get afterwards, and the run is the same to the last bit."""
    net = mg.Net(layers=[(4, activation, True), (1, "identity", True)], input=X, target=Y)
    p, v = net.random_params(seed=0), np.linspace(-1, 1, net.n_params)
    alone = run(net, p)
    asked = []

    def watch(r):
        asked.append((r.x, net.loss(r.x), net.gradient(r.x), net.hessian(r.x), net.hvp(r.x, v), net(r.x),
                      net.on(X[:5], Y[:5]).loss(r.x), net.extreme_eigenvalues(r.x, 1, "largest"),
                      mg.classify(net, r.x)))  # fmt: skip

    res = run(net, p, callback=watch)
    np.testing.assert_array_equal(res.x, alone.x)
    assert (res.loss, res.nfev, res.nhev) == (alone.loss, alone.nfev, alone.nhev)
    assert len(asked) >= 10
    for x, loss, gradient, hessian, product, outputs, other, largest, _ in asked[::5]:
        assert loss == net.loss(x)
        assert other == net.loss(x, X[:5], Y[:5])
        np.testing.assert_array_equal(gradient, net.gradient(x))
        np.testing.assert_array_equal(hessian, net.hessian(x))
        np.testing.assert_array_equal(product, net.hvp(x, v))
        np.testing.assert_array_equal(outputs, net(x))
        np.testing.assert_allclose(largest, np.linalg.eigvalsh(hessian)[-1:], rtol=1e-9)


def test_events_and_observables_may_ask_too():
    layers = [(2, "sigmoid2", False), (1, "identity", False)]
    teacher = mg.TeacherNet(layers=layers, params=[1.0, 0, 0, 1, 1, 1], n_features=2)
    net = mg.InfiniteNet(teacher, layers)
    p = net.random_params(0)
    half = net.loss(p) / 2
    res = mg.flow(
        net, p, event=lambda t, x: net.loss(x) - half, observables={"g": lambda x: np.abs(net.gradient(x)).max()}
    )
    assert res.ode_stopped_by == "event"
    np.testing.assert_allclose(res.ode_loss, half, rtol=1e-5)
    np.testing.assert_allclose(res.trajectory["g"][:-1], res.trajectory.gnorm[:-1], rtol=1e-12)


def test_what_a_callback_cannot_ask(net):
    p = net.random_params(0)
    with pytest.raises(mg.ThreadError, match="cannot run another solver") as caught:
        mg.flow(net, p, maxT=1, callback=lambda r: mg.minimize(net, r.x))
    assert caught.value.result.ode_iterations == 1
    with pytest.raises(InputError, match="p has shape"):
        mg.flow(net, p, maxT=1, callback=lambda r: net.loss([1.0]))
    assert np.isfinite(net.loss(p))


def test_two_threads(run_python):
    """Shares of samples run in threads inside a callback too."""
    out = run_python(
        """
        rng = np.random.default_rng(0)
        net = mg.Net(layers=[(3, "tanh", True), (1, "identity", True)], input=rng.normal(size=(2000, 2)),
                     target=rng.normal(size=2000))
        p = net.random_params(0)
        seen = []
        def watch(r):
            seen.append((r.x, net.gradient(r.x), net.hessian(r.x)))
        alone = mg.flow(net, p, maxT=1)
        for _ in range(3):
            res = mg.flow(net, p, maxT=1, callback=watch)
            assert np.array_equal(res.x, alone.x)
        for x, g, H in seen:
            assert np.array_equal(g, net.gradient(x)) and np.array_equal(H, net.hessian(x))
        print(len(seen) == 3 * res.ode_iterations, runtime.info()["threads"])
        """,
        environment={"PYMLPGF_THREADS": "2"},
    )
    assert out == "True 2\n"
