"""Finite data against infinite data: the solutions approach each other like 1/N in squared distance.

Teacher: 8 softplus units; student: 3; 9 standard normal inputs, no biases (Brea et al., arXiv 2301.10638).
From one start the student is trained on the population loss, and on N samples for growing N, several data sets each.
Writes infinite_data.csv and infinite_data.png. Minutes on two cores; --quick takes seconds, --full an hour.
"""

import argparse
import csv
import itertools
from pathlib import Path

import numpy as np

import pymlpgf as mg

FEATURES, TEACHER, STUDENT = 9, 8, 3
# With fewer samples some students run off along a valley, where 1/N does not yet hold.
SIZES = {"quick": (1_000, 3_000, 10_000, 30_000), "default": (1_000, 3_000, 10_000, 30_000, 100_000)}
SIZES["full"] = (*SIZES["default"], 300_000, 1_000_000)
DATA_SETS = {"quick": 4, "default": 8, "full": 20}


def layers(width):
    return [(width, "softplus", False), (1, "identity", False)]


def distance2(net, a, b):
    """Squared distance of two parameter vectors, up to the order of the hidden units."""
    (W, V), (S, T) = net.params(a).weights, net.params(b).weights
    orders = map(list, itertools.permutations(range(len(W))))
    return min(np.sum((W[o] - S) ** 2) + np.sum((V[:, o] - T) ** 2) for o in orders)


def run(mode="default", seed=0):
    """Rows (N, data set, squared distance, loss on the data, population loss), and the exponent of N."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(TEACHER, FEATURES))
    teacher = mg.TeacherNet(layers(TEACHER), [*W.ravel(), *rng.normal(size=TEACHER)], FEATURES)
    infinite = mg.InfiniteNet(teacher, layers(STUDENT))
    start = infinite.random_params(seed=seed)
    options = {"maxT": 1e3, "maxtime_ode": 60, "maxtime_optim": 60, "verbosity": 0}
    limit = mg.train(infinite, start, **options)
    print(f"infinite data: loss {limit.loss:.6e}, |gradient| {limit.gnorm:.1e}")
    rows = []
    for N in SIZES[mode]:
        for number in range(DATA_SETS[mode]):
            result = mg.train(infinite.on(rng.normal(size=(N, FEATURES))), start, **options)
            apart = distance2(infinite, result.x, limit.x)
            rows.append((N, number, apart, result.loss, infinite.loss(result.x)))
        print(f"N = {N:7d}: mean squared distance {np.mean([r[2] for r in rows if r[0] == N]):.3e}")
    means = [np.mean([row[2] for row in rows if row[0] == N]) for N in SIZES[mode]]
    exponent, intercept = np.polyfit(np.log(SIZES[mode]), np.log(means), 1)
    return rows, exponent, intercept


def draw(rows, exponent, intercept, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    table = np.array(rows)
    sizes = np.unique(table[:, 0])
    figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    axes.loglog(table[:, 0], table[:, 2], "o", color="0.7", ms=4, label="one data set")
    axes.loglog(sizes, [table[table[:, 0] == N, 2].mean() for N in sizes], "o-", color="C0", label="mean")
    axes.loglog(sizes, np.exp(intercept) * sizes**exponent, "--", color="C3", label=f"fit: $N^{{{exponent:.2f}}}$")
    axes.set_xlabel("number of samples N")
    axes.set_ylabel(r"$\|\theta_N - \theta_\infty\|^2$")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_const", const="quick", dest="mode")
    mode.add_argument("--full", action="store_const", const="full", dest="mode")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path())
    arguments = parser.parse_args()
    rows, exponent, intercept = run(arguments.mode or "default", arguments.seed)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with open(arguments.output / "infinite_data.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["samples", "data_set", "squared_distance", "loss", "population_loss"])
        writer.writerows(rows)
    draw(rows, exponent, intercept, arguments.output / "infinite_data.png")
    print(f"squared distance ~ N^{exponent:.3f}")


if __name__ == "__main__":
    main()
