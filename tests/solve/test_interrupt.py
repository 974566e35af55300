"""Ctrl-C and other signals: in a solver, in one long evaluation, between calls, while Julia starts, and too often.

Delays are measured in the child, from the moment before the signal is sent to the moment when the call returns.
The median over several moments is asserted, so that one turn of a busy machine does not decide.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from conftest import PRELUDE

from pymlpgf.runtime.hosts.signals import Interruptible

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a process sends itself POSIX signals")

#: ``interrupt(call, moments)`` runs ``call`` once for each moment, presses Ctrl-C then, and returns the results.
INTERRUPT = (
    PRELUDE
    + """
BOUND = 0.2

def press(delay, times=1, gap=0.01):
    sent = []
    def run():
        time.sleep(delay)
        for _ in range(times):
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(gap)
    pressing.append(threading.Thread(target=run))
    pressing[-1].start()
    return pressing[-1], sent

pressing = []

def join(thread):
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt:                             # a later press
            pass

def interrupt(call, moments, times=1):
    results, delays = [], []
    for moment in moments:
        thread, sent = press(moment, times)
        try:
            results.append(call())
            end = time.perf_counter()
        finally:
            join(thread)
        delays.append(end - sent[0])
    assert np.median(delays) < BOUND, delays
    return results

def check(res, net, p):
    assert list(mg.Stop)[res.status] == "interrupted", res
    assert "nterrupted" in res.message and not res.converged and not res.success
    assert np.isfinite(res.x).all() and res.loss <= net.loss(p)
    assert np.isclose(res.loss, net.loss(res.x), rtol=1e-12)

def idle_ctrl_c():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        return
    raise AssertionError("an idle Ctrl-C was swallowed")
"""
)

NET = """
    net = make_net(n=30_000, width=12, features=3)
    p = net.random_params(seed=1)
    tight = dict(abstol=1e-12, reltol=1e-12)
"""
# What is not compiled yet cannot be interrupted.
WARM_FLOW = NET + '    mg.flow(net, p, alg="Tsit5", maxiterations_ode=2)\n'
WARM = (
    WARM_FLOW
    + """
    for alg in ("Rodas5P", "auto"):
        mg.train(net, p, alg=alg, maxiterations_ode=2, maxiterations_optim=2)
    mg.minimize(net, p, maxiterations_optim=2)
"""
)


def test_solvers_return_their_best_point(run_python, chance):
    moments = tuple(chance.uniform(0.12, 0.45) for _ in range(3))
    run_python(
        WARM
        + f"    moments = {moments}\n"
        + """
    for alg in ("Tsit5", "Rodas5P"):
        for res in interrupt(lambda: mg.flow(net, p, alg=alg, maxtime_ode=30, **tight), moments):
            check(res, net, p)
            assert res.ode_stopped_by == "interrupted" and res.optim_stopped_by is None
            assert res.ode_time_run < 5 and res.trajectory.t[-1] == res.ode_t
    for res in interrupt(lambda: mg.minimize(net, p, maxtime_optim=30), moments):
        check(res, net, p)
        assert res.optim_stopped_by == "interrupted" and res.ode_stopped_by is None
        assert res.optim_iterations > 0 and res.loss < net.loss(p)
    for res in interrupt(lambda: mg.train(net, p, maxtime_ode=30, **tight), moments):
        check(res, net, p)
        assert res.ode_stopped_by == "interrupted" and res.optim_stopped_by is None
    for res in interrupt(lambda: mg.train(net, p, maxtime_ode=0.1, maxtime_optim=30), (0.4, 0.5, 0.6)):
        check(res, net, p)
        assert res.ode_stopped_by == "maxtime" and res.optim_stopped_by == "interrupted"

    idle_ctrl_c()
    res = mg.train(net, p, maxtime_ode=0.1, maxtime_optim=0.1)
    assert (res.ode_stopped_by, res.optim_stopped_by) == ("maxtime", "maxtime")
    """,
        prelude=INTERRUPT,
    )


def test_one_long_evaluation_is_interrupted_within(run_python):
    run_python(
        """
    small = make_net(width=2)
    mg.train(small, small.random_params(), alg="Rodas5P", maxiterations_ode=2, maxiterations_optim=2)
    net = make_net(n=400_000, width=40, features=4)
    p = net.random_params(seed=1)
    begin = time.perf_counter()
    net.hessian(p)
    assert time.perf_counter() - begin > 0.25, "one Hessian is not long enough here to test anything"
    for solver in (mg.minimize, lambda net, p: mg.flow(net, p, alg="Rodas5P")):
        for res in interrupt(lambda: solver(net, p), (0.5, 0.65, 0.8)):
            check(res, net, p)
    idle_ctrl_c()
    """,
        prelude=INTERRUPT,
    )


def test_ctrl_c_from_outside_ends_a_flow_with_a_result(start_python):
    child = start_python(
        WARM_FLOW
        + """
    print("solving", flush=True)
    res = mg.flow(net, p, maxtime_ode=60, alg="Tsit5", **tight)
    try:
        print(res.ode_stopped_by, flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("idle", flush=True)
    """,
        prelude=INTERRUPT,
    )
    assert child.line() == "solving"
    time.sleep(0.5)
    begin = time.perf_counter()
    child.send(signal.SIGINT)
    assert child.line() == "interrupted"
    assert time.perf_counter() - begin < 2  # the way through two processes; the child's own delay is tested above
    child.send(signal.SIGINT)
    assert child.line() == "idle"
    child.finish()


def test_many_presses_do_no_harm(run_python):
    run_python(
        WARM_FLOW
        + """
    for gap in (0, 0.001, 0.01):                              # three at once: all come before the solver looks up
        try:
            res, = interrupt(lambda: mg.flow(net, p, alg="Tsit5", maxtime_ode=30, **tight), (0.2,), times=3)
            check(res, net, p)
        except KeyboardInterrupt:
            pass                                              # the last one came after the solver had returned
    H = np.empty((net.n_params, net.n_params))
    g = np.empty(net.n_params)
    for k in range(60):                                       # short calls: a KeyboardInterrupt between two of them
        try:                                                  # a press may come before its thread's start returns
            press(0.004 * (k % 5))
            while True:
                net.gradient(p, g)
                if k % 2:
                    net.hessian(p, H)
        except KeyboardInterrupt:
            join(pressing[-1])
    expected = make_net(n=30_000, width=12, features=3)
    assert np.array_equal(net.gradient(p), expected.gradient(p)) and np.array_equal(net.hessian(p), expected.hessian(p))
    """,
        prelude=INTERRUPT,
    )


def test_a_loop_of_short_solves_can_be_left(run_python):
    """A Ctrl-C that a solver does not see before it ends by itself must not vanish with it."""
    run_python(
        """
    net = make_net(n=5000, width=5)
    p = net.random_params()                                   # a solve takes some 20 ms, less than two polls need
    mg.flow(net, p, alg="Tsit5", maxiterations_ode=10)
    for _ in range(5):
        try:
            thread, sent = press(0.05)
            while time.perf_counter() - (sent or [time.perf_counter()])[0] < 20:
                res = mg.flow(net, p, alg="Tsit5", maxiterations_ode=10)
                if res.ode_stopped_by == "interrupted":       # the first poll of a solve has seen it
                    raise KeyboardInterrupt
            raise AssertionError("Ctrl-C was swallowed")
        except KeyboardInterrupt:
            join(pressing[-1])
    """,
        prelude=INTERRUPT,
    )


def test_interruptible_delivers_what_no_poll_has_seen():
    before = signal.getsignal(signal.SIGINT)

    def ctrl_c(seen):
        with Interruptible() as interruptible:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            assert interruptible.interrupted
            interruptible.seen = seen

    with pytest.raises(KeyboardInterrupt):
        ctrl_c(seen=False)
    ctrl_c(seen=True)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("chosen", [signal.SIG_IGN, signal.SIG_DFL])
def test_interruptible_respects_a_program_that_handles_ctrl_c_otherwise(chosen):
    before = signal.signal(signal.SIGINT, chosen)
    try:
        with Interruptible():
            assert signal.getsignal(signal.SIGINT) is chosen
    finally:
        signal.signal(signal.SIGINT, before)


def test_interruptible_leaves_signals_alone_in_other_threads():
    before, seen = signal.getsignal(signal.SIGINT), []

    def run():
        with Interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


def test_an_exception_in_a_signal_handler_leaves_the_solver(run_python, chance):
    """A time limit by SIGALRM: the handler runs inside the solver's callback, mostly at its first instruction."""
    moments = tuple(chance.uniform(0.05, 0.3) for _ in range(4))
    run_python(
        WARM
        + f"    moments = {moments}\n"
        + """
    def limit(number, frame):
        raise TimeoutError("time is up")

    signal.signal(signal.SIGALRM, limit)
    handles = "length(Base.require(Main, :MLPGF).HANDLES)"
    flow = lambda: mg.flow(net, p, alg="Tsit5", maxtime_ode=30, **tight)
    for moment in moments:
        for solve in (flow, lambda: mg.minimize(net, p, maxtime_optim=30)):
            signal.setitimer(signal.ITIMER_REAL, moment)
            begin = time.perf_counter()
            raises(TimeoutError, solve, "time is up")
            assert time.perf_counter() - begin < 5
    assert runtime.evaluate(handles) == 1                      # the net; results that nobody got are released
    assert sys.unraisablehook is sys.__unraisablehook__
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    """,
        prelude=INTERRUPT,
    )


@pytest.mark.parametrize("work", ["flow", "sleep"])
def test_sigterm(start_python, work):
    """It ends the process; with a handler of the user's it calls that, in a solver within a poll."""
    handle = "    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    code = {
        "flow": WARM_FLOW
        + "    print('ready', flush=True)\n    mg.flow(net, p, alg='Tsit5', maxtime_ode=60, **tight)\n",
        "sleep": "    mg.init()\n    print('ready', flush=True)\n    time.sleep(60)\n",
    }[work]
    children = [(start_python(code, prelude=INTERRUPT), -signal.SIGTERM), (start_python(handle + code), 7)]
    for child, rc in children:
        assert child.line() == "ready"
        time.sleep(0.3)
        child.send(signal.SIGTERM)
        child.finish(rc, limit=30)


def test_ctrl_c_while_julia_starts_leaves_it_usable(run_python):
    run_python(
        """
    raised = 0
    thread, sent = press(0.1, times=8, gap=0.1)
    while thread.is_alive():
        try:
            mg.init()
            time.sleep(0.01)
        except KeyboardInterrupt:
            raised += 1
    assert raised
    net = make_net()
    p = net.random_params()
    assert np.isfinite(net.loss(p)) and mg.flow(net, p, maxT=0.1).ode_stopped_by == "maxT"
    idle_ctrl_c()
    """,
        prelude=INTERRUPT,
    )
