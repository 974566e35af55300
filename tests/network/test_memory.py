"""Matrices of a million parameters squared are refused before anything is allocated."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pymlpgf as mg
from pymlpgf import facts
from pymlpgf.validate import memory


@pytest.fixture(scope="module")
def wide() -> tuple[mg.Net, np.ndarray]:
    net = mg.Net(layers=[(999, "tanh", True), (1, "identity", True)], input=np.ones((3, 1000)), target=np.zeros(3))
    assert net.n_params > 1_000_000
    return net, net.random_params(seed=0).flat


CALLS: dict[str, Callable[[mg.Net, np.ndarray], Any]] = {
    "hessian": lambda net, p: net.hessian(p),
    "hessian_spectrum": lambda net, p: net.hessian_spectrum(p),
    "gauss_newton": lambda net, p: net.gauss_newton(p),
    "spectrum_along": lambda net, p: mg.spectrum_along(net, p[None]),
    "escape_saddle": lambda net, p: mg.escape_saddle(net, p),
    "polish": lambda net, p: mg.polish(net, p),
    "classify": lambda net, p: mg.classify(net, p),
    **{
        solver: lambda net, p, solver=solver: mg.minimize(net, p, optim_solver=solver)
        for solver in ("NewtonLBFGS", "NewtonTrustRegion", "Newton", "LevenbergMarquardt", "BFGS")
    },
    "Rodas5P": lambda net, p: mg.flow(net, p, alg="Rodas5P"),
    "Exprb53s3": lambda net, p: mg.flow(net, p, alg="Exprb53s3"),
    "ExpAdams": lambda net, p: mg.flow(net, p, alg="ExpAdams"),
    "train": lambda net, p: mg.train(net, p, optim_solver="Newton"),
}


@pytest.mark.parametrize("name", CALLS)
def test_refused(wide: tuple[mg.Net, np.ndarray], name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(mg.InputError, match=r"needs \d[\d.]* TB .* of 1000999 × 1000999, this machine has [\d.]+ GB: "):
        CALLS[name](*wide)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_solvers_of_other_providers() -> None:
    assert facts.matrices("optim.Newton") == facts.matrices("Newton") == 4
    assert facts.matrices("sciml.Rodas5P") == facts.matrices("sciml.QNDF") == facts.matrices("KenCarp58") == 2
    assert facts.matrices("QNDF") == facts.matrices("LBFGS") == facts.matrices("sciml.Tsit5") == 0


def test_blocks_of_layers(wide: tuple[mg.Net, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(mg.InputError, match=r"the Hessian of layer 1 needs .* of 999999 × 999999"):
        wide[0].hessian_blocks(wide[1])
    narrow = mg.Net(layers=[(2, "tanh", True), (9, "tanh", True)], input=np.ones((3, 1)), target=np.ones((3, 9)))
    monkeypatch.setattr(memory, "_physical", lambda: 8 * 27**2 - 1)
    with pytest.raises(mg.InputError, match=r"layer 2 needs .* of 27 × 27"):
        narrow.hessian_blocks(narrow.random_params(seed=0))


def test_without_matrices(wide: tuple[mg.Net, np.ndarray]) -> None:
    net, p = wide
    assert net.hvp(p, p).shape == p.shape
    assert mg.minimize(net, p, optim_solver="LBFGS", maxiterations_optim=2).optim_iterations == 2
    assert mg.flow(net, p, alg="QNDF", maxiterations_ode=2).ode_iterations == 2


def test_where_memory_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_physical", lambda: None)
    memory.refuse_matrices("this", (10**9, 10**9), np.dtype("f8"), "")
    monkeypatch.setattr(memory, "_physical", lambda: 799)
    with pytest.raises(mg.InputError, match="800 bytes for a matrix of 10 × 10, this machine has 799 bytes: less"):
        memory.refuse_matrices("this", (10, 10), np.dtype("f8"), "less")
