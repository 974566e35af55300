"""`make soak`: ten thousand trains of small random problems in one process; memory and speed must not change."""

from __future__ import annotations

import sys
import time

import numpy as np

import pymlpgf as mg


def resident() -> float:
    """Resident memory in MB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def main(trains: int = 10_000) -> int:
    rng = np.random.default_rng(0)
    marks, begun = {}, time.perf_counter()
    activations = ("tanh", "softplus", "relu", "sigmoid2")
    for number in range(1, trains + 1):
        X = rng.normal(size=(int(rng.integers(1, 60)), int(rng.integers(1, 4))))
        width, name = int(rng.integers(1, 5)), activations[number % len(activations)]
        net = mg.Net(layers=[(width, name, bool(number % 2)), (1, "identity", True)], input=X, target=np.sin(X[:, 0]))
        p = net.random_params(seed=number)
        mg.train(net, p, maxiterations_ode=30, maxiterations_optim=30, maxtime_ode=1, maxtime_optim=1, verbosity=0)
        if number % (trains // 10) == 0:
            now = time.perf_counter()
            marks[number] = (resident(), now - begun)
            print(
                f"{number:6d} trains: {marks[number][0]:.0f} MB, {1e3 * marks[number][1] / (trains // 10):.2f} ms each"
            )
            begun = now
    (first, early), (last, late) = marks[trains // 10], marks[trains]
    print(f"memory {last / first - 1:+.1%}, time {late / early - 1:+.1%}")
    return int(last > 1.05 * first or late > 1.5 * early)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
