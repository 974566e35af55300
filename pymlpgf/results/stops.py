"""Why a solver stopped."""

from __future__ import annotations

import enum

from ..facts import STOPS

__all__ = ["Stop"]


class Stop(str, enum.Enum):
    """The reasons to stop. Each is the string that results hold, and its ``advice`` says what to do about it.

    Examples
    --------
    >>> from pymlpgf import Stop
    >>> Stop.maxtime == "maxtime", Stop("maxtime").advice
    (True, 'The time limit was reached: continue from the result, or allow more time.')
    """

    min_gnorm = "min_gnorm"
    minloss = "minloss"
    roundoff = "roundoff"
    maxT = "maxT"
    maxtime = "maxtime"
    maxiterations = "maxiterations"
    patience = "patience"
    callback = "callback"
    interrupted = "interrupted"
    diverged = "diverged"
    event = "event"

    @property
    def advice(self) -> str:
        """One sentence: what the reason means and what can be done next."""
        return STOPS[self.value]
