"""MLPGradientFlow.jl: its files, and examples of its documentation with the numbers that it gives for them.

data/peer holds what MLPGradientFlow.jl 0.3.0 wrote: results by its ``pickle`` and by JLD2.jl, and numbers, with the
versions of the packages in peer_numbers.json.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import pymlpgf as mg
from pymlpgf import InputError
from pymlpgf.results.peer import _result
from pymlpgf.results.torch_file import MAGIC, PROTOCOL, write_torch_file

PEER = Path(__file__).parent / "data" / "peer"
NUMBERS = json.loads((PEER / "peer_numbers.json").read_text())


def inputs(features: int, samples: int) -> np.ndarray:
    i, j = np.arange(1, features + 1), np.arange(1, samples + 1)[:, None]
    return np.sin(1.7 * i * j + 0.3 * i) + np.cos(0.9 * j) / (1 + i)


# ---- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["peer_train.pt", "peer_train.jld2", "peer_deep.pt"])
def test_a_result_of_the_peer_comes_with_its_net(name, tmp_path):
    if name.endswith("jld2"):
        pytest.importorskip("h5py")
    res = mg.read_peer(PEER / name)
    net = res.net()
    np.testing.assert_allclose(net.loss(res), res.loss, rtol=1e-12)
    np.testing.assert_allclose(np.abs(net.gradient(res)).max(), res.gnorm, rtol=1e-7)
    points = res.trajectory
    np.testing.assert_allclose([net.loss(x) for x in points.x], points.loss, rtol=1e-12)
    np.testing.assert_array_equal(points.x[0], res.init)
    np.testing.assert_allclose(points.x[-1], res.x, atol=1e-8)  # there the best point may be one within a step
    again = mg.flow(net, res.init, maxT=res.ode_t, tauinv=net.n_samples, abstol=1e-10, reltol=1e-10, verbosity=0)
    np.testing.assert_allclose(again.x, res.ode_x, atol=1e-7)
    assert res.ode_stopped_by == "maxT"
    np.testing.assert_array_equal(mg.load(res.save(tmp_path / "ours")).x, res.x)


def test_what_the_file_says_of_the_run_is_kept():
    res = mg.read_peer(PEER / "peer_train.pt")
    assert res.layers == [(3, "softplus", True), (1, "identity", True)]
    assert (res.ode_iterations, res.optim_iterations) == (215, 1999)
    assert (res.optim_stopped_by, res.converged) == ("maxiterations", False)
    assert "maxiterations ≥ 2000" in res.message
    np.testing.assert_array_equal(res.net().params(res).to_peer()["w1"], NUMBERS["train"]["end"]["x"]["w1"])
    deep = mg.read_peer(PEER / "peer_deep.pt")
    assert deep.layers == [(3, "sigmoid", False), (2, ("g", "tanh"), True), (2, "identity", False)]
    np.testing.assert_array_equal(deep.problem["weights"], 1 + np.arange(1, 61) % 3 / 2)


def test_jld2_holds_the_same_as_the_pickle():
    pytest.importorskip("h5py")
    ours, other = mg.read_peer(PEER / "peer_train.pt"), mg.read_peer(PEER / "peer_train.jld2", "result")
    for name in ("x", "init", "ode_x"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(other, name))
    for name in ("t", "x", "loss"):
        np.testing.assert_array_equal(getattr(ours.trajectory, name), getattr(other.trajectory, name))
    for name in ("input", "target"):
        np.testing.assert_array_equal(ours.problem[name], other.problem[name])
    assert (ours.loss, ours.message, ours.layers) == (other.loss, other.message, other.layers)
    with pytest.raises(InputError, match="holds no 'resul'; did you mean 'result'"):
        mg.read_peer(PEER / "peer_train.jld2", "resul")


def test_links_and_external_arrays_are_not_followed(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "link.jld2", "w") as file:
        file["x"] = h5py.ExternalLink("/etc/other.h5", "/secret")
    with h5py.File(tmp_path / "external.jld2", "w") as file:
        file.create_dataset("x", (4,), "u1", external=[("/etc/hostname", 0, 4)])
    with pytest.raises(InputError, match="link"):
        mg.read_peer(tmp_path / "link.jld2")
    with pytest.raises(InputError, match="another file"):
        mg.read_peer(tmp_path / "external.jld2")
    with h5py.File(tmp_path / "circle.jld2", "w") as file:
        circle = file.create_dataset("x", (1,), h5py.ref_dtype)
        circle[0] = circle.ref
    with pytest.raises(InputError, match="circle"):
        mg.read_peer(tmp_path / "circle.jld2")


def _trained(**settings):
    X = np.random.default_rng(0).normal(size=(20, 2))
    layers = [(2, (mg.Poly(0, 1, 0.5), "sigmoid"), True), (3, "tanh", False), (1, "identity", True)]
    net = mg.Net(layers=layers, input=X, target=X[:, 0], weights=np.linspace(0.5, 1, 20), **settings)
    return net, mg.train(net, net.random_params(seed=1), maxT=2, maxiterations_optim=5, verbosity=0)


def test_results_are_written_for_the_peer(tmp_path):
    torch = pytest.importorskip("torch")
    net, res = _trained()
    path = mg.write_peer(res, tmp_path / "folder" / "ours.pt")
    plain = torch.load(path, weights_only=True)
    np.testing.assert_array_equal(plain["x"]["w1"].numpy(), res.params.to_peer()["w1"])
    assert plain["input"].shape == (3, 20)
    assert bool((plain["input"][-1] == 1).all())
    assert plain["target"].shape == (1, 20)
    assert plain["layerspec"][0] == (2, ["Poly{3, Float64}((0.0, 1.0, 0.5))", "sigmoid_fast"], True)
    assert list(plain["trajectory"]) == res.trajectory.t.tolist()
    torch.save(plain, tmp_path / "archive.pt")  # and in PyTorch's own format
    for file in (path, tmp_path / "archive.pt"):
        back = mg.read_peer(file)
        assert back.net().loss(back) == net.loss(res)
        for name in ("x", "init", "ode_x"):
            np.testing.assert_array_equal(getattr(back, name), getattr(res, name))
        np.testing.assert_array_equal(back.trajectory.x, res.trajectory.x)
        assert back.layers == res.layers
        assert (back.ode_stopped_by, back.optim_stopped_by) == (res.ode_stopped_by, res.optim_stopped_by)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"loss": "correlation"}, "the loss 'correlation'"),
        ({"loss": "(f, y) -> log(cosh(f - y))"}, "the loss '.*log"),
        ({"output_factor": 0.5}, "output_factor=0.5: multiply"),
        ({"layers": [(1, "x -> x^2 / 2", False)]}, "the activation 'x -> x"),
        ({"layers": [(2, "identity", True)], "loss": "nll", "target": [0, 1, 1]}, "logits with the loss 'nll'"),
    ],
)
def test_nets_that_the_peer_has_no_file_for_are_refused(net, message, tmp_path):
    given = {"layers": [(1, "tanh", True), (1, "identity", True)], "input": np.eye(3), "target": [1.0, 2.0, 0.0], **net}
    net = mg.Net(**given)
    res = mg.minimize(net, net.random_params(0), maxiterations_optim=1)
    with pytest.raises(mg.InputError, match=message):
        mg.write_peer(res, tmp_path / "w.pt")


def test_labels_and_single_precision_survive(tmp_path):
    X = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    net = mg.Net(layers=[(3, "softmax", True)], input=X, target=np.arange(12) % 3, loss="nll")
    res = mg.minimize(net, net.random_params(seed=0), maxiterations_optim=3, verbosity=0)
    back = mg.read_peer(mg.write_peer(res, tmp_path / "labels.pt"))
    assert back.net().dtype == np.float32
    assert back.net().loss(back) == net.loss(res)
    assert back.ode_stopped_by is None


# ---- files that are something else ---------------------------------------------------------------------------------


class _Runs:
    """Its pickle runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


def _torch_file(*pickles: bytes) -> bytes:
    head = [pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, {"little_endian": True})]
    return b"".join([*head, *pickles])


def _storage(kind=b"DoubleStorage", length=4, key=b"0"):
    text = b"X" + struct.pack("<I", len(key)) + key
    return (
        b"(X\x07\x00\x00\x00storagectorch\n"
        + kind
        + b"\n"
        + text
        + b"X\x03\x00\x00\x00cpuJ"
        + (struct.pack("<i", length) + b"NtQ")
    )


def _tensor(offset=0, size=(4,), stride=(1,), storage=None):
    def numbers(values):
        return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"

    start = b"ctorch._utils\n_rebuild_tensor_v2\n(" + (storage or _storage()) + b"J" + struct.pack("<i", offset)
    return start + numbers(size) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)RtR"


ATTACKS = {
    "reduce": (lambda command: pickle.dumps({"x": _Runs(command)}, 2), "system"),
    "protocol 4": (lambda command: pickle.dumps({"x": _Runs(command)}, 4), "system"),
    "protocol 0": (lambda command: pickle.dumps(_Runs(command), 0), "system"),
    "eval": (lambda command: b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "builtins.eval"),
    "torch itself": (lambda command: b"\x80\x02ctorch.hub\nload\n)R.", "torch.hub.load"),
    "attribute": (lambda command: b"\x80\x04\x8c\x05torch\x8c\x13DoubleStorage.__doc\x93.", "DoubleStorage.__doc"),
    "inst": (lambda command: b"(X\x04\x00\x00\x00trueios\nsystem\n.", "INST"),
    "object": (lambda command: b"(ccollections\nOrderedDict\no.", "OBJ"),
    "new object": (lambda command: b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
    "extension": (lambda command: b"\x80\x02\x82\x01.", "EXT1"),
    "persistent": (lambda command: b"\x80\x02Pname\n.", "PERSID"),
    "state of an array": (lambda command: b"\x80\x02" + _tensor() + b"}b.", "state of an object"),
    "state of a function": (lambda command: b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.", "state of an object"),
    "calls a storage": (lambda command: b"\x80\x02ctorch\nDoubleStorage\n)R.", "it calls torch.DoubleStorage"),
    "beyond": (lambda command: b"\x80\x02" + _tensor(offset=1) + b".", "beyond its storage"),
    "wide": (lambda command: b"\x80\x02" + _tensor(size=(2**30,), stride=(0,)) + b".", "beyond its storage"),
    "backwards": (lambda command: b"\x80\x02" + _tensor(offset=3, stride=(-1,)) + b".", "shape of an array"),
    "bomb": (lambda command: b"\x80\x02" + _tensor(storage=_storage(length=2**30)) + b".", "larger than the file"),
    "code": (
        lambda command: b"\x80\x02" + _tensor(storage=_storage(kind=b"PyObjectStorage")) + b".",
        "PyObjectStorage",
    ),
}


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("archive", [False, True])
def test_nothing_of_a_file_is_run(kind, archive, tmp_path):
    make, says = ATTACKS[kind]
    path, touched = tmp_path / "bad.pt", tmp_path / "touched"
    bad = make(f"touch {touched}")
    if archive:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", bad)
            file.writestr("archive/data/0", bytes(32))
    else:
        path.write_bytes(_torch_file(bad, pickle.dumps([], 2)))
    with pytest.raises(InputError, match=f"bad.pt.*{says}"):
        mg.read_peer(path)
    assert not touched.exists()


def test_the_attack_would_work_on_a_reader_that_trusts(tmp_path):
    pickle.loads(ATTACKS["reduce"][0](f"touch {tmp_path / 'touched'}"))
    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "place", ["x", "layerspec", "loss", "loss_curve", "ode_stopped_by", "input", "weights", "init"]
)
def test_shared_parts_do_not_grow(place):
    """A pair of a pair of … twice the same, sixty deep: written out it would fill any memory."""
    pair: object = ()
    for _ in range(60):
        pair = (pair, pair)
    w = {"w1": np.ones((2, 3))}
    good = {"x": w, "layerspec": ((2, "tanh", True),), "ode_x": w, "trajectory": {0.0: w}, "target": np.ones((2, 5))}
    good["input"] = np.ones((3, 5))
    if place == "ode_stopped_by":
        assert _result({**good, place: pair}, {}).ode_stopped_by == "maxT"
    else:
        with pytest.raises((InputError, TypeError, AttributeError, ValueError)):
            _result({**good, place: pair}, {})


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 7092), st.integers(0, 255)), max_size=3), length=st.integers(1, 7093))
def test_a_damaged_file_is_an_error_of_our_own(changes, length, tmp_path):
    damaged = bytearray((PEER / "peer_deep.pt").read_bytes())
    for place, byte in changes:
        damaged[place] = byte
    (tmp_path / "damaged.pt").write_bytes(damaged[:length])
    with contextlib.suppress(InputError):
        assert isinstance(mg.read_peer(tmp_path / "damaged.pt"), mg.TrainResult)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"w1": np.ones((2, 2))}, "it holds w1: give key"),
        ({"x": {"w1": np.ones((2, 2))}, "layerspec": ((2, "swish", False),)}, "activation 'swish'.*activations="),
        ({"x": {"w1": np.ones((2, 2))}, "layerspec": ((3, "tanh", False),)}, r"w1 has shape \(2, 2\)"),
    ],
)
def test_results_that_cannot_be_read_say_why(value, says, tmp_path):
    with open(tmp_path / "odd.pt", "wb") as file:
        write_torch_file(file, value)
    with pytest.raises(InputError, match=says):
        mg.read_peer(tmp_path / "odd.pt")


def test_one_of_many_and_activations_of_other_names(tmp_path):
    one = {"x": {"w1": np.ones((2, 3))}, "layerspec": ((2, "swish", True),), "loss": 0.5}
    two = {**one, "x": {"w1": np.zeros((2, 3))}}
    with open(tmp_path / "many.pt", "wb") as file:
        write_torch_file(file, [one, two])
    with pytest.raises(InputError, match="holds 0, 1: give key"):
        mg.read_peer(tmp_path / "many.pt")
    res = mg.read_peer(tmp_path / "many.pt", 1, activations={"swish": "silu"})
    assert res.layers == [(2, "silu", True)]
    assert not res.x.any()
    assert res.params.biases[0].shape == (2,)
    with pytest.raises(InputError, match="does not exist"):
        mg.read_peer(tmp_path / "none.pt")
    with pytest.raises(InputError, match="result is str"):
        mg.write_peer("res", tmp_path / "x.pt")


# ---- examples of its documentation ---------------------------------------------------------------------------------


def _blocks(flat, net) -> dict[str, np.ndarray]:
    return net.params(flat).to_peer()


def _same(flat, net, numbers, **tolerance):
    for name, block in _blocks(flat, net).items():
        np.testing.assert_allclose(block, numbers[name], **tolerance)


def test_training_one_hidden_layer():
    """Its page on training: loss, gradient, spectrum, the flow with its time axis."""
    x = inputs(2, 60)
    j = np.arange(1, 61)
    target = np.tanh(2 * x[:, 0]) - 0.5 * x[:, 1] ** 2 + 0.3 * np.sin(13 * j)
    net = mg.Net(layers=[(3, "softplus", True), (1, "identity", True)], input=x, target=target)
    W, b = np.array([[0.4, -0.7], [-0.3, 0.6], [0.9, 0.2]]), np.array([0.1, -0.2, 0.3])
    p = mg.Params.from_layers([(W, b), ([[0.5, -0.8, 0.7]], [0.05])])
    numbers = NUMBERS["train"]
    np.testing.assert_allclose(net.loss(p), numbers["loss"], rtol=1e-13)
    _same(net.gradient(p), net, numbers["gradient"], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(net.hessian_spectrum(p)[0], numbers["eigenvalues"], atol=1e-11)
    res = mg.train(net, p, maxT=20, tauinv=60, abstol=1e-10, reltol=1e-10, maxtime_optim=2, verbosity=0)
    _same(res.ode_x, net, numbers["end"]["ode_x"], atol=1e-6)
    np.testing.assert_allclose(res.ode_loss, numbers["end"]["ode_loss"], rtol=1e-8)
    assert res.loss < numbers["end"]["loss"]  # it stopped in 2000 iterations, on the way to infinity
    at = mg.Params.from_peer(numbers["end"]["x"], p.layers)
    np.testing.assert_allclose(net.hessian_spectrum(at)[0], numbers["end"]["eigenvalues"], atol=1e-9)


def test_two_hidden_layers_with_some_biases():
    """Its page on Python, with activations per unit and weights of samples."""
    x = inputs(2, 60)
    layers = [(3, "sigmoid", False), (2, ("g", "tanh"), True), (2, "identity", False)]
    net = mg.Net(layers=layers, input=x, target=x**2, weights=1 + np.arange(1, 61) % 3 / 2)
    p = mg.Params.from_layers(
        [
            ([[0.4, -0.7], [-0.3, 0.6], [0.9, 0.2]], None),
            ([[0.2, 0.5, -0.4], [-0.6, 0.3, 0.8]], [0.1, -0.1]),
            ([[0.7, -0.2], [0.3, 0.6]], None),
        ]
    )
    numbers = NUMBERS["deep"]
    np.testing.assert_allclose(net.loss(p), numbers["loss"], rtol=1e-13)
    _same(net.gradient(p), net, numbers["gradient"], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(net.hessian_spectrum(p)[0], numbers["eigenvalues"], atol=1e-11)


@pytest.mark.parametrize("activation", ["sigmoid2", "softplus"])
def test_infinite_data(activation):
    """Its page on normal inputs: closed forms, integrals, and the net on Gauss–Hermite nodes."""
    teacher, student, p = _teacher_and_student(activation)
    net = mg.InfiniteNet(teacher, student)
    numbers = NUMBERS[f"infinite_{activation}"]
    np.testing.assert_allclose(net.loss(p), numbers["loss"], rtol=1e-10)
    _same(net.gradient(p), net, numbers["gradient"], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(net.hessian_spectrum(p)[0], numbers["eigenvalues"], atol=1e-9)
    nodes = mg.gauss_hermite_net(teacher, mg.Net(layers=student, n_features=2), order=100)
    np.testing.assert_allclose(nodes.loss(p), numbers["gauss_hermite_loss"], rtol=1e-9)


def _teacher_and_student(activation):
    layers = [(3, activation, True), (1, "identity", True)]
    W = [[0.9, -0.4], [0.2, 1.1], [-0.7, 0.5]]
    own = mg.Params.from_layers([(W, [0.3, -0.2, 0.1]), ([[1.0, -0.8, 0.6]], [0.2])])
    teacher = mg.TeacherNet(layers=layers, params=own, n_features=2)
    p = mg.Params.from_layers([([[0.5, 0.1], [-0.4, 0.8]], [0.2, -0.3]), ([[0.6, -0.3]], [0.1])])
    return teacher, [(2, activation, True), (1, "identity", True)], p


def test_splitting_a_unit():
    _, _, p = _teacher_and_student("sigmoid2")
    ours = mg.split_neuron(p, 0, 0.25).to_peer()
    # there the copy comes after the unit itself, here at the end
    np.testing.assert_array_equal(ours["w1"][[0, 2, 1]], NUMBERS["split"]["w1"])
    np.testing.assert_array_equal(ours["w2"][:, [0, 2, 1, 3]], NUMBERS["split"]["w2"])


def _descending():
    x = inputs(2, 100)
    own = [([[0.9, -0.4], [0.2, 1.1], [-0.7, 0.5]], None), ([[1.0, -0.8, 0.6]], None)]
    layers = [(3, "softplus", False), (1, "identity", False)]
    teacher = mg.TeacherNet(layers=layers, params=mg.Params.from_layers(own), n_features=2)
    net = mg.Net(layers=[(2, "softplus", False), (1, "identity", False)], input=x, target=teacher(x))
    return net, mg.Params.from_layers([([[0.5, 0.1], [-0.4, 0.8]], None), ([[0.6, -0.3]], None)])


@pytest.mark.parametrize("kind", ["full", "batches", "adam"])
def test_descending_by_steps(kind):
    """Its page on stochastic gradient descent: batches there are taken in turn."""
    net, p = _descending()
    alg = mg.Adam() if kind == "adam" else mg.GradientDescent(learning_rate=0.1)
    batches = {"batchsize": 20, "shuffle": False} if kind == "batches" else {}
    res = mg.flow(net, p, alg=alg, maxiterations_ode=200, verbosity=0, **batches)
    _same(res.ode_x, net, NUMBERS["descent"][kind], rtol=1e-11)


def test_how_far_descent_strays_from_the_flow():
    """There the distance is ‖x − y‖²/(2P), to the nearest point of the reference; here ‖x − y‖, to its path."""
    net, p = _descending()
    numbers = NUMBERS["descent"]
    flow = mg.flow(net, p, maxT=numbers["flow_t"], tauinv=100, abstol=1e-10, reltol=1e-10, dense=True, verbosity=0)
    _same(flow.x, net, numbers["flow"], atol=1e-8)
    alg = mg.GradientDescent(learning_rate=0.1)
    steps = mg.flow(net, p, alg=alg, maxiterations_ode=200, save_everystep=True, verbosity=0)
    ours = mg.trajectory_distance(steps, flow)
    theirs = np.sqrt(2 * net.n_params * np.array(numbers["distance"]))
    times = np.array(numbers["distance_t"])
    assert len(theirs) > 20
    before = times < 0.95 * numbers["flow_t"]
    off = theirs[before] ** 2 - ours.distance[: len(times)][before] ** 2  # how far its points are from the nearest
    assert off.min() > -1e-8
    assert off.max() < 4e-3**2
    np.testing.assert_allclose(ours.t[: len(times)][before], times[before], rtol=0.02, atol=1e-3)


def test_time_constants_of_biases():
    """Its page on time constants, where biases move ten thousand times slower."""
    teacher, student, p = _teacher_and_student("sigmoid2")
    net = mg.InfiniteNet(teacher, student)
    numbers = NUMBERS["tauinv"]
    slow = {"b1": 1e-4, "b2": 1e-4}
    for tauinv, kind in ((1, "standard"), (slow, "slow_biases")):
        res = mg.flow(net, p, maxT=numbers["t"], tauinv=tauinv, abstol=1e-10, reltol=1e-10, verbosity=0)
        _same(res.ode_x, net, numbers[kind], atol=2e-7)


def test_local_coordinates():
    """There of the reference minus the point, in a basis whose signs are those of a singular value decomposition."""
    _, student, p = _teacher_and_student("sigmoid2")
    net = mg.Net(layers=student, n_features=2)
    plane = mg.LinearSubspace(net, p, np.eye(9)[0], np.eye(9)[1])
    ours = plane.coordinates(p.flat + np.arange(1, 10) / 10)
    np.testing.assert_allclose(ours, np.abs(NUMBERS["subspace"]["local"]), atol=1e-15)


#: what MLPGradientFlow.jl 0.3.0 exports and documents, and the keywords of its functions and keys of its results
NAMES = """
Net NetI TeacherNet FullBatch MiniBatch loss gradient hessian hessian_spectrum train random_params params params2dict
gauss_hermite_net sigmoid softplus g gelu square relu softmax sigmoid2 cube Poly selu silu tanh_fast normal_cdf
pickle unpickle
NormalIntegral trajectory_distance LinearSubspace to_local_coords subspace_minloss grow_net shrink_net split_neuron
cosine_similarity n_samples result2dict load_potential_approximator
layers input target weights bias_adapt_input derivs copy_input verbosity Din g1 g2 distr_fn losstype maxnorm merge
alg batchsize show_progress progress_interval tauinv optim_solver maxiterations_ode maxiterations_optim hessian_template
patience min_gnorm abstol reltol save_everystep dense maxT maxtime_ode maxtime_optim result minloss use_component_arrays
n_samples_trajectory include exclude dt optim_options num_workers threads_per_worker N d prune threshold
restarts sigma restart_params restart_strategy finetune reverse_finetune
converged optim_stopped_by ode_stopped_by total_time ode_loss gnorm gnorm_regularized init x ode_x ode_time_run
ode_iterations optim_time_run optim_iterations layerspec trajectory loss_curve teacher
"""


def test_every_name_of_the_peer_has_a_row():
    page = (Path(__file__).parents[2] / "docs" / "from-mlpgradientflow.md").read_text(encoding="utf-8")
    first = "\n".join(line.split("|")[1] for line in page.splitlines() if line.startswith("|"))
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", page))))
    missing = [name for name in NAMES.split() if name not in words]
    assert not missing
    in_rows = set(re.findall(r"\w+", first))
    inside = {"restarts", "sigma", "restart_params", "restart_strategy", "finetune", "reverse_finetune"}  # of a row
    assert not [name for name in NAMES.split() if name not in in_rows | inside]
