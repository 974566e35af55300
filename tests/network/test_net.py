"""Networks, losses and derivatives from Python, against PyTorch, and every refusal of bad input."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from conftest import MLPGF_UUID
from hypothesis import given, settings, strategies as st

import pymlpgf as mg
from pymlpgf import InputError, KeywordError, Params

torch = pytest.importorskip("torch", reason="PyTorch is the independent source of derivatives")
torch.set_num_threads(1)

TORCH = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "softplus": torch.nn.functional.softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "sigmoid2": lambda x: torch.erf(x / math.sqrt(2)),
    "normal_cdf": lambda x: torch.special.ndtr(x),
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "selu": torch.nn.functional.selu,
    "square": lambda x: x**2 / 2,
    "cube": lambda x: x**3,
    "exp": torch.exp,
    "g": lambda x: torch.sigmoid(4 * x) + torch.nn.functional.softplus(x),
    "softmax": lambda x: x,  # logits
}


def torch_loss(layers, X, Y, w):
    """The loss as a function of the flat parameters, written from the definition in plain torch."""
    X, Y, w = (torch.tensor(a) for a in (X, Y, w))
    nll = layers[-1][1] == "softmax"

    def loss(theta):
        a, start = X, 0
        for width, activation, bias in layers:
            fan_in = a.shape[1]
            h = a @ theta[start : start + width * fan_in].reshape(width, fan_in).T
            start += width * fan_in
            if bias:
                h = h + theta[start : start + width]
                start += width
            # torch's softplus is linear beyond its threshold of 20, an error of 2e-9: never reached here.
            a = TORCH[activation](h)
        if nll:
            return (w * torch.nn.functional.cross_entropy(a, Y, reduction="none")).mean()
        return (w * ((a - Y) ** 2).sum(1)).mean()

    return loss


def problem(N, D, layers, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D)).astype(dtype)
    Y = rng.normal(size=(N, layers[-1][0])).astype(dtype)
    w = rng.uniform(0.5, 2, N).astype(dtype)
    return mg.Net(layers=layers, input=X, target=Y, weights=w), X, Y, w


def stack(widths, activation="softplus", outputs=1, bias=True):
    return [(k, activation, bias) for k in widths] + [(outputs, "identity", bias)]


def assert_close(value, exact, rtol):
    exact = exact.detach().numpy()
    assert np.abs(value - exact).max() <= rtol * max(np.abs(exact).max(), 1e-300)


SHAPES = [
    (1, 1, stack([1])),
    (7, 3, stack([5, 4, 2])),
    (1000, 2, stack([8])),
    (257, 4, stack([3, 3, 3])),
    (33, 2, stack([8], outputs=3)),
    (300, 20, stack([9, 11], "tanh", outputs=2)),
    (40, 2, stack([6], bias=False)),
    (100, 1, [(2, "relu", True), (3, "sigmoid", False), (2, "g", True)]),
    (64, 5, [(1, "sigmoid2", True)]),
    (513, 3, stack([4, 4, 4, 4], "sigmoid2")),
]


@pytest.mark.parametrize(("N", "D", "layers"), SHAPES)
def test_derivatives_agree_with_torch(N, D, layers):
    net, X, Y, w = problem(N, D, layers)
    loss = torch_loss(layers, X, Y, w)
    rng = np.random.default_rng(1)
    p, v = rng.normal(size=(2, net.n_params))
    theta = torch.tensor(p, requires_grad=True)
    exact = loss(theta)
    (gradient,) = torch.autograd.grad(exact, theta)
    hessian = torch.autograd.functional.hessian(loss, theta)
    assert net.loss(p) == pytest.approx(exact.item(), rel=1e-13)
    value, g = net.value_and_gradient(p)
    assert value == pytest.approx(exact.item(), rel=1e-13)
    assert_close(g, gradient, 1e-12)
    H = net.hessian(p)
    assert_close(H, hessian, 1e-12)
    assert np.array_equal(H, H.T)
    assert_close(net.hvp(p, v), hessian @ torch.tensor(v), 1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("loss", ["mse", "nll"])
@pytest.mark.parametrize("activation", sorted(set(mg.ACTIVATIONS) - {"softmax"}))
def test_every_activation_loss_and_depth(activation, loss, weighted, bias, depth):
    rng = np.random.default_rng(depth)
    N = 277 if depth == 2 else 35  # one block and a ragged one, or part of one
    outputs = 3 if loss == "nll" else 2
    layers = [(4 - layer % 2, activation, bias) for layer in range(depth)]
    layers.append((outputs, "softmax" if loss == "nll" else "identity", bias))
    X = rng.normal(size=(N, 3))
    Y = rng.integers(0, outputs, N) if loss == "nll" else rng.normal(size=(N, outputs))
    w = rng.uniform(0.5, 2, N) if weighted else np.ones(N)
    net = mg.Net(layers=layers, input=X, target=Y, weights=w if weighted else None, loss=loss)
    p, v = rng.normal(size=(2, net.n_params)) / (6 if activation == "exp" else 2)  # towers of exp overflow
    exact = torch_loss(layers, X, Y, w)
    theta = torch.tensor(p)
    hessian = torch.autograd.functional.hessian(exact, theta)
    assert net.loss(p) == pytest.approx(exact(theta).item(), rel=1e-13)
    assert_close(net.gradient(p), torch.autograd.functional.jacobian(exact, theta), 1e-11)
    assert_close(net.hessian(p), hessian, 1e-11)
    assert_close(net.hvp(p, v), hessian @ torch.tensor(v), 1e-11)
    if activation == "cube" and depth >= 3 and not 1e-20 < hessian.abs().max() < 1e20:
        return  # x^27 and x^81 leave the range of float32
    single = mg.Net(layers=layers, input=X, target=Y, weights=w if weighted else None, loss=loss, dtype="float32")
    assert_close(single.gradient(p), torch.autograd.functional.jacobian(exact, theta), 1e-4)
    assert_close(single.hessian(p), hessian, 1e-4)
    assert_close(single.hvp(p, v), hessian @ torch.tensor(v), 1e-4)


def test_activations_are_those_of_julia():
    from pymlpgf import runtime

    expected = ",".join(f'"{name}"' for name in sorted(mg.ACTIVATIONS))
    module = f'Base.loaded_modules[Base.PkgId(Base.UUID("{MLPGF_UUID}"), "MLPGF")]'
    assert runtime.evaluate(f"Int64(sort!(collect(keys({module}.ACTIVATIONS))) == [{expected}])") == 1


@pytest.mark.parametrize("layers", [stack([8]), stack([5, 4, 2]), stack([4], "sigmoid2", outputs=2)])
def test_float32(layers):
    net, X, Y, w = problem(300, 2, layers, dtype=np.float32)
    assert net.dtype == np.float32
    p = np.random.default_rng(1).normal(size=net.n_params)
    loss = torch_loss(layers, *(a.astype(float) for a in (X, Y, w)))
    theta = torch.tensor(p.astype(np.float32).astype(float))
    g, H = net.gradient(p), net.hessian(p)
    assert g.dtype == H.dtype == np.float32
    assert_close(g, torch.autograd.functional.jacobian(loss, theta), 1e-5)
    assert_close(H, torch.autograd.functional.hessian(loss, theta), 1e-5)


def test_outputs():
    layers = stack([5, 3], "tanh", outputs=2)
    net, X, _, _ = problem(300, 4, layers)
    p = net.random_params(seed=2)
    a = np.tanh(X @ p["w1"].T + p["b1"])
    a = np.tanh(a @ p["w2"].T + p["b2"])
    expected = a @ p["w3"].T + p["b3"]
    np.testing.assert_allclose(net(p), expected, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(net(p, X[:17]), expected[:17], rtol=1e-13, atol=1e-14)
    assert net(p, np.empty((0, 4))).shape == (0, 2)


@given(
    N=st.integers(1, 600),
    D=st.integers(1, 20),
    widths=st.lists(st.integers(1, 12), max_size=3),
    outputs=st.integers(1, 9),
    seed=st.integers(0, 2**63),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_shape(N, D, widths, outputs, seed):
    layers = stack(widths, "tanh", outputs)
    net, X, Y, w = problem(N, D, layers, seed=seed)
    p = np.asarray(net.random_params(seed=seed))
    theta = torch.tensor(p, requires_grad=True)
    loss = torch_loss(layers, X, Y, w)
    exact = loss(theta)
    (gradient,) = torch.autograd.grad(exact, theta, create_graph=True)
    v = np.random.default_rng(0).normal(size=p.size)
    (product,) = torch.autograd.grad(gradient @ torch.tensor(v), theta)
    assert net.loss(p) == pytest.approx(exact.item(), rel=1e-12)
    assert_close(net.gradient(p), gradient, 1e-12)
    assert_close(net.hvp(p, v), product, 1e-11)
    atol = 1e-11 * product.abs().max().item()
    np.testing.assert_allclose(net.hessian(p) @ v, product.detach().numpy(), rtol=0, atol=atol)


def test_out_arguments_are_filled_and_returned():
    net, *_ = problem(20, 2, stack([3]))
    p = net.random_params(seed=0)
    g, H, y = np.full(net.n_params, 7.0), np.full((net.n_params,) * 2, 7.0), np.full(net.n_params, 7.0)
    assert net.gradient(p, out=g) is g
    assert net.hessian(p, out=H) is H
    assert net.hvp(p, g, out=y) is y
    np.testing.assert_array_equal(g, net.gradient(p))
    np.testing.assert_allclose(y, H @ g, rtol=1e-12)


def test_spectrum():
    net, *_ = problem(50, 2, stack([3]))
    p = net.random_params(seed=0)
    values, vectors = net.hessian_spectrum(p)
    np.testing.assert_allclose(vectors * values @ vectors.T, net.hessian(p), atol=1e-12)


# ---- parameters ------------------------------------------------------------------------------------------------


def reference_params(seed, shapes):
    """xoshiro256++, splitmix64 and the polar method, from their papers."""
    mask = 2**64 - 1
    state = []
    for _ in range(4):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        state.append(z ^ (z >> 31))

    def rotl(x, k):
        return ((x << k) | (x >> (64 - k))) & mask

    def uniform():
        result = (rotl((state[0] + state[3]) & mask, 23) + state[0]) & mask
        t = (state[1] << 17) & mask
        state[2] ^= state[0]
        state[3] ^= state[1]
        state[1] ^= state[2]
        state[0] ^= state[3]
        state[2] ^= t
        state[3] = rotl(state[3], 45)
        return (result >> 11) * 2.0**-53

    def normal():
        while True:
            u, v = 2 * uniform() - 1, 2 * uniform() - 1
            q = u * u + v * v
            if 0 < q < 1:
                return u * math.sqrt(-2 * math.log(q) / q)

    values = []
    for fan_in, width, bias in shapes:
        values += [math.sqrt(2 / (fan_in + width)) * normal() for _ in range(fan_in * width)]
        values += [0.0] * (width * bias)
    return values


@pytest.mark.parametrize("seed", [0, 5, 2**64 - 1])
def test_random_params_follow_their_specification(seed):
    net, *_ = problem(5, 3, [(4, "tanh", True), (2, "identity", False)])
    p = net.random_params(seed=seed)
    np.testing.assert_allclose(p.flat, reference_params(seed, p.layers), rtol=1e-14)


def test_random_params_to_the_last_bit():
    layers = [(3, "softplus", True), (2, "identity", False)]
    net = mg.Net(layers=layers, input=[[1.0], [2.0]], target=[[1.0, 3.0], [2.0, 4.0]])
    first = [-1.0802437811213577, 0.17624594687349454, -0.049449597002503315]
    assert net.random_params(seed=5).flat[:3].tolist() == first
    uniform = net.random_params(seed=5, init="glorot_uniform")
    assert 0 < np.abs(uniform["w1"]).max() <= math.sqrt(6 / 4)


def test_parameter_order_is_torchs():
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 4, dtype=torch.float64),
        torch.nn.Tanh(),
        torch.nn.Linear(4, 2, bias=False, dtype=torch.float64),
    )
    flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    net, X, *_ = problem(11, 3, [(4, "tanh", True), (2, "identity", False)])
    np.testing.assert_allclose(net(flat), model(torch.tensor(X)).detach().numpy(), rtol=1e-13, atol=1e-14)
    p = net.params(flat)
    np.testing.assert_array_equal(p.weights[0], model[0].weight.detach().numpy())
    np.testing.assert_array_equal(p["b1"], model[0].bias.detach().numpy())


def test_params_are_views_and_arrays():
    p = Params.from_layers([(np.ones((3, 2)), np.zeros(3)), (np.ones((1, 3)), None)])
    p["w2"][0, 1] = 5
    assert p.flat[10] == 5
    assert p.biases[1] is None
    assert np.linalg.norm(p) == pytest.approx(np.sqrt(6 + 2 + 25))
    assert isinstance(p + 1, np.ndarray)
    p += 1
    assert isinstance(p, (Params, np.ndarray))
    q = pickle.loads(pickle.dumps(p))
    np.testing.assert_array_equal(np.asarray(q), np.asarray(p))


def test_peers_layout_both_ways():
    p = Params.from_layers([([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [7.0, 8.0, 9.0]), ([[10.0, 11.0, 12.0]], None)])
    peer = p.to_peer()
    np.testing.assert_array_equal(peer["w1"], [[1, 2, 7], [3, 4, 8], [5, 6, 9]])
    np.testing.assert_array_equal(peer["w2"], [[10, 11, 12]])
    flat = [1, 3, 5, 2, 4, 6, 7, 8, 9, 10, 11, 12]  # columns of [W b], one after another
    for other in (Params.from_peer(peer, p.layers), Params.from_peer(np.array(flat, float), p.layers)):
        np.testing.assert_array_equal(other.flat, p.flat)
        assert other.layers == p.layers
    with pytest.raises(InputError, match="12 parameters"):
        Params.from_peer(flat[:-1], p.layers)
    with pytest.raises(InputError, match="w2 has shape"):
        Params.from_peer({"w1": peer["w1"], "w2": np.zeros((2, 2))}, p.layers)


# ---- bad input -------------------------------------------------------------------------------------------------

X, Y = np.zeros((5, 2)), np.zeros(5)
GOOD = [(3, "tanh", True), (1, "identity", True)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": []}, "layers is empty"),
        ({"layers": 3}, "sequence"),
        ({"layers": [(3, "tanh")]}, "layer 1 is"),
        ({"layers": [(0, "tanh", True)]}, "width 0"),
        ({"layers": [(2.5, "tanh", True)]}, "width 2.5"),
        ({"layers": [(3, "tanj", True), (1, "identity", True)]}, "did you mean 'tanh'"),
        ({"layers": [(3, "tanh", 1), (1, "identity", True)]}, "bias 1"),
        ({"input": X[:, 0]}, r"reshape\(-1, 1\)"),
        ({"input": np.zeros((0, 2)), "target": []}, "empty"),
        ({"input": np.zeros((5, 0))}, "empty"),
        ({"input": np.full((5, 2), np.nan)}, "10 NaN or infinite entries"),
        ({"input": [[1, 2], [3]]}, "not an array"),
        ({"input": X.astype(complex)}, "complex128"),
        ({"input": X.astype(object)}, "object"),
        ({"target": np.zeros(4)}, r"\(5, 1\) is needed"),
        ({"target": np.zeros((5, 2))}, r"\(5, 1\) is needed"),
        ({"target": [0, 0, 0, 0, np.inf]}, "1 NaN or infinite entry"),
        ({"weights": np.ones(4)}, r"\(5,\) is needed"),
        ({"weights": -np.ones(5)}, "negative"),
        ({"weights": np.zeros(5)}, "no sample counts"),
        ({"dtype": "float16"}, "'float64' or 'float32'"),
        ({"dtype": "flaot"}, "'float64' or 'float32'"),
        ({"input": None}, "without input"),
        ({"input": None, "target": None}, "n_features is None"),
        ({"input": None, "target": None, "n_features": 0}, "n_features is 0"),
        ({"target": None}, "without target"),
        ({"n_features": 3}, r"\(n_samples, 3\) is needed"),
        ({"loss": "mae"}, "unknown loss 'mae'"),
        ({"loss": "nll", "layers": [(2, "tanh", True)]}, "'nll' needs 'softmax', or 'identity' for logits"),
        ({"layers": [(1, "softmax", True)]}, "'softmax' needs 'nll'"),
        ({"loss": "(f, y) -> nothing"}, "is not a function of an output and its target in Julia.*it gives a Nothing"),
        ({"loss": "f -> f"}, "is not a function of an output and its target"),
        ({"loss": "(f, y) -> ccall"}, "is not a function of an output and its target"),
        ({"loss": "correlation", "target": np.ones(5)}, "target is the same in all samples for output 0"),
        ({"layers": [(2, "softmax", True), (1, "identity", True)]}, "as a whole"),
        ({"layers": [(2, ("tanh",), True), (1, "identity", True)]}, "1 activations for 2 units"),
        ({"layers": [(2, ("tanh", "rellu"), True), (1, "identity", True)]}, "did you mean 'relu'"),
        ({"layers": [(2, "x -> sin(", True), (1, "identity", True)]}, "not a scalar function"),
        ({"layers": [(2, "x -> [x]", True), (1, "identity", True)]}, "it gives a"),
        ({"layers": [(2, "x -> nosuch(x)", True), (1, "identity", True)]}, "UndefVarError.*nosuch"),
        ({"l2": -1}, "l2 is -1"),
        ({"l2": "much"}, "l2 is 'much'"),
        ({"maxnorm": math.nan}, "maxnorm is nan"),
        ({"output_factor": 0}, "output_factor is 0"),
        ({"merge": (5, 0, 1, 0.1)}, "layers 0 to 1"),
        ({"merge": (0, 0, 3, 0.1)}, "units 0 to 2"),
        ({"merge": [(0, 0)]}, r"\(layer, i, j, λ\) is needed"),
        ({"input": np.full((5, 2), 2**53 + 1)}, "cannot represent"),
        ({"input": X.astype(np.longdouble)}, "float64 cannot hold"),
        ({"input": np.full((5, 2), 1e39), "dtype": "float32"}, "infinite"),
    ],
)
def test_bad_nets(arguments, message):
    with pytest.raises(InputError, match=message):
        mg.Net(**{"layers": GOOD, "input": X, "target": Y, **arguments})


def test_unknown_keyword():
    with pytest.raises(KeywordError, match="did you mean 'weights'"):
        mg.Net(layers=GOOD, input=X, target=Y, weight=np.ones(5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, p: net.loss(p[:-1]), "this net has 13 parameters"),
        (lambda net, p: net.loss("abc"), "real numbers"),
        (lambda net, p: net.loss(p * np.nan), "NaN or Inf"),
        (lambda net, p: net.gradient(np.full(13, np.inf)), "NaN or Inf"),
        (lambda net, p: net.hessian(np.where(p == 0, np.nan, p)), "NaN or Inf"),
        (lambda net, p: net.hvp(p, p[:3]), "v has shape"),
        (lambda net, p: net.hvp(p, p * np.nan), "NaN or Inf"),
        (lambda net, p: net.gradient(p, out=np.empty(5)), "out must be"),
        (lambda net, p: net.gradient(p, out=np.empty(13, np.float32)), "out must be"),
        (lambda net, p: net.hessian(p, out=np.empty((26, 13))[::2]), "C-contiguous"),
        (lambda net, p: net(p, np.zeros((3, 5))), r"\(n_samples, 2\) is needed"),
        (lambda net, p: net(p, [[np.nan, 0]]), "NaN"),
        (lambda net, p: net.random_params(seed=-1), "seed is -1"),
        (lambda net, p: net.random_params(seed=1.5), "seed is 1.5"),
        (lambda net, p: net.random_params(init="glorot"), "did you mean 'glorot"),
        (lambda net, p: net.params(p[:-1]), "shape"),
    ],
)
def test_bad_calls(call, message):
    net = mg.Net(layers=GOOD, input=X, target=Y)
    with pytest.raises(InputError, match=message):
        call(net, net.random_params(seed=0).flat)


def test_arrays_of_other_types_and_strides_are_accepted():
    net = mg.Net(layers=GOOD, input=X[::-1], target=list(Y))
    p = net.random_params(seed=0).flat
    twice = np.repeat(p, 2)[::2]
    assert net.loss(twice) == net.loss(p.tolist()) == net.loss(p)
    assert net.loss(p.astype(np.float32)) == pytest.approx(net.loss(p), rel=1e-6)


@pytest.mark.parametrize("where", ["input", "target", "weights", "p"])
def test_masked_entries_are_refused(where):
    rng = np.random.default_rng(0)
    arrays = {
        "input": rng.normal(size=(6, 2)),
        "target": rng.normal(size=6),
        "weights": np.ones(6),
        "p": rng.normal(size=9),
    }
    layers = [(2, "tanh", True), (1, "identity", True)]

    def loss(p, **data):
        return mg.Net(layers=layers, **data).loss(p)

    expected = loss(**arrays)
    whole = {**arrays, where: np.ma.masked_equal(arrays[where], -999)}
    assert loss(**whole) == expected
    arrays[where] = np.ma.array(arrays[where], mask=False)
    arrays[where].mask.flat[1] = True
    with pytest.raises(InputError, match=f"{where} is masked in 1 entry"):
        loss(**arrays)


def test_frames_are_converted_or_the_column_is_named():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": pd.array([1, 2, 3], dtype="Int64"), "c": [True, False, True]})
    layers = [(1, "identity", True)]
    net = mg.Net(layers=layers, input=frame, target=pd.array([1, 2, 3], dtype="Int64"))
    same = mg.Net(layers=layers, input=[[1.0, 1, 1], [2, 2, 0], [3, 3, 1]], target=[1.0, 2.0, 3.0])
    assert net.loss([1.0, 2.0, 3.0, 4.0]) == same.loss([1.0, 2.0, 3.0, 4.0])
    frame["b"] = pd.array([1, None, 3], dtype="Int64")
    with pytest.raises(InputError, match=r"the column 'b' of input (holds <NA> in row 1|contains 1 NaN)"):
        mg.Net(layers=layers, input=frame, target=[1.0, 2.0, 3.0])
    frame["b"] = ["x", "y", "z"]
    with pytest.raises(InputError, match="the column 'b' of input"):
        mg.Net(layers=layers, input=frame, target=[1.0, 2.0, 3.0])
    mixed = pd.DataFrame({"a": [1, 2.5, 3]}, dtype=object)
    assert mg.Net(layers=layers, input=mixed, target=[0.0, 0, 0]).loss([1.0, 0.0]) == pytest.approx((1 + 6.25 + 9) / 3)


def test_a_tensor_that_requires_a_gradient_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match=r"input is a tensor that requires a gradient: give input.detach\(\)"):
        mg.Net(layers=[(1, "identity", True)], input=torch.ones(2, 1, requires_grad=True), target=[0.0, 1.0])


def test_a_result_serves_wherever_parameters_do():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(8, 2)), rng.normal(size=8)
    net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=X, target=y)
    res = mg.minimize(net, net.random_params(seed=0), maxiterations_optim=3, verbosity=0)
    for call in (
        net,
        net.loss,
        net.gradient,
        net.hessian,
        net.jacobian,
        net.hessian_spectrum,
        net.data_terms,
        net.params,
    ):
        first, second = (list(v) if isinstance(v := call(p), tuple) else [v] for p in (res, res.x))
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(net.hvp(res, res), net.hvp(res.x, res.x))
    teacher = mg.TeacherNet(layers=net.layers, params=res, n_features=2)
    np.testing.assert_array_equal(teacher(X), net(res))
