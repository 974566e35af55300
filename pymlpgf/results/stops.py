"""Why a solver stopped."""

from __future__ import annotations

import enum

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
        return ADVICE[self.value]


ADVICE = {
    "min_gnorm": "The largest component of the gradient fell below min_gnorm: this is a fixed point at that accuracy.",
    "minloss": "The loss fell below minloss.",
    "roundoff": "Neither loss nor gradient can be lowered further in this number type: the run has converged to "
    "round-off.",
    "patience": "Next to no progress any more, though rounding allows it: continue with another solver or a larger "
    "patience.",
    "maxtime": "The time limit was reached: continue from the result, or allow more time.",
    "maxiterations": "The iteration limit was reached: continue from the result, or allow more iterations.",
    "maxT": "The flow was integrated up to maxT.",
    "interrupted": "Interrupted by the user: the best point so far is returned and can be continued.",
    "diverged": "The loss or a parameter is no longer finite, or the step size fell below the resolution of t: "
    "the best point so far is returned; try a smaller tolerance or other initial parameters.",
    "callback": "The callback asked to stop.",
    "event": "The event happened: the result is the point of the flow where it did.",
}
