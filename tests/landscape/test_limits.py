"""Limits of nets and minima at infinity; the formulas are tested in julia/test/limit_tests.jl."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import least_squares, minimize

import pymlpgf as mg
from pymlpgf import Derivative, InputError, Inside, Sharp, Tail

spec = importlib.util.spec_from_file_location(
    "minima_at_infinity", Path(__file__).parents[2] / "examples/minima_at_infinity.py"
)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)

QUIET = {"verbosity": 0}


@pytest.fixture(scope="module")
def ends():
    """Runs of the two problems of the example, of which 27 and 156 in 200 end in two channels."""
    return {
        problem.__name__: (problem(), example.ends(problem(), range(12)))
        for problem in (example.one_input, example.two_inputs)
    }


def test_every_run_ends(ends):
    kinds = set()
    for _, found in ends.values():
        for m in found:
            kinds.add(m.kind)
            assert m.kind != "open", m
            assert m.gnorm < 1e-12
            assert m.attracts == (m.kind == "minimum at infinity") == bool(m.channels)
    assert kinds == {"minimum", "minimum at infinity"}


def test_the_trust_region_has_the_last_rounds(ends):
    """From here others stop in a flat valley, from which their limit is not seen: without it both ends are open."""
    net = ends["two_inputs"][0]
    p = net.random_params(seed=98)
    m, alone = (
        mg.minimize(net, p, at_infinity=True, optim_solver=solver, **QUIET) for solver in ("auto", "NewtonLBFGS")
    )
    assert m.kind == alone.kind == "minimum at infinity"
    assert max(m.gnorm, alone.gnorm) <= 1e-12
    assert m.attracts
    assert m.loss == pytest.approx(alone.loss, rel=1e-12)


def test_a_finite_minimum_is_what_minimize_finds(ends):
    for net, found in ends.values():
        for seed, m in enumerate(found):
            if m.kind == "minimum":
                assert (m.limit, len(m.q), len(m.coefficients)) == (None, 0, 0)
                res = mg.minimize(net, net.random_params(seed=seed), maxiterations_optim=20_000, **QUIET)
                assert res.loss == pytest.approx(m.loss, rel=1e-10)


def test_the_limit_is_a_minimum_below_the_run(ends):
    for net, found in ends.values():
        for m in found:
            if m.kind != "minimum at infinity":
                continue
            c = mg.classify(m.limit, m.q)
            assert (c.index, c.unexplained <= 1) == (0, True)
            assert m.limit.loss(m.q) == m.loss
            assert m.limit.gradient(m.q) == pytest.approx(0, abs=1e-12)
            assert m.loss < net.loss(m.x)
            pairs = [channel.units for channel in m.channels if len(channel.units) == 2]
            tails = [channel.units[0] for channel in m.channels if len(channel.units) == 1]
            chart = net.limit(pairs, tails=tails, eps=1e-4)
            assert chart.loss(m.q) - m.loss == pytest.approx(m.coefficients.sum() * 1e-8, rel=1e-2)


def test_the_limit_against_scipy(ends):
    net, found = ends["two_inputs"]
    m = next(m for m in found if [len(channel.units) for channel in m.channels] == [2, 2])
    X, y = net._core.data[0], net._core.data[1][:, 0]

    def residuals(z):
        total = z[-1]
        for v in (z[:8], z[8:16]):
            t = np.tanh(X @ v[:2] + v[2])
            total = total + v[3] * t + (X @ v[4:6] + v[6]) * (1 - t**2)
        return total - y

    z = []
    for channel in m.channels:
        w, d = channel.incoming
        z += [*w, *channel.outgoing[0], *(d * channel.outgoing[1, 0]), 0]
    z = np.array([*z, net.params(m.x).biases[1][0]])
    fit = least_squares(residuals, z, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    assert np.mean(fit.fun**2) == pytest.approx(m.loss, rel=1e-10)


def test_ordinary_runs_come_down_as_the_square_of_the_distance(ends):
    """Flows from the seeds themselves: 1/ε grows as the fourth root of time, three decades take twelve of time."""
    net, found = ends["two_inputs"]
    pairs = [(seed, m) for seed, m in enumerate(found) if [len(c.units) for c in m.channels] == [2, 2]][:5]
    assert len(pairs) == 5
    for seed, m in pairs:
        options = {"alg": "Rodas5P", "maxT": 1e26, "maxtime_ode": 30, "n_samples_trajectory": 400, **QUIET}
        run = mg.flow(net, net.random_params(seed=seed), **options)
        distances, above = [], []
        for x, loss in zip(run.trajectory.x, run.trajectory.loss, strict=True):
            W = np.column_stack([net.params(x).weights[0], net.params(x).biases[0]])
            lengths = [
                min(np.linalg.norm(W[i] - W[j]), np.linalg.norm(W[i] + W[j])) for i, j in (c.units for c in m.channels)
            ]
            distances.append(np.array(lengths) / 2)
            above.append(loss - m.loss)
        eps, excess = np.sqrt(np.prod(distances, axis=1)), np.array(above)
        near = (eps < 0.25) & (np.arange(len(eps)) > np.argmax(eps))
        assert eps[near].max() / eps[near].min() > 1000
        assert (excess > 0).all()
        assert np.polyfit(np.log(eps[near]), np.log(excess[near]), 1)[0] == pytest.approx(2, abs=0.1)
        expected = np.array(distances)[near] ** 2 @ m.coefficients
        assert excess[near][-50:] == pytest.approx(expected[-50:], rel=1e-3)


def _lowest(net, m, eps):
    """The lowest loss at a distance: Newton's method in the chart, with ‖Δ‖ = 1 for each pair."""
    pairs = [channel.units for channel in m.channels]
    chart, q = net.limit(pairs, eps=eps), m.q.copy()
    width, D = net.layers[0][0], net.n_features
    places = [[*range(j * D, (j + 1) * D), width * D + j] for _, j in pairs]
    for _ in range(6):
        rows = np.zeros((len(pairs), len(q)))
        for row, place in zip(rows, places, strict=True):
            row[place] = q[place]
        B = np.linalg.svd(rows)[2][len(pairs) :].T
        H = B.T @ chart.hessian(q) @ B
        # Moving along the sphere costs what the gradient along Δ says.
        for place in places:
            moved = np.zeros(len(q))
            moved[place] = chart.gradient(q)[place] @ q[place]
            H -= (B.T * moved) @ B
        q = q - B @ np.linalg.solve(H, B.T @ chart.gradient(q))
        for place in places:
            q[place] /= np.linalg.norm(q[place])
    return chart.loss(q)


def test_the_next_coefficients_against_the_lowest_loss_at_a_distance(ends):
    net, found = ends["two_inputs"]
    m = next(m for m in found if [len(channel.units) for channel in m.channels] == [2, 2])
    K = m.next_coefficients()
    np.testing.assert_array_equal(K, K.T)
    rest = [(_lowest(net, m, e) - m.loss - m.coefficients.sum() * e**2) / e**4 for e in (0.02, 0.01)]
    assert (4 * rest[1] - rest[0]) / 3 == pytest.approx(K.sum(), rel=1e-3)


def test_a_chart_flows_as_the_net_itself(ends):
    net = ends["two_inputs"][0]
    chart = net.limit([(0, 2)], eps=0.1)
    q = net.random_params(seed=3)
    there = mg.flow(chart, q, tauinv=chart.tauinv(), maxT=1, abstol=1e-10, reltol=1e-10, **QUIET)
    exact = mg.flow(net, chart.from_limit(q), maxT=1, abstol=1e-10, reltol=1e-10, **QUIET)
    np.testing.assert_allclose(chart.from_limit(there.x), exact.x, rtol=0, atol=1e-6)


def test_the_figure_of_a_channel(ends):
    plot = pytest.importorskip("pymlpgf.plot")
    net, found = ends["two_inputs"]
    m = next(m for m in found if m.kind == "minimum at infinity")
    line, square = plot.channel(net, m, eps=[0.01, 0.001, 0.0001])
    np.testing.assert_allclose(line.get_ydata(), square.get_ydata(), rtol=0.05)
    finite = next(m for _, found in ends.values() for m in found if m.kind == "minimum")
    with pytest.raises(InputError, match="a minimum at infinity is needed"):
        plot.channel(net, finite)


@pytest.mark.parametrize("outputs", [1, 2])
def test_derivatives_against_torch(outputs):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(50, 3)), rng.normal(size=(50, outputs))
    layers = [(4, ("tanh", Derivative(of=0), "softplus", Derivative(of=2)), True), (3, "tanh", True)]
    net = mg.Net(layers=[*layers, (outputs, "identity", True)], input=X, target=Y)
    p = rng.normal(size=net.n_params)

    def loss(theta):
        x, y, at = torch.from_numpy(X), torch.from_numpy(Y), 0
        for number, (fan_in, width, bias) in enumerate(net._shapes):
            W = theta[at : at + width * fan_in].reshape(width, fan_in)
            b = theta[at + width * fan_in : at + width * (fan_in + bias)]
            at += width * (fan_in + bias)
            h = x @ W.T + b
            if number == 0:
                t, s = torch.tanh(h[:, 0]), torch.sigmoid(h[:, 2])
                x = torch.stack([t, h[:, 1] * (1 - t * t), torch.nn.functional.softplus(h[:, 2]), h[:, 3] * s], 1)
            else:
                x = torch.tanh(h) if number == 1 else h
        return ((x - y) ** 2).sum(1).mean()

    theta = torch.from_numpy(p.copy()).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(theta), theta)
    hessian = torch.autograd.functional.hessian(loss, theta.detach())
    np.testing.assert_allclose(net.gradient(p), gradient.numpy(), rtol=0, atol=1e-11 * gradient.abs().max().item())
    np.testing.assert_allclose(net.hessian(p), hessian.numpy(), rtol=0, atol=1e-11 * hessian.abs().max().item())


def test_limits_run_in_all_solvers(ends):
    m = next(m for m in ends["two_inputs"][1] if m.kind == "minimum at infinity")
    start = m.q + 0.01
    losses = [
        mg.minimize(m.limit, start, optim_solver=s, **QUIET).loss for s in ("Newton", "LevenbergMarquardt", "BFGS")
    ]
    assert losses == pytest.approx([m.loss] * 3, rel=1e-6)
    run = mg.flow(m.limit, start, maxT=1e3, **QUIET)
    assert m.loss < run.loss < m.limit.loss(start)


def test_a_limit_is_saved_with_its_results(tmp_path, ends):
    net, found = ends["two_inputs"]
    m = next(m for m in found if m.kind == "minimum at infinity")
    res = mg.minimize(m.limit, m.q, **QUIET)
    again = mg.load(res.save(tmp_path / "limit")).net()
    assert again.layers == m.limit.layers
    assert again.loss(m.q) == m.loss
    assert again.ordinary().layers == net.layers


def test_a_tail_at_a_distance_is_the_unit_itself():
    X = np.random.default_rng(1).normal(size=(20, 2))
    for f in ("tanh", "sigmoid", "softplus", "g"):
        net = mg.Net(layers=[(3, f, True), (1, "identity", True)], input=X, target=X[:, :1])
        chart = net.limit(tails=[1], eps=0.1)
        assert chart.layers[0] == (3, (f, Tail(f, 0.1), f), True)
        q = net.random_params(seed=1)
        np.testing.assert_allclose(net(chart.from_limit(q)), chart(q), rtol=1e-9)
        np.testing.assert_allclose(chart.to_limit(chart.from_limit(q))[0], q, atol=1e-12)


def test_channels_of_several_layers():
    X = np.random.default_rng(1).normal(size=(20, 2))
    net = mg.Net(layers=[(3, "tanh", True), (4, "softplus", False), (2, "identity", True)], input=X, target=X)
    limit = net.limit([(0, 2)]).limit([(1, 3)], layer=1)
    q = net.random_params(seed=1)
    p = limit.from_limit(q, [0.01, 0.02])
    found = mg.channels(net, p)
    assert [(channel.layer, channel.units) for channel in found] == [(0, (0, 2)), (1, (1, 3))]
    assert [channel.incoming.shape for channel in found] == [(2, 3), (2, 3)]
    assert found[1].outgoing.shape == (2, 2)
    assert found[0].eps == pytest.approx(
        0.01 * np.hypot(*np.linalg.norm([q.weights[0][2]], axis=1), q.biases[0][2]), rel=1e-9
    )


def test_two_tails_that_merge_against_scipy(ends):
    """Their limit is (c + kx) exp(h) + C exp(2h), which one seed in a hundred goes to."""
    net = ends["two_inputs"][0]
    m = mg.minimize(net, net.random_params(seed=69), at_infinity=True, maxiterations_optim=20_000, **QUIET)
    assert m.kind == "minimum at infinity"
    assert [channel.kind for channel in m.channels] == ["tails"]
    assert m.gnorm < 1e-12
    i, j = m.channels[0].units
    assert (m.limit.layers[0][1][i], m.limit.layers[0][1][j]) == (Tail("tanh"), Derivative(of=i))
    X, y = net._core.data[0], net._core.data[1][:, 0]
    q = m.limit.params(m.q)

    def residuals(z):
        h = X @ z[:2]
        pair = (z[2] + X @ z[3:5]) * np.exp(h) + z[5] * np.exp(2 * h)
        return pair + np.tanh(X @ z[6:10].reshape(2, 2).T + z[10:12]) @ z[12:14] + z[14] - y

    others = [k for k in range(4) if k not in (i, j)]
    (w, d), (c, a), b = q.weights[0][[i, j]], q.weights[1][0][[i, j]], q.biases[0][i]
    e = np.exp(b)
    z = [*w, c * e, *(a * e * d), -a * e**2, *q.weights[0][others].ravel(), *q.biases[0][others]]
    z = np.array([*z, *q.weights[1][0][others], q.biases[1][0]])
    assert np.mean(residuals(z) ** 2) == pytest.approx(m.loss, rel=1e-12)
    fit = least_squares(residuals, z, xtol=1e-15, ftol=1e-15, gtol=1e-15, x_scale="jac")
    assert np.mean(fit.fun**2) == pytest.approx(m.loss, rel=1e-10)
    assert m.loss < net.loss(m.point(0.01)) < net.loss(m.point(0.02))


def _steps(x, y):
    """The loss of each fit c + a s(x) with a step s between two samples, or with one sample inside, where |s| < 1."""
    order = np.argsort(x)
    x, y = x[order], y[order]
    for k in range(1, len(x)):
        for inside in (None, k):
            keep = np.arange(len(x)) != inside
            A = np.column_stack([np.sign(np.arange(len(x)) - k + 0.5), np.ones(len(x))])[keep]
            (a, c), *_ = np.linalg.lstsq(A, y[keep], rcond=None)
            if inside is None or abs((y[k] - c) / a) < 1:
                yield np.sum((A @ [a, c] - y[keep]) ** 2) / len(x)


def test_steps_against_all_fits_by_least_squares():
    x = np.linspace(-2, 2, 20)
    kinds = set()
    for seed in range(1, 9):
        y = np.sign(x - 0.3) + 0.1 * np.random.default_rng(seed).normal(size=20)
        net = mg.Net(layers=[(1, "tanh", True), (1, "identity", True)], input=x[:, None], target=y)
        m = mg.minimize(net, net.random_params(seed=1), at_infinity=True, **QUIET)
        assert m.kind != "open"
        if m.kind == "minimum":
            continue
        assert m.gnorm < 1e-12
        assert [c.kind for c in m.channels] == ["step"]
        assert min(abs(loss - m.loss) for loss in _steps(x, y)) < 1e-13
        kinds.add(type(m.limit.layers[0][1][0]))
        assert (mg.classify(m.limit, m.q).kind, mg.classify(m.limit, m.q).unexplained) == ("degenerate", 0)
        # From above to the limit, by the exponential of the nearest sample outside.
        W, b = m.point(0.02).weights[0][0], m.point(0.02).biases[0][0]
        outside = sorted(h for h in np.abs(x * W + b) if h > 5)[0]
        assert m.coefficients[0] > 0
        assert 0 < net.loss(m.point(0.02)) - m.loss < 4 * m.coefficients[0] * np.exp(-2 * outside)
        proof = mg.certify(m.limit, m.q)
        assert (proof.certified, proof.kind) == (True, "minimum")
        assert min(abs(loss - proof.loss_interval).min() for loss in _steps(x, y)) < 1e-13
    assert kinds == {Sharp, Inside}


def test_proofs_of_steps_through_samples():
    """Two of three weights are held: the step turns around the sample inside, which is fitted exactly."""
    X = np.random.default_rng(2).normal(size=(21, 2))
    X[:, 0] += 2 * np.sign(X[:, 0])
    X[20] = [0.1, 0.3]
    y = np.append(np.sign(X[:20, 0]) + 0.1 * np.random.default_rng(3).normal(size=20), 0.4)
    net = mg.Net(layers=[(1, "tanh", True), (1, "identity", True)], input=X, target=y)
    limit = net.with_samples_inside([0], 0)
    res = mg.minimize(limit, [100.0, 20.0, -15.5, 1.0, 0.0])
    proof = mg.certify(limit, res)
    assert (proof.certified, proof.kind, len(proof.fixed)) == (True, "minimum", 2)
    assert [gauge.label for gauge in proof.gauges] == ["step through samples"]
    A = np.column_stack([np.sign(X[:20, 0]), np.ones(20)])
    exact = np.sum((A @ np.linalg.lstsq(A, y[:20], rcond=None)[0] - y[:20]) ** 2) / 21
    low, high = proof.loss_interval
    assert low - 1e-16 <= exact <= high + 1e-16
    assert high - low < 1e-14


def test_softplus_becomes_relu():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(30, 2))
    y = np.maximum(X @ [1, 0.2] - 0.1, 0) + 0.02 * rng.normal(size=30)
    net = mg.Net(layers=[(1, "softplus", True), (1, "identity", True)], input=X, target=y)
    m = mg.minimize(net, net.random_params(seed=1), at_infinity=True, **QUIET)
    assert (m.kind, [e.label for e in mg.classify(net, m.x).explanations]) == ("minimum at infinity", ["relu unit"])
    assert [c.kind for c in m.channels] == ["relu"]
    assert m.limit.layers[0] == (1, (Sharp("softplus"),), True)
    assert m.gnorm < 1e-12

    def residuals(z):
        return z[3] * np.maximum(X @ z[:2] + z[2], 0) + z[4] - y

    fit = least_squares(residuals, m.q, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    assert np.mean(fit.fun**2) == pytest.approx(m.loss, rel=1e-12)
    assert m.coefficients[0] > 0
    assert net.loss(m.point(0.02)) > m.loss
    chart = net.limit(sharp=[0], eps=0.02)
    assert chart.loss(m.q) == pytest.approx(net.loss(m.point(0.02)), rel=1e-12)


def test_a_sample_stays_on_the_kink_of_a_relu():
    """The best place of the kink among all is that sample, by linear least squares for each of 2001 places."""
    x = np.linspace(-1, 1, 21)
    y = np.maximum(x, 0) - 0.3 * (np.abs(x) < 1e-9)
    net = mg.Net(layers=[(1, "softplus", True), (1, "identity", True)], input=x[:, None], target=y)
    m = mg.minimize(net, [3.0, 0.1, 0.3, 0.0], at_infinity=True, **QUIET)
    assert (m.kind, [c.kind for c in m.channels]) == ("minimum at infinity", ["kink"])
    assert m.gnorm < 1e-12

    def fit(place):
        A = np.column_stack([np.maximum(x - place, 0), np.ones(21)])
        return np.mean((A @ np.linalg.lstsq(A, y, rcond=None)[0] - y) ** 2)

    places = np.linspace(-0.9, 0.9, 2001)
    losses = [fit(place) for place in places]
    assert places[np.argmin(losses)] == pytest.approx(0, abs=1e-9)
    assert m.loss == pytest.approx(min(losses), rel=1e-12)
    again = mg.minimize(m.limit, m.q, constraint=m.constraint, **QUIET)
    assert (again.loss, again.gnorm < 1e-12) == (pytest.approx(m.loss, rel=1e-13), True)
    c = mg.classify(m.limit, m.q, constraint=m.constraint)
    assert (c.index, c.unexplained) == (0, 0)
    assert (net.loss(m.point(1e-5)) - m.loss) / 1e-5 == pytest.approx(m.coefficients[0], rel=1e-3)
    assert m.coefficients[0] > 0


@pytest.mark.parametrize("classes", [2, 3])
def test_separable_classes_go_in_the_direction_of_the_largest_margin(classes):
    rng = np.random.default_rng(0)
    centres = 4 * np.array([[1, 0], [-0.5, 0.8], [-0.5, -0.8]])[:classes]
    labels = rng.integers(0, classes, 60)
    X = centres[labels] + rng.normal(size=(60, 2))
    net = mg.Net(layers=[(classes, "softmax", True)], input=X, target=labels, loss="nll")
    m = mg.minimize(net, net.random_params(seed=0), at_infinity=True, **QUIET)
    assert (m.kind, m.loss, m.limit, m.attracts) == ("minimum at infinity", 0, None, True)
    assert "separable classes" in m.reason
    c = mg.classify(net, m.x)
    assert (c.kind, [reason.label for reason in c.explanations]) == ("escaping", ["separable classes"])
    # SciPy's least norm with all margins at least one
    Z = np.column_stack([X, np.ones(60)])
    rows = []
    for z, label in zip(Z, labels, strict=True):
        for other in set(range(classes)) - {label}:
            p = net.params(np.zeros(net.n_params))
            for unit, sign in ((label, 1), (other, -1)):
                p.weights[0][unit], p.biases[0][unit] = sign * z[:2], sign * z[2]
            rows.append(p.flat)
    A = np.array(rows)
    exact = minimize(
        lambda t: t @ t / 2, m.q / (A @ m.q).min() * 1.1, jac=lambda t: t, method="SLSQP",
        constraints={"type": "ineq", "fun": lambda t: A @ t - 1, "jac": lambda t: A},
        options={"ftol": 1e-15, "maxiter": 1000},
    )  # fmt: skip
    np.testing.assert_allclose(m.q, exact.x / np.linalg.norm(exact.x), atol=1e-6)
    run = mg.flow(net, net.random_params(seed=0), maxT=1e12, **QUIET)
    message = mg.minimize(net, net.random_params(seed=0), **QUIET).message
    assert "classes are separable" in run.message
    assert "classes are separable" in message
    grown = run.x
    assert grown @ m.q / np.linalg.norm(grown) > 0.99


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: net.limit([(0, 0)]), r"pairs has \(0, 0\); each unit"),
        (lambda net: net.limit([(0, 4)]), r"pairs has \(0, 4\); two or three units from 0 to 3"),
        (lambda net: net.limit([(0, 1)], tails=[1]), "tails has 1; each unit can go to one limit only"),
        (lambda net: net.limit([(0, 1)], sharp=[1]), "sharp has 1; each unit can go to one limit only"),
        (lambda net: net.limit(sharp=[4]), "sharp has 4; a unit from 0 to 3"),
        (lambda _: mg.Net([(1, Sharp("relu"), True), (1, "identity", True)], n_features=1), "become steps or relus"),
        (lambda _: mg.Net([(1, Inside("gelu"), True), (1, "identity", True)], n_features=1), "become steps"),
        (lambda net: net.limit([(0, 1)], layer=1), "layer is 1; hidden layers"),
        (lambda net: net.limit([(0, 1)], eps=-1), "eps = -1"),
        (lambda net: net.limit([(0, 1, 2)], eps=0.1), "orders"),
        (lambda net: net.replace(l2=0.1).limit([(0, 1)]), "has no minimum at infinity"),
        (lambda net: net.to_limit(np.zeros(17)), "this net is no limit"),
        (lambda net: net.limit([(0, 1)]).from_limit(np.zeros(17), 0), "eps is 0"),
        (lambda net: net.limit([(0, 1)]).to_limit(np.zeros(17)), "the same incoming weights"),
        (lambda net: mg.channels(net, np.zeros(16)), "17 parameters"),
        (lambda net: mg.channels(net, np.zeros(17), growth="large"), "growth is 'large'"),
        (lambda net: mg.minimize(net, np.zeros(17), at_infinity=True, callback=print), "callback is given"),
        (lambda net: mg.minimize(net.replace(l2=1), np.zeros(17), at_infinity=True), "regularisers"),
        (lambda _: mg.Net([(1, Derivative(of=0), True), (1, "identity", True)], n_features=1), "Derivative"),
        (lambda _: mg.Net([(2, ("relu", Derivative(of=0)), True), (1, "identity", True)], n_features=1), "smooth"),
        (lambda _: mg.Net([(1, ("tanh",), True), (2, ("tanh", Derivative(0)), True)], n_features=1), "hidden layers"),
        (lambda _: mg.Net([(1, Tail("relu"), True), (1, "identity", True)], n_features=1), "exponential tails"),
    ],
)  # fmt: skip
def test_bad_input(ends, call, message):
    with pytest.raises(InputError, match=message):
        call(ends["two_inputs"][0])


def test_a_flat_valley_is_no_minimum():
    """Nothing in float64 tells the valley's lowest eigenvalues from zero; with more digits there is still a slope."""
    x = np.linspace(-1.5, 1.5, 41)[:, None]
    target = np.sin(3 * x) + 0.4 * x**3
    net = mg.Net(layers=[(4, "softplus", True), (1, "identity", True)], input=x, target=target)
    m = mg.minimize(net, net.random_params(seed=0), at_infinity=True, maxiterations_optim=1_000, **QUIET)
    assert m.kind == "open"
    assert mg.minimize(net, m.x, optim_solver="NewtonTrustRegion", **QUIET).loss < 0.999 * m.loss


def test_a_limit_beyond_the_range_of_numbers_is_left_out():
    """The bias of a tail is −380 here, so that its outgoing weight in the limit is infinite."""
    x, noise = np.linspace(-1.5, 1.5, 41)[:, None], np.random.default_rng(3).normal(size=(41, 1))
    target = np.sin(4 * x) * np.exp(-0.3 * x) + 0.05 * noise
    net = mg.Net(layers=[(5, "tanh", True), (1, "identity", True)], input=x, target=target)
    m = mg.minimize(net, net.random_params(seed=4), at_infinity=True, maxiterations_optim=60_000, **QUIET)
    assert np.isfinite([*m.x, m.loss, m.gnorm]).all()
    if m.kind == "open":
        assert "infinity" in m.reason
    else:  # on another Julia rounding leads elsewhere
        assert m.kind == "minimum at infinity"
        assert np.abs(m.limit.gradient(m.q)).max() < 1e-12
