"""A result is complete: its net comes back from it, from a file, from a sweep's folder."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import pymlpgf as mg
from pymlpgf import InputError, KeywordError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 2))


def _regression(**given):
    layers = [(3, "tanh", True), (1, "identity", False)]
    return mg.Net(layers=layers, input=X, target=np.sin(X[:, 0]), **{"l2": 1e-3, "output_factor": 0.5, **given})


def _labels():
    layers = [(2, ("tanh", mg.Poly(0, 1, 0.5)), True), (3, "softmax", True)]
    weights = RNG.uniform(0.5, 2, size=30)
    return mg.Net(layers=layers, input=X, target=RNG.integers(3, size=30), weights=weights, loss="nll", dtype="float32")


def _same(net, other, p):
    assert repr(other) == repr(net)
    assert other.dtype == net.dtype
    assert other.loss(p) == net.loss(p)
    np.testing.assert_array_equal(other.gradient(p), net.gradient(p))


@pytest.mark.parametrize("make", [_regression, _labels])
def test_the_net_comes_back_from_a_file(make, tmp_path):
    net = make()
    res = mg.train(net, net.random_params(seed=1), maxT=1, maxiterations_optim=5)
    _same(net, res.net(), res.x)
    _same(net, mg.load(res.save(tmp_path / "whole.npz")).net(), res.x)
    _same(net, pickle.loads(pickle.dumps(res)).net(), res.x)
    lean = mg.load(res.save(tmp_path / "lean.npz", data=False))
    assert (tmp_path / "lean.npz").stat().st_size < (tmp_path / "whole.npz").stat().st_size
    with pytest.raises(InputError, match="without its data"):
        lean.net()
    kept = res.problem
    data = {name: kept[name] for name in ("input", "target", "weights") if name in kept}
    _same(net, lean.net(**data), res.x)
    with pytest.raises(InputError, match="are not those"):
        lean.net(**{**data, "input": data["input"] + 1})
    assert "problem" not in res.to_dict()


def test_code_is_compiled_for_those_who_allow_it(tmp_path):
    net = mg.Net(layers=[(2, "x -> x * exp(-x^2)", True), (1, "identity", True)], input=X, target=X[:, 0])
    res = mg.load(mg.flow(net, net.random_params(seed=0), maxT=0.1).save(tmp_path / "code.npz"))
    with pytest.raises(InputError, match="allow_code"):
        res.net()
    _same(net, res.net(allow_code=True), res.x)
    net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=X, target=X[:, 0], loss="(f, y) -> (f - y)^4")
    res = mg.load(mg.flow(net, net.random_params(seed=0), maxT=0.1).save(tmp_path / "loss.npz"))
    with pytest.raises(InputError, match=r"Julia code as the loss, '\(f, y\) -> \(f - y\)\^4'.*allow_code"):
        res.net()
    _same(net, res.net(allow_code=True), res.x)


def test_students_on_infinite_inputs_come_back_with_their_teacher(tmp_path):
    layers = [(1, mg.Poly(0, 1, 0.5), False), (1, "identity", False)]
    teacher = mg.TeacherNet(layers=layers, params=[1.0, 1.0], n_features=1)
    net = mg.InfiniteNet(teacher, mg.Net([(1, "sigmoid2", False), (1, "identity", False)], n_features=1, l2=0.1))
    res = mg.load(mg.flow(net, [0.5, 0.5], maxT=1).save(tmp_path / "infinite"))
    again = res.net()
    assert isinstance(again, mg.InfiniteNet)
    assert again.loss(res) == net.loss(res) == res.loss
    np.testing.assert_array_equal(again.hessian(res), net.hessian(res))
    own = mg.TeacherNet(
        layers=[(1, "x -> x / (1 + x^2)", False), (1, "identity", False)], params=[1.0, 1.0], n_features=1
    )
    res = mg.flow(mg.InfiniteNet(own, [(1, "tanh", False), (1, "identity", False)]), [0.5, 0.5], maxT=0.1)
    with pytest.raises(InputError, match="allow_code"):
        res.net()
    assert res.net(allow_code=True).loss(res) == res.loss


def test_a_sweep_keeps_the_data_once(tmp_path):
    net = _regression()
    folder = tmp_path / "runs"
    sweep = mg.sweep(net, range(3), max_workers=2, directory=folder, maxT=1, maxiterations_optim=3)
    runs = list(sweep)
    assert all(run.error is None for run in runs)
    for run in runs:
        _same(net, run.result.net(), run.result.x)
    assert len(list(folder.glob("data-*.npz"))) == 1
    files = [path for path in folder.glob("*.npz") if not path.name.startswith("data-")]
    assert len(files) == 3
    for path in files:
        res = mg.load(path)
        _same(net, res.net(), res.x)
    for path in folder.glob("data-*.npz"):
        path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="without its data"):
        mg.load(files[0]).net()


def test_replace():
    net = _regression()
    p = net.random_params(seed=0)
    data = net.data_terms(p)[0]
    size = float(p.flat @ p.flat)
    assert net.replace(l2=0.5).loss(p) == pytest.approx(data + 0.25 * size, rel=1e-14)
    assert net.replace(l2=0).loss(p) == pytest.approx(data, rel=1e-14)
    weights = RNG.uniform(size=30)
    residuals = net(p)[:, 0] - np.sin(X[:, 0])
    weighted = net.replace(l2=0, weights=weights)
    assert weighted.loss(p) == pytest.approx(np.mean(weights * residuals**2), rel=1e-13)
    assert weighted.replace(weights=None).loss(p) == pytest.approx(data, rel=1e-14)
    assert net.replace(merge=(0, 0, 1, 2.0)).loss(p) > net.loss(p)
    assert net.loss(p) == pytest.approx(data + 5e-4 * size, rel=1e-14)
    with pytest.raises(KeywordError, match="did you mean 'l2'"):
        net.replace(l3=1)
    bare = mg.Net(layers=[(1, "tanh", True)], n_features=2)
    assert bare.replace(l2=1).loss([1.0, 0, 0], X, X[:, 0]) > bare.loss([1.0, 0, 0], X, X[:, 0])
    with pytest.raises(InputError, match="no data"):
        bare.replace(weights=weights)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=4), st.integers(1, 3))
def test_parameters_and_dictionaries(layers, n_features):
    net = mg.Net(layers=[(width, "tanh", bias) for width, bias in layers], n_features=n_features)
    p = net.random_params(seed=3)
    back = mg.Params.from_dict(p.to_dict())
    np.testing.assert_array_equal(back.flat, p.flat)
    assert back.layers == p.layers


@pytest.mark.parametrize("parts", [{}, {"w2": [[1.0]]}, {"w1": [[1.0]], "b2": [1.0]}, {"w1": [[1.0]], "other": 1}])
def test_other_dictionaries_are_refused(parts):
    with pytest.raises(InputError, match="w1, b1"):
        mg.Params.from_dict(parts)


def test_trajectory_as_a_frame():
    pytest.importorskip("pandas")
    net = _regression()
    res = mg.flow(net, net.random_params(seed=0), maxT=3, observables={"norm": lambda x: float(x @ x)})
    frame = res.trajectory.to_frame()
    assert list(frame.columns) == ["loss", "gnorm", "norm", *(f"x{i}" for i in range(net.n_params))]
    np.testing.assert_array_equal(frame.index, res.trajectory.t)
    np.testing.assert_array_equal(frame["norm"], res.trajectory["norm"])
    np.testing.assert_array_equal(frame[[f"x{i}" for i in range(net.n_params)]], res.trajectory.x)
