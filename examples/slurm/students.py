"""Students of four widths from fifty initial points each, in four shares: what a task of students.sbatch does."""

import os

import numpy as np

import pymlpgf as mg

GRID = {"width": [1, 2, 3, 4], "seed": range(50)}
SHARES = 4


def student(width):
    """The net of this width, on data that are the same for all."""
    X = np.random.default_rng(0).normal(size=(100, 2))
    y = np.tanh(X[:, 0]) - 0.7 * np.tanh(X[:, 1] + 0.5) + np.tanh(X[:, 0] + X[:, 1])
    return mg.Net(layers=[(width, "tanh", True), (1, "identity", True)], input=X, target=y)


if __name__ == "__main__":
    share = int(os.environ["SLURM_ARRAY_TASK_ID"])
    processes = int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
    with mg.sweep(
        student, grid=GRID, part=(share, SHARES), directory="runs", max_workers=processes,
        maxiterations_ode=100, maxiterations_optim=100,
    ) as runs:  # fmt: skip
        for run in runs:
            print(run.index, "there" if run.resumed else run.error or "done", flush=True)
