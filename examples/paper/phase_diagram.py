"""When does a student of erf units find its teacher?

Teachers of k and students of r hidden units erf(x/sqrt(2)) without biases on infinitely many normal inputs (5
features), several starts each: the fraction of starts whose population loss ends at zero (Brea et al., arXiv
2301.10638). Writes phase_diagram.csv and phase_diagram.png.
"""

import numpy as np
from common import arguments, claim, figure, write

import pymlpgf as mg

FEATURES, ZERO = 5, 1e-12
#: widths of teachers, widths of students, starts, seconds for each run
GRID = {
    "toy": ((1, 2), (1, 2), 2, 1.0),
    "quick": ((1, 2, 3, 4), (1, 2, 3, 4, 5, 6), 5, 2.0),
    "full": (tuple(range(1, 9)), tuple(range(1, 13)), 20, 20.0),
}


def layers(width):
    return [(width, "sigmoid2", False), (1, "identity", False)]


def run(mode, seed):
    teachers, students, starts, seconds = GRID[mode]
    rows = []
    for k in teachers:
        rng = np.random.default_rng(seed + k)
        teacher = mg.TeacherNet(layers(k), [*rng.normal(size=k * FEATURES), *np.ones(k)], FEATURES)
        for r in students:
            net = mg.InfiniteNet(teacher, layers(r))
            for number in range(starts):
                p = net.random_params(seed=number)
                result = mg.train(net, p, maxtime_ode=seconds, maxtime_optim=seconds, minloss=1e-20, verbosity=0)
                rows.append((k, r, number, result.loss, result.gnorm))
        print(f"teacher of {k}: " + "  ".join(f"{r}: {fraction(rows, k, r):.2f}" for r in students))
    return rows


def fraction(rows, k, r):
    return float(np.mean([row[3] < ZERO for row in rows if row[:2] == (k, r)]))


def draw(rows, path):
    teachers, students = (sorted({row[i] for row in rows}) for i in (0, 1))
    table = [[fraction(rows, k, r) for r in students] for k in teachers]
    fig, axes = figure(width=6)
    ax = axes[0][0]
    image = ax.imshow(table, origin="lower", vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for i, line in enumerate(table):
        for j, value in enumerate(line):
            ax.text(j, i, f"{value:.1f}", ha="center", va="center", color="w" if value < 0.6 else "k")
    ax.set_xticks(range(len(students)), students)
    ax.set_yticks(range(len(teachers)), teachers)
    ax.set_xlabel("hidden units of the student")
    ax.set_ylabel("hidden units of the teacher")
    fig.colorbar(image, label="fraction of starts that reach zero loss")
    fig.savefig(path, dpi=110)


def main():
    options = arguments(__doc__).parse_args()
    rows = run(options.mode, options.seed)
    write(options.output / "phase_diagram.csv", ["teacher", "student", "start", "loss", "gradient_norm"], rows)
    draw(rows, options.output / "phase_diagram.png")
    narrow = [fraction(rows, k, r) for k, r in sorted({row[:2] for row in rows}) if r < k]
    wide = [fraction(rows, k, r) for k, r in sorted({row[:2] for row in rows}) if r > k]
    claim("a student narrower than its teacher never reaches zero", not any(narrow))
    if wide:
        claim(f"wider students mostly do (mean fraction {np.mean(wide):.2f})", np.mean(wide) > 0.5)


if __name__ == "__main__":
    main()
