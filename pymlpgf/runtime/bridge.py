"""Typed calls into Julia: C function pointers, integer handles, statuses with messages. The same for every host.

A host only starts Julia and evaluates a string; the string that is evaluated once returns the address of MLPGF's
table of function pointers (julia/src/interface/c_interface.jl), and from there on ctypes calls Julia directly.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np

from ..errors import InputError, JuliaError, MLPGFError, ThreadError
from .hosts.signals import Interruptible, SegvKeeper, preserved

__all__ = ["Bridge", "Host", "Report"]

i32, i64, u64, f64 = ctypes.c_int32, ctypes.c_int64, ctypes.c_uint64, ctypes.c_double
ptr, text = ctypes.c_void_p, ctypes.c_char_p

#: the number of the border that this file speaks (BORDER in julia/src/interface/c_interface.jl)
BORDER = 4
#: name -> (result, arguments), in the order of MLPGF's table
SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "last_error": (i64, (ptr, i64)),
    "release": (i32, (ptr, i64)),
    "net": (i32, (i32, text, i64, i64, ptr, i64, ptr, ptr, ptr)),
    "on": (i32, (i64, i64, ptr, i64, ptr, ptr, ptr)),
    "loss": (i32, (i64, ptr, ptr)),
    "gradient": (i32, (i64, ptr, ptr, ptr)),
    "hessian": (i32, (i64, ptr, ptr)),
    "hvp": (i32, (i64, ptr, ptr, ptr)),
    "predict": (i32, (i64, ptr, ptr, i64, ptr)),
    "random_params": (i32, (i64, u64, text, ptr)),
    "solve": (i32, (i64, ptr, text, text, ptr, ptr, ptr, ptr)),
    "tool": (i32, (i64, text, text, ptr, ptr, i64, ptr)),
    "fields": (i32, (i64, text, ptr)),
    "infinite_net": (i32, (i64, ptr, i64, ptr)),
}
REPORT = ctypes.CFUNCTYPE(i32, i32, i64, f64, f64, f64, ptr)
ASK = ctypes.CFUNCTYPE(f64, i64, i64, f64, ptr)
#: what ``fields`` says of one field, and its last word as a number
_WORDS, _NUMBERS = struct.Struct("=6q"), struct.Struct("=40xd")
KINDS: dict[int, np.dtype[Any]] = {1: np.dtype("f8"), 2: np.dtype("f4"), 3: np.dtype("i8"), 4: np.dtype("u1")}

R = TypeVar("R")
#: input (N, D), target (N, O) or labels from 1 on (N,), weights (N,) or None: contiguous and of the net's dtype
Data = tuple[np.ndarray, np.ndarray, "np.ndarray | None"]
#: report(phase, iteration, t, loss, gnorm, address of the point): phase is "flow" or "minimize"
Report = Callable[[str, int, float, float, float, "int | None"], None]
PHASES = ("flow", "minimize")
#: callback(phase, iteration, t, loss, gnorm, address of x) -> whether to stop, after every accepted step
Callback = Callable[[str, int, float, float, float, int], bool]
#: ask(what, k, t, address of x): the value of an event (0), the factor of a schedule (1), an observable (2, 3, …)
Ask = Callable[[int, int, float, int], float]


class Host(Protocol):
    """What a host has to offer."""

    def eval(self, code: str) -> int:
        """The Int64 that the Julia ``code`` evaluates to."""


class Bridge:
    """Calls into a started Julia, from the thread that started it."""

    def __init__(self, host: Host, package: os.PathLike[str], threads: int) -> None:
        folder = str(package).replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
        with preserved():  # precompilation starts a process, whose end leaves SIGCHLD without its handler
            address = host.eval(
                f'"{folder}" in LOAD_PATH || push!(LOAD_PATH, "{folder}"); '
                "Base.invokelatest(Base.require(Main, :MLPGF).c_table)"
            )
        border, count = (i64 * 2).from_address(address)
        if (border, count) != (BORDER, len(SIGNATURES)):
            raise JuliaError(
                f"the Julia package in {package} has border {border} with {count} functions; this pymlpgf needs border "
                f"{BORDER} with {len(SIGNATURES)}: its Python and its Julia files are of different versions"
            )
        pointers = (ptr * count).from_address(address + 2 * ctypes.sizeof(ptr))
        self._call: dict[str, Any] = {}
        for pointer, (name, (result, arguments)) in zip(pointers, SIGNATURES.items(), strict=True):
            # Short calls keep the GIL (PYFUNCTYPE): releasing it costs more than they do. A solve releases it.
            kind = ctypes.CFUNCTYPE if name in ("solve", "tool") else ctypes.PYFUNCTYPE
            self._call[name] = kind(result, *arguments)(pointer)
        self._loss, self._gradient = self._call["loss"], self._call["gradient"]
        self._hessian, self._hvp = self._call["hessian"], self._call["hvp"]
        self._value = f64()
        self._value_address = ctypes.addressof(self._value)
        # Not the thread's number: the next thread may get that of one that has ended.
        self._here = threading.local()
        self._here.owns_julia = True
        self._forked = False
        self._busy = False
        self._running = 0  # the net that a solver works on, and one like it that its callbacks ask
        self._twin = 0
        self._border = Border()
        self._keeper = SegvKeeper() if threads > 1 and os.name == "posix" else None
        self._dead: deque[int] = deque()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    # ---- entry ---------------------------------------------------------------------------------------------

    def _after_fork(self) -> None:
        self._forked = True

    def enter(self) -> None:
        """Refuse what would crash, before it enters Julia."""
        if self._forked:
            raise ThreadError(
                "Julia was started before this process was forked, and its threads did not come along: start worker "
                'processes with the "spawn" method (multiprocessing.get_context("spawn")), or fork before the first '
                "use of pymlpgf"
            )
        if not getattr(self._here, "owns_julia", False):
            raise ThreadError(
                "Julia was started in another thread and can be called from that one alone: call from there, start "
                "it here by pymlpgf.init() before any other use, or use one process per worker"
            )
        if self._busy and not (self._border.solving is not None and self._border.solving.asking):
            raise ThreadError(
                "pymlpgf was called while a solver runs, not by its callback, event or observables: wait for its end"
            )
        if self._keeper is not None:
            self._keeper.check()
        if self._dead:
            self._drain()

    def _idle(self, net: int) -> int:
        """``net``, or, while a solver works in its buffers, one with the same loss and buffers of its own."""
        if not self._busy or net != self._running:
            return net
        if not self._twin:
            handle = i64()
            status = self._call["tool"](net, b"twin", b"{}", None, None, 0, ctypes.addressof(handle))
            self._check(status)
            self._twin = handle.value
        return self._twin

    def _drain(self) -> None:
        handles = []
        while self._dead:
            handles.append(self._dead.popleft())
        self._call["release"]((i64 * len(handles))(*handles), len(handles))

    def release_later(self, handle: int) -> None:
        """For finalizers: they may run on any thread, so the next call does the work."""
        self._dead.append(handle)

    def _check(self, status: int) -> None:
        if status == 0:
            return
        buffer = ctypes.create_string_buffer(1 << 14)
        n = self._call["last_error"](buffer, len(buffer))
        message = buffer.raw[:n].decode(errors="replace")
        if status == 1:
            for prefix in ("ArgumentError: ", "DimensionMismatch: ", 'DimensionMismatch("'):
                message = message.removeprefix(prefix)
            raise self._told(InputError, message.removesuffix('")'))
        raise self._told(JuliaError, message)

    def _told(self, kind: type[MLPGFError], message: str) -> MLPGFError:
        """The exception with Julia's traceback, which is part of its text if PYMLPGF_DEBUG=1."""
        debug = os.environ.get("PYMLPGF_DEBUG") == "1"
        handle = i64()
        trace = ""
        if (debug or kind is JuliaError) and not self._call["tool"](
            0, b"traceback", b"{}", None, None, 0, ctypes.addressof(handle)
        ):
            try:
                trace = self.field(handle.value, "").strip()
            finally:
                self.release_later(handle.value)
        error = kind(f"{message}\n{trace}" if debug and trace else message)
        error.julia_traceback = trace
        return error

    # ---- nets ----------------------------------------------------------------------------------------------

    def net(self, single: bool, options: dict[str, object], n_features: int, data: Data | None) -> int:
        """A handle to a net; for ``options`` see julia/src/interface/c_interface.jl."""
        self.enter()
        handle = i64()
        X, Y, w = data if data is not None else (None, None, None)
        status = self._call["net"](
            int(single), _wire(options), n_features, 0 if X is None else len(X), _pointer(X),
            _outputs(Y), _pointer(Y), _pointer(w), ctypes.addressof(handle),
        )  # fmt: skip
        self._check(status)
        return handle.value

    def on(self, net: int, data: Data) -> int:
        """A handle to the same network, loss and regularisers on other data."""
        self.enter()
        net = self._idle(net)
        handle = i64()
        X, Y, w = data
        address = ctypes.addressof(handle)
        self._check(self._call["on"](net, len(X), _pointer(X), _outputs(Y), _pointer(Y), _pointer(w), address))
        return handle.value

    def infinite_net(self, teacher: int, x: int, student: int) -> int:
        """A handle to the population loss of a student under a teacher with the parameters at address ``x``."""
        self.enter()
        handle = i64()
        self._check(self._call["infinite_net"](teacher, x, student, ctypes.addressof(handle)))
        return handle.value

    def tool(
        self, net: int, what: str, options: dict[str, object], arrays: list[np.ndarray], read: Callable[[int], R]
    ) -> R:
        """What ``read`` makes of the handle to the answer of a tool (julia/src/interface/tools.jl); 0 for no net."""
        handle = self.answer(net, what, options, arrays)
        try:
            return read(handle)
        finally:
            self.release_later(handle)

    def answer(self, net: int, what: str, options: dict[str, object], arrays: list[np.ndarray]) -> int:
        """The handle to the answer of a tool, which the caller releases."""
        self.enter()
        net = self._idle(net)
        vectors = [np.ascontiguousarray(array, np.float64).ravel() for array in arrays]
        pointers, lengths = (ptr * len(vectors))(*map(_pointer, vectors)), (i64 * len(vectors))(*map(len, vectors))
        handle = i64()
        status = self._call["tool"](
            net, what.encode(), _wire(options), pointers, lengths, len(vectors), ctypes.addressof(handle)
        )
        self._check(status)
        return handle.value

    def loss(self, net: int, x: int) -> float:
        """L at the parameters at address ``x``."""
        self.enter()
        if self._busy:
            net = self._idle(net)
        self._check(self._loss(net, x, self._value_address))
        return self._value.value

    def gradient(self, net: int, x: int, g: int) -> float:
        """Write the gradient to address ``g``; returns the loss."""
        self.enter()
        if self._busy:
            net = self._idle(net)
        self._check(self._gradient(net, x, g, self._value_address))
        return self._value.value

    def hessian(self, net: int, x: int, H: int) -> None:
        """Write the Hessian to address ``H``."""
        self.enter()
        if self._busy:
            net = self._idle(net)
        self._check(self._hessian(net, x, H))

    def hvp(self, net: int, x: int, v: int, y: int) -> None:
        """Write the Hessian-vector product to address ``y``."""
        self.enter()
        if self._busy:
            net = self._idle(net)
        self._check(self._hvp(net, x, v, y))

    def predict(self, net: int, x: int, X: int | None, n: int, out: int) -> None:
        """Write the outputs for ``n`` samples at ``X`` (None: the net's own) to address ``out``."""
        self.enter()
        self._check(self._call["predict"](self._idle(net), x, X, n, out))

    def random_params(self, net: int, seed: int, init: str, out: int) -> None:
        """Write initial parameters to address ``out``."""
        self.enter()
        self._check(self._call["random_params"](net, seed, init.encode(), out))

    # ---- solvers -------------------------------------------------------------------------------------------

    def solve(
        self,
        net: int,
        x: int,
        what: str,
        options: dict[str, object],
        tauinv: np.ndarray | None,
        report: Report,
        read: Callable[[int], R],
        callback: Callback | None = None,
        ask: Ask | None = None,
    ) -> R:
        """Run "flow", "minimize" or "train" and return what ``read`` makes of the handle to its result.

        ``report`` is called in this thread at most every 50 ms, or after every step where there is a ``callback``,
        which is then called too. Ctrl-C ends the solver, which then returns its best point. An exception in a
        function of the user's, or in a signal handler, ends it too and is raised afterwards; one of the user's
        functions' then carries what was found until then as ``error.result``.
        """
        self.enter()
        if self._busy:
            raise ThreadError("a function given to a solver cannot run another solver: wait until this one returns")
        handle = i64()
        address = None if tauinv is None else tauinv.ctypes.data
        everystep = {"everystep": True} if callback is not None else {}
        solving = self._border.solving = Solving(report, callback, ask, self._keeper)
        failure = solving.failure
        try:
            self._busy, self._running = True, net
            with solving.interruptible as interruptible, self._border:
                status = self._call["solve"](
                    net,
                    x,
                    what.encode(),
                    _wire({**options, **everystep}),
                    address,
                    *self._border.pointers,
                    ctypes.addressof(handle),
                )
                self._busy = False
                # One Ctrl-C has ended the solver, or an exception: another one must not cost the result.
                seen = interruptible.seen or bool(failure)
                if failure:
                    interruptible.seen = True
                    if failure[0] in solving.users and status == 0:
                        with contextlib.suppress(AttributeError):
                            failure[0].result = read(handle.value)  # type: ignore[attr-defined]
                    raise failure[0]
                self._check(status)
                result = read(handle.value)
                interruptible.seen = seen or interruptible.seen
                return result
        finally:
            self._busy = False
            for used in (handle.value, self._twin):
                if used:
                    self.release_later(used)
            self._twin = 0

    def field(self, handle: int, path: str) -> Any:
        """A copy of a field of a Julia object: an array, a number, a string or None."""
        return self.fields(handle, (path,))[0]

    def fields(self, handle: int, paths: tuple[str, ...]) -> list[Any]:
        """Several fields in one call, which takes a quarter of the time of as many calls."""
        self.enter()
        info = (ctypes.c_char * (48 * len(paths)))()
        self._check(self._call["fields"](handle, _paths(paths), ctypes.addressof(info)))
        found: list[Any] = []
        described = zip(_WORDS.iter_unpack(info), _NUMBERS.iter_unpack(info), strict=True)
        for (kind, ndim, columns, rows, depth, word), (number,) in described:
            if kind == 0:
                found.append(None)
            elif ndim == 0:
                found.append(word if kind == 3 else number)
            else:
                found.append(_copy(kind, ndim, columns, rows, depth, word))
        return found


def _copy(kind: int, ndim: int, columns: int, rows: int, depth: int, address: int) -> Any:
    dtype = KINDS[kind]
    size = columns * rows * depth * dtype.itemsize
    if kind == 4:
        return ctypes.string_at(address, size).decode()
    if size == 0:
        return np.empty((depth, rows, columns)[-ndim:] if ndim > 1 else 0, dtype)
    array = np.frombuffer(memoryview((ctypes.c_char * size).from_address(address)), dtype)
    # column-major to row-major: the same memory
    return (array if ndim == 1 else array.reshape((depth, rows, columns)[-ndim:])).copy()


def _wire(value: object) -> bytes:
    """What is no array crosses the border as JSON (julia/src/interface/json.jl)."""
    return json.dumps(value).encode()


@functools.lru_cache(maxsize=256)
def _paths(paths: tuple[str, ...]) -> bytes:
    return _wire(paths)


def _pointer(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data


def _outputs(Y: np.ndarray | None) -> int:
    return 0 if Y is None else -1 if Y.ndim == 1 else Y.shape[1]


class Solving:
    """What a solver calls while it runs, and the exceptions of that: ``users`` are those of the user's functions."""

    def __init__(self, report: Report, callback: Callback | None, ask: Ask | None, keeper: SegvKeeper | None) -> None:
        self._report, self._callback, self._ask, self._keeper = report, callback, ask, keeper
        self._last = ("", 0)
        self.asking = False  # whether a function of the user's is being called, which may ask nets in its turn
        self.failure: list[BaseException] = []
        self.users: list[BaseException] = []
        self.interruptible = Interruptible()

    def report(self, phase: int, iteration: int, t: float, loss: float, gnorm: float, x: int | None) -> int:
        """0: go on, 1: interrupt, 2: the callback's wish to stop."""
        wish = False
        try:
            if self._keeper is not None:
                self._keeper.check()
            if phase < len(PHASES):  # else between blocks of samples: only a chance to interrupt
                self._report(PHASES[phase], iteration, t, loss, gnorm, x)
                step = (PHASES[phase], iteration)
                if self._callback is not None and iteration > 0 and step != self._last and not self.failure:
                    self._last = step
                    wish = self._users_own(self._callback, PHASES[phase], iteration, t, loss, gnorm, x)
        except BaseException as error:
            self.failure.append(error)
        self.interruptible.seen = self.interruptible.interrupted
        return 2 if wish or self.users else int(self.interruptible.seen or bool(self.failure))

    def answer(self, what: int, k: int, t: float, x: int) -> float:
        """The answer of a function of the user's; NaN where it failed."""
        try:
            if self._ask is not None and not self.failure:
                return self._users_own(self._ask, what, k, t, x)
        except BaseException as error:
            self.failure.append(error)
        return float("nan")

    def _users_own(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self.asking = True
        try:
            return function(*arguments)
        except Exception as error:
            self.users.append(error)
            raise
        finally:
            self.asking = False


class Border:
    """The functions that Julia calls, made once, for whichever solver runs.

    While active, it collects the exceptions that leave them outside of their ``try``: a signal handler of the user's
    that raises (a time limit by SIGALRM, sys.exit on SIGTERM) mostly runs at the first instruction of such a function.
    ctypes can only print such an exception, and returns an arbitrary number.
    """

    def __init__(self) -> None:
        self.solving: Solving | None = None
        self._functions = (self._relay, self._answer)
        self._made = (REPORT(self._functions[0]), ASK(self._functions[1]))
        self.pointers = tuple(ctypes.cast(made, ptr) for made in self._made)

    def _relay(self, phase: int, iteration: int, t: float, loss: float, gnorm: float, x: int | None) -> int:
        return 1 if self.solving is None else self.solving.report(phase, iteration, t, loss, gnorm, x)

    def _answer(self, what: int, k: int, t: float, x: int) -> float:
        return float("nan") if self.solving is None else self.solving.answer(what, k, t, x)

    def __enter__(self) -> None:
        self._before = sys.unraisablehook
        sys.unraisablehook = self._hook

    def __exit__(self, *exception: object) -> None:
        sys.unraisablehook = self._before
        self.solving = None

    def _hook(self, unraisable: Any) -> None:
        mine = any(unraisable.object is f or repr(f) in (unraisable.err_msg or "") for f in self._functions)
        if mine and unraisable.exc_value is not None and self.solving is not None:
            self.solving.failure.append(unraisable.exc_value)
        else:
            self._before(unraisable)
