"""Discrete methods against torch.optim on the same batches, and how far trajectories stray."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pymlpgf as mg
from pymlpgf import InputError, KeywordError

N = 150


def problem(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, 2)).astype(dtype)
    Y = np.stack([np.sin(2 * X[:, 0]), X[:, 0] * X[:, 1]], axis=1).astype(dtype)
    return X, Y


@pytest.fixture(scope="module")
def net():
    X, Y = problem()
    return mg.Net(layers=[(4, "tanh", True), (3, "softplus", False), (2, "identity", True)], input=X, target=Y)


@pytest.fixture(scope="module")
def start(net):
    return net.random_params(seed=1)


class Xoshiro256:
    """xoshiro256++ seeded by splitmix64 (Blackman and Vigna 2021), for the order of the batches."""

    MASK = 2**64 - 1

    def __init__(self, seed):
        self.s = []
        for _ in range(4):
            seed = (seed + 0x9E3779B97F4A7C15) & self.MASK
            z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & self.MASK
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & self.MASK
            self.s.append(z ^ (z >> 31))

    def _rotl(self, x, k):
        return ((x << k) | (x >> (64 - k))) & self.MASK

    def uniform(self):
        s = self.s
        result = (self._rotl((s[0] + s[3]) & self.MASK, 23) + s[0]) & self.MASK
        t = (s[1] << 17) & self.MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = self._rotl(s[3], 45)
        return (result >> 11) * 2.0**-53


def batches(batchsize, seed, steps):
    """The samples of each step: Fisher and Yates from the last place down, each epoch from the order of the last."""
    rng, order, chosen = Xoshiro256(seed), list(range(N)), []
    while len(chosen) < steps:
        for i in range(N, 1, -1):
            j = int(rng.uniform() * i)
            order[i - 1], order[j] = order[j], order[i - 1]
        chosen += [order[k : k + batchsize] for k in range(0, N, batchsize)]
    return chosen[:steps]


def torch_run(start, optimiser, chosen, factors=None):
    X, Y = map(torch.from_numpy, problem())
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3, bias=False), torch.nn.Softplus(),
        torch.nn.Linear(3, 2),
    ).double()  # fmt: skip
    torch.nn.utils.vector_to_parameters(torch.from_numpy(start.copy()), model.parameters())
    run = optimiser(model.parameters())
    base = run.param_groups[0]["lr"]
    for k, samples in enumerate(chosen):
        if factors is not None:
            run.param_groups[0]["lr"] = base * factors(k)
        run.zero_grad()
        ((model(X[samples]) - Y[samples]) ** 2).sum(dim=1).mean().backward()
        run.step()
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()


OPTIMISERS = {
    "GradientDescent": (mg.GradientDescent(learning_rate=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "Momentum": (
        mg.Momentum(learning_rate=0.03, momentum=0.8),
        lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.8),
    ),
    "Nesterov": (
        mg.Nesterov(learning_rate=0.03),
        lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9, nesterov=True),
    ),
    "RMSprop": (
        mg.RMSprop(learning_rate=0.01, alpha=0.9, eps=1e-6),
        lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, eps=1e-6),
    ),
    "Adam": (mg.Adam(), lambda p: torch.optim.Adam(p)),
    "Adam with betas": (
        mg.Adam(learning_rate=0.02, betas=(0.8, 0.95), eps=1e-4),
        lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.95), eps=1e-4),
    ),
    "AdamW": (
        mg.AdamW(learning_rate=0.02, weight_decay=0.3),
        lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.3),
    ),
}


@pytest.mark.parametrize("batchsize", [None, 16, 75, 1])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_steps_of_torch(net, start, name, batchsize):
    alg, optimiser = OPTIMISERS[name]
    res = mg.flow(net, start, alg=alg, batchsize=batchsize, seed=2**63 + 5, maxiterations_ode=50)
    chosen = batches(batchsize, 2**63 + 5, 50) if batchsize else [list(range(N))] * 50
    other = torch_run(start.flat, optimiser, chosen)
    assert np.abs(res.ode_x - other).max() <= 1e-12 * np.abs(other).max()
    assert np.abs(other - start.flat).max() > 0.01
    assert (res.alg, res.ode_iterations, res.ode_stopped_by) == (name.split()[0], 50, "maxiterations")
    assert (res.batchsize, res.batch_seed) == ((batchsize, 2**63 + 5) if batchsize else (None, None))
    assert res.ode_loss == pytest.approx(net.loss(res.ode_x), rel=1e-13)
    assert res.loss == pytest.approx(net.loss(res.x), rel=1e-13)
    assert res.loss <= res.ode_loss


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (mg.ExponentialDecay(0.9), lambda k: 0.9**k),
        (mg.CosineDecay(30, final=0.1), lambda k: 0.1 + 0.9 * (1 + math.cos(math.pi * min(k, 30) / 30)) / 2),
        ([1.0, 0.5, 0.25], lambda k: (1.0, 0.5, 0.25)[min(k, 2)]),
        (lambda k: 1 / (1 + k), lambda k: 1 / (1 + k)),
    ],
)
def test_schedules_are_those_of_torch(net, start, schedule, factors):
    res = mg.flow(net, start, alg="Adam", learning_rate=0.05, schedule=schedule, maxiterations_ode=40)
    other = torch_run(start.flat, lambda p: torch.optim.Adam(p, lr=0.05), [list(range(N))] * 40, factors)
    assert np.abs(res.x - other).max() <= 1e-12 * np.abs(other).max()
    assert res.ode_t == pytest.approx(0.05 * sum(factors(k) for k in range(40)), rel=1e-12)


def test_gradient_descent_approaches_the_flow(net, start):
    reference = mg.flow(net, start, alg="Tsit5", maxT=1, abstol=1e-10, reltol=1e-10, dense=True)
    strayed = []
    for rate in (0.02, 0.01):
        res = mg.flow(net, start, alg="GradientDescent", learning_rate=rate, maxT=1, save_everystep=True)
        assert res.ode_t == pytest.approx(1)
        at_the_same_time = np.abs(res.trajectory.x - reference.sol(np.minimum(res.trajectory.t, 1))).max()
        found = mg.trajectory_distance(res, reference)
        assert found.distance.max() <= np.sqrt(net.n_params) * at_the_same_time
        np.testing.assert_allclose(found.t[:-1], res.trajectory.t[:-1], atol=rate)
        strayed.append(found.distance.max())
    assert 1.8 < strayed[0] / strayed[1] < 2.2


def test_float32(start):
    X, Y = problem(np.float32)
    net = mg.Net(layers=[(4, "tanh", True), (3, "softplus", False), (2, "identity", True)], input=X, target=Y)
    res = mg.flow(net, start.flat.astype(np.float32), alg=mg.Adam(learning_rate=0.02), maxiterations_ode=50)
    other = torch_run(start.flat, lambda p: torch.optim.Adam(p, lr=0.02), [list(range(N))] * 50)
    assert res.x.dtype == np.float32
    np.testing.assert_allclose(res.x, other, atol=1e-4)


def test_labels_and_weights_in_batches():
    # One sample a step: its weight is the factor of its gradient, and the first step tells which one it was.
    rng = np.random.default_rng(3)
    X, labels, w = rng.normal(size=(7, 2)), rng.integers(0, 3, 7), rng.uniform(0.5, 2, 7)
    layers = [(3, "softmax", True)]
    net = mg.Net(layers=layers, input=X, target=labels, weights=w, loss="nll", l2=0.1)
    p = net.random_params(seed=0).flat
    res = mg.flow(net, p, alg=mg.GradientDescent(learning_rate=0.5), batchsize=1, maxiterations_ode=1, seed=4)
    steps = [
        p - 0.5 * mg.Net(layers, X[[i]], labels[[i]], weights=w[[i]], loss="nll", l2=0.1).gradient(p) for i in range(7)
    ]
    assert min(np.abs(res.ode_x - step).max() for step in steps) < 1e-14


def test_best_and_last_point_of_a_diverging_run(net, start):
    res = mg.flow(net, start, alg="GradientDescent", learning_rate=5.0, maxiterations_ode=3)
    assert res.loss == pytest.approx(net.loss(start), rel=1e-14)
    assert res.ode_loss > res.loss
    np.testing.assert_array_equal(res.x, start.flat)
    np.testing.assert_array_equal(res.trajectory.x[-1], res.ode_x)
    square = mg.Net(layers=[(1, "identity", False)], input=[[1.0]], target=[0.0])
    res = mg.train(square, [1.0], alg="GradientDescent", learning_rate=1e3)
    assert (res.ode_stopped_by, res.optim_stopped_by, res.loss) == ("diverged", None, 1.0)
    assert np.isfinite(res.ode_x).all()


def test_train_after_a_discrete_method(net, start):
    res = mg.train(net, start, alg=mg.Adam(learning_rate=0.01), batchsize=20, maxiterations_ode=300, maxtime_optim=0.5)
    assert res.alg == "Adam"
    assert res.ode_stopped_by == "maxiterations"
    assert res.loss < res.ode_loss < net.loss(start)


# ---- distances -----------------------------------------------------------------------------------------------


def trajectory(t, x):
    t, x = np.asarray(t, float), np.asarray(x, float)
    return mg.Trajectory(t, x, np.zeros(len(t)), np.zeros(len(t)))


def test_distance_to_a_broken_line():
    # from (0, 0) to (2, 0) in one unit of time, then to (2, 3) in ten
    path = trajectory([0, 1, 11], [[0, 0], [2, 0], [2, 3]])
    points = [[-1.0, 0], [1, 0.5], [1.9, -1], [3, 1.5], [2, 5]]
    found = mg.trajectory_distance(np.array(points), path)
    np.testing.assert_allclose(found.distance, [1, 0.5, 1, 1, 2], rtol=1e-14)
    np.testing.assert_allclose(found.t, [0, 0.5, 0.95, 6, 11], rtol=1e-14)
    alone = mg.trajectory_distance([[3.0, 4.0]], trajectory([7], [[0, 0]]))
    assert (alone.distance[0], alone.t[0]) == (5, 7)


def test_times_do_not_turn_back():
    # An eight passes twice through its middle: each time the nearest point is on the branch that is due.
    s = np.linspace(0, 2 * np.pi, 4001)
    eight = np.stack([np.sin(s), np.sin(2 * s)], axis=1)
    points = np.array([1, 800, 1600, 2000, 2500, 3300, 4000])
    found = mg.trajectory_distance(1.02 * eight[points], trajectory(s, eight))
    np.testing.assert_allclose(found.t, s[points], atol=0.03)
    assert (np.diff(found.t) >= 0).all()
    assert found.distance.max() < 0.03
    back = mg.trajectory_distance(eight[[2400, 2000, 2800]] + 1e-3, trajectory(s, eight))
    assert (np.diff(back.t) >= 0).all()
    assert back.distance.max() > 0.1


@pytest.mark.parametrize("alg", ["Tsit5", "Rodas5P"])
def test_distance_to_a_dense_solution(alg):
    # L = (x² + 4 y²)/2 from (1, 1): the flow is (e^-t, e^-4t), y = x⁴
    net = mg.Net(layers=[(1, "identity", False)], input=[[1.0, 0.0], [0.0, 2.0]], target=[0.0, 0.0])
    reference = mg.flow(net, [1.0, 1.0], alg=alg, maxT=3, abstol=1e-10, reltol=1e-10, dense=True)
    x = np.exp(-np.array([0.1, 0.7, 1.3, 2.2]))
    normal = np.stack([-4 * x**3, np.ones_like(x)], axis=1) / np.sqrt(1 + 16 * x**6)[:, None]
    for offset in (0.0, 1e-6, 0.01):
        points = np.stack([x, x**4], axis=1) + offset * normal
        found = mg.trajectory_distance(points, reference)
        np.testing.assert_allclose(found.distance, offset, atol=1e-8)
        np.testing.assert_allclose(found.t, [0.1, 0.7, 1.3, 2.2], atol=1e-5)
    assert mg.trajectory_distance(reference, reference).distance.max() < 1e-12
    assert mg.trajectory_distance(reference, reference.sol).distance.max() < 1e-12


# ---- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, p: mg.flow(net, p, alg="adam"), "did you mean 'Adam'"),
        (lambda net, p: mg.flow(net, p, alg=mg.Adam), "Adam\\(\\) is needed"),
        (lambda net, p: mg.train(net, p, learning_rate=0.1), "learning_rate: for discrete methods"),
        (lambda net, p: mg.flow(net, p, alg=mg.Adam(), learning_rate=0.1), "give it to Adam"),
        (lambda net, p: mg.flow(net, p, alg="Adam", dense=True), "dense: for flows"),
        (lambda net, p: mg.flow(net, p, alg="Adam", dt=0.1), "dt: for flows"),
        (lambda net, p: mg.flow(net, p, alg="Adam", batchsize=0), "batchsize is 0"),
        (lambda net, p: mg.flow(net, p, alg="Adam", batchsize=2.5), "batchsize is 2.5"),
        (lambda net, p: mg.flow(net, p, alg="Adam", seed=-1), "seed is -1"),
        (lambda net, p: mg.flow(net, p, alg="Adam", schedule="cosine"), "CosineDecay"),
        (lambda net, p: mg.flow(net, p, alg="Adam", schedule=[1, -1]), "schedule must be"),
        (lambda net, p: mg.flow(net, p, alg="Adam", schedule=lambda k: "x"), "schedule\\(0\\) gave 'x'"),
        (lambda net, p: mg.Adam(learning_rate=0), "learning_rate is 0"),
        (lambda net, p: mg.Adam(betas=(0.9, 1)), "betas is 1"),
        (lambda net, p: mg.Adam(betas=0.9), "betas is 0.9"),
        (lambda net, p: mg.RMSprop(eps=0), "eps is 0"),
        (lambda net, p: mg.RMSprop(alpha=-1), "alpha is -1"),
        (lambda net, p: mg.Momentum(momentum=math.nan), "momentum is nan"),
        (lambda net, p: mg.AdamW(weight_decay=math.inf), "weight_decay is inf"),
        (lambda net, p: mg.ExponentialDecay(2), "rate is 2"),
        (lambda net, p: mg.CosineDecay(0), "steps is 0"),
        (lambda net, p: mg.trajectory_distance([[1.0]], trajectory([0, 1], [[0, 0], [1, 1]])), "a has points of shape"),
        (lambda net, p: mg.trajectory_distance([[1.0, np.nan]], trajectory([0], [[0, 0]])), "a contains 1 NaN"),
        (lambda net, p: mg.trajectory_distance([[1.0]], [[0.0]]), "b is list"),
        (lambda net, p: mg.trajectory_distance(mg.minimize(net, p, maxiterations_optim=1), [[0.0]]), "no trajectory"),
    ],
)
def test_bad_calls(net, start, call, message):
    with pytest.raises(InputError, match=message):
        call(net, start)


def test_unknown_options_of_methods():
    with pytest.raises(KeywordError, match="did you mean 'learning_rate'"):
        mg.Adam(learning_rat=1)
    assert mg.Adam(learning_rate=0.1) == mg.Adam(learning_rate=0.1)
    assert repr(mg.Momentum()) == "Momentum(learning_rate=0.01, schedule=None, momentum=0.9)"


def test_a_dense_solution_without_a_step_is_constant():
    net = mg.Net(layers=[(1, "identity", True)], input=[[0.0], [1.0]], target=[1.0, 3.0])
    for options in ({"maxT": 0.0}, {"event": lambda t, x: True}):
        res = mg.flow(net, [0.5, 1.5], dense=True, verbosity=0, **options)
        np.testing.assert_array_equal(res.sol(0.0), [0.5, 1.5])
        assert res.sol([[0.0], [0.0]]).shape == (2, 1, 2)
    with pytest.raises(mg.InputError, match="t must lie in"):
        res.sol(0.1)


def test_a_dense_solution_takes_times_of_any_shape():
    net = mg.Net(layers=[(1, "identity", True)], input=[[0.0], [1.0]], target=[1.0, 3.0])
    sol = mg.flow(net, [0.0, 0.0], dense=True, maxT=2.0, verbosity=0).sol
    times = np.linspace(0, 2, 6).reshape(2, 3)
    np.testing.assert_array_equal(sol(times), [[sol(t) for t in row] for row in times])


@pytest.mark.parametrize("word", ["saveat", "t_eval"])
def test_times_at_which_to_record_are_what_dense_is_for(word):
    net = mg.Net(layers=[(1, "identity", True)], input=[[0.0], [1.0]], target=[1.0, 3.0])
    with pytest.raises(mg.KeywordError, match=rf"flow has no keyword '{word}': give dense=True and evaluate res.sol"):
        mg.flow(net, [0.0, 0.0], **{word: [1.0]})
