"""From random parameters to a minimum by pymlpgf, SciPy, optimistix, PyTorch and scikit-learn.

A contender has ``prepare(problem)``, which gives a function (X, Y, start, goal) -> ``Attempt``, or nothing where the
contender does not know the loss. SciPy, optimistix and PyTorch get compiled derivatives.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .contenders import Torch, jax_loss, jax_outputs, load_jax, torch_loss
from .problems import Problem

__all__ = ["CONTENDERS", "Attempt", "Goal", "available"]

#: of Adam before LBFGS, with this learning rate
ADAM_STEPS, ADAM_RATE = 1000, 1e-2


class Goal(NamedTuple):
    """Where to stop: ‖∇L‖_∞, loss, or seconds of CPU time."""

    gnorm: float
    loss: float
    limit: float


class Attempt(NamedTuple):
    """Seconds of CPU time, where it ended, and loss and ‖∇L‖_∞ over time where the contender shows them."""

    seconds: float
    theta: np.ndarray
    trace: list[tuple[float, float, float]] | None = None


Solve = Callable[[np.ndarray, np.ndarray, np.ndarray, Goal], Attempt]


class Reached(Exception):
    """Raised inside the function that is minimised, to end the minimizer."""


class Watched:
    """Value and gradient, until a goal is reached."""

    def __init__(
        self, function: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, goal: Goal
    ) -> None:
        self._function, self._goal = function, goal
        self._begin = time.process_time()
        self.trace: list[tuple[float, float, float]] = []
        self.theta, self._best = start, np.inf

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = self._function(x)
        now, gnorm = self.seconds(), float(np.abs(slope).max())
        self.trace.append((now, value, gnorm))
        reached = gnorm <= self._goal.gnorm or value <= self._goal.loss
        if value < self._best or reached:
            self._best, self.theta = value, np.array(x)
        if reached or now > self._goal.limit:
            raise Reached
        return value, slope

    def seconds(self) -> float:
        return time.process_time() - self._begin

    def attempt(self) -> Attempt:
        return Attempt(self.seconds(), self.theta, self.trace)


class Ours:
    """``minimize`` with the default method."""

    name = "pymlpgf"

    def prepare(self, problem: Problem) -> Solve:
        import pymlpgf as mg

        case = problem.case
        data: Any = None
        net: Any = None

        def solve(X: np.ndarray, Y: np.ndarray, start: np.ndarray, goal: Goal) -> Attempt:
            nonlocal data, net
            if data is not X:  # as others keep their data
                data, net = X, mg.Net(layers=case.layers, input=X, target=Y, loss=case.loss, l2=problem.l2)
            begin = time.process_time()
            result = mg.minimize(
                net,
                start,
                min_gnorm=goal.gnorm,
                minloss=max(goal.loss, 0.0),
                maxtime_optim=goal.limit,
                verbosity=0,
            )
            return Attempt(time.process_time() - begin, np.array(result.x))

        return solve


class WithJax:
    """What SciPy and optimistix are given: jitted functions of parameters and data."""

    def __init__(self) -> None:
        self._jax = load_jax()

    def loss(self, problem: Problem) -> Callable[[Any, Any, Any], Any]:
        """The loss of parameters and data."""

        def loss(theta: Any, x: Any, y: Any) -> Any:
            return jax_loss(self._jax, problem.case, x, y)(theta) + problem.l2 / 2 * (theta @ theta)

        return loss


class Scipy(WithJax):
    """``scipy.optimize.minimize`` on ``jit(value_and_grad)`` and ``jit(hessian)``."""

    def __init__(self, method: str) -> None:
        super().__init__()
        import scipy.optimize

        self.name, self._method, self._minimize = f"SciPy {method}", method, scipy.optimize.minimize

    def prepare(self, problem: Problem) -> Solve:
        jax, loss = self._jax, self.loss(problem)
        both, square = jax.jit(jax.value_and_grad(loss)), jax.jit(jax.hessian(loss))

        def solve(X: np.ndarray, Y: np.ndarray, start: np.ndarray, goal: Goal) -> Attempt:
            x, y = jax.device_put(X), jax.device_put(Y)

            def function(p: np.ndarray) -> tuple[float, np.ndarray]:
                value, slope = both(p, x, y)
                return float(value), np.asarray(slope)

            watched = Watched(function, start, goal)
            hess = {"hess": lambda p: np.asarray(square(p, x, y))} if self._method == "trust-exact" else {}
            options = {"gtol": 0, "maxiter": 10**9}
            try:
                with np.errstate(all="ignore"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._minimize(watched, start, jac=True, method=self._method, options=options, **hess)
            except (Reached, np.linalg.LinAlgError, ValueError):  # trust-exact refuses a Hessian that is not finite
                pass
            return watched.attempt()

        return solve


class Optimistix(WithJax):
    """``optimistix.minimise`` with BFGS or ``least_squares`` with LevenbergMarquardt, each compiled as a whole."""

    def __init__(self, method: str) -> None:
        super().__init__()
        import optimistix

        self.name, self._method, self._optimistix = f"optimistix {method}", method, optimistix

    def prepare(self, problem: Problem) -> Solve | None:
        jax, jnp, optx = self._jax, self._jax.numpy, self._optimistix
        squares = self._method == "LevenbergMarquardt"
        if squares and problem.case.loss == "nll":
            return None
        loss = self.loss(problem)

        def residuals(theta: Any, args: Any) -> Any:
            X, Y = args[:2]
            outputs = jax_outputs(jax, problem.case, X)(theta)
            r = ((outputs - Y.T) * jnp.sqrt(2 / len(X))).ravel()  # half of its square is the loss
            return jnp.concatenate([r, np.sqrt(problem.l2) * theta]) if problem.l2 else r

        base = getattr(optx, self._method)

        class ToGoal(base):  # type: ignore[misc, valid-type]
            """Ends at the goal; the method's own test compares steps."""

            def terminate(self, fn: Any, y: Any, args: Any, options: Any, state: Any, tags: Any) -> Any:
                info = state.f_info
                slope, value = (info.compute_grad(), info.as_min()) if squares else (info.grad, info.f)
                reached = (jnp.abs(slope).max() <= args[2]) | (value <= args[3])
                return reached & ~state.first_step, optx.RESULTS.successful  # nothing is computed before the first

        solver = ToGoal(rtol=1e-9, atol=1e-9)

        def run(theta: Any, args: Any, steps: int) -> Any:
            call = optx.least_squares if squares else optx.minimise
            function = residuals if squares else lambda theta, args: loss(theta, *args[:2])
            return call(function, solver, theta, args, max_steps=steps, throw=False).value

        compiled = jax.jit(run, static_argnums=2)
        steps: dict[float, int] = {}

        def solve(X: np.ndarray, Y: np.ndarray, start: np.ndarray, goal: Goal) -> Attempt:
            args = (jax.device_put(X), jax.device_put(Y), goal.gnorm, goal.loss)
            theta = jax.device_put(start)
            if goal.limit not in steps:  # a compiled loop has no clock: more steps than the limit has time for
                never = (*args[:2], 0.0, -np.inf)
                compiled(theta, never, 64)
                begin = time.process_time()
                compiled(theta, never, 64).block_until_ready()
                used = max(time.process_time() - begin, 1e-3)
                steps[goal.limit] = int(3 * 64 * goal.limit / used)  # steps near a minimum take a third of the first
                compiled(theta, (*args[:2], np.inf, np.inf), steps[goal.limit])
            begin = time.process_time()
            end = compiled(theta, args, steps[goal.limit]).block_until_ready()
            return Attempt(time.process_time() - begin, np.asarray(end))

        return solve


class AdamThenLBFGS:
    """``torch.optim.Adam``, then ``LBFGS`` with the strong Wolfe search, on compiled value and gradient."""

    name = "PyTorch Adam, LBFGS"

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self._torch, self._compiled = torch, not Torch().compiles()

    def prepare(self, problem: Problem) -> Solve:
        torch = self._torch

        def loss(theta: Any, x: Any, y: Any) -> Any:
            return torch_loss(torch, problem.case, x, y)(theta) + problem.l2 / 2 * (theta @ theta)

        both = torch.func.grad_and_value(loss)
        if self._compiled:
            torch._dynamo.reset()
            both = torch.compile(both, dynamic=False)

        def solve(X: np.ndarray, Y: np.ndarray, start: np.ndarray, goal: Goal) -> Attempt:
            x, y = torch.from_numpy(X), torch.from_numpy(Y)
            theta = torch.from_numpy(start.copy()).requires_grad_()
            theta.grad = torch.zeros_like(theta)

            def function(p: np.ndarray) -> tuple[float, np.ndarray]:
                slope, value = both(torch.from_numpy(p), x, y)
                return float(value), slope.numpy()

            watched = Watched(function, start, goal)

            def closure() -> Any:
                value, slope = watched(theta.detach().numpy())
                theta.grad.copy_(torch.from_numpy(slope))
                return torch.tensor(value, dtype=torch.float64)

            try:
                adam = torch.optim.Adam([theta], lr=ADAM_RATE)
                for _ in range(ADAM_STEPS):
                    adam.step(closure)
                lbfgs = torch.optim.LBFGS(
                    [theta], max_iter=10**9, max_eval=10**9, tolerance_grad=0, tolerance_change=0, history_size=20,
                    line_search_fn="strong_wolfe",
                )  # fmt: skip
                lbfgs.step(closure)
            except Reached:
                pass
            return watched.attempt()

        return solve


class Sklearn:
    """``MLPRegressor`` or ``MLPClassifier`` with lbfgs, from the same start; it stops by its own tests alone."""

    name = "scikit-learn lbfgs"

    def __init__(self) -> None:
        import sklearn.neural_network

        self._module = sklearn.neural_network

    def prepare(self, problem: Problem) -> Solve | None:
        case = problem.case
        activation = {"tanh": "tanh", "sigmoid": "logistic", "relu": "relu"}.get(case.layers[0][1])
        if activation is None or problem.l2:  # its penalty spares biases
            return None
        cls = self._module.MLPClassifier if case.loss == "nll" else self._module.MLPRegressor

        def solve(X: np.ndarray, Y: np.ndarray, start: np.ndarray, goal: Goal) -> Attempt:
            model = cls(
                hidden_layer_sizes=[width for width, _, _ in case.layers[:-1]], activation=activation, solver="lbfgs",
                alpha=0.0, tol=goal.gnorm, max_iter=1, max_fun=100_000, warm_start=True,
            )  # fmt: skip
            target = Y if Y.ndim == 1 or Y.shape[1] > 1 else Y[:, 0]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(X, target)  # makes room for parameters
                model.coefs_, model.intercepts_, offset = [], [], 0
                for width, fan_in, _, _ in case.shapes:
                    model.coefs_.append(start[offset : offset + width * fan_in].reshape(width, fan_in).T.copy())
                    offset += width * (fan_in + 1)
                    model.intercepts_.append(start[offset - width : offset].copy())
                model.max_iter = 100_000
                begin = time.process_time()
                model.fit(X, target)
            seconds = time.process_time() - begin
            parts = [part for W, b in zip(model.coefs_, model.intercepts_, strict=True) for part in (W.T.ravel(), b)]
            return Attempt(seconds, np.concatenate(parts))

        return solve


#: by the word on the command line of a child process
CONTENDERS: dict[str, Callable[[], Any]] = {
    "pymlpgf": Ours,
    "SciPy trust-exact": lambda: Scipy("trust-exact"),
    "SciPy BFGS": lambda: Scipy("BFGS"),
    "optimistix BFGS": lambda: Optimistix("BFGS"),
    "optimistix LevenbergMarquardt": lambda: Optimistix("LevenbergMarquardt"),
    "PyTorch Adam, LBFGS": AdamThenLBFGS,
    "scikit-learn lbfgs": Sklearn,
}


def available(note: Callable[[str], None]) -> list[Any]:
    """The contenders that are installed here, those that start no Julia first; ``note`` is told which are not."""
    found = []
    for name in reversed(CONTENDERS):
        try:
            found.append(CONTENDERS[name]())
        except ImportError as error:
            note(f"  {name} is left out: {error}")
    return found[::-1]
