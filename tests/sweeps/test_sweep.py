"""Many runs: the same results however they are spread, whatever dies on the way."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import pymlpgf as mg
from pymlpgf import InputError, KeywordError, runtime

OPTIONS = {"maxT": 5, "maxiterations_optim": 200}
SEEDS = range(6)

PROBLEM = """
def make_problem():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 2))
    y = np.tanh(X[:, 0]) - 0.7 * np.tanh(X[:, 1] + 0.5) + 0.1 * rng.normal(size=100)
    return mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=X, target=y)
"""
exec(PROBLEM)


@pytest.fixture(scope="module")
def net():
    return make_problem()  # noqa: F821


@pytest.fixture(scope="module")
def expected(net):
    """The results without a sweep."""
    return [mg.train(net, net.random_params(seed=seed), **OPTIONS) for seed in SEEDS]


def agree(runs, expected, seeds=SEEDS):
    assert [run.seed for run in runs] == list(seeds)
    for run, seed in zip(runs, seeds, strict=True):
        assert run.error is None, run.traceback
        assert run.result.seed == seed
        np.testing.assert_array_equal(run.result.x, expected[seed].x)
        assert run.result.loss == expected[seed].loss


class Here(Executor):
    """Runs at once, in this thread: the Julia that is warm already."""

    def submit(self, function, /, *arguments, **keywords):
        future = Future()
        future.set_result(function(*arguments, **keywords))
        return future


def factory(seed):
    """Fails for seed 1, ends its process at the first try of seed 2 and at every try of seed 3."""
    marker = Path(os.environ["SWEEP_MARKER"])
    if seed == 3 or (seed == 2 and not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError(f"no net for seed {seed}")


def test_deaths_do_not_sink_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_MARKER", str(tmp_path / "marker"))
    with mg.sweep(factory, [5, 3, 2, 1, 6], max_workers=2, **OPTIONS) as sweep:
        finished = list(sweep)
        assert sorted(run.index for run in finished) == [0, 1, 2, 3, 4]
    assert "died twice" in sweep.runs[1].error
    for run in (run for run in sweep.runs if run.seed != 3):
        assert run.error == f"ValueError: no net for seed {run.seed}"
        assert "factory" in run.traceback
    assert repr(sweep) == "Sweep(5 of 5 runs finished, 5 failed)"
    with pytest.raises(InputError, match="every run failed"):
        _ = sweep.best


@pytest.mark.skipif("PYMLPGF_TEST_ROUNDS" not in os.environ, reason="half a minute long: `make soak` runs it")
def test_workers_killed_at_random_moments(net, expected, chance):
    """A run that loses its process is repeated once; those that finish are as without a sweep."""
    others = children_of(os.getpid())

    def workers():
        new = set(children_of(os.getpid())) - set(others)
        return [pid for pid in new if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    with mg.sweep(net, SEEDS, max_workers=2, **OPTIONS) as sweep:

        def shoot():
            while not done.wait(chance.uniform(0.2, 5)):
                for worker in workers():
                    if chance.random() < 0.5 and len(shots) < 3:
                        shots.append(worker)
                        os.kill(worker, signal.SIGKILL)

        done, shots = threading.Event(), []
        gun = threading.Thread(target=shoot)
        gun.start()
        finished = list(sweep)
        done.set()
        gun.join()
    assert sorted(run.index for run in finished) == list(SEEDS)
    assert shots, "nobody was hit: the test tests nothing"
    assert len(sweep.failures) <= len(shots) // 2
    assert all("died twice" in run.error for run in sweep.failures)
    for run in (run for run in sweep.runs if run.error is None):
        np.testing.assert_array_equal(run.result.x, expected[run.seed].x)


def some_fail(seed):
    if seed == 1:
        raise ValueError("no net for seed 1")
    net = make_problem()  # noqa: F821
    return (net, net.random_params(seed=seed)) if seed % 2 else net


def test_table_and_distinct_minima(net, expected):
    sweep = mg.sweep(some_fail, [3, 1, 4, 2], Here(), **OPTIONS)
    runs = sweep.runs
    assert "no net for seed 1" in runs[1].error
    assert [run.seed for run in sweep.failures] == [1]
    agree([runs[0], *runs[2:]], expected, seeds=(3, 4, 2))
    table = sweep.table()
    assert [row["seed"] for row in table] == [3, 1, 4, 2]
    assert table[0]["loss"] == expected[3].loss
    assert (table[1]["loss"], table[1]["error"]) == (None, runs[1].error)
    assert sweep.best.result.loss == min(expected[i].loss for i in (3, 4, 2))
    groups = sweep.distinct_minima(net)
    np.testing.assert_array_equal(sweep.distinct_minima().labels, groups.labels)  # the results hold their net
    proofs = sweep.certificates(net, precision=100)
    assert len(proofs) == len(groups)
    found = [run.result.x for run in sweep.runs if run.result is not None]
    for proof, i in zip(proofs, groups.representatives, strict=True):
        assert proof.precision == 100
        assert not proof.certified or np.abs(proof.x - found[i]).max() < 1e-2
    assert len(groups.labels) == 3
    losses = np.array([expected[i].loss for i in (3, 4, 2)])[groups.representatives]
    assert (np.diff(losses) >= 0).all()
    pd = pytest.importorskip("pandas")
    frame = sweep.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert frame.loc[2, "gnorm"] == expected[4].gnorm


PARENT = """
if __name__ == "__main__":
    with mg.sweep(make_problem(), range(6), directory={directory!r}, max_workers=1, **{options!r}) as sweep:
        for count, run in enumerate(sweep):
            print(os.getpid(), flush=True)
            if count == {count}:
                os.kill(os.getpid(), signal.SIGKILL)
"""


def children_of(pid):
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(folder.name))
    return found


def test_a_killed_parent_goes_on(start_python, net, expected, tmp_path, chance):
    count = chance.randrange(4)
    child = start_python(PROBLEM + PARENT.format(directory=str(tmp_path), options=OPTIONS, count=count))
    parent = int(child.line())
    workers = children_of(parent)
    child.finish(rc=-9, stderr=None)
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}/stat").exists() for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)
    # Its processes do not outlive it (zombies, which wait for an init that reaps them, do nothing any more).
    assert not any(
        Path(f"/proc/{pid}/stat").exists() and ") Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in workers
    )
    before = {f.name: f.stat().st_mtime_ns for f in tmp_path.glob("seed-*.npz")}
    assert count < len(before) < 6
    sweep = mg.sweep(net, SEEDS, Here(), tmp_path, **OPTIONS)
    agree(sweep.runs, expected)
    assert sum(run.resumed for run in sweep.runs) == len(before)
    after = {f.name: f.stat().st_mtime_ns for f in tmp_path.glob("seed-*.npz")}
    assert len(after) == 6
    assert before.items() <= after.items()
    # All there: no process is needed, for these seeds or for some of them.
    begin = time.monotonic()
    agree(mg.sweep(net, [4, 2], directory=tmp_path, **OPTIONS).runs, expected, seeds=[4, 2])
    assert time.monotonic() - begin < 1
    with pytest.raises(InputError, match="other options"):
        mg.sweep(net, SEEDS, directory=tmp_path, maxT=6)
    with pytest.raises(InputError, match="other net"):
        mg.sweep(net.on(np.zeros((1, 2)), [1.0]), SEEDS, directory=tmp_path, **OPTIONS)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        mg.sweep(net, SEEDS, directory=tmp_path, **OPTIONS)


INTERRUPTED = """
import random, signal, threading

if __name__ == "__main__":
    net, moments = make_problem(), random.Random({seed})
    sweep = mg.sweep(net, range(6), max_workers=1, verbosity=2, **{options!r})
    presses = 0
    while True:
        seconds = moments.uniform(0, 0.4) if presses < 2 else 1000
        press = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
        press.daemon = True
        press.start()
        try:
            runs = sweep.runs
            press.cancel()
            break
        except KeyboardInterrupt:
            presses += 1
    try:                                     # a press may have been on its way
        time.sleep(0.1)
    except KeyboardInterrupt:
        pass
    assert presses > 0
    for run in runs:
        direct = mg.train(net, net.random_params(seed=run.seed), **{options!r})
        assert run.error is None and np.array_equal(run.result.x, direct.x), run
    assert [run.index for run in runs] == list(range(6))
"""


@pytest.mark.skipif(os.name != "posix", reason="a process sends itself POSIX signals")
def test_ctrl_c_at_random_moments_loses_no_run(run_python, chance):
    options = {"alg": "Tsit5", "optim_solver": "LBFGS", "maxiterations_ode": 300, "maxiterations_optim": 100}
    run_python(PROBLEM + INTERRUPTED.format(options=options, seed=chance.randrange(1000)), stderr=None)


def test_on_a_dask_cluster(net, expected, tmp_path):
    """The road past one machine: the workers of a cluster (here one), with one thread each."""
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    quiet = {"distributed.worker.memory.terminate": False, "distributed.comm.timeouts.connect": "60s"}
    import dask

    with (
        dask.config.set(quiet),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
        mg.sweep(net, [0, 1, 5], executor, directory=tmp_path, **OPTIONS) as sweep,
    ):
        agree(sweep.runs, expected, seeds=[0, 1, 5])
    assert len(list(tmp_path.glob("seed-*.npz"))) == 3


def test_parameters_instead_of_seeds(net, expected):
    starts = [net.random_params(seed=seed) for seed in SEEDS[:2]]
    with ThreadPoolExecutor(1) as executor:  # Julia lives in this thread: refused there, with a sentence
        runs = mg.sweep(net, starts, executor, **OPTIONS).runs
    assert [run.seed for run in runs] == [None, None]
    assert all("Julia was started in another thread" in run.error for run in runs)
    runs = mg.sweep(net, starts, Here(), **OPTIONS).runs
    for run, same in zip(runs, expected, strict=False):
        np.testing.assert_array_equal(run.result.x, same.x)


def broken(seed):
    raise RuntimeError("the net cannot be made")


def test_streaming_closing_and_the_progress_line(capfd):
    sweep = mg.sweep(broken, range(40), max_workers=1, verbosity=2)
    first = next(iter(sweep))
    assert "cannot be made" in first.error
    again = next(iter(sweep))
    assert again is first
    sweep.close()
    assert 1 <= len(sweep.runs) < 40
    assert "runs, 1 failed" in capfd.readouterr().err
    assert len(sweep) == 40


def test_pickled_nets_start_julia_at_their_first_use(run_python, net, tmp_path):
    X = np.array([[0.5, 1.0], [1.0, -1.0], [2.0, 0.0]])
    labels = np.array([0, 1, 1])
    other = mg.Net(
        layers=[(2, ("tanh", mg.Poly(0, 1, 0.5)), True), (2, "softmax", False)], input=X, target=labels, loss="nll",
        weights=[1.0, 2.0, 0.0], l2=0.1, merge=(0, 0, 1, 0.3),
    )  # fmt: skip
    nets = [other, other.on(X[:2], labels[:2]), mg.Net(layers=[(2, "x -> x^2", True)], n_features=2)]
    p = other.random_params(seed=0)
    expected = [nets[0].loss(p), nets[1].loss(p), nets[2].loss(np.ones(6), X, X[:, :2])]
    X[:], labels[:] = 0, 0  # what the user does to her arrays afterwards does not matter
    teacher = mg.TeacherNet(layers=[(1, "tanh", False)], params=[2.0], n_features=1)
    path = tmp_path / "nets.pickle"
    path.write_bytes(pickle.dumps((nets, p, teacher)))
    out = run_python(
        f"""
        import pathlib, pickle
        from concurrent.futures import ThreadPoolExecutor
        nets, p, teacher = pickle.loads(pathlib.Path({str(path)!r}).read_bytes())
        print(nets[0], runtime.info()["started"])
        X = np.array([[0.5, 1.0], [1.0, -1.0], [2.0, 0.0]])
        with ThreadPoolExecutor(1) as elsewhere:          # Julia lives in the thread of the first use
            print([elsewhere.submit(call).result() for call in (
                lambda: nets[0].loss(p), lambda: nets[1].loss(p), lambda: nets[2].loss(np.ones(6), X, X[:, :2]),
                lambda: float(teacher([[0.5]])[0, 0]))])
        raises(mg.errors.ThreadError, lambda: nets[0].loss(p))
        """
    )
    first, second = out.splitlines()
    assert first == f"{other!r} False"
    assert second == str([*expected, float(teacher([[0.5]])[0, 0])])


def counting(seed):
    runtime.start()
    raise ValueError(f"{runtime.info()['threads']} threads")


def test_threads_of_workers():
    with mg.sweep(counting, [1], threads_per_worker=2, maxT=1) as sweep:
        assert sweep.runs[0].error == "ValueError: 2 threads"


def test_a_function_that_cannot_be_sent():
    with pytest.raises(InputError, match="cannot be sent"):
        mg.sweep(lambda seed: None, range(3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda net: mg.sweep(net, 50), InputError, "range"),
        (lambda net: mg.sweep(net, []), InputError, "is empty"),
        (lambda net: mg.sweep(net, [1, 2, 1]), InputError, "entries 0 and 2"),
        (lambda net: mg.sweep(net, [-1]), InputError, "seed -1"),
        (lambda net: mg.sweep(net, [[1.0]]), InputError, "entry 0 of seeds_or_params has shape"),
        (lambda net: mg.sweep(net, [np.full(9, np.nan)]), InputError, "NaN"),
        (lambda net: mg.sweep(factory, [np.ones(9)]), InputError, "give seeds"),
        (lambda net: mg.sweep("net", [1]), InputError, "a Net or a function"),
        (lambda net: mg.sweep(net, [1], max_workers=0), InputError, "max_workers is 0"),
        (lambda net: mg.sweep(net, [1], threads_per_worker=1.5), InputError, "threads_per_worker is 1.5"),
        (lambda net: mg.sweep(net, [1], Here(), threads_per_worker=2), InputError, "for the default pool"),
        (lambda net: mg.sweep(net, [1], maxtime=3), KeywordError, "did you mean 'maxtime_o"),
        (lambda net: mg.sweep(net, [1], checkpoint="a"), KeywordError, "no keyword 'checkpoint'"),
    ],
)
def test_bad_input(net, call, error, message):
    with pytest.raises(error, match=message):
        call(net)


def test_a_script_on_standard_input(tmp_path):
    script = (
        "import numpy as np, pymlpgf as mg\n"
        "x = np.linspace(-1, 1, 20).reshape(-1, 1)\n"
        'net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=x, target=np.sin(x))\n'
        'if __name__ == "__main__":\n'
        "    limits = dict(maxiterations_ode=5, maxiterations_optim=5, verbosity=0)\n"
        "    runs = mg.sweep(net, [0, 1], max_workers=1, **limits).runs\n"
        "    print([run.error for run in runs])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-"], input=script, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stdout == "[None, None]\n", done.stderr
