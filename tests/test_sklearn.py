"""The estimators are scikit-learn's kind, and find what the nets behind them find."""

from __future__ import annotations

import math
import pickle
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

import pymlpgf as mg
from pymlpgf.sklearn import GradientFlowClassifier, GradientFlowRegressor, _distinct, _held_out


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


# ---- standardisation -----------------------------------------------------------------------------------


def softplus(z: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, z)


@pytest.mark.parametrize("seed", range(4))
def test_coefs_are_those_for_data_as_given(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale, offset = 10.0 ** rng.uniform(-3, 3, 4), rng.normal(size=4) * 100
    X = rng.normal(size=(60, 4)) * scale + offset * scale
    X[:, 3] = offset[3]  # a constant
    Y = rng.normal(size=(60, 2)) * [1e-3, 1e4] + [5, -1e5]
    W, B = rng.integers(1, 5, (2, 60))
    hidden = ((), (3,), (4, 3))[seed % 3]
    model = GradientFlowRegressor(hidden, random_state=seed, maxiterations_optim=50)
    classifier = GradientFlowClassifier(hidden, random_state=seed, maxiterations_optim=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, Y, W)
        classifier.fit(X, B)
    for fitted, expected in ((model, model.predict(X)), (classifier, classifier.predict_log_proba(X))):
        z = X
        for k, (coefs, intercepts) in enumerate(zip(fitted.coefs_, fitted.intercepts_, strict=True)):
            z = (softplus(z) if k else z) @ coefs + intercepts
        if fitted is classifier:
            z = z - np.log(np.exp(z).sum(1, keepdims=True))
        np.testing.assert_allclose(z, expected, rtol=1e-8, atol=1e-8)
    standard = np.sqrt(np.average((Y - np.average(Y, axis=0, weights=W)) ** 2, axis=0, weights=W))
    errors = ((model.predict(X) - Y) / standard) ** 2
    loss = np.average(errors.sum(1), weights=W) + model.alpha / 2 * np.sum(model.params_.flat**2)
    np.testing.assert_allclose(model.loss_, loss, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_units_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    a, b = 10.0 ** rng.uniform(-6, 6, 3), rng.normal(size=3) * 10
    c, d = 10.0 ** rng.uniform(-6, 6, 2), rng.normal(size=2) * 10
    labels = (Y[:, 0] > 0).astype(int)
    options = {"alpha": 1e-2, "random_state": seed}
    one = GradientFlowRegressor((4,), **options).fit(X, Y)
    other = GradientFlowRegressor((4,), **options).fit((X + b) * a, (Y + d) * c)
    np.testing.assert_allclose(other.predict((X + b) * a) / c - d, one.predict(X), rtol=0, atol=1e-6)
    one = GradientFlowClassifier((4,), **options).fit(X, labels)
    other = GradientFlowClassifier((4,), **options).fit((X + b) * a, labels)
    np.testing.assert_allclose(other.predict_proba((X + b) * a), one.predict_proba(X), rtol=0, atol=1e-6)


def test_rare_values_are_not_blown_up() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 3)) * [1, 1e-3, 1e5]
    X[:, 1] = 7e-3 * (np.arange(100) == 17)  # a pixel that is nearly always dark: 9.9 standard deviations
    X[3, 2] = 1e7
    y = np.arange(100) % 2
    model = GradientFlowClassifier((2,), random_state=0).fit(X, y)
    Z = model.input_scaler_.transform(X)
    np.testing.assert_allclose(np.abs(Z).max(0)[1:], 5, rtol=1e-12)
    np.testing.assert_allclose(Z[:, 0], (X[:, 0] - X[:, 0].mean()) / X[:, 0].std(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(Z.mean(0), 0, atol=1e-12)
    scaled = make_pipeline(StandardScaler(), GradientFlowClassifier((2,), random_state=0)).fit(X, y)
    np.testing.assert_allclose(scaled.predict_proba(X), model.predict_proba(X), rtol=0, atol=1e-6)


@pytest.mark.parametrize("early", [False, True])
def test_constant_targets(early: bool) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2))
    model = GradientFlowRegressor((3,), random_state=0, early_stopping=early, min_gnorm=1e-12)
    model.fit(X, np.full(40, -7e4))
    np.testing.assert_allclose(model.predict(X), -7e4, rtol=0, atol=0.2 if early else 1e-6)
    model.fit(X, np.column_stack([X[:, 0], np.full(40, 3.0)]))
    assert np.abs(model.predict(X)[:, 1] - 3).max() < (0.2 if early else 0.05)


# ---- early stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(50))
def test_parts_of_each_class_are_held_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 12, rng.integers(1, 6))
    counts[-1] += 2
    fraction = rng.uniform(0.02, 0.98)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    held = np.bincount(labels[_held_out(labels, fraction, np.random.RandomState(seed))], minlength=len(counts))
    assert (held <= np.maximum(counts - 1, 0)).all()
    assert (np.abs(held - np.minimum(fraction * counts, np.maximum(counts - 1, 0))) <= 1).all()
    free = counts > np.ceil(fraction * counts)
    if (free | (counts == 0)).all():
        assert held.sum() == math.ceil(fraction * counts.sum())


def test_copies_are_one_sample_with_their_weight() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 2)), rng.normal(size=20)
    X[0, 0], X[1, 0] = 0.0, -0.0
    X[1, 1], y[1] = X[0, 1], y[0]  # the same sample
    copies = rng.integers(0, 20, 50)
    weights = rng.uniform(1, 2, 50)
    distinct, targets, summed = _distinct(X[copies], y[copies, None], weights)
    same = np.where(copies == 1, 0, copies)
    assert len(distinct) == len(np.unique(same))
    for x, target, weight in zip(distinct, targets[:, 0], summed, strict=True):
        (which,) = np.flatnonzero((x == X).all(1) & (y == target) & (np.arange(20) != 1))
        np.testing.assert_allclose(weight, weights[same == which].sum(), rtol=1e-14)


@pytest.mark.parametrize("kind", ["regressor", "classifier"])
def test_early_stopping_takes_the_time_of_least_validation_loss(kind: str) -> None:
    X, y = (load_diabetes if kind == "regressor" else load_wine)(return_X_y=True)
    rng = np.random.default_rng(0)
    y = y.astype(float) if kind == "regressor" else np.where(rng.uniform(size=len(y)) < 0.2, 0, y)  # wrong labels
    weights = rng.uniform(0.5, 2, len(y))
    estimator = GradientFlowRegressor if kind == "regressor" else GradientFlowClassifier
    model = estimator(
        (6,), "tanh", alpha=1e-4, early_stopping=True, validation_fraction=0.25, random_state=4,
        abstol=1e-9, reltol=1e-9, maxiterations_ode=5000, maxT=300,
    )  # fmt: skip
    model.fit(X, y, weights)
    # the parts, as documented: the split comes after the seed of the initial parameters
    rng = np.random.RandomState(4)
    seed = rng.randint(2**31)
    X, Y, weights = _distinct(X, y[:, None] if kind == "regressor" else y, weights)
    held = _held_out(np.zeros(len(X), int) if kind == "regressor" else Y, 0.25, rng)
    mean, std = (f(X[~held], weights[~held]) for f in (average, deviation))
    X = (X - mean) / std
    y = Y
    if kind == "regressor":
        y = (Y - average(Y[~held], weights[~held])) / deviation(Y[~held], weights[~held])
        layers, loss = [(6, "tanh", True), (1, "identity", True)], "mse"
    else:
        layers, loss = [(6, "tanh", True), (3, "softmax", True)], "nll"
    w = weights / weights[~held].mean()
    net = mg.Net(layers, X[~held], y[~held], weights=w[~held], loss=loss, l2=1e-4)
    p = net.random_params(seed)
    stop = model.stopping_time_
    assert 0 < stop < 300
    ends = [
        mg.flow(net, p, maxT=t, abstol=1e-9, reltol=1e-9, verbosity=0).x
        for t in (stop / 2, stop / 1.1, stop, stop * 1.1)
    ]
    ends.append(mg.flow(net, p, maxT=min(2 * stop, 300), abstol=1e-9, reltol=1e-9, verbosity=0).x)
    np.testing.assert_allclose(model.params_.flat, ends[2], atol=1e-5)
    validation = mg.Net(layers, X[held], y[held], weights=w[held], loss=loss)
    losses = [validation.loss(x) for x in ends]
    assert losses[2] == min(losses)
    outputs = net(ends[2], X[held])
    if kind == "regressor":
        expected = r2_score(y[held], outputs, sample_weight=w[held])
    else:
        expected = accuracy_score(y[held], outputs.argmax(1), sample_weight=w[held])
    assert model.best_validation_score_ == pytest.approx(expected, rel=1e-5)
    assert len(model.validation_times_) == len(model.validation_scores_) > 10
    assert model.validation_times_[0] == 0
    assert model.validation_times_[-1] == pytest.approx(300)
    assert model.result_.sol is None
    assert model.loss_ == pytest.approx(net.loss(model.params_), rel=1e-10)
    model.set_params(early_stopping=False, maxiterations_ode=5, maxiterations_optim=20)
    with pytest.warns(ConvergenceWarning):
        model.fit(X, y)
    assert (
        model.stopping_time_
        is model.validation_scores_
        is model.validation_times_
        is model.best_validation_score_
        is None
    )


def average(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.average(values, axis=0, weights=weights)


def deviation(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.sqrt(average((values - average(values, weights)) ** 2, weights))


def test_early_stopping_keeps_from_overfitting() -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(600, 4))
    truth = np.sin(X[:, 0]) + X[:, 1]
    y = truth + rng.normal(size=600)
    options = {"alpha": 0, "random_state": 0, "maxiterations_optim": 300}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        minimum = GradientFlowRegressor((20,), "tanh", **options).fit(X[:100], y[:100])
        stopped = GradientFlowRegressor((20,), "tanh", early_stopping=True, **options).fit(X[:100], y[:100])
    assert minimum.score(X[:100], y[:100]) > 0.95  # it learned the noise: the truth alone has 0.6
    assert minimum.score(X[100:], truth[100:]) < 0.5 < 0.7 < stopped.score(X[100:], truth[100:])


def test_copies_and_weights_stop_at_the_same_time() -> None:
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(60, 2)), rng.integers(0, 3, 60)
    counts = rng.integers(0, 4, 60)
    model = GradientFlowClassifier((5,), early_stopping=True, random_state=0)
    weighted = model.fit(X, y, counts).predict_proba(X)
    np.testing.assert_array_equal(model.fit(np.repeat(X, counts, 0), np.repeat(y, counts)).predict_proba(X), weighted)


def test_a_flow_that_ends_too_early_warns() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = GradientFlowRegressor((5,), early_stopping=True, random_state=0, maxiterations_ode=3)
    with pytest.warns(
        ConvergenceWarning, match=r"the validation loss still falls at the end of the flow. The iteration"
    ):
        model.fit(X, y)
    assert model.stopping_time_ == model.result_.ode_t


def test_arguments_are_checked() -> None:
    X, y = np.arange(10.0)[:, None], np.arange(10.0)
    for fraction in (0, 1, -0.1, np.nan, "half"):
        with pytest.raises(mg.InputError, match=r"validation_fraction is .*; a number between 0 and 1 is needed"):
            GradientFlowRegressor(early_stopping=True, validation_fraction=fraction).fit(X, y)
    with pytest.raises(mg.InputError, match="maxT is 'long'; a number or \"auto\" is needed"):
        GradientFlowRegressor(maxT="long").fit(X, y)
    with pytest.raises(mg.InputError, match=r"there is none .n_samples = 10 without copies"):
        GradientFlowClassifier(early_stopping=True).fit(X, np.arange(10))


# ---- continuing ----------------------------------------------------------------------------------------


def test_partial_fits_are_one_flow_in_parts() -> None:
    X, y = load_wine(return_X_y=True)
    weights = np.random.default_rng(0).uniform(0.5, 2, len(y))
    tight = {"abstol": 1e-10, "reltol": 1e-10, "maxiterations_ode": 10_000, "random_state": 0}
    parts = GradientFlowClassifier((4,), "tanh", maxT=0.5, **tight)
    for _ in range(4):
        parts.partial_fit(X, y, classes=[0, 1, 2], sample_weight=weights)
    whole = GradientFlowClassifier((4,), "tanh", maxT=2, **tight)
    whole.partial_fit(X, y, classes=[0, 1, 2], sample_weight=weights)
    np.testing.assert_allclose(parts.params_.flat, whole.params_.flat, rtol=0, atol=1e-8)
    assert whole.result_.ode_t == 2
    assert whole.loss_ < whole.loss_curve_[0]
    auto = GradientFlowClassifier((4,), "tanh", early_stopping=True, **tight).partial_fit(X, y, [0, 1, 2], weights)
    parts = GradientFlowClassifier((4,), "tanh", maxT=0.5, **tight)
    for _ in range(2):
        parts.partial_fit(X, y, classes=[0, 1, 2], sample_weight=weights)
    np.testing.assert_allclose(auto.params_.flat, parts.params_.flat, rtol=0, atol=1e-8)


def test_partial_fit_goes_on_from_a_fit() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = GradientFlowRegressor((3,), alpha=1e-2, random_state=0).fit(X[:300], y[:300])
    end, mean, before = model.params_.flat.copy(), model.input_scaler_.mean_.copy(), model.predict(X)
    model.partial_fit(X[300:], y[300:])
    np.testing.assert_array_equal(model.result_.init, end)
    np.testing.assert_array_equal(model.input_scaler_.mean_, mean)
    assert np.sum((model.predict(X)[300:] - y[300:]) ** 2) < np.sum((before[300:] - y[300:]) ** 2)
    with pytest.raises(mg.InputError, match=r"partial_fit continues the network .*: call fit for another one"):
        model.set_params(hidden_layer_sizes=(4,)).partial_fit(X, y)


def test_the_first_partial_fit_of_a_classifier_needs_its_classes() -> None:
    X = np.arange(12.0).reshape(-1, 1)
    y = np.repeat(["low", "middle", "high"], 4)
    model = GradientFlowClassifier((3,), random_state=0, maxT=20)
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        model.partial_fit(X, y)
    model.partial_fit(X[:8], y[:8], classes=["low", "middle", "high"])
    assert model.predict_proba(X).shape == (12, 3)
    for _ in range(20):
        model.partial_fit(X, y)
    assert model.score(X, y) == 1
    with pytest.raises(mg.InputError, match=r"y holds 'huge'.*; the classes are \['high', 'low', 'middle'\]"):
        model.partial_fit(X[:1], ["huge"])


def test_warm_start_keeps_the_standardisation() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = GradientFlowRegressor((3,), alpha=1e-2, random_state=0, warm_start=True).fit(X, y)
    end, mean = model.params_.flat.copy(), model.target_scaler_.mean_.copy()
    model.fit(X[:200], y[:200])
    np.testing.assert_array_equal(model.result_.init, end)
    np.testing.assert_array_equal(model.target_scaler_.mean_, mean)
    model.set_params(warm_start=False).fit(X[:200], y[:200])
    np.testing.assert_allclose(model.target_scaler_.mean_, y[:200].mean())


# ---- defaults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [False, True], ids=["raw", "scaled"])
@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer, load_digits, load_diabetes])
def test_defaults_are_at_least_as_good_as_those_of_scikit_learn(load, scaled: bool) -> None:
    X, y = load(return_X_y=True)
    regression = load is load_diabetes
    folds = (KFold if regression else StratifiedKFold)(5, shuffle=True, random_state=0)
    ours, theirs = [], []
    with warnings.catch_warnings(), threadpool_limits(1):  # two threads are slower here, and stop for each other
        warnings.simplefilter("ignore", ConvergenceWarning)  # of scikit-learn's, after 200 epochs
        for k, (train, test) in enumerate(folds.split(X, y)):
            for kind, scores in (
                (GradientFlowRegressor if regression else GradientFlowClassifier, ours),
                (MLPRegressor if regression else MLPClassifier, theirs),
            ):
                estimator = kind(random_state=k)
                model = make_pipeline(StandardScaler(), estimator) if scaled else estimator
                scores.append(model.fit(X[train], y[train]).score(X[test], y[test]))
    difference = np.subtract(ours, theirs)
    assert difference.mean() >= -difference.std(ddof=1) / np.sqrt(5)
    if regression:
        assert np.mean(ours) > 0.3


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_fitted_estimator_holds_no_training_data(early_stopping):
    X, y = load_diabetes(return_X_y=True)
    model = GradientFlowRegressor((2,), early_stopping=early_stopping, random_state=0, maxT=1).fit(X, y)
    assert model.result_.problem == {}
    assert model.result_.sol is None
    few = GradientFlowRegressor((2,), early_stopping=early_stopping, random_state=0, maxT=1).fit(X[:60], y[:60])
    assert len(pickle.dumps(model)) - len(pickle.dumps(few)) < X.nbytes / 2  # trajectories differ by some points
