"""What kind of points do training runs end at?

Students of 5 softplus units on the data of a teacher with 5, from many seeds: loss, gradient norm, smallest eigenvalue
of the exact Hessian, and the class that ``classify`` gives the point (Brea et al., arXiv 2301.10638). Writes
fixed_points.csv and fixed_points.png.
"""

from collections import Counter

import numpy as np
from common import arguments, claim, figure, student_of_teacher, write

import pymlpgf as mg

SEEDS = {"toy": 3, "quick": 30, "full": 200}
KINDS = ("minimum", "degenerate", "saddle", "escaping", "not a fixed point")


def run(mode, seed):
    net, _ = student_of_teacher(5, 5, 50 if mode == "toy" else 1000, seed)
    seconds = 0.5 if mode == "toy" else 5
    rows = []
    for number in range(SEEDS[mode]):
        p = net.random_params(seed=number)
        result = mg.train(net, p, maxT=1e3, maxtime_ode=seconds, maxtime_optim=seconds, verbosity=0)
        point = mg.classify(net, result.x)
        lowest, largest = point.eigenvalues[[0, -1]]
        rows.append((number, result.loss, result.gnorm, lowest, largest, point.kind, point.index, point.nullity))
    return rows


def draw(rows, path):
    fig, axes = figure(2)
    for ax, column, label in ((axes[0][0], 3, "smallest eigenvalue of the Hessian"), (axes[0][1], 2, "gradient norm")):
        for number, kind in enumerate(KINDS):
            mine = [row for row in rows if row[5] == kind]
            if mine:
                values = np.abs([row[column] for row in mine]) if column == 2 else [row[column] for row in mine]
                losses = np.maximum([row[1] for row in mine], 1e-34)
                ax.plot(losses, values, "o", color=f"C{number}", alpha=0.7, label=f"{kind} ({len(mine)})")
        ax.set_xscale("log")
        if column == 2:
            ax.set_yscale("log")
        else:
            ax.set_yscale("symlog", linthresh=1e-12)
            largest = max(abs(row[column]) for row in rows)
            ax.set_ylim(-10 * largest, 10 * largest)
            ax.set_yticks([sign * 10.0**power for sign in (-1, 1) for power in range(-12, 0, 3)] + [0])
        ax.set_xlabel("loss")
        ax.set_ylabel(label)
    axes[0][1].legend(frameon=False, fontsize="small")
    fig.savefig(path, dpi=110)


def main():
    options = arguments(__doc__).parse_args()
    rows = run(options.mode, options.seed)
    header = ["seed", "loss", "gradient_norm", "smallest_eigenvalue", "largest_eigenvalue", "kind", "index", "nullity"]
    write(options.output / "fixed_points.csv", header, rows)
    draw(rows, options.output / "fixed_points.png")
    kinds = Counter(row[5] for row in rows)
    print(", ".join(f"{kind}: {kinds[kind]}" for kind in KINDS if kinds[kind]))
    reached = sum(row[2] < 1e-12 for row in rows)
    claim(f"runs end at fixed points to machine precision: {reached} of {len(rows)} with a gradient below 1e-12",
          reached >= 0.9 * len(rows))  # fmt: skip
    curved = sum(row[3] > -1e-9 * row[4] for row in rows)
    claim(f"none of them is a saddle: {curved} of {len(rows)} have no negative curvature beyond round-off",
          curved == len(rows))  # fmt: skip


if __name__ == "__main__":
    main()
