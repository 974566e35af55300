"""The two hosts beside each other, and the solvers that only the full one has.

The whole suite runs on whatever Julia ``PYMLPGF_JULIA`` (or the configuration file) selects; the tests of this file
that need the full host skip on the embedded one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import LIMIT, ROOT, Child, without_workload

import pymlpgf as mg

SCRIPT = """
import json
rng = np.random.default_rng(7)
out = {}
for name, activation, loss in (("softplus", "softplus", "mse"), ("tanh", "tanh", "mse"), ("labels", "gelu", "nll")):
    X = rng.normal(size=(50, 2))
    if loss == "nll":
        net = mg.Net(layers=[(4, activation, True), (3, "softmax", True)], input=X,
                     target=np.arange(50) % 3, loss="nll", l2=1e-2)
    else:
        net = mg.Net(layers=[(3, activation, True), (1, "identity", True)], input=X, target=np.sin(X[:, 0]), l2=1e-3)
    p = net.random_params(seed=3)
    v = np.cos(np.arange(net.n_params))
    flow = mg.flow(net, p, alg="Rodas5P", maxT=10, abstol=1e-9, reltol=1e-9, verbosity=0)
    end = mg.minimize(net, flow, maxtime_optim=20, verbosity=0)
    out[name] = {"p": p.flat.tolist(), "loss": net.loss(p), "gradient": net.gradient(p).tolist(),
                 "hessian": net.hessian(p).tolist(), "hvp": net.hvp(p, v).tolist(), "flow": flow.x.tolist(),
                 "minimum": end.loss, "gnorm": end.gnorm}
print(json.dumps({"host": mg.runtime_info()["host"], "numbers": out}))
"""


def test_same_numbers_on_both_hosts(run_python: Callable[..., str]) -> None:
    if _host() != "juliacall":
        pytest.skip("this compares the full host, which PYMLPGF_JULIA can select, with the embedded one")
    here = json.loads(run_python(SCRIPT, stderr=None))
    there = json.loads(
        run_python(SCRIPT, stderr=None, environment={"PYMLPGF_JULIA": "embedded", "PYMLPGF_JULIA_PROJECT": ""})
    )
    assert (here["host"], there["host"]) == ("juliacall", "embedded")
    for name, ours in here["numbers"].items():
        other = there["numbers"][name]
        assert ours["p"] == other["p"]
        for quantity in ("loss", "gradient", "hessian", "hvp"):
            a, b = np.array(ours[quantity]), np.array(other[quantity])
            assert np.abs(a - b).max() <= 1e-13 * np.abs(b).max(), (name, quantity)
        np.testing.assert_allclose(ours["flow"], other["flow"], rtol=1e-6, atol=1e-7)
        assert abs(ours["minimum"] - other["minimum"]) <= 1e-13 * abs(other["minimum"])
        assert max(ours["gnorm"], other["gnorm"]) < 1e-13


def test_names_of_packages_on_the_embedded_host(net: mg.Net) -> None:
    if _host() != "embedded":
        pytest.skip("the full host has these packages")
    p = net.random_params(seed=0)
    for call in (
        lambda: mg.flow(net, p, alg="KenCarp58"),
        lambda: mg.flow(net, p, alg="sciml.Rodas5P"),
        lambda: mg.minimize(net, p, optim_solver="optim.Newton"),
        lambda: mg.train(net, p, optim_solver="SLSQP"),
    ):
        with pytest.raises(mg.InputError, match=r"a method of the Julia package .*, which needs Julia 1\.10"):
            call()


@pytest.mark.parametrize("alg", ["KenCarp58", "sciml.Rodas5P", "sciml.Tsit5", "FBDF", "CVODE_BDF"])
def test_flow_by_sciml(net: mg.Net, alg: str) -> None:
    _needs_packages()
    p = net.random_params(seed=0)
    reference = mg.flow(net, p, alg="Rodas5P", maxT=5, abstol=1e-12, reltol=1e-12)
    try:
        res = mg.flow(net, p, alg=alg, maxT=5, abstol=1e-8, reltol=1e-8, observables={"first": lambda x: x[0]})
    except mg.InputError as error:
        if "not installed in this environment" not in str(error):
            raise
        pytest.skip(str(error))
    assert (res.provider, res.ode_stopped_by, res.ode_t) == ("sciml", "maxT", 5.0)
    assert res.alg == alg.removeprefix("sciml.")
    np.testing.assert_allclose(res.x, reference.x, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(res.trajectory["first"], res.trajectory.x[:, 0])
    stopped = mg.flow(net, p, alg=alg, callback=_stop_at_three)
    assert (stopped.ode_stopped_by, stopped.ode_iterations) == ("callback", 3)


@pytest.mark.parametrize("solver", ["optim.Newton", "optim.NewtonTrustRegion", "optim.LBFGS", "SLSQP"])
def test_minimize_by_optim(net: mg.Net, solver: str, tmp_path: Path) -> None:
    _needs_packages()
    p = net.random_params(seed=0)
    try:
        res = mg.minimize(net, p, optim_solver=solver, maxtime_optim=10)
    except mg.InputError as error:
        if "not installed in this environment" not in str(error):
            raise
        pytest.skip(str(error))
    assert res.provider == ("nlopt" if solver == "SLSQP" else "optim")
    assert res.gnorm < 1e-6
    assert res.loss == pytest.approx(net.loss(res.x), rel=1e-14)
    assert mg.load(res.save(tmp_path / "r.npz")).provider == res.provider
    both = mg.train(net, p, maxT=1, optim_solver=solver, maxiterations_optim=3)
    assert both.provider == f"builtin+{res.provider}"
    assert both.optim_iterations == 3


def test_methods_with_options_of_their_own(net: mg.Net) -> None:
    p = net.random_params(seed=0)
    products = mg.flow(net, p, alg="TRBDF2(linsolve = :krylov)", maxT=1)
    matrices = mg.flow(net, p, alg="TRBDF2", maxT=1)
    assert (products.alg, products.nhev, matrices.nhvp) == ("TRBDF2 with a Krylov method", 0, 0)
    assert products.nhvp > 0 < matrices.nhev
    np.testing.assert_allclose(products.x, matrices.x, atol=1e-3)
    assert mg.minimize(net, p, optim_solver="LBFGS(memory = 3)", maxiterations_optim=5).optim_solver == "LBFGS"
    for alg, message in (
        ("TRBDF2(nonsense = 1)", "which Julia cannot evaluate"),
        ("TRBDF2(;linsolve=)", "which Julia cannot evaluate"),
        ("TRBDF2(", "unknown alg"),
        ("Nothing(1)", "unknown alg"),
        ("Adam(learning_rate = 1)", r"pymlpgf\.Adam"),
    ):
        with pytest.raises(mg.InputError, match=message):
            mg.flow(net, p, alg=alg, maxT=1)
    with pytest.raises(mg.InputError, match="for methods of Optim and NLopt"):
        mg.minimize(net, p, optim_options={"f_calls_limit": 3})
    for nonsense in (3, {1: 2}, {"a": [1]}, {"a": float("nan")}):
        with pytest.raises(mg.InputError, match="optim_options"):
            mg.minimize(net, p, optim_options=nonsense)


def test_options_of_optim(net: mg.Net, tmp_path: Path) -> None:
    _needs_packages()
    p = net.random_params(seed=0)
    options = {"optim_solver": "optim.LBFGS(m = 3)", "optim_options": {"f_calls_limit": 7}}
    res = mg.minimize(net, p, checkpoint=tmp_path / "c.npz", **options)
    assert (res.optim_solver, res.optim_stopped_by) == ("LBFGS", "patience")
    assert res.nfev <= 10
    krylov = mg.flow(net, p, alg="KenCarp58(linsolve = LinearSolve.KrylovJL_GMRES())", maxT=1)
    assert (krylov.provider, krylov.nhev) == ("sciml", 0)
    assert krylov.nhvp > 0
    with pytest.raises(mg.InputError, match="nonsense"):
        mg.minimize(net, p, optim_solver="optim.Newton", optim_options={"nonsense": 1})


def test_the_first_run_compiles_nothing_again(start_python: Callable[..., Child]) -> None:
    # Methods that PythonCall and its companions add make compiled code invalid that depends on values of unknown types.
    _needs_packages()
    if tuple(int(n) for n in str(mg.runtime_info()["version"]).split(".")[:2]) < (1, 12):
        pytest.skip("Julia tells what it compiles to a process that runs already from 1.12 on")
    child = start_python(
        """
        mg.init()
        runtime.evaluate("ccall(:jl_force_trace_compile_timing_enable, Cvoid, ()); 1")
        net = make_net()
        p = net.random_params(seed=0)
        mg.minimize(net, mg.flow(net, p, maxT=1.0), maxiterations_optim=5)
        runtime.evaluate("f(x) = x; f(1)")
        """
    )
    child.finish(stderr=None)
    compiled = [line for line in child.err.splitlines() if "precompile(" in line]
    assert compiled  # f at the least
    assert [line for line in compiled if "MLPGF." in line] == []


@pytest.fixture(scope="module")
def net() -> mg.Net:
    X = np.random.default_rng(1).normal(size=(60, 2))
    return mg.Net(layers=[(3, "tanh", True), (1, "identity", True)], input=X, target=np.sin(X[:, 0]), l2=1e-3)


def _stop_at_three(step: mg.IntermediateResult) -> None:
    if step.iteration == 3:
        raise StopIteration


def _host() -> str:
    mg.init()
    return str(mg.runtime_info()["host"])


def _needs_packages() -> None:
    if _host() != "juliacall":
        pytest.skip("needs the full host, which PYMLPGF_JULIA (and PYMLPGF_JULIA_PROJECT) can select")


def test_a_depot_that_nobody_can_write_to(start_python: Callable[..., Child], tmp_path: Path) -> None:
    _needs_packages()
    # A file where a folder is expected stops the administrator, too. The compiled code is in the depots behind it.
    blocked = tmp_path / "depot"
    blocked.touch()
    depots = os.environ.get("JULIA_DEPOT_PATH", "")
    environment = {
        "JULIA_DEPOT_PATH": os.pathsep.join([str(blocked), depots]),
        "PYMLPGF_CACHE": str(tmp_path / "cache"),
    }
    where = "print(sys.modules['juliacall'].Main.seval('first(DEPOT_PATH)'), make_net().n_params)"
    for begin in ("import sys", "import sys, juliacall"):  # started here, or by the user
        out = start_python(f"{begin}\nmg.init()\n{where}", environment).finish(stderr=None).split()
        assert Path(out[0]).parent == tmp_path / "cache"
        assert out[1] == "10"
    child = start_python(
        "raises(mg.MLPGFError, mg.init, 'MLPGF is not compiled for this Julia, and neither', 'PYMLPGF_CACHE')",
        {**environment, "PYMLPGF_CACHE": str(blocked), **without_workload(tmp_path)},
    )
    child.finish(stderr=None)


def test_processes_that_start_at_once_compile_once(start_python: Callable[..., Child], tmp_path: Path) -> None:
    _needs_packages()
    environment = {
        "JULIA_DEPOT_PATH": os.pathsep.join([str(tmp_path / "depot"), os.environ.get("JULIA_DEPOT_PATH", "")]),
        **without_workload(tmp_path),  # compiling takes seconds then, and what the other depots have is not used
    }
    children = [start_python("mg.init()\nprint(runtime.evaluate('6 * 7'))", environment) for _ in range(4)]
    assert [child.finish(stderr=None) for child in children] == ["42\n"] * 4
    told = "".join(child.err for child in children)  # by Julia 1.12; older ones compile without a word
    assert told.count("✓ MLPGF") - told.count("MLPGF Being precompiled by another process") in (0, 1)
    assert len(list(tmp_path.glob("depot/compiled/v*/MLPGF/*.ji"))) == 1


def test_a_julia_that_juliacall_has_started(run_python: Callable[..., str]) -> None:
    _needs_packages()
    code = """
        import juliacall
        raises(mg.MLPGFError, lambda: mg.init(threads=3), "started Julia with 2 threads", "PYTHON_JULIACALL_THREADS=3")
        mg.init()
        assert mg.runtime_info()["threads"] == 2
        assert mg.runtime_info()["origin"] == "started by juliacall in this process"
        net = make_net()
        assert mg.train(net, net.random_params(), maxT=1.0, maxiterations_optim=2).loss < 10
        assert juliacall.Main.seval("6 * 7") == 42
    """
    run_python(code, environment={"PYTHON_JULIACALL_THREADS": "2", "PYTHON_JULIACALL_HANDLE_SIGNALS": "yes"})
    code = "import juliacall\nraises(mg.MLPGFError, mg.init, 'PYTHON_JULIACALL_INIT=no')"
    run_python(code, environment={"PYTHON_JULIACALL_INIT": "no"})


INSIDE = """
import sys
import pymlpgf as mg
from pymlpgf.runtime.hosts.embedded import EmbeddedHost

net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=[[1.0], [2.0]], target=[1.0, 2.0])
print(mg.train(net, net.random_params(seed=1), maxT=1.0, maxiterations_optim=3, verbosity=0).loss < 1e-2)
print(mg.runtime_info()["origin"])
del sys.modules["juliacall"]
try:
    EmbeddedHost(None, {})
except mg.RuntimeUnavailable as error:
    print(error)
"""


def test_python_inside_of_julia(tmp_path: Path) -> None:
    _needs_packages()
    (tmp_path / "inside.py").write_text(INSIDE)
    code = f'using PythonCall; pyexec(read(raw"{tmp_path / "inside.py"}", String), Main)'
    info = mg.runtime_info()
    unset = ("PYMLPGF_JULIA", "PYTHON_JULIACALL_")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(unset)},
        "JULIA_PROJECT": info["project"],
        "JULIA_CONDAPKG_BACKEND": "Null",
        "JULIA_PYTHONCALL_EXE": sys.executable,
        "PYTHONPATH": str(ROOT),
    }
    command = [info["julia"], "--startup-file=no", "-e", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    good, origin, refusal = done.stdout.splitlines()
    assert (good, origin) == ("True", "the Julia that runs this Python")
    assert "another Julia runs in this process already" in refusal
