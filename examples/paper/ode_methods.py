"""How closely do methods follow the gradient flow, and at what price?

Students with 33 and 601 parameters (2 inputs, 8 or 150 softplus units, a teacher of 4) from one start. The reference is
Rodas5P at tolerances of 1e-12; the others run at 1e-6, discrete methods at fixed learning rates. For each point of a
trajectory its distance to the reference path and the flow time where that is nearest (Brea et al., arXiv 2301.10638).
Writes ode_methods.csv and ode_methods.png.
"""

import numpy as np
from common import arguments, claim, figure, student_of_teacher, write

import pymlpgf as mg

#: parameters -> (hidden units, samples, end of the flow)
SIZES = {
    "toy": {33: (8, 100, 3.0)},
    "quick": {33: (8, 1000, 1000.0), 601: (150, 300, 30.0)},
    "full": {33: (8, 10_000, 10_000.0), 601: (150, 1000, 300.0)},
}
STEPS = {"toy": 3_000, "quick": 200_000, "full": 1_000_000}
FLOWS = ("Rodas5P", "TRBDF2", "QNDF", "RK4", "Tsit5")
SCIML = ("KenCarp58", "CVODE_BDF")
DISCRETE = {
    "gradient descent, 0.01": mg.GradientDescent(learning_rate=0.01),
    "Adam, 0.001": mg.Adam(learning_rate=1e-3),
    "Adam, 0.01": mg.Adam(learning_rate=1e-2),
}


def run(mode, seed):
    rows = []
    for parameters, (width, samples, end) in SIZES[mode].items():
        net, start = student_of_teacher(4, width, samples, seed)
        reference = mg.flow(net, start, alg="Rodas5P", maxT=end, abstol=1e-12, reltol=1e-12, dense=True, verbosity=0)
        print(f"{net.n_params} parameters: the flow to t = {end:g} takes the loss to {reference.loss:.2e}")
        methods = {name: {"alg": name, "maxT": end, "abstol": 1e-6, "reltol": 1e-6} for name in FLOWS}
        if mg.runtime_info()["host"] == "juliacall":
            methods |= {name: {**methods["Rodas5P"], "alg": name} for name in SCIML}
        for name, method in DISCRETE.items():
            steps = end / method.learning_rate if name.startswith("gradient") else np.inf
            methods[name] = {"alg": method, "maxiterations_ode": min(STEPS[mode], steps), "minloss": reference.loss}
        for name, options in methods.items():
            result = mg.flow(net, start, n_samples_trajectory=200, maxtime_ode=60, verbosity=0, **options)
            strayed = mg.trajectory_distance(result, reference)
            seconds = result.ode_time_run
            for t, distance, loss in zip(strayed.t, strayed.distance, result.trajectory.loss, strict=True):
                rows.append((parameters, name, t, distance, loss, seconds))
            print(f"  {name:24s} {result.ode_iterations:7d} steps  {seconds:7.3f} s  "
                  f"reaches t = {strayed.t[-1]:8.2f}, strays at most {strayed.distance.max():.1e}")  # fmt: skip
    return rows


def strays(rows, parameters, name):
    return max(row[3] for row in rows if row[:2] == (parameters, name))


def draw(rows, path):
    sizes = sorted({row[0] for row in rows})
    fig, axes = figure(len(sizes), height=4.2)
    for ax, size in zip(axes[0], sizes, strict=True):
        for number, name in enumerate(dict.fromkeys(row[1] for row in rows if row[0] == size)):
            t, distance = np.array([row[2:4] for row in rows if row[:2] == (size, name)]).T
            seen = (t > 0) & (distance > 0)
            style = "--" if name in DISCRETE else "-"
            ax.loglog(t[seen], distance[seen], style, color=f"C{number}", label=name)
        ax.set_xlabel("flow time t that is nearest")
        ax.set_ylabel("distance to the flow")
        ax.set_title(f"{size} parameters")
    axes[0][-1].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    fig.savefig(path, dpi=110)


def main():
    options = arguments(__doc__).parse_args()
    rows = run(options.mode, options.seed)
    header = ["parameters", "method", "flow_time", "distance", "loss", "seconds"]
    write(options.output / "ode_methods.csv", header, rows)
    draw(rows, options.output / "ode_methods.png")
    for size in sorted({row[0] for row in rows}):
        flows = max(strays(rows, size, name) for name in FLOWS)
        adam = min(strays(rows, size, name) for name in DISCRETE if name.startswith("Adam"))
        claim(f"{size} parameters: every adaptive method ({flows:.0e} at most) stays closer to the flow than Adam "
              f"({adam:.0e} at least) by orders of magnitude", flows < adam / 100)  # fmt: skip


if __name__ == "__main__":
    main()
