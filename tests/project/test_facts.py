"""What is known of the core before Julia runs is what the core says of itself, and nowhere else."""

import inspect
import re
import runpy
from pathlib import Path

import pytest

import pymlpgf as mg
from pymlpgf import facts, runtime
from pymlpgf.solve.options import FLOW_ALGORITHMS, OPTIM_SOLVERS

PACKAGE = Path(mg.__file__).parent


def test_the_file_is_what_the_core_says():
    bridge = runtime.start()
    said = bridge.tool(0, "facts", {}, [], lambda answer: bridge.field(answer, ""))
    assert (PACKAGE / "facts.json").read_text(encoding="utf-8") == said, "`make facts` writes it anew"


def test_lists_are_derived():
    assert set(FLOW_ALGORITHMS) == {"auto", "Tsit5", "RK4", "Rodas5P", "TRBDF2", "QNDF", "Exprb53s3", "ExpAdams"}
    assert set(OPTIM_SOLVERS) == {
        "auto", "NewtonLBFGS", "VariableProjection",
        "NewtonTrustRegion", "Newton", "LevenbergMarquardt", "NewtonKrylov", "BFGS", "LBFGS",
    }  # fmt: skip
    assert facts.matrices("Newton") == 4
    assert facts.matrices("optim.BFGS") == facts.matrices("BFGS") == 1
    assert facts.matrices("KenCarp58") == facts.matrices("sciml.KenCarp58") == 2
    assert facts.matrices("LBFGS") == facts.matrices("Tsit5") == facts.matrices("CVODE_BDF") == 0


def test_signatures_have_the_cores_defaults():
    for function, names in ((mg.flow, facts.FLOW_DEFAULTS), (mg.minimize, facts.MINIMIZE_DEFAULTS)):
        parameters = inspect.signature(function).parameters
        shared = [name for name in names if name in parameters]
        assert len(shared) > 4
        for name in shared:
            assert parameters[name].default == names[name], name
    for name, method in facts.DISCRETE_METHODS.items():
        made = getattr(mg, name)()
        for option, value in method["options"].items():
            assert getattr(made, option) == (tuple(value) if isinstance(value, list) else value), (name, option)


def test_no_default_of_the_solvers_is_written_in_python():
    for path in sorted(PACKAGE.rglob("*.py")):
        if "julia" not in path.relative_to(PACKAGE).parts[:1] and path.name != "sklearn.py":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"\b(abstol|reltol|patience|n_samples_trajectory)\b[^=\n]* = [0-9]", text), path


# ---- what pages say ------------------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_tables_of_solvers_are_derived():
    tables = runpy.run_path(str(ROOT / ".ci" / "tables.py"))
    page = tables["PAGE"].read_text(encoding="utf-8")
    assert tables["written"](page, facts._FACTS) == page, "`make facts` writes it anew"
    for name in (*FLOW_ALGORITHMS, *OPTIM_SOLVERS):
        assert f'| `"{name}"` |' in page, name


def known(methods: dict) -> set[str]:
    """Their names with and without the provider's."""
    return set(methods) | {name.rpartition(".")[2] for name in methods}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_methods_that_pages_name_exist(page):
    text = page.read_text(encoding="utf-8")
    if page.name == "adding.md":
        text = text.replace('alg="BS3"', "")  # the example of that page
    lists = {"alg": known(facts.FLOW_METHODS | facts.DISCRETE_METHODS), "optim_solver": known(facts.MINIMIZERS)}
    for keyword, name in re.findall(r'\b(alg|optim_solver)="([\w.]+)', text):
        assert name in lists[keyword], (keyword, name)
    for name in re.findall(r'"((?:sciml|optim|nlopt)\.\w+)"', text):
        assert name in known(facts.FLOW_METHODS | facts.MINIMIZERS), name


def rows(page: str) -> list[list[str]]:
    return [line.strip("| \n").split(" | ") for line in page.splitlines() if line.startswith("| ")]


def test_names_in_the_readme():
    (table,) = [{row[0]: row[1] for row in rows((ROOT / "README.md").read_text(encoding="utf-8")) if len(row) == 2}]

    def named(row: str) -> set[str]:
        return set(re.findall(r'`"?(\w+)"?`', table[row]))

    assert set(facts.ACTIVATIONS) <= named("networks")
    assert set(facts.DISCRETE_METHODS) <= named("discrete dynamics")
    assert named("flow") <= set(FLOW_ALGORITHMS)
    assert named("minimum") - {"polish"} <= set(OPTIM_SOLVERS)


def test_defaults_in_the_table_for_users_of_mlpgradientflow():
    page = (ROOT / "docs" / "from-mlpgradientflow.md").read_text(encoding="utf-8")
    defaults, found = facts.FLOW_DEFAULTS | facts.MINIMIZE_DEFAULTS, 0
    for keywords, _, here, *_ in (row for row in rows(page) if len(row) >= 3):
        names = re.findall(r"`(\w+)`", keywords)
        if not names or not set(names) <= set(defaults):
            continue
        for name, text in zip(names, here.split(", "), strict=False):
            default, found = defaults[name], found + 1
            shown = text.strip("`").replace("\u00a0", "").removesuffix(" s").replace(" ", "")
            if isinstance(default, float | int) and not isinstance(default, bool):
                assert float(shown) == default, (name, text)
            else:
                assert shown == (f'"{default}"' if isinstance(default, str) else str(default)), (name, text)
    assert found >= 15
