"""Thousands of malformed calls at the Python border: each is refused with an exception of this package."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import pymlpgf as mg
from pymlpgf.solve.options import OPTIM_SOLVERS

N, D, P = 5, 2, 13
X, Y = np.linspace(-1, 1, N * D).reshape(N, D), np.linspace(0, 1, N)
LAYERS = [(3, "tanh", True), (1, "identity", True)]
NET = mg.Net(layers=LAYERS, input=X, target=Y)
POINT = np.linspace(-1, 1, P)
PATH = mg.flow(NET, POINT, maxT=0.1).trajectory

not_finite = st.sampled_from([np.nan, np.inf, -np.inf])
nonsense = st.sampled_from(
    [object(), "text", b"bytes", {"a": 1}, {1, 2}, 1j, [1, "a"], [[1, 2], [3]], lambda: 0, ..., print]
)
words = st.text(min_size=1, max_size=12)


@st.composite
def bad_array(draw, shape):
    """An array that cannot stand where one of ``shape`` is needed."""
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return draw(nonsense)
    if kind == 1:  # another number of dimensions
        ndim = draw(st.integers(0, 4).filter(lambda k: k != len(shape)))
        return np.zeros((draw(st.integers(0, 3)),) * ndim)
    array = np.zeros(shape)
    if kind == 2:  # another extent
        axis = draw(st.integers(0, len(shape) - 1))
        extent = draw(st.integers(0, 9).filter(lambda k: k != shape[axis]))
        return np.zeros([extent if k == axis else n for k, n in enumerate(shape)])
    if kind == 3:
        array.flat[draw(st.integers(0, array.size - 1))] = draw(not_finite)
        return array
    return array.astype(draw(st.sampled_from([complex, object, "U3", "M8[s]", "V4"])))


def fits(value, *shapes, finite=True):
    """Whether ``value`` is an array of real numbers of one of ``shapes`` after all (-1: any extent)."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        return False
    same = any(
        len(shape) == array.ndim and all(n in (-1, k) for n, k in zip(shape, array.shape, strict=True))
        for shape in shapes
    )
    return same and array.dtype.kind in "fiub" and (not finite or bool(np.isfinite(array).all()))


def bad_number(zero_allowed=True, infinite_allowed=False):
    values = [st.floats(max_value=-1e-300), st.just(np.nan), nonsense, words, st.booleans(), st.none()]
    values += [] if zero_allowed else [st.just(0)]
    values += [] if infinite_allowed else [st.just(np.inf)]
    return st.one_of(values)


def bad_option(name):
    numbers = bad_number(infinite_allowed=name in INFINITE)
    return numbers.filter(lambda v: v is not None) if name == "n_samples_trajectory" else numbers


def unknown(names):
    return st.one_of(words, nonsense, st.none(), st.integers()).filter(
        lambda v: not isinstance(v, str) or v not in names
    )


activation = st.one_of(
    words.filter(lambda s: s not in mg.ACTIVATIONS),
    nonsense.filter(lambda v: not callable(v)),
    st.none(),
    st.integers(),
)
bad_layer = st.one_of(
    st.tuples(
        st.one_of(st.integers(max_value=0), st.floats(), words, st.none(), st.booleans()),
        st.just("tanh"),
        st.just(True),
    ),
    st.tuples(st.just(3), activation, st.just(True)),
    st.tuples(st.just(3), st.just("tanh"), st.one_of(st.integers(), st.none(), words)),
    st.tuples(st.just(3), st.lists(st.just("relu"), max_size=2).map(tuple), st.just(True)),
    st.tuples(st.just(3), st.just("softmax"), st.just(True)),
    st.tuples(st.just(3), st.just("tanh")),
    st.integers(),
    st.none(),
)
bad_seed = st.one_of(
    st.integers(max_value=-1), st.integers(min_value=2**64), st.floats(), words, st.none(), st.booleans()
)


def net(**changes):
    return lambda: mg.Net(**{"layers": LAYERS, "input": X, "target": Y, **changes})


def run(function, **changes):
    return lambda: getattr(mg, function)(NET, POINT, **changes)


REAL = ["abstol", "reltol", "maxT", "maxtime_ode", "maxiterations_ode", "min_gnorm", "minloss", "n_samples_trajectory"]
INFINITE = {"maxT", "maxtime_ode", "maxiterations_ode", "maxtime_optim", "maxiterations_optim", "patience", "maxnorm"}

calls = st.one_of(
    bad_array((N, D)).filter(lambda a: not fits(a, (N, -1)) or np.size(a) == 0).map(lambda a: net(input=a)),
    bad_array((N, 1)).filter(lambda a: not fits(a, (N,))).map(lambda a: net(target=a)),
    bad_array((N,)).map(lambda a: net(weights=a)),
    bad_layer.map(lambda layer: net(layers=[layer, (1, "identity", True)])),
    unknown({"mse"}).map(lambda v: net(loss=v)),
    bad_number().map(lambda v: net(l2=v)),
    bad_number(infinite_allowed=True).map(lambda v: net(maxnorm=v)),
    st.one_of(st.just(0), not_finite, nonsense, words, st.booleans()).map(lambda v: net(output_factor=v)),
    st.one_of(nonsense, words, st.integers(), st.tuples(st.integers(), st.integers(5))).map(lambda v: net(merge=v)),
    st.tuples(st.integers(2), st.integers(), st.integers(), st.floats(0, 1)).map(lambda v: net(merge=v)),
    st.one_of(st.integers(max_value=0), st.floats(), words, nonsense, st.booleans()).map(lambda v: net(threads=v)),
    unknown({"float64", "float32"}).filter(lambda v: v is not None).map(lambda v: net(dtype=v)),
    st.integers().filter(lambda v: v != D).map(lambda v: net(n_features=v)),
    words.filter(str.isidentifier).filter(lambda w: w not in {"layers", "input", "target"}).map(lambda w: net(**{w + "_": 1})),
    bad_array((P,)).map(lambda a: lambda: NET.loss(a)),
    bad_array((P,)).map(lambda a: lambda: NET.gradient(a)),
    bad_array((P,)).map(lambda a: lambda: NET.hessian(a)),
    bad_array((P,)).map(lambda a: lambda: NET(a)),
    bad_array((P,)).map(lambda a: lambda: NET.hvp(POINT, a)),
    bad_array((P,)).map(lambda a: lambda: NET.hvp(a, POINT)),
    bad_array((P,)).map(lambda a: lambda: NET.jacobian(a)),
    bad_array((P, P)).filter(lambda a: not fits(a, (P, P), finite=False)).map(lambda a: lambda: NET.hessian(POINT, out=a)),
    bad_array((3, D)).filter(lambda a: not fits(a, (-1, D))).map(lambda a: lambda: NET(POINT, a)),
    bad_array((P,)).map(lambda a: lambda: mg.flow(NET, a)),
    bad_array((P,)).map(lambda a: lambda: mg.minimize(NET, a)),
    bad_array((P,)).map(lambda a: lambda: mg.train(NET, a)),
    bad_array((P,)).filter(lambda a: not fits(a, ())).map(lambda a: run("flow", tauinv=a)),
    st.sampled_from(REAL).flatmap(lambda k: bad_option(k).map(lambda v: run("flow", **{k: v}))),
    bad_number(zero_allowed=False).filter(lambda v: v is not None).map(lambda v: run("flow", dt=v)),
    bad_number(zero_allowed=False, infinite_allowed=True).map(lambda v: run("minimize", patience=v)),
    bad_number(zero_allowed=False, infinite_allowed=True).map(lambda v: run("train", progress_interval=v)),
    unknown({"auto", "Tsit5", "Rodas5P"}).map(lambda v: run("flow", alg=v)),
    unknown({"auto", "Adam"}).map(lambda v: run("train", alg=v, learning_rate=0.1)),
    st.one_of(st.integers(max_value=0), st.floats(), words, nonsense, st.booleans()).flatmap(
        lambda v: st.sampled_from(["Adam", "Tsit5"]).map(lambda alg: run("flow", alg=alg, batchsize=v))
    ),
    bad_seed.map(lambda v: run("train", alg="Adam", batchsize=2, seed=v)),
    bad_number(zero_allowed=False).filter(lambda v: v is not None).map(lambda v: run("flow", alg="RMSprop", learning_rate=v)),
    bad_number(zero_allowed=False).map(lambda v: lambda: mg.Adam(learning_rate=v)),
    bad_number(zero_allowed=False).map(lambda v: lambda: mg.RMSprop(eps=v)),
    bad_number().map(lambda v: lambda: mg.AdamW(weight_decay=v)),
    st.one_of(bad_number(), st.floats(min_value=1)).map(lambda v: lambda: mg.Nesterov(momentum=v)),
    st.one_of(nonsense, words, st.floats(), st.tuples(st.just(0.9), st.floats(min_value=1))).map(lambda v: lambda: mg.Adam(betas=v)),
    st.one_of(words, st.integers(), st.just([]), st.lists(st.floats(max_value=-1e-9), min_size=1), st.just([[1.0]])).map(lambda v: run("flow", alg="Adam", schedule=v)),
    st.one_of(words, st.floats(max_value=0), st.floats(min_value=1.1), st.none()).map(lambda v: lambda: mg.ExponentialDecay(v)),
    st.one_of(words, st.integers(max_value=0), st.floats(), st.none(), st.booleans()).map(lambda v: lambda: mg.CosineDecay(v)),
    words.filter(str.isidentifier).map(lambda w: lambda: mg.Momentum(**{w + "_": 1})),
    st.one_of(words, st.integers(), st.lists(st.integers())).map(lambda v: run("train", callback=v)),
    st.one_of(words, st.integers(), st.just(lambda t, x: "late"), st.just(lambda t, x: None)).map(lambda v: run("flow", event=v)),
    st.one_of(words, st.integers(1), st.dictionaries(words, words, min_size=1), st.just({1: len})).map(lambda v: run("flow", observables=v)),
    bad_array((3, P)).filter(lambda a: not fits(a, (-1, P))).map(lambda a: lambda: mg.trajectory_distance(a, PATH)),
    st.one_of(nonsense, words, st.none(), st.just(POINT)).map(lambda v: lambda: mg.trajectory_distance([POINT], v)),
    unknown(set(OPTIM_SOLVERS)).map(lambda v: run("minimize", optim_solver=v)),
    words.filter(str.isidentifier).map(lambda w: run("train", **{w + "_": 1})),
    st.one_of(st.integers().filter(lambda v: v not in (0, 1, 2)), words, nonsense).map(lambda v: run("flow", verbosity=v)),
    bad_seed.map(lambda v: lambda: NET.random_params(seed=v)),
    unknown({"glorot_normal", "glorot_uniform"}).filter(lambda v: not callable(v)).map(lambda v: lambda: NET.random_params(init=v)),
    st.one_of(nonsense, words, not_finite, st.lists(st.floats(0, 1), min_size=3)).map(lambda v: lambda: NET.random_params(scales=v)),
    bad_array((P,)).filter(lambda a: not fits(a, (P,), finite=False)).map(lambda a: lambda: NET.params(a)),
    st.one_of(nonsense, words, st.integers(), st.none()).map(lambda v: lambda: mg.train(v, POINT)),
    st.one_of(words, nonsense).map(lambda v: lambda: NET.on(X, v)),
)  # fmt: skip


@given(calls)
@settings(max_examples=2500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_malformed_calls_are_refused(call):
    with pytest.raises(mg.MLPGFError) as refusal:
        call()
    assert str(refusal.value)


def test_the_net_is_unharmed_afterwards():
    assert NET.loss(POINT) == mg.Net(layers=LAYERS, input=X, target=Y).loss(POINT)
