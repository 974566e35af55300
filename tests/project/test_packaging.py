"""What is built installs elsewhere and works there: the archive makes the wheel, and the wheel is all it needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import without_workload

from pymlpgf.runtime import settings

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 240


def run(*command: str | Path, cwd: Path, environment: dict[str, str] | None = None) -> str:
    environment = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **(environment or {})}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=LIMIT, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(archive, tmp_path_factory):
    """Built from the unpacked archive, as pip does where there is no wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(archive) as file:
        file.extractall(folder)
    (source,) = folder.iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """A new environment with the wheel alone; what it depends on is lent by this one."""
    base = sys._base_executable
    if subprocess.run([base, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip(f"{base} has no pip")
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(base, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    return python


def test_the_archive_holds_what_is_needed(archive):
    with tarfile.open(archive) as file:
        names = {name.split("/", 1)[1] for name in file.getnames()}
    for name in (
        "julia/src/MLPGF.jl",
        "julia/test/runtests.jl",
        "pymlpgf/py.typed",
        "tests/conftest.py",
        "docs/conf.py",
    ):
        assert name in names
    assert not [name for name in names if name.startswith("pymlpgf/julia/")]


def test_the_wheel_holds_what_is_needed(wheel):
    folders = [ROOT / "julia/src", ROOT / "julia/ext"]
    paths = [path.relative_to(ROOT) for folder in folders for path in folder.rglob("*.jl")]
    sources = {f"pymlpgf/{path.as_posix()}" for path in paths}
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (metadata,) = (file.read(name).decode() for name in names if name.endswith("METADATA"))
    assert sources <= names
    others = ("py.typed", "juliapkg.json", "__init__.pyi", "julia/Project.toml", "commands/bench/peer.jl")
    assert {f"pymlpgf/{name}" for name in others} <= names
    assert not [name for name in names if "/test" in name or name.startswith("julia/")]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "License-Expression: MIT" in metadata


def test_the_readme_runs_where_the_wheel_is_installed(elsewhere, tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    quick = without_workload(tmp_path)  # a full host would compile everything for this path, for minutes
    if "JULIA_DEPOT_PATH" in os.environ:
        quick["JULIA_DEPOT_PATH"] = os.pathsep.join([str(tmp_path / "depot"), os.environ["JULIA_DEPOT_PATH"]])
    code = block + "\nprint(mg.__file__)\n"
    *printed, file = run(elsewhere, "-c", code, cwd=tmp_path, environment=quick).splitlines()
    assert float(printed[0].split()[0]) < 1e-6
    assert Path(file).is_relative_to(elsewhere.parents[1])
    command = elsewhere.with_name("pymlpgf")
    found = run(
        command,
        "julia",
        "--startup-file=no",
        "-e",
        "using MLPGF; print(pathof(MLPGF))",
        cwd=tmp_path,
        environment=quick,
    )
    if settings.load().project is None:  # else it is the given project's
        assert Path(found).is_relative_to(elsewhere.parents[1])


def test_versions_agree():
    """What is written down more than once."""
    from pymlpgf import __version__

    for name, pattern in (
        ("julia/Project.toml", r'^version = "(.+)"'),
        ("CITATION.cff", r"^version: (.+)"),
        ("CHANGELOG.md", r"^## (\S+)"),
    ):
        assert re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.M)[1] == __version__, name


def project_table(name: str) -> dict[str, str]:
    """A table of julia/Project.toml; lists over several lines are one value."""
    text = (ROOT / "julia" / "Project.toml").read_text(encoding="utf-8")
    section = re.search(rf"^\[{name}\]\n(.*?)(?=^\[|\Z)", text, re.M | re.S)
    assert section, f"there is no [{name}]"
    return dict(re.findall(r"^(\w+) = ((?:\[[^\]]*\])|.*)$", section[1], re.M))


def test_julias_general_registry_could_take_the_package() -> None:
    """What its automatic checks ask for, but for the name, which would need a lower-case letter."""
    folder = ROOT / "julia"
    text = (folder / "Project.toml").read_text(encoding="utf-8")
    assert re.search(r'^authors = \[".+"\]$', text, re.M)
    assert "MIT License" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert (folder / "test" / "runtests.jl").is_file()
    deps, weak, extras = (project_table(name) for name in ("deps", "weakdeps", "extras"))
    compat = project_table("compat")
    assert set(compat) - {"julia"} == set(deps) | set(weak) | set(extras)
    for name, versions in compat.items():
        assert ">" not in versions, f"{name} has no upper bound"
        assert not re.search(r'"0(\.0)?"', versions), f"{name} allows versions that break everything"
    named = set(re.findall(r'"(\w+)"', project_table("targets")["test"]))
    assert named == (set(weak) | set(extras)), "tests that Pkg.test runs find every package that they use"
    assert not set(deps) & (set(weak) | set(extras))
    extensions = project_table("extensions")
    assert {f"{name}.jl" for name in extensions} <= {path.name for path in (folder / "ext").iterdir()}
    assert {trigger.strip('"') for trigger in extensions.values()} == set(weak)
