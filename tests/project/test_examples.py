"""What the examples and the demo show is run as it stands; README and docs are in test_docs.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pymlpgf as mg

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 240


def run(command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rror" not in done.stderr, done.stderr
    return done.stdout


def julia(*arguments):
    return [sys.executable, "-m", "pymlpgf", "julia", "--startup-file=no", *arguments]


def final_loss(output):
    return float(re.search(r"-> ([0-9.e+-]+), \|gradient\| = ", output)[1])


def test_quickstart_in_both_languages(tmp_path):
    python = run([sys.executable, str(ROOT / "examples" / "quickstart.py")], tmp_path)
    other = run(julia(str(ROOT / "examples" / "quickstart.jl")), tmp_path)
    losses = [re.search(r"^loss ([0-9.]+) -> ([0-9.e+-]+)", output, re.M).groups() for output in (python, other)]
    assert losses[0] == losses[1]
    assert final_loss(python) < 1e-25
    assert final_loss(other) < 1e-25


def test_demo(tmp_path):
    output = run([sys.executable, "-m", "pymlpgf", "demo", "--quick", "--output", "out"], tmp_path)
    assert "teacher-student" in output
    assert {f.name for f in (tmp_path / "out").iterdir()} == {"teacher-student.npz", "diabetes.npz", "flow.png"}
    student, diabetes = (mg.load(tmp_path / "out" / f"{name}.npz") for name in ("teacher-student", "diabetes"))
    assert student.x.shape == (33,)
    assert student.loss < student.ode_loss < 0.01
    assert diabetes.gnorm < 1e-12
    assert 0.42 < diabetes.loss < 0.44  # a linear fit leaves 0.482
    assert (tmp_path / "out" / "flow.png").read_bytes()[1:4] == b"PNG"
