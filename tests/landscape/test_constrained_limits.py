"""Limits of nets under constraints: by the ordinary net at a distance, and minima at infinity by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

import pymlpgf as mg
from pymlpgf import InputError

QUIET = {"verbosity": 0}
RNG = np.random.default_rng(4)
X = RNG.normal(size=(60, 2))
Y = np.c_[np.sin(X[:, 0]), X[:, 0] * X[:, 1]]
NET = mg.Net(layers=[(4, "softplus", True), (2, "identity", True)], input=X, target=Y)
P = NET.random_params(seed=1).flat  # w1 0…7, b1 8…11, w2 12…19, b2 20…21
SAME = P.copy()
SAME[8:10] = 0.7
# What is tied of units 0 and 1 is tied of 2 and 3, with the opposite bias.
PAIRS = [
    *((f"w1[{i}]", f"w1[{j}]") for i, j in ((0, 2), (1, 3))), *((f"b1[{i}]", f"-b1[{j}]") for i, j in ((0, 2), (1, 3))),
    *((f"w2[:, {i}]", f"w2[:, {j}]") for i, j in ((0, 2), (1, 3))),
]  # fmt: skip
CARRIED = {
    "output bias": ({"freeze": "b2"}, {"pairs": [(0, 1)], "tails": [2]}, {"freeze": [20, 21], "tie": []}),
    "other units": (
        {"freeze": "w1[3]", "tie": [("w2[0, 2]", "-w2[1, 3]")]}, {"pairs": [(0, 1)]},
        {"freeze": [6, 7], "tie": [["p[14]", "-p[19]"]]},
    ),
    "both biases": ({"freeze": ["b1[0]", "b1[1]"]}, {"pairs": [(0, 1)]}, {"freeze": [8, 9], "tie": []}),
    "equal biases": ({"tie": [("b1[0]", "b1[1]")]}, {"pairs": [(0, 1)]}, {"freeze": [9], "tie": []}),
    "opposite weights": ({"tie": [("w2[0, 0]", "-w2[0, 1]")]}, {"pairs": [(0, 1)]}, {"freeze": [12], "tie": []}),
    "pairs": (
        {"tie": PAIRS}, {"pairs": [(0, 1), (2, 3)]},
        {"freeze": [], "tie": [["p[0]", "p[4]"], ["p[1]", "p[5]"], ["p[2]", "p[6]"], ["p[3]", "p[7]"],
                               ["p[8]", "-p[10]"], ["p[9]", "-p[11]"], ["p[12]", "p[14]"], ["p[13]", "p[15]"],
                               ["p[16]", "p[18]"], ["p[17]", "p[19]"]]},
    ),
    "a relu through the origin": ({"freeze": "b1[3]"}, {"sharp": [3]}, {"freeze": [11], "tie": []}),
}  # fmt: skip


@pytest.mark.parametrize("case", CARRIED)
def test_a_constraint_is_carried_to_the_limit_and_back(case):
    rule, units, expected = CARRIED[case]
    p = SAME.copy()
    p[11] = 0
    net = mg.ConstrainedNet(NET, p, **rule)
    limit, chart = net.limit(**units), net.limit(**units, eps=0.05)
    assert limit.constraint == expected
    assert (limit.n_params, chart.n_params) == (net.n_params, net.n_params)
    q = limit.embed(np.random.default_rng(2).normal(size=limit.n_params))
    for eps in (0.3, 0.05):
        theta = limit.from_limit(q, eps)
        z = net.coordinates(theta)  # of an ordinary point that obeys the constraint
        np.testing.assert_allclose(net.embed(z).flat, theta.flat, rtol=0, atol=1e-12 * abs(theta.flat).max())
        assert net.loss(z) == pytest.approx(limit.at_distance(eps).loss(q), rel=1e-9)
    back, eps = limit.to_limit(theta)
    np.testing.assert_allclose(limit.from_limit(back, eps).flat, theta.flat, atol=1e-9 * abs(theta.flat).max())
    np.testing.assert_allclose(limit.to_limit(z)[0].flat, back.flat, rtol=1e-12)
    ordinary = limit.ordinary()
    np.testing.assert_array_equal(ordinary.B.toarray() @ ordinary.coordinates(theta) + ordinary.c, ordinary.embed(z))
    # The chart's coordinates are those of the limit; derivatives by them are differences of the ordinary net's loss.
    q = chart.coordinates(q)
    h = 1e-6
    rows = np.eye(len(q)) * h
    fine = [(net.loss(chart.from_limit(q + e)) - net.loss(chart.from_limit(q - e))) / (2 * h) for e in rows]
    np.testing.assert_allclose(chart.gradient(q), fine, rtol=0, atol=1e-6 * np.abs(fine).max())


@pytest.mark.parametrize(
    ("rule", "units", "names"),
    [
        ({"freeze": "b1[0]"}, {"pairs": [(0, 1)]}, r"b1\[0\],"),
        ({"freeze": "b1[:2]"}, {"pairs": [(0, 1)]}, r"b1\[0\], b1\[1\],"),
        ({"freeze": "w2[1]"}, {"pairs": [(0, 1)]}, r"w2\[1, 0\], w2\[1, 1\],"),
        ({"tie": [("w1[0, 1]", "w1[2, 0]")]}, {"pairs": [(0, 1)]}, r"w1\[0, 1\], w1\[2, 0\],"),
        ({"freeze": "b1[2]"}, {"tails": [2]}, r"b1\[2\],"),
        ({"freeze": "b1[2]"}, {"sharp": [2]}, r"b1\[2\],"),
    ],
)
def test_what_stands_in_the_way_is_named(rule, units, names):
    net = mg.ConstrainedNet(NET, np.arange(22.0), **rule)
    with pytest.raises(InputError, match=rf"the constraint has no limit: it holds {names}.*without its constraint"):
        net.limit(**units)
    chart = net.limit(**units, eps=0.1)  # at one distance there is no such condition
    z = np.random.default_rng(3).normal(size=chart.n_params)
    assert net.loss(chart.from_limit(z)) == pytest.approx(chart.loss(z), rel=1e-9)


def test_a_constant_held_back():
    net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=X, target=Y[:, 0])
    held = mg.ConstrainedNet(net, net.random_params(), freeze="b2")
    with pytest.raises(InputError, match=r"it holds b2\[0\],"):
        held.limit(tails=[0])
    limit = mg.ConstrainedNet(NET, tie=PAIRS).limit([(0, 1), (2, 3)])
    with pytest.raises(InputError, match="units that the constraint ties to each other need the same"):
        limit.from_limit(np.ones(limit.n_params), [0.1, 0.2])
    with pytest.raises(InputError, match="time constants"):
        limit.tauinv()
    with pytest.raises(InputError, match="p in the parameters of the limit does not obey"):
        limit.to_limit(NET.params(P))


def residuals_of(X, y):
    """The limit of two pairs without an output bias; of the first pair Δ has no second component."""

    def residuals(z):
        total = -y
        for w, d, c, a in ((z[:3], [z[3], 0, z[4]], z[5], 1), (z[6:9], z[9:12], z[12], 1)):
            t = np.tanh(X @ w[:2] + w[2])
            total = total + c * t + a * (X @ d[:2] + d[2]) * (1 - t**2)
        return total

    return residuals


@pytest.fixture(scope="module")
def landed():
    x = np.random.default_rng(0).normal(size=(100, 2))
    y = np.cos(2 * x[:, 0]) * x[:, 1]
    net = mg.Net(layers=[(4, "tanh", True), (1, "identity", True)], input=x, target=y)
    rule = {"freeze": "b2", "tie": [("w1[0, 1]", "w1[2, 1]")]}
    p = net.random_params(seed=5)
    return mg.ConstrainedNet(net, p, **rule), x, y, mg.minimize(net, p, at_infinity=True, **rule, **QUIET)


def test_minima_at_infinity_obey_the_constraint(landed):
    net, x, y, m = landed
    assert (m.kind, [c.units for c in m.channels]) == ("minimum at infinity", [(0, 2), (1, 3)])
    assert m.limit.constraint == {"freeze": [5, 16], "tie": []}
    assert m.limit.loss(m.q) == m.loss == m.limit.unconstrained.loss(m.q)
    assert m.gnorm == np.abs(m.limit.gradient(m.q)).max() < 1e-14
    assert mg.classify(m.limit, m.q).index == 0
    z = []
    for channel in m.channels:
        (w, d), (c, a) = channel.incoming, channel.outgoing[:, 0]
        z += [*w, *(d * a), c]
    fit = scipy.optimize.least_squares(
        residuals_of(x, y), np.delete(z, 4), xtol=1e-15, ftol=1e-15, gtol=1e-15
    )  # without Δ₁
    assert np.mean(fit.fun**2) == pytest.approx(m.loss, rel=1e-10)
    for eps in (1e-2, 1e-3):
        theta = m.point(eps)
        assert theta.biases[1] == 0
        assert theta.weights[0][0, 1] == theta.weights[0][2, 1]
        assert net.loss(theta) - m.loss == pytest.approx(eps**2 * m.coefficients.sum(), rel=50 * eps)
    again = mg.minimize(net, net.random_params(seed=5), at_infinity=True, **QUIET)
    assert again.loss == pytest.approx(m.loss, rel=1e-13)
    assert {c.units for c in mg.channels(net, m.x)} == {(0, 2), (1, 3)}


def test_the_next_order_against_scipy(landed):
    """The lowest loss at a distance with ‖Δ‖ = 1 for each pair."""
    m = landed[3]
    free = np.setdiff1d(np.arange(17), [5, 16])

    def point(z):
        q = m.q.copy()
        q[free] = z
        return q

    lengths = [
        {"type": "eq", "fun": lambda z, places=places: 1e3 * (np.sum(point(z)[places] ** 2) - 1)}
        for places in ([4, 5, 10], [6, 7, 11])
    ]

    def excess_at(eps):
        chart = m.limit.unconstrained.at_distance(eps)
        found = scipy.optimize.minimize(
            lambda z: 1e4 * chart.loss(point(z)), m.q[free], jac=lambda z: 1e4 * chart.gradient(point(z))[free],
            constraints=lengths, method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        return (found.fun / 1e4 - m.loss - eps**2 * m.coefficients.sum()) / eps**4

    # By extrapolation, as the next term is of order ε⁶.
    assert (4 * excess_at(0.02) - excess_at(0.04)) / 3 == pytest.approx(m.next_coefficients().sum(), rel=0.02)


def test_open_ends_name_the_constraint(landed):
    net, _, _, m = landed
    p = m.point(1e-3)
    held = mg.ConstrainedNet(net.unconstrained, p, freeze="b1[0]")
    assert {c.units for c in mg.channels(net, p)} == {(0, 2), (1, 3)}
    assert [c.units for c in mg.channels(held, p)] == [(1, 3)]
    end = mg.minimize(held, p, at_infinity=True, maxiterations_optim=20, **QUIET)
    assert (end.kind, end.reason) == ("open", "a limit ended the search")
