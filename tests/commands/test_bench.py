"""The benchmark: its contenders compute the same, and its table says what was measured."""

from __future__ import annotations

import numpy as np
import pytest

from pymlpgf.commands import bench
from pymlpgf.commands.bench import contenders, rounds
from pymlpgf.commands.bench.cases import Case, cases

OUT = (1, "identity", True)
CASES = [
    Case("small", 2, 20, ((3, "softplus", True), OUT), grid=True),
    Case("deep", 3, 17, ((4, "tanh", True), (3, "sigmoid", False), (2, "identity", True))),
    Case("nll", 4, 25, ((5, "relu", True), (3, "softmax", True)), loss="nll"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_contenders_compute_the_same(case: Case, library: str) -> None:
    pytest.importorskip(library)
    other = contenders.Torch(1) if library == "torch" else contenders.Jax()
    try:
        prepared = {"pymlpgf": contenders.Ours().prepare(case), other.name: other.prepare(case)}
        for quantity in ("gradient", "hessian"):
            contenders.agree(case, quantity, prepared)
        prepared[other.name]["values"]["gradient"] = lambda: np.ones(1)
        with pytest.raises(AssertionError, match=f"{case.name}: gradient of {other.name} differs"):
            contenders.agree(case, "gradient", prepared)
    finally:
        if library == "torch":
            import torch

            torch.set_default_dtype(torch.float32)


def test_times_are_those_of_one_call() -> None:
    calls = {"a": lambda n: n * 2e-3, "b": lambda n: n * 1e-6}
    assert rounds.shortest(calls, quick=True) == pytest.approx({"a": 2e-3, "b": 1e-6})


def test_grid_is_the_papers() -> None:
    grid = [(case.layers[0][0], case.samples) for case in cases(quick=False, threads=1) if case.grid]
    assert grid == [(k, N) for k in (10, 50, 100) for N in (10, 100, 1000, 10_000, 100_000)]
    assert all(case.hessian for case in cases(quick=False, threads=1) if case.grid)


def row(case: str, quantity: str, seconds: dict[str, float], threads: int = 1, dtype: str = "float64") -> dict:
    return {
        "case": case, "k": 10, "N": 100, "P": 41, "grid": True, "quantity": quantity, "seconds": seconds,
        "threads": threads, "dtype": dtype,
    }  # fmt: skip


def test_summary_and_figure(tmp_path) -> None:
    rows = [
        row("a", "gradient", {"pymlpgf": 1.0, "JAX": 4.0, "pymlpgf in Julia": 0.5, "MLPGradientFlow.jl": 1.0}),
        row("b", "gradient", {"pymlpgf": 2.0, "JAX": 32.0}),
        row("a", "hvp", {"pymlpgf": 2.0}),
        row("a", "gradient", {"pymlpgf": 0.5}, threads=2),
        row("a", "gradient", {"pymlpgf": 0.25}, dtype="float32"),
        row("a", "hessian", {"pymlpgf": 1.0, "JAX": 20.0}),
    ]
    assert bench.ratios(rows[0]) == {"JAX": 4.0, "MLPGradientFlow.jl": 2.0}
    assert bench.ratios(rows[1]) == {"JAX": 16.0}
    assert bench.grid_ratios(rows)["gradient", "JAX"] == [4.0, 16.0]
    text = " ".join(bench._summary(rows).split())
    for part in (
        "gradient JAX ×4 ×8 ×3", "gradient MLPGradientFlow.jl ×2 ×2 ×1",
        "hessian JAX ×20 ×20 ×10", "hvp over gradient: ×2 to ×2",
        "float64 over float32: ×4 to ×4", "one thread over two: ×2 to ×2",
    ):  # fmt: skip
        assert part in text
    figure = pytest.importorskip("pymlpgf.commands.bench.figure")
    assert figure.draw(rows, bench.ratios, bench.GOALS, tmp_path / "f.png").stat().st_size > 10_000


def test_startup_measures_every_public_function() -> None:
    import pymlpgf as mg
    from pymlpgf.commands.bench.startup import CALLS

    code = " ".join(part for call in CALLS.values() for part in call)
    functions = {name for name in mg.__all__ if name[0].islower()}
    # they start Julia, are files alone, or start other processes
    apart = {"init", "runtime_info", "read_peer", "write_peer", "sweep"}
    assert {name for name in functions - apart if f"mg.{name}(" not in code} == set()
