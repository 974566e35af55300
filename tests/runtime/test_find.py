"""Which Julia is chosen: order, refusals, time limits, memory. The Julias here are scripts."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pymlpgf.errors import RuntimeUnavailable, SettingError
from pymlpgf.runtime import cpu, debian, environment, find, settings
from pymlpgf.runtime.debian import release
from pymlpgf.runtime.find import juliapkg_state

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="the stand-in for Julia is a shell script")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own: empty cache and configuration, no network, juliapkg with nothing resolved."""
    for name in (*settings.ENVIRONMENT.values(), "PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setenv("PYMLPGF_CACHE", str(folder))
    monkeypatch.setenv("PYMLPGF_IMAGE", "off")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("JULIA_PKG_SERVER", "http://127.0.0.1:1")
    monkeypatch.setenv("PYTHON_JULIAPKG_PROJECT", str(tmp_path / "juliapkg"))
    monkeypatch.delitem(sys.modules, "juliacall", raising=False)
    if importlib.util.find_spec("juliapkg"):
        from juliapkg.state import reset_state

        reset_state()
    return folder


def fake_julia(prefix: Path, version: str, bindir: Path | None = None) -> Path:
    """A julia that answers the question for its facts and --version, and logs each call."""
    executable = prefix / "bin" / "julia"
    executable.parent.mkdir(parents=True)
    for name in ("libjulia.so", "sys.so"):
        (prefix / name).touch()
    bindir = bindir or executable.parent
    executable.write_text(
        f"#!/bin/sh\necho call >> '{prefix}/log'\n"
        f'[ "$1" = --version ] && echo julia version {version} && exit\n'
        f"printf '%s\\0%s\\0%s\\0%s' {version} '{bindir}' '{prefix}/libjulia.so' '{prefix}/sys.so'\n"
    )
    executable.chmod(0o755)
    return executable


def calls(prefix: Path) -> int:
    return len((prefix / "log").read_text().splitlines())


# ---- explicit --------------------------------------------------------------------------------------------


@posix
def test_explicit_by_executable_folder_and_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable = fake_julia(tmp_path / "j", "1.6.7")
    for path in (executable, executable.parent, tmp_path / "j"):
        julia, refusals = find.find(path)
        assert (julia.host, julia.executable, julia.version) == ("embedded", executable, (1, 6, 7))
        assert (julia.libjulia, julia.sysimage) == (tmp_path / "j/libjulia.so", tmp_path / "j/sys.so")
        assert refusals == []
    assert calls(tmp_path / "j") == 1, "its answers are remembered"
    os.utime(executable, (1, 1))
    find.find(executable)
    assert calls(tmp_path / "j") == 2, "but not beyond a change of the file"
    monkeypatch.setenv("PYMLPGF_JULIA", str(executable))
    assert find.find()[0].origin == "environment variable PYMLPGF_JULIA"


@posix
def test_answer_of_a_launcher_is_not_remembered(tmp_path: Path) -> None:
    real = fake_julia(tmp_path / "real", "1.9.0")
    launcher = fake_julia(tmp_path / "launcher", "1.9.0", bindir=real.parent)
    for _ in range(2):
        assert find.find(launcher)[0].executable == real
    assert calls(tmp_path / "launcher") == 2


@posix
@pytest.mark.parametrize(
    ("version", "why"),
    [("1.4.2", "it is Julia 1.4.2; 1.5 or newer is needed"), ("x", "does not answer like")],
)
def test_explicit_that_cannot_serve_is_not_replaced(tmp_path: Path, version: str, why: str) -> None:
    executable = fake_julia(tmp_path / "j", version)
    with pytest.raises(RuntimeUnavailable, match=why):
        find.find(executable)


@posix
def test_explicit_that_is_no_julia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeUnavailable, match="there is no julia program at"):
        find.find(tmp_path / "nothing")
    (tmp_path / "hang").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "hang").chmod(0o755)
    monkeypatch.setattr("pymlpgf.runtime.julia.ASK_SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(RuntimeUnavailable, match="did not tell its version within"):
        find.find(tmp_path / "hang")
    assert time.monotonic() - began < 3


@posix
@pytest.mark.skipif(importlib.util.find_spec("juliacall") is None, reason="needs juliacall")
def test_explicit_current_julia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable = fake_julia(tmp_path / "j", "1.11.2")
    assert find.find(executable)[0].host == "embedded", "servers out of reach: loaded directly"
    project = tmp_path / "project"
    project.mkdir()
    (project / "Project.toml").write_text("")
    monkeypatch.setenv("PYMLPGF_JULIA_PROJECT", str(project))
    julia, _ = find.find(executable)
    assert (julia.host, julia.project) == ("embedded", project), "juliacall cannot start without PythonCall"
    (project / "Manifest.toml").write_text("[[deps.PythonCall]]\n")
    julia, _ = find.find(executable)
    assert (julia.host, julia.project) == ("juliacall", project)


# ---- full host -------------------------------------------------------------------------------------------


def only_full(*, provision: bool = True, fresh: bool = False) -> str:
    with pytest.raises(RuntimeUnavailable) as caught:
        find.find("full", provision=provision, fresh=fresh)
    return str(caught.value)


def test_full_without_juliacall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "the Python package juliacall is not installed" in only_full()


needs_juliapkg = pytest.mark.skipif(importlib.util.find_spec("juliacall") is None, reason="needs juliacall")


@needs_juliapkg
def test_unreachable_servers_are_remembered_for_an_hour(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probes: list[int] = []
    probe = juliapkg_state.probe
    monkeypatch.setattr(juliapkg_state, "probe", lambda: probes.append(1) or probe())  # type: ignore[func-returns-value]
    assert "Julia's servers are out of reach" in only_full()
    assert "tried 0 min ago" in only_full()
    assert len(probes) == 1
    only_full(fresh=True)
    assert len(probes) == 2
    for key, value in (known := json.loads((cache / "probe.json").read_text())).items():
        known[key] = [value[0] - 3601, *value[1:]]
    (cache / "probe.json").write_text(json.dumps(known))
    only_full()
    assert len(probes) == 3
    assert not os.path.exists(os.environ["PYTHON_JULIAPKG_PROJECT"]), "looking must create nothing"


@needs_juliapkg
def test_later_starts_do_not_import_juliapkg(cache: Path) -> None:
    code = (
        "import sys\nfrom pymlpgf.runtime import find\ntry:\n    find.find('full')\nexcept Exception as e:\n"
        "    print('juliapkg' in sys.modules, 'juliacall' in sys.modules, e)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stdout
        for _ in range(2)
    ]
    assert [text[:11] for text in said] == ["True False ", "False False"], said


@needs_juliapkg
@pytest.mark.parametrize("answers", [False, True])
def test_server_that_hangs_costs_little(monkeypatch: pytest.MonkeyPatch, answers: bool) -> None:
    """Accepts the connection and says nothing, or one byte now and then, which no socket's time-out ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                for _ in range(20):
                    time.sleep(0.2)
                    try:
                        connection.sendall(b"H")
                    except OSError:
                        return

        if answers:
            threading.Thread(target=drip, daemon=True).start()
        monkeypatch.setenv("JULIA_PKG_SERVER", f"http://127.0.0.1:{server.getsockname()[1]}")
        began = time.monotonic()
        why = juliapkg_state.probe()
        assert time.monotonic() - began < 2
        assert why is not None


class Answers(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/registries" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        monkeypatch.setenv("JULIA_PKG_SERVER", f"http://127.0.0.1:{http_server.server_port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield
        http_server.shutdown()


@needs_juliapkg
def test_reachable_servers(server: None, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert juliapkg_state.probe() is None
    assert "`pymlpgf install` gets them" in only_full(provision=False)
    resolved: list[str | None] = []
    monkeypatch.setattr(juliapkg_state, "_resolve", resolved.append)
    assert "not for this Python's path" in only_full()
    assert resolved == [None]


@needs_juliapkg
@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ('{"julia": "1.6 - 1.9"}', "'julia' compat entries have empty intersection"),
        ('{"packages": {"Optim": {"uuid": "00000000-0000-0000-0000-000000000001"}}}', "'uuid' entries are not unique"),
        ('{"packages": {', "is not in JSON: "),
        ("[]", "holds no JSON object"),
    ],
)
def test_wishes_of_another_package_are_named(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wishes: str, message: str
) -> None:
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "juliapkg.json").write_text(wishes)
    monkeypatch.syspath_prepend(tmp_path)
    why = only_full()
    assert message in why
    assert str(tmp_path / "another" / "juliapkg.json") in why


@needs_juliapkg
@posix
def test_resolved_juliapkg_needs_no_network(tmp_path: Path, cache: Path) -> None:
    from juliapkg import deps

    executable = fake_julia(tmp_path / "j", "1.11.2")
    project = tmp_path / "juliapkg"
    (project / "pyjuliapkg").mkdir(parents=True)
    (project / "Manifest.toml").write_text("")
    files = {
        name: {"timestamp": os.path.getmtime(name), "hash_sha256": deps._get_hash(name)} for name in deps.deps_files()
    }
    meta = {
        "meta_version": deps.META_VERSION,
        "dev": deps.STATE["dev"],
        "version": "1.11.2",
        "executable": str(executable),
        "libjulia": "",
        "bindir": "",
        "deps_files": files,
        "pkgs": [],
        "offline": False,
        "override_executable": None,
    }
    deps.save_meta(meta)
    julia, refusals = find.find()
    assert (julia.host, julia.executable, julia.project) == ("juliacall", executable, project)
    assert refusals == []
    assert not (cache / "probe.json").exists(), "no probe was needed"

    meta["deps_files"] = {}  # another package has come since
    deps.save_meta(meta)
    assert "its packages are not installed yet" in only_full()


@posix
@needs_juliapkg
def test_environment_of_juliacall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable = fake_julia(tmp_path / "j", "1.10.4")
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", str(executable))
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(tmp_path))
    julia, _ = find.find()
    assert (julia.host, julia.executable, julia.project) == ("juliacall", executable, tmp_path)


def test_julia_that_juliacall_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("juliacall")
    version = types.SimpleNamespace(major=1, minor=12, patch=1)
    module.CONFIG = {"inited": True, "exepath": "/j/bin/julia", "libpath": "/j/lib", "project": "/p"}  # type: ignore[attr-defined]
    module.Main = types.SimpleNamespace(VERSION=version, seval=lambda text: "/j/bin")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "juliacall", module)
    julia, refusals = find.find("embedded")
    assert (julia.host, julia.version, julia.project) == ("juliacall", (1, 12, 1), Path("/p"))
    assert "two do not fit" in refusals[0].why


# ---- embedded default ------------------------------------------------------------------------------------


def test_default_order_keeps_the_refusal(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    place = release.Installation(cache / "julia", "x86_64-linux-gnu")
    asked: list[Any] = []
    monkeypatch.setattr(debian, "ensure", lambda *a, **k: asked.append((a, k)) or place)  # type: ignore[func-returns-value]
    monkeypatch.setattr(release, "installation", lambda cache: place)
    monkeypatch.setenv("PYMLPGF_DEBIAN_SOURCE", "somewhere")
    began = time.monotonic()
    julia, refusals = find.find()
    assert time.monotonic() - began < 3
    assert (julia.host, julia.executable, julia.version) == ("embedded", place.executable, (1, 5, 3))
    assert [refusal.candidate for refusal in refusals] == ["full"]
    assert asked[0][0] == (cache,)
    assert asked[0][1]["source"] == "somewhere"


def test_word_embedded_skips_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> str:
        raise AssertionError("probed")

    monkeypatch.setattr(juliapkg_state, "probe", forbidden)
    with pytest.raises(RuntimeUnavailable, match="embedded: "):
        find.find("embedded", provision=False)


def test_all_refusals_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(RuntimeUnavailable) as caught:
        find.find()
    assert "\n  full: " in str(caught.value)
    assert "\n  embedded: " in str(caught.value)
    assert "this machine is riscv64" in str(caught.value)


# ---- environment -----------------------------------------------------------------------------------------


def some_julia(host: str = "embedded", version: tuple[int, int, int] = (1, 5, 3), **more: Any) -> find.Julia:
    path = Path("/j/bin/julia")
    return find.Julia(host, path, path.parent, path, path, version, "a test", **more)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("JULIA_LOAD_PATH", "JULIA_DEPOT_PATH", "JULIA_PROJECT", "JULIA_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu, "openblas_coretype", lambda: "SkylakeX")


PACKAGE = str(ROOT / "pymlpgf" / "julia")


def test_environment_of_the_private_julia(cache: Path, plain: None, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        "JULIA_LOAD_PATH": f"{PACKAGE}{os.pathsep}@stdlib",
        "JULIA_DEPOT_PATH": str(cache / f"depot-1.5.3-{cpu.fingerprint()}"),
        "JULIA_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "3",
        "OPENBLAS_CORETYPE": "SkylakeX",
    }
    assert environment.variables(some_julia(private=True), cache, 3) == expected
    monkeypatch.setenv("JULIA_DEPOT_PATH", "/mine")
    monkeypatch.setenv("JULIA_LOAD_PATH", "/mine")
    assert environment.variables(some_julia(private=True), cache, 3) == expected
    expected["JULIA_LOAD_PATH"] = os.pathsep.join(["/mine", PACKAGE, "@stdlib"])
    del expected["OPENBLAS_NUM_THREADS"]
    assert environment.variables(some_julia(private=True), cache, 3, session=True) == expected
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert "OPENBLAS_NUM_THREADS" not in environment.variables(some_julia(private=True), cache, 3)


@pytest.mark.parametrize("version", [(1, 5, 3), (1, 9, 4)])
def test_environment_of_a_given_julia(
    cache: Path, plain: None, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]
) -> None:
    """It writes into the cache or into the depot that the user names, never into ~/.julia."""
    julia = some_julia(version=version, project=Path("/p"))
    found = environment.variables(julia, cache, None)
    assert found["JULIA_DEPOT_PATH"].split(os.pathsep) == [
        str(cache / f"depot-{julia.version_text}-{cpu.fingerprint()}"),
        os.path.expanduser("~/.julia"),
        "",
    ]
    assert ("OPENBLAS_CORETYPE" in found) == (version == (1, 5, 3))
    assert found["JULIA_PROJECT"] == "/p"
    assert found["JULIA_LOAD_PATH"] == os.pathsep.join(["@", PACKAGE, "@stdlib"])
    assert "JULIA_NUM_THREADS" not in found
    monkeypatch.setenv("JULIA_DEPOT_PATH", "/mine")
    assert "JULIA_DEPOT_PATH" not in environment.variables(julia, cache, None)


def test_environment_of_juliacalls_julia(cache: Path, plain: None) -> None:
    julia = some_julia("juliacall", (1, 11, 2), project=Path("/p"))
    found = environment.variables(julia, cache, None, session=True)
    assert found == {"JULIA_LOAD_PATH": os.pathsep.join(["@", PACKAGE, "@stdlib"]), "JULIA_PROJECT": "/p"}


# ---- settings --------------------------------------------------------------------------------------------


def configure(text: str) -> None:
    path = settings.config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_precedence_and_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    configure("[julia]\nthreads = 3\nexecutable = full\ndebian_source = http://x.invalid bullseye main  # mirror\n")
    found = settings.load()
    assert (found.threads, found.executable) == (3, "full")
    assert found.debian_source == "http://x.invalid bullseye main"
    assert found.origins["threads"] == f"threads in {settings.config_file()}"
    monkeypatch.setenv("PYMLPGF_THREADS", "auto")
    assert settings.load().threads == 0
    found = settings.load(threads=2, executable="embedded")
    assert (found.threads, found.executable) == (2, "embedded")
    assert found.origins["threads"] == "argument threads="
    assert found.origins["project"] == "default"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[julia]\nthread = 2\n", "did you mean 'threads'"),
        ("[julai]\nthreads = 2\n", r"unknown section \[julai\]"),
        ("threads = 2\n", "is not a configuration file"),
        ("[julia]\nthreads = many\n", "'many' is no number of threads"),
        ("[julia]\nthreads = 0\n", "'0' is no number of threads"),
        ("[julia]\ncache = here\n", "'here' is relative"),
        ("[julia]\nproject = /no/such/project\n", "holds no Project.toml"),
    ],
)
def test_bad_configuration(text: str, message: str) -> None:
    configure(text)
    if "cache" in text:
        os.environ.pop("PYMLPGF_CACHE")
    with pytest.raises(SettingError, match=message):
        settings.load()


def test_unknown_argument() -> None:
    with pytest.raises(SettingError, match="did you mean 'executable'"):
        settings.load(executabel="x")


def test_current_directory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.ini").write_text("[julia]\nthreads = 7\n")
    (tmp_path / "pymlpgf").mkdir()
    (tmp_path / "pymlpgf" / "config.ini").write_text("[julia]\nthreads = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", ".")
    assert settings.load().threads is None


def test_default_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYMLPGF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert settings.load().cache == tmp_path / "pymlpgf"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert settings.load().cache == tmp_path / "me" / ".cache" / "pymlpgf"


# ---- processor -------------------------------------------------------------------------------------------

AVX512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (AVX512 | {"avx2", "fma"}, "SkylakeX"),
        (AVX512 - {"avx512vl"} | {"avx2", "fma"}, "Haswell"),
        ({"avx2", "fma", "sse2"}, "Haswell"),
        ({"avx2"}, None),
        (set(), None),
    ],
)
def test_openblas_coretype(flags: set[str], expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert cpu.openblas_coretype(flags) == expected
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")
    assert cpu.openblas_coretype(flags) is None


def test_features(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: x\nflags\t\t: fpu avx2 fma\n\nflags\t\t: other\n")
    assert cpu.features(path) == {"fpu", "avx2", "fma"}
    assert cpu.features(tmp_path / "missing") == frozenset()
    assert len({cpu.fingerprint(path), cpu.fingerprint(tmp_path / "missing")}) == 2
