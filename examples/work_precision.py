"""Work against precision of flow solvers: ours, SciPy's on our compiled callbacks, diffrax where it is installed.

The flow of the 33-parameter student (2 inputs, 8 softplus units, biases; teacher of 4 units) to t = 100, for several
numbers of samples. Writes a table (CSV) and a figure (PNG) into a folder and prints, for each N, how much faster our
best method reaches the same distance from a tight reference. Times are CPU times of one thread, the least of several
rounds in which all take turns.

    OPENBLAS_NUM_THREADS=1 python examples/work_precision.py results --quick
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import time
from functools import partial
from pathlib import Path

import numpy as np
from scipy.integrate import solve_ivp

import pymlpgf as mg

T = 100.0
PATIENCE = 3.0
UNITS = 8
OURS = ("auto", "Tsit5", "Rodas5P", "TRBDF2", "QNDF", "Exprb53s3", "ExpAdams")
SCIPY = ("LSODA", "BDF", "Radau", "DOP853")
DIFFRAX = ("Tsit5", "Kvaerno5")


def problem(N):
    """The student's net, a start and the data; deterministic."""
    rng = np.random.default_rng(N)
    X = rng.normal(size=(N, 2))
    teacher = mg.Net(layers=[(4, "softplus", True), (1, "identity", True)], input=X, target=np.zeros(N))
    y = teacher(np.random.default_rng(7).normal(size=teacher.n_params))
    net = mg.Net(layers=[(UNITS, "softplus", True), (1, "identity", True)], input=X, target=y)
    return net, net.random_params(seed=3).flat.copy(), X, y


def cpu_seconds(run):
    """The CPU time of a run, and what it returns."""
    begin = time.process_time()
    answer = run()
    return time.process_time() - begin, answer


def ours(net, p, alg, tol):
    return lambda: mg.flow(net, p, alg=alg, maxT=T, abstol=tol, reltol=tol, n_samples_trajectory=2).x


def scipy_solver(net, p, method, tol):
    g, H = np.empty(net.n_params), np.empty((net.n_params, net.n_params))
    options = {"jac": lambda t, x: -net.hessian(x, out=H)} if method in ("LSODA", "BDF", "Radau") else {}

    def f(t, x):
        return -net.gradient(x, out=g)

    return lambda: solve_ivp(f, (0, T), p, method=method, rtol=tol, atol=tol, t_eval=[T], **options).y[:, -1]


def diffrax_solver(p, X, y, method, tol):
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    X, y, D, k = jnp.asarray(X), jnp.asarray(y).ravel(), X.shape[1], UNITS

    def loss(q):
        W, b, v, c = q[: D * k].reshape(k, D), q[D * k : D * k + k], q[D * k + k : D * k + 2 * k], q[-1]
        return jnp.mean((jax.nn.softplus(X @ W.T + b) @ v + c - y) ** 2)

    gradient = jax.grad(loss)

    @jax.jit
    def run(q):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, x, _: -gradient(x)), getattr(diffrax, method)(), 0.0, T, None, q,
            stepsize_controller=diffrax.PIDController(rtol=tol, atol=tol), max_steps=1_000_000,
            saveat=diffrax.SaveAt(t1=True),
        ).ys[0]  # fmt: skip

    return lambda: np.asarray(run(p).block_until_ready())


def measure(Ns, tolerances, rounds):
    """Rows (N, solver, tolerance, seconds, distance).

    The clock of a processor varies by more than solvers differ, so that all take turns: in each round every solver runs
    once at every tolerance. The seconds are the least of the rounds.
    """
    rows = []
    for N in Ns:
        net, p, X, y = problem(N)
        reference = scipy_solver(net, p, "Radau", 1e-12)()
        solvers = [("pymlpgf", name, partial(ours, net, p, name)) for name in OURS]
        solvers += [("scipy", name, partial(scipy_solver, net, p, name)) for name in SCIPY]
        if importlib.util.find_spec("diffrax"):
            solvers += [("diffrax", name, partial(diffrax_solver, p, X, y, name)) for name in DIFFRAX]
        runs, found = [], []
        for package, name, make in solvers:
            for tol in tolerances:
                run = make(tol)
                run()  # compiles
                seconds, x = cpu_seconds(run)
                distance = float(np.linalg.norm(x - reference) / np.linalg.norm(reference))
                runs.append(run)
                found.append([N, f"{package} {name}", tol, seconds, distance])
                if seconds > PATIENCE:
                    break  # tighter tolerances take longer still
        for _ in range(rounds - 1):
            for run, row in zip(runs, found, strict=True):
                row[3] = min(row[3], cpu_seconds(run)[0])
        for _, name, tol, seconds, distance in found:
            print(f"N = {N:6d}  {name:18s} tol = {tol:.0e}  {seconds:9.5f} s  distance {distance:.1e}", flush=True)
        rows += found
    return rows


def seconds_at(rows, N, solver, distance):
    """Time for that distance, between measured points on logarithmic axes; infinite outside them."""
    # Points that another beats in both would make the curve run backwards.
    points = sorted((d, s) for n, name, _, s, d in rows if n == N and name == solver)
    best, front = np.inf, []
    for d, s in points:
        if s < best:
            best = s
            front.append((d, s))
    if not front or distance < front[0][0]:
        return np.inf
    d, s = np.log(np.array(front)).T
    return float(np.exp(np.interp(np.log(distance), d, s)))


def ratios(rows, N):
    """How many times as long every solver takes as our best and as our "auto", for each distance."""
    solvers = sorted({name for n, name, *_ in rows if n == N})
    for distance in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8):
        times = {name: seconds_at(rows, N, name, distance) for name in solvers}
        mine = min((t, name) for name, t in times.items() if name.startswith("pymlpgf"))
        others = "  ".join(f"{name.split()[1]} {t / mine[0]:.1f}" for name, t in times.items() if "pymlpgf" not in name)
        mark = f"{mine[1]} {mine[0]:.5f} s, auto {times['pymlpgf auto'] / mine[0]:.1f}"
        print(f"N = {N:6d} at {distance:.0e}: {mark}; {others}")


def draw(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    Ns = sorted({row[0] for row in rows})
    figure, axes = plt.subplots(1, len(Ns), figsize=(5 * len(Ns), 5), sharey=True, squeeze=False)
    styles = {"pymlpgf": "-o", "scipy": "--s", "diffrax": ":^"}
    names = list(dict.fromkeys(row[1] for row in rows))
    for ax, N in zip(axes[0], Ns, strict=True):
        for i, name in enumerate(names):
            points = [(s, d) for n, solver, _, s, d in rows if n == N and solver == name]
            ax.loglog(*zip(*points, strict=True), styles[name.split()[0]], color=f"C{i % 10}", ms=4, label=name)
        ax.set(title=f"N = {N}", xlabel="CPU time (s)")
        ax.grid(alpha=0.3)
    axes[0][0].set_ylabel("relative distance to the reference at t = 100")
    axes[0][-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for table and figure")
    parser.add_argument("--quick", action="store_true", help="N = 100 and 1000, three tolerances, two rounds")
    args = parser.parse_args()
    Ns = (100, 1000) if args.quick else (100, 1000, 10_000)
    tolerances = (1e-4, 1e-6, 1e-8) if args.quick else tuple(10.0**-k for k in range(3, 10))
    rows = measure(Ns, tolerances, 2 if args.quick else 5)
    args.folder.mkdir(parents=True, exist_ok=True)
    with open(args.folder / "work_precision.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("N", "solver", "tolerance", "seconds", "distance"))
        writer.writerows(rows)
    for N in Ns:
        ratios(rows, N)
    draw(rows, args.folder / "work_precision.png")


if __name__ == "__main__":
    main()
