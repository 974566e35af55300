"""What an embedded Julia can do to a Python process, each with its mend: signals, faulthandler, import orders,
threads, forks, finalizers, re-entrancy, exceptions, two Julias, importing, leaving."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path

import pytest
from conftest import PRELUDE, ROOT

from pymlpgf.errors import JuliaError, RuntimeUnavailable
from pymlpgf.runtime.bridge import Bridge
from pymlpgf.runtime.hosts.embedded import EmbeddedHost
from pymlpgf.runtime.julia import Julia

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and processes")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
TWO_THREADS = {"PYMLPGF_THREADS": "2"}


# ---- signals -----------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("threads", ["1", "2"])
def test_starting_julia_changes_no_signal(run_python, threads):
    run_python(
        """
    import ctypes
    libc = ctypes.CDLL(None)

    def disposition(number):                                  # what the kernel will do, not what Python remembers
        action = (ctypes.c_void_p * 32)()
        libc.sigaction(ctypes.c_int(number), None, action)
        return action[0]

    def state():
        kept = signal.valid_signals() - {getattr(signal, name) for name in JULIAS + ("SIGKILL", "SIGSTOP")}
        return {number: (signal.getsignal(number), disposition(number)) for number in kept}

    # Julia's own: faults, and SIGUSR2 by which its profiler stops threads
    JULIAS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGUSR2")
    calls = []
    signal.signal(signal.SIGUSR1, lambda *_: calls.append("USR1"))
    signal.signal(signal.SIGCHLD, lambda *_: calls.append("CHLD"))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
    mask, before = signal.pthread_sigmask(signal.SIG_BLOCK, []), state()
    mg.init()
    net = make_net()
    assert np.isfinite(net.loss(net.random_params()))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask == {signal.SIGWINCH}
    after = state()
    changed = [(number, before[number], after[number]) for number in after if after[number] != before[number]]
    assert not changed and after.keys() == before.keys(), changed
    calls.clear()                                             # finding Julia may have asked a process
    for _ in range(20):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            calls.append("INT")
    os.kill(os.getpid(), signal.SIGUSR1)
    import subprocess
    subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    assert calls == ["INT"] * 20 + ["USR1", "CHLD"], calls
    """,
        environment={"PYMLPGF_THREADS": threads},
    )


@posix
def test_a_user_handler_of_sigusr2_survives(run_python):
    """Batch systems announce the end of a job's time by SIGUSR2."""
    run_python("""
    calls = []
    signal.signal(signal.SIGUSR2, lambda *_: calls.append(1))
    net = make_net()
    os.kill(os.getpid(), signal.SIGUSR2)
    assert calls == [1]
    assert np.isfinite(net.loss(net.random_params()))
    """)


@posix
def test_children_begin_with_an_empty_mask(run_python):
    run_python("""
    import subprocess
    mg.init()
    print_mask = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    out = subprocess.run([sys.executable, "-c", print_mask], capture_output=True, text=True, check=True)
    assert out.stdout == "set()\\n", out.stdout
    """)


@posix
def test_a_process_that_julia_starts_while_loading_leaves_sigchld():
    """libuv sets SIGCHLD to its default when the last process of its own has ended; asyncio needs the handler."""

    class Host:
        def eval(self, code: str) -> int:
            libc.signal(signal.SIGCHLD, 0)
            raise JuliaError("enough")

    libc = ctypes.CDLL(None)
    calls = []
    before = signal.signal(signal.SIGCHLD, lambda *_: calls.append(1))
    try:
        with pytest.raises(JuliaError, match="enough"):
            Bridge(Host(), Path("package"), 1)
        os.kill(os.getpid(), signal.SIGCHLD)
        assert calls == [1]
    finally:
        signal.signal(signal.SIGCHLD, before)


# ---- faulthandler ------------------------------------------------------------------------------------------

# Collections while the other thread runs Julia code: it is stopped by a page fault, which needs Julia's handler.
COLLECT = '''
    COLLECT = """
    total = Threads.Atomic{Int}(0)
    Threads.@threads for i in 1:4
        for j in 1:10000
            Threads.atomic_add!(total, length([rand(10) for k in 1:5]))
        end
        GC.gc(false)
    end
    total[]"""

    def work():
        assert runtime.evaluate("Threads.nthreads()") == 2
        assert runtime.evaluate(COLLECT) == 4 * 10000 * 5
        nets = [make_net(seed=seed) for seed in range(20)]
        for net in nets:
            assert np.isfinite(net.hessian(net.random_params())).all()
        assert runtime.evaluate("GC.gc(); 1") == 1
'''


@posix
@pytest.mark.parametrize("before", [False, True], ids=["enabled after", "enabled before"])
def test_faulthandler_with_two_julia_threads(run_python, before):
    run_python(
        f"    import faulthandler\n    if {before}: faulthandler.enable()\n    mg.init()\n"
        + COLLECT
        + """
    work()
    for toggle in ("enable", "disable", "enable", "disable enable", "enable disable", "disable enable disable"):
        for step in toggle.split():
            getattr(faulthandler, step)()
        work()
    net = make_net(n=5000)                                    # switched in a solve: its next report mends it
    switch = threading.Timer(0.2, lambda: (faulthandler.disable(), faulthandler.enable()))
    switch.start()
    mg.flow(net, net.random_params(), alg="Tsit5", maxtime_ode=0.5, abstol=1e-12, reltol=1e-12)
    switch.join()
    work()
    """,
        environment=TWO_THREADS,
    )


# ---- other libraries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("julia_first", [True, False], ids=["julia first", "julia last"])
@pytest.mark.parametrize("libraries", ["torch", "scipy.optimize, scipy.linalg, sklearn.linear_model"])
def test_import_order(run_python, libraries, julia_first):
    missing = [name for name in libraries.split(", ") if importlib.util.find_spec(name.split(".")[0]) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    start, load = "    mg.init()\n", f"    import {libraries}\n"
    run_python(
        (start + load if julia_first else load + start)
        + """
    net = make_net(n=100, width=4, features=2)
    p = net.random_params(seed=3).flat
    g, H = net.gradient(p), net.hessian(p)
    h = 1e-5
    for k in range(net.n_params):
        e = h * np.eye(net.n_params)[k]
        assert abs((net.loss(p + e) - net.loss(p - e)) / (2 * h) - g[k]) < 1e-7
        assert np.abs((net.gradient(p + e) - net.gradient(p - e)) / (2 * h) - H[k]).max() < 1e-6
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        rng = np.random.default_rng(0)                        # make_net's data
        x = torch.tensor(rng.standard_normal((100, 2)))
        y = torch.sin(2 * x[:, 0]) + torch.tensor(rng.standard_normal(100))
        theta = torch.tensor(p, requires_grad=True)
        W, b, V, c = theta[:8].reshape(4, 2), theta[8:12], theta[12:16], theta[16]
        ((torch.tanh(x @ W.T + b) @ V + c - y) ** 2).mean().backward()
        assert np.allclose(theta.grad.numpy(), g, rtol=1e-12, atol=1e-14)
        a = torch.randn(200, 200, dtype=torch.float64)
        assert torch.allclose(a @ torch.linalg.inv(a), torch.eye(200, dtype=torch.float64), atol=1e-6)
    else:
        from scipy import linalg
        from sklearn.linear_model import LinearRegression
        a = np.random.default_rng(1).standard_normal((300, 300))
        assert np.abs(linalg.inv(a) @ a - np.eye(300)).max() < 1e-8
        assert abs(LinearRegression().fit(a[:, :5], a[:, :5].sum(1)).coef_ - 1).max() < 1e-10
        found = sys.modules["scipy.optimize"].minimize(lambda q: net.value_and_gradient(q), p, jac=True, method="BFGS")
        assert found.fun < net.loss(p)
    """
    )


# ---- threads and processes ---------------------------------------------------------------------------------


def test_other_threads_are_refused(run_python):
    run_python("""
    net = make_net()
    p = net.random_params()
    calls = [lambda: net.loss(p), lambda: net.gradient(p), lambda: net.hessian(p), lambda: net.hvp(p, p),
             lambda: net(p), net.random_params, make_net, lambda: mg.flow(net, p), lambda: mg.minimize(net, p)]
    refused = []

    def run():
        for call in calls:
            refused.append(raises(mg.ThreadError, call, "another thread", "pymlpgf.init()"))

    def in_thread(run):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    in_thread(run)
    assert len(refused) == len(calls)
    solving = threading.Thread(target=run)                    # as well while a solver runs
    threading.Timer(0.1, solving.start).start()
    mg.flow(net, p, alg="Tsit5", maxtime_ode=0.5, abstol=1e-12, reltol=1e-12)
    solving.join()
    assert len(refused) == 2 * len(calls)
    assert np.isfinite(net.loss(p))
    """)


def test_the_thread_that_started_julia_is_not_known_by_its_number(run_python):
    """Numbers of threads are reused: a later thread with the same one must be refused like any other."""
    run_python("""
    owner, reused = [], []

    def start():
        owner.append(threading.get_ident())
        net = make_net()
        owner.append(net)
        owner.append(net.loss(net.random_params()))

    crowd = threading.Barrier(100)                            # all at once: one of them has the number

    def later():
        crowd.wait()
        reused.append(threading.get_ident() == owner[0])
        raises(mg.ThreadError, lambda: owner[1].loss(np.zeros(owner[1].n_params)), "another thread")

    first = threading.Thread(target=start)
    first.start()
    first.join()
    assert np.isfinite(owner[2])
    threads = [threading.Thread(target=later) for _ in range(crowd.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reused) == crowd.parties
    if sys.platform == "linux" and mg.runtime_info()["host"] == "embedded":
        assert any(reused), "this test has tested nothing: no number was reused"
    raises(mg.ThreadError, lambda: owner[1].loss(np.zeros(owner[1].n_params)), "another thread")
    """)


@forks
def test_a_forked_child_is_refused(run_python):
    run_python("""
    import gc, warnings
    warnings.simplefilter("ignore", DeprecationWarning)       # Python 3.12 warns of forks with threads
    net = make_net()
    p = net.random_params()
    loss = net.loss(p)
    for leave in (os._exit, sys.exit):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for call in (lambda: net.loss(p), lambda: mg.flow(net, p), make_net):
                    raises(mg.ThreadError, call, "forked", "spawn")
                net = None
                gc.collect()
                code = 0
            finally:
                leave(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert net.loss(p) == loss
    assert mg.flow(net, p, maxT=0.1).ode_stopped_by == "maxT"
    """)


def test_spawned_workers_train(run_python, tmp_path):
    script = tmp_path / "workers.py"
    script.write_text("""
import multiprocessing
import numpy as np
import pymlpgf as mg

def train(seed):
    x = np.linspace(-1, 1, 20).reshape(-1, 1)
    net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=x, target=np.sin(2 * x))
    return mg.train(net, net.random_params(seed=seed), maxiterations_ode=20, maxiterations_optim=5).loss

if __name__ == "__main__":
    here = [train(seed) for seed in range(4)]                 # Julia runs in the parent as well
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        there = pool.map(train, range(4), chunksize=2)
    assert here == there and len(set(here)) == 4, (here, there)
""")
    run_python(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')", prelude="")


# ---- finalizers --------------------------------------------------------------------------------------------

HANDLES = "length(Base.require(Main, :MLPGF).HANDLES)"


def test_dropped_nets_and_results_are_released_in_julia(run_python):
    run_python(f"""
    import gc, resource
    HANDLES = {HANDLES!r}

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    keep = make_net()
    p = keep.random_params()
    assert runtime.evaluate(HANDLES) == 1
    def drop(count):                                          # 0.4 MB of data each
        for seed in range(count):
            make_net(n=25_000 if seed % 5 == 0 else 50, seed=seed)
    drop(500)
    assert runtime.evaluate(HANDLES) == 1
    half = resident() if sys.platform == "linux" else 0
    drop(1500)
    assert runtime.evaluate(HANDLES) == 1
    if sys.platform == "linux":                               # 300 nets of 0.8 MB would be 240 MB
        assert resident() - half < 100e6, (half, resident())
    for _ in range(50):
        mg.flow(keep, p, maxiterations_ode=2)
    for _ in range(5):                                        # the net that a callback asks, recordings
        mg.flow(keep, p, maxiterations_ode=2, callback=lambda r: keep.loss(r.x), observables={{"s": mg.Eigenvalues()}})
    raises(mg.InputError, lambda: mg.flow(keep, p * np.nan))
    assert runtime.evaluate(HANDLES) == 1
    assert np.isfinite(keep.loss(p))
    """)


def test_nets_may_die_anywhere(run_python):
    """In another thread, in a cycle, in a solver's report, at the end of the interpreter."""
    run_python(f"""
    import gc
    HANDLES = {HANDLES!r}
    nets = [make_net(seed=seed) for seed in range(50)]
    assert runtime.evaluate(HANDLES) == 50
    thread = threading.Thread(target=nets.clear)
    thread.start()
    thread.join()
    assert runtime.evaluate(HANDLES) == 0

    class Holder: pass
    for seed in range(10):
        holder = Holder()
        holder.net, holder.self = make_net(seed=seed), holder
    del holder
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()
    assert runtime.evaluate(HANDLES) == 0

    net = make_net()
    p = net.random_params()
    dying = [make_net(seed=1)]
    thread = threading.Timer(0.1, dying.clear)
    thread.start()
    mg.flow(net, p, alg="Tsit5", maxtime_ode=0.3, abstol=1e-12, reltol=1e-12)
    thread.join()
    assert runtime.evaluate(HANDLES) == 1
    last = [make_net(seed=seed) for seed in range(5)]         # these die with the interpreter, one in a cycle
    last.append(last)
    """)


# ---- callbacks ---------------------------------------------------------------------------------------------

REPORTED = """
    net = make_net(n=2000)
    p = net.random_params(seed=1)
    tight = dict(abstol=1e-12, reltol=1e-12)

    class Line:                                               # a sys.stderr that gets the progress line
        lines = []
        def isatty(self): return False
        def flush(self): pass
        def write(self, text):
            self.lines.append(text)
            react(text)

    def flow(**options):
        sys.stderr, before = Line(), sys.stderr
        try:
            return mg.flow(net, p, alg="Tsit5", verbosity=2, progress_interval=0.05, **tight, **options)
        finally:
            sys.stderr = before
"""


def test_a_solver_reports_every_50_ms(run_python):
    run_python(
        REPORTED
        + """
    react = lambda text: None
    flow(maxiterations_ode=2)                                 # compiles
    Line.lines.clear()
    res = flow(maxtime_ode=2)
    assert res.ode_stopped_by == "maxtime"
    assert 10 <= len(Line.lines) <= 45, len(Line.lines)       # 40 on a machine that has nothing else to do
    """
    )


def test_calls_from_a_callback_are_refused(run_python):
    run_python(
        REPORTED
        + """
    errors = []
    def react(text):
        for call in (lambda: net.loss(p), lambda: mg.flow(net, p), make_net, lambda: runtime.evaluate("1")):
            errors.append(raises(mg.ThreadError, call, "callback"))
    res = flow(maxtime_ode=1)                                 # a callback that copes leaves the run as it is
    assert res.ode_stopped_by == "maxtime" and res.loss < net.loss(p) and len(errors) >= 4

    def react(text):
        net.loss(p)
    begin = time.perf_counter()
    raises(mg.ThreadError, lambda: flow(maxtime_ode=60), "callback")
    assert time.perf_counter() - begin < 30

    def react(text):
        raise KeyError("the callback's own")
    raises(KeyError, lambda: flow(maxtime_ode=60), "the callback's own")
    assert mg.flow(net, p, maxT=0.1).ode_stopped_by == "maxT"
    """
    )


# ---- exceptions --------------------------------------------------------------------------------------------


def test_julia_exceptions_become_python_exceptions(start_python):
    """Thrown behind the border by nets made for it; the process goes on every time."""
    child = start_python('''
    net = make_net()
    p = net.random_params()
    loss = net.loss(p)
    bridge = runtime.start()

    def bad_net(body):
        """A handle to a net of three parameters whose loss runs ``body``."""
        return runtime.evaluate(f"""
            M = Base.require(Main, :MLPGF)
            name = gensym(:Bad)
            Core.eval(M, :(struct $name <: AbstractNet{{Float64}} end))
            Core.eval(M, :(n_params(::$name) = 3))
            Core.eval(M, :(loss(net::$name, x) = begin; {body} end))
            Core.eval(M, :(value_and_gradient!(g, net::$name, x) = (g .= 1; loss(net, x))))
            Base.invokelatest(M.keep!, Base.invokelatest(Core.eval(M, name)))
        """)

    x = np.zeros(3)
    for body, kind, parts in (
        ('throw(ArgumentError("width is π"))', mg.InputError, ("width is π",)),
        ("sqrt(-1.0 - sum(x))", mg.InputError, ("DomainError", "-1.0")),
        ('throw(DimensionMismatch("3 is not 4"))', mg.InputError, ("3 is not 4",)),
        ('error("some \\\\"quoted\\\\" words")', mg.JuliaError, ('some "quoted" words',)),
        ("x[4]", mg.JuliaError, ("BoundsError", "[4]")),
        ("nosuchfunction(x)", mg.JuliaError, ("UndefVarError", "nosuchfunction")),
        ("loss(1, 2, 3)", mg.JuliaError, ("MethodError", "no method matching")),
        ("1 ÷ 0", mg.JuliaError, ("DivideError",)),
        ("Vector{Float64}(undef, 10^15)[1]", mg.JuliaError, ("OutOfMemory",)),
        ("loss(net, x) + 1", mg.JuliaError, ("StackOverflowError",)),
        ("throw(InterruptException())", mg.JuliaError, ("InterruptException",)),
        ('throw("no exception at all")', mg.JuliaError, ("no exception at all",)),
        ('error("long " ^ 10_000)', mg.JuliaError, ("long long",)),
    ):
        handle = bad_net(body)
        error = raises(kind, lambda: bridge.loss(handle, x.ctypes.data), *parts)
        assert not isinstance(error, mg.JuliaError) or kind is mg.JuliaError
        options = dict(alg="Tsit5", maxT=1.0, maxtime_ode=5.0)
        raises(kind, lambda: bridge.solve(handle, x.ctypes.data, "flow", options, None, lambda *_: None, int), *parts)
        assert net.loss(p) == loss
    raises(mg.JuliaError, lambda: bridge.loss(10**9, x.ctypes.data), "KeyError", "1000000000")
    raises(mg.JuliaError, lambda: runtime.evaluate("nosuchname"), "nosuchname")
    raises(mg.JuliaError, lambda: runtime.evaluate("f(x) = f(x + 1) + 1; f(1)"), "StackOverflowError")
    raises(mg.JuliaError, lambda: runtime.evaluate("1 +"))
    raises(mg.JuliaError, lambda: runtime.evaluate("nothing"))
    euler = lambda: bridge.solve(net._core.handle, p.flat.ctypes.data, "flow", dict(alg="Eulerian"), None, print, int)
    raises(mg.InputError, euler, "Eulerian", "Tsit5")
    assert net.loss(p) == loss and mg.train(net, p, maxiterations_ode=5, maxiterations_optim=5).loss < loss
    ''')
    child.finish(stderr=None)
    # Julia 1.12 says so itself, once for each overflow; older ones say nothing.
    warning = (
        "Warning: detected a stack overflow; program state may be corrupted, so further execution might be unreliable."
    )
    assert child.err.splitlines() in ([], [warning] * 3)


def test_arguments_live_as_long_as_the_call(run_python):
    """Julia reads an address: a converted copy must not be gone by then. A large one is unmapped when it is freed."""
    run_python("""
    net = mg.Net(layers=[(2000, "tanh", True), (1, "identity", True)], input=np.ones((8, 200)), target=np.ones(8))
    p = net.random_params().flat
    loss, g, out = net.loss(p), net.gradient(p), net(p)
    Hv = net.hvp(p, g)
    strided = np.repeat(p, 2)[::2]
    for _ in range(20):
        assert net.loss(strided) == loss
        assert np.array_equal(net.gradient(strided), g)
        assert np.array_equal(net(strided, np.ones((8, 400))[:, ::2]), out)
        assert np.array_equal(net.hvp(strided, np.repeat(g, 2)[::2]), Hv)
    assert mg.flow(net, strided, alg="Tsit5", maxiterations_ode=0).loss == loss
    """)


# ---- two Julias --------------------------------------------------------------------------------------------


def test_embedding_is_refused_where_juliacall_runs(monkeypatch):
    module = types.ModuleType("juliacall")
    module.CONFIG = {"inited": True}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "juliacall", module)
    nowhere = Path("/nonexistent")
    julia = Julia("embedded", nowhere, nowhere, nowhere, nowhere, (1, 5, 3), "test")
    with pytest.raises(RuntimeUnavailable, match="juliacall has already started another Julia"):
        EmbeddedHost(julia, {})
    module.CONFIG = {"inited": False}  # type: ignore[attr-defined]
    monkeypatch.setattr("pymlpgf.runtime.hosts.embedded._julia_runs", lambda: False)  # that of other tests may
    with pytest.raises(RuntimeUnavailable, match="cannot be loaded"):
        EmbeddedHost(julia, {})


def test_juliacall_is_refused_where_julia_is_embedded(run_python, tmp_path):
    (tmp_path / "juliacall.py").write_text("raise SystemExit('a second Julia was started')")
    run_python(f"""
    net = make_net()
    if mg.runtime_info()["host"] == "embedded":
        import importlib.util
        sys.path.insert(0, {str(tmp_path)!r})
        assert importlib.util.find_spec("juliacall") is not None
        assert importlib.util.find_spec("nosuchmodule") is None
        def start():
            import juliacall
        raises(ImportError, start, "pymlpgf has started Julia", "import juliacall before")
        assert "juliacall" not in sys.modules
    assert np.isfinite(net.loss(net.random_params()))
    """)


def test_a_failed_start_leaves_environment_and_signals(monkeypatch):
    monkeypatch.setenv("JULIA_NUM_THREADS", "7")
    monkeypatch.delenv("JULIA_PROJECT", raising=False)
    monkeypatch.delitem(sys.modules, "juliacall", raising=False)
    before, finders = signal.getsignal(signal.SIGINT), list(sys.meta_path)
    julia = Julia("embedded", *[Path("/nonexistent")] * 4, (1, 5, 3), "test")
    monkeypatch.setattr("pymlpgf.runtime.hosts.embedded._julia_runs", lambda: False)  # that of other tests may
    with pytest.raises(RuntimeUnavailable, match="cannot be loaded"):
        EmbeddedHost(julia, {"JULIA_NUM_THREADS": "2", "JULIA_PROJECT": "/tmp"})
    assert os.environ["JULIA_NUM_THREADS"] == "7"
    assert "JULIA_PROJECT" not in os.environ
    assert signal.getsignal(signal.SIGINT) is before
    assert sys.meta_path == finders


def test_the_environment_is_as_before(run_python):
    run_python("""
    before = dict(os.environ)
    threads = threading.active_count()
    mg.init()
    changed = {name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name)}
    changed -= {"JULIA_PYTHONCALL_EXE"}                       # juliacall's, for its own children
    assert not {name for name in changed if name.startswith(("JULIA_", "OPENBLAS"))}, changed
    assert threading.active_count() == threads
    """)


@posix
def test_pipes_wait_as_before():
    """Julia switches the standard streams to "do not wait": input would end early, output to a slow reader fail."""
    code = """
    print(mg.init(), flush=True)
    print(sys.stdin.readline().strip(), flush=True)
    print("x" * 1_000_000, flush=True)
    """
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        time.sleep(0.3)
        child.stdin.write("late\n")
        child.stdin.flush()
        assert child.stdout.readline() == "late\n"
        time.sleep(0.3)
        assert len(child.stdout.readline()) == 1_000_001
    assert child.returncode == 0


# ---- importing and leaving ---------------------------------------------------------------------------------


def test_importing_does_nothing(run_python, tmp_path):
    """No Julia, no socket, no process, no file written, no output, and hardly any time beyond numpy's."""
    out = run_python(
        """
import os, sys
import numpy
forbidden = []

def audit(event, arguments):
    actions = ("socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn", "os.mkdir", "ctypes.dlopen")
    if event.startswith(actions):
        forbidden.append((event, arguments))
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        forbidden.append((event, arguments))

sys.dont_write_bytecode = True
sys.addaudithook(audit)
import pymlpgf as mg
assert mg.Net and mg.train and mg.load and mg.ACTIVATIONS and dir(mg)      # the lazy names as well
assert mg.runtime_info() == {"started": False}
assert not forbidden, forbidden
assert "juliacall" not in sys.modules and "juliapkg" not in sys.modules
if sys.platform == "linux":
    with open("/proc/self/maps") as maps:
        assert "libjulia" not in maps.read()
""",
        prelude="",
        environment={"PYMLPGF_CACHE": str(tmp_path / "cache"), "XDG_CONFIG_HOME": str(tmp_path / "config")},
    )
    assert out == ""
    assert not any(tmp_path.iterdir())
    times = [
        float(
            run_python(
                "import time, numpy\nbegin = time.perf_counter()\nimport pymlpgf\nprint(time.perf_counter() - begin)",
                prelude="",
            )
        )
        for _ in range(5)
    ]
    assert sorted(times)[2] < 0.15, times


WORK = """
    net = make_net(n=5000)
    p = net.random_params()
    mg.flow(net, p, alg="Tsit5", maxiterations_ode=1)  # on a busy machine the signal would come before all is imported
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    res = mg.flow(net, p, alg="Tsit5", maxtime_ode=30, abstol=1e-12, reltol=1e-12)
    assert res.ode_stopped_by == "interrupted", res
"""


@posix
def test_leaving_is_clean(start_python):
    """Exit code and stderr, with one thread and two: after an interrupted solve, by sys.exit, by an exception."""
    cases = [
        ("1", "    mg.init()\n", 0, ""),
        ("2", "    mg.init()\n", 0, ""),
        ("1", WORK, 0, ""),
        ("2", WORK, 0, ""),
        ("1", WORK + "    sys.exit(3)\n", 3, ""),
        ("2", WORK + "    raise KeyError('the end')\n", 1, "KeyError: 'the end'\n"),
    ]
    for pair in zip(cases[::2], cases[1::2], strict=True):  # two at a time
        children = [start_python(code, {"PYMLPGF_THREADS": threads}) for threads, code, _, _ in pair]
        for child, (_, _, rc, last_words) in zip(children, pair, strict=True):
            assert child.finish(rc, None) == ""
            assert child.err.endswith(last_words)
            assert bool(child.err) == bool(last_words), child.err
            assert child.err.count("\n") < 6, child.err


@posix
def test_a_julia_of_another_thread_leaves_cleanly(run_python):
    run_python("""
    thread = threading.Thread(target=make_net)
    thread.start()
    thread.join()
    """)


@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2)])
def test_standard_streams_that_are_closed(tmp_path, closed):
    """As in some daemons: Julia's event loop would take their descriptors."""
    code = (
        "import os, pymlpgf as mg\n"
        'net = mg.Net(layers=[(1, "tanh", True)], input=[[1.0], [2.0]], target=[0.0, 0.1])\n'
        "loss = mg.minimize(net, [0.1, 0.2], verbosity=0).loss\n"
        f"open({str(tmp_path / 'out')!r}, 'w').write(repr(loss < 1e-3))\n"
    )
    redirections = " ".join(f"{number}>&-" for number in closed)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", f'exec "$0" -c "$1" {redirections}', sys.executable, code], env=environment)
    assert done.returncode == 0
    assert (tmp_path / "out").read_text() == "True"


def test_files_of_different_versions_are_refused():
    """A table that is shorter, or of another border, would make the next call jump into nothing."""
    from pymlpgf.runtime import bridge

    class Other:
        def __init__(self, *table):
            self.table = (ctypes.c_int64 * len(table))(*table)

        def eval(self, code):
            return ctypes.addressof(self.table)

    count = len(bridge.SIGNATURES)
    for table in ((bridge.BORDER, count - 1), (bridge.BORDER + 1, count), (0, 0)):
        with pytest.raises(JuliaError, match="different versions"):
            Bridge(Other(*table), "package", 1)
