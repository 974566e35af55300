"""Losses, regularisers, activations of the user's, other data, Jacobians: against PyTorch and from first principles."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import pymlpgf as mg
from pymlpgf import InputError, Poly

torch = pytest.importorskip("torch", reason="PyTorch is the independent source of derivatives")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3))
Y = RNG.normal(size=(30, 2))
LABELS = RNG.integers(0, 3, 30)
TANH = [(4, "tanh", True), (2, "identity", True)]
SOFTMAX = [(4, "tanh", True), (3, "softmax", True)]


def derivatives_of(function, p):
    theta = torch.tensor(p)
    gradient = torch.autograd.functional.jacobian(function, theta)
    hessian = torch.autograd.functional.hessian(function, theta)
    return function(theta).item(), gradient.numpy(), hessian.numpy()


def forward(theta, activation=torch.tanh, outputs=2):
    W1, b1 = theta[:12].reshape(4, 3), theta[12:16]
    W2, b2 = theta[16 : 16 + 4 * outputs].reshape(outputs, 4), theta[16 + 4 * outputs :]
    return activation(torch.tensor(X) @ W1.T + b1) @ W2.T + b2


def check(net, function, seed=1, scale=1.0):
    p = scale * np.random.default_rng(seed).normal(size=net.n_params)
    loss, gradient, hessian = derivatives_of(function, p)
    assert net.loss(p) == pytest.approx(loss, rel=1e-13)
    np.testing.assert_allclose(net.gradient(p), gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())
    np.testing.assert_allclose(net.hessian(p), hessian, rtol=0, atol=1e-12 * np.abs(hessian).max())
    v = np.random.default_rng(2).normal(size=p.size)
    np.testing.assert_allclose(net.hvp(p, v), hessian @ v, rtol=0, atol=1e-12 * np.abs(hessian @ v).max())
    return p


def mse(theta, factor=1.0):
    return ((factor * forward(theta) - torch.tensor(Y)) ** 2).sum(1).mean()


def test_probabilities_as_targets():
    target = RNG.dirichlet(np.ones(3), 30)
    net = mg.Net(layers=SOFTMAX, input=X, target=target, loss="nll")
    p = check(net, lambda t: torch.nn.functional.cross_entropy(forward(t, outputs=3), torch.tensor(target)))
    np.testing.assert_allclose(net(p).sum(1), 1)
    np.testing.assert_allclose(-(target * np.log(net(p))).sum(1).mean(), net.loss(p))


def test_labels_count_from_zero():
    one_hot = np.eye(3)[LABELS]
    nets = [mg.Net(layers=SOFTMAX, input=X, target=t, loss="nll") for t in (LABELS, one_hot, LABELS.astype(float))]
    p = nets[0].random_params(seed=1)
    assert nets[0].loss(p) == nets[1].loss(p) == nets[2].loss(p)
    for wrong in (LABELS + 1, LABELS - 1, LABELS + 0.5):
        with pytest.raises(InputError, match="labels are whole numbers from 0 to 2"):
            mg.Net(layers=SOFTMAX, input=X, target=wrong, loss="nll")


def test_training_a_classifier():
    net = mg.Net(layers=SOFTMAX, input=X, target=LABELS, loss="nll", l2=0.01)
    res = mg.train(net, net.random_params(seed=0), maxT=10, maxtime_optim=3)
    assert res.gnorm < 1e-13
    assert res.data_loss < res.loss
    assert res.loss - res.data_loss == pytest.approx(0.005 * (res.x**2).sum(), rel=1e-10)
    loss, gnorm = net.data_terms(res.x)
    plain = mg.Net(layers=SOFTMAX, input=X, target=LABELS, loss="nll")
    assert (loss, gnorm) == pytest.approx((plain.loss(res.x), np.abs(plain.gradient(res.x)).max()), rel=1e-10)


@pytest.mark.parametrize(
    ("options", "penalty"),
    [
        ({"l2": 0.3}, lambda t: 0.15 * (t**2).sum()),
        ({"maxnorm": 0.2}, lambda t: torch.relu((t**2).sum() / (2 * len(t)) - 0.2) ** 3 / 3),
        ({"maxnorm": 1e6}, lambda t: 0 * t.sum()),
        ({"merge": (0, 1, 3, 0.7)}, lambda t: 0.35 * (((t[3:6] - t[9:12]) ** 2).sum() + (t[13] - t[15]) ** 2)),
        (
            {"l2": 0.1, "merge": [(0, 0, 1, 0.2), (1, 0, 1, 0.4)]},
            lambda t: (
                0.05 * (t**2).sum()
                + 0.1 * (((t[0:3] - t[3:6]) ** 2).sum() + (t[12] - t[13]) ** 2)
                + 0.2 * (((t[16:20] - t[20:24]) ** 2).sum() + (t[24] - t[25]) ** 2)
            ),
        ),
    ],
)
def test_regularisers(options, penalty):
    net = mg.Net(layers=TANH, input=X, target=Y, **options)
    check(net, lambda t: mse(t) + penalty(t))


def test_output_factor():
    net = mg.Net(layers=TANH, input=X, target=Y, output_factor=0.25)
    p = check(net, lambda t: mse(t, 0.25))
    np.testing.assert_allclose(net(p), 0.25 * forward(torch.tensor(p)).numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("x -> x * exp(-x^2)", lambda x: x * torch.exp(-(x**2))),
        ("x -> x / (1 + abs(x))", lambda x: x / (1 + abs(x))),
        ("x -> max(x, 0.1x)", lambda x: torch.nn.functional.leaky_relu(x, 0.1)),
        ("x -> x > 0 ? sin(x) : tanh(x)", lambda x: torch.where(x > 0, torch.sin(x), torch.tanh(x))),
        ("x -> x * sigmoid(2x)", lambda x: x * torch.sigmoid(2 * x)),
        ("x -> log1p(x^2) - sqrt(1 + x^2)", lambda x: torch.log1p(x**2) - torch.sqrt(1 + x**2)),
        (Poly(0.5, -1, 0.25, 0.125), lambda x: 0.5 - x + 0.25 * x**2 + 0.125 * x**3),
    ],
)
def test_functions_of_the_user(activation, function):
    net = mg.Net(layers=[(4, activation, True), (2, "identity", True)], input=X, target=Y)
    check(net, lambda t: ((forward(t, function) - torch.tensor(Y)) ** 2).sum(1).mean())


def test_one_activation_for_each_unit(tmp_path):
    units = ("tanh", "relu", Poly(0, 1, 0.5), "x -> sin(x)")
    functions = (torch.tanh, torch.relu, lambda x: x + 0.5 * x**2, torch.sin)

    def activation(h):
        return torch.stack([f(h[:, j]) for j, f in enumerate(functions)], 1)

    net = mg.Net(layers=[(4, units, True), (2, "identity", True)], input=X, target=Y)
    p = check(net, lambda t: ((forward(t, activation) - torch.tensor(Y)) ** 2).sum(1).mean())
    res = mg.flow(net, p, maxT=0.1)
    assert mg.load(res.save(tmp_path / "run")).layers == net.layers


WEIGHTS = np.random.default_rng(8).random(30) + 0.1
OWN = [
    ("(f, y) -> log(cosh(f - y))", lambda f, y: torch.log(torch.cosh(f - y))),
    ("(f, y) -> abs(f - y) < 1 ? (f - y)^2 / 2 : abs(f - y) - 1/2", torch.nn.HuberLoss(reduction="none")),  # Huber
    ("(f, y) -> exp(f) - abs(y) * f", lambda f, y: torch.exp(f) - y.abs() * f),  # Poisson with log rates
    (
        "(f, y) -> max(0.9(y - f), -0.1(y - f)) + 0.01f^2",
        lambda f, y: torch.maximum(0.9 * (y - f), -0.1 * (y - f)) + 0.01 * f**2,
    ),
]


@pytest.mark.parametrize(("code", "function"), OWN)
def test_own_losses(code, function):
    net = mg.Net(layers=TANH, input=X, target=Y, weights=WEIGHTS, loss=code)

    def loss(theta):
        return (torch.tensor(WEIGHTS) * function(forward(theta), torch.tensor(Y)).sum(1)).mean()

    p = check(net, loss)
    single = mg.Net(layers=TANH, input=X, target=Y, weights=WEIGHTS, loss=code, dtype="float32")
    np.testing.assert_allclose(single.gradient(p.astype("f4")), net.gradient(p), atol=1e-5)


def test_minima_of_own_losses_are_those_of_scipy():
    from scipy.optimize import minimize

    line = mg.Net(layers=[(1, "identity", True)], input=X, target=Y[:, 0], loss=OWN[1][0])

    def huber(p):
        r = np.abs(X @ p[:3] + p[3] - Y[:, 0])
        return np.where(r < 1, r**2 / 2, r - 0.5).mean()

    found = minimize(huber, np.zeros(4), method="BFGS", options={"gtol": 1e-10})
    for solver in ("NewtonTrustRegion", "LevenbergMarquardt", "LBFGS"):
        res = mg.minimize(line, np.zeros(4), optim_solver=solver)
        np.testing.assert_allclose(res.x, found.x, atol=1e-6)
        assert res.gnorm < 1e-14
    assert mg.classify(line, res).kind == "minimum"
    steps = mg.flow(line, np.zeros(4), alg="Adam", batchsize=7, maxiterations_ode=10)
    assert steps.ode_loss < huber(np.zeros(4))


def test_logits():
    net = mg.Net(layers=[(4, "tanh", True), (3, "identity", True)], input=X, target=LABELS, loss="nll", weights=WEIGHTS)

    def loss(theta):
        terms = torch.nn.functional.cross_entropy(forward(theta, outputs=3), torch.tensor(LABELS), reduction="none")
        return (torch.tensor(WEIGHTS) * terms).mean()

    p = check(net, loss)
    probabilities = mg.Net(layers=SOFTMAX, input=X, target=LABELS, loss="nll", weights=WEIGHTS)
    assert net.loss(p) == probabilities.loss(p)
    np.testing.assert_allclose(net(p), forward(torch.tensor(p), outputs=3).numpy(), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(torch.softmax(torch.tensor(net(p)), 1).numpy(), probabilities(p), rtol=1e-12)
    res = mg.minimize(net.replace(l2=0.1), p)
    found = mg.classify(net, res.x)
    assert found.kind == "not a fixed point"
    assert mg.flow(net, p, maxT=1).loss == pytest.approx(mg.flow(probabilities, p, maxT=1).loss, rel=1e-6)


def correlation(theta):
    w = torch.tensor(WEIGHTS) / WEIGHTS.sum()
    f, y = forward(theta), torch.tensor(Y)
    df, dy = f - w @ f, y - w @ y
    return (1 - (w @ (df * dy)) / torch.sqrt((w @ df**2) * (w @ dy**2))).sum()


def test_correlation():
    net = mg.Net(layers=TANH, input=X, target=Y, weights=WEIGHTS, loss="correlation")
    p = check(net, correlation)
    assert net.loss(p) == net.data_terms(p)[0]
    scaled = net.params(p.copy())
    scaled["w2"][:] *= 3
    scaled["b2"][:] += 5
    assert net.loss(scaled) == pytest.approx(net.loss(p), rel=1e-14)
    plain = mg.Net(layers=[(1, "identity", True)], input=X, target=Y[:, 0], loss="correlation")
    res = mg.train(plain, plain.random_params(seed=0), maxT=10)
    design = np.column_stack([X, np.ones(30)])
    fit = design @ np.linalg.lstsq(design, Y[:, 0], rcond=None)[0]
    assert res.loss == pytest.approx(
        1 - np.corrcoef(fit, Y[:, 0])[0, 1], rel=1e-12
    )  # linear regression has the largest
    assert res.gnorm < 1e-14
    found = mg.classify(plain, res)
    assert (found.kind, found.nullity, found.unexplained) == ("degenerate", 2, 0)
    assert "does not depend on scale and offset of output 0" in str(found)
    for batchsize in (1, len(X) - 1):  # one sample in each batch, or in the last
        with pytest.raises(InputError, match="alone in a batch, where nothing has a correlation"):
            mg.flow(net, p, alg="Adam", batchsize=batchsize)
    assert mg.flow(net, p, alg="Adam", batchsize=len(X) - 2, maxiterations_ode=9).ode_iterations == 9
    perfect = mg.Net(layers=TANH, input=X, target=net(p), loss="correlation")
    assert 0 <= perfect.loss(p) < 1e-30


@pytest.mark.parametrize("solver", ["auto", "Newton", "NewtonTrustRegion", "LevenbergMarquardt", "BFGS"])
def test_minima_of_the_correlation_keep_the_scale(solver: str) -> None:
    net = mg.Net(layers=TANH, input=X, target=Y, weights=WEIGHTS, loss="correlation")
    seen = []
    for seed in range(2):
        p = net.random_params(seed=seed)
        res = mg.minimize(net, p, optim_solver=solver, callback=lambda step: seen.append(step))
        assert res.loss < 0.7 * net.loss(p)
        assert (res.loss, res.gnorm) == (net.loss(res.x), abs(net.gradient(res.x)).max())
        weight = WEIGHTS / WEIGHTS.sum()
        spreads = [weight @ (f - weight @ f) ** 2 for f in (net(p)[:, 0], net(res.x)[:, 0])]
        assert 0.5 < spreads[1] / spreads[0] < 2
    assert all(step.loss == pytest.approx(net.loss(step.x), rel=1e-12) for step in seen)
    assert seen


def test_data_of_a_call():
    net = mg.Net(layers=TANH, input=X, target=Y, weights=WEIGHTS, l2=0.1)
    p, v = np.random.default_rng(3).normal(size=(2, net.n_params))
    other, w = 2 * Y, WEIGHTS[::-1]
    cases = [
        ({"weights": w}, mg.Net(layers=TANH, input=X, target=Y, weights=w, l2=0.1)),
        ({"target": other}, mg.Net(layers=TANH, input=X, target=other, weights=WEIGHTS, l2=0.1)),
        ({"target": other, "weights": w}, mg.Net(layers=TANH, input=X, target=other, weights=w, l2=0.1)),
        ({"input": -X, "target": other}, mg.Net(layers=TANH, input=-X, target=other, l2=0.1)),
    ]
    for data, same in cases:
        assert net.loss(p, **data) == same.loss(p)
        assert net.value_and_gradient(p, **data)[0] == same.loss(p)
        for call in ("gradient", "hessian"):
            np.testing.assert_array_equal(getattr(net, call)(p, **data), getattr(same, call)(p))
        np.testing.assert_array_equal(net.hvp(p, v, **data), same.hvp(p, v))
    with pytest.raises(InputError, match="target is missing"):
        net.hvp(p, v, input=X)
    with pytest.raises(InputError, match=r"weights has shape \(3,\)"):
        net.gradient(p, weights=np.ones(3))
    with pytest.raises(InputError, match="no data of its own"):
        mg.Net(layers=TANH, n_features=3).loss(p, weights=w)


def test_a_net_without_data():
    empty = mg.Net(layers=TANH, n_features=3, l2=0.2)
    full = mg.Net(layers=TANH, input=X, target=Y, l2=0.2)
    p = empty.random_params(seed=3)
    np.testing.assert_array_equal(p.flat, full.random_params(seed=3).flat)
    np.testing.assert_array_equal(empty(p, X), full(p))
    assert empty.loss(p, input=X, target=Y) == full.loss(p)
    np.testing.assert_array_equal(empty.gradient(p, input=X, target=Y), full.gradient(p))
    np.testing.assert_array_equal(empty.hessian(p, input=X, target=Y), full.hessian(p))
    other = full.on(X[:7], Y[:7], weights=np.arange(1, 8))
    assert other.loss(p) == mg.Net(layers=TANH, input=X[:7], target=Y[:7], weights=np.arange(1, 8), l2=0.2).loss(p)
    assert (other.n_samples, full.n_samples, empty.n_samples) == (7, 30, 0)
    for call in (empty.loss, empty.gradient, empty.hessian, empty, empty.jacobian, lambda p: mg.flow(empty, p)):
        with pytest.raises(InputError, match="no data"):
            call(p)


def test_jacobian_and_what_is_made_of_it():
    net = mg.Net(layers=TANH, input=X, target=Y)
    p = np.random.default_rng(4).normal(size=net.n_params)
    J = torch.autograd.functional.jacobian(forward, torch.tensor(p)).numpy()
    np.testing.assert_allclose(net.jacobian(p), J, rtol=0, atol=1e-13 * np.abs(J).max())
    flat = J.reshape(-1, net.n_params)
    np.testing.assert_allclose(net.tangent_kernel(p), flat @ flat.T, atol=1e-12 * np.abs(flat @ flat.T).max())
    np.testing.assert_allclose(net.gauss_newton(p), 2 * flat.T @ flat / 30, atol=1e-12)
    H = net.hessian(p)
    first, second = net.hessian_blocks(p)
    np.testing.assert_allclose(first, H[:16, :16], atol=1e-14)
    np.testing.assert_allclose(second, H[16:, 16:], atol=1e-14)


def test_matrix_free_spectrum():
    net = mg.Net(layers=TANH, input=X, target=Y)
    p = net.random_params(seed=0)
    values = net.hessian_spectrum(p)[0]
    np.testing.assert_allclose(net.extreme_eigenvalues(p, 3, "smallest"), values[:3], atol=1e-10)
    np.testing.assert_allclose(net.extreme_eigenvalues(p, 4, "largest"), values[-4:], atol=1e-10)
    np.testing.assert_allclose(net.extreme_eigenvalues(p, 2), values[[0, -1]], atol=1e-10)
    np.testing.assert_allclose(net.extreme_eigenvalues(p, 1), values[-1:], atol=1e-10)
    v = np.ones(net.n_params)
    np.testing.assert_allclose(net.linear_operator(p) @ v, net.hessian(p) @ v, rtol=1e-11)
    with pytest.raises(InputError, match="k is 0"):
        net.extreme_eigenvalues(p, 0)
    with pytest.raises(InputError, match="did you mean 'smallest'"):
        net.extreme_eigenvalues(p, 2, "small")


def test_initial_scales_and_functions():
    net = mg.Net(layers=TANH, n_features=3)
    plain, scaled = net.random_params(seed=1), net.random_params(seed=1, scales=[2, 0.5])
    np.testing.assert_allclose(scaled["w1"], 2 * plain["w1"])
    np.testing.assert_allclose(scaled["w2"], 0.5 * plain["w2"])
    own = net.random_params(seed=5, init=lambda shape, rng: rng.normal(size=shape))
    rng = np.random.default_rng(5)
    np.testing.assert_array_equal(own["w1"], rng.normal(size=(4, 3)))
    np.testing.assert_array_equal(own["w2"], rng.normal(size=(2, 4)))
    assert not own["b1"].any()
    with pytest.raises(InputError, match="init returned shape"):
        net.random_params(init=lambda shape, rng: np.zeros(3))
    with pytest.raises(InputError, match="scales is"):
        net.random_params(scales=[1, 2, 3])


THREADS = """
import numpy as np, pymlpgf as mg
X = np.random.default_rng(0).normal(size=(3000, 3))
layers = [(5, "tanh", True), (2, "identity", True)]
nets = [mg.Net(layers=layers, input=X, target=X[:, :2], threads=n) for n in (1, 2, None)]
p = nets[0].random_params(seed=0)
for f in ("loss", "gradient", "hessian"):
    one, two, default = (getattr(net, f)(p) for net in nets)
    assert np.array_equal(one, two) and np.array_equal(one, default)
print(mg.train(nets[1], p, maxT=1, maxiterations_optim=5).loss < nets[0].loss(p))
"""


def test_threads():
    environment = {**os.environ, "PYMLPGF_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, timeout=240)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr
    with pytest.raises(InputError, match="Julia runs with"):
        mg.Net(layers=TANH, input=X, target=Y, threads=1000)
    with pytest.raises(InputError, match="threads is 0"):
        mg.Net(layers=TANH, input=X, target=Y, threads=0)


def test_teacher():
    teacher = mg.TeacherNet(layers=TANH, params=np.arange(26.0) / 26, n_features=3)
    np.testing.assert_allclose(teacher(X), forward(torch.arange(26.0, dtype=torch.float64) / 26).numpy(), rtol=1e-13)
    with pytest.raises(InputError, match="26 parameters"):
        mg.TeacherNet(layers=TANH, params=np.zeros(3), n_features=3)


def test_steps_out_of_the_domain_of_an_own_loss() -> None:
    net = mg.Net(layers=TANH, input=X, target=abs(Y), loss="(f, y) -> f - y * log(f)")  # Poisson's
    p = net.random_params(seed=0)
    p["w2"][:], p["b2"][:] = 0, 0.3
    for solver in ("auto", "NewtonTrustRegion", "BFGS"):
        res = mg.minimize(net, p, optim_solver=solver, maxiterations_optim=200)
        assert res.loss < net.loss(p)
        assert (net(res.x) > 0).all()
