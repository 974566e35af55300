"""Keep Python's signals Python's: Julia blocks and takes over several when it starts.

After ``jl_init`` the starting thread has SIGINT, SIGTERM, SIGQUIT, SIGABRT and SIGUSR1 blocked, and a Ctrl-C that
reaches Julia's own handler inside compiled code ends the process. Julia needs only SIGSEGV, SIGBUS, SIGFPE,
SIGILL and SIGUSR2; the rest is handed back.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["Interruptible", "SegvKeeper", "preserved"]

PYTHONS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGABRT", "SIGUSR1", "SIGPIPE", "SIGCHLD", "SIGALRM")
    if hasattr(signal, name)
]
STRUCT_SIGACTION = 256  # more than any libc's struct sigaction


def _sigaction(number: int, new: Any, old: Any) -> None:
    ctypes.CDLL(None).sigaction(ctypes.c_int(number), new, old)


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Run the body (which starts Julia), then restore this thread's signal mask and Python's own handlers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    saved = {number: ctypes.create_string_buffer(STRUCT_SIGACTION) for number in PYTHONS}
    for number, action in saved.items():
        _sigaction(number, None, action)
    try:
        yield
    finally:
        for number, action in saved.items():
            _sigaction(number, action, None)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class SegvKeeper:
    """Keeps Julia's SIGSEGV handler in place when faulthandler is switched on or off later.

    With several threads Julia stops them for garbage collection by a page fault; without its handler that ends
    the process. pytest, for one, enables faulthandler.
    """

    def __init__(self) -> None:
        self._action = ctypes.create_string_buffer(STRUCT_SIGACTION)
        self._enabled = faulthandler.is_enabled()
        _sigaction(signal.SIGSEGV, None, self._action)

    def check(self) -> None:
        enabled = faulthandler.is_enabled()
        if enabled != self._enabled:
            _sigaction(signal.SIGSEGV, self._action, None)
            self._enabled = enabled


class Interruptible:
    """While active, Ctrl-C only sets ``interrupted``; a running solver sees it at its next poll.

    Handlers can be set in the main thread alone; elsewhere this does nothing and Ctrl-C goes to the main thread.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._before: Any = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if before is not None and before is not signal.SIG_IGN:
                self._before = before
                signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
