"""Infinite data: reference tables, samples in growing numbers, solvers, and every refusal."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import MLPGF_UUID
from scipy.special import owens_t
from scipy.stats import multivariate_normal

import pymlpgf as mg
from pymlpgf import InputError, runtime

TABLES = np.load(Path(__file__).parent / "data" / "infinite_reference.npz")
POLY = mg.Poly(1, 1, -0.5, 0, 0.25)


def layers(activation, width=1, outputs=1, bias=True, output_bias=True):
    return [(width, activation, bias), (outputs, "identity", output_bias)]


@pytest.mark.parametrize("key", sorted(TABLES.files))
def test_pairs_of_units_over_the_whole_range(key):
    """Norms from 0 to 10, biases to ±10, correlations from -1 to 1: see tests/data/make_infinite_reference.py."""
    names = key.split("|")
    first, second = (POLY if name == "poly" else name for name in (names[0], names[-1]))
    table = TABLES[key]
    assert len(table) >= (500 if len(names) == 1 else 100)
    if "->" in key:  # integrated over finer and finer grids: 40 ms a row
        table = table[::5]
    student = mg.Net(layers(first, output_bias=False), n_features=2)
    maker = mg.TeacherNet(layers(second, output_bias=False), [0.0, 0.0, 0.0, 1.0], 2)
    v = np.array([0.3, -1.0, 0.5, 2.0])
    worst = np.zeros(3)
    for w1, b1, w2x, w2y, b2, loss, size, *derivatives in table:
        maker.params.flat[:] = w2x, w2y, b2, 1.0
        net = mg.InfiniteNet(maker, student)
        p = [w1, 0.0, b1, 1.0]
        value, g = net.value_and_gradient(p)
        H = net.hessian(p)
        size = max(size, 1e-7 * np.abs(derivatives).max(), 1e-50)  # both units may be zero
        second = np.abs(H[np.tril_indices(4)] - derivatives[4:]).max()
        worst = np.maximum(worst, np.array([abs(value - loss), np.abs(g - derivatives[:4]).max(), second]) / size)
        assert np.abs(net.hvp(p, v) - H @ v).max() <= 1e-12 * np.abs(H).max()
    assert worst[0] <= 1e-10
    assert worst[1] <= 1e-10
    assert worst[2] <= 1e-8


def module():
    runtime.start()
    return f'Base.loaded_modules[Base.PkgId(Base.UUID("{MLPGF_UUID}"), "MLPGF")]'


def in_julia(expression):
    """A Float64 of Julia's."""
    bits = runtime.evaluate(f"reinterpret(Int64, Float64(let M = {module()}; {expression} end))")
    return np.int64(bits).view(np.float64)


def test_normal_probabilities_agree_with_scipy():
    for h in (-3.0, -0.4, 0.0, 1e-3, 2.0, 9.0):
        for a in (-40.0, -1.0, 0.0, 0.3, 1.0, 5.0):
            assert in_julia(f"M.owens_t({h}, {a})") == pytest.approx(owens_t(h, a), rel=1e-13, abs=1e-17)
        for k in (-1.5, 0.0, 0.7):
            for rho in (-0.999, -0.5, 0.2, 0.9, 0.9999):
                exact = multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([h, k])
                assert in_julia(f"M.bivariate_normal_cdf({h}, {k}, {rho})") == pytest.approx(exact, abs=2e-12)


@pytest.mark.parametrize(("teacher", "student"), [("softplus", "softplus"), ("relu", "tanh"), ("selu", "sigmoid2")])
def test_difference_to_samples_falls_like_their_root(teacher, student):
    rng = np.random.default_rng(5)
    maker = mg.Net(layers(teacher, 4, 2), n_features=5)
    target = mg.TeacherNet(maker.layers, rng.normal(size=maker.n_params), 5)
    net = mg.InfiniteNet(target, layers(student, 3, 2))
    p = rng.normal(size=net.n_params)
    exact = np.concatenate([[net.loss(p)], net.gradient(p)])
    sizes, errors = np.array([100, 1_000, 10_000, 100_000]), []
    for N in sizes:
        squares = 0.0
        for _ in range(4):
            finite = net.on(rng.normal(size=(N, 5)))
            squares += np.sum((np.concatenate([[finite.loss(p)], finite.gradient(p)]) - exact) ** 2)
        errors.append(np.sqrt(squares))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert -0.6 < slope < -0.4
    assert errors[-1] < 0.05 * np.abs(exact).max()


def test_dimension_costs_inner_products_only():
    """Hidden weights in a plane of a thousand dimensions: the same loss as in two."""
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(1000, 2)))[0]
    W, T = rng.normal(size=(2, 3, 2))
    small = mg.InfiniteNet(mg.TeacherNet(layers("tanh", 3, bias=False, output_bias=False), [*T.ravel(), 1, 2, 3], 2),
                           layers("relu", 3, bias=False, output_bias=False))  # fmt: skip
    large = mg.InfiniteNet(
        mg.TeacherNet(layers("tanh", 3, bias=False, output_bias=False), [*(T @ plane.T).ravel(), 1, 2, 3], 1000),
        layers("relu", 3, bias=False, output_bias=False),
    )
    p, q = [*W.ravel(), 1, -1, 0.5], [*(W @ plane.T).ravel(), 1, -1, 0.5]
    assert large.loss(q) == pytest.approx(small.loss(p), rel=1e-12)
    g = small.gradient(p)
    assert large.gradient(q)[:3000].reshape(3, 1000) @ plane == pytest.approx(g[:6].reshape(3, 2), rel=1e-11)
    v = rng.normal(size=large.n_params)
    h = 1e-5
    difference = (large.gradient(q + h * v) - large.gradient(q - h * v)) / (2 * h)
    assert np.abs(large.hvp(q, v) - difference).max() < 1e-7 * np.abs(difference).max()


def test_solvers_and_spectra():
    rng = np.random.default_rng(2)
    teacher = mg.TeacherNet(layers("softplus", 4, bias=False), rng.normal(size=13), 2)
    net = mg.InfiniteNet(teacher, layers("tanh", 2))
    p = net.random_params(seed=1)
    assert np.array_equal(p.flat, mg.Net(net.layers, n_features=2).random_params(seed=1).flat)
    flowed = mg.flow(net, p, maxT=50)
    assert flowed.ode_stopped_by == "maxT"
    found = mg.minimize(net, flowed)
    assert found.gnorm < 1e-12
    assert found.loss < flowed.loss
    assert found.data_loss == found.loss
    trained = mg.train(net, p, maxT=50, maxtime_optim=30)
    assert trained.loss == pytest.approx(found.loss, rel=1e-9)
    values, vectors = net.hessian_spectrum(trained.x)
    assert values[0] > -1e-9
    assert net.extreme_eigenvalues(trained.x, 2, "largest") == pytest.approx(values[-2:], rel=1e-8)
    assert net.linear_operator(trained.x) @ vectors[:, -1] == pytest.approx(values[-1] * vectors[:, -1], abs=1e-9)
    blocks = net.hessian_blocks(trained.x)
    H = net.hessian(trained.x)
    assert np.array_equal(H, H.T)
    assert np.array_equal(blocks[0], H[:6, :6])
    assert np.array_equal(blocks[1], H[6:, 6:])
    assert net(trained.x, np.zeros((3, 2))).shape == (3, 1)


def test_number_types_factors_and_regularisers():
    rng = np.random.default_rng(3)
    teacher = mg.TeacherNet(layers("gelu", 2), rng.normal(size=9), 2)
    double = mg.InfiniteNet(teacher, layers("silu", 2))
    p = rng.normal(size=9).astype(np.float32)
    single = mg.InfiniteNet(teacher, mg.Net(layers("silu", 2), n_features=2, dtype="float32"))
    assert single.dtype == np.float32
    assert single.gradient(p).dtype == np.float32
    assert single.loss(p) == pytest.approx(double.loss(p.astype(float)), rel=1e-6)
    assert single.hessian(p) == pytest.approx(double.hessian(p.astype(float)), rel=1e-5, abs=1e-5)
    scaled = mg.InfiniteNet(teacher, mg.Net(layers("silu", 2), n_features=2, output_factor=0.5, l2=0.1))
    q = np.concatenate([p[:6], p[6:] / 2]).astype(float)
    assert scaled.loss(p) == pytest.approx(double.loss(q) + 0.05 * np.sum(p.astype(float) ** 2), rel=1e-7)
    halved = mg.TeacherNet(layers("gelu", 2), [*teacher.params.flat[:6], *(teacher.params.flat[6:] * 2)], 2)
    halved.net = mg.Net(layers("gelu", 2), n_features=2, output_factor=0.5)
    assert mg.InfiniteNet(halved, layers("silu", 2)).loss(p) == pytest.approx(double.loss(p), rel=1e-13)


def test_a_unit_each_of_several_activations_and_outputs():
    mixed = ("relu", "x -> x * exp(-x^2)", POLY)
    rng = np.random.default_rng(4)
    teacher = mg.TeacherNet(layers(("g", "exp"), 2, 3), [*rng.normal(size=4) / 2, *rng.normal(size=11)], 2)
    net = mg.InfiniteNet(teacher, layers(mixed, 3, 3))
    p = rng.normal(size=net.n_params) / 2
    exact = net.on(rng.normal(size=(300_000, 2)))
    assert net.loss(p) == pytest.approx(exact.loss(p), rel=0.05)
    h = 1e-5
    differences = [(net.loss(p + h * e) - net.loss(p - h * e)) / (2 * h) for e in np.eye(len(p))]
    assert net.gradient(p) == pytest.approx(differences, rel=1e-6, abs=1e-6)


def test_gauss_hermite_nets():
    teacher = mg.TeacherNet(layers("softplus", 2), np.linspace(-1, 1, 11), 3)
    student = mg.Net([(2, "gelu", True), (1, "identity", True)], n_features=3)
    net = mg.gauss_hermite_net(teacher, student, order=20)
    p = np.linspace(0.5, -0.7, 11)
    assert 5000 < net.n_samples <= 20**3
    assert net.loss(p) == pytest.approx(mg.InfiniteNet(teacher, student).loss(p), rel=1e-8)
    deep = mg.Net([(3, "tanh", True), (2, "tanh", True), (1, "identity", True)], n_features=1, dtype="float32")
    assert mg.gauss_hermite_net(np.sin, deep, order=50).dtype == np.float32
    for bad in (0, 1001, 2.5, True, None):
        with pytest.raises(InputError, match="order"):
            mg.gauss_hermite_net(np.sin, deep, order=bad)
    for bad in (-0.1, 1, float("nan"), "small"):
        with pytest.raises(InputError, match="threshold"):
            mg.gauss_hermite_net(np.sin, deep, threshold=bad)
    with pytest.raises(InputError, match=r"order 30 in 8 dimensions has .* nodes, .*: order 7 has 5759425. For one"):
        mg.gauss_hermite_net(np.sin, mg.Net(layers("tanh"), n_features=8))
    with pytest.raises(InputError, match="target"):
        mg.gauss_hermite_net(1.0, deep)
    with pytest.raises(InputError, match="net is"):
        mg.gauss_hermite_net(np.sin, "net")


def test_too_many_nodes_are_counted_before_they_are_made():
    """By NumPy's weights: as many nodes, and an order and a threshold that have fewer."""

    def counted(order, inputs, threshold):
        weights = np.polynomial.hermite_e.hermegauss(order)[1]
        found = {0.0: 1}
        for _ in range(inputs):
            more = {}
            for log, ways in found.items():
                for w in np.log(weights / weights.max()):
                    more[round(log + w, 8)] = more.get(round(log + w, 8), 0) + ways
            found = more
        return sum(ways for log, ways in found.items() if log > np.log(threshold))

    net = mg.Net(layers("tanh"), n_features=10)
    many, fewer = counted(6, 10, 1e-20), counted(6, 10, 1e-6)
    with pytest.raises(
        InputError, match=rf"has {many} nodes.*: order 5 has {5**10}; threshold 1e-6 leaves {fewer} nodes.*InfiniteNet"
    ):
        mg.gauss_hermite_net(np.sin, net, order=6)
    assert many > 10**7 > fewer
    small = mg.Net(layers("tanh"), n_features=3)
    for order, threshold in ((4, 1e-20), (7, 1e-6), (10, 1e-3)):
        made = mg.gauss_hermite_net(lambda x: x[:, 0], small, order=order, threshold=threshold)
        assert made.n_samples == counted(order, 3, threshold)


@pytest.mark.parametrize(
    ("inputs", "order", "threshold", "accuracy"), [(4, 12, 1e-20, 1e-5), (5, 9, 1e-20, 1e-4), (5, 9, 1e-9, 1e-4)]
)
def test_gauss_hermite_nets_of_more_inputs(inputs: int, order: int, threshold: float, accuracy: float) -> None:
    student = mg.Net(layers("tanh", 3), n_features=inputs)
    teacher = mg.TeacherNet(layers("sigmoid2", 2), np.cos(np.arange(2 * inputs + 5)) / inputs, inputs)
    p = student.random_params(seed=0).flat / 2
    exact = mg.InfiniteNet(teacher, student)
    net = mg.gauss_hermite_net(teacher, student, order, threshold)
    assert net.n_samples <= order**inputs * (1 if threshold < 1e-15 else 0.8)
    assert net.loss(p) == pytest.approx(exact.loss(p), rel=accuracy)
    assert net.gradient(p) == pytest.approx(exact.gradient(p), abs=accuracy * abs(exact.gradient(p)).max())


def test_refusals():
    teacher = mg.TeacherNet(layers("tanh", 2), np.ones(9), 2)
    with pytest.raises(InputError, match="teacher is Net"):
        mg.InfiniteNet(teacher.net, layers("tanh"))
    with pytest.raises(InputError, match="one hidden layer"):
        mg.InfiniteNet(teacher, [(2, "tanh", True), *layers("tanh")])
    with pytest.raises(InputError, match="'identity'"):
        mg.InfiniteNet(teacher, [(2, "tanh", True), (1, "tanh", True)])
    with pytest.raises(InputError, match="2 inputs and 1 outputs, the student 3 and 1"):
        mg.InfiniteNet(teacher, mg.Net(layers("tanh"), n_features=3))
    with pytest.raises(InputError, match="the student 2 and 2"):
        mg.InfiniteNet(teacher, layers("tanh", outputs=2))
    with pytest.raises(InputError, match="jumps near"):
        mg.InfiniteNet(teacher, layers("x -> x < 0.3 ? 0.0 : 1.0"))
    net = mg.InfiniteNet(teacher, layers("tanh"))
    with pytest.raises(InputError, match="NaN"):
        net.loss([np.nan] * 5)
    with pytest.raises(InputError, match="5 parameters"):
        net.loss([1.0])
    with pytest.raises(InputError, match="give input"):
        net([1.0] * 5)
    for needs_samples in (net.jacobian, net.gauss_newton, net.tangent_kernel):
        with pytest.raises(InputError, match=r"net\.on\(input\)"):
            needs_samples([1.0] * 5)
    X = np.ones((4, 2))
    assert net.on(X).jacobian([1.0] * 5).shape == (4, 1, 5)
    assert "tanh" in repr(net)
    assert net.teacher is teacher


def test_goes_wherever_a_net_goes(tmp_path) -> None:
    layers = [(2, "sigmoid2", True), (1, "identity", True)]
    teacher = mg.TeacherNet(layers=layers, params=[1.0, 0.5, -0.3, 1.2, 0.1, -0.2, 0.7, -1.1, 0.3], n_features=2)
    net = mg.InfiniteNet(teacher, layers)
    end = mg.minimize(net, np.asarray(teacher.params.flat) + 0.05)
    assert end.loss < 1e-24
    assert mg.classify(net, end).kind == "minimum"
    copy = pickle.loads(pickle.dumps(net))
    p = net.random_params(3)
    assert copy.loss(p) == net.loss(p)
    assert copy._core.fingerprint() == net._core.fingerprint()
    other = mg.InfiniteNet(mg.TeacherNet(layers=layers, params=np.ones(9), n_features=2), layers)
    assert other._core.fingerprint() != net._core.fingerprint()
    wider, q = mg.grow_net(net, p)
    assert isinstance(wider, mg.InfiniteNet)
    np.testing.assert_allclose(wider.loss(q), net.loss(p), rtol=1e-12)
    path = tmp_path / "run.npz"
    with pytest.raises(ZeroDivisionError):
        mg.minimize(net, p, callback=lambda intermediate_result: 1 / 0, checkpoint=path, checkpoint_interval=1e-9)
    for again in (net, None):  # the file holds net and teacher
        assert mg.resume(path, again, callback=lambda intermediate_result: None).loss < net.loss(p)


def test_limits_on_infinite_data() -> None:
    """Exponential tails are units as others; merged units are refused, which were taken for ordinary ones."""
    layers = [(2, "softplus", True), (1, "identity", True)]
    net = mg.InfiniteNet(mg.TeacherNet(layers=layers, params=np.linspace(-1, 1, 9), n_features=2), layers)
    limit = net.limit(tails=[0])
    q = limit.params([0.3, -0.4, 1.0, 0.2, 0.1, 0.5, 0.8, -0.6, 0.2])
    off = [net.loss(limit.from_limit(q, eps)) - limit.loss(q) for eps in (1e-3, 1e-4)]
    assert off[0] / off[1] == pytest.approx(100, rel=1e-3)  # L = L₀ + h ε²
    assert 0 < off[1] < 1e-7
    again, eps = limit.to_limit(limit.from_limit(q, 1e-3))
    assert net.loss(limit.from_limit(again, eps)) == pytest.approx(net.loss(limit.from_limit(q, 1e-3)), rel=1e-12)
    for make in (lambda: net.limit([(0, 1)]), lambda: mg.InfiniteNet(net.teacher, net.student.limit([(0, 1)]))):
        with pytest.raises(InputError, match="infinite data know no units that have merged"):
            make()
