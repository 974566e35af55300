"""A user's first hour without the network: juliapkg installs the full host from a package server made here.

It offers the packages of the configured Julia that juliacall needs, and stand-ins for our companions, which would
compile for minutes. From there on all is real: an installed wheel, a fresh environment, an empty depot, juliapkg, Pkg,
PythonCall, and MLPGF, whose workload is left out when it is precompiled.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import MLPGF_UUID

from pymlpgf.errors import RuntimeUnavailable
from pymlpgf.runtime import find

ROOT = Path(__file__).resolve().parents[2]
GENERAL = "23338594-aafe-5451-b93e-139f81909106"  # the registry that Pkg asks a server for
LIMIT = 900.0  # seconds; most of them compile PythonCall and what it needs

#: The compiled standard library; then what PythonCall needs and Julia does not bring: name, uuid, version, folder.
CLOSURE = """
import Pkg
installed = Pkg.dependencies()
found, left = Set{Base.UUID}(), [u for (u, p) in installed if p.name == "PythonCall"]
while !isempty(left)
    u = pop!(left)
    (u in found || Pkg.Types.is_stdlib(u)) && continue
    push!(found, u)
    append!(left, values(installed[u].dependencies))
end
holds(depot) = isdir(joinpath(depot, "compiled", "v$(VERSION.major).$(VERSION.minor)", "Pkg"))
println(joinpath(get(filter(holds, DEPOT_PATH), 1, first(DEPOT_PATH)), "compiled"))
for u in found
    println(join((installed[u].name, u, installed[u].version, installed[u].source), '\\t'))
end
"""

USE = """
import pymlpgf as mg
net = mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=[[1.0], [2.0]], target=[1.0, 2.0])
print(mg.runtime_info()["host"], net.loss(net.random_params(seed=1)))
"""


class Registry:
    """A package server, with Julia's protocol, for packages of this machine."""

    def __init__(self, work: Path) -> None:
        self.address = ""
        self.compiled = Path()  # where this machine's Julia keeps compiled code
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.open = True  # False: the registry is there, and for packages the connection breaks
        self._work = work
        self._packages: dict[str, str] = {}
        self._folder = work / "registry"

    def add(self, name: str, uuid: str, version: str, source: Path) -> None:
        """Offer the package in the folder ``source``, which becomes a git tree."""
        tree, archive = self._packed(source, self._work / "git" / name)
        self.answers[f"/package/{uuid}/{tree}"] = archive
        place = self._folder / name
        place.mkdir(parents=True)
        project = _toml(source / "Project.toml")
        nowhere = self._work / "nowhere" / f"{name}.git"
        (place / "Package.toml").write_text(f'name = "{name}"\nuuid = "{uuid}"\nrepo = "{nowhere}"\n')
        (place / "Versions.toml").write_text(f'["{version}"]\ngit-tree-sha1 = "{tree}"\n')
        needed = "".join(f'{other} = "{number}"\n' for other, number in project.get("deps", {}).items())
        (place / "Deps.toml").write_text(f'["{version}"]\n{needed}')
        self._packages[uuid] = name

    def serve(self) -> str:
        """Begin to answer; the address."""
        entries = "".join(f'{uuid} = {{ name = "{name}", path = "{name}" }}\n' for uuid, name in self._packages.items())
        head = f'name = "General"\nuuid = "{GENERAL}"\nrepo = "{self._work}/nowhere/General.git"\n\n[packages]\n'
        (self._folder / "Registry.toml").write_text(head + entries)
        tree, archive = self._packed(self._folder, self._work / "git" / "General")
        self.answers[f"/registry/{GENERAL}/{tree}"] = archive
        self.answers["/registries"] = f"/registry/{GENERAL}/{tree}\n".encode()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                path = "/registries" if self.path.startswith("/registries") else self.path
                if path.startswith("/package") and not registry.open:
                    self.close_connection = True
                    return
                answer = registry.answers.get(path)
                self.send_response(404 if answer is None else 200)
                self.send_header("Content-Length", str(len(answer or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(answer or b"")

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()

    def _packed(self, folder: Path, git: Path) -> tuple[str, bytes]:
        """The hash of the folder's git tree, and the tree as a compressed archive."""

        def run(*command: str) -> bytes:
            where = ["git", f"--git-dir={git}", f"--work-tree={folder}", "-c", "core.autocrlf=false"]
            return subprocess.run([*where, *command], check=True, capture_output=True, cwd=folder).stdout

        git.mkdir(parents=True)
        run("init", "-q")
        run("add", "-A", "-f", ".", ":!.git")
        tree = run("write-tree").decode().strip()
        return tree, gzip.compress(run("archive", "--format=tar", tree), 1)


class Newcomer:
    """An environment with the wheel in it, an empty depot, and an empty home folder."""

    def __init__(self, work: Path, wheel: Path, registry: Registry, executable: Path, *, new_openssl: bool) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", work / "venv"], check=True)
        self.site = next((work / "venv" / "lib").glob("python*")) / "site-packages"
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile"]
        subprocess.run([*command, "--target", self.site, wheel], check=True)
        others = [path for path in sys.path if path.endswith("site-packages")]
        (self.site / "others.pth").write_text("\n".join(others) + "\n")  # NumPy, juliacall, juliapkg
        if new_openssl:
            # juliacall takes Julia 1.12 only for a Python whose OpenSSL is 3.5 or newer; here both use this machine's.
            (self.site / "sitecustomize.py").write_text("import ssl\nssl.OPENSSL_VERSION_INFO = (3, 5, 0, 0, 0)\n")
        # A Julia that somebody built for herself has the standard library compiled in her depot, not beside itself.
        (work / "base").mkdir()
        (work / "base" / "compiled").symlink_to(registry.compiled)
        (self.site / "another").mkdir()
        self.other = self.site / "another" / "juliapkg.json"  # another package's wishes beside ours
        self.wish({"uuid": MLPGF_UUID, "preferences": {"precompile_workload": False}})
        left_out = ("JULIA_", "PYTHON_JULIA", "PYTHONPATH", "PYMLPGF_", "VIRTUAL_ENV", "CONDA_PREFIX")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        self.environment = {
            **kept,
            "HOME": str(work),
            "XDG_CACHE_HOME": str(work / "cache"),
            "JULIA_DEPOT_PATH": os.pathsep.join([str(work / "depot"), str(work / "base"), ""]),
            "JULIA_PKG_SERVER": registry.address,
            "JULIA_CONDAPKG_BACKEND": "Null",
            "JULIA_CPU_TARGET": os.environ.get("JULIA_CPU_TARGET", "native"),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PYTHON_JULIAPKG_EXE": str(executable),
            "PYMLPGF_JULIA": "full",
            "PYMLPGF_CACHE": str(work / "cache"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._python = work / "venv" / "bin" / "python"

    def wish(self, package: dict[str, object], name: str = "MLPGF") -> None:
        self.other.write_text(json.dumps({"packages": {name: package}}))

    def run(self, code: str, rc: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self._python, "-c", code],
            capture_output=True,
            text=True,
            cwd=self.site.parents[3],  # not this repository, whose juliapkg.json would count
            env=self.environment,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == rc, f"--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
        return done

    def installed(self) -> dict[str, tuple[int, int]]:
        files = (path for path in self.site.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_a_first_hour(newcomer: Callable[[str], Newcomer], registry: Registry) -> None:
    user = newcomer("first")
    before = user.installed()
    first = user.run(USE)
    assert first.stdout.startswith("juliacall ")
    assert "installing Julia and its packages through juliapkg" in first.stderr
    manifest = (user.site.parents[2] / "julia_env" / "Manifest.toml").read_text()
    assert str(user.site / "pymlpgf" / "julia") in manifest
    assert "OrdinaryDiffEqBDF" in manifest
    assert user.installed() == before  # neither Julia nor juliapkg writes where the wheel is
    asked = len(registry.asked)
    second = user.run(USE)
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert user.run(f"import juliacall\n{USE}").stdout == first.stdout  # who starts juliacall herself
    assert len(registry.asked) == asked


def test_the_network_goes_away(newcomer: Callable[[str], Newcomer], registry: Registry) -> None:
    user = newcomer("cut")
    registry.open = False
    try:
        failed = user.run(USE, rc=1)
    finally:
        registry.open = True
    assert "RuntimeUnavailable: no Julia can be used here" in failed.stderr
    assert "juliapkg could not install its packages (its messages are above)" in failed.stderr
    assert any(path.startswith("/package") for path in registry.asked)


def test_versions_that_exclude_each_other(newcomer: Callable[[str], Newcomer]) -> None:
    user = newcomer("versions")
    user.wish({"uuid": "429524aa-4258-5aef-a3af-852621145aeb", "version": "0.22"}, name="Optim")
    failed = user.run(USE, rc=1)
    assert "juliapkg could not install its packages: 'version' entries have empty intersection" in failed.stderr
    assert str(user.other) in failed.stderr


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    julia = _julia()
    work = tmp_path_factory.mktemp("registry")
    command = [julia.executable, f"--project={julia.project}", "--startup-file=no", "-e", CLOSURE]
    compiled, *lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    offer = Registry(work)
    offer.compiled = Path(compiled)
    for name, uuid, version, folder in (line.split("\t") for line in lines):
        source = Path(folder)
        if list(source.glob("*Artifacts.toml")) or name.endswith("_jll"):  # binaries, which CondaPkg does without here
            source = _stand_in(work / "stand-ins", name, uuid, version)
        offer.add(name, uuid, version.split("-")[0].split("+")[0], source)
    for name, entry in json.loads((ROOT / "pymlpgf" / "juliapkg.json").read_text())["packages"].items():
        if name != "MLPGF":
            version = entry["version"].split(",")[-1].strip() + ".0.0"
            offer.add(name, entry["uuid"], version, _stand_in(work / "stand-ins", name, entry["uuid"], version))
    offer.address = offer.serve()
    yield offer
    offer.stop()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture
def newcomer(registry: Registry, wheel: Path, tmp_path: Path) -> Callable[[str], Newcomer]:
    julia = _julia()
    new_openssl = julia.version >= (1, 12, 0) and ssl.OPENSSL_VERSION_INFO < (3, 5)

    def make(name: str) -> Newcomer:
        (tmp_path / name).mkdir()
        return Newcomer(tmp_path / name, wheel, registry, julia.executable, new_openssl=new_openssl)

    return make


def _julia() -> find.Julia:
    """The full host that this run of the tests is configured for; skips the test if there is none."""
    if shutil.which("git") is None:
        pytest.skip("needs git, which makes the packages' trees")
    try:
        julia, _ = find.find(provision=False)
    except RuntimeUnavailable as error:
        pytest.skip(f"needs a Julia: {error}")
    if julia.host != "juliacall" or julia.project is None:
        pytest.skip("needs the full host with its project, which PYMLPGF_JULIA can select")
    return julia


#: What our extensions name when they are compiled.
NAMES = {
    "ForwardDiff": "struct Dual{Tag,V,N} end\nfunction partials end\nfunction value end\n",
    "Optim": "abstract type AbstractOptimizer end\n",
}


def _stand_in(folder: Path, name: str, uuid: str, version: str) -> Path:
    """A package of this name that computes nothing."""
    place = folder / name
    (place / "src").mkdir(parents=True)
    (place / "Project.toml").write_text(f'name = "{name}"\nuuid = "{uuid}"\nversion = "{version}"\n')
    (place / "src" / f"{name}.jl").write_text(f"module {name}\n{NAMES.get(name, '')}end\n")
    return place


def _toml(path: Path) -> dict[str, dict[str, str]]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        tomllib = pytest.importorskip("tomli")
    return tomllib.loads(path.read_text(encoding="utf-8"))
