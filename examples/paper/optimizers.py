"""Which method ends lowest in equal time?

Students with 33 parameters (a teacher of 2 softplus units, a student of 8) and, with --full, 1153 (4 and 288 units),
several starts, the same seconds for each method: Adam, LBFGS, a stiff flow, Newton's methods, BFGS,
Levenberg-Marquardt, and SciPy's SLSQP and BFGS given our gradients (Brea et al., arXiv 2301.10638). Writes
optimizers.csv and optimizers.png.
"""

import contextlib
import time

import numpy as np
from common import arguments, claim, figure, student_of_teacher, write

import pymlpgf as mg

#: parameters -> (units of the teacher, of the student, samples, seconds, seeds)
PROBLEMS = {
    "toy": {33: (2, 8, 50, 0.3, 1)},
    "quick": {33: (2, 8, 1000, 3.0, 3)},
    "full": {33: (2, 8, 10_000, 30.0, 10), 1153: (4, 288, 1000, 60.0, 5)},
}
SOLVERS = ("NewtonTrustRegion", "Newton", "LevenbergMarquardt", "BFGS", "LBFGS")


def contenders():
    def minimize(solver):
        return lambda net, p, s: mg.minimize(net, p, optim_solver=solver, maxtime_optim=s, verbosity=0).x

    def adam(rate):
        return lambda net, p, s: mg.flow(net, p, alg=mg.Adam(learning_rate=rate), maxtime_ode=s, verbosity=0).x

    return {
        "Adam, 0.001": adam(1e-3),
        "Adam, 0.01": adam(1e-2),
        "stiff flow (Rodas5P)": lambda net, p, s: mg.flow(net, p, alg="Rodas5P", maxtime_ode=s, verbosity=0).x,
        **{solver: minimize(solver) for solver in SOLVERS},
        "SciPy SLSQP": lambda net, p, s: scipys(net, p, s, "SLSQP"),
        "SciPy BFGS": lambda net, p, s: scipys(net, p, s, "BFGS"),
    }


def scipys(net, p, seconds, method):
    """The lowest point that a method of SciPy's has seen when its time is over or it gives up."""
    from scipy.optimize import minimize

    best, end = [np.inf, np.array(p)], time.perf_counter() + seconds

    def evaluate(x):
        value, gradient = net.value_and_gradient(x)
        if value < best[0]:
            best[:] = value, x.copy()
        if time.perf_counter() > end:
            raise StopIteration
        return value, gradient

    options = {"maxiter": 10**9, **({"ftol": 1e-300} if method == "SLSQP" else {"gtol": 0})}
    with contextlib.suppress(StopIteration):
        minimize(evaluate, np.array(p), jac=True, method=method, options=options)
    return best[1]


def run(mode, seed):
    rows = []
    for parameters, (teacher, width, samples, seconds, seeds) in PROBLEMS[mode].items():
        for number in range(seed, seed + seeds):
            net, start = student_of_teacher(teacher, width, samples, number)
            for name, solve in contenders().items():
                if mode == "toy":
                    solve(net, start, 0.01)  # compilation is not the method's time
                begun = time.perf_counter()
                x = solve(net, start, seconds)
                taken = time.perf_counter() - begun
                rows.append((parameters, number, name, net.loss(x), np.abs(net.gradient(x)).max(), taken))
        print(f"{parameters} parameters, {seconds:g} s each: final loss, median of {seeds} starts")
        for name in contenders():
            print(f"  {name:24s} {median(rows, parameters, name):.1e}")
    return rows


def median(rows, parameters, name):
    return float(np.median([row[3] for row in rows if (row[0], row[2]) == (parameters, name)]))


def draw(rows, path):
    sizes = sorted({row[0] for row in rows})
    fig, axes = figure(len(sizes), width=6.2)
    names = list(contenders())
    for ax, size in zip(axes[0], sizes, strict=True):
        for at, name in enumerate(names):
            losses = [row[3] for row in rows if (row[0], row[2]) == (size, name)]
            shown = ("one start", "median") if at == 0 else (None, None)
            ax.semilogx(np.maximum(losses, 1e-40), [at] * len(losses), "o", color="C0", ms=5, label=shown[0])
            ax.semilogx(max(np.median(losses), 1e-40), at, "|", color="C3", ms=16, mew=2, label=shown[1])
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.set_xlabel("loss after equal time")
        ax.set_title(f"{size} parameters")
        ax.legend(frameon=False, fontsize="small")
    fig.savefig(path, dpi=110)


def main():
    options = arguments(__doc__).parse_args()
    rows = run(options.mode, options.seed)
    header = ["parameters", "seed", "method", "loss", "gradient_norm", "seconds"]
    write(options.output / "optimizers.csv", header, rows)
    draw(rows, options.output / "optimizers.png")
    for size in sorted({row[0] for row in rows}):
        second_order = max(median(rows, size, name) for name in ("NewtonTrustRegion", "BFGS"))
        adam = min(median(rows, size, name) for name in contenders() if name.startswith("Adam"))
        claim(f"{size} parameters: Newton's method and BFGS ({second_order:.0e} at most) end orders of magnitude below "
              f"Adam ({adam:.0e})", second_order < adam / 100)  # fmt: skip


if __name__ == "__main__":
    main()
