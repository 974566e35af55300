"""The benchmark: its contenders compute the same, and its tables say what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pymlpgf.commands.bench import contenders, derivatives, rounds
from pymlpgf.commands.bench.cases import Case, cases
from pymlpgf.commands.bench.record import Record

OUT = (1, "identity", True)
CASES = [
    Case("small", 2, 20, ((3, "softplus", True), OUT), grid=True),
    Case("deep", 3, 17, ((4, "tanh", True), (3, "sigmoid", False), (2, "identity", True))),
    Case("nll", 4, 25, ((5, "relu", True), (3, "softmax", True)), loss="nll"),
]
MAKERS = {"numpy": contenders.Numpy, "torch": lambda: contenders.Torch(compiled=False), "jax": contenders.Jax}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("library", MAKERS)
def test_contenders_compute_the_same(case: Case, library: str) -> None:
    pytest.importorskip(library)
    for dtype in ("float32", "float64") if case.grid else ("float64",):
        forms = contenders.Ours().prepare(case, dtype) | MAKERS[library]().prepare(case, dtype)
        compared = 0
        for quantity in rounds.QUANTITIES:
            of = {
                name: form for (name, q), form in forms.items() if q == quantity and isinstance(form, contenders.Form)
            }
            contenders.agree(case, dtype, quantity, of)
            compared += len(of) - 1
        assert compared >= (3 if library != "numpy" else 1)
    wrong = {"pymlpgf": of["pymlpgf"], "another": contenders.Form(lambda n: 0.0, lambda: np.ones(1))}
    with pytest.raises(AssertionError, match=f"{case.name}: hessian of another differs"):
        contenders.agree(case, "float64", "hessian", wrong)


def test_automatic_hessians_that_would_fill_the_memory_are_left_out() -> None:
    pytest.importorskip("torch")
    case = Case("large", 2, 200_000, ((100, "softplus", True), OUT))
    assert case.tangents == 8 * 200_000 * 401 * 101
    assert MAKERS["torch"]().prepare(case, "float64")["PyTorch", "hessian"] == "memory"


def test_a_compiler_that_does_not_work_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    def failing(function):
        raise RuntimeError("No working C++ compiler found\nand a long story")

    monkeypatch.setattr(torch, "compile", failing)
    assert contenders.Torch().compiles() == "No working C++ compiler found"


def test_times_are_those_of_one_call() -> None:
    calls = {"a": lambda n: n * 2e-3, "b": lambda n: n * 1e-6}
    assert rounds.shortest(calls, quick=True) == pytest.approx({"a": 2e-3, "b": 1e-6})


def test_grid_is_the_papers() -> None:
    grid = [case for case in cases(quick=False, threads=1) if case.grid]
    sizes = [(k, N) for N in (10, 100, 1000, 10_000, 100_000) for k in (10, 50, 100)]
    assert [(case.layers[0][0], case.samples) for case in grid] == sizes
    assert all(case.hessian and not case.wide for case in grid)
    others = {case.name: case for case in cases(quick=False, threads=1) if not case.grid}
    assert {name for name, case in others.items() if case.wide} == {
        "100 → 256 → 256 → 1 tanh, 2000", "784 → 100 → 10 nll, 2000",
    }  # fmt: skip
    assert others["784 → 100 → 10 nll, 2000"].n_params == 79_510


def row(case: str, quantity: str, seconds: dict[str, float], threads: int = 1, dtype: str = "float64") -> dict:
    return {
        "case": case, "k": 10, "N": 100, "P": 41, "grid": case != "deep", "wide": False, "quantity": quantity,
        "seconds": seconds, "left_out": {"torch.compile": "memory"} if quantity == "hessian" else {},
        "threads": threads, "dtype": dtype,
    }  # fmt: skip


ROWS = [
    row("a", "gradient", {"pymlpgf": 1.0, "JAX": 4.0, "pymlpgf-in-Julia": 0.5, "MLPGradientFlow.jl": 1.0}),
    row("b", "gradient", {"pymlpgf": 2.0, "JAX": 32.0}),
    row("deep", "gradient", {"pymlpgf": 1.0, "JAX": 1.5, "pymlpgf-in-Julia": 1.0, "SimpleChains.jl": 0.5}),
    row("a", "hvp", {"pymlpgf": 2.0}),
    row("deep", "hvp", {"pymlpgf": 2.6, "JAX": 2.0}),
    row("a", "gradient", {"pymlpgf": 0.5}, threads=2),
    row("a", "gradient", {"pymlpgf": 0.25}, dtype="float32"),
    row("a", "hessian", {"pymlpgf": 1.0, "JAX": 20.0, "NumPy + dsyrk": 2.0}),
]


def test_ratios_are_to_ours_from_the_same_language() -> None:
    assert derivatives.ratios(ROWS[0]) == {"JAX": 4.0, "MLPGradientFlow.jl": 2.0}
    assert derivatives.ratios(ROWS[2]) == {"JAX": 1.5, "SimpleChains.jl": 0.5}
    assert derivatives.grid_ratios(ROWS)["gradient", "JAX"] == [4.0, 16.0]


def test_missed_goals_are_listed() -> None:
    assert derivatives.missed(ROWS) == [
        "deep: gradient ×1.50 of JAX, goal ×2",
        "deep: gradient ×0.50 of SimpleChains.jl, goal ×1",
        "deep: hvp ×0.77 of JAX, goal ×1",
        "deep: hvp costs 2.60 gradients, goal 2.5",
        "a: hessian ×2.00 of NumPy + dsyrk, goal ×2.5",
    ]


def test_summary_tables_and_figure(tmp_path: Path) -> None:
    text = " ".join(derivatives.summary(ROWS).split())
    for part in (
        "gradient JAX ×4 ×8", "gradient MLPGradientFlow.jl ×2 ×2", "hessian JAX ×20 ×20",
        "hvp over gradient: ×2 to ×2.6", "float64 over float32: ×4 to ×4", "one thread over two: ×2 to ×2",
        "Goals missed in 5 places",
    ):  # fmt: skip
        assert part in text
    assert "| net, samples | P | µs | JAX | NumPy + dsyrk | torch.compile |" in derivatives.tables(ROWS)
    assert "| a | 41 | 1e+06 | 20 | 2 | memory |" in derivatives.tables(ROWS)
    figure = pytest.importorskip("pymlpgf.commands.bench.figure")
    path = figure.draw(ROWS, derivatives.ratios, derivatives.goal, tmp_path / "f.png")
    assert path.stat().st_size > 10_000


def test_a_record_is_continued_with_the_same_settings_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record.json"
    Record(path, quick=True).add({"case": "a"})
    assert Record(path, quick=True).rows == [{"case": "a"}]
    assert "has 1 rows already" in capsys.readouterr().out
    assert Record(path, quick=False).rows == []
    assert "written anew" in capsys.readouterr().out


def test_startup_measures_every_public_function() -> None:
    import pymlpgf as mg
    from pymlpgf.commands.bench.startup import CALLS

    code = " ".join(part for call in CALLS.values() for part in call)
    functions = {name for name in mg.__all__ if name[0].islower()}
    # they start Julia, are files alone, or start other processes
    apart = {"init", "runtime_info", "read_peer", "write_peer", "sweep"}
    assert {name for name in functions - apart if f"mg.{name}(" not in code} == set()
