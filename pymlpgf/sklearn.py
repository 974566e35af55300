"""Estimators for scikit-learn: the flow, then the minimum, behind ``fit`` and ``predict``."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .errors import InputError
from .facts import FLOW_DEFAULTS
from .network.activations import Activation
from .network.net import Net
from .network.params import Params
from .results.result import TrainResult
from .solve.train import flow, train
from .validate.data import real_number

__all__ = ["GradientFlowClassifier", "GradientFlowRegressor"]


@lru_cache(maxsize=32)
def _network(layers: tuple[tuple[int, Activation, bool], ...], n_features: int, loss: str) -> Net:
    """The network without data, for predictions. Not an attribute: fitted estimators are pickled and compared."""
    return Net(layers=layers, n_features=n_features, loss=loss)


class _GradientFlow(BaseEstimator):
    """What regressor and classifier share: their arguments, and how a network is trained."""

    _loss: str
    _last: str  # activation of the output layer
    params_: Params
    stopping_time_: float | None
    best_validation_score_: float | None
    validation_times_: np.ndarray | None
    validation_scores_: np.ndarray | None

    # Numbers behind these defaults are in docs/howto/guests.md.
    def __init__(
        self,
        hidden_layer_sizes: tuple[int, ...] = (50,),
        activation: Any = "softplus",
        *,
        alpha: float = 5e-3,
        alg: str = FLOW_DEFAULTS["alg"],
        maxT: float | str = "auto",
        abstol: float = 1e-3,
        reltol: float = 1e-3,
        maxtime_ode: float = 60,
        maxiterations_ode: float = 200,
        optim_solver: str = "LBFGS",
        maxtime_optim: float = 60,
        maxiterations_optim: float = 10_000,
        min_gnorm: float = 1e-10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        init: str = "glorot_normal",
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.alpha = alpha
        self.alg = alg
        self.maxT = maxT
        self.abstol = abstol
        self.reltol = reltol
        self.maxtime_ode = maxtime_ode
        self.maxiterations_ode = maxiterations_ode
        self.optim_solver = optim_solver
        self.maxtime_optim = maxtime_optim
        self.maxiterations_optim = maxiterations_optim
        self.min_gnorm = min_gnorm
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.init = init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    def _layers(self, outputs: int) -> tuple[tuple[int, Activation, bool], ...]:
        sizes = self.hidden_layer_sizes
        sizes = (sizes,) if isinstance(sizes, Integral) else tuple(sizes)
        for width in sizes:
            if not isinstance(width, Integral) or isinstance(width, bool) or width < 1:
                raise InputError(f"hidden_layer_sizes holds {width!r}; positive whole numbers are needed")
        names = self.activation
        names = list(names) if isinstance(names, list) else [names] * len(sizes)
        if len(names) != len(sizes):
            raise InputError(f"activation is a list of {len(names)} for {len(sizes)} hidden layers")
        hidden = [(int(width), name, True) for width, name in zip(sizes, names, strict=True)]
        return (*hidden, (outputs, self._last, True))

    def _fit(self, X: np.ndarray, Y: np.ndarray, sample_weight: Any, outputs: int) -> None:
        layers = self._layers(outputs)
        rng = check_random_state(self.random_state)
        seed = rng.randint(2**31)
        X, Y, weights = _weighted(X, Y, sample_weight)
        held = np.zeros(len(X), bool)
        self.stopping_time_ = self.best_validation_score_ = None
        self.validation_times_ = self.validation_scores_ = None
        if self.early_stopping:
            X, Y, weights = _distinct(X, Y, weights)
            held = _held_out(Y if self._loss == "nll" else np.zeros(len(X), int), self.validation_fraction, rng)
        goes_on = self.warm_start and getattr(self, "layers_", None) == layers
        goes_on = goes_on and self.input_scaler_.n_features_in_ == X.shape[1]
        net = self._net(layers, *_part(~held, X, Y, weights), goes_on)
        p = self.params_ if goes_on else net.random_params(seed, init=self.init)
        if self.early_stopping:
            result = flow(net, p, maxT=self._time(math.inf), dense=True, **self._flow_options())
            self._stop_early(result, layers, *_part(held, X, Y, weights))
            self._keep(result, net, layers)
            return
        result = train(
            net, p, maxT=self._time(1), optim_solver=self.optim_solver, maxtime_optim=self.maxtime_optim,
            maxiterations_optim=self.maxiterations_optim, **self._flow_options(),
        )  # fmt: skip
        self.params_ = net.params(result.x)
        self._keep(result, net, layers)
        if not result.converged:
            self._warn(result.message)

    def _partial_fit(self, X: np.ndarray, Y: np.ndarray, sample_weight: Any, outputs: int) -> None:
        layers = self._layers(outputs)
        goes_on = hasattr(self, "params_")
        if goes_on and self.layers_ != layers:
            raise InputError(
                f"partial_fit continues the network {self.layers_}, not {layers}: call fit for another one"
            )
        seed = check_random_state(self.random_state).randint(2**31)
        net = self._net(layers, *_weighted(X, Y, sample_weight), goes_on)
        p = self.params_ if goes_on else net.random_params(seed, init=self.init)
        result = flow(net, p, maxT=self._time(1), **self._flow_options())
        self.params_ = net.params(result.x)
        self._keep(result, net, layers)
        if not result.success:
            self._warn(result.message)

    def _net(self, layers: Any, X: np.ndarray, Y: np.ndarray, weights: Any, goes_on: bool) -> Net:
        """The network on standardised data; one that goes on keeps the standardisation."""
        if not goes_on:
            self.input_scaler_ = _input_scaler(X, weights)
            if self._loss == "mse":
                self.target_scaler_ = StandardScaler().fit(Y, sample_weight=weights)
        return self._with_data(layers, X, Y, weights, self.alpha)

    def _with_data(self, layers: Any, X: np.ndarray, Y: np.ndarray, weights: Any, l2: float) -> Net:
        if self._loss == "mse":
            Y = self.target_scaler_.transform(Y)
        if weights is not None:
            weights = weights / weights.mean()  # a weight of two is a sample that occurs twice
        return Net(layers, self.input_scaler_.transform(X), Y, weights=weights, loss=self._loss, l2=l2)

    def _time(self, auto: float) -> float:
        if isinstance(self.maxT, str):
            if self.maxT != "auto":
                raise InputError(f'maxT is {self.maxT!r}; a number or "auto" is needed')
            return auto
        return self.maxT

    def _flow_options(self) -> dict[str, Any]:
        return {
            "alg": self.alg, "abstol": self.abstol, "reltol": self.reltol, "maxtime_ode": self.maxtime_ode,
            "maxiterations_ode": self.maxiterations_ode, "min_gnorm": self.min_gnorm, "verbosity": int(self.verbose),
        }  # fmt: skip

    def _stop_early(self, result: TrainResult, layers: Any, X: np.ndarray, Y: np.ndarray, weights: Any) -> None:
        """Choose the flow time with the least validation loss: among the steps, then between their neighbours."""
        net = self._with_data(layers, X, Y, weights, 0)
        sol, trajectory = result.sol, result.trajectory
        assert sol is not None
        assert trajectory is not None
        losses = np.array([net.loss(sol(t)) for t in sol.t])
        times = sol.t
        for _ in range(2):  # to a four-hundredth of two steps: the dense solution is no more accurate than reltol
            k = int(np.nanargmin(losses))
            times = np.linspace(times[max(k - 1, 0)], times[min(k + 1, len(times) - 1)], 21)
            losses = np.array([net.loss(x) for x in sol(times)])
        best = float(times[np.nanargmin(losses)])
        self.stopping_time_ = best
        self.params_ = net.params(sol(best))
        self.validation_times_ = trajectory.t
        self.validation_scores_ = np.array([self._score(net(x), Y, weights) for x in trajectory.x])
        self.best_validation_score_ = self._score(net(self.params_), Y, weights)
        if best == sol.t[-1] and not result.success:
            self._warn(f"the validation loss still falls at the end of the flow. {result.message}")

    def _score(self, outputs: np.ndarray, Y: np.ndarray, weights: Any) -> float:
        if self._loss == "nll":
            return accuracy_score(Y, outputs.argmax(1), sample_weight=weights)
        predicted = self.target_scaler_.inverse_transform(outputs)
        return r2_score(Y, predicted, sample_weight=weights) if len(Y) > 1 else math.nan

    def _keep(self, result: TrainResult, net: Net, layers: Any) -> None:
        self.result_ = replace(result, sol=None, problem={})  # neither the largest thing here nor the training data
        self.layers_ = layers
        self.coefs_ = [W.T.copy() for W in self.params_.weights]
        self.intercepts_ = [b.copy() for b in self.params_.biases if b is not None]
        self.coefs_[0] /= self.input_scaler_.scale_[:, None]
        self.intercepts_[0] -= self.input_scaler_.mean_ @ self.coefs_[0]
        if self._loss == "mse":
            self.coefs_[-1] *= self.target_scaler_.scale_
            self.intercepts_[-1] = self.intercepts_[-1] * self.target_scaler_.scale_ + self.target_scaler_.mean_
        self.loss_ = net.loss(self.params_)
        curve = [] if result.trajectory is None else list(result.trajectory.loss)
        self.loss_curve_ = np.array([*curve, self.loss_])
        self.n_iter_ = max(1, (result.ode_iterations or 0) + (result.optim_iterations or 0))
        self.n_layers_ = len(layers) + 1
        self.n_outputs_ = layers[-1][0]
        self.out_activation_ = layers[-1][1]

    def _warn(self, message: str) -> None:
        warnings.warn(f"not converged: {message}", ConvergenceWarning, stacklevel=4)

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "params_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return _network(self.layers_, self.n_features_in_, self._loss)(self.params_, self.input_scaler_.transform(X))


# Standard deviations. Pixels of the digits that are nearly always dark reach 40: with them the accuracy is 0.976, with
# at most 5 it is 0.979, with 3.5 0.978; breast cancer has 0.975, 0.977, 0.976.
_FURTHEST = 5


def _input_scaler(X: np.ndarray, weights: Any) -> StandardScaler:
    """Mean 0 and standard deviation 1, or less where a value would lie further than ``_FURTHEST`` from 0."""
    scaler = StandardScaler().fit(X, sample_weight=weights)
    scaler.scale_ *= np.maximum(1, np.abs(X - scaler.mean_).max(0) / scaler.scale_ / _FURTHEST)
    return scaler


def _weighted(X: np.ndarray, Y: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """The samples whose weight is not zero."""
    if sample_weight is None:
        return X, Y, None
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    kept = weights > 0
    if not kept.any():
        raise ValueError("sample_weight is zero for every sample")
    return _part(kept, X, Y, weights)


def _part(kept: np.ndarray, X: np.ndarray, Y: np.ndarray, weights: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    if not kept.all():
        X, Y, weights = X[kept], Y[kept], None if weights is None else weights[kept]
    return X, Y, weights


def _distinct(X: np.ndarray, Y: np.ndarray, weights: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """Equal samples as one that has their weight: no copy of a validation sample is trained on."""
    # + 0.0 because the bytes of -0.0 differ; digests, since sorting whole rows takes two copies of all data
    rows = ((np.append(x, y) + 0.0).tobytes() for x, y in zip(X, Y, strict=True))
    digests = np.frombuffer(b"".join(blake2b(row, digest_size=16).digest() for row in rows), "V16")
    _, first, sample = np.unique(digests, return_index=True, return_inverse=True)
    weights = np.bincount(sample, weights)
    return X[first], Y[first], None if (weights == weights[0]).all() else weights


def _held_out(labels: np.ndarray, fraction: Any, rng: Any) -> np.ndarray:
    """Which samples validate: ``fraction`` of all, up to one sample of each class."""
    number = real_number(fraction)
    if not 0 < number < 1:
        raise InputError(f"validation_fraction is {fraction!r}; a number between 0 and 1 is needed")
    counts = np.bincount(labels)
    share = number * counts
    taken = np.floor(share).astype(int)
    remainders = np.argsort(taken - share, kind="stable")  # the largest first
    taken[remainders[: math.ceil(round(share.sum(), 9)) - taken.sum()]] += 1
    taken = np.minimum(taken, np.maximum(counts - 1, 0))  # one of each class is trained on
    if not taken.any():
        raise InputError(
            f"early_stopping holds out samples of classes with two different ones or more; there is none "
            f"(n_samples = {len(labels)} without copies)"
        )
    held = np.zeros(len(labels), bool)
    for label, k in enumerate(taken):
        held[rng.permutation(np.flatnonzero(labels == label))[:k]] = True
    return held


_PARAMETERS = """
    Inputs are standardised inside: the network sees each feature with mean 0 and standard deviation 1 over the training
    data (weighted as the samples are), or less where a value would lie further than 5 from 0.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int
        Units of each hidden layer; ``()`` is a linear model.
    activation : str, Poly or list of these
        Of the hidden layers: one for all, or a list with one for each.
    alpha : float
        (alpha/2)‖θ‖² is added to the mean loss (the net's ``l2``), where θ are the parameters on standardised data.
    alg, abstol, reltol, maxtime_ode, maxiterations_ode
        The flow, as in ``pymlpgf.flow``.
    maxT : float or "auto"
        The time at which the flow ends. "auto" is infinity for ``fit`` with ``early_stopping``, else 1.
    optim_solver, maxtime_optim, maxiterations_optim, min_gnorm
        As in ``pymlpgf.minimize``.
    early_stopping : bool
        Hold out a part of the samples, follow the flow of the others once, and take its parameters at the time when
        the loss of the held-out samples (without alpha's term) was least; no minimisation follows. While ``fit`` runs
        the solution between the steps is in memory: up to 6 vectors of all parameters a step.
    validation_fraction : float
        The part that is held out, of each class for a classifier. Equal samples stay together: they are
        merged to one with the sum of their weights.
    init : str
        As in ``Net.random_params``.
    random_state : int, RandomState or None
        Of the initial parameters and of the samples held out.
    warm_start : bool
        Go on from the last fit, with its standardisation.
    verbose : 0, 1 or 2
        As ``verbosity`` in ``pymlpgf.train``.

    Attributes
    ----------
    coefs_, intercepts_ : lists of arrays
        Weights (inputs, units) and biases (units,) of each layer, for data as they are given: the standardisations
        are contained in those of the first layer and, in regression, of the last.
    params_ : Params
        Those of the network on standardised data.
    result_ : TrainResult
        Of the last fit, on standardised data. A fit that runs out of time keeps its best point, and warns. With
        ``early_stopping`` it is that of the whole flow, without ``sol``. The training data are not in it.
    loss_, loss_curve_
        The loss on standardised data, with alpha's term, at ``params_``; at the flow's recorded points and ``params_``.
    input_scaler_ : StandardScaler
    stopping_time_, best_validation_score_ : float
        With ``early_stopping`` (else None): the flow time chosen, and the score of the held-out samples there (R² of
        a single sample is NaN).
    validation_times_, validation_scores_ : arrays (n_points,)
        With ``early_stopping`` (else None): the flow's recorded times, and the scores of the held-out samples there.
    n_iter_, n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_
        As in scikit-learn's MLPs.
"""


class GradientFlowRegressor(MultiOutputMixin, RegressorMixin, _GradientFlow):
    __doc__ = f"""A multilayer perceptron fitted by mean squared error, to the minimum next to the flow's end.

    Targets are standardised inside, each output by itself; predictions are in the units of the targets given.
{_PARAMETERS}
    target_scaler_ : StandardScaler

    Examples
    --------
    >>> import numpy as np
    >>> from pymlpgf.sklearn import GradientFlowRegressor
    >>> X = np.linspace(-2, 2, 100).reshape(-1, 1)
    >>> y = 100 + 20 * np.tanh(3 * X[:, 0])
    >>> model = GradientFlowRegressor((3,), "tanh", alpha=1e-6, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.999
    True
    """

    _loss, _last = "mse", "identity"

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> GradientFlowRegressor:
        """Train on X (n_samples, n_features) and y (n_samples,) or (n_samples, n_outputs)."""
        X, Y = self._valid(X, y, reset=True)
        self._fit(X, Y, sample_weight, Y.shape[1])
        return self

    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> GradientFlowRegressor:
        """Continue by the flow on these samples, from the present parameters or, at first, from random ones.

        The flow lasts for ``maxT`` ("auto": 1); ``early_stopping`` has no part in it. Data are standardised as in the
        first call, or in the ``fit`` before.
        """
        X, Y = self._valid(X, y, reset=not hasattr(self, "params_"))
        self._partial_fit(X, Y, sample_weight, Y.shape[1])
        return self

    def _valid(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, reset=reset)
        y = np.asarray(y, np.float64)
        self._flat_target = y.ndim == 1
        return X, y.reshape(len(y), -1)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Outputs (n_samples,), or (n_samples, n_outputs) after a fit to several."""
        outputs = self._outputs(X)
        outputs = self.target_scaler_.inverse_transform(outputs)
        return outputs[:, 0] if self._flat_target else outputs


class GradientFlowClassifier(ClassifierMixin, _GradientFlow):
    __doc__ = f"""A multilayer perceptron with softmax outputs, fitted by the negative log-likelihood.
{_PARAMETERS}
    classes_ : array

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from pymlpgf.sklearn import GradientFlowClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = GradientFlowClassifier((4,), "tanh", random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.96, model.predict_proba(X[:1]).shape
    (True, (1, 3))
    """

    _loss, _last = "nll", "softmax"

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> GradientFlowClassifier:
        """Train on X (n_samples, n_features) and labels y (n_samples,)."""
        X, y = self._valid(X, y, reset=True)
        self.classes_, labels = np.unique(y, return_inverse=True)
        self._fit(X, labels, sample_weight, len(self.classes_))
        return self

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> GradientFlowClassifier:
        """Continue by the flow on these samples, from the present parameters or, at first, from random ones.

        The first call, if no ``fit`` came before, needs all ``classes``. The flow lasts for ``maxT`` ("auto": 1);
        ``early_stopping`` has no part in it. Inputs are standardised as in the first call, or in the ``fit`` before.
        """
        X, y = self._valid(X, y, reset=not hasattr(self, "params_"))
        _check_partial_fit_first_call(self, classes)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise InputError(f"y holds {unknown.tolist()[0]!r}; the classes are {self.classes_.tolist()}")
        self._partial_fit(X, np.searchsorted(self.classes_, y), sample_weight, len(self.classes_))
        return self

    def _valid(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(self, X, y, dtype=np.float64, reset=reset)
        check_classification_targets(y)
        return X, column_or_1d(y, warn=True)

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities (n_samples, n_classes), in the order of ``classes_``."""
        return self._outputs(X)

    def predict_log_proba(self, X: ArrayLike) -> np.ndarray:
        """Logarithms of ``predict_proba``."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The likeliest class of each sample."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]
