"""Files that are damaged, writers that are killed, disks that fill up, and code that nobody asked to run."""

from __future__ import annotations

import errno
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pymlpgf as mg
from pymlpgf import files

CODE = "x -> x / (1 + abs(x))"


def make_net(activation: str = "tanh") -> mg.Net:
    X = np.linspace(-1, 1, 40).reshape(20, 2)
    return mg.Net(layers=[(3, activation, True), (1, "identity", True)], input=X, target=X[:, 0] ** 2)


@pytest.fixture(scope="module")
def result() -> mg.TrainResult:
    net = make_net()
    return mg.train(
        net, net.random_params(seed=0), maxiterations_ode=20, maxiterations_optim=20, dense=True, verbosity=0
    )


def checkpoint_of(path: Path, activation: str = "tanh") -> Path:
    """A checkpoint as a run leaves it that is ended in the middle."""
    net = make_net(activation)

    def leave(step: Any) -> None:
        if step.iteration == 30:
            shutil.copy(path, path.with_name("kept.npz"))
            raise StopIteration

    options = {"checkpoint": path, "checkpoint_interval": 1e-9, "callback": leave, "verbosity": 0}
    mg.flow(net, net.random_params(seed=0), maxiterations_ode=60, **options)
    return path.with_name("kept.npz")


@pytest.mark.parametrize("kind", ["result", "checkpoint"])
def test_damaged_files_are_named_or_whole(
    kind: str, result: mg.TrainResult, tmp_path: Path, chance: random.Random
) -> None:
    path = result.save(tmp_path / "r.npz") if kind == "result" else checkpoint_of(tmp_path / "c.npz")
    content, whole = path.read_bytes(), mg.load(path)
    found = 0
    for trial in range(120):
        damaged = bytearray(content)
        if trial % 3 == 0:
            del damaged[chance.randrange(len(content)) :]
        else:
            damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        loaded, message = None, ""
        try:
            loaded = mg.load(path)
        except mg.InputError as error:
            message = str(error)
        # a flipped bit may have been in a field that says nothing
        assert path.name in message if loaded is None else np.array_equal(loaded.x, whole.x)
        found += loaded is None
    assert found > 60
    path.write_bytes(content)
    assert np.array_equal(mg.load(path).x, whole.x)


def test_kill_9_while_saving(
    result: mg.TrainResult, tmp_path: Path, start_python: Callable[..., Any], chance: random.Random
) -> None:
    path = result.save(tmp_path / "r.npz")
    for _ in range(6):
        child = start_python(
            f"r = mg.load({str(path)!r})\nprint('ready', flush=True)\nwhile True: r.save({str(path)!r})"
        )
        assert child.line() == "ready"
        time.sleep(chance.uniform(0, 0.1))
        child.send(signal.SIGKILL)
        child.finish(rc=-signal.SIGKILL, stderr=None)
        assert np.array_equal(mg.load(path).x, result.x)


def test_disk_that_fills_up_while_saving(
    result: mg.TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chance: random.Random
) -> None:
    path = result.save(tmp_path / "r.npz")
    size = path.stat().st_size
    whole = path.read_bytes()

    class Full:
        def __init__(self, file: Any, room: int) -> None:
            self.file, self.room = file, room

        def write(self, data: Any) -> int:
            self.room -= len(data)
            if self.room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.file.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    real = files.write_atomically
    for _ in range(20):
        room = chance.randrange(size)
        monkeypatch.setattr(
            "pymlpgf.results.result.write_atomically",
            lambda p, write, room=room: real(p, lambda f: write(Full(f, room))),
        )
        with pytest.raises(OSError, match="No space left"):
            result.save(path)
        assert path.read_bytes() == whole
        assert [p.name for p in tmp_path.iterdir()] == [path.name]


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (os.environ["HOSTILE"],))


def test_results_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTILE", str(tmp_path / "ran"))
    bad = tmp_path / "bad.npz"
    np.savez(bad, header=np.array([Hostile()], dtype=object))
    with pytest.raises(mg.InputError, match=r"bad\.npz is no result"):
        mg.load(bad)
    bad.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(mg.InputError, match=r"bad\.npz is no result"):
        mg.load(bad)
    assert not (tmp_path / "ran").exists()


def test_code_in_a_checkpoint_is_compiled_only_if_asked(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path / "c.npz", CODE)
    with pytest.raises(mg.InputError, match=r"holds Julia code as an activation.*allow_code=True"):
        mg.resume(path)
    options = {"verbosity": 0, "callback": lambda step: None}
    there = mg.resume(shutil.copy(path, tmp_path / "a.npz"), make_net(CODE), **options)
    here = mg.resume(shutil.copy(path, tmp_path / "b.npz"), allow_code=True, **options)
    assert np.array_equal(there.x, here.x)


@pytest.mark.skipif(os.name != "posix", reason="a shell script poses as Julia")
def test_nothing_is_taken_from_the_current_directory(tmp_path: Path) -> None:
    trap = '#!/bin/sh\ntouch "$(dirname "$0")/ran"\n'
    for name in ("julia", "juliaup", "apt-get", "dpkg-deb"):
        (tmp_path / name).write_text(trap)
        (tmp_path / name).chmod(0o755)
    for name in ("startup.jl", "numpy.py", "juliacall.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for name in ("Project.toml", "LocalPreferences.toml", "juliapkg.json"):
        (tmp_path / name).write_text("nonsense ]")
    # as the command does it: Python's own -c and -m would look in the current directory first
    command = (
        "import sys; sys.path.remove(''); from pymlpgf.commands.cli import main; "
        "sys.exit(main(['julia', '-e', 'print(6 * 7)']))"
    )
    root = str(Path(mg.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.endswith("42"), done.stderr
    assert not (tmp_path / "ran").exists()
