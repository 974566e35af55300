"""Certificates: what they say is so, survives a file, and is verified only as long as nobody changes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import pymlpgf as mg


def student(activation="tanh", seed=0, width=2, **settings):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(80, 2))
    Y = np.tanh(X[:, 0] + X[:, 1]) - 0.5 * np.tanh(X[:, 0]) + 0.2 * rng.normal(size=80)
    net = mg.Net(
        layers=[(width, activation, True), (1, "identity", True)], input=X, target=Y, **{"l2": 1e-3, **settings}
    )
    return net, mg.minimize(net, net.random_params(seed=seed), maxtime_optim=10)


@pytest.fixture(scope="module")
def proved():
    net, res = student()
    return net, res, mg.certify(net, res)


def test_what_a_certificate_says_is_so(proved):
    net, _res, proof = proved
    assert proof.certified
    assert proof.kind == "minimum"
    assert proof.index == 0
    assert proof.reason == ""
    exact = mg.polish(net, proof.x, digits=30)
    assert max(abs(float(d - mg_digit(x))) for d, x in zip(exact.digits, proof.x, strict=True)) <= proof.radius < 1e-14
    assert 1e-8 < proof.uniqueness_radius < 1
    low, high = proof.loss_interval
    assert low <= exact.loss <= high
    assert high - low < 1e-14
    spectrum = np.linalg.eigvalsh(net.hessian(proof.x))
    assert (proof.eigenvalue_bounds[:, 0] <= spectrum).all()
    assert (spectrum <= proof.eigenvalue_bounds[:, 1]).all()
    assert np.diff(proof.eigenvalue_bounds).max() < 1e-8
    assert proof.precision == 128
    assert proof.fixed.size == 0
    assert "minimum, within" in repr(proof)


def mg_digit(x):
    from decimal import Decimal

    return Decimal(float(x))


def test_a_file_is_enough_to_verify(proved, tmp_path):
    net, _, proof = proved
    again = mg.Certificate.load(proof.save(tmp_path / "minimum"))
    assert again.verify()
    assert again.net().loss(proof.x) == net.loss(proof.x)
    for field in dataclasses.fields(proof):
        if field.name != "problem":
            np.testing.assert_array_equal(getattr(again, field.name), getattr(proof, field.name))
    without = mg.Certificate.load(proof.save(tmp_path / "without", data=False))
    assert without.verify(net)
    with pytest.raises(mg.InputError, match="give input and target"):
        without.verify()
    other = student(l2=1e-3 * (1 + 1e-9))[0]
    assert not without.verify(other)
    with pytest.raises(mg.InputError, match=r"newer|no result"):
        mg.load(tmp_path / "minimum.npz")
    with pytest.raises(mg.InputError, match="does not exist"):
        mg.Certificate.load(tmp_path / "nothing.npz")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: {"radius": c.radius / 4},
        lambda c: {"uniqueness_radius": 10.0},
        lambda c: {"index": 1, "kind": "saddle"},
        lambda c: {"loss_interval": (c.loss_interval[1], c.loss_interval[1] + 1)},
        lambda c: {"x": c.x + 1e-12},
        lambda c: {"x": c.x * np.nan},
        lambda c: {"eigenvalue_bounds": c.eigenvalue_bounds + 1e-6},
        lambda c: {"fixed": np.array([0])},
        lambda c: {"certified": False},
    ],
)
def test_a_changed_certificate_is_not_verified(proved, change):
    proof = proved[2]
    assert not dataclasses.replace(proof, **change(proof)).verify()


def test_saddles_and_reasons():
    line = mg.Net(layers=[(1, "identity", False), (1, "identity", False)], input=[[1.0]], target=[1.0])
    saddle = mg.certify(line, [1e-3, -2e-3])
    assert saddle.certified
    assert saddle.kind == "saddle"
    assert saddle.index == 1
    assert saddle.verify()
    assert saddle.loss_interval[0] <= 1 <= saddle.loss_interval[1]
    curve = mg.certify(line, [0.5, 2.0])  # L = (1 - ab)² is zero on a curve
    assert curve.certified
    assert curve.verify()
    assert curve.gauges == [mg.Gauge("scale of a unit", 0, (0,))]
    assert len(curve.fixed) == 1
    assert curve.eigenvalue_bounds.shape == (1, 2)
    net, res = student()
    wide, _ = mg.grow_net(net, res)
    curve = mg.certify(wide.replace(l2=0), mg.split_neuron(net.params(mg.minimize(net.replace(l2=0), res).x), 0, 0.5))
    assert not curve.certified
    assert "duplicate units (0, 2 of layer 0)" in curve.reason
    assert curve.index is None
    assert "not certified" in repr(curve)
    assert not curve.verify()
    assert "minimize" in mg.certify(line, [3.0, 2.0]).reason
    far = mg.certify(line, [1e-3, -2e-3], within=100.0)
    assert not far.certified
    assert "varies too much" in far.reason


def test_points_that_are_proved_to_differ(proved):
    net, _, proof = proved
    swapped = net.params(proof.x.copy())
    for name in ("w1", "b1"):
        swapped[name][:] = -swapped[name][::-1].copy()
    swapped["w2"][:] = -swapped["w2"][:, ::-1].copy()
    same = mg.certify(net, swapped)
    other = mg.certify(net, [0.0] * 8 + [float(np.mean(net._core.data[1])) / (1 + 5e-4)])
    assert other.certified
    found = mg.distinct([other, proof, same])
    assert found.different.tolist() == [[False, True, True], [True, False, False], [True, False, False]]
    assert len(found) == 2
    assert found.representatives.tolist()[1] == 0
    units = dataclasses.replace(same, x=same.x + 1e-6 * np.eye(9)[0])  # the loss tells nothing: the units do
    assert len(mg.distinct([proof, units])) == 2
    assert len(mg.distinct([proof, dataclasses.replace(units, radius=1e-5)])) == 1
    with pytest.raises(mg.InputError, match="entry 1 has no proof"):
        mg.distinct([proof, dataclasses.replace(proof, certified=False, reason="why")])
    with pytest.raises(mg.InputError, match="another net"):
        mg.distinct([proof, dataclasses.replace(proof, problem={**proof.problem, "l2": 0.5})])
    with pytest.raises(mg.InputError, match="empty"):
        mg.distinct([])


@pytest.mark.parametrize(
    "constraint",
    [
        {"freeze": "w1[0]"},
        {"tie": [("w1[0]", "-w1[1]"), ("b1[0]", "-b1[1]")]},
        {"constraint": (np.eye(9)[:, :5], None)},
    ],
    ids=list("fta"),
)
def test_with_a_constraint(tmp_path, constraint):
    net, free = student()
    res = mg.minimize(net, free, **constraint)
    proof = mg.certify(net, res, **constraint)
    held = mg.ConstrainedNet(net, res, **constraint)
    assert proof.certified
    assert proof.kind == "minimum"
    exact = mg.polish(net, res, digits=30, **constraint)
    assert max(abs(float(d - mg_digit(x))) for d, x in zip(exact.digits, proof.x, strict=True)) <= proof.radius < 1e-14
    assert (held.embed(proof.coordinates).flat == proof.x).all()
    spectrum = np.linalg.eigvalsh(held.hessian(proof.coordinates))
    assert np.abs(proof.eigenvalue_bounds - spectrum[:, None]).max() < 1e-8
    again = mg.Certificate.load(proof.save(tmp_path / "constrained"))
    assert again.verify()
    assert again.verify(held)
    assert mg.certify(held, res).constraint == proof.constraint
    assert not dataclasses.replace(again, x=proof.x + 1e-9).verify()
    assert not dataclasses.replace(again, coordinates=proof.coordinates + 1e-9).verify()
    assert not dataclasses.replace(again, coordinates=None).verify()
    assert len(mg.distinct([proof, again])) == 1
    unlike = dataclasses.replace(again, constraint={"freeze": [2], "tie": []})
    with pytest.raises(mg.InputError, match="another net"):
        mg.distinct([proof, unlike])
    assert not unlike.verify()
    with pytest.raises(mg.InputError, match="does not obey"):
        mg.certify(net, 2 * res.x + 1, **{"tie": [("w1[0]", "-w1[1]")]})


def test_numbers_of_a_float32_net_are_exact_ones():
    net, res = student(dtype="float32")
    proof = mg.certify(net, res)
    assert proof.certified
    assert proof.x.dtype == np.float64
    assert proof.radius < 1e-14
    assert proof.verify()
    assert mg.certify(net, proof).certified
    wide = mg.Net(net.layers, *net._core.data[:2], l2=float(np.float32(1e-3)), dtype="float64")
    assert proof.verify(wide)  # the same data, but for their type


def test_labels_and_julia_code(tmp_path):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(60, 2))
    labels = (X.sum(axis=1) + 0.5 * rng.normal(size=60) > 0).astype(int)
    net = mg.Net(layers=[(2, "tanh", True), (2, "softmax", True)], input=X, target=labels, loss="nll", l2=0.01)
    proof = mg.certify(net, mg.minimize(net, net.random_params(seed=0)))
    assert proof.certified
    assert mg.Certificate.load(proof.save(tmp_path / "labels")).verify()
    own, res = student("x -> x * exp(-x^2 / 2)", l2=0.01)
    proof = mg.certify(own, res)
    loaded = mg.Certificate.load(proof.save(tmp_path / "own"))
    with pytest.raises(mg.InputError, match="Julia code"):
        loaded.verify()
    assert proof.certified
    assert loaded.verify(allow_code=True)


def test_bad_input(proved):
    net, res, _ = proved
    for arguments, message in (
        ({"precision": 10}, "precision is 10"),
        ({"within": -1.0}, "within is -1.0"),
        ({"maxtime": -1}, "maxtime is -1"),
    ):
        with pytest.raises(mg.InputError, match=message):
            mg.certify(net, res, **arguments)
    with pytest.raises(mg.InputError, match="p has shape"):
        mg.certify(net, [1.0])
    with pytest.raises(mg.InputError, match="NaN"):
        mg.certify(net, np.full(net.n_params, np.nan))
    with pytest.raises(mg.InputError, match="Net is needed"):
        mg.certify(None, [1.0])


def test_a_minimum_of_the_population_loss(tmp_path):
    """Not the global one, which is zero; its loss by the arc-cosine kernel (Cho and Saul, NIPS 2009) in mpmath."""
    mpmath = pytest.importorskip("mpmath")
    layers, k = [(6, "relu", False), (1, "identity", False)], 6
    teacher = mg.TeacherNet(layers=layers, params=[*np.eye(k).ravel(), *np.ones(k)], n_features=k)
    net = mg.InfiniteNet(teacher, layers)
    proof = mg.certify(net, mg.train(net, net.random_params(seed=17), maxtime_ode=20, maxtime_optim=20))
    assert proof.certified
    assert proof.kind == "minimum"
    assert proof.loss_interval[0] > 0.05
    assert [gauge.label for gauge in proof.gauges] == ["scale of a unit"] * k
    loaded = mg.Certificate.load(proof.save(tmp_path / "stuck"))
    assert loaded.verify()
    assert len(mg.distinct([loaded, proof])) == 1
    other = mg.InfiniteNet(mg.TeacherNet(layers=layers, params=teacher.params.flat * 1.01, n_features=k), layers)
    assert not loaded.verify(other)

    mpmath.mp.dps = 40
    units = [[mpmath.mpf(float(v)) for v in row] for row in proof.x[: k * k].reshape(k, k)]
    weights = [mpmath.mpf(float(v)) for v in proof.x[k * k :]]
    units += [[mpmath.mpf(int(i == j)) for j in range(k)] for i in range(k)]
    weights += [mpmath.mpf(-1)] * k
    norms = [mpmath.norm(unit) for unit in units]
    loss = mpmath.mpf(0)
    for i in range(2 * k):
        for j in range(2 * k):
            u = min(max(mpmath.fdot(units[i], units[j]) / (norms[i] * norms[j]), -1), 1)
            kernel = (mpmath.sqrt(1 - u * u) + u * (mpmath.pi - mpmath.acos(u))) / (2 * mpmath.pi)
            loss += weights[i] * weights[j] * norms[i] * norms[j] * kernel
    assert proof.loss_interval[0] <= loss <= proof.loss_interval[1]
    sigmoid2 = mg.InfiniteNet(
        mg.TeacherNet(
            layers=[(4, "sigmoid2", False), (1, "identity", False)],
            params=[*np.eye(4).ravel(), *np.ones(4)],
            n_features=4,
        ),
        [(2, "sigmoid2", False), (1, "identity", False)],
    )
    proof = mg.certify(sigmoid2, mg.train(sigmoid2, sigmoid2.random_params(seed=1), maxtime_ode=20, maxtime_optim=20))
    assert proof.certified
    assert proof.kind == "minimum"
    smooth = mg.InfiniteNet(teacher, [(2, "tanh", True), (1, "identity", False)])
    assert "no closed form" in mg.certify(smooth, mg.minimize(smooth, smooth.random_params(seed=0))).reason


def test_minima_of_the_literature():
    """Relu students as wide as their teacher: minima that are not global, proved by Safran and Shamir (ICML 2018).

    The entries of their points and the objectives L/2 there, which are by their formula those of the points that they
    published (github.com/ItaySafran/OneLayerGDconvergence, Results/newExp-k-k.mat), at which |∇L| is below 1e-8.
    """
    for k, diagonal, other, column, row, corner, objective in (
        (6, 0.98670382, -0.05041340, 0.22451580, 0.30801098, -0.60151192, 0.025080581002463016),
        (7, 0.99692, -0.03508, 0.18599, 0.26169, -0.63270, 0.023202714913566078),
    ):
        units = np.full((k, k), other) + (diagonal - other) * np.eye(k)
        units[-1, :], units[:, -1], units[-1, -1] = column, row, corner  # a unit for each row; one of them points back
        layers = [(k, "relu", False), (1, "identity", False)]
        teacher = mg.TeacherNet(layers=layers, params=[*np.eye(k).ravel(), *np.ones(k)], n_features=k)
        proof = mg.certify(mg.InfiniteNet(teacher, layers), [*units.ravel(), *np.ones(k)])
        assert proof.certified
        assert proof.kind == "minimum"
        assert np.abs(proof.x[: k * k] - units.ravel()).max() < 1e-4
        assert proof.loss_interval[0] / 2 <= objective <= proof.loss_interval[1] / 2
        assert np.diff(proof.loss_interval) < 1e-16


def test_copies_and_averages_of_the_literature():
    """erf students narrower than their teacher: units that average m orthonormal ones (Şimşek et al., NeurIPS 2023).

    By our own calculation they have the norm 1/√(2m − 1) and the weight m, and add m/3 − 2m²/π arcsin(1/2m) to the
    loss.
    """
    mpmath = pytest.importorskip("mpmath")
    k = 4
    teacher = mg.TeacherNet(
        layers=[(k, "sigmoid2", False), (1, "identity", False)],
        params=[*np.eye(k).ravel(), *np.ones(k)],
        n_features=k,
    )
    proofs = {}
    for groups in ((4,), (1, 3), (2, 2)):
        net = mg.InfiniteNet(teacher, [(len(groups), "sigmoid2", False), (1, "identity", False)])
        first = np.cumsum([0, *groups])
        units = [
            [1 / np.sqrt(m * (2 * m - 1)) if f <= i < f + m else 0 for i in range(k)]
            for f, m in zip(first, groups, strict=False)
        ]
        proof = proofs[groups] = mg.certify(net, [*np.ravel(units), *groups])
        loss = sum(mpmath.mpf(m) / 3 - 2 * m * m / mpmath.pi * mpmath.asin(mpmath.mpf(1) / (2 * m)) for m in groups)
        assert proof.certified
        assert proof.loss_interval[0] <= loss <= proof.loss_interval[1]
        assert np.diff(proof.loss_interval) < 1e-15
    assert proofs[4,].kind == proofs[1, 3].kind == "minimum"
    assert proofs[2, 2].kind == "saddle"
    assert len(mg.distinct([proofs[1, 3], proofs[2, 2]])) == 2


def test_memory_within_three_matrices():
    """The third of three equal proofs: by then compiled code, BLAS's buffers and Julia's first garbage are there."""
    peak = Path("/proc/self/clear_refs")
    if not peak.exists():
        pytest.skip("only Linux says how much memory a process had at most")

    def kilobytes(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

    net = mg.Net(
        layers=[(200, "tanh", True), (1, "identity", True)],
        input=np.sin(np.arange(192.0)).reshape(64, 3),
        target=np.zeros(64),
        l2=1e-2,
    )
    for _ in range(3):
        peak.write_text("5")
        before = kilobytes("VmRSS")
        assert mg.certify(net, np.zeros(1001)).kind == "minimum"
        grown = kilobytes("VmHWM") - before
    assert grown <= 3 * 8 * 1001**2 / 1024
