"""The estimators are scikit-learn's kind, and find what the nets behind them find."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pymlpgf as mg
from pymlpgf.sklearn import GradientFlowClassifier, GradientFlowRegressor


@parametrize_with_checks(
    [
        GradientFlowRegressor(random_state=0),
        GradientFlowClassifier(random_state=0),
        GradientFlowRegressor(early_stopping=True, random_state=0),
        GradientFlowClassifier(early_stopping=True, random_state=0),
    ]
)
def test_estimator_checks(estimator, check) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        check(estimator)


def test_linear_model_is_ridge_regression() -> None:
    X, y = load_diabetes(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    y = y - y.mean()
    X -= X.mean(0)
    model = GradientFlowRegressor((), alpha=0.1, min_gnorm=0).fit(X, y)
    # mean (f - y)² + 0.05 ‖w‖² is sum (f - y)² + 0.05 N ‖w‖²; data and target are centred, so the bias is 0
    exact = Ridge(alpha=0.05 * len(y), fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(model.coefs_[0][:, 0], exact.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.predict(X), exact.predict(X), rtol=0, atol=1e-8 * np.abs(y).max())


def test_digits_are_learned() -> None:
    X, y = load_digits(return_X_y=True)
    train, test, labels, expected = train_test_split(X / 16, y, random_state=0, stratify=y)
    model = GradientFlowClassifier((8,), "tanh", alpha=1e-3, random_state=1, maxiterations_ode=40)
    model.fit(train, labels)
    assert model.score(test, expected) > 0.93
    assert model.loss_curve_[-1] < model.loss_curve_[0] / 5
    np.testing.assert_allclose(model.predict_proba(test).sum(1), 1, rtol=1e-12)


def test_an_unfinished_fit_warns_and_keeps_its_best_point() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = GradientFlowRegressor((5,), "tanh", random_state=0, maxiterations_ode=3, maxiterations_optim=2)
    with pytest.warns(ConvergenceWarning, match="not converged: The iteration limit was reached"):
        model.fit(X, y / 100)
    assert model.loss_ < model.loss_curve_[0]
    assert model.predict(X).shape == y.shape


def test_weights_count_samples() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 2)), rng.normal(size=30)
    counts = rng.integers(0, 3, 30)
    weighted = GradientFlowRegressor((2,), alpha=1e-2, random_state=0, min_gnorm=1e-12).fit(X, y, counts)
    repeated = GradientFlowRegressor((2,), alpha=1e-2, random_state=0, min_gnorm=1e-12).fit(
        np.repeat(X, counts, 0), np.repeat(y, counts)
    )
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-8)


def test_warm_start_goes_on_and_random_state_repeats() -> None:
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(50, 2)), rng.normal(size=50)
    model = GradientFlowRegressor((4,), "tanh", random_state=3, warm_start=True, min_gnorm=1e-9).fit(X, y)
    again = GradientFlowRegressor((4,), "tanh", random_state=3, min_gnorm=1e-9).fit(X, y)
    np.testing.assert_array_equal(model.params_.flat, again.params_.flat)
    end = model.params_.flat.copy()
    model.fit(X, y)
    np.testing.assert_array_equal(model.result_.init, end)
    assert model.n_iter_ == 1


def test_one_activation_a_layer() -> None:
    X = np.linspace(-1, 1, 40).reshape(-1, 1)
    model = GradientFlowRegressor((3, 2), ["tanh", "softplus"], random_state=0).fit(X, X[:, 0] ** 2)
    assert [f for _, f, _ in model.layers_] == ["tanh", "softplus", "identity"]
    with pytest.raises(mg.InputError, match="activation is a list of 2 for 1 hidden layers"):
        GradientFlowRegressor((3,), ["tanh", "relu"]).fit(X, X[:, 0])


def test_pickle_predicts_the_same() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = make_pipeline(StandardScaler(), GradientFlowRegressor((2,), "g", alpha=1e-2, random_state=0)).fit(
        X, y / 100
    )
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))


def test_grid_search_in_processes() -> None:
    X, y = load_diabetes(return_X_y=True)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), GradientFlowRegressor((2,), "tanh", random_state=0, maxiterations_optim=50)),
        {"gradientflowregressor__alpha": [1e-3, 1e-1]}, cv=2, n_jobs=2,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(X, (y - y.mean()) / y.std())
    assert search.best_score_ > 0.3
