"""Finite data against infinite data: the solutions approach each other like 1/N in squared distance.

Teacher: 8 softplus units; student: 3; 9 standard normal inputs, no biases (Brea et al., arXiv 2301.10638).
From one start the student is trained on the population loss, and on N samples for growing N, several data sets each.
Writes infinite_data.csv and infinite_data.png. --quick takes a minute, --full an hour.
"""

import itertools

import numpy as np
from common import arguments, claim, figure, write

import pymlpgf as mg

FEATURES, TEACHER, STUDENT = 9, 8, 3
# With fewer samples some students run off along a valley, where 1/N does not yet hold.
SIZES = {"toy": (1_000, 3_000, 10_000, 30_000), "quick": (1_000, 3_000, 10_000, 30_000, 100_000)}
SIZES["full"] = (*SIZES["quick"], 300_000, 1_000_000)
DATA_SETS = {"toy": 4, "quick": 8, "full": 20}


def layers(width):
    return [(width, "softplus", False), (1, "identity", False)]


def distance2(net, a, b):
    """Squared distance of two parameter vectors, up to the order of the hidden units."""
    (W, V), (S, T) = net.params(a).weights, net.params(b).weights
    orders = map(list, itertools.permutations(range(len(W))))
    return min(np.sum((W[o] - S) ** 2) + np.sum((V[:, o] - T) ** 2) for o in orders)


def run(mode, seed):
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
    table = np.array(rows)
    sizes = np.unique(table[:, 0])
    fig, axes = figure()
    ax = axes[0, 0]
    ax.loglog(table[:, 0], table[:, 2], "o", color="0.7", ms=4, label="one data set")
    ax.loglog(sizes, [table[table[:, 0] == N, 2].mean() for N in sizes], "o-", color="C0", label="mean")
    ax.loglog(sizes, np.exp(intercept) * sizes**exponent, "--", color="C3", label=f"fit: $N^{{{exponent:.2f}}}$")
    ax.set_xlabel("number of samples N")
    ax.set_ylabel(r"$\|\theta_N - \theta_\infty\|^2$")
    ax.legend(frameon=False)
    fig.savefig(path, dpi=150)


def main():
    options = arguments(__doc__).parse_args()
    rows, exponent, intercept = run(options.mode, options.seed)
    header = ["samples", "data_set", "squared_distance", "loss", "population_loss"]
    write(options.output / "infinite_data.csv", header, rows)
    draw(rows, exponent, intercept, options.output / "infinite_data.png")
    claim(f"the squared distance falls like N^{exponent:.2f}, so like 1/N", abs(exponent + 1) < 0.2)


if __name__ == "__main__":
    main()
