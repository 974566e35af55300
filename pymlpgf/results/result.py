"""What a run found, in NumPy and Python types only: readable and loadable without Julia."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..files import npz_path, write_atomically
from ..network.activations import Activation, activation_to_json
from ..network.net import Net
from ..network.params import Params
from ..validate.suggest import nearest
from .problem import rebuild, without_data
from .stops import Stop

__all__ = ["DenseSolution", "TrainResult", "Trajectory", "params_of"]

SCHEMA = 1
CONVERGED = ("min_gnorm", "minloss", "roundoff")
#: every reason to stop, in the order of ``TrainResult.status``
REASONS = tuple(reason.value for reason in Stop)


@dataclass(frozen=True)
class Trajectory:
    """Recorded points of a flow: times ``t`` (M,), parameters ``x`` (M, P), ``loss`` (M,), ``gnorm`` = ‖∇L‖_∞ (M,).

    ``trajectory["name"]`` (M,) is the observable of that name: the row of ``observables`` (K, M) with this entry of
    ``names`` (K,). An observable with k values has the names "name[0]" to "name[k−1]", and its shape is (M, k).

    ``within`` (M, 2) says how much is lost by what was not kept: at steps between the points m − 1 and m, log ``loss``
    lies within ``within[m, 0]``, and log ``gnorm`` within ``within[m, 1]``, of the line between both points over log t.
    It is 0.05 at most where so many points are enough, 0 where every step is kept, NaN where a run was continued, since
    its time began anew.
    """

    t: np.ndarray
    x: np.ndarray
    loss: np.ndarray
    gnorm: np.ndarray
    names: np.ndarray = field(default_factory=lambda: np.zeros(0, "U1"))
    observables: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    within: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))

    def __getitem__(self, name: str) -> np.ndarray:
        names = self.names.tolist()
        several = [row for row, other in enumerate(names) if other.startswith(f"{name}[")]
        if several and name not in names:
            return self.observables[several].T.copy()
        if name not in names:
            raise InputError(f"no observable {name!r} was recorded{nearest(str(name), names)}")
        return self.observables[names.index(name)]

    def __len__(self) -> int:
        return len(self.t)

    def to_frame(self) -> Any:
        """A pandas DataFrame over ``t``: loss, gradient norm and observables, then the parameters by number."""
        import pandas as pd

        columns = {"loss": self.loss, "gnorm": self.gnorm, **{str(name): self[name] for name in self.names}}
        columns.update({f"x{i}": self.x[:, i] for i in range(self.x.shape[1])})
        return pd.DataFrame(columns, index=pd.Index(self.t, name="t"))

    def __repr__(self) -> str:
        return f"Trajectory({len(self)} points, t = {self.t[0]:.4g} … {self.t[-1]:.4g})"


@dataclass(frozen=True)
class DenseSolution:
    """The flow as a polynomial for each step. ``sol(t)`` is θ(t), of shape (P,), or ``t.shape + (P,)`` for an array.

    On the step from ``t[k]`` to ``t[k + 1]``, θ is Σ_m ``coefficients[k, m]`` s^m with s running from 0 to 1.
    """

    t: np.ndarray
    coefficients: np.ndarray

    def __call__(self, t: ArrayLike) -> np.ndarray:
        times = np.asarray(t, float)
        if not ((times >= self.t[0]) & (times <= self.t[-1])).all():
            raise InputError(f"t must lie in [{self.t[0]:.6g}, {self.t[-1]:.6g}], the times that the flow covers")
        k = np.clip(np.searchsorted(self.t, times, side="right") - 1, 0, len(self.t) - 2)
        length = self.t[k + 1] - self.t[k]
        s = ((times - self.t[k]) / np.where(length > 0, length, 1.0))[..., None]  # a flow without a step has length 0
        value = self.coefficients[k, -1]
        for m in range(self.coefficients.shape[1] - 2, -1, -1):
            value = self.coefficients[k, m] + s * value
        return value

    def __repr__(self) -> str:
        return f"DenseSolution({np.count_nonzero(np.diff(self.t))} steps, t = {self.t[0]:.4g} … {self.t[-1]:.4g})"


@dataclass(frozen=True, repr=False)
class TrainResult:
    """The result of ``train``, ``flow`` or ``minimize``; fields of a phase that did not run are None.

    Attributes
    ----------
    x : array (n_params,)
        The best point.
    loss, gnorm : float
        Loss and ‖∇L‖_∞ there.
    data_loss, data_gnorm : float
        The same without the regularisers.
    init : array (n_params,)
        Where the run began.
    ode_x, ode_loss, ode_t, ode_iterations, ode_time_run, ode_stopped_by, alg
        The flow: its last point, loss and time, accepted steps, seconds, reason to stop, algorithm that ran.
    optim_iterations, optim_time_run, optim_stopped_by, optim_solver
        The minimisation.
    total_time : float
        Seconds in the solvers.
    compile_time : float
        Seconds that compiling the solvers took before, which no time limit counts; 0 from the second run on.
    batchsize, batch_seed : int or None
        Size and seed of the batches of a discrete method.
    memory : array or None
        Of a discrete method, or a flow on batches, that a limit ended: what it needs to go on as if it had not ended.
    optim_memory : array or None
        The same of a minimisation by one of pymlpgf's own methods, if it is no more than 200 000 numbers, and the run
        was not ended by ``maxtime_optim`` within its first eighty iterations.
    nfev, njev, nhev, nhvp : int
        Evaluations of loss or loss and gradient, of gradients, of Hessians or Gauss–Newton matrices, and of
        Hessian-vector products.
    converged, success : bool
        ``converged``: the run ended at a fixed point, to the accuracy of ``min_gnorm`` or of the number type, or at
        ``minloss``. ``success``: it converged, or reached ``maxT`` or an event.
    status : int
        The place of the reason to stop in ``pymlpgf.Stop``.
    message : str
        One sentence: why the run stopped and what can be done next.
    trajectory : Trajectory or None
    sol : DenseSolution or None
        With ``dense=True``.
    provider : str
        Whose solvers ran: "builtin", "sciml", "optim" or "nlopt"; if those of flow and minimisation differ, both with a
        plus between them.
    layers : list of (width, activation, bias)
    output_factor : float
        What the network's outputs are multiplied by.
    seed : int or None
        In a sweep, the seed of the initial parameters.
    settings : dict
        The settings of this run in its sweep, such as {"width": 4, "seed": 0}.
    versions : dict
    constraint : dict or None
        What ``x`` obeys: to be given as ``constraint=`` where the run is gone on with or its point looked at.
    problem : dict
        The net's settings and data, from which ``net()`` makes it again.
    """

    x: np.ndarray
    loss: float
    gnorm: float
    data_loss: float
    data_gnorm: float
    init: np.ndarray
    total_time: float
    nfev: int
    njev: int
    nhev: int
    nhvp: int
    status: int
    message: str
    layers: list[tuple[int, Activation, bool]]
    versions: dict[str, str]
    provider: str = "builtin"
    ode_x: np.ndarray | None = None
    ode_loss: float | None = None
    ode_t: float | None = None
    ode_iterations: int | None = None
    ode_time_run: float | None = None
    ode_stopped_by: str | None = None
    alg: str | None = None
    optim_iterations: int | None = None
    optim_time_run: float | None = None
    optim_stopped_by: str | None = None
    optim_solver: str | None = None
    trajectory: Trajectory | None = None
    sol: DenseSolution | None = None
    seed: int | None = None
    compile_time: float = 0.0
    batchsize: int | None = None
    batch_seed: int | None = None
    memory: np.ndarray | None = None
    optim_memory: np.ndarray | None = None
    output_factor: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)
    constraint: dict[str, Any] | None = None
    problem: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def converged(self) -> bool:
        """Whether the run ended at a fixed point or at ``minloss``."""
        return REASONS[self.status] in CONVERGED

    @property
    def success(self) -> bool:
        """``converged``, or the flow reached ``maxT`` or an event."""
        return self.converged or REASONS[self.status] in ("maxT", "event")

    def __repr__(self) -> str:
        parts = [f"loss={self.loss:.6g}", f"gnorm={self.gnorm:.2g}"]
        if self.ode_stopped_by:
            parts.append(f"flow: {self.ode_stopped_by} after {self.ode_iterations} steps of {self.alg}")
        if self.optim_stopped_by:
            steps = f"{self.optim_iterations} iterations of {self.optim_solver}"
            parts.append(f"minimize: {self.optim_stopped_by} after {steps}")
        return f"TrainResult({', '.join(parts)}, {self.total_time:.2g} s)"

    @property
    def params(self) -> Params:
        """``x`` with views on weights and biases."""
        width, _, bias = self.layers[0]
        later = [(i[0], w, b) for i, (w, _, b) in zip(self.layers, self.layers[1:], strict=False)]
        n_features = (len(self.x) - sum(w * (fan_in + b) for fan_in, w, b in later)) // width - bias
        return Params(self.x, [(n_features, width, bias), *later])

    def net(
        self,
        input: ArrayLike | None = None,
        target: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        *,
        allow_code: bool = False,
    ) -> Net:
        """The net of this result, with its data, loss, weights and regularisers.

        Parameters
        ----------
        input, target, weights : arrays, optional
            The data, if the result was saved without them; they must be those of the run.
        allow_code : bool
            Compile an activation or a loss that is Julia code. Set it for files that you trust: the code may do
            whatever Julia can.

        Raises
        ------
        InputError
            If the result does not hold its net, if data are missing or differ, or for code that is not allowed.

        Examples
        --------
        >>> import pymlpgf as mg
        >>> net = mg.Net(layers=[(1, "identity", False)], input=[[1.0]], target=[2.0], l2=0.5)
        >>> res = mg.minimize(net, [0.0])
        >>> res.net().loss(res) == net.loss(res)
        True
        """
        if not self.problem:
            raise InputError("this result does not hold its net; those of an estimator never do")
        given = {"input": input, "target": target, "weights": weights}
        return rebuild(self.layers, self.problem, allow_code, given)

    def to_torch(self, path: str | os.PathLike[str]) -> Path:
        """Write the weights as a state_dict of PyTorch, for ``torch.load``. Returns the path.

        It fits what ``pymlpgf.torch.to_module`` makes: an ``nn.Sequential`` in which each ``nn.Linear`` is followed by
        a module for its activation unless that is the identity, with keys such as "0.weight", "0.bias", "2.weight", and
        an entry "….factor" if the net has an ``output_factor``.
        """
        import torch

        state: dict[str, Any] = {}
        position = 0
        p = self.params
        for W, b, (_, activation, _) in zip(p.weights, p.biases, self.layers, strict=True):
            state[f"{position}.weight"] = torch.from_numpy(W.copy())
            if b is not None:
                state[f"{position}.bias"] = torch.from_numpy(b.copy())
            position += 1 if activation in ("identity", "softmax") else 2
        if self.output_factor != 1:
            state[f"{position}.factor"] = torch.tensor(self.output_factor, dtype=next(iter(state.values())).dtype)
        return write_atomically(Path(path), lambda file: torch.save(state, file))

    def to_scipy(self) -> Any:
        """A ``scipy.optimize.OptimizeResult``; ``nit`` counts the steps of both phases."""
        from scipy.optimize import OptimizeResult

        return OptimizeResult(
            x=self.x, fun=self.loss, gnorm=self.gnorm, nit=(self.ode_iterations or 0) + (self.optim_iterations or 0),
            nfev=self.nfev, njev=self.njev, nhev=self.nhev, nhvp=self.nhvp, success=self.success, status=self.status,
            message=self.message,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """All fields except ``problem``; trajectory and dense solution are dictionaries of arrays."""
        fields = dataclasses.asdict(dataclasses.replace(self, problem={}))
        del fields["problem"]
        return {**fields, "converged": self.converged, "success": self.success}

    def save(self, path: str | os.PathLike[str], *, data: bool = True) -> Path:
        """Write an .npz file with a JSON header; it appears whole or not at all. Returns its path.

        Missing folders are created. With ``data=False`` a hash replaces the net's data.
        """
        problem = self.problem if data else without_data(self.problem)
        arrays: dict[str, Any] = {}
        header: dict[str, Any] = {"schema": SCHEMA, "type": "pymlpgf.TrainResult"}
        for name in (entry.name for entry in dataclasses.fields(self)):
            value = getattr(self, name)
            if name == "problem":
                arrays.update({f"problem.{key}": v for key, v in problem.items() if isinstance(v, np.ndarray)})
                header[name] = {key: v for key, v in problem.items() if not isinstance(v, np.ndarray)}
            elif isinstance(value, np.ndarray):
                arrays[name] = value
            elif dataclasses.is_dataclass(value):
                for part in dataclasses.fields(value):
                    arrays[f"{name}.{part.name}"] = getattr(value, part.name)
            else:
                header[name] = value
        header["layers"] = [(width, activation_to_json(f), bias) for width, f, bias in self.layers]
        arrays["header"] = np.array(json.dumps(header))
        return write_atomically(npz_path(path), lambda file: np.savez_compressed(file, **arrays))


def params_of(name: str, given: Any) -> Params:
    """The Params that are given, or those of a result."""
    found = given.params if isinstance(given, TrainResult) else given
    if not isinstance(found, Params):
        raise InputError(
            f"{name} is {type(given).__name__}; Params are needed, such as net.params(x), or a TrainResult"
        )
    return found
