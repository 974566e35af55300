"""Faults at random moments of a run: what was found is kept, the session goes on, and other runs are as before."""

from __future__ import annotations

import os
import random
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pymlpgf as mg

MOMENTS = 6  # of each kind of fault in a round
LENGTH = 40  # iterations of a run that nothing disturbs, unless it ends before

Run = Callable[..., mg.TrainResult]


def flow(net: mg.Net, start: np.ndarray, alg: str, **options: Any) -> mg.TrainResult:
    return mg.flow(net, start, alg=alg, maxiterations_ode=LENGTH, verbosity=0, **options)


def minimize(net: mg.Net, start: np.ndarray, solver: str, **options: Any) -> mg.TrainResult:
    return mg.minimize(net, start, optim_solver=solver, maxiterations_optim=LENGTH, verbosity=0, **options)


RUNS: list[tuple[Callable[..., mg.TrainResult], str]] = [
    *((flow, alg) for alg in ("Tsit5", "Rodas5P", "QNDF", "Adam")),
    *((minimize, solver) for solver in ("NewtonTrustRegion", "BFGS", "LBFGS", "LevenbergMarquardt")),
]


def make_net(activation: str) -> mg.Net:
    X = np.random.default_rng(0).normal(size=(60, 3))
    return mg.Net(layers=[(4, activation, True), (1, "identity", True)], input=X, target=np.sin(2 * X).sum(1))


@pytest.fixture(scope="module")
def net() -> mg.Net:
    return make_net("tanh")


@pytest.fixture(scope="module")
def start(net: mg.Net) -> np.ndarray:
    return net.random_params(seed=1).flat


@pytest.fixture(scope="module")
def undisturbed(net: mg.Net, start: np.ndarray) -> dict[str, mg.TrainResult]:
    return {name: run(net, start, name) for run, name in RUNS}


def iterations(result: mg.TrainResult) -> int:
    return result.ode_iterations or result.optim_iterations


def disturbances(
    chance: random.Random, undisturbed: dict[str, mg.TrainResult], act: Callable[[], None]
) -> Iterator[tuple[Run, str, Callable[[Any], None], int]]:
    """Runs, each with a callback that acts at a random iteration."""
    for _ in range(MOMENTS):
        run, name = chance.choice(RUNS)
        moment = chance.randrange(1, iterations(undisturbed[name]))

        def callback(step: Any, moment: int = moment) -> None:
            if step.iteration == moment:
                act()

        yield run, name, callback, moment


def check_kept(net: mg.Net, start: np.ndarray, result: mg.TrainResult, moment: int, stopped_by: str) -> None:
    assert iterations(result) == moment
    assert stopped_by in (result.ode_stopped_by, result.optim_stopped_by)
    assert result.loss == pytest.approx(net.loss(result.x), rel=1e-12)
    assert result.loss <= net.loss(start)


def check_session(net: mg.Net, start: np.ndarray, undisturbed: dict[str, mg.TrainResult]) -> None:
    for run, name in RUNS:
        np.testing.assert_array_equal(run(net, start, name).x, undisturbed[name].x)


def test_a_callback_raises(net, start, undisturbed, chance):
    def act() -> None:
        raise ZeroDivisionError("mine")

    for run, name, callback, moment in disturbances(chance, undisturbed, act):
        with pytest.raises(ZeroDivisionError, match="mine") as caught:
            run(net, start, name, callback=callback)
        check_kept(net, start, caught.value.result, moment, "callback")
    check_session(net, start, undisturbed)


def test_a_callback_stops_the_run(net, start, undisturbed, chance):
    def act() -> None:
        raise StopIteration

    for run, name, callback, moment in disturbances(chance, undisturbed, act):
        check_kept(net, start, run(net, start, name, callback=callback), moment, "callback")
    check_session(net, start, undisturbed)


def test_a_callback_presses_ctrl_c(net, start, undisturbed, chance):
    def act() -> None:
        signal.raise_signal(signal.SIGINT)

    for run, name, callback, moment in disturbances(chance, undisturbed, act):
        check_kept(net, start, run(net, start, name, callback=callback), moment, "interrupted")
    check_session(net, start, undisturbed)


def test_a_callback_forks(net, start, undisturbed, chance):
    """The child is refused, and the parent's run is none the worse."""

    def act() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads
            child = os.fork()
        if child == 0:
            code = 1
            try:
                net.loss(start)
            except mg.ThreadError:
                code = 0
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    codes: list[int] = []
    for run, name, callback, _ in disturbances(chance, undisturbed, act):
        np.testing.assert_array_equal(run(net, start, name, callback=callback).x, undisturbed[name].x)
    assert codes == [0] * MOMENTS


def test_another_thread_calls(net, start, undisturbed, chance):
    """It is refused, and the run is none the worse."""

    def call() -> None:
        try:
            net.gradient(start)
        except mg.ThreadError as error:
            refused.append(error)

    def act() -> None:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(timeout=10)

    refused: list[mg.ThreadError] = []
    for run, name, callback, _ in disturbances(chance, undisturbed, act):
        np.testing.assert_array_equal(run(net, start, name, callback=callback).x, undisturbed[name].x)
    assert len(refused) == MOMENTS


def test_time_runs_out(net, start, undisturbed, chance):
    for _ in range(MOMENTS):
        limit = chance.uniform(1e-4, 0.1)
        result = mg.flow(net, start, alg="Tsit5", abstol=1e-13, reltol=1e-13, maxtime_ode=limit, verbosity=0)
        check_kept(net, start, result, result.ode_iterations, "maxtime")
        assert limit <= result.ode_time_run < limit + 1
    check_session(net, start, undisturbed)


def test_julia_code_throws(net, start, undisturbed, chance):
    """An activation that throws beyond some input: at the start or on the way, and the net lives on."""
    edge = chance.uniform(2.2, 3.5)
    brittle = make_net(f'x -> abs(x) > {edge} ? error("beyond") : tanh(x)')
    thrown = 0
    for _ in range(4 * MOMENTS):
        p = brittle.random_params(seed=chance.randrange(1000)).flat
        run, name = chance.choice(RUNS[:1] + RUNS[4:6])
        try:
            assert run(brittle, p, name).loss <= brittle.loss(p)
        except mg.JuliaError as error:
            thrown += "beyond" in str(error)
    assert thrown, "nothing was thrown: the test tests nothing"
    check_session(net, start, undisturbed)


def test_matrices_that_no_machine_holds(net, start, undisturbed, chance):
    for _ in range(MOMENTS):
        k, D = chance.randrange(700, 1000), chance.randrange(700, 1000)
        wide = mg.Net(layers=[(k, "tanh", True), (1, "identity", True)], input=np.ones((2, D)), target=np.zeros(2))
        P = k * (D + 2) + 1
        call = chance.choice((wide.hessian, lambda p, wide=wide: mg.flow(wide, p, alg="Rodas5P")))
        with pytest.raises(mg.InputError, match=rf"needs \d[\d.]* TB .* of {P} × {P}"):
            call(wide.random_params(seed=0))
    check_session(net, start, undisturbed)
