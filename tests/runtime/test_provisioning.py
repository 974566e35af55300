"""The private Julia: complete or absent at any moment, mended when damaged, clear when it cannot be had.

Most tests install three tiny packages made here, through the same code and the real dpkg-deb; the real
ones are unpacked once.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pymlpgf.errors import ProvisioningError, RuntimeUnavailable
from pymlpgf.runtime import children, debian, manifest, settings
from pymlpgf.runtime.debian import release, tree
from pymlpgf.runtime.debian.packages import kept
from pymlpgf.runtime.debian.sources import Source, sources
from pymlpgf.runtime.report import Progress, Report

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("dpkg-deb") is None,
    reason="the private Julia is for Debian-like Linux",
)

DRIVER = """
import sys, pathlib
from pymlpgf.errors import ProvisioningError
from pymlpgf.runtime import debian
from pymlpgf.runtime.debian import tree
if sys.argv[3]:
    tree.patchelf = lambda: sys.argv[3]
try:
    debian.ensure(pathlib.Path(sys.argv[1]), source=sys.argv[2] or None)
except ProvisioningError as error:
    sys.exit(f"REFUSED {error}")
print("ok")
"""

TRIPLET = release.installation(Path("/")).triplet if sys.platform == "linux" else ""
ARCHITECTURE = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True).stdout.strip()


@pytest.fixture(autouse=True)
def _plain_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYMLPGF_DEBIAN_SOURCE", "PYMLPGF_JULIA", "PYMLPGF_JULIA_PROJECT", "PYMLPGF_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYMLPGF_IMAGE", "off")  # of caches that live for a test


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three packages that unpack like the real ones."""
    work = tmp_path_factory.mktemp("build")
    folder = tmp_path_factory.mktemp("packages")
    libraries = f"usr/lib/{TRIPLET}"
    contents: dict[str, dict[str, str]] = {
        "julia": {"usr/bin/julia": "#!/bin/sh\nprintf '1.5.3 algebra digits'\n"},
        "libjulia1": {
            f"{libraries}/libjulia.so.1.5": "library" * 1000,
            f"{libraries}/julia/sys.so": "image" * 1000,
            f"lib/{TRIPLET}/libold.so.1": "from before /lib became a link",
        },
        "julia-common": {"usr/share/julia/base.cache": "base", "usr/share/doc/julia/copyright": "text"},
    }
    links = {
        f"{libraries}/libjulia.so.1": "libjulia.so.1.5",
        f"{libraries}/julia/libold.so": "../libold.so.1",
        f"{libraries}/julia/libc.so.6": "../libc.so.6",  # dangles: the machine has it
    }
    for name, files in contents.items():
        root = work / name
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            script(root / path, text)
        if name == "libjulia1":
            for path, target in links.items():
                (root / path).symlink_to(target)
        (root / "DEBIAN").mkdir()
        (root / "DEBIAN" / "control").write_text(
            f"Package: {name}\nVersion: 1.5.3\nArchitecture: {ARCHITECTURE}\nMaintainer: nobody\nDescription: a test\n"
        )
        deb = folder / f"{name}_1.5.3_{ARCHITECTURE}.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, deb], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def patchelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Changes nothing, and takes 50 ms a library, so that there is something to kill."""
    folder = tmp_path_factory.mktemp("bin")
    return script(folder / "patchelf", '#!/bin/sh\n[ "$1" = --print-needed ] || sleep 0.05\n')


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, patchelf: Path) -> None:
    monkeypatch.setattr(tree, "patchelf", lambda: str(patchelf))


def silent(text: str, fraction: float | None = None) -> None:
    pass


def listener(said: list[str]) -> Report:
    def report(text: str, fraction: float | None = None) -> None:
        said.append(text)

    return report


def start(cache: Path, source: Path | str, patchelf: Path | str = "") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(cache), str(source), str(patchelf)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def content(tree: Path) -> dict[str, str]:
    """Every file and link below a folder, the manifest's date aside."""
    found = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file() and name != manifest.NAME:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def keep(packages: Path, cache: Path) -> None:
    """Lay packages down as a fetch leaves them."""
    folder = cache / "packages"
    folder.mkdir(parents=True)
    sums = {}
    for path in packages.glob("*.deb"):
        shutil.copy(path, folder)
        sums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / manifest.NAME).write_text(json.dumps({"format": manifest.FORMAT, "packages": sums}))


# ---- installed, whole ------------------------------------------------------------------------------------


def test_layout(tmp_path: Path, packages: Path, fake: None) -> None:
    cache = tmp_path / "new" / "cache"
    place = debian.ensure(cache, source=str(packages), report=silent)
    assert place.prefix.name.startswith("julia-1.5.3-")
    assert cache.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in cache.iterdir()) == [place.prefix.name, "lock"]
    assert (place.libraries / "libold.so.1").is_file(), "moved out of /lib"
    assert os.readlink(place.libraries / "julia" / "libold.so") == "../libold.so.1"
    assert os.readlink(place.libraries / "julia" / "libc.so.6") == f"/usr/lib/{TRIPLET}/libc.so.6"
    assert not (place.prefix / "usr/share/doc").exists()
    assert (place.prefix / "usr/share/julia/base.cache").exists()
    assert f"/usr/lib/{TRIPLET}/libc.so.6" in json.loads((place.prefix / manifest.NAME).read_text())["system"]
    assert manifest.faults(place.prefix, hashes=True) == []


def test_cache_that_everybody_may_write_to_is_refused(tmp_path: Path, packages: Path, fake: None) -> None:
    cache = tmp_path / "open"
    debian.ensure(cache, source=str(packages), report=silent)
    cache.chmod(0o777)
    with pytest.raises(ProvisioningError, match=r"everybody .* may write to .*open.*: run `chmod o-w"):
        debian.ensure(cache, source=str(packages), report=silent)
    cache.chmod(0o775)
    debian.ensure(cache, source=str(packages), report=silent)


def damage_missing(place: release.Installation) -> None:
    place.libjulia.resolve().unlink()


def damage_truncated(place: release.Installation) -> None:
    os.truncate(place.sysimage, 100)


def damage_link(place: release.Installation) -> None:
    place.libjulia.unlink()
    place.libjulia.symlink_to("elsewhere")


def damage_manifest(place: release.Installation) -> None:
    os.truncate(place.prefix / manifest.NAME, 40)


def damage_no_manifest(place: release.Installation) -> None:
    (place.prefix / manifest.NAME).unlink()


def damage_replaced_by_file(place: release.Installation) -> None:
    shutil.rmtree(place.prefix)
    place.prefix.write_text("not a folder")


@pytest.mark.parametrize(
    "damage",
    [
        damage_missing,
        damage_truncated,
        damage_link,
        damage_manifest,
        damage_no_manifest,
        damage_replaced_by_file,
    ],
)
def test_damage_is_mended_at_the_next_start(
    tmp_path: Path, packages: Path, fake: None, damage: Callable[[release.Installation], None]
) -> None:
    place = debian.ensure(tmp_path, source=str(packages), report=silent)
    before = content(place.prefix)
    damage(place)
    assert manifest.faults(place.prefix)
    said: list[str] = []
    debian.ensure(tmp_path, source=str(packages), report=listener(said))
    assert "damaged" in said[0]
    assert content(place.prefix) == before
    assert not list(tmp_path.glob("staging-*"))


def test_flipped_bit_is_found_by_hash_and_mended(tmp_path: Path, packages: Path, fake: None) -> None:
    place = debian.ensure(tmp_path, source=str(packages), report=silent)
    before = content(place.prefix)
    data = bytearray(place.sysimage.read_bytes())
    data[1234] ^= 1
    place.sysimage.write_bytes(data)
    assert manifest.faults(place.prefix) == [], "sizes alone cannot tell"
    assert debian.check(tmp_path) == [f"{place.sysimage.relative_to(place.prefix)} has another content"]
    debian.ensure(tmp_path, source=str(packages), report=silent, thorough=True)
    assert content(place.prefix) == before


def test_random_damage_is_found_and_mended(tmp_path: Path, packages: Path, fake: None, chance: random.Random) -> None:
    place = debian.ensure(tmp_path, source=str(packages), report=silent)
    before = content(place.prefix)
    for _ in range(8):
        path = place.prefix / chance.choice([name for name in before if not (place.prefix / name).is_symlink()])
        data = bytearray(path.read_bytes())
        if data and chance.random() < 0.5:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        elif data:
            del data[chance.randrange(len(data)) :]
        else:
            data = bytearray(b"more")
        path.chmod(0o755)
        path.write_bytes(data)
        (fault,) = debian.check(tmp_path)
        assert fault.startswith(str(path.relative_to(place.prefix)))
        debian.ensure(tmp_path, source=str(packages), report=silent, thorough=True)
        assert content(place.prefix) == before


def test_library_that_the_machine_has_lost_is_a_fault(tmp_path: Path, packages: Path, fake: None) -> None:
    place = debian.ensure(tmp_path, source=str(packages), report=silent)
    path = place.prefix / manifest.NAME
    content = json.loads(path.read_text())
    content["system"].append("/usr/lib/gone.so.1")
    path.write_text(json.dumps(content))
    assert manifest.faults(place.prefix) == ["the machine's /usr/lib/gone.so.1 is gone"]


# ---- killed, crowded, interrupted ------------------------------------------------------------------------


def test_kill_at_random_moments(tmp_path: Path, packages: Path, patchelf: Path, chance: random.Random) -> None:
    began = time.monotonic()
    whole = start(tmp_path / "once", packages, patchelf)
    assert whole.communicate(timeout=60)[0] == "ok\n"
    duration = time.monotonic() - began
    cache = tmp_path / "killed"
    place = release.installation(cache)
    seen_staging = 0
    for _ in range(8):
        process = start(cache, packages, patchelf)
        time.sleep(duration * chance.uniform(0.2, 0.95))
        process.kill()
        process.communicate()
        seen_staging += bool(list(cache.glob("staging-*")))
        assert manifest.faults(place.prefix, hashes=True) in ([], ["not installed"]), "published half a tree"
        shutil.rmtree(place.prefix, ignore_errors=True)
    assert seen_staging, "no kill hit the work: the test tests nothing"
    final = start(cache, packages, patchelf)
    assert final.communicate(timeout=60)[0] == "ok\n"
    assert manifest.faults(place.prefix, hashes=True) == []
    assert not list(cache.glob("staging-*"))


def test_crowd_of_which_some_are_killed(tmp_path: Path, packages: Path, patchelf: Path, chance: random.Random) -> None:
    for count in (2, 4, 8):
        cache = tmp_path / str(count)
        crowd = [start(cache, packages, patchelf) for _ in range(count)]
        killed = set(chance.sample(range(count), chance.randrange(1, count)))
        for index in killed:
            time.sleep(chance.uniform(0, 0.4) / len(killed))
            crowd[index].kill()
        said = [process.communicate(timeout=60) for process in crowd]
        assert [out for index, (out, _) in enumerate(said) if index not in killed] == ["ok\n"] * (count - len(killed))
        assert debian.check(cache) == []
        assert not list(cache.glob("staging-*"))


def test_eight_at_once(tmp_path: Path, packages: Path) -> None:
    slow = script(tmp_path / "slow", '#!/bin/sh\n[ "$1" = --print-needed ] || sleep 1\n')  # for the last to start
    crowd = [start(tmp_path, packages, slow) for _ in range(8)]
    said = [process.communicate(timeout=60) for process in crowd]
    assert [out for out, _ in said] == ["ok\n"] * 8
    assert sum(err.count("installing a private Julia") for _, err in said) == 1
    assert all(err.count("waiting for another process") <= 1 for _, err in said)
    assert any("waiting for another process" in err for _, err in said)
    assert debian.check(tmp_path) == []


def test_interrupt_kills_the_child_and_cleans_up(tmp_path: Path, packages: Path) -> None:
    slow = script(tmp_path / "slow", f"#!/bin/sh\necho $$ > {tmp_path}/child\nexec sleep 60\n")
    process = start(tmp_path / "cache", packages, slow)
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text().strip():
        time.sleep(0.02)
        assert process.poll() is None, process.communicate()
    child = int((tmp_path / "child").read_text())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in err
    for _ in range(100):  # killed, but there until the first process of the machine has collected it
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child still runs")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_lock_is_held_told_and_dropped_by_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert debian.lock_state(tmp_path) == "free (never taken)"
    code = (
        "import sys, time, pathlib\nfrom pymlpgf.runtime import debian\n"
        "with debian._lock(pathlib.Path(sys.argv[1]), print):\n"
        "    print('held', flush=True)\n    time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert debian.lock_state(tmp_path) == f"held by process {holder.pid}"
    said: list[str] = []
    monkeypatch.setattr(debian, "LOCK_PATIENCE", 0.3)
    with (
        pytest.raises(ProvisioningError, match="another process"),
        debian._lock(tmp_path, listener(said)),
    ):
        pass
    assert len(said) == 1
    assert str(holder.pid) in said[0]
    holder.kill()
    holder.communicate()
    assert debian.lock_state(tmp_path) == "free"


# ---- what cannot work says so ----------------------------------------------------------------------------


def test_read_only_cache(tmp_path: Path, packages: Path) -> None:
    tmp_path.chmod(0o555)
    code = f"import os\nfrom concurrent.futures import thread\n{DRIVER}".replace(
        "try:", "if os.geteuid() == 0: os.seteuid(65534)\ntry:", 1
    )
    for folder in (tmp_path, *tmp_path.parents):  # the other user must at least get here
        if os.geteuid() == 0 and str(folder).startswith("/tmp/") and folder != tmp_path:
            folder.chmod(folder.stat().st_mode | 0o111)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "cache"), str(packages), ""],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("REFUSED cannot write to the cache folder"), done.stderr
    assert "PYMLPGF_CACHE" in done.stderr


def test_read_only_installation_that_is_whole_is_used(tmp_path: Path, packages: Path, fake: None) -> None:
    place = debian.ensure(tmp_path, source=str(packages), report=silent)
    (tmp_path / "lock").unlink()
    tmp_path.chmod(0o555)
    try:
        assert debian.ensure(tmp_path, source=str(packages), report=silent) == place
        assert not (tmp_path / "lock").exists(), "nothing to lock, nothing to write"
    finally:
        tmp_path.chmod(0o755)


def test_full_disk(tmp_path: Path, packages: Path, fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=50 << 20))
    with pytest.raises(ProvisioningError, match=r"50 MB free, Julia needs 600 MB"):
        debian.ensure(tmp_path, source=str(packages), report=silent)


def test_disk_that_fills_up_on_the_way(
    tmp_path: Path, packages: Path, fake: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "describe", full)
    with pytest.raises(ProvisioningError, match="No space left on device"):
        debian.ensure(tmp_path, source=str(packages), report=silent)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_files_that_may_not_grow(tmp_path: Path, packages: Path, fake: None, chance: random.Random) -> None:
    """What a full disk is to a write, at a random length of a file; what is there afterwards is whole or nothing."""
    place = debian.ensure(tmp_path / "whole", source=str(packages), report=silent)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    failed = 0
    for _ in range(8):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(10 ** chance.uniform(0, 4)), hard))
            debian.ensure(tmp_path / "full", source=str(packages), report=silent)
        except ProvisioningError:
            failed += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert debian.check(tmp_path / "full") in ([], ["not installed"])
        assert not list((tmp_path / "full").glob("staging-*"))
        shutil.rmtree(tmp_path / "full")
    assert failed, "nothing failed: the test tests nothing"
    debian.ensure(tmp_path / "full", source=str(packages), report=silent)
    assert content(release.installation(tmp_path / "full").prefix) == content(place.prefix)


@pytest.mark.parametrize("machine", ["riscv64", "armv7l"])
def test_other_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(ProvisioningError, match=f"this machine is {machine}"):
        debian.ensure(tmp_path, report=silent)


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(RuntimeUnavailable, match="Linux only"):
        debian.ensure(tmp_path, report=silent)


def test_missing_tools(tmp_path: Path, packages: Path, fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProvisioningError, match="no dpkg-deb"):
        debian.ensure(tmp_path / "cache", source=str(packages), report=silent)


def test_folder_that_lacks_a_package(tmp_path: Path, packages: Path, fake: None) -> None:
    some = tmp_path / "some"
    shutil.copytree(packages, some)
    next(some.glob("libjulia1_*")).unlink()
    with pytest.raises(ProvisioningError, match="package libjulia1 is not among the 2 packages"):
        debian.ensure(tmp_path / "cache", source=str(some), report=silent)


def test_folder_with_a_changed_package(tmp_path: Path, packages: Path, fake: None) -> None:
    keep(packages, tmp_path)
    folder = tmp_path / "packages"
    debian.ensure(tmp_path / "good", source=str(folder), report=silent)
    with open(next(folder.glob("julia-common*")), "ab") as file:
        file.write(b"x")
    with pytest.raises(ProvisioningError, match="do not fit"):
        debian.ensure(tmp_path / "cache", source=str(folder), report=silent)


def test_broken_package(tmp_path: Path, packages: Path, fake: None) -> None:
    some = tmp_path / "some"
    shutil.copytree(packages, some)
    os.truncate(next(some.glob("libjulia1_*")), 300)
    with pytest.raises(ProvisioningError, match="unpacking libjulia1_"):
        debian.ensure(tmp_path / "cache", source=str(some), report=silent)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_julia_that_prints_one_digit_is_refused(tmp_path: Path, packages: Path, fake: None) -> None:
    """Julia 1.5 on MPFR 4.2: right numbers, but BigFloats lose their digits in print."""
    build = tmp_path / "build"
    subprocess.run(["dpkg-deb", "-R", next(packages.glob("julia_*")), build], check=True)
    script(build / "usr/bin/julia", "#!/bin/sh\nprintf '1.5.3 algebra'\n")
    some = tmp_path / "some"
    shutil.copytree(packages, some)
    subprocess.run(["dpkg-deb", "-b", build, next(some.glob("julia_*"))], check=True, capture_output=True)
    with pytest.raises(ProvisioningError, match="MPFR library of this machine is too new"):
        debian.ensure(tmp_path / "cache", source=str(some), report=silent)


def test_child_without_progress_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(ProvisioningError, match="reading made no progress for 0 s"):
        children.run(["sleep", "60"], limit=60, what="reading", tick=lambda: 0, stall=0.3)
    with pytest.raises(ProvisioningError, match="longer than 1 s"):
        children.run(["sleep", "60"], limit=0.6, what="reading")
    assert time.monotonic() - began < 5


def test_what_a_child_failed_of() -> None:
    for end, why in (("exit 3", "complaint"), ("kill -TERM $$", "ended by signal 15")):
        with pytest.raises(ProvisioningError, match=f"^reading failed: {why}$"):
            children.run(["sh", "-c", f"echo complaint >&2; {end}"], limit=60, what="reading")


# ---- apt -------------------------------------------------------------------------------------------------

APT = r"""#!{python}
import pathlib, re, shutil, sys
work = pathlib.Path(sys.argv[sys.argv.index("-c") + 1]).parent
log = pathlib.Path({log!r})
with log.open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\n")
shutil.copy(work / "apt.conf", log.with_name("apt.conf"))
shutil.copy(work / "sources.list", log.with_name("sources.list"))
if {mode!r} == "down":
    print("W: Failed to fetch the lists  Could not resolve 'mirror.invalid'", file=sys.stderr)
    sys.exit(0 if "update" in sys.argv else "E: Version '1.5.3*' for 'julia' was not found")
debs = sorted(pathlib.Path({packages!r}).glob("*.deb"))
if "--print-uris" in sys.argv:
    for deb in debs:
        print(f"'http://mirror.invalid/pool/{{deb.name}}' {{deb.name}} {{deb.stat().st_size}} MD5Sum:0")
    print("'http://mirror.invalid/pool/x' libmpfr6_4.2_any.deb 1000 MD5Sum:0")  # too new, to be left out
elif "download" in sys.argv:
    wanted = sys.argv[sys.argv.index("download") + 1 :]
    assert wanted[:3] == ["julia-common=1.5.3", "julia=1.5.3", "libjulia1=1.5.3"]
    assert wanted[3:] == ["libmpfr6/bullseye", "libunwind8/bullseye"]
    # nothing that was kept is offered to apt, which takes an archive that it finds for good by its size alone
    assert not list(work.rglob("*.deb"))
    for deb in debs:
        if {mode!r} == "short" and deb.name.startswith("libjulia1"):
            continue
        shutil.copy(deb, deb.name)
    for name in ("libmpfr6_4.1_any.deb", "libunwind8_1.3_any.deb"):
        shutil.copy(debs[0], name)
"""


@pytest.fixture
def apt(tmp_path: Path, packages: Path, fake: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put an apt-get of our own first on PATH; the result is the log of its calls."""
    folder = tmp_path / "path"
    folder.mkdir()
    log = folder / "log"

    def install(mode: str) -> Path:
        text = APT.format(python=sys.executable, log=str(log), mode=mode, packages=str(packages))
        script(folder / "apt-get", text)
        log.write_text("")
        return log

    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    mirror = Source("http://mirror.invalid/d", "bullseye", ("main",))
    monkeypatch.setattr("pymlpgf.runtime.debian.apt.sources", lambda wish: [mirror])
    return install


def test_fetched_packages_are_kept_and_mending_needs_no_network(tmp_path: Path, apt: Callable[[str], Path]) -> None:
    cache = tmp_path / "cache"
    log = apt("up")
    place = debian.ensure(cache, report=silent)
    calls = log.read_text().splitlines()
    verbs = [re.search(r" (update|--print-uris|download)\b", call) for call in calls]
    assert [verb and verb[1] for verb in verbs] == ["update", "--print-uris", "download"]
    assert {path.name.split("_")[0] for path in (cache / "packages").glob("*.deb")} == {
        "julia",
        "julia-common",
        "libjulia1",
        "libmpfr6",
        "libunwind8",
    }
    conf = log.with_name("apt.conf").read_text()
    for hook in ("APT::Update::Post-Invoke", "DPkg::Post-Invoke", "DPkg::Pre-Install-Pkgs"):
        assert f"#clear {hook};" in conf
    assert str(cache) in conf
    assert '"/var/lib/apt' not in conf
    assert '"/var/cache/apt' not in conf

    log = apt("down")
    before = content(place.prefix)
    damage_truncated(place)
    debian.ensure(cache, report=silent)
    assert log.read_text() == "", "apt was called although every package was kept"
    assert content(place.prefix) == before

    damage_truncated(place)
    os.truncate(next((cache / "packages").glob("libjulia1*")), 100)
    assert "the kept packages are incomplete or damaged" in debian.check(cache)
    with pytest.raises(ProvisioningError, match=r"Could not resolve 'mirror.invalid'.*PYMLPGF_DEBIAN_SOURCE"):
        debian.ensure(cache, report=silent)
    apt("up")
    debian.ensure(cache, report=silent)
    assert content(place.prefix) == before
    assert debian.check(cache) == []


def test_package_that_does_not_arrive(tmp_path: Path, apt: Callable[[str], Path]) -> None:
    apt("short")
    with pytest.raises(ProvisioningError, match="apt did not deliver libjulia1;"):
        debian.ensure(tmp_path / "cache", report=silent)


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt")
def test_mirror_that_cannot_be_reached(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(ProvisioningError, match=r'no Julia 1.5.3 from "http://127.0.0.1:1/debian bullseye main"'):
        debian.ensure(tmp_path, source="http://127.0.0.1:1/debian bullseye main", report=silent)
    assert time.monotonic() - began < 30
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def machine(folder: Path, release: str, **files: str) -> Path:
    (folder / "apt" / "sources.list.d").mkdir(parents=True)
    (folder / "os-release").write_text(release)
    for name, text in files.items():
        path = "sources.list" if name == "main" else "sources.list.d/" + name.replace("__", ".")
        (folder / "apt" / path).write_text(text)
    return folder


BOOKWORM = 'ID=debian\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian 12"\n'


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    exists = os.path.exists
    monkeypatch.setattr("os.path.exists", lambda path: "keyrings" in str(path) or exists(path))


def lines(etc: Path, source: str | None = None) -> list[str]:
    """The lines without their options."""
    return [entry.place for entry in sources(source, etc)]


def test_sources_deb822(tmp_path: Path, keyring: None) -> None:
    text = (
        "# a comment\nTypes: deb deb-src\nURIs: http://one.invalid/debian/\n"
        "Suites: bookworm bookworm-updates\n"
        "Components: main contrib\nSigned-By: /etc/keys/mine.gpg\n\n"
        "Types: deb\nURIs: http://two.invalid/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n"
    )
    etc = machine(tmp_path, BOOKWORM, debian__sources=text)
    assert lines(etc) == [
        "http://one.invalid/debian/ bookworm main contrib",
        "http://one.invalid/debian/ bullseye main",
    ]
    assert all("signed-by=/etc/keys/mine.gpg" in entry.line for entry in sources(None, etc))


def test_sources_inline_key_and_order(tmp_path: Path, keyring: None) -> None:
    text = (
        "Enabled: no\nTypes: deb\nURIs: http://off.invalid\nSuites: bookworm\nComponents: main\n\n"
        "Types: deb\nURIs: http://on.invalid\nSuites: bookworm\nComponents: main\n"
        "Signed-By:\n -----BEGIN\n .\n abc\n"
    )
    etc = machine(tmp_path, BOOKWORM, x__sources=text)
    assert lines(etc) == ["http://on.invalid bookworm main", "http://on.invalid bullseye main"]
    assert "signed-by=/usr/share/keyrings/debian-archive-keyring" in sources(None, etc)[-1].line


def test_sources_one_line(tmp_path: Path, keyring: None) -> None:
    text = (
        "deb cdrom:[Debian 12]/ bookworm main\n# deb http://no.invalid bookworm main\n"
        "deb-src http://src.invalid bookworm main\ndeb http://security.invalid bookworm-security main\n"
        "deb [ arch=amd64 trusted=yes ] http://yes.invalid/debian bookworm main non-free # here\n"
    )
    etc = machine(tmp_path, BOOKWORM, main=text)
    assert lines(etc) == [
        "http://yes.invalid/debian bookworm main non-free",
        "http://yes.invalid/debian bullseye main",
    ]
    assert "trusted=yes" in sources(None, etc)[-1].line


def test_sources_by_role_and_own_suite(tmp_path: Path, keyring: None) -> None:
    etc = machine(tmp_path / "a", BOOKWORM, main="deb http://m.invalid stable main\n")
    assert lines(etc) == ["http://m.invalid stable main", "http://m.invalid bullseye main"]
    bullseye = BOOKWORM.replace("bookworm", "bullseye")
    etc = machine(tmp_path / "b", bullseye, main="deb http://m.invalid bullseye main\n")
    assert lines(etc) == ["http://m.invalid bullseye main"]


def test_sources_of_the_user(tmp_path: Path, keyring: None) -> None:
    etc = machine(tmp_path, BOOKWORM, main="deb http://m.invalid bookworm main\n")
    assert lines(etc, "http://x.invalid/d bullseye main") == [
        "http://m.invalid bookworm main",
        "http://x.invalid/d bullseye main",
    ]
    with pytest.raises(ProvisioningError, match="PYMLPGF_DEBIAN_SOURCE is '/no/such/folder'"):
        sources("/no/such/folder", etc)


def test_sources_of_a_derivative(tmp_path: Path, keyring: None) -> None:
    release = 'ID=ubuntu\nVERSION_CODENAME=noble\nPRETTY_NAME="Ubuntu 24.04"\n'
    etc = machine(tmp_path, release, main="deb http://u.invalid noble main\ndeb http://u.invalid noble universe\n")
    with pytest.raises(ProvisioningError, match=r"runs Ubuntu 24.04.*PYMLPGF_DEBIAN_SOURCE"):
        sources(None, etc)
    assert lines(etc, "http://x.invalid/d bullseye main")[-1] == "http://x.invalid/d bullseye main"


def test_sources_without_entry_or_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etc = machine(tmp_path / "a", BOOKWORM)
    with pytest.raises(ProvisioningError, match="component main of bookworm"):
        sources(None, etc)
    etc = machine(tmp_path / "b", BOOKWORM, main="deb http://m.invalid bookworm main\n")
    exists = os.path.exists
    monkeypatch.setattr("os.path.exists", lambda path: "keyrings" not in str(path) and exists(path))
    with pytest.raises(ProvisioningError, match="debian-archive-keyring"):
        sources(None, etc)


# ---- what the user sees ----------------------------------------------------------------------------------


class Stream:
    def __init__(self, terminal: bool) -> None:
        self.text, self.terminal = "", terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return self.terminal


def test_progress(tmp_path: Path, packages: Path, fake: None) -> None:
    plain, terminal = Stream(False), Stream(True)
    debian.ensure(tmp_path / "a", source=str(packages), report=Progress(plain))  # type: ignore[arg-type]
    debian.ensure(tmp_path / "b", source=str(packages), report=Progress(terminal))  # type: ignore[arg-type]
    assert [line.split(" (")[0].split(" from")[0] for line in plain.text.splitlines()] == [
        "pymlpgf: installing a private Julia 1.5.3",
        "pymlpgf: Julia 1.5.3 is ready",
    ]
    assert "unpacking" in terminal.text
    assert " %" in terminal.text
    assert terminal.text.endswith(" s)\n")
    again = Stream(False)
    debian.ensure(tmp_path / "a", source=str(packages), report=Progress(again))  # type: ignore[arg-type]
    assert again.text == ""


def test_import_writes_nothing_and_opens_no_socket(tmp_path: Path) -> None:
    code = """
import sys
seen = []
def hook(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.mkdir", "os.rename", "os.exec", "os.posix_spawn")):
        seen.append((event, str(arguments)))
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        seen.append((event, str(arguments)))
sys.addaudithook(hook)
import pymlpgf, pymlpgf.commands.cli, pymlpgf.runtime.find
assert not seen, seen
assert "juliacall" not in sys.modules and "juliapkg" not in sys.modules
"""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("PYMLPGF_CACHE", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


# ---- the real one ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_packages() -> Path:
    """The real packages, as this user's cache keeps them; fetched into it where they are not."""
    cache = settings.load().cache
    folder = cache / "packages"
    if kept(folder) is None:
        debian.ensure(cache, thorough=True)
        if kept(folder) is None:
            pytest.skip("the private Julia of this cache was installed from a folder")
    return folder


def test_real_packages_without_network_after_a_kill(tmp_path: Path, real_packages: Path) -> None:
    """The real thing: killed once on the way, then whole, then run in a hostile environment."""
    cache = tmp_path / "cache"
    process = start(cache, real_packages)
    while not list(cache.glob("staging-*/tree/usr/lib")):
        time.sleep(0.02)
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    assert list(cache.glob("staging-*"))

    place = debian.ensure(cache, source=str(real_packages), report=silent)
    assert not list(cache.glob("staging-*"))
    assert debian.check(cache) == []
    times = []
    for _ in range(5):
        began = time.perf_counter()
        assert manifest.faults(place.prefix) == []
        times.append(time.perf_counter() - began)
    assert min(times) < 0.03, "the check at every start"

    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for name in ("libjulia.so.1", "libLLVM-9.so.1", "libopenlibm.so.3", "libpcre.so.3"):
        (hostile / name).write_text("not a library")
    code = "using LinearAlgebra; x = [4.0 1; 1 3] \\ [1, 2]; print(VERSION, round.(x, digits=3), big(0.1))"
    done = subprocess.run(
        [place.executable, "--startup-file=no", "-e", code],
        env={"LD_LIBRARY_PATH": str(hostile), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    exact = "0.1000000000000000055511151231257827021181583404541015625"  # of the double nearest to 0.1
    assert done.stdout == f"1.5.3[0.091, 0.636]{exact}", done.stderr
