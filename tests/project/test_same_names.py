"""Python's public functions and the Julia package's: the same names, keywords and defaults, or a reason why not."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pymlpgf as mg

ROOT = Path(__file__).resolve().parents[2]

#: What only Python has, and why Julia needs no such name.
PYTHON_ALONE = {
    "errors of the border, which are Julia's own exceptions there": {
        "InputError", "JuliaError", "KeywordError", "MLPGFError", "RuntimeUnavailable", "ThreadError",
    },
    (ANSWER := "what holds answers; Julia's types are documented by the functions that return them"): {
        "Classification", "DenseSolution", "DistinctMinima", "Explanation", "IntermediateResult", "NeuronMatching",
        "Params", "Polished", "SaddlePassage", "SubspaceGrid", "TrainResult", "Trajectory", "TrajectoryDistance",
        "Branch", "Catalogue", "Departure", "Followed", "Likeness", "NeuronClusters", "NeuronPair", "NeuronsAlong",
        "SaddleLine", "SpecialPoint", "SubspacePoints", "Channel", "Gauge", "MinimumAtInfinity", "ProvedDistinct",
    },
    "files, processes and the start of Julia": {
        "ACTIVATIONS", "Checkpoint", "Run", "Sweep", "init", "load", "resume", "runtime_info", "sweep", "__version__",
        "read_peer", "write_peer",
    },
    "the abstract type of the discrete methods": {"DiscreteMethod"},
    "MLPGF.align, MLPGF.channels: names too short to export": {"align", "channels"},
    "units of limit networks, MLPGF.Derivative and so on": {"Derivative", "Tail", "Sharp", "Inside"},
    "what to record; Julia has observables by name": {
        "Eigenvalues", "ParameterNorm", "Projections", "Recording", "UnitCosines", "UnitNorms",
    },
    "made of what both have": {"distinct", "minima_catalogue", "neuron_groups", "neuron_pairs", "subspace_points"},
}  # fmt: skip

#: Exported functions of Julia, and what they are of Python's Net.
METHODS = {
    "loss": "loss", "gradient": "gradient", "hessian": "hessian", "hvp": "hvp",
    "value_and_gradient!": "value_and_gradient", "random_params": "random_params",
    "unpack": "params", "n_params": "n_params", "predict": "__call__",
    "data_loss": "data_terms", "gauss_newton": "gauss_newton", "hessian_blocks": "hessian_blocks",
    "jacobian": "jacobian", "tangent_kernel": "tangent_kernel",
}  # fmt: skip

#: What only Julia has.
JULIA_ALONE = {
    "functions that fill the caller's array; Python passes out=": {"gradient!", "hessian!", "hvp!"},
    "options as structs; in Python they are keywords": {"FlowOptions", "MinimizeOptions"},
    "methods as objects; in Python names": {
        "Newton", "NewtonTrustRegion", "LevenbergMarquardt", "NewtonKrylov", "BFGS", "LBFGS", "Tsit5", "RK4", "Rodas5P",
        "TRBDF2", "QNDF", "Exprb53s3", "ExpAdams", "Auto", "AutoMinimizer", "NewtonLBFGS", "VariableProjection",
    },
    "activations as functions; in Python names": {
        "softplus", "relu", "sigmoid", "sigmoid2", "normal_cdf", "gelu", "silu", "selu", "square", "cube", "softmax",
        "activation",
    },
    "the callback of every step; Python has callback=": {"Monitor"},
    "for packages that speak CommonSolve's language": {"GradientFlowProblem"},
    "constraints as objects; in Python keywords": {"Constraint"},
    "observables; in Python objects for observables=": {"recorded_eigenvalues", "recorded_unit_norms"},
    "what catalogues are made of": {"binomial_interval", "proved_different"},
    "parts of infinite nets": {"gauss_hermite", "bivariate_normal_cdf", "owens_t"},
}  # fmt: skip

#: Python's classes of answers, whose fields are those of Julia's struct of the same name.
ANSWERS = [
    name for name in [*sorted(PYTHON_ALONE[ANSWER]), "Certificate"] if dataclasses.is_dataclass(getattr(mg, name))
]

# Keywords of every method of the exported functions, with their defaults as Julia's source has them.
JULIA = """
import MLPGF
const found = Dict{String,Any}()
definitions(x) = nothing
function definitions(x::Expr)
    if x.head in (:function, :(=)) && x.args[1] isa Expr
        call = x.args[1]
        while call.head in (:where, :(::)) && call.args[1] isa Expr
            call = call.args[1]
        end
        if call.head == :call && call.args[1] isa Symbol
            keywords = get!(() -> Dict{String,Any}(), found, string(call.args[1]))
            for part in call.args[2:end]
                part isa Expr && part.head == :parameters || continue
                for keyword in part.args
                    keyword isa Expr && keyword.head == :kw || continue
                    name = keyword.args[1] isa Symbol ? keyword.args[1] : keyword.args[1].args[1]
                    keywords[string(name)] = string(keyword.args[2])
                end
            end
        end
    end
    foreach(definitions, x.args)
end
for (folder, _, files) in walkdir(dirname(pathof(MLPGF))), file in files
    endswith(file, ".jl") && definitions(Base.parse_input_line(read(joinpath(folder, file), String)))
end
exported = string.(filter(!=(:MLPGF), names(MLPGF)))
options(O) = [string(MLPGF.phase_name(O, name)) for name in fieldnames(O)]
println(MLPGF.to_json(Dict("exported" => exported, "flow" => options(MLPGF.FlowOptions),
    "minimize" => options(MLPGF.MinimizeOptions),
    "keywords" => Dict{String,Any}(name => found[name] for name in exported if haskey(found, name)),
    "fields" => Dict{String,Any}(name => string.(fieldnames(getfield(MLPGF, Symbol(name)))) for name in ANSWERS
                                 if isdefined(MLPGF, Symbol(name))))))
"""


@pytest.fixture(scope="module")
def julia() -> dict:
    script = f"const ANSWERS = {json.dumps(ANSWERS)}\n{JULIA}"
    command = [sys.executable, "-m", "pymlpgf", "julia", "--startup-file=no", "-e", script]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_names(julia: dict) -> None:
    exported = set(julia["exported"])
    python = set(mg.__all__) | {"__version__"}
    alone = set().union(*PYTHON_ALONE.values())
    assert alone <= python
    assert not alone & exported, "these have a name in Julia now"
    assert python - alone <= exported
    assert exported - python - set(METHODS) == set().union(*JULIA_ALONE.values())
    for name in METHODS.values():
        assert hasattr(mg.Net, name), name


#: Keywords of the solvers that only Python has: what a monitor, a file or a method's object is in Julia.
PYTHONS_OWN = {
    "callback", "verbosity", "progress_interval", "checkpoint", "checkpoint_interval", "learning_rate", "schedule",
    "freeze", "tie", "at_infinity",
}  # fmt: skip
#: what sweeps fill in themselves in Python
JULIAS_OWN = {"memory", "optim_memory"}


@pytest.mark.parametrize("name", ["flow", "minimize", "train"])
def test_keywords_of_solvers(julia: dict, name: str) -> None:
    """Their defaults are read from Julia (tests/test_facts.py)."""
    keywords = {p.name for p in inspect.signature(getattr(mg, name)).parameters.values() if p.kind == p.KEYWORD_ONLY}
    expected = {"flow": julia["flow"], "minimize": julia["minimize"], "train": julia["flow"] + julia["minimize"]}[name]
    assert keywords - PYTHONS_OWN == set(expected) - JULIAS_OWN


MINIMIZE = (
    "optim_solver", "maxtime_optim", "maxiterations_optim", "min_gnorm", "minloss", "patience", "verbosity",
)  # fmt: skip


def literal(text: str) -> object:
    return {"Inf": float("inf"), "nothing": None, "true": True, "false": False}.get(text, text)


def same(ours: object, theirs: str) -> bool:
    value = literal(theirs)
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return False
    return ours == value


#: Keywords that one language alone has, and defaults that differ: positions count from 0 in Python and from 1 in Julia.
PYTHONS_KEYWORDS = {
    "TeacherNet": {"dtype", "params", "seed", "n_features"},  # T in Julia, the others positional or of random_params
    "Certificate": {
        "problem",
        "constraint",
        "coordinates",
    },  # what its file holds of the net, and what is empty without
    "certify": {"freeze", "tie"},  # ways to write a constraint
    "classify": {"freeze", "tie"},
    "ConstrainedNet": {"p", "freeze", "tie", "constraint"},  # a Constraint in Julia, positional
    "cluster_neurons": {"tolerance", "by"},  # distances in Julia, of any kind
    "compare_neurons": {"teacher", "q"},  # positional in Julia
    "follow": {"verbosity"},
    "match_neurons": {"q"},  # positional in Julia
    "polish": {"verbosity", "progress_interval", "freeze", "tie"},
    # start is positional in Julia, and options of minimize are passed on.
    "subspace_minloss": {"start", *MINIMIZE},
    "subspace_grid": set(MINIMIZE),
}
JULIAS_KEYWORDS = {
    "TeacherNet": {"T"},
    "cluster_neurons": {"distances"},
    "certify": {"polish", "monitor"},
    "follow": {"monitor"},
    "polish": {"monitor"},
    "subspace_minloss": {"monitor"},
    "subspace_grid": {"monitor"},
}
OTHER_DEFAULTS = {
    ("polish", "maxtime"): (120, "Inf"),
    ("follow", "maxtime"): (60, "Inf"),
    ("certify", "maxtime"): (600, "Inf"),
    ("follow", "bounds"): (None, "(0.0, 1.0)"),
    ("saddle_line", "gamma"): (None, "range(-1, 2; length = 101)"),
    ("spectrum_along", "k"): (None, "n_params(net)"),
    ("split_neuron", "j"): (None, "(net.layers[layer]).width + 1"),
}
FIRST_LAYER = (0, "1")


def test_keywords_of_the_others(julia: dict) -> None:
    names = sorted(set(mg.__all__) & set(julia["exported"]) - {"flow", "minimize", "train", "Net", "Stop"})
    assert len(names) > 25
    for name in names:
        parameters = inspect.signature(getattr(mg, name)).parameters.values()
        ours = {p.name: p.default for p in parameters if p.default is not p.empty}
        theirs = julia["keywords"].get(name, {})
        assert set(ours) - PYTHONS_KEYWORDS.get(name, set()) == set(theirs) - JULIAS_KEYWORDS.get(name, set()), name
        for keyword in set(ours) & set(theirs):
            pair = ours[keyword], theirs[keyword]
            expected = OTHER_DEFAULTS.get((name, keyword), FIRST_LAYER if keyword == "layer" else None)
            assert pair == expected if expected else same(*pair), (name, keyword, pair)


#: Fields that one language alone has: what Python keeps of the net, what Julia needs for the border or shows apart.
PYTHONS_FIELDS = {
    "Certificate": {"constraint", "layers", "problem", "total_time"},
    "Channel": {"incoming", "outgoing"},  # functions in Julia
    "Followed": {"parameter"},  # a Family in Julia
    "Polished": {"digits", "message"},  # x is in BigFloat in Julia
    "SaddleLine": {"loss", "narrow", "params"},
}
JULIAS_FIELDS = {
    "DenseSolution": {"x0"},
    "Followed": {"n_branches", "n_points"},
    "MinimumAtInfinity": {"eps"},
    "SaddleLine": {"open", "counted", "index_at_ends", "negative", "positive"},
}


def test_fields_of_answers(julia: dict) -> None:
    both = julia["fields"]
    assert len(both) > 12
    for name in both.keys() - {"TrainResult"}:  # whose phases are results of their own in Julia
        ours = {f.name for f in dataclasses.fields(getattr(mg, name)) if not f.name.startswith("_")}
        theirs = set(both[name])
        assert ours - theirs == PYTHONS_FIELDS.get(name, set()), name
        assert theirs - ours == JULIAS_FIELDS.get(name, set()), name
