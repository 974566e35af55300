"""Estimators for scikit-learn: the flow, then the minimum, behind ``fit`` and ``predict``."""

from __future__ import annotations

import warnings
from functools import lru_cache
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .errors import InputError
from .network.activations import Activation
from .network.net import Net
from .network.params import Params
from .results.result import TrainResult
from .solve.train import train

__all__ = ["GradientFlowClassifier", "GradientFlowRegressor"]

LARGE = 1000  # parameters from which on "auto" does without the dense Hessian


@lru_cache(maxsize=32)
def _network(layers: tuple[tuple[int, Activation, bool], ...], n_features: int, loss: str) -> Net:
    """The network without data, for predictions. Not an attribute: fitted estimators are pickled and compared."""
    return Net(layers=layers, n_features=n_features, loss=loss)


class _GradientFlow(BaseEstimator):
    """What regressor and classifier share: their arguments, and how a net is trained."""

    _loss: str

    def __init__(
        self,
        hidden_layer_sizes: tuple[int, ...] = (10,),
        activation: Any = "softplus",
        *,
        alpha: float = 1e-4,
        alg: str = "auto",
        maxT: float = np.inf,
        abstol: float = 1e-6,
        reltol: float = 1e-4,
        maxtime_ode: float = 60,
        maxiterations_ode: float = 200,
        optim_solver: str = "auto",
        maxtime_optim: float = 60,
        maxiterations_optim: float = 1000,
        min_gnorm: float = 1e-8,
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
        self.init = init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    def _layers(self, outputs: int, last: str) -> tuple[tuple[int, Activation, bool], ...]:
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
        return (*hidden, (outputs, last, True))

    def _train(self, X: np.ndarray, Y: np.ndarray, sample_weight: Any, layers: Any) -> None:
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            kept = weights > 0
            if not kept.any():
                raise ValueError("sample_weight is zero for every sample")
            X, Y, weights = X[kept], Y[kept], weights[kept]
            weights = weights / weights.mean()  # a weight of two is a sample that occurs twice
        net = Net(layers=layers, input=X, target=Y, weights=weights, loss=self._loss, l2=self.alpha)
        before: Params | None = getattr(self, "params_", None) if self.warm_start else None
        if before is not None and before.flat.shape == (net.n_params,) and self.layers_ == layers:
            p = before
        else:
            p = net.random_params(check_random_state(self.random_state).randint(2**31), init=self.init)
        solver = self.optim_solver
        if solver == "auto":
            solver = "NewtonTrustRegion" if net.n_params <= LARGE else "BFGS"
        result = train(
            net, p, alg=self.alg, maxT=self.maxT, abstol=self.abstol, reltol=self.reltol,
            maxtime_ode=self.maxtime_ode, maxiterations_ode=self.maxiterations_ode, optim_solver=solver,
            maxtime_optim=self.maxtime_optim, maxiterations_optim=self.maxiterations_optim,
            min_gnorm=self.min_gnorm, verbosity=int(self.verbose),
        )  # fmt: skip
        self._keep(result, net, layers)

    def _keep(self, result: TrainResult, net: Net, layers: Any) -> None:
        self.result_ = result
        self.layers_ = layers
        self.params_ = net.params(result.x)
        self.coefs_ = [W.T for W in self.params_.weights]
        self.intercepts_ = list(self.params_.biases)
        self.loss_ = result.loss
        curve = [] if result.trajectory is None else list(result.trajectory.loss)
        self.loss_curve_ = np.array([*curve, result.loss])
        self.n_iter_ = max(1, (result.ode_iterations or 0) + (result.optim_iterations or 0))
        self.n_layers_ = len(layers) + 1
        self.n_outputs_ = layers[-1][0]
        self.out_activation_ = layers[-1][1]
        if not result.converged:
            warnings.warn(f"not converged: {result.message}", ConvergenceWarning, stacklevel=4)

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "params_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return _network(self.layers_, self.n_features_in_, self._loss)(self.params_, X)


_PARAMETERS = """
    Parameters
    ----------
    hidden_layer_sizes : tuple of int
        Units of each hidden layer; ``()`` is a linear model.
    activation : str, Poly or list of these
        Of the hidden layers: one for all, or a list with one for each.
    alpha : float
        (alpha/2)‖θ‖² is added to the mean loss (the net's ``l2``).
    alg, maxT, abstol, reltol, maxtime_ode, maxiterations_ode
        The flow, as in ``pymlpgf.flow``.
    optim_solver : str
        As in ``pymlpgf.minimize``; "auto" takes one without the dense Hessian from 1000 parameters on.
    maxtime_optim, maxiterations_optim, min_gnorm
        As in ``pymlpgf.minimize``.
    init : str
        As in ``Net.random_params``.
    random_state : int, RandomState or None
        Of the initial parameters.
    warm_start : bool
        Go on from the last fit.
    verbose : 0, 1 or 2
        As ``verbosity`` in ``pymlpgf.train``.

    Attributes
    ----------
    result_ : TrainResult
        Of the last fit. A fit that runs out of time keeps its best point, and warns.
    params_ : Params
    coefs_, intercepts_ : lists of arrays
        Weights (inputs, units) and biases (units,) of each layer.
    loss_, loss_curve_
        The loss at the end; along the flow and at the end.
    n_iter_, n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_
        As in scikit-learn's MLPs.
"""


class GradientFlowRegressor(MultiOutputMixin, RegressorMixin, _GradientFlow):
    __doc__ = f"""A multilayer perceptron fitted by mean squared error, to the minimum next to the flow's end.
{_PARAMETERS}
    Examples
    --------
    >>> import numpy as np
    >>> from pymlpgf.sklearn import GradientFlowRegressor
    >>> X = np.linspace(-2, 2, 100).reshape(-1, 1)
    >>> y = np.tanh(3 * X[:, 0])
    >>> model = GradientFlowRegressor((3,), "tanh", alpha=1e-6, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.999
    True
    """

    _loss = "mse"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> GradientFlowRegressor:
        """Train on X (n_samples, n_features) and y (n_samples,) or (n_samples, n_outputs)."""
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        y = np.asarray(y, np.float64)
        self._flat_target = y.ndim == 1
        Y = y.reshape(len(y), -1)
        self._train(X, Y, sample_weight, self._layers(Y.shape[1], "identity"))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Outputs (n_samples,), or (n_samples, n_outputs) after a fit to several."""
        outputs = self._outputs(X)
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
    >>> model = GradientFlowClassifier((4,), "tanh", alpha=1e-3, random_state=0).fit(X / 8, y)
    >>> model.score(X / 8, y) > 0.96, model.predict_proba(X[:1] / 8).shape
    (True, (1, 3))
    """

    _loss = "nll"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> GradientFlowClassifier:
        """Train on X (n_samples, n_features) and labels y (n_samples,)."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        self.classes_, labels = np.unique(y, return_inverse=True)
        self._train(X, labels, sample_weight, self._layers(len(self.classes_), "softmax"))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n_samples, n_classes), in the order of ``classes_``."""
        return self._outputs(X)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of ``predict_proba``."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each sample."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]
