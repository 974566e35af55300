"""Figures hold the numbers they are made of."""

from __future__ import annotations

import dataclasses

import matplotlib as mpl
import numpy as np
import pytest

import pymlpgf as mg

mpl.use("Agg")

import matplotlib.pyplot as plt

from pymlpgf import plot


@pytest.fixture(scope="module")
def solved() -> tuple[mg.Net, mg.TeacherNet, mg.TrainResult]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2))
    layers = [(2, "softplus", True), (1, "identity", True)]
    teacher = mg.TeacherNet(layers=layers, params=rng.normal(size=9), n_features=2)
    net = mg.Net(layers=[(3, "softplus", True), (1, "identity", True)], input=X, target=teacher(X))
    return net, teacher, mg.train(net, net.random_params(0), maxT=100, maxiterations_optim=20)


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("show was called"))
    yield
    plt.close("all")


def test_run(solved) -> None:
    _, _, res = solved
    loss, gnorm, end = plot.run(res)
    np.testing.assert_array_equal(loss.get_xydata(), np.c_[res.trajectory.t + 1, res.trajectory.loss])
    np.testing.assert_array_equal(gnorm.get_ydata(), res.trajectory.gnorm)
    assert end.get_ydata()[0] == res.loss
    ax = plt.figure().add_subplot()
    (only,) = plot.run(res.trajectory, ax, gradient=False)
    assert only.axes is ax


def test_run_to_the_end_of_time(solved) -> None:
    path = solved[2].trajectory
    t = np.geomspace(1e-3, 1e308, len(path))
    loss, _ = plot.run(dataclasses.replace(path, t=t))
    np.testing.assert_array_equal(loss.get_ydata(), path.loss[t < 1e100])
    loss.figure.canvas.draw()


def test_trajectories(solved) -> None:
    _, _, res = solved
    drawn = plot.trajectories([res, res.trajectory], 1, 4)
    assert len(drawn) == 6
    np.testing.assert_array_equal(drawn[0].get_xydata(), res.trajectory.x[:, [1, 4]])
    with pytest.raises(mg.InputError, match="parameters 0 and 13 are asked for; there are 13"):
        plot.trajectories(res, 0, 13)


def test_neurons(solved) -> None:
    net, teacher, res = solved
    crosses, rays, dots = plot.neurons(net.params(res.x), teacher)
    np.testing.assert_array_equal(crosses.get_offsets(), teacher.params.weights[0])
    np.testing.assert_array_equal(dots.get_offsets(), net.params(res.x).weights[0])
    assert len(rays.get_segments()) == 3
    narrow = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], n_features=1)
    with pytest.raises(mg.InputError, match="layer 0 has 1 input"):
        plot.neurons(narrow.random_params(0))


def test_spectrum(solved) -> None:
    net, _, res = solved
    pair = net.hessian_spectrum(res.trajectory.x[0])
    drawn = plot.spectrum(pair)
    np.testing.assert_allclose(
        np.sort(np.concatenate([line.get_ydata() for line in drawn])), np.sort(np.abs(pair[0][pair[0] != 0]))
    )
    assert [line.get_label() for line in plot.spectrum([3.0, -1.0, 2.0])] == ["positive (2)", "negative (1)"]


def test_plane(solved) -> None:
    net, _, res = solved
    start, middle, end = res.trajectory.x[0], res.trajectory.x[len(res.trajectory) // 2], res.trajectory.x[-1]
    plane = mg.LinearSubspace.through(net, end, start, middle)
    drawn = plot.plane(net, plane, res, resolution=9)
    line = drawn[1]
    first, last = line.get_segments()[0][0], line.get_segments()[-1][1]
    np.testing.assert_allclose([first, last], [[1, 0], [0, 0]], atol=1e-12)
    off = np.linalg.norm(res.trajectory.x[1] - plane.point(plane.coordinates(res.trajectory.x[1])))
    np.testing.assert_allclose(line.get_array()[0], off / 2, rtol=1e-9)
    assert line.get_clim()[0] == 0
    assert line.get_clim()[1] >= line.get_array().max()
    with pytest.raises(mg.InputError, match="subspace has 1 directions"):
        plot.plane(net, mg.LinearSubspace.through(net, start, end))


def test_work_precision() -> None:
    (line,) = plot.work_precision({"Tsit5": [(2.0, 1e-4), (1.0, 1e-2)]})
    np.testing.assert_array_equal(line.get_xydata(), [(1, 1e-2), (2, 1e-4)])
    with pytest.raises(mg.InputError, match=r"points of 'x' have shape \(3,\)"):
        plot.work_precision({"x": [1, 2, 3]})


def test_what_has_no_trajectory_is_refused() -> None:
    with pytest.raises(mg.InputError, match="a trajectory, or a result with one"):
        plot.run(None)


def test_network() -> None:
    p = mg.Params.from_layers([([[1.0, -2.0], [0.5, 0.0], [0.0, 4.0]], [1.0, -1.0, 0.0]), ([[3.0, -1.5, 0.0]], None)])
    first, second, inputs, hidden, outputs = plot.network(p, labels=["a", "b"])
    np.testing.assert_allclose(first.get_linewidths(), [1, 2, 0.5, 0, 0, 4])
    np.testing.assert_allclose(second.get_linewidths(), [4, 2, 0])
    red, blue = mpl.colors.to_rgba("C3"), mpl.colors.to_rgba("C0")
    assert [tuple(colour) for colour in second.get_colors()] == [blue, red, blue]
    assert [tuple(colour) for colour in hidden.get_facecolors()] == [blue, red, blue]
    assert [len(units.get_offsets()) for units in (inputs, hidden, outputs)] == [2, 3, 1]
    start, end = first.get_segments()[1]  # the weight from input 1 to unit 0
    np.testing.assert_array_equal([start, end], [inputs.get_offsets()[1], hidden.get_offsets()[0]])
    assert [text.get_text() for text in first.axes.texts] == ["a", "b"]
    with pytest.raises(mg.InputError, match="1 labels are given for 2 inputs"):
        plot.network(p, labels=["a"])
    with pytest.raises(mg.InputError, match="params is list"):
        plot.network([1.0])


def test_neurons_along(solved) -> None:
    net, _, res = solved
    along = mg.neurons_along(net, res)
    lines = plot.neurons_along(along, outgoing=True)
    assert len(lines) == 3
    np.testing.assert_array_equal(lines[2].get_xydata(), np.c_[along.t + 1, along.outgoing[:, 2]])


def test_catalogue(solved) -> None:
    net = solved[0]
    results = [mg.train(net, net.random_params(seed), maxT=10, maxiterations_optim=200) for seed in range(4)]
    found = mg.minima_catalogue(net, results)
    bars = plot.catalogue(found)
    assert [bar.get_label() for bar in bars] == [
        f"{kind} ({found.kind.count(kind)})" for kind in plot.KINDS if kind in found.kind
    ]
    own = [kind == bars[0].get_label().rpartition(" ")[0] for kind in found.kind]
    points, _, (lines,) = bars[0].lines
    np.testing.assert_allclose(points.get_xydata(), np.c_[found.loss, found.count / 4][own])
    ends = np.array([segment[:, 1] for segment in lines.get_segments()])
    np.testing.assert_allclose(ends, np.c_[found.low, found.high][own], atol=1e-12)


def test_saddle_line() -> None:
    X = np.linspace(-2, 2, 60)[:, None]
    net = mg.Net(
        layers=[(1, "tanh", True), (1, "identity", True)], input=X, target=np.sin(1.5 * X[:, 0]) + X[:, 0] ** 2
    )
    line = mg.saddle_line(net, mg.minimize(net, net.random_params(seed=1), verbosity=0), 0)
    drawn = plot.saddle_line(line)
    curves = [d for d in drawn if isinstance(d, mpl.lines.Line2D) and len(d.get_xdata()) > 2]
    shown = np.concatenate([c.get_ydata() for c in curves if c.get_color() != "0.7"])
    matter = line.eigenvalues[:, np.abs(line.eigenvalues).max(0) > 1e-10]
    assert set(matter.ravel()) <= set(shown)
    red = np.concatenate([c.get_ydata() for c in curves if c.get_color() == "C3"])
    assert np.nanmin(red) == line.eigenvalues.min()
    assert np.nanmax(red) <= 0
    texts = [d.get_text() for d in drawn if isinstance(d, mpl.text.Text)]
    assert texts == [f"index {line.index(gamma)}" for gamma in (-0.5, 0.5, 1.5)]


def test_branches() -> None:
    net = mg.Net(layers=[(1, "identity", False)] * 2, input=[[1.0]], target=[1.0])
    found = mg.follow(net, [0.0, 0.0], "l2", bounds=(0, 3), verbosity=0)
    *curves, mark = plot.branches(found, value=1)
    assert [c.get_linestyle() for c in curves].count("--") == 1  # the trunk up to l2 = 2
    for branch in found.branches:
        assert any(np.isin(branch.x[:, 1], c.get_ydata()).all() for c in curves if c.get_linestyle() == "-") or (
            branch.parent is None
        )
    np.testing.assert_allclose(mark.get_xydata(), [[2, 0]], atol=1e-12)
    assert mark.axes.get_xlabel() == "l2"
    heights = plot.branches(found, value=lambda x: x[0] * x[1])[-2].get_ydata()
    np.testing.assert_allclose(heights, 1 - found.branches[-1].parameter / 2, atol=1e-12)
    assert plot.branches(found)[-1].get_ydata() == [1]
    with pytest.raises(mg.InputError, match="value is 2"):
        plot.branches(found, value=2)
