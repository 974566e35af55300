"""The examples of docs/developers/adding.md, applied to a copy of the tree and used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

USE = """
import json, subprocess
import numpy as np
import pymlpgf as mg
from pymlpgf.landscape.largest import largest_weight
from pymlpgf.solve.options import FLOW_ALGORITHMS

assert "BS3" in FLOW_ALGORITHMS and "BS3" in mg.flow.__doc__ and "softsign" in mg.ACTIVATIONS
X = np.linspace(-2, 2, 20)[:, None]
net = mg.Net(layers=[(3, "softsign", True), (1, "identity", True)], input=X, target=np.sin(2 * X))
p = net.random_params(seed=1)
ours, other = (mg.flow(net, p, alg=alg, maxT=5, abstol=1e-9, reltol=1e-9) for alg in ("BS3", "Tsit5"))
assert (ours.alg, ours.ode_stopped_by) == ("BS3", "maxT")
assert np.abs(ours.x - other.x).max() < 1e-6, ours.x - other.x
step = 1e-5 * np.ones(p.flat.size)
slope = (net.loss(p.flat + step) - net.loss(p.flat - step)) / 2e-5
assert abs(slope - net.gradient(p).sum()) < 1e-7
assert largest_weight(net, p) == np.abs(p.flat).max()
try:
    mg.flow(net, p, alg="BS33")
except mg.InputError as error:
    assert "'BS3'" in str(error)
print("used")
"""


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with the page's examples in their places."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pymlpgf", "julia"):
        ignored = shutil.ignore_patterns("__pycache__", "Manifest.toml")
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    page = (ROOT / "docs/developers/adding.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", page, re.S))
    integrator = "julia/src/flow/methods/bs3.jl"
    activation, tool = "julia/src/network/activations.jl", "julia/src/interface/tools.jl"
    assert set(blocks) == {integrator, activation, tool, "pymlpgf/landscape/largest.py"}
    for path in (integrator, "pymlpgf/landscape/largest.py"):
        (tree / path).write_text(blocks[path], encoding="utf-8")
    for path, before in ((activation, "struct Square <: Activation end"), (tool, '    "facts" => ')):
        text = (tree / path).read_text(encoding="utf-8")
        assert text.count(before) == 1
        (tree / path).write_text(text.replace(before, blocks[path] + before), encoding="utf-8")
    (line,) = re.findall(r"^include\(.*\)$", page, re.M)
    module = tree / "julia/src/MLPGF.jl"
    text = module.read_text(encoding="utf-8")
    module.write_text(text.replace('include("flow/methods/auto.jl")', line + '\ninclude("flow/methods/auto.jl")'))
    # A current Julia would compile for minutes in advance what is used here once.
    (tree / "julia/LocalPreferences.toml").write_text("[MLPGF]\nprecompile_workload = false\n", encoding="utf-8")
    return tree


def run(tree: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYMLPGF_IMAGE": "off"}
    done = subprocess.run(
        [sys.executable, *command], cwd=tree, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_work(changed: Path) -> None:
    facts = run(changed, "-m", "pymlpgf", "julia", "--startup-file=no", "-e", "using MLPGF; print(MLPGF.facts())")
    (changed / "pymlpgf/facts.json").write_text(facts, encoding="utf-8")
    assert run(changed, "-c", USE).strip() == "used"


def test_the_tests_take_the_integrator_in(changed: Path) -> None:
    check = """
using MLPGF, Test
MLPGF.FLOW_METHODS["BS3"] isa MLPGF.ExplicitPair || error("not registered")
source = read(joinpath(ARGS[1], "julia", "test", "flow_tests.jl"), String)
body = match(r"@testset \\"conditions of the tableaus\\" begin.*?\\n        end\\n"s, source).match
include_string(Main, body * "    end")
"""
    run(changed, "-m", "pymlpgf", "julia", "--startup-file=no", "-e", check, "--", str(changed))
