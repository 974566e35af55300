"""Figures with matplotlib: each function draws into ``ax``, returns what it drew, and never calls ``show``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import ArrayLike

from .errors import InputError
from .landscape.neurons import NeuronsAlong
from .network.net import Net
from .network.params import Params
from .network.teacher import TeacherNet
from .results.at_infinity import SHARP, MinimumAtInfinity
from .results.result import TrainResult, Trajectory, params_of

if TYPE_CHECKING:
    from .landscape.catalogue import Catalogue
    from .landscape.follow import Followed
    from .landscape.saddle_line import SaddleLine
    from .landscape.subspace import LinearSubspace

__all__ = [
    "branches", "catalogue", "channel", "network", "neurons", "neurons_along", "plane", "run", "saddle_line",
    "spectrum", "trajectories", "work_precision",
]  # fmt: skip

#: What has a trajectory.
Flow: TypeAlias = TrainResult | Trajectory

KINDS = ("minimum", "saddle", "degenerate", "escaping", "not a fixed point")  # as ``classify`` calls them
CLOCK = 1e100  # at a minimum a flow's time runs on towards the largest number, which no axis can show


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots(layout="constrained")[1] if ax is None else ax


def _trajectory(result: Any) -> Trajectory:
    found = result.trajectory if isinstance(result, TrainResult) else result
    if not isinstance(found, Trajectory):
        raise InputError(f"a trajectory, or a result with one, is needed; this is {type(found).__name__}")
    return found


def run(result: Flow, ax: Axes | None = None, *, gradient: bool = True) -> list[Any]:
    """Loss and largest gradient component along a flow, over t + 1, both axes logarithmic.

    Parameters
    ----------
    result : TrainResult or Trajectory
        A result of ``train`` shows where its minimum lies below the flow's end.
    ax : matplotlib Axes, optional
    gradient : bool
        Whether to draw the gradient norm too.

    Returns
    -------
    list of matplotlib artists
    """
    path, ax = _trajectory(result), _axes(ax)
    shown = path.t < CLOCK
    time, loss, gnorm = path.t[shown] + 1, path.loss[shown], path.gnorm[shown]
    drawn: list[Any] = ax.plot(time, np.where(loss > 0, loss, np.nan), label="loss L")
    if gradient:
        gnorm = np.where(gnorm > 0, gnorm, np.nan)
        drawn += ax.plot(time, gnorm, "--", label="largest gradient component ‖∇L‖∞")
    if isinstance(result, TrainResult) and result.optim_stopped_by is not None and result.loss > 0:
        drawn.append(ax.axhline(result.loss, color="C2", linestyle=":", label="loss after minimize"))
    ax.set(xscale="log", yscale="log", xlabel="time t + 1")
    ax.legend()
    return drawn


def trajectories(
    results: Flow | Sequence[Flow],
    i: int = 0,
    j: int = 1,
    ax: Axes | None = None,
    *,
    labels: tuple[str, str] | None = None,
) -> list[Any]:
    """Parameters ``i`` and ``j`` along one or several flows: a circle where each begins, a square where it ends."""
    ax = _axes(ax)
    drawn: list[Any] = []
    for result in results if isinstance(results, (list, tuple)) else [results]:
        x = _trajectory(result).x
        if not (0 <= i < x.shape[1] and 0 <= j < x.shape[1]):
            raise InputError(f"parameters {i} and {j} are asked for; there are {x.shape[1]}, counted from 0")
        (line,) = ax.plot(x[:, i], x[:, j])
        drawn += [line, *ax.plot(x[0, i], x[0, j], "o", color=line.get_color(), markerfacecolor="white")]
        drawn += ax.plot(x[-1, i], x[-1, j], "s", color=line.get_color())
    first, second = labels or (f"parameter {i}", f"parameter {j}")
    ax.set(xlabel=first, ylabel=second)
    return drawn


def neurons(
    student: Params | TrainResult, teacher: TeacherNet | Params | None = None, ax: Axes | None = None, *, layer: int = 0
) -> list[Any]:
    """Incoming weights of a layer's units, the first two inputs of each: rays for the student, crosses for the teacher.

    A mark's area is proportional to the size of the unit's outgoing weights, its colour shows their sign.
    """
    ax = _axes(ax)
    drawn: list[Any] = []
    targets = teacher.params if isinstance(teacher, TeacherNet) else teacher
    for given, name in ((targets, "teacher"), (student, "student")):
        if given is None:
            continue
        params = params_of(name, given)
        W = params.weights[layer]
        if W.shape[1] < 2:
            raise InputError(f"layer {layer} has {W.shape[1]} input; two are needed for a plane")
        out = params.weights[layer + 1].sum(0) if layer + 1 < len(params.weights) else np.ones(len(W))
        colour = np.where(out >= 0, "C0", "C3")
        area = 30 + 120 * np.abs(out) / max(np.abs(out).max(), 1e-300)
        if name == "student":
            rays = [[(0.0, 0.0), (w[0], w[1])] for w in W]
            drawn.append(ax.add_collection(LineCollection(rays, colors=list(colour), linewidths=1, alpha=0.6)))
            drawn.append(ax.scatter(W[:, 0], W[:, 1], area, list(colour), label=name, zorder=3))
        else:
            drawn.append(ax.scatter(W[:, 0], W[:, 1], area, "black", marker="x", linewidths=2, label=name, zorder=4))
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.set(xlabel="weight of input 0", ylabel="weight of input 1")
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend()
    return drawn


def network(params: Params | TrainResult, ax: Axes | None = None, *, labels: Sequence[str] | None = None) -> list[Any]:
    """The network as a graph: a column of units for each layer, the inputs first, and a line for each weight.

    A line's width is proportional to the size of its weight, relative to the largest of its layer; its colour shows the
    sign, as does the colour of a unit that of its bias.

    Parameters
    ----------
    params : Params or TrainResult
    ax : matplotlib Axes, optional
    labels : sequence of str, optional
        Names of the inputs, in place of their numbers.

    Returns
    -------
    list of matplotlib artists
        The lines of each layer, then the units of each layer.
    """
    params = params_of("params", params)
    widths = [params.layers[0][0], *(width for _, width, _ in params.layers)]
    if labels is not None and len(labels) != widths[0]:
        raise InputError(f"{len(labels)} labels are given for {widths[0]} inputs")
    ax = _axes(ax)
    places = [np.column_stack([np.full(w, column), (w - 1) / 2 - np.arange(w)]) for column, w in enumerate(widths)]
    drawn: list[Any] = []
    for column, W in enumerate(params.weights):
        lines = [[places[column][i], places[column + 1][j]] for j, i in np.ndindex(W.shape)]
        colours = ["C0" if w >= 0 else "C3" for w in W.ravel()]
        size = 4 * np.abs(W.ravel()) / max(np.abs(W).max(), 1e-300)
        drawn.append(ax.add_collection(LineCollection(lines, colors=colours, linewidths=list(size), zorder=1)))
    for column, place in enumerate(places):
        bias = None if column == 0 else params.biases[column - 1]
        fill = ["white"] * len(place) if bias is None else ["C0" if b >= 0 else "C3" for b in bias]
        drawn.append(ax.scatter(place[:, 0], place[:, 1], 160, fill, edgecolors="black", zorder=2))
    for number, (x, y) in enumerate(places[0]):
        text = f"input {number}" if labels is None else labels[number]
        ax.annotate(text, (x, y), (-12, 0), textcoords="offset points", ha="right", va="center")
    ax.set_axis_off()
    ax.margins(0.2, 0.1)
    return drawn


def neurons_along(along: NeuronsAlong, ax: Axes | None = None, *, outgoing: bool = False) -> list[Any]:
    """Norms of the units along a trajectory, from ``pymlpgf.neurons_along``, over t + 1; both axes are logarithmic."""
    if not isinstance(along, NeuronsAlong):
        raise InputError(f"along is {type(along).__name__}; what pymlpgf.neurons_along returns is needed")
    ax = _axes(ax)
    norms = along.outgoing if outgoing else along.incoming
    shown = along.t < CLOCK
    drawn: list[Any] = []
    for unit, values in enumerate(norms[shown].T):
        drawn += ax.plot(along.t[shown] + 1, np.where(values > 0, values, np.nan), label=f"unit {unit}")
    ax.set(xscale="log", yscale="log", xlabel="time t + 1")
    ax.set_ylabel(f"norm of {'outgoing' if outgoing else 'incoming'} weights")
    ax.legend()
    return drawn


def catalogue(found: Catalogue, ax: Axes | None = None) -> list[Any]:
    """How often each point of a catalogue was reached, with its interval, against its loss; a colour for each kind.

    Points far above the lowest one are told apart better after ``ax.set_xscale("log")``.
    """
    ax = _axes(ax)
    frequency = found.count / found.n_runs
    drawn: list[Any] = []
    for number, kind in enumerate(KINDS):
        own = np.flatnonzero([other == kind for other in found.kind])
        if not len(own):
            continue
        # exact intervals hold the frequency up to rounding
        below, above = np.maximum(frequency - found.low, 0)[own], np.maximum(found.high - frequency, 0)[own]
        label = f"{kind} ({len(own)})"
        drawn.append(
            ax.errorbar(found.loss[own], frequency[own], [below, above], fmt="osD^v"[number], color=f"C{number}",
                        capsize=2, alpha=0.8, label=label)
        )  # fmt: skip
    ax.set(xlabel="loss", ylabel=f"frequency in {found.n_runs} runs", ylim=(0, 1))
    ax.legend()
    return drawn


def spectrum(eigenvalues: ArrayLike, ax: Axes | None = None) -> list[Any]:
    """Eigenvalues of a Hessian in descending order of size; negative ones in red.

    ``eigenvalues`` is an array, or the pair that ``Net.hessian_spectrum`` returns.
    """
    values = np.asarray(eigenvalues[0] if isinstance(eigenvalues, tuple) else eigenvalues, float)
    if values.ndim != 1 or not len(values):
        raise InputError(f"eigenvalues have shape {values.shape}; a vector is needed")
    ax = _axes(ax)
    values = values[np.argsort(-np.abs(values))]
    rank = np.arange(1, len(values) + 1)
    drawn: list[Any] = []
    for sign, name, colour in ((1, "positive", "C0"), (-1, "negative", "C3")):
        chosen = sign * values > 0
        if chosen.any():
            drawn += ax.plot(rank[chosen], np.abs(values[chosen]), ".", color=colour, label=f"{name} ({chosen.sum()})")
    ax.set(yscale="log", xlabel="rank", ylabel="size of the eigenvalue of ∇²L")
    ax.legend()
    return drawn


def saddle_line(line: SaddleLine, ax: Axes | None = None) -> list[Any]:
    """Eigenvalues of the Hessian along a line of splits, over γ: red where they are negative.

    Eigenvalues are continued along the line, grey where they are zero to rounding. Dotted lines show where eigenvalues
    change sign, and the index that the criterion predicts is written above each part.
    """
    ax = _axes(ax)
    gamma, values = line.gamma, line.eigenvalues
    noise = 1e-13 * np.abs(values).max()  # those of the directions along which the outputs stay the same
    drawn: list[Any] = []
    for column in values.T:
        if np.abs(column).max() <= noise:
            drawn += ax.plot(gamma, column, color="0.7", linewidth=1)
            continue
        change = np.flatnonzero(column[:-1] * column[1:] < 0)
        zero = gamma[change] - column[change] * (gamma[change + 1] - gamma[change]) / np.diff(column)[change]
        at, column = np.insert(gamma, change + 1, zero), np.insert(column, change + 1, 0.0)
        drawn += ax.plot(at, np.where(column >= 0, column, np.nan), color="C0", linewidth=1)
        drawn += ax.plot(at, np.where(column <= 0, column, np.nan), color="C3", linewidth=1.5)
    drawn += [ax.axvline(end, color="black", linestyle=":", linewidth=1) for end in line.ends]
    sizes = np.abs(values)[np.abs(values) > noise]
    ax.set_yscale("symlog", linthresh=np.quantile(sizes, 0.1) if len(sizes) else 1.0)
    ax.set_ylim(2 * min(values.min(), -10 * noise), 2 * values.max())
    borders = np.array([gamma[0], *line.ends[(line.ends > gamma[0]) & (line.ends < gamma[-1])], gamma[-1]])
    for middle in (borders[:-1] + borders[1:]) / 2:
        label = f"index {line.index(middle)}"
        drawn.append(ax.text(middle, 1.01, label, transform=ax.get_xaxis_transform(), ha="center", va="bottom"))
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.set(xlabel="γ, the first copy's part of the outgoing weights", ylabel="eigenvalues of ∇²L")
    return drawn


def branches(
    found: Followed, ax: Axes | None = None, *, value: int | Callable[[np.ndarray], float] | None = None
) -> list[Any]:
    """Branches of critical points over the parameter: solid for minima, dashed for saddles, a colour for each branch.

    Circles mark folds, squares branch points.

    Parameters
    ----------
    found : Followed
    ax : matplotlib Axes, optional
    value : int or function of a point, optional
        What is drawn: the parameter with that number, or what the function returns for a point (n_params,); default the
        loss.
    """
    ax = _axes(ax)
    if value is None:
        label, of = "loss L", None
    elif callable(value):
        label, of = "", value
    else:
        n_params = found.branches[0].x.shape[1]
        if not 0 <= value < n_params:
            raise InputError(f"value is {value}; there are {n_params} parameters, counted from 0")
        label, of = f"parameter {value}", lambda x: x[value]
    drawn: list[Any] = []
    for number, branch in enumerate(found.branches):
        y = branch.loss if of is None else np.array([of(x) for x in branch.x])
        minima = branch.index == 0
        # A piece of the curve is solid where both of its ends are minima: the change is at a fold or branch point.
        solid = np.append(minima[:-1] & minima[1:], False)
        for pieces, style, width in ((solid, "-", 2.0), (~solid, "--", 1.0)):
            shown = pieces | np.append(False, pieces[:-1])
            if pieces[:-1].any():
                x, height = np.where(shown, branch.parameter, np.nan), np.where(shown, y, np.nan)
                drawn += ax.plot(x, height, style, color=f"C{number % 10}", linewidth=width)
    for kind, points, marker in (("fold", found.folds, "o"), ("branch point", found.branch_points, "s")):
        if points:
            at = [point.parameter for point in points]
            heights = [point.loss if of is None else of(point.x) for point in points]
            drawn += ax.plot(at, heights, marker, color="black", markerfacecolor="white", label=kind, zorder=4)
    ax.set(xlabel="l2" if found.parameter == "l2" else "homotopy parameter μ", ylabel=label)
    if found.points:
        ax.legend()
    return drawn


def plane(
    net: Net,
    subspace: LinearSubspace,
    results: Flow | Sequence[Flow] = (),
    ax: Axes | None = None,
    *,
    resolution: int = 60,
    margin: float = 0.25,
) -> list[Any]:
    """The loss on a plane, and flows projected on it, coloured by their distance from the plane.

    Parameters
    ----------
    net : Net
    subspace : LinearSubspace of two directions
    results : TrainResult, Trajectory or a list of these
    ax : matplotlib Axes, optional
    resolution : int
        Points of the grid in each direction.
    margin : float
        How far the picture reaches beyond the anchors and the flows, as a fraction of their extent.
    """
    from .landscape.subspace import loss_grid

    if len(subspace.directions) != 2:
        raise InputError(f"subspace has {len(subspace.directions)} directions; two are needed for a plane")
    ax = _axes(ax)
    paths = [_trajectory(r) for r in (results if isinstance(results, (list, tuple)) else [results])]
    projected = [np.array([subspace.coordinates(x) for x in path.x]) for path in paths]
    corners = np.concatenate([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], *projected])
    low, high = corners.min(0), corners.max(0)
    low, high = low - margin * (high - low), high + margin * (high - low)
    a, b = (np.linspace(low[d], high[d], resolution) for d in (0, 1))
    losses = loss_grid(net, subspace, a, b).T
    drawn: list[Any] = [ax.contourf(a, b, np.log10(np.maximum(losses, 1e-300)), 20, cmap="Greys", alpha=0.7)]
    ax.figure.colorbar(drawn[0], ax=ax, label="log₁₀ loss")
    lines: list[LineCollection] = []
    farthest = 0.0
    for path, at in zip(paths, projected, strict=True):
        away = np.array([np.linalg.norm(x - subspace.point(c)) for x, c in zip(path.x, at, strict=True)])
        line = LineCollection(list(np.stack([at[:-1], at[1:]], 1)), cmap="viridis", linewidths=2)
        line.set_array((away[:-1] + away[1:]) / 2)
        ax.add_collection(line)
        lines.append(line)
        farthest = max(farthest, away.max())
        drawn += [
            line,
            *ax.plot(*at[0], "o", color="C1", markerfacecolor="white"),
            *ax.plot(*at[-1], "s", color="C1"),
        ]
    if lines:
        for line in lines:
            line.set_clim(0, farthest if farthest > 0 else 1)
        ax.figure.colorbar(lines[0], ax=ax, label="distance from the plane")
    ax.set(xlabel="first direction", ylabel="second direction", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return drawn


def work_precision(points: dict[str, ArrayLike], ax: Axes | None = None) -> list[Any]:
    """Errors against times of several methods.

    Parameters
    ----------
    points : dict of name -> array of shape (M, 2)
        Seconds and error of M runs of each method, for instance with M tolerances.
    ax : matplotlib Axes, optional
    """
    ax = _axes(ax)
    drawn: list[Any] = []
    for number, (name, pairs) in enumerate(points.items()):
        table = np.asarray(pairs, float)
        if table.ndim != 2 or table.shape[1] != 2:
            raise InputError(f"points of {name!r} have shape {table.shape}; (M, 2) is needed: seconds and errors")
        table = table[np.argsort(table[:, 0])]
        drawn += ax.plot(*table.T, marker="osD^v<>ph*"[number % 10], label=name)
    ax.set(xscale="log", yscale="log", xlabel="time in seconds", ylabel="error")
    ax.grid(alpha=0.3)
    ax.legend()
    return drawn


def channel(
    net: Net, found: MinimumAtInfinity, ax: Axes | None = None, *, eps: ArrayLike | None = None, run: Flow | None = None
) -> list[Any]:
    """How far the loss is above that of the limit in a channel, over 1/ε, both axes logarithmic, and Σ h ε².

    Parameters
    ----------
    net : Net
        The net that was minimised.
    found : MinimumAtInfinity
    ax : matplotlib Axes, optional
    eps : array (M,), optional
        Distances from the limit, the same in each channel; by default 1 to 1e-5. The loss is computed in the
        parameters of the limit, without cancellation, where the channels are pairs and tails, else in those of ``net``.
    run : TrainResult or Trajectory, optional
        A flow that is shown at the distance of its first channel.

    Returns
    -------
    list of matplotlib artists
    """
    if not isinstance(found, MinimumAtInfinity) or found.limit is None:
        raise InputError(f"found is {found!r}; a minimum at infinity is needed")
    ax = _axes(ax)
    distances = np.geomspace(1, 1e-5, 61) if eps is None else np.asarray(eps, float)
    if distances.ndim != 1 or not (distances > 0).all():
        raise InputError(f"eps is {eps!r}; a sequence of positive numbers is needed")

    def loss(distance: float) -> float:
        if any(c.kind in ("triple", "tails", "step", "kink", "line") for c in found.channels):
            return net.loss(found.point(distance))
        return found.limit.at_distance(distance).loss(found.q)  # type: ignore[union-attr]

    above = np.array([loss(distance) for distance in distances]) - found.loss
    drawn: list[Any] = ax.plot(1 / distances, np.where(above > 0, above, np.nan), label="loss L − L₀")
    square = sum(h for h, c in zip(found.coefficients, found.channels, strict=True) if c.kind not in SHARP)
    drawn += ax.plot(1 / distances, square * distances**2, ":", label="Σ h ε²")
    if run is not None:
        path, (first, *_) = _trajectory(run), found.channels
        along = np.array([found.limit.to_limit(x)[1][0] for x in path.x])
        higher = path.loss - found.loss
        label = f"flow, by the distance of units {', '.join(map(str, first.units))}"
        drawn += ax.plot(1 / along, np.where(higher > 0, higher, np.nan), ".", label=label)
    ax.set(xscale="log", yscale="log", xlabel="1/ε")
    ax.legend()
    return drawn
