"""Go on with a run that was cut off."""

from __future__ import annotations

import os
from typing import Any

from ..errors import InputError
from ..network.net import Net
from ..results.load import load
from ..results.result import TrainResult
from .checkpointer import Checkpointer
from .train import _solve

__all__ = ["resume"]


def resume(
    path: str | os.PathLike[str],
    net: Net | None = None,
    *,
    callback: Any = None,
    event: Any = None,
    schedule: Any = None,
    observables: Any = None,
    allow_code: bool = False,
    checkpoint_interval: float = 30,
    verbosity: int = 1,
    progress_interval: float = 1.0,
) -> TrainResult:
    """Go on with a run that wrote checkpoints to ``path``, from the last one, and go on writing them there.

    Parameters
    ----------
    path : path
        Of ``train``, ``flow`` or ``minimize`` with ``checkpoint=path``.
    net : Net, optional
        The file has the net with its data, which serves by default.
    callback, event, schedule, observables
        As for ``train``, and needed if the run had them, since functions are not saved; a ``schedule`` only if it was a
        function, which is then called with the number of the step from the beginning of the run.
    allow_code : bool
        Compile an activation, a loss or a rule that the file holds as Julia code; the net may be given instead, a rule
        not.
    checkpoint_interval, verbosity, progress_interval
        As for ``train``.

    Returns
    -------
    TrainResult
        Times, iterations and limits count from the beginning of the run; the trajectory and the dense solution begin at
        the checkpoint. If the run had finished, its result. What a solver had learnt of the landscape (step size, trust
        radius, momentum) is learnt anew.

    Raises
    ------
    InputError
        If there is no checkpoint, ``net`` is another one, or a function is missing.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> res = mg.train(net, p, checkpoint="run.npz")        # doctest: +SKIP
    >>> res = mg.resume("run.npz")                          # doctest: +SKIP
    """
    saved = load(path)
    if isinstance(saved, TrainResult):
        return saved
    if net is None:
        if not saved.net:
            raise InputError(f"{os.fspath(path)} holds no net: give it as net")
        net = saved.make_net(allow_code)
    elif net.layers != saved.layers or net.n_params != len(saved.x):
        raise InputError(f"net has the layers {net.layers}; the run of {os.fspath(path)} had {saved.layers}")
    elif (
        saved.net
        and isinstance(net, Net)
        and (
            net._core.settings["loss"] != saved.net["loss"]
            or net._core.fingerprint() != saved.make_net(allow_code=True)._core.fingerprint()
        )
    ):  # with the very layers and loss of the net that was given: no other code
        raise InputError(f"net has other data, loss or regularisers than the run of {os.fspath(path)}")
    if "rule" in saved.options and not allow_code:
        raise InputError(
            f"{os.fspath(path)} holds Julia code as a rule, {saved.options['rule']!r}: allow_code=True if you trust it"
        )
    functions = {"event": event, "schedule": schedule, "observables": observables}
    given = {**functions, "callback": callback}
    missing = [name for name in saved.functions if given[name] is None]
    if missing:
        raise InputError(f"the run of {os.fspath(path)} had {' and '.join(missing)}: give the same again")
    options = {**saved.options, "memory": [saved.iterations["flow"]]}
    for name, spent in (
        ("maxtime_ode", saved.seconds["flow"]),
        ("maxiterations_ode", saved.iterations["flow"]),
        ("maxT", saved.t),
        ("maxtime_optim", saved.seconds["minimize"]),
        ("maxiterations_optim", saved.iterations["minimize"]),
    ):
        if name in options:
            options[name] = max(0.0, options[name] - spent)
    what = saved.what if saved.phase == "flow" else "minimize"
    tauinv = saved.tauinv if saved.tauinv is not None else options.pop("tauinv", 1)
    writer = Checkpointer(path, checkpoint_interval, net, what, saved.x, options, tauinv, before=saved)
    return _solve(
        what, net, saved.x, options, tauinv, verbosity, progress_interval, writer, callback=callback,
        **(functions if saved.phase == "flow" else {}),
    )  # fmt: skip
