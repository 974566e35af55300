"""Follow the flow, find the minimum: ``flow``, ``minimize`` and ``train``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .data import numeric, real_number
from .errors import InputError
from .net import Net
from .progress import ProgressLine
from .result import TrainResult, read_result
from .suggest import nearest, suggest_keywords

__all__ = ["FLOW_ALGORITHMS", "OPTIM_SOLVERS", "flow", "minimize", "train"]

FLOW_ALGORITHMS = ("auto", "Tsit5", "RK4", "Rodas5P", "TRBDF2", "QNDF", "Exprb53s3")
OPTIM_SOLVERS = ("NewtonTrustRegion", "BFGS")


@suggest_keywords
def flow(
    net: Net,
    p: Any,
    *,
    alg: str = "auto",
    maxT: float = math.inf,
    abstol: float = 1e-6,
    reltol: float = 1e-6,
    maxtime_ode: float = 180,
    maxiterations_ode: float = math.inf,
    min_gnorm: float = 0,
    minloss: float = 0,
    tauinv: Any = 1,
    dt: float | None = None,
    dense: bool = False,
    save_everystep: bool = False,
    n_samples_trajectory: int = 100,
    verbosity: int = 1,
    progress_interval: float = 1.0,
) -> TrainResult:
    """Integrate the gradient flow dθ/dt = −tauinv ∘ ∇L(θ) from ``p``.

    Parameters
    ----------
    net : Net
    p : array of shape (n_params,) or Params
        Initial parameters; not changed.
    alg : "auto", "Tsit5", "RK4", "Rodas5P", "TRBDF2", "QNDF" or "Exprb53s3"
        Explicit: Tsit5 (Tsitouras 2011) and RK4. Stiff, with the exact Hessian: Rodas5P (Steinebach 2023), TRBDF2, QNDF
        (variable order 1 to 5, few Hessians) and Exprb53s3 (exponential, Luan and Ostermann 2014); TRBDF2 and QNDF
        use Hessian-vector products for large nets. "auto": Tsit5 until stiffness shows, then the stiff method that
        suits P and N.
    maxT : float
        Final time; infinity integrates until another stop.
    abstol, reltol : float
        Tolerances: the root mean square of a step's error relative to abstol + reltol·|θ| stays below 1.
    maxtime_ode : float
        Seconds.
    maxiterations_ode : float
        Accepted steps.
    min_gnorm : float
        Stop when ‖∇L‖_∞ is at most this.
    minloss : float
        Stop when the loss is at most this, if positive.
    tauinv : float or array of shape (n_params,)
        Inverse time constants ≥ 0; zero freezes a parameter.
    dt : float, optional
        First step.
    dense : bool
        Keep the solution between the steps: ``res.sol(t)``.
    save_everystep, n_samples_trajectory
        Record every step, or at most so many points, evenly spaced in log(t + 1).
    verbosity : 0, 1 or 2
        No progress line, one on terminals after a second, or always.
    progress_interval : float
        Seconds between updates of the progress line.

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
    options = _flow_options(
        alg, maxT, abstol, reltol, maxtime_ode, maxiterations_ode, dt, dense, save_everystep, n_samples_trajectory
    )
    options.update(_goals(min_gnorm, minloss))
    return _solve("flow", net, p, options, tauinv, verbosity, progress_interval)


@suggest_keywords
def minimize(
    net: Net,
    p: Any,
    *,
    optim_solver: str = "NewtonTrustRegion",
    maxtime_optim: float = 120,
    maxiterations_optim: float = math.inf,
    min_gnorm: float = 0,
    minloss: float = 0,
    patience: float = 10_000,
    verbosity: int = 1,
    progress_interval: float = 1.0,
) -> TrainResult:
    """Find the nearest minimum of the loss, down to round-off.

    Parameters
    ----------
    net : Net
    p : array of shape (n_params,) or Params
        Where to start; not changed.
    optim_solver : "NewtonTrustRegion" or "BFGS"
    maxtime_optim : float
        Seconds.
    maxiterations_optim : float
    min_gnorm : float
        Stop when ‖∇L‖_∞ is at most this.
    minloss : float
        Stop when the loss is at most this, if positive.
    patience : float
        Stop after so many iterations without progress.
    verbosity, progress_interval
        As for ``flow``.

    Returns
    -------
    TrainResult
        Ctrl-C returns the best point, with ``optim_stopped_by == "interrupted"``.

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
    options = _minimize_options(optim_solver, maxtime_optim, maxiterations_optim, patience)
    options.update(_goals(min_gnorm, minloss))
    return _solve("minimize", net, p, options, 1, verbosity, progress_interval)


@suggest_keywords
def train(
    net: Net,
    p: Any,
    *,
    alg: str = "auto",
    maxT: float = math.inf,
    abstol: float = 1e-6,
    reltol: float = 1e-6,
    maxtime_ode: float = 180,
    maxiterations_ode: float = math.inf,
    tauinv: Any = 1,
    dt: float | None = None,
    dense: bool = False,
    save_everystep: bool = False,
    n_samples_trajectory: int = 100,
    optim_solver: str = "NewtonTrustRegion",
    maxtime_optim: float = 120,
    maxiterations_optim: float = math.inf,
    patience: float = 10_000,
    min_gnorm: float = 0,
    minloss: float = 0,
    verbosity: int = 1,
    progress_interval: float = 1.0,
) -> TrainResult:
    """``flow``, then ``minimize`` from where it ended; the keywords are theirs.

    Examples
    --------
    >>> import numpy as np, pymlpgf as mg
    >>> x = np.linspace(-2, 2, 50).reshape(-1, 1)
    >>> net = mg.Net(layers=[(3, "tanh", True), (1, "identity", True)], input=x, target=np.tanh(2 * x))
    >>> res = mg.train(net, net.random_params(seed=1), maxtime_ode=1, maxtime_optim=1)
    >>> res.loss < 1e-8
    True
    """
    options = _flow_options(
        alg, maxT, abstol, reltol, maxtime_ode, maxiterations_ode, dt, dense, save_everystep, n_samples_trajectory
    )
    options.update(_minimize_options(optim_solver, maxtime_optim, maxiterations_optim, patience))
    options.update(_goals(min_gnorm, minloss))
    return _solve("train", net, p, options, tauinv, verbosity, progress_interval)


def _solve(
    what: str,
    net: Net,
    p: Any,
    options: dict[str, object],
    tauinv: Any,
    verbosity: int,
    progress_interval: float,
) -> TrainResult:
    if not isinstance(net, Net):
        raise InputError(f"net is {type(net).__name__}; a pymlpgf.Net is needed")
    if isinstance(p, TrainResult):
        p = p.x
    x = net._flat(p)
    if not np.isfinite(x).all():
        raise InputError("p contains NaN or infinite entries")
    constants = _tauinv(tauinv, net.n_params)
    rates = None if isinstance(constants, float) else constants
    if rates is None:
        options["tauinv"] = constants
    interval = _number("progress_interval", progress_interval, positive=True)
    if not isinstance(verbosity, int) or verbosity not in (0, 1, 2):
        raise InputError(f"verbosity is {verbosity!r}; 0, 1 or 2 is needed")
    bridge = net._bridge
    with ProgressLine(verbosity, interval) as line:
        return bridge.solve(
            net._handle, x.ctypes.data, what, options, rates, line.update,
            lambda handle: read_result(bridge, handle, what, x.copy(), net),
        )  # fmt: skip


def _flow_options(
    alg: str,
    maxT: float,
    abstol: float,
    reltol: float,
    maxtime: float,
    maxiterations: float,
    dt: float | None,
    dense: bool,
    save_everystep: bool,
    samples: int,
) -> dict[str, object]:
    options: dict[str, object] = {
        "alg": _name("alg", alg, FLOW_ALGORITHMS),
        "maxT": _number("maxT", maxT),
        "abstol": _number("abstol", abstol, finite=True),
        "reltol": _number("reltol", reltol, finite=True),
        "maxtime_ode": _number("maxtime_ode", maxtime),
        "maxiterations_ode": _number("maxiterations_ode", maxiterations),
        "dense": bool(dense),
        "save_everystep": bool(save_everystep),
        "n_samples_trajectory": _number("n_samples_trajectory", samples, finite=True),
    }
    if dt is not None:
        options["dt"] = _number("dt", dt, finite=True, positive=True)
    return options


def _minimize_options(solver: str, maxtime: float, maxiterations: float, patience: float) -> dict[str, object]:
    return {
        "optim_solver": _name("optim_solver", solver, OPTIM_SOLVERS),
        "maxtime_optim": _number("maxtime_optim", maxtime),
        "maxiterations_optim": _number("maxiterations_optim", maxiterations),
        "patience": _number("patience", patience, positive=True),
    }


def _goals(min_gnorm: float, minloss: float) -> dict[str, object]:
    return {
        "min_gnorm": _number("min_gnorm", min_gnorm, finite=True),
        "minloss": _number("minloss", minloss, finite=True),
    }


def _name(argument: str, value: object, known: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in known:
        raise InputError(f"unknown {argument} {value!r}{nearest(str(value), known)}")
    return str(value)


def _number(argument: str, value: Any, *, finite: bool = False, positive: bool = False) -> float:
    number = real_number(value)
    if not number >= 0 or (positive and number == 0) or (finite and math.isinf(number)):
        kind = "a positive" if positive else "a non-negative"
        raise InputError(f"{argument} is {value!r}; {kind}{' finite' if finite else ''} number is needed")
    return number


def _tauinv(value: Any, size: int) -> float | np.ndarray:
    array = numeric("tauinv", value)
    if array.shape not in ((), (size,)):
        raise InputError(f"tauinv has shape {array.shape}; a number or shape ({size},) is needed")
    array = np.ascontiguousarray(array, np.float64).reshape(array.shape)
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise InputError("tauinv must be finite and not negative")
    return array if array.ndim else float(array)
