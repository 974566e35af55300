"""Follow the flow, find the minimum: ``flow``, ``minimize`` and ``train``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..facts import FLOW_DEFAULTS, MINIMIZE_DEFAULTS, matrices, tell
from ..network.constraints import ConstrainedNet, constrained, constraint_of, nearest_point, parameters_of
from ..network.net import Net
from ..network.params import ParametersLike
from ..results.read import read_result
from ..results.result import TrainResult
from ..validate.memory import refuse_matrices
from ..validate.suggest import suggest_keywords
from .at_infinity import minimum_at_infinity
from .callbacks import Questions, stepwise
from .checkpointer import Checkpointer
from .discrete import DiscreteMethod
from .options import (
    FLOW_ALGORITHMS,
    OPTIM_SOLVERS,
    called,
    flow_options,
    goals,
    minimize_options,
    number_option,
    time_constants,
)
from .progress import ProgressLine

__all__ = ["flow", "minimize", "train"]

_F, _M = FLOW_DEFAULTS, MINIMIZE_DEFAULTS


@tell
@suggest_keywords
def flow(
    net: Net,
    p: ParametersLike,
    *,
    alg: str | DiscreteMethod = _F["alg"],
    maxT: float = _F["maxT"],
    abstol: float = _F["abstol"],
    reltol: float = _F["reltol"],
    maxtime_ode: float = _F["maxtime_ode"],
    maxiterations_ode: float = _F["maxiterations_ode"],
    min_gnorm: float = _F["min_gnorm"],
    minloss: float = _F["minloss"],
    tauinv: ArrayLike | Mapping[str, ArrayLike] = 1,
    freeze: ArrayLike | None = None,
    tie: Any = None,
    constraint: Any = None,
    dt: float | None = None,
    dense: bool = _F["dense"],
    save_everystep: bool = _F["save_everystep"],
    n_samples_trajectory: int | None = None,
    event: Any = None,
    observables: Any = None,
    batchsize: int | None = None,
    batch_steps: int = _F["batch_steps"],
    shuffle: bool = _F["shuffle"],
    seed: int = 0,
    learning_rate: float | None = None,
    schedule: Any = None,
    callback: Any = None,
    verbosity: int = 1,
    progress_interval: float = 1.0,
    checkpoint: Any = None,
    checkpoint_interval: float = 30,
) -> TrainResult:
    """Integrate the gradient flow dθ/dt = −tauinv ∘ ∇L(θ) from ``p``.

    Parameters
    ----------
    net : Net
    p : array of shape (n_params,), Params or TrainResult
        Initial parameters; not changed. A result is continued from its best point ``x``; time and trajectory start
        again.
    alg : str, or an object such as ``pymlpgf.Adam()``
        A method of integration:

        {flow_methods}

        or a discrete one, with the defaults of its class, whose docstring says what t means:

        {discrete_methods}

        or a rule of your own, a ``pymlpgf.UpdateRule``.

        On the full host also OrdinaryDiffEq's and Sundials' algorithms by name, such as "KenCarp58", "CVODE_BDF" or
        "Vern9". "sciml.Rodas5P" is the method of OrdinaryDiffEq where pymlpgf has one of the same name. A method with
        options of its own is a call in Julia, such as "KenCarp58(linsolve = LinearSolve.KrylovJL_GMRES())".
    maxT : float
        Final time; infinity integrates until another stop.
    abstol, reltol : float
        Tolerances: the root mean square of a step's error relative to ``abstol + reltol·|θ|`` stays below 1.
    maxtime_ode : float
        Seconds.
    maxiterations_ode : float
        Accepted steps.
    min_gnorm : float
        Stop when ‖∇L‖_∞ is at most this.
    minloss : float
        Stop when the loss is at most this, if positive.
    tauinv : float, array of shape (n_params,), Params or dict
        Inverse time constants ≥ 0; zero freezes a parameter. A dict has numbers or arrays by the names of
        ``Params``, ``{"b1": 1e-4, "w2": 0}``; what it does not name has 1.
    freeze, tie, constraint
        Parameters that keep their values in ``p``, that are equal or opposite, or all of θ = B z + c: see
        ``ConstrainedNet``. The run begins at the nearest point to ``p`` that obeys them. It is the flow
        dz/dt = −tauinv ∘ Bᵀ∇L(θ) of the coordinates, ``gnorm`` is ‖Bᵀ∇L‖_∞; results and what functions see are θ.
        Parameters that move together need the same ``tauinv``.
    dt : float, optional
        First step.
    dense : bool
        Keep the solution between the steps: ``res.sol(t)``.
    save_everystep, n_samples_trajectory
        Record every step, or at most this many points, the first step and the last among them: those without which
        straight lines in log t between the others would be off by more than 5 % at a step, in loss, gradient norm or
        parameters, if so many are enough. ``res.trajectory.within`` says by how much they are. By default as many as
        are needed, 100 at least and 10 000 at most, fewer if they have more than 262 144 numbers in all; 100 with
        ``observables``, which are evaluated at each of them.
    event : function of (t, x), optional
        The run ends where the event becomes true, or where the number that it returns is zero or changes its sign; at
        t = 0 if it is true or zero there. It is evaluated after every step and, in a flow, at three points within the
        step; the time is then found on the interpolant. A discrete method ends after the step.
    observables : dict, optional
        What else to record along the trajectory, ``res.trajectory["name"]``: a function of x that returns a number; a
        pair (input, target) whose data loss is meant (evaluated in Julia, by a net made once), or a net whose loss is;
        or ``Eigenvalues``, ``ParameterNorm``, ``Projections``, ``UnitNorms`` or ``UnitCosines``, computed in Julia.
    batchsize : int, optional
        Samples a step of a discrete method; all of them by default. A flow follows the loss of one batch for
        ``batch_steps`` accepted steps, then that of the next; ``maxiterations_ode`` counts batches then. With batches,
        loss and gradient norm of all samples are computed, and points recorded, about once an epoch.
    batch_steps : int
        Steps of a flow on a batch.
    shuffle, seed : bool, int
        The order of the samples is drawn anew each epoch, from this seed; or with ``shuffle=False`` that of the data.
    learning_rate, schedule
        Of a discrete method that is given by name; see ``pymlpgf.Adam``.
    callback : function, optional
        Called after every step with one argument, an ``IntermediateResult`` (x, loss, gnorm, t, phase, iteration).
        It ends the run by raising StopIteration. Another exception ends it too and is raised when the solver has
        returned, what was found until then in its attribute ``result``. Like the other functions here it may ask any
        net for outputs, losses and derivatives, the running one too, but cannot run another solver.
    verbosity : 0, 1 or 2
        No progress line, one on terminals and in notebooks after a second, or always.
    progress_interval : float
        Seconds between updates of the progress line.
    checkpoint : path, optional
        An .npz file that holds the state of the run while it lasts, with the net and its data, for ``pymlpgf.resume``,
        and its result afterwards; ``pymlpgf.load`` reads both. The functions given here, and what a discrete method
        remembers, are not in it.
    checkpoint_interval : float
        Seconds between checkpoints.

    Returns
    -------
    TrainResult
        Ctrl-C returns the point reached, with ``ode_stopped_by == "interrupted"``.

    Raises
    ------
    InputError
        Before any work, for arguments that cannot be used.

    Examples
    --------
    >>> import numpy as np, pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", False)], input=[[1.0]], target=[0.0])      # L = θ²
    >>> res = mg.flow(net, [1.0], maxT=1, abstol=1e-10, reltol=1e-10)
    >>> bool(abs(res.x[0] - np.exp(-2)) < 1e-8), res.ode_stopped_by
    (True, 'maxT')
    """
    options, schedule = flow_options(**locals())
    options.update(goals(min_gnorm, minloss))
    return _solve(
        "flow", net, p, options, tauinv, verbosity, progress_interval, checkpoint, checkpoint_interval, callback,
        (freeze, tie, constraint), event=event, schedule=schedule, observables=observables,
    )  # fmt: skip


@tell
@suggest_keywords
def minimize(
    net: Net,
    p: ParametersLike,
    *,
    optim_solver: str = _M["optim_solver"],
    optim_options: Mapping[str, Any] | None = None,
    maxtime_optim: float = _M["maxtime_optim"],
    maxiterations_optim: float = _M["maxiterations_optim"],
    min_gnorm: float = _F["min_gnorm"],
    minloss: float = _F["minloss"],
    patience: float = _M["patience"],
    freeze: ArrayLike | None = None,
    tie: Any = None,
    constraint: Any = None,
    at_infinity: bool = False,
    callback: Any = None,
    verbosity: int = 1,
    progress_interval: float = 1.0,
    checkpoint: Any = None,
    checkpoint_interval: float = 30,
) -> Any:
    """Find the nearest minimum of the loss, down to round-off.

    Parameters
    ----------
    net : Net
    p : array of shape (n_params,), Params or TrainResult
        Where to start; not changed.
    optim_solver : str

        {minimizers}

        On the full host also Optim.jl's and NLopt's, such as "ConjugateGradient", "optim.Newton" or "nlopt.SLSQP". A
        method with options of its own is a call in Julia: "optim.LBFGS(m = 20)".
    optim_options : dict, optional
        Options of Optim.jl (of its ``Optim.Options``) or of NLopt by name, for a method of theirs: numbers, bools
        and texts. Where they end the run, ``optim_stopped_by`` is "patience".
    maxtime_optim : float
        Seconds.
    maxiterations_optim : float
    min_gnorm : float
        Stop when ‖∇L‖_∞ is at most this.
    minloss : float
        Stop when the loss is at most this, if positive.
    patience : float
        Stop after so many iterations without progress.
    freeze, tie, constraint
        As for ``flow``.
    at_infinity : bool
        Where units draw together while their outgoing weights diverge, go on in the limit (``Net.limit``) and land on
        its minimum, where a constraint leaves the way open (``ConstrainedNet.limit``). No callback or checkpoint is
        possible.
    callback, verbosity, progress_interval, checkpoint, checkpoint_interval
        As for ``flow``.

    Returns
    -------
    TrainResult
        Ctrl-C returns the best point, with ``optim_stopped_by == "interrupted"``.
    MinimumAtInfinity
        With ``at_infinity=True``: a finite minimum or one at infinity; its ``kind`` says which.

    Raises
    ------
    InputError
        Before any work, for arguments that cannot be used.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", True)], input=[[0.0], [1.0]], target=[1.0, 3.0])
    >>> mg.minimize(net, [0.0, 0.0]).x.round(12)
    array([2., 1.])
    """
    options = minimize_options(optim_solver, maxtime_optim, maxiterations_optim, patience, optim_options)
    options.update(goals(min_gnorm, minloss))
    if at_infinity:
        others = {"callback": callback, "checkpoint": checkpoint}
        if given := [name for name, value in others.items() if value is not None]:
            raise InputError(f"{given[0]} is given with at_infinity, which has none")
        x, interval = _start(net, p, verbosity, progress_interval)
        free, rule = constraint_of(net, freeze, tie, constraint)
        if rule is not None:
            net = net if isinstance(net, ConstrainedNet) else constrained(free, rule, x)
            x = net.coordinates(x)
        return minimum_at_infinity(net, x, options, verbosity, interval)
    return _solve(
        "minimize", net, p, options, 1, verbosity, progress_interval, checkpoint, checkpoint_interval, callback,
        (freeze, tie, constraint),
    )  # fmt: skip


@suggest_keywords
def train(
    net: Net,
    p: ParametersLike,
    *,
    alg: str | DiscreteMethod = _F["alg"],
    maxT: float = _F["maxT"],
    abstol: float = _F["abstol"],
    reltol: float = _F["reltol"],
    maxtime_ode: float = _F["maxtime_ode"],
    maxiterations_ode: float = _F["maxiterations_ode"],
    tauinv: ArrayLike | Mapping[str, ArrayLike] = 1,
    freeze: ArrayLike | None = None,
    tie: Any = None,
    constraint: Any = None,
    dt: float | None = None,
    dense: bool = _F["dense"],
    save_everystep: bool = _F["save_everystep"],
    n_samples_trajectory: int | None = None,
    event: Any = None,
    observables: Any = None,
    batchsize: int | None = None,
    batch_steps: int = _F["batch_steps"],
    shuffle: bool = _F["shuffle"],
    seed: int = 0,
    learning_rate: float | None = None,
    schedule: Any = None,
    optim_solver: str = _M["optim_solver"],
    optim_options: Mapping[str, Any] | None = None,
    maxtime_optim: float = _M["maxtime_optim"],
    maxiterations_optim: float = _M["maxiterations_optim"],
    patience: float = _M["patience"],
    min_gnorm: float = _F["min_gnorm"],
    minloss: float = _F["minloss"],
    callback: Any = None,
    verbosity: int = 1,
    progress_interval: float = 1.0,
    checkpoint: Any = None,
    checkpoint_interval: float = 30,
) -> TrainResult:
    """Call ``flow``, then ``minimize`` from the point where the flow ended, with the keywords of both.

    A flow that was interrupted, diverged or ended by the callback is not followed by a minimisation. The result holds
    the best point of both, with which the trajectory ends, a unit of time after the flow.

    Examples
    --------
    >>> import numpy as np, pymlpgf as mg
    >>> x = np.linspace(-2, 2, 50).reshape(-1, 1)
    >>> net = mg.Net(layers=[(3, "tanh", True), (1, "identity", True)], input=x, target=np.tanh(2 * x))
    >>> res = mg.train(net, net.random_params(seed=1), maxtime_ode=1, maxtime_optim=1)
    >>> res.loss < 1e-8
    True
    """
    options, schedule = flow_options(**locals())
    options.update(minimize_options(optim_solver, maxtime_optim, maxiterations_optim, patience, optim_options))
    options.update(goals(min_gnorm, minloss))
    return _solve(
        "train", net, p, options, tauinv, verbosity, progress_interval, checkpoint, checkpoint_interval, callback,
        (freeze, tie, constraint), event=event, schedule=schedule, observables=observables,
    )  # fmt: skip


def _solve(
    what: str,
    net: Net,
    p: Any,
    options: dict[str, Any],
    tauinv: Any | Mapping[str, ArrayLike],
    verbosity: int,
    progress_interval: float,
    checkpoint: Any = None,
    checkpoint_interval: float = 30,
    callback: Any = None,
    constraint: tuple[Any, Any, Any] = (None, None, None),
    **functions: Any,
) -> TrainResult:
    x, interval = _start(net, p, verbosity, progress_interval)
    net, rule = constraint_of(net, *constraint)
    if rule is not None:
        options["constraint"] = rule
    if "constraint" in options:
        x = nearest_point(net, options["constraint"], x)
    constants = time_constants(tauinv, net)
    rates = None if isinstance(constants, float) else constants
    if rates is None:
        options["tauinv"] = constants
    builtin = {"alg": FLOW_ALGORITHMS, "optim_solver": OPTIM_SOLVERS}
    for kind in ("alg", "optim_solver"):
        if count := matrices(called(str(options.get(kind)))):
            size = (net.n_params, net.n_params)
            without = [f'"{name}"' for name in builtin[kind] if not matrices(name)]
            refuse_matrices(f'{kind} = "{options[kind]}"', size, net.dtype, f"{', '.join(without)} need none", count)
    step = stepwise(callback, net)
    questions = Questions(net, x, constraint=options.get("constraint"), **functions)
    bridge = net._core.bridge
    writer = None
    if checkpoint is not None:
        functions["callback"] = callback
        writer = Checkpointer.of(checkpoint, checkpoint_interval, net, what, x, options, rates, functions)
    with ProgressLine(verbosity, interval) as line:
        report = line.update if writer is None else writer.after(line)

        def run(asked: dict[str, object]) -> TrainResult:
            return bridge.solve(
                net._core.handle, x.ctypes.data, what, {**options, **asked}, rates, report,
                lambda handle: read_result(bridge, handle, what, x.copy(), net, questions.names),
                step, questions or None,
            )  # fmt: skip

        result = questions.with_recordings(run)
    if "constraint" in options:
        result = replace(result, constraint=options["constraint"])
    if "batchsize" in options:
        result = replace(result, batchsize=options["batchsize"], batch_seed=options["seed"])
    return result if writer is None else writer.finish(result)


def _start(net: Any, p: Any, verbosity: Any, progress_interval: Any) -> tuple[np.ndarray, float]:
    """The point to start from, and the interval of the progress line."""
    if not isinstance(net, Net):
        raise InputError(f"net is {type(net).__name__}; a pymlpgf.Net is needed")
    x = parameters_of(net, p)
    if not np.isfinite(x).all():
        raise InputError("p contains NaN or infinite entries")
    interval = number_option("progress_interval", progress_interval, positive=True)
    if not isinstance(verbosity, int) or verbosity not in (0, 1, 2):
        raise InputError(f"verbosity is {verbosity!r}; 0, 1 or 2 is needed")
    return x, interval
