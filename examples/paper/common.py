"""What the experiments share: their arguments, the paper's problem, CSV files and figures."""

import argparse
import csv
from pathlib import Path

import numpy as np

import pymlpgf as mg


def arguments(description):
    """--quick (the default; at most a minute or two on two cores), --full, or --toy, as tests run it; --output DIR."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    sizes = {"quick": "at most two minutes (the default)", "full": "larger problems", "toy": "tiny ones, for tests"}
    for name, size in sizes.items():
        mode.add_argument(f"--{name}", action="store_const", const=name, dest="mode", help=size)
    parser.set_defaults(mode="quick")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and starts (default 0)")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for CSV file and figure (default .)")
    return parser


def student_of_teacher(teacher_width, width, samples, seed, activation="softplus"):
    """A student on standard normal inputs with 2 features, its targets those of a random teacher; and its start."""
    rng = np.random.default_rng(seed)
    layers = [(teacher_width, activation, True), (1, "identity", True)]
    teacher = mg.TeacherNet(layers, rng.normal(size=4 * teacher_width + 1), 2)
    X = rng.normal(size=(samples, 2))
    net = mg.Net(layers=[(width, activation, True), (1, "identity", True)], input=X, target=teacher(X))
    return net, net.random_params(seed=seed)


def write(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    print(f"wrote {path}")


def figure(columns=1, width=5.0, height=3.8):
    """A figure and its axes, without a display."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(1, columns, figsize=(width * columns, height), layout="constrained", squeeze=False)


def claim(text, holds):
    print(f"{'holds' if holds else 'does NOT hold'}: {text}")
