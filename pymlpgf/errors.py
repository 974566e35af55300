"""Exceptions of this package; every one of them says what was given or tried and what to do."""

from __future__ import annotations

__all__ = [
    "InputError",
    "JuliaError",
    "KeywordError",
    "MLPGFError",
    "ProvisioningError",
    "RuntimeUnavailable",
    "SettingError",
    "ThreadError",
]


class MLPGFError(Exception):
    """Base of every exception that this package raises on purpose."""

    #: where in Julia it came from: of every JuliaError, and of others too if PYMLPGF_DEBUG=1
    julia_traceback: str = ""


class SettingError(MLPGFError, ValueError):
    """A setting (argument, environment variable or line of the configuration file) cannot be used."""


class RuntimeUnavailable(MLPGFError):
    """No Julia can be started on this machine; the message lists what was tried."""


class ProvisioningError(RuntimeUnavailable):
    """The private Julia could not be installed; the message says what was tried and what to do."""

    #: what the command that failed has printed
    output: str = ""


class InputError(MLPGFError, ValueError):
    """An argument cannot be used; the message names it, what was given and what is allowed."""


class KeywordError(MLPGFError, TypeError):
    """A keyword that does not exist; the message names the nearest one that does."""


class JuliaError(MLPGFError, RuntimeError):
    """An exception inside Julia; the message is Julia's, and ``julia_traceback`` tells where it came from."""


class ThreadError(MLPGFError, RuntimeError):
    """A call from a thread, a forked process or a callback from which Julia cannot be entered."""
