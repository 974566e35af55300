"""One process of the benchmark: every contender in turn, round after round, and the shortest time of each.

Its argument is JSON, its output a JSON object a line: a row of the table, or a note.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from .cases import Call, Case, cases


def main(settings: dict[str, Any]) -> None:
    """Print a row for each case and quantity."""
    if settings["cores"]:
        os.sched_setaffinity(0, settings["cores"])
    from . import contenders

    available = contenders.available(settings["threads"], settings["peer"], _note)
    for case in cases(settings["quick"], settings["threads"]):
        prepared = {contender.name: contender.prepare(case) for contender in available}
        for quantity in ("gradient", "hvp", "hessian"):
            calls = {name: calls[quantity] for name, calls in prepared.items() if quantity in calls}
            if (quantity == "hessian" and not case.hessian) or "pymlpgf" not in calls:
                continue
            contenders.agree(case, quantity, {name: prepared[name] for name in calls})
            _row(case, quantity, settings, "float64", shortest(calls, settings["quick"]))
        if case.samples == 10_000 or not case.grid:
            single = contenders.Ours("float32").prepare(case)["gradient"]
            _row(case, "gradient", settings, "float32", shortest({"pymlpgf": single}, settings["quick"]))


def shortest(calls: dict[str, Call], quick: bool) -> dict[str, float]:
    """Seconds of one call: the least of several rounds, in which the contenders take turns."""
    repeats, best = {}, {}
    for name, call in calls.items():
        call(1)  # compile
        best[name] = call(1)
        repeats[name] = max(1, int(0.01 / max(best[name], 1e-7)))
    spent = dict.fromkeys(calls, 0.0)
    for _ in range(5 if quick else 15):
        for name, call in calls.items():
            if spent[name] < (0.5 if quick else 3.0):
                begin = time.perf_counter()
                best[name] = min(best[name], call(repeats[name]) / repeats[name])
                spent[name] += time.perf_counter() - begin
    return best


def _row(case: Case, quantity: str, settings: dict[str, Any], dtype: str, seconds: dict[str, float]) -> None:
    fan_ins = [case.features, *(width for width, _, _ in case.layers)]
    P = sum(width * (fan_in + bias) for fan_in, (width, _, bias) in zip(fan_ins, case.layers, strict=False))
    print(
        json.dumps({
            "threads": settings["threads"], "case": case.name, "k": case.layers[0][0], "N": case.samples, "P": P,
            "dtype": dtype, "quantity": quantity, "grid": case.grid, "seconds": seconds,
        }),
        flush=True,
    )  # fmt: skip


def _note(text: str) -> None:
    print(json.dumps({"note": text}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
