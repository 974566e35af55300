# ruff: noqa: E402 (threads are limited before NumPy is imported)
"""Minimizers against SciPy's and PyTorch's, which are given our compiled loss, gradient, Hessian and products.

    python examples/minimize_benchmark.py [--quick] [--seconds S] [--seeds N] [--out minimize.csv]

``well-posed``: isolated minima of several nets; CPU time until ‖∇L‖_∞ ≤ 1e-9, and ‖∇L‖_∞ at the end of a run down
to round-off. ``8`` and ``64``: students with so many softplus units (33 and 1153 parameters) of a teacher with a
quarter of them, as many inputs as the teacher has units, 10 000 standard-normal samples (the setting of arXiv
2301.10638); the lowest loss seen in equal time. ``starts``: random starts of nets with one hidden layer, on samples
of a teacher of the same width with noise 0.2; CPU time to ‖∇L‖_∞ ≤ 1e-9. One thread. Our minimizers stop by the
wall clock; the peers get the CPU time that the longest of ours has used.
"""

from __future__ import annotations

import argparse
import csv
import os
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
import scipy.optimize

import pymlpgf as mg

SCIPY = ("trust-exact", "trust-ncg", "trust-krylov", "Newton-CG", "BFGS", "L-BFGS-B", "dogleg")
OURS = ("auto", "NewtonLBFGS", "NewtonTrustRegion", "LevenbergMarquardt", "Newton", "BFGS", "LBFGS", "NewtonKrylov")
GNORM = 1e-9


class OutOfTime(Exception):
    pass


class Watched:
    """The functions of a net, with the lowest loss seen, and when the gradient first became small enough."""

    def __init__(self, net, seconds, gnorm=0.0):
        self.net, self.seconds, self.gnorm = net, seconds, gnorm
        self.begin = time.process_time()
        self.wall = time.perf_counter()
        self.best, self.reached, self.gradients = np.inf, None, 0

    def value_and_gradient(self, x):
        value, gradient = self.net.value_and_gradient(x)
        now = time.process_time() - self.begin
        self.gradients += 1
        if now <= self.seconds:
            self.best = min(self.best, value)
        if np.abs(gradient).max() <= self.gnorm:
            self.reached = now
            raise OutOfTime
        if now > self.seconds or time.perf_counter() - self.wall > 5 * self.seconds:
            raise OutOfTime
        return value, gradient


def scipy_run(method, net, start, seconds, gnorm=0.0):
    watched = Watched(net, seconds, gnorm)
    tolerances = {"BFGS": {"gtol": 0}, "L-BFGS-B": {"gtol": 0, "ftol": 0, "maxcor": 20, "maxls": 50}}
    options = {"maxiter": 10**9, **tolerances.get(method, {"gtol": 0} if method != "Newton-CG" else {"xtol": 0})}
    if method == "L-BFGS-B":
        options["maxfun"] = 10**9
    derivatives = {}
    if method in ("trust-exact", "dogleg"):
        derivatives["hess"] = net.hessian
    elif method in ("trust-ncg", "trust-krylov", "Newton-CG"):
        derivatives["hessp"] = net.hvp
    try:
        with np.errstate(all="ignore"):
            scipy.optimize.minimize(
                watched.value_and_gradient, start, jac=True, method=method, options=options, **derivatives
            )
    except (OutOfTime, ValueError, np.linalg.LinAlgError):  # dogleg ends where the Hessian is not definite
        pass
    return watched


def torch_run(method, net, start, seconds):
    import torch

    torch.set_num_threads(1)
    watched = Watched(net, seconds)
    x = torch.tensor(start, requires_grad=True)
    x.grad = torch.zeros_like(x)
    if method == "torch LBFGS":
        optimizer = torch.optim.LBFGS([x], lr=1, max_iter=10**9, max_eval=10**9, tolerance_grad=0, tolerance_change=0,
                                      line_search_fn="strong_wolfe")  # fmt: skip
    else:
        optimizer = torch.optim.Adam([x], lr=float(method.split()[-1]))

    def closure():
        value, gradient = watched.value_and_gradient(x.detach().numpy())
        x.grad.copy_(torch.from_numpy(gradient))
        return torch.tensor(value)

    try:
        for _ in range(10**9):
            before = watched.gradients
            optimizer.step(closure)
            if method == "torch LBFGS" and watched.gradients - before < 3:
                break
    except OutOfTime:
        pass
    return watched


def peer_run(method, net, start, seconds):
    return (torch_run if method.startswith("torch") else scipy_run)(method, net, start, seconds)


def teacher_student(units, seed, samples=10_000):
    """A teacher with a quarter of the student's units, as many inputs, all its parameters standard normal."""
    rng = np.random.default_rng(seed)
    k = units // 4
    X = rng.normal(size=(samples, k))
    teacher = mg.Net(layers=[(k, "softplus", True), (1, "identity", True)], input=X, target=np.zeros(samples))
    target = teacher(rng.normal(size=teacher.n_params))
    net = mg.Net(layers=[(units, "softplus", True), (1, "identity", True)], input=X, target=target)
    return net, net.random_params(seed=seed).flat.copy()


SHAPES = {
    "2-2-1 tanh": (2, [(2, "tanh", True)], 200),
    "3-4-1 sigmoid": (3, [(4, "sigmoid", True)], 1000),
    "4-5-1 tanh": (4, [(5, "tanh", False)], 500),
    "3-3-3-1 tanh": (3, [(3, "tanh", True), (3, "tanh", True)], 500),
    "5-8-1 softplus, weights": (5, [(8, "softplus", True)], 2000),
    "6-4-3 classes": (6, [(4, "tanh", True)], 300),
}


def well_posed(shape, seed):
    """Targets of a net of the same shape, with noise, so that residuals remain; the start is near the truth."""
    features, hidden, samples = SHAPES[shape]
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(samples, features))
    classes = "classes" in shape
    layers = [*hidden, (3, "softmax", True) if classes else (1, "identity", True)]
    loss = {"loss": "nll", "l2": 1e-3} if classes else {}
    model = mg.Net(layers=layers, n_features=features, **loss)
    truth = 1.5 * rng.normal(size=model.n_params)
    outputs = model(truth, X)
    if classes:
        target = np.array([rng.choice(3, p=p) for p in outputs])
    else:
        target = outputs + 0.1 * rng.normal(size=outputs.shape)
        loss = {"l2": 1e-4}
    if "weights" in shape:
        loss["weights"] = rng.uniform(0.5, 1.5, size=samples)
    net = mg.Net(layers=layers, input=X, target=target, **loss)
    return net, truth + 0.1 * rng.normal(size=truth.size)


def measure_well_posed(writer, seeds, repeats, ours):
    for shape in SHAPES:
        ratios, default_ratios, ends = [], [], []
        for seed in range(seeds):
            net, start = well_posed(shape, seed)
            ours_best, default, peers_best = np.inf, np.inf, np.inf
            for solver in ours:
                times = []
                for _ in range(repeats):
                    begin = time.process_time()
                    res = mg.minimize(net, start, optim_solver=solver, min_gnorm=GNORM, maxtime_optim=2, verbosity=0)
                    times.append(time.process_time() - begin)
                end = mg.minimize(net, start, optim_solver=solver, maxtime_optim=5, verbosity=0)
                reached = min(times) if res.gnorm <= GNORM else np.inf
                ours_best = min(ours_best, reached)
                if solver == "NewtonTrustRegion":
                    default = reached
                    assert net.hessian_spectrum(end.x)[0][0] > 0, "not an isolated minimum"
                    ends.append(end.gnorm)
                writer.writerow(["well-posed", shape, seed, solver, reached, end.gnorm, end.loss, res.nfev, res.nhev])
            for method in SCIPY:
                runs = [scipy_run(method, net, start, 2, GNORM) for _ in range(repeats)]
                reached = min(r.reached if r.reached is not None else np.inf for r in runs)
                peers_best = min(peers_best, reached)
                row = [shape, seed, f"SciPy {method}", reached, "", runs[0].best, runs[0].gradients, ""]
                writer.writerow(["well-posed", *row])
            ratios.append(peers_best / ours_best)
            default_ratios.append(peers_best / default)
        print(f"{shape:26s} worst ‖∇L‖_∞ at the end {max(ends):.1e}; time of SciPy's best over ours: "
              f"default min {min(default_ratios):.1f} median {np.median(default_ratios):.1f}; "
              f"best min {min(ratios):.1f} median {np.median(ratios):.1f}", flush=True)  # fmt: skip


STARTS = [(2, 2, 200, "tanh"), (3, 4, 1000, "tanh"), (5, 8, 2000, "tanh"), (5, 20, 2000, "tanh")] + [
    (3, 4, 1000, activation)
    for activation in ("softplus", "sigmoid", "g", "gelu", "silu", "normal_cdf", "selu", "relu", "square", "cube")
]


def random_starts(features, units, samples, activation, seed):
    rng = np.random.default_rng([features, units, seed])
    X = rng.normal(size=(samples, features))
    layers = [(units, activation, True), (1, "identity", True)]
    model = mg.Net(layers=layers, n_features=features)
    target = model(rng.normal(size=model.n_params), X) + 0.2 * rng.normal(size=(samples, 1))
    net = mg.Net(layers=layers, input=X, target=target)
    return net, net.random_params(seed=seed).flat.copy()


def measure_starts(writer, seeds, seconds, ours):
    for shape in STARTS:
        times, arrived = {solver: [] for solver in ours}, dict.fromkeys(ours, 0)
        goal = {"min_gnorm": GNORM, "maxtime_optim": seconds, "verbosity": 0}
        for seed in range(seeds):
            net, start = random_starts(*shape, seed)
            for solver in ours:
                if seed == 0:  # compiled before it is timed
                    mg.minimize(net, start, optim_solver=solver, **goal)
                used = np.inf
                for _ in range(3):
                    begin = time.process_time()
                    res = mg.minimize(net, start, optim_solver=solver, **goal)
                    used = min(used, time.process_time() - begin)
                    if used > 0.1:
                        break
                times[solver].append(used)
                arrived[solver] += res.gnorm <= GNORM
                row = ["-".join(map(str, shape)), seed, solver, used, res.gnorm, res.loss, res.nfev, res.nhev]
                writer.writerow(["starts", *row])
        means = {solver: 1e3 * np.exp(np.mean(np.log(values))) for solver, values in times.items()}
        print(f"{', '.join(map(str, shape)):24s} "
              + "  ".join(f"{solver} {means[solver]:.2f} ms ({1e3 * max(times[solver]):.1f}; {arrived[solver]})"
                          for solver in ours), flush=True)  # fmt: skip


def measure_teacher_student(writer, units, seeds, seconds, ours, peers):
    wins = 0
    for seed in seeds:
        net, start = teacher_student(units, seed)
        problem = f"{net.n_params} parameters"
        losses, peer_losses, budget = {}, {}, 0.0
        for solver in ours:
            begin = time.process_time()
            res = mg.minimize(net, start, optim_solver=solver, maxtime_optim=seconds, patience=10**9, verbosity=0)
            used = time.process_time() - begin
            budget = max(budget, used)
            losses[solver] = res.loss
            writer.writerow([problem, "", seed, solver, used, res.gnorm, res.loss, res.nfev, res.nhev])
        for method in peers:
            begin = time.process_time()
            run = peer_run(method, net, start, budget)
            name = method if method.startswith("torch") else f"SciPy {method}"
            peer_losses[name] = run.best
            used = time.process_time() - begin
            writer.writerow([problem, "", seed, name, used, "", run.best, run.gradients, ""])
        wins += min(losses.values()) <= min(peer_losses.values())
        print(f"{problem} seed {seed}, {budget:.1f} s: "
              + "  ".join(f"{m} {v:.2e}" for m, v in {**losses, **peer_losses}.items()), flush=True)  # fmt: skip
    print(f"{units} units: at or below the best peer on {wins} of {len(seeds)} seeds", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds, a second each")
    parser.add_argument("--seconds", type=float, default=30, help="for each run of a minimizer")
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--parts", default="well-posed,8,64", help="which of well-posed, starts, 8 and 64 (units)")
    parser.add_argument("--ours", default=",".join(OURS))
    parser.add_argument("--peers", default=",".join((*SCIPY, "torch LBFGS", "torch Adam 1e-3")))
    parser.add_argument("--out", default="minimize.csv")
    args = parser.parse_args()
    seconds, seeds = (1, 2) if args.quick else (args.seconds, args.seeds)
    with open(args.out, "w", newline="", buffering=1) as file:
        writer = csv.writer(file)
        writer.writerow(["problem", "shape", "seed", "method", "cpu_seconds", "gnorm", "loss", "gradients", "hessians"])
        for part in args.parts.split(","):
            if part == "well-posed":
                measure_well_posed(writer, 2 if args.quick else 2 * seeds, 3, args.ours.split(","))
            elif part == "starts":
                measure_starts(writer, 2 if args.quick else 8, 10, args.ours.split(","))
            else:
                # compiled before it is timed
                net, start = teacher_student(4, 0, 100)
                for solver in args.ours.split(","):
                    mg.minimize(net, start, optim_solver=solver, maxiterations_optim=20, verbosity=0)
                for method in args.peers.split(","):
                    peer_run(method, net, start, 0.1)  # PyTorch loads its compiler at the first step
                chosen = range(args.first_seed, args.first_seed + seeds)
                measure_teacher_student(writer, int(part), chosen, seconds, args.ours.split(","), args.peers.split(","))


if __name__ == "__main__":
    main()
