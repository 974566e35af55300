"""What is known of the core before Julia runs is what the core says of itself, and nowhere else."""

import inspect
import re
from pathlib import Path

import pymlpgf as mg
from pymlpgf import facts, runtime
from pymlpgf.solve.options import FLOW_ALGORITHMS, OPTIM_SOLVERS

PACKAGE = Path(mg.__file__).parent


def test_the_file_is_what_the_core_says():
    bridge = runtime.start()
    said = bridge.tool(0, "facts", {}, [], lambda answer: bridge.field(answer, ""))
    assert (PACKAGE / "facts.json").read_text(encoding="utf-8") == said, "`make facts` writes it anew"


def test_lists_are_derived():
    assert set(FLOW_ALGORITHMS) == {"auto", "Tsit5", "RK4", "Rodas5P", "TRBDF2", "QNDF", "Exprb53s3"}
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
