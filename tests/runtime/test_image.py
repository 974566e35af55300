"""System images: right numbers whatever happened to the image, its builder, the disk or the sources."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pymlpgf.errors import ProvisioningError
from pymlpgf.runtime import cpu, find, manifest, settings
from pymlpgf.runtime.debian import release
from pymlpgf.runtime.image import LIBRARY, Store, build, key

ROOT = Path(__file__).resolve().parents[2]

if sys.platform != "linux" or manifest.faults(release.installation(settings.load().cache).prefix):
    pytest.skip("system images are those of the private Julia, which is not installed here", allow_module_level=True)


@pytest.fixture(scope="module")
def julia():
    """The private Julia, as found by every process of this user."""
    return find.find("embedded", provision=False)[0]


@pytest.fixture(scope="module")
def image(julia) -> Path:
    """The folder of the image that this machine's processes load."""
    store, name = Store(settings.load().cache), key(julia)
    if fault := store.fault(store.place(name), name):
        pytest.skip(f"no system image: {fault} (`pymlpgf install` builds it)")
    return store.place(name)


@pytest.fixture
def cache(tmp_path: Path, julia) -> Path:
    """A cache with the private Julia and no image, in which nobody begins to build one."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    place = release.installation(folder).prefix
    place.symlink_to(release.installation(settings.load().cache).prefix)
    depot = f"depot-1.5.3-{cpu.fingerprint()}"
    shutil.copytree(settings.load().cache / depot, folder / depot)
    shutil.copy(settings.load().cache / "probe.json", folder) if (
        settings.load().cache / "probe.json"
    ).exists() else None
    return folder


@pytest.fixture
def copied(cache: Path, image: Path) -> Path:
    """The image's folder in ``cache``: a copy."""
    place = cache / "images" / image.name
    shutil.copytree(image, place)
    return place


#: A process that tells which image it loads, and a number that it computes.
ASK = """
import ctypes
net = make_net()
info = mg.runtime_info()
print(info["image"])
print(net.gradient(net.random_params(seed=1)).tobytes().hex()[:64])
"""


def hold_lock(cache: Path) -> int:
    """Hold the lock of the builders, so that no process begins to build."""
    import fcntl

    (cache / "images").mkdir(exist_ok=True, mode=0o700)
    descriptor = os.open(cache / "images" / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


@pytest.fixture
def ask(run_python: Callable[..., str], cache: Path) -> Callable[..., tuple[bool, str]]:
    """Whether a fresh process loads an image from ``cache``, and its number."""

    def run(**environment: str) -> tuple[bool, str]:
        lock = hold_lock(cache)
        try:
            out = run_python(ASK, environment={"PYMLPGF_CACHE": str(cache), "PYMLPGF_JULIA": "embedded", **environment})
        finally:
            os.close(lock)
        which, number = out.split()
        return which != "None", number

    return run


NUMBERS = """
import hashlib
digest = hashlib.sha256()
def add(*values):
    for value in values:
        digest.update(np.ascontiguousarray(value).tobytes())
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(70, 3)), rng.normal(size=(70, 2))
for dtype in ("float64", "float32"):
    for hidden in ([(5, "softplus", True)], [(4, "tanh", False), (3, "gelu", True)]):
        layers = [*hidden, (2, "identity", True)]
        net = mg.Net(layers=layers, input=X, target=Y, dtype=dtype)
        p = net.random_params(seed=3)
        add(net.loss(p), net.gradient(p), net.hessian(p), net.hvp(p, p), net(p))
        for alg in ("Tsit5", "Rodas5P", "QNDF", "Exprb53s3"):
            add(mg.flow(net, p, alg=alg, maxT=3.0, verbosity=0).x)
        for solver in ("NewtonTrustRegion", "BFGS", "LBFGS"):
            add(mg.minimize(net, p, optim_solver=solver, maxiterations_optim=50, verbosity=0).x)
print(digest.hexdigest())
"""


#: What a flow of smooth units, without events and constraints, never makes.
FOREIGN = ("Search{", "Contact", "Descent{", "EventWatch", "Constraint{", "Interval{", "InfiniteNet", "BlockBuf")

COMPILED = """
let package = Base.require(Main, :MLPGF)
    for name in names(package; all=true)
        isdefined(package, name) || continue
        f = getfield(package, name)
        f isa Union{Function,Type} || continue
        for m in methods(f), k in 1:length(m.specializations)
            isassigned(m.specializations, k) || continue
            s = m.specializations[k]
            s isa Core.MethodInstance && isdefined(s, :cache) && println(s)
        end
    end
end
flush(stdout)
0
"""


def test_without_an_image_a_flow_compiles_only_what_it_calls(run_python: Callable[..., str], tmp_path: Path) -> None:
    """The time of a first process is that of type inference and code generation: here is what they saw."""
    script = tmp_path / "compiled.jl"
    script.write_text(COMPILED)
    out = run_python(
        f"""
        net = make_net()
        mg.flow(net, net.random_params(), maxT=10, verbosity=0)
        runtime.evaluate('include("{script}")')
        """,
        environment={"PYMLPGF_IMAGE": "off"},
    )
    seen = [line for line in out.splitlines() if "for unknown(" not in line]
    assert any("integrate(" in line for line in seen)
    assert [line for line in seen if any(foreign in line for foreign in FOREIGN)] == []


def test_numbers_are_the_same_with_and_without(image: Path, run_python: Callable[..., str]) -> None:
    with_image = run_python(NUMBERS + "\nassert mg.runtime_info()['image']")
    without = run_python(NUMBERS + "\nassert not mg.runtime_info()['image']", environment={"PYMLPGF_IMAGE": "off"})
    assert with_image == without


def test_nothing_is_compiled_again(image: Path, run_python: Callable[..., str]) -> None:
    """Counted, not timed: the methods that a first flow and minimisation still compile."""
    out = run_python(
        """
        net = make_net()
        path = "/tmp/compiled-%d" % os.getpid()
        dump = "ccall(:jl_dump_compiles, Nothing, (Ptr{Nothing},), io.handle)"
        runtime.evaluate(f'global io = open("{path}", "w"); {dump}; 0')
        mg.train(net, net.random_params(), maxtime_ode=1, maxtime_optim=1, verbosity=0)
        runtime.evaluate("ccall(:jl_dump_compiles, Nothing, (Ptr{Nothing},), C_NULL); close(io); 0")
        lines = [line for line in open(path) if "MLPGF" in line]
        os.unlink(path)
        print(len(lines))
        """
    )
    assert int(out) == 0


@pytest.mark.parametrize(
    "damage", ["truncated", "flipped bits", "no manifest", "manifest of nonsense", "no library", "other"]
)
def test_damaged_or_foreign_images_are_not_loaded(
    copied: Path, ask: Callable[..., tuple[bool, str]], damage: str
) -> None:
    sound = ask()
    assert sound[0]
    library = copied / LIBRARY
    size = library.stat().st_size
    chance = random.Random(damage)
    if damage == "truncated":
        os.truncate(library, chance.randrange(size))
    elif damage == "flipped bits":
        times = library.stat()
        with open(library, "r+b") as file:
            for _ in range(20):
                file.seek(chance.randrange(size))
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 1 << chance.randrange(8)]))
        os.utime(library, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif damage == "no library":
        library.unlink()
    elif damage == "no manifest":
        (copied / manifest.NAME).unlink()
    elif damage == "manifest of nonsense":
        (copied / manifest.NAME).write_text("[1, 2")
    else:
        known = manifest.read(copied)
        manifest.write(copied, {**known, "key": "0" * 24})
    assert ask() == (False, sound[1])


def test_images_given_by_setting(copied: Path, cache: Path, ask, run_python: Callable[..., str]) -> None:
    assert ask(PYMLPGF_IMAGE="off")[0] is False
    elsewhere = cache / "elsewhere"
    os.rename(copied, elsewhere)
    assert ask()[0] is False
    assert ask(PYMLPGF_IMAGE=str(elsewhere))[0] is True
    assert ask(PYMLPGF_IMAGE=str(elsewhere / LIBRARY))[0] is True
    os.truncate(elsewhere / LIBRARY, 1000)
    environment = {"PYMLPGF_CACHE": str(cache), "PYMLPGF_JULIA": "embedded", "PYMLPGF_IMAGE": str(elsewhere)}
    run_python(
        "raises(mg.MLPGFError, make_net, 'environment variable PYMLPGF_IMAGE', 'another size')", environment=environment
    )
    environment["PYMLPGF_IMAGE"] = str(cache / "nowhere")
    run_python("raises(mg.MLPGFError, make_net, 'PYMLPGF_IMAGE', 'is no folder')", environment=environment)


def test_the_hash_is_computed_once_for_each_state_of_the_file(copied: Path, cache: Path, monkeypatch) -> None:
    store, counted = Store(cache), []
    sha256 = manifest.sha256
    monkeypatch.setattr(manifest, "sha256", lambda path: counted.append(path) or sha256(path))
    assert [store.fault(copied, copied.name) for _ in range(3)] == [None] * 3
    assert len(counted) == 1
    os.utime(copied / LIBRARY)
    assert store.fault(copied, copied.name) is None
    assert len(counted) == 2
    (cache / "images.json").unlink()
    (cache / "images.json").mkdir()  # a cache that cannot be written to: the hash is computed each time
    assert [store.fault(copied, copied.name) for _ in range(2)] == [None] * 2
    assert len(counted) == 4


def test_the_key_tells_sources_versions_and_processors_apart(julia, tmp_path: Path, monkeypatch) -> None:
    usual = key(julia)
    assert usual == key(julia)
    cpuinfo = Path("/proc/cpuinfo").read_text()
    other = tmp_path / "cpuinfo"
    other.write_text(cpuinfo.replace(" avx2", ""))
    fewer = key(julia, other)
    other.write_text(cpuinfo.replace("MHz\t\t: 1", "MHz\t\t: 2"))
    assert key(julia, other) == usual != fewer
    package = tmp_path / "julia"
    shutil.copytree(ROOT / "julia", package)
    monkeypatch.setattr(sys.modules["pymlpgf.runtime.image.key"], "package", lambda: package)
    assert key(julia) == usual
    with open(package / "src" / "flow" / "methods" / "tsit5.jl", "a") as file:
        file.write("#")
    assert key(julia) != usual
    monkeypatch.setattr(sys.modules["pymlpgf.runtime.image.key"], "__version__", "9.9")
    assert len({key(julia), usual, fewer}) == 3


#: A builder for which Julia's and the linker's work is a copy of the finished library, after some seconds.
BUILDER = """
import shutil, sys, time
from pathlib import Path
import importlib
module = importlib.import_module("pymlpgf.runtime.image.build")
from pymlpgf.errors import ProvisioningError
from pymlpgf.runtime import find, settings
seconds, library = float(sys.argv[1]), sys.argv[2]
def write(julia, wish, program, staging, target, report, processors=None):
    (staging / "MLPGF.o").write_bytes(b"an object file")
    report("compiled here")
    time.sleep(seconds)
    shutil.copyfile(library, target)
module.write_library = write
julia, _ = find.find("embedded", provision=False)
try:
    tell = lambda *words: print(*words, flush=True)
    place = module.build(julia, settings.load(), tell, wait="nowait" not in sys.argv)
except ProvisioningError as error:
    sys.exit(f"REFUSED {error}")
print("place", place)
"""


def builder(cache: Path, image: Path, *words: str, seconds: float = 0.3, **options) -> subprocess.Popen:
    environment = {**os.environ, "PYMLPGF_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BUILDER, str(seconds), str(image / LIBRARY), *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize("crowd", [2, 4, 8])
def test_of_a_crowd_one_builds(cache: Path, image: Path, ask, crowd: int) -> None:
    outputs = [process.communicate(timeout=120) for process in [builder(cache, image) for _ in range(crowd)]]
    assert all(f"place {cache / 'images' / image.name}" in out for out, _ in outputs), outputs
    assert sum("compiled here" in out for out, _ in outputs) == 1
    assert ask()[0]


def test_killed_builders_leave_nothing_that_matters(cache: Path, image: Path, ask, chance: random.Random) -> None:
    for _ in range(4):
        process = builder(cache, image, seconds=0.5)
        time.sleep(chance.uniform(0.1, 2.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        fault = Store(cache).fault(cache / "images" / image.name, image.name)
        assert fault in (None, "not built")
    builder(cache, image).communicate(timeout=120)
    assert ask()[0]
    assert not list((cache / "images").glob("staging-*"))


def test_a_builder_that_need_not_wait_leaves(cache: Path, image: Path) -> None:
    lock = hold_lock(cache)
    out, _ = builder(cache, image, "nowait").communicate(timeout=60)
    os.close(lock)
    assert out.split() == ["place", "None"]


def test_full_disk(cache: Path, image: Path, ask) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50 << 20, 50 << 20))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    process = builder(cache, image, preexec_fn=limit)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "no system image can be kept in" in err
    assert not list((cache / "images").glob("staging-*"))
    store = Store(cache)
    assert store.failed_lately(image.name)
    assert "File too large" in store.last_words(image.name)
    assert ask()[0] is False


def test_a_disk_with_little_room_is_refused_before_any_work(cache: Path, image: Path, julia, monkeypatch) -> None:
    module = build
    monkeypatch.setenv("PYMLPGF_CACHE", str(cache))
    usage = shutil.disk_usage(cache)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=10 << 20))
    with pytest.raises(ProvisioningError, match="10 MB free, a system image needs 900 MB"):
        module.build(julia, settings.load(), lambda *words: None)


def test_sources_that_change_meanwhile(cache: Path, image: Path, julia, monkeypatch) -> None:
    module = build
    monkeypatch.setenv("PYMLPGF_CACHE", str(cache))
    names = iter([image.name, "f" * 24])
    monkeypatch.setattr(module, "key_of", lambda julia: next(names))
    monkeypatch.setattr(module, "write_library", lambda *a, **k: shutil.copyfile(image / LIBRARY, a[4]))
    with pytest.raises(ProvisioningError, match="the sources changed while the system image was built"):
        module.build(julia, settings.load(), lambda *words: None)
    assert [path.suffix for path in (cache / "images").iterdir()] in (["", ".log"], [".log", ""])


def test_the_two_newest_stay(cache: Path, image: Path, copied: Path) -> None:
    store = Store(cache)
    for age, name in enumerate("abcd"):
        shutil.copytree(copied, store.place(name * 24), copy_function=os.link)
        os.unlink(store.place(name * 24) / LIBRARY)
        (store.place(name * 24) / LIBRARY).write_bytes(b"")
        os.utime(store.place(name * 24), (1e9 - age, 1e9 - age))
    import fcntl

    with open(store.place("c" * 24) / LIBRARY, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as a process that loads it
        store.prune(copied.name)
    assert sorted(path.name[0] for path in store.folder.iterdir() if path.is_dir() and path != copied) == ["a", "c"]


def test_after_the_first_use_one_is_built_in_the_background(cache: Path, run_python, julia) -> None:
    environment = {"PYMLPGF_CACHE": str(cache), "PYMLPGF_JULIA": "embedded"}
    code = """
        net = make_net()
        assert mg.runtime_info()["image"] is None
        try:
            os.wait()
        except ChildProcessError:
            print("no child")
    """
    store = Store(cache)
    pid = None
    try:
        child = run_python(code, stderr=None, environment=environment)
        assert child.split() == ["no", "child"]
        for _ in range(100):
            pid = store.builder()
            if pid:
                break
            time.sleep(0.1)
        assert pid, "no builder"
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        done = subprocess.run(
            [sys.executable, "-m", "pymlpgf", "doctor"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        assert f"process {pid} is building it" in done.stdout, done.stdout
        assert run_python("make_net()", environment=environment) == ""  # a second process says and begins nothing
    finally:
        if pid:
            os.killpg(pid, signal.SIGKILL)
            for path in Path("/proc").glob("[0-9]*/cmdline"):  # Julia has a process group of its own
                try:
                    if str(cache).encode() in path.read_bytes():
                        os.kill(int(path.parent.name), signal.SIGKILL)
                except OSError:
                    continue


def test_a_failed_build_is_not_begun_again_for_a_day(cache: Path, image: Path, run_python) -> None:
    store = Store(cache)
    store.folder.mkdir(mode=0o700)
    store.log(image.name).write_text("begun\n\nfailed: ProvisioningError: no linker\n")
    run_python("make_net()", environment={"PYMLPGF_CACHE": str(cache), "PYMLPGF_JULIA": "embedded"})
    assert store.builder() is None


def test_processes_start_while_images_come_and_go(copied: Path, cache: Path, ask, julia) -> None:
    """The image is removed between its check and its use."""
    from pymlpgf.runtime.image import held

    with held(copied / LIBRARY) as there:
        assert there
    library = copied / LIBRARY
    library.unlink()
    with held(library) as there:
        assert not there


def test_what_a_builder_left_that_was_killed_at_the_very_end_is_swept(cache: Path, image: Path) -> None:
    builder(cache, image).communicate(timeout=120)
    (cache / "images" / "staging-1-dead").mkdir()
    out, _ = builder(cache, image).communicate(timeout=120)
    assert "compiled here" not in out
    assert not list((cache / "images").glob("staging-*"))
