"""Keep Python's signals Python's: Julia blocks and takes over several when it starts.

After ``jl_init`` the starting thread has SIGINT, SIGTERM, SIGQUIT, SIGABRT and SIGUSR1 blocked, and a Ctrl-C that
reaches Julia's own handler inside compiled code ends the process. Julia keeps what it needs, SIGSEGV, SIGBUS,
SIGFPE and SIGILL; the rest is handed back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["Interruptible", "SegvKeeper", "preserved"]

JULIAS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL")
UNCHANGEABLE = ("SIGKILL", "SIGSTOP")
STRUCT_SIGACTION = 256  # more than any libc's struct sigaction


def _sigaction(number: int, new: Any, old: Any) -> None:
    ctypes.CDLL(None).sigaction(ctypes.c_int(number), new, old)


def _pythons() -> list[int]:
    """The signals that stay Python's."""
    julias = {getattr(signal, name) for name in (*JULIAS, *UNCHANGEABLE)}
    # Julia's profiler interrupts threads by SIGUSR2; a handler that the user has set goes before it.
    if signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL:
        julias.add(signal.SIGUSR2)
    return [number for number in signal.valid_signals() if number not in julias]


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Run the body (which starts Julia), then restore this thread's signal mask and Python's own handlers."""
    if os.name != "posix":
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    saved = {number: ctypes.create_string_buffer(STRUCT_SIGACTION) for number in _pythons()}
    for number, action in saved.items():
        _sigaction(number, None, action)
    try:
        yield
    finally:
        for number, action in saved.items():
            _sigaction(number, action, None)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class SegvKeeper:
    """Keeps Julia's SIGSEGV handler in place when faulthandler is switched on or off after Julia has started.

    With several threads Julia stops them for garbage collection by a page fault; without its handler that ends
    the process. pytest, for one, enables faulthandler. Whether it is enabled tells nothing: switched off and on
    again, it has replaced the handler twice. So the handler itself is looked at, which takes half a microsecond.
    """

    def __init__(self) -> None:
        self._call = ctypes.PyDLL(None).sigaction
        self._number = ctypes.c_int(signal.SIGSEGV)
        # In every struct sigaction the handler comes first.
        self._julias, self._now = ((ctypes.c_void_p * (STRUCT_SIGACTION // 8))() for _ in range(2))
        self._call(self._number, None, self._julias)
        self._handler = self._julias[0]

    def check(self) -> None:
        self._call(self._number, None, self._now)
        if self._now[0] != self._handler:
            self._call(self._number, self._julias, None)


class Interruptible:
    """While active, Ctrl-C only sets ``interrupted``; a running solver sees it at its next poll.

    A Ctrl-C that no poll has seen (``seen`` was not set: the solver ended by itself in the meantime) is
    delivered at the end, or a loop of short solves could not be left. Handlers can be set in the main thread
    alone; elsewhere this does nothing and Ctrl-C goes to the main thread. A program that has chosen to ignore
    Ctrl-C, or to be ended by it, gets what it has chosen.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self.seen = False
        self._before: Any = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if callable(before):
                self._before = before
                signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            if self.interrupted and not self.seen:
                signal.raise_signal(signal.SIGINT)
