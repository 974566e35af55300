"""One process of the benchmark: every contender in turn, round after round, and the shortest time of each.

Its argument is JSON, its output a JSON object a line: a row of the table, or a note.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from .cases import Case, cases
from .contenders import Call, Form, Ours, Prepared, agree, available

QUANTITIES = ("gradient", "hvp", "hessian")


def main(settings: dict[str, Any]) -> None:
    """Print a row for each case, number type and quantity that is not among those done."""
    if settings["cores"]:
        os.sched_setaffinity(0, settings["cores"])
    quick, threads = settings["quick"], settings["threads"]
    done = {tuple(key) for key in settings["done"]}
    found = available(settings["peer"], not quick, _note) if threads == 1 else [Ours(time.perf_counter)]
    for dtype in ("float64", "float32") if threads == 1 else ("float64",):
        for case in cases(quick, threads):
            wanted = [q for q in QUANTITIES if (case.name, dtype, q) not in done and (q != "hessian" or case.hessian)]
            if quick and case.tangents > 50_000_000:  # automatic Hessians that take seconds
                wanted = [quantity for quantity in wanted if quantity != "hessian"]
            if quick and dtype == "float32":
                wanted = wanted[:1] if case.samples == 10_000 else []
            if not wanted:
                continue
            forms: Prepared = {}
            for contender in found:
                forms |= contender.prepare(case, dtype)
            for quantity in wanted:
                _row(case, dtype, quantity, {n: form for (n, q), form in forms.items() if q == quantity}, settings)


def _row(case: Case, dtype: str, quantity: str, forms: dict[str, Form | str], settings: dict[str, Any]) -> None:
    usable = {name: form for name, form in forms.items() if isinstance(form, Form)}
    agree(case, dtype, quantity, usable)
    seconds = shortest({name: form.call for name, form in usable.items()}, settings["quick"])
    row = {
        "threads": settings["threads"], "case": case.name, "k": case.layers[0][0], "N": case.samples,
        "P": case.n_params, "dtype": dtype, "quantity": quantity, "grid": case.grid, "wide": case.wide,
        "seconds": seconds,
        "left_out": {name: form for name, form in forms.items() if isinstance(form, str)},
    }  # fmt: skip
    print(json.dumps(row), flush=True)


def shortest(calls: dict[str, Call], quick: bool) -> dict[str, float]:
    """Seconds of one call: the least of several rounds, in which the contenders take turns."""
    repeats, best = {}, {}
    for name, call in calls.items():
        call(1)  # compile
        best[name] = call(1)
        repeats[name] = max(1, int(0.01 / max(best[name], 1e-7)))
    spent = dict(best)
    for _ in range(5 if quick else 12):
        for name, call in calls.items():
            if spent[name] < (0.2 if quick else 1.0):
                begin = time.perf_counter()
                best[name] = min(best[name], call(repeats[name]) / repeats[name])
                spent[name] += time.perf_counter() - begin
    return best


def _note(text: str) -> None:
    print(json.dumps({"note": text}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
