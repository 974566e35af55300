"""The command: exit codes, no tracebacks, Julia's environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pymlpgf.commands import cli
from pymlpgf.runtime import cpu, manifest, settings
from pymlpgf.runtime.debian import release

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="the stand-in for Julia is a shell script")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing installed, nothing configured, no network."""
    for name in settings.ENVIRONMENT.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYMLPGF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("JULIA_PKG_SERVER", "http://127.0.0.1:1")
    monkeypatch.setenv("PYTHON_JULIAPKG_PROJECT", str(tmp_path / "juliapkg"))
    for name in ("JULIA_LOAD_PATH", "JULIA_DEPOT_PATH", "JULIA_PROJECT", "JULIA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT"):  # a full host that is configured
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def julia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Julia that the settings name: tells its facts when asked, else its arguments and environment."""
    executable = tmp_path / "j" / "bin" / "julia"
    executable.parent.mkdir(parents=True)
    (tmp_path / "j" / "lib").touch()
    executable.write_text(
        '#!/bin/sh\nif [ "$1" = --startup-file=no ]; then\n'
        f"printf '%s\\0%s\\0%s\\0%s' 1.6.7 '{executable.parent}' '{tmp_path}/j/lib' '{tmp_path}/j/lib'\n"
        "exit\nfi\n"
        'for word in "$@"; do echo "word $word"; done\nenv | grep ^JULIA_\nexit 7\n'
    )
    executable.chmod(0o755)
    monkeypatch.setenv("PYMLPGF_JULIA", str(executable))
    return executable


def run(*words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pymlpgf", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_doctor_without_julia(cache: Path) -> None:
    done = run("doctor")
    assert done.returncode == 1
    assert "embedded       refused: " in done.stdout
    assert "host           none" in done.stdout
    assert "no Julia can be used here" in done.stderr
    assert not list(cache.glob("julia-*")), "doctor installs nothing"


@posix
def test_doctor_with_julia(julia: Path) -> None:
    done = run("doctor")
    assert done.returncode == 0
    for text in (
        f"executable     {julia} (environment variable PYMLPGF_JULIA)",
        "found: Julia 1.6.7",
        "host           embedded",
        f"libjulia       {julia.parents[1] / 'lib'}",
        "full           refused: ",
    ):
        assert text in done.stdout


def test_doctor_with_damage(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes are looked at: a file of the right size with another content makes it fail."""
    if sys.platform != "linux":
        pytest.skip("the private Julia is for Linux")
    place = release.installation(cache)
    place.executable.parent.mkdir(parents=True)
    place.executable.write_text("right")
    monkeypatch.setenv("PYMLPGF_JULIA", "embedded")
    manifest.describe(place.prefix, {}, [])
    done = run("doctor")
    assert (done.returncode, "every hash fits" in done.stdout) == (0, True)
    place.executable.write_text("wrong")
    done = run("doctor")
    assert done.returncode == 1
    assert "usr/bin/julia has another content: run `pymlpgf install --check`" in done.stdout


@posix
def test_julia_gets_its_arguments_and_environment(julia: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMLPGF_THREADS", "2")
    package = str(ROOT / "pymlpgf" / "julia")
    done = run("julia", "-e", "println(1 + 1)", "--help", "a b")
    assert done.returncode == 7, "Julia's exit code is passed on"
    assert [line for line in done.stdout.splitlines() if line.startswith("word")] == [
        "word -e",
        "word println(1 + 1)",
        "word --help",
        "word a b",
    ]
    assert f"JULIA_LOAD_PATH=@:{package}:@stdlib" in done.stdout
    assert f"JULIA_DEPOT_PATH={cache / f'depot-1.6.7-{cpu.fingerprint()}'}:" in done.stdout
    assert "JULIA_NUM_THREADS=2\n" in done.stdout
    monkeypatch.setenv("JULIA_LOAD_PATH", "/mine:")
    assert f"JULIA_LOAD_PATH=/mine::{package}:@stdlib\n" in run("julia", "x").stdout


def test_looking_for_julia_does_without_numpy(julia: Path) -> None:
    code = (
        "import sys, pymlpgf.commands.cli, pymlpgf.runtime\n"
        "from pymlpgf.runtime import environment, find\nfind.find()\n"
        "print([name for name in ('numpy', 'urllib.request', 'subprocess') if name in sys.modules])"
    )
    run("doctor")  # the facts of this Julia are remembered
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "['subprocess']\n", done.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 2, "COMMAND"),
        (["nonsense"], 2, "nonsense"),
        (["install", "--with", "cvode"], 2, "there are sundials, nlopt"),
        (["install", "--with", "sundials"], 1, "needs the full host"),
        (["demo", "--seed", "x"], 2, "--seed"),
    ],
)
def test_errors(words: list[str], code: int, text: str) -> None:
    done = run(*words)
    assert done.returncode == code
    assert text in done.stderr


def test_bad_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMLPGF_THREADS", "many")
    done = run("doctor")
    assert done.returncode == 2
    assert "PYMLPGF_THREADS" in done.stderr


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_doctor", interrupted)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "pymlpgf: interrupted\n"


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in ("doctor", "install", "julia", "demo", "PYMLPGF_JULIA"):
        assert word in done.stdout
    assert run("julia", "--help").returncode == 0


def test_juliapkg_file_fits_the_julia_package() -> None:
    """juliapkg reads it; the path is taken relative to the file, and holds the package of that UUID."""
    deps = pytest.importorskip("juliapkg.deps")
    compat = pytest.importorskip("juliapkg.compat").Compat
    declared = json.loads((ROOT / "pymlpgf" / "juliapkg.json").read_text())
    version = pytest.importorskip("semver").Version
    assert version(1, 10) in compat.parse(declared["julia"])
    assert version(1, 9, 4) not in compat.parse(declared["julia"])
    for name, options in declared["packages"].items():
        deps.PkgSpec(name, **options)
        if "version" in options:
            compat.parse(options["version"])
    folder = ROOT / "pymlpgf" / declared["packages"]["MLPGF"]["path"]
    if not folder.exists():
        pytest.skip("pymlpgf/julia is laid by the build")
    assert f'uuid = "{declared["packages"]["MLPGF"]["uuid"]}"' in (folder / "Project.toml").read_text()


def test_uuids_of_packages_on_request() -> None:
    """The Julia package declares the same companions as weak dependencies."""
    text = (ROOT / "julia" / "Project.toml").read_text()
    for name, uuid, _ in cli.ON_REQUEST.values():
        if name in text:
            assert f'{name} = "{uuid}"' in text


def test_a_folder_that_cannot_be_written_gives_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert cli.main(["demo", "--quick", "--output", str(blocked / "out")]) == 1
    assert str(blocked) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "--seed", "-1"], "--seed: '-1' is no whole number from 0"),
        (["demo", "--seed", str(2**64)], "is no whole number from 0"),
        (["bench", "--peer-julia", "/nowhere/julia"], "--peer-julia: there is no program '/nowhere/julia'"),
        (["bench", "startups"], "'startups' is unknown; there are derivatives, minimum, startup"),
        (["install", "--with", "sundails"], "'sundails' is unknown; there are sundials, nlopt"),
        (["dance"], "invalid choice: 'dance'"),
        ([], "COMMAND"),
    ],
)
def test_wrong_usage_is_named_before_any_work(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["doctor", "install", "julia", "demo", "bench"])
def test_every_command_says_what_it_does(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: pymlpgf {command}" in text
    assert len(text.split("\n\n")[1]) > 60
