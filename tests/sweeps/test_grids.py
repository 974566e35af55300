"""Sweeps over grids: each run once, whatever is killed; runs that go on; a folder that is enough."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import pytest

import pymlpgf as mg
from pymlpgf import InputError, KeywordError
from pymlpgf.solve.go_on import go_on
from pymlpgf.solve.options import OPTIM_SOLVERS

ROOT = Path(__file__).resolve().parents[2]
X = np.random.default_rng(0).normal(size=(60, 2))
Y = np.tanh(X[:, 0]) - 0.7 * np.tanh(X[:, 1] + 0.5) + 0.1 * np.random.default_rng(1).normal(size=60)
LIMITS = {"maxiterations_ode": 20, "maxiterations_optim": 30}


class Here(Executor):
    """Runs at once, in this thread."""

    def submit(self, function, /, *arguments, **keywords):
        future = Future()
        future.set_result(function(*arguments, **keywords))
        return future


def student(width, activation="tanh"):
    return mg.Net(layers=[(width, activation, True), (1, "identity", True)], input=X, target=Y)


def seeded(seed, **settings):
    """A function that takes the seed, makes its own parameters, and takes any name that train does not have."""
    net = student(settings["hidden"])
    return net, net.random_params(seed=seed, scales=0.5)


def test_all_combinations(tmp_path):
    grid = {"width": np.array([1, 2]), "optim_solver": ["BFGS", "Newton"], "seed": range(2)}
    sweep = mg.sweep(student, grid=grid, executor=Here(), directory=tmp_path, **LIMITS)
    assert len(sweep) == 8
    runs = sweep.runs
    assert [run.settings for run in runs[:3]] == [
        {"width": 1, "optim_solver": "BFGS", "seed": 0},
        {"width": 1, "optim_solver": "BFGS", "seed": 1},
        {"width": 1, "optim_solver": "Newton", "seed": 0},
    ]
    for run in runs:
        width, solver, seed = run.settings.values()
        net = student(width)
        alone = mg.train(net, net.random_params(seed=seed), optim_solver=solver, **LIMITS)
        np.testing.assert_array_equal(run.result.x, alone.x)
        assert (run.result.optim_solver, run.result.seed, run.seed) == (solver, seed, seed)
        saved = mg.load(tmp_path / f"width={width},optim_solver={solver},seed={seed}.npz")
        assert saved.settings == run.settings
        assert saved.net().loss(saved) == saved.loss
    assert len(list(tmp_path.glob("data-*.npz"))) == 1  # the same data for all
    assert runs[0].result.problem["input"] is not runs[1].result.problem["input"]
    row = sweep.table()[-1]
    assert (row["width"], row["optim_solver"], row["result_optim_solver"], row["seed"]) == (2, "Newton", "Newton", 1)
    pytest.importorskip("pandas")
    assert sweep.to_frame().groupby("width").loss.min().iloc[1] == min(run.result.loss for run in sweep.select(width=2))
    assert [run.index for run in sweep.select(width=2, seed=1)] == [5, 7]
    with pytest.raises(KeywordError, match="no run has the setting 'widht'; did you mean 'width'"):
        sweep.select(widht=2)
    # The folder alone, elsewhere: results share their data.
    loaded = mg.Sweep.load(shutil.copytree(tmp_path, tmp_path / "elsewhere"))
    assert [run.settings for run in loaded.runs] == [run.settings for run in runs]
    assert loaded.runs[0].result.problem["input"] is loaded.runs[1].result.problem["input"]
    assert loaded.missing == []


def test_what_a_function_takes_is_its_own():
    grid = [{"hidden": 1, "seed": 3, "maxT": 2.0}, {"hidden": 2, "seed": 3, "maxT": 1.0}]
    runs = mg.sweep(seeded, grid=grid, executor=Here(), maxiterations_optim=0).runs
    for run, width, end in zip(runs, (1, 2), (2.0, 1.0), strict=True):
        assert run.error is None, run.traceback
        net = student(width)
        np.testing.assert_array_equal(run.result.init, net.random_params(seed=3, scales=0.5).flat)
        assert run.result.ode_t == end
    net = student(2)
    methods = [mg.Adam(learning_rate=0.01), mg.GradientDescent(learning_rate=0.01)]
    both = mg.sweep(net, grid={"alg": methods}, executor=Here(), maxiterations_ode=3, maxiterations_optim=0)
    assert [run.result.alg for run in both.runs] == ["Adam", "GradientDescent"]
    np.testing.assert_array_equal(both.runs[0].result.init, net.random_params(seed=0).flat)


def test_catalogues_of_a_sweep(tmp_path):
    grid = {"width": [1, 2], "seed": range(3)}
    limits = {"maxT": 10, "maxiterations_optim": 300}
    sweep = mg.sweep(student, grid=grid, executor=Here(), directory=tmp_path, **limits)
    found = sweep.catalogue(width=2)
    expected = mg.minima_catalogue(student(2), [run.result for run in sweep.select(width=2)])
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.loss, expected.loss)
    np.testing.assert_array_equal(mg.Sweep.load(tmp_path).catalogue(width=2).loss, found.loss)
    with pytest.raises(InputError, match="different nets or data"):
        sweep.catalogue()
    teacher = mg.TeacherNet(layers=[(1, "tanh", False), (1, "identity", False)], params=[1.0, 1.0, 1.0], n_features=2)
    infinite = mg.InfiniteNet(teacher, [(1, "tanh", False), (1, "identity", False)])
    sweep = mg.sweep(infinite, range(2), Here(), tmp_path / "infinite", maxT=10, maxiterations_optim=100)
    assert len(sweep.catalogue()) == 1
    assert mg.Sweep.load(tmp_path / "infinite").catalogue().count.tolist() == [2]
    more = mg.sweep(
        directory=tmp_path / "infinite", executor=Here(), continue_unconverged=True, maxiterations_optim=500
    )
    assert all(run.error is None and run.result.net().loss(run.result) == run.result.loss for run in more.runs)


def test_a_folder_is_read_without_julia(tmp_path, run_python):
    list(mg.sweep(student(1), [0, 1], Here(), tmp_path, maxT=1, maxiterations_optim=0))
    out = run_python(
        f"""
        loaded = mg.Sweep.load({str(tmp_path)!r})
        print([run.result.seed for run in loaded.runs], loaded.missing, runtime.info()["started"])
        """
    )
    assert out == "[0, 1] [] False\n"


def test_names_of_files_are_safe_and_different(tmp_path):
    activations = ["x -> x / (1 + x^2)", "x -> x / (2 + x^2)", mg.Poly(0, 1, 0.5), ("tanh", "relu")]
    sweep = mg.sweep(
        student, grid={"width": [2], "activation": activations}, executor=Here(), directory=tmp_path,
        maxiterations_ode=1, maxiterations_optim=0,
    )  # fmt: skip
    assert [run.error for run in sweep.runs] == [None] * 4
    names = [path.name for path in tmp_path.glob("width*.npz")]
    assert len(names) == 4
    assert all(re.fullmatch(r"[\w.,=+-]+", name, re.ASCII) for name in names)
    again = mg.sweep(student, directory=tmp_path)
    assert [run.resumed for run in again.runs] == [True] * 4
    assert again.runs[2].settings["activation"] == mg.Poly(0, 1, 0.5)


@pytest.mark.parametrize("options", [{"alg": "GradientDescent", "learning_rate": 0.1}, {"alg": "Tsit5", "dense": True}])
def test_runs_that_a_limit_ended_go_on(tmp_path, options):
    """A flow in three parts ends where an uninterrupted one does, and its trajectory is that of one run."""
    net = student(2)
    recorded = {"save_everystep": True, "observables": {"size": np.linalg.norm}, "maxiterations_optim": 0}
    options = {**options, **recorded, "maxT": 20, "abstol": 1e-9, "reltol": 1e-9}

    def swept(limit, go_on):
        return mg.sweep(net, range(2), Here(), tmp_path, continue_unconverged=go_on, maxiterations_ode=limit, **options)

    assert [run.result.ode_iterations for run in swept(40, False).runs] == [40, 40]
    assert [run.result.ode_iterations for run in swept(60, True).runs] == [100, 100]
    for run in swept(np.inf, True).runs:
        whole = mg.train(net, net.random_params(seed=run.seed), **options)
        res = run.result
        assert (res.ode_stopped_by, res.ode_t) == ("maxT", pytest.approx(20, rel=1e-12))
        t = res.trajectory.t
        assert (np.diff(t) > 0).all()
        assert len(t) == res.ode_iterations + 1
        assert not res.trajectory.within[:41].any()
        assert np.isnan(res.trajectory.within[41:]).all()  # time began anew for the other parts
        sizes = np.linalg.norm(res.trajectory.x, axis=1)
        np.testing.assert_allclose(res.trajectory["size"], sizes, rtol=1e-14)
        if options["alg"] == "GradientDescent":  # no step depends on what came before
            np.testing.assert_array_equal(res.trajectory.x, whole.trajectory.x)
            np.testing.assert_allclose(t, whole.trajectory.t, rtol=1e-12)
            # two parts more, each of which looks at its first and its last point once more
            assert (res.nfev, res.ode_iterations) == (whole.nfev + 4, whole.ode_iterations)
        else:
            np.testing.assert_allclose(res.ode_x, whole.ode_x, atol=1e-7)
            times = np.linspace(0, 20, 41)
            np.testing.assert_allclose(res.sol(times), whole.sol(times), atol=1e-6)
        np.testing.assert_array_equal(res.init, net.random_params(seed=run.seed).flat)
        assert mg.load(tmp_path / f"seed-{run.seed:05d}.npz").ode_iterations == res.ode_iterations
    assert all(run.resumed for run in swept(np.inf, True).runs)  # nothing is left to do


@pytest.mark.parametrize(
    "options",
    [
        {"alg": "Momentum", "schedule": mg.CosineDecay(50), "batchsize": 7},
        {"alg": mg.Adam(learning_rate=0.02), "batchsize": 13, "seed": 4},
        {"alg": mg.UpdateRule(rule="(x, g, (v,), k) -> (v + g/(k + 1), (0.9v + g,))", state=[0.0])},
        {"alg": "Tsit5", "batchsize": 25, "shuffle": False, "batch_steps": 3},
    ],
)
def test_discrete_methods_go_on_with_what_they_remember(tmp_path, options):
    """Moments, number of steps, place in the epoch and the generator are in the files."""
    net = student(2)
    options = {**options, "maxiterations_optim": 0}
    for steps in (11, 20, 9):
        runs = mg.sweep(
            net, range(2), Here(), tmp_path, continue_unconverged=True, maxiterations_ode=steps, **options
        ).runs
    for run in runs:
        whole = mg.train(net, net.random_params(seed=run.seed), maxiterations_ode=40, **options)
        assert run.result.ode_iterations == 40
        np.testing.assert_array_equal(run.result.ode_x, whole.ode_x)
        np.testing.assert_array_equal(run.result.memory, whole.memory)
        saved = mg.load(tmp_path / f"seed-{run.seed:05d}.npz")
        np.testing.assert_array_equal(saved.memory, whole.memory)
        assert saved.memory[0] == 40


def test_minimisations_go_on_to_the_same_minimum(tmp_path):
    net = student(2)
    flow = {"maxT": 30, "optim_solver": "BFGS", "observables": {"size": mg.ParameterNorm()}}
    first = mg.sweep(net, range(3), Here(), tmp_path, maxiterations_optim=5, **flow)
    assert {run.result.optim_stopped_by for run in first.runs} == {"maxiterations"}
    assert len(first.unconverged) == 3
    # Without the net: the folder holds it, its data and the options.
    moved = shutil.move(tmp_path, f"{tmp_path}-moved")
    last = mg.sweep(directory=moved, max_workers=1, continue_unconverged=True, maxiterations_optim=1000)
    for run, before in zip(last.runs, first.runs, strict=True):
        whole = mg.train(net, net.random_params(seed=run.seed), **flow)
        assert run.result.converged
        np.testing.assert_array_equal(run.result.x, whole.x)
        assert run.result.loss == whole.loss
        assert run.result.optim_iterations > 5
        assert run.result.nfev > before.result.nfev
        assert run.result.ode_iterations == before.result.ode_iterations
        # the flow's points, then that of the minimisation, with what is recorded there
        path, during = run.result.trajectory, before.result.trajectory.t <= before.result.ode_t
        np.testing.assert_array_equal(path.x[:-1], before.result.trajectory.x[during])
        np.testing.assert_array_equal(path.x[-1], run.result.x)
        np.testing.assert_allclose(path["size"], np.linalg.norm(path.x, axis=1))
        assert path.t[-1] > path.t[-2] == run.result.ode_t
    assert last.unconverged == []


@pytest.mark.parametrize("solver", OPTIM_SOLVERS)
@pytest.mark.parametrize("extra", [{}, {"freeze": "b2", "tie": [("b1[0]", "-b1[1]")]}], ids=["free", "constrained"])
def test_minimisations_in_parts_are_the_uninterrupted_one(tmp_path, solver, extra):
    """To the last bit: a long run makes other steps shortly before its limit, which the continuation takes back."""
    net = student(2)
    options = {"maxiterations_ode": 5, "optim_solver": solver, **extra}
    for limit in (3, 100, 5000):
        more = {"continue_unconverged": limit > 3, "maxiterations_optim": limit}
        (run,) = mg.sweep(net, [1], Here(), tmp_path, **options, **more).runs
        assert run.error is None
        parts = run.result
        assert (parts.optim_stopped_by == "maxiterations") == (parts.optim_memory is not None)
    p = net.random_params(seed=1)
    whole = mg.train(net, p, **options, maxiterations_optim=5000, verbosity=0)
    assert whole.converged or whole.optim_stopped_by == "patience"
    np.testing.assert_array_equal(parts.x, whole.x)
    assert (parts.loss, parts.gnorm, parts.optim_stopped_by) == (whole.loss, whole.gnorm, whole.optim_stopped_by)


def test_the_memory_of_another_minimisation(tmp_path):
    net, other = student(2), student(3)
    res = mg.minimize(net, net.random_params(seed=1), maxiterations_optim=5)
    assert len(mg.load(res.save(tmp_path / "run")).optim_memory) == len(res.optim_memory) > net.n_params
    stranger = dataclasses.replace(res, x=other.random_params().flat, optim_memory=res.optim_memory)
    with pytest.raises(InputError, match=r"optim_memory has .* numbers, .* are needed"):
        go_on(other, stranger, maxiterations_ode=0)
    assert mg.minimize(net, res).optim_memory is None
    large = mg.Net(layers=[(120, "tanh", True), (1, "identity", True)], input=X, target=Y)
    held = mg.minimize(large, large.random_params(), optim_solver="NewtonTrustRegion", maxiterations_optim=1)
    assert held.optim_memory is None  # 481 parameters: two matrices are more than 200 000 numbers


def test_joined_paths_end_with_the_point_of_the_result(tmp_path):
    net = student(3)
    ends = []
    for limit in (100, 1000, 1500):
        options = {"maxiterations_ode": 50, "maxiterations_optim": limit, "continue_unconverged": True}
        for run in mg.sweep(net, range(3), Here(), tmp_path, **options).runs:
            path = run.result.trajectory
            assert (path.loss[-1], path.gnorm[-1]) == (run.result.loss, run.result.gnorm)
            np.testing.assert_array_equal(path.x[-1], run.result.x)
            assert (np.diff(path.t) > 0).all()
            ends.append(run.result.optim_stopped_by)
    assert "maxiterations" in ends


def test_code_in_a_folder_is_compiled_where_it_is_allowed(tmp_path):
    net = student(1, "x -> x / (1 + x^2)")
    list(mg.sweep(net, [0], Here(), tmp_path, maxT=1, maxiterations_optim=1))
    again = {"directory": tmp_path, "executor": Here(), "continue_unconverged": True, "maxiterations_optim": 20}
    with pytest.raises(InputError, match="allow_code=True if you trust it"):
        mg.sweep(**again)
    (run,) = mg.sweep(**again, allow_code=True).runs
    assert run.error is None
    assert run.result.optim_iterations > 1


def test_events_schedules_and_a_later_end_keep_the_time_of_the_whole_run(tmp_path):
    net = student(1)
    common = {"maxiterations_optim": 0, "event": at_three}
    list(mg.sweep(net, [0], Here(), tmp_path, maxT=2, **common))
    (run,) = mg.sweep(net, [0], Here(), tmp_path, maxT=9, continue_unconverged=True, **common).runs
    assert run.result.ode_stopped_by == "event"
    assert abs(run.result.ode_t - 3) < 1e-9
    descent = {"alg": mg.GradientDescent(learning_rate=0.1, schedule=mg.ExponentialDecay(0.95))}
    options = {**descent, "maxiterations_optim": 0, "directory": tmp_path / "descent", "executor": Here()}
    list(mg.sweep(net, [0], maxiterations_ode=10, **options))
    (run,) = mg.sweep(net, [0], maxiterations_ode=15, continue_unconverged=True, **options).runs
    whole = mg.train(net, net.random_params(seed=0), maxiterations_ode=25, maxiterations_optim=0, **descent)
    np.testing.assert_allclose(run.result.ode_x, whole.ode_x, rtol=1e-13)


def at_three(t, x):
    return t - 3


def test_a_folder_is_enough(tmp_path):
    """Where the function is not known: what is there can be looked at and continued, what is missing cannot begin."""
    grid = {"width": [1, 2], "seed": range(2)}
    rates = np.full(9, 2.0)
    list(mg.sweep(student, grid=grid, executor=Here(), directory=tmp_path, part=(0, 2), **LIMITS))
    loaded = mg.Sweep.load(tmp_path)
    assert [run.settings for run in loaded.runs] == [{"width": 1, "seed": 0}, {"width": 2, "seed": 0}]
    assert loaded.missing == [{"width": 1, "seed": 1}, {"width": 2, "seed": 1}]
    assert mg.classify(loaded.best.result.net(), loaded.best.result).kind
    onward = mg.sweep(directory=tmp_path, executor=Here(), continue_unconverged=True, maxiterations_optim=500)
    assert [run.error is None for run in onward.runs] == [True, False, True, False]
    assert all("give the net, or the function" in run.error for run in onward.failures)
    assert all(run.result.converged for run in onward.select(seed=0))
    complete = mg.sweep(student, directory=tmp_path, executor=Here())
    assert [(run.error, run.resumed) for run in complete.runs] == [(None, True), (None, False)] * 2
    # Parameters and options that are arrays are in the folder too.
    net = student(2)
    starts = [net.random_params(seed=s).flat for s in (5, 6)]
    options = {"tauinv": rates, "maxT": 1, "maxiterations_optim": 0}
    there = mg.sweep(net, starts, Here(), tmp_path / "arrays", part=(1, 2), **options).runs
    rest = mg.sweep(directory=tmp_path / "arrays", executor=Here()).runs
    assert [run.resumed for run in rest] == [False, True]
    np.testing.assert_array_equal(rest[0].result.x, mg.train(net, starts[0], **options).x)
    np.testing.assert_array_equal(rest[1].result.x, there[0].result.x)


SBATCH = """#!{python}
# Runs the tasks of an array as Slurm does, all at once, and kills some when they have saved so many runs.
import os, pathlib, re, signal, subprocess, sys, time

script = sys.argv[-1]
lines = re.findall(r"^#SBATCH +--([a-z-]+)=(\\S+)", pathlib.Path(script).read_text(), re.M)
options = dict([*lines, *re.findall(r"--([a-z-]+)=(\\S+)", " ".join(sys.argv[1:-1]))])
tasks = []
for part in options["array"].split(","):
    first, _, last = part.partition("-")
    tasks += range(int(first), int(last or first) + 1)
doomed = [int(task) for task in os.environ.get("DOOMED", "").split()]
running = {{}}
for task in tasks:
    slurm = {{"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(len(tasks)),
             "SLURM_CPUS_PER_TASK": options["cpus-per-task"]}}
    log = open(options["output"].replace("%a", str(task)), "a")
    running[task] = subprocess.Popen(["bash", script], env={{**os.environ, **slurm}}, stdout=log, stderr=log,
                                     start_new_session=True)
end = time.monotonic() + 200
while any(process.poll() is None for process in running.values()):
    assert time.monotonic() < end
    for task in doomed:
        if pathlib.Path(options["output"].replace("%a", str(task))).read_text().count("done") >= 7 + task:
            if running[task].poll() is None:
                os.killpg(running[task].pid, signal.SIGKILL)
    time.sleep(0.02)
print({{task: process.returncode for task, process in running.items()}})
"""


@pytest.mark.skipif(os.name != "posix", reason="an array job needs bash")
def test_two_of_four_shares_killed_and_repeated(tmp_path):
    """200 grid points by the script of the documentation: nothing is lost, and nothing done twice."""
    for file in ("students.py", "students.sbatch"):
        shutil.copy(ROOT / "examples" / "slurm" / file, tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "sbatch").write_text(SBATCH.format(python=sys.executable))
    (tools / "sbatch").chmod(0o755)
    (tools / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tools / "python").chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}

    def sbatch(*arguments, doomed=""):
        done = subprocess.run(
            ["sbatch", *arguments, "students.sbatch"], cwd=tmp_path, env={**environment, "DOOMED": doomed},
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    folder = tmp_path / "runs"
    assert sbatch(doomed="1 3") == "{0: 0, 1: -9, 2: 0, 3: -9}\n"
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("width=*.npz")}
    assert 100 + 8 + 10 <= len(before) < 200
    missing = mg.Sweep.load(folder).missing
    assert len(missing) == 200 - len(before)
    assert sbatch("--array=1,3") == "{1: 0, 3: 0}\n"
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("width=*.npz")}
    assert len(after) == 200
    assert before.items() <= after.items()
    done = [line.split()[0] for path in tmp_path.glob("students-*.log") for line in path.read_text().splitlines()
            if line.endswith("done")]  # fmt: skip
    assert len(done) == len(set(done))
    whole = mg.Sweep.load(folder)
    assert whole.missing == []
    assert [run.settings for run in whole.runs] == [{"width": w, "seed": s} for w in (1, 2, 3, 4) for s in range(50)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"grid": {"widht": [1]}}, KeywordError, "grid has the name 'widht'; did you mean 'width'"),
        ({"grid": {"width": 3}}, InputError, r"grid\['width'\] is 3; a sequence"),
        ({"grid": {"width": []}}, InputError, r"grid\['width'\] is empty"),
        ({"grid": {}}, InputError, "grid is empty"),
        ({"grid": 4}, InputError, "a dictionary of sequences"),
        ({"grid": {"width": [1, 2, 1]}}, InputError, "entries 0 and 2 of grid"),
        ({"grid": [{"width": 1}, {"activation": "tanh"}]}, InputError, "entry 1 of grid names"),
        ({"grid": {"width": [1], "seed": [0.5]}}, InputError, "the seed 0.5"),
        ({"grid": {"width": [1]}, "seeds_or_params": [1]}, InputError, "only one is possible"),
        ({"grid": {"width": [1], "maxT": [1]}, "maxT": 2}, InputError, "maxT is an option of all runs"),
        ({"grid": {"width": [1]}, "part": (4, 4)}, InputError, "part is"),
        ({"grid": {"width": [1]}, "part": 1}, InputError, "part is 1; a pair"),
        ({}, InputError, "seeds_or_params, grid, or a directory"),
        ({"grid": {"width": [1]}, "continue_unconverged": True}, InputError, "in a directory: give directory"),
    ],
)
def test_bad_grids(arguments, error, message):
    with pytest.raises(error, match=message):
        mg.sweep(student, **arguments)


def test_folders_of_other_sweeps(tmp_path):
    net = student(1)
    list(mg.sweep(net, [0], Here(), tmp_path, maxT=1, maxiterations_optim=0))
    with pytest.raises(InputError, match=r"other options .*maxT: 1 there, 2 now"):
        mg.sweep(net, [0], directory=tmp_path, maxT=2, maxiterations_optim=0)
    with pytest.raises(InputError, match=r"other options .*reltol"):
        mg.sweep(net, [0], directory=tmp_path, maxT=2, maxiterations_optim=0, reltol=1e-3, continue_unconverged=True)
    with pytest.raises(InputError, match="without the option reltol"):
        mg.sweep(directory=tmp_path, reltol=1e-3)
    with pytest.raises(InputError, match="no sweep"):
        mg.Sweep.load(tmp_path / "nowhere")
    list(mg.sweep(net, [0], Here(), tmp_path / "watched", maxiterations_ode=1, maxiterations_optim=0, event=at_three))
    with pytest.raises(InputError, match=r"event=.*at_three: give it again"):
        mg.sweep(directory=tmp_path / "watched")
    assert mg.sweep(directory=tmp_path / "watched", event=at_three).runs[0].resumed
    assert json.loads((tmp_path / "sweep.json").read_text())["type"] == "pymlpgf.Sweep"


def test_the_documentation_shows_the_files_of_the_example():
    page = (ROOT / "docs" / "howto" / "sweeps.md").read_text("utf-8")
    script = (ROOT / "examples" / "slurm" / "students.py").read_text("utf-8").split('"""\n\n', 1)[1]
    for code in (script, (ROOT / "examples" / "slurm" / "students.sbatch").read_text("utf-8")):
        assert f"```text\n{code.strip()}\n```" in page
