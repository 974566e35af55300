"""What juliapkg has installed for juliacall's Julia; installing it when Julia's servers can be reached."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from ..answers import recall, remember
from ..julia import Refused
from ..report import Report

__all__ = ["locate", "missing_module", "probe"]

PROBE_SECONDS = 1.5
PROBE_MEMORY = 3600.0
RESOLVE_LIMIT = 3600.0
NOT_YET = "its packages are not installed yet"

# Runs in a process of its own with the paths of this one, on which juliapkg looks for juliapkg.json files. What is
# wrong with these goes into the file that the second argument names; what Julia says of packages is seen as it comes.
RESOLVE = """
import json, subprocess, sys
sys.path[:] = json.loads(sys.argv[1])
import juliapkg, juliapkg.deps

def wrong(error):
    for name in juliapkg.deps.deps_files():
        try:
            with open(name, encoding="utf-8") as file:
                if not isinstance(json.load(file), dict):
                    return f"{name} holds no JSON object"
        except ValueError as fault:
            return f"{name} is not in JSON: {fault}"
    return f"{error}"

try:
    juliapkg.resolve()
except subprocess.CalledProcessError:
    sys.exit(1)
except Exception as error:
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(wrong(error))
    sys.exit(1)
"""


def missing_module() -> str | None:
    """The first module that juliacall's host lacks. Looked up, not imported: importing juliacall resolves."""
    return next((name for name in ("juliacall", "juliapkg") if importlib.util.find_spec(name) is None), None)


def locate(cache: Path, provision: bool, report: Report, fresh: bool, override: str | None = None) -> tuple[Path, Path]:
    """Executable and project of juliapkg, resolved first where that is needed and possible.

    That the servers are out of reach is remembered for an hour, with the path of the file that says what
    juliapkg has resolved: while that is missing, later starts need not even import juliapkg (0.2 s).
    """
    places = ("PYTHON_JULIAPKG_PROJECT", "JULIA_DEPOT_PATH", "CONDA_PREFIX", "JULIA_PKG_SERVER")
    key = "|".join([sys.prefix, *(os.environ.get(name, "") for name in places)])
    known = recall(cache, "probe.json").get(key)
    past = None
    if not fresh and isinstance(known, list) and len(known) == 3 and 0 <= time.time() - known[0] < PROBE_MEMORY:
        past = f"{known[1]} (tried {(time.time() - known[0]) / 60:.0f} min ago; `pymlpgf doctor` tries anew)"
        if not os.path.exists(known[2]):
            raise Refused(f"{NOT_YET}, and {past}")
    if ready := _resolved(override):
        return ready
    out_of_reach = past or probe()
    if past is None:
        meta = str(importlib.import_module("juliapkg.state").STATE["meta"])
        remember(cache, "probe.json", key, [time.time(), out_of_reach, meta] if out_of_reach else None)
    if out_of_reach:
        raise Refused(f"{NOT_YET}, and {out_of_reach}")
    if not provision:
        raise Refused(f"{NOT_YET} (Julia's servers answer: `pymlpgf install` gets them)")
    report("installing Julia and its packages through juliapkg, once; this takes some minutes …")
    _resolve(override)
    if ready := _resolved(override):
        return ready
    raise Refused("juliapkg resolved its packages, but not for this Python's path; see `python -m juliapkg status`")


def _resolved(override: str | None) -> tuple[Path, Path] | None:
    """Executable and project if juliapkg has resolved the present set of juliapkg.json files, else None.

    This asks juliapkg's own check, which reads one file, compares hashes and runs ``julia --version``; its
    public ``resolve(dry_run=True)`` would create folders and may wait for a lock.
    """
    try:
        deps = importlib.import_module("juliapkg.deps")
        state = importlib.import_module("juliapkg.state").STATE
        before = state["override_executable"]
        state["override_executable"] = override or before
        try:
            if not os.path.exists(state["meta"]):
                return None
            meta = deps.can_skip_resolve()
        finally:
            state["override_executable"] = before
        if not meta or not os.path.isfile(os.path.join(state["project"], "Manifest.toml")):
            return None
        return Path(shutil.which(meta["executable"]) or meta["executable"]), Path(state["project"])
    except Exception as error:  # whatever another release of juliapkg does, the next candidate is to be tried
        raise Refused(f"juliapkg cannot tell its state: {type(error).__name__}: {error}") from None


def _resolve(override: str | None) -> None:
    environment = dict(os.environ)
    if override:
        environment["PYTHON_JULIAPKG_EXE"] = override
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "wrong"
        status = _run([sys.executable, "-c", RESOLVE, json.dumps(sys.path), str(words)], environment)
        wrong = words.read_text(encoding="utf-8") if words.exists() else ""
    if status != 0:
        why = f": {wrong}" if wrong else " (its messages are above)"
        raise Refused(f"juliapkg could not install its packages{why}")


def _run(command: list[str], environment: dict[str, str]) -> int:
    """The exit code; what the command prints goes to stderr."""
    output = sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,
    )
    try:
        return process.wait(RESOLVE_LIMIT)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, 9) if hasattr(os, "killpg") else process.kill()
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise Refused(f"juliapkg took longer than {RESOLVE_LIMIT:.0f} s") from None
        raise


def _has_descriptor(stream: Any) -> bool:
    try:
        return bool(stream.fileno() >= 0)
    except (AttributeError, OSError, ValueError):
        return False


def probe() -> str | None:
    """None if Julia's servers answer within 1.5 s, else a clause that says what happened.

    The address is JULIA_PKG_SERVER's, or the one that juliapkg downloads Julia from. Proxies of the
    environment are used, as they would be for the download.
    """
    server = os.environ.get("JULIA_PKG_SERVER", "")
    if server:
        url = f"{server if '://' in server else f'https://{server}'}/registries"
    else:
        try:
            url = str(importlib.import_module("juliapkg.install_julia")._julia_versions_url)
        except (ImportError, AttributeError):
            return "juliapkg does not tell where it downloads Julia from"
    answer: list[str | None] = []

    def ask() -> None:
        import urllib.request  # 60 ms that only a probe needs

        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
                answer.append(None)
        except Exception as error:
            answer.append(f"Julia's servers are out of reach ({getattr(error, 'reason', error)})")

    # A thread, because looking a name up can hang much longer than any time-out of a socket.
    thread = threading.Thread(target=ask, daemon=True, name="pymlpgf-probe")
    thread.start()
    thread.join(PROBE_SECONDS)
    return answer[0] if answer else f"Julia's servers did not answer within {PROBE_SECONDS} s"
