"""Classification of handwritten digits in equal time.

The 8 x 8 digits of scikit-learn, or MNIST with --data mnist.npz: the gradient flow and then LBFGS against Adam in
PyTorch and in scikit-learn's MLPClassifier, the same network (one hidden layer of tanh units, softmax, l2) and the same
seconds (Brea et al., arXiv 2301.10638). Writes digits.csv and digits.png.
"""

import time
import warnings

import numpy as np
from common import arguments, claim, figure, write

import pymlpgf as mg

HIDDEN, L2 = 30, 1e-4
SECONDS = {"toy": 1.0, "quick": 15.0, "full": 120.0}


def data(path, toy):
    if path:
        with np.load(path) as file:
            X, y = file["x_train"].reshape(len(file["x_train"]), -1) / 255.0, file["y_train"].astype(int)
            T, t = file["x_test"].reshape(len(file["x_test"]), -1) / 255.0, file["y_test"].astype(int)
        return X, y, T, t
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    X, y = digits.data[order] / 16.0, digits.target[order]
    n = 300 if toy else 1200
    return X[:n], y[:n], X[1200:], y[1200:]


def by_flow(net, start, seconds):
    """(seconds, parameters) along the flow and LBFGS, which Julia has compiled before."""
    mg.train(net, start, maxiterations_ode=1, maxiterations_optim=1, optim_solver="LBFGS", verbosity=0)
    points = [(0.0, np.array(start))]
    begun = time.perf_counter()

    def keep(step):
        now = time.perf_counter() - begun
        if now > points[-1][0] + seconds / 60:
            points.append((now, step.x.copy()))

    options = {"maxtime_ode": seconds / 3, "maxtime_optim": seconds * 2 / 3, "optim_solver": "LBFGS", "verbosity": 0}
    result = mg.train(net, start, callback=keep, **options)
    return [*points, (time.perf_counter() - begun, result.x)]


def by_torch(X, y, start, seconds):
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(X.shape[1], HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 10)).double()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(np.array(start)), model.parameters())
    inputs, labels = torch.from_numpy(X), torch.from_numpy(y)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    points, begun = [(0.0, np.array(start))], time.perf_counter()
    while (now := time.perf_counter() - begun) < seconds:
        for batch in torch.randperm(len(labels), generator=generator).split(64):
            optimizer.zero_grad()
            penalty = sum((p**2).sum() for p in model.parameters()) * (L2 / 2)
            (nn.functional.cross_entropy(model(inputs[batch]), labels[batch]) + penalty).backward()
            optimizer.step()
        if now > points[-1][0] + seconds / 60:
            x = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy().copy()
            points.append((time.perf_counter() - begun, x))
    return points


def by_sklearn(X, y, seconds):
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier((HIDDEN,), activation="tanh", alpha=L2 * len(y), random_state=0, batch_size=64)
    points, begun = [], time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while (now := time.perf_counter() - begun) < seconds:
            model.partial_fit(X, y, classes=range(10))
            if not points or now > points[-1][0] + seconds / 60:
                parts = [
                    part for W, b in zip(model.coefs_, model.intercepts_, strict=True) for part in (W.T.ravel(), b)
                ]
                points.append((time.perf_counter() - begun, np.concatenate(parts)))
    return points


def run(options):
    X, y, T, t = data(options.data, options.mode == "toy")
    seconds = SECONDS[options.mode]
    net = mg.Net(layers=[(HIDDEN, "tanh", True), (10, "softmax", True)], input=X, target=y, loss="nll", l2=L2)
    start = net.random_params(seed=options.seed).flat
    runs = {"flow, then LBFGS": by_flow(net, start, seconds)}
    try:
        runs["Adam (PyTorch)"] = by_torch(X, y, start, seconds)
    except ImportError:
        print("PyTorch is not installed")
    runs["Adam (scikit-learn)"] = by_sklearn(X, y, seconds)
    rows = []
    for name, points in runs.items():
        for at, x in points:
            correct = float(np.mean(net(x, T).argmax(axis=1) == t))
            rows.append((name, at, net.loss(x), float(np.abs(net.gradient(x)).max()), correct))
        print(f"  {name:20s} loss {rows[-1][2]:.10f}  gradient {rows[-1][3]:.1e}  test accuracy {rows[-1][4]:.4f}")
    return rows


def draw(rows, path):
    fig, axes = figure(2)
    lowest = min(row[2] for row in rows)
    for number, name in enumerate(dict.fromkeys(row[0] for row in rows)):
        at, loss, _, accuracy = np.array([row[1:] for row in rows if row[0] == name]).T
        axes[0][0].semilogy(at, loss - lowest + 1e-16, color=f"C{number}", label=name)
        axes[0][1].plot(at, accuracy, color=f"C{number}", label=name)
    axes[0][0].set_ylabel("loss above the lowest one found")
    axes[0][1].set_ylabel("accuracy on test digits")
    for ax in axes[0]:
        ax.set_xlabel("time (s)")
    axes[0][1].legend(frameon=False, fontsize="small", loc="lower right")
    fig.savefig(path, dpi=110)


def main():
    parser = arguments(__doc__)
    parser.add_argument("--data", help="an .npz file with x_train, y_train, x_test, y_test")
    options = parser.parse_args()
    rows = run(options)
    write(options.output / "digits.csv", ["method", "seconds", "loss", "gradient_norm", "test_accuracy"], rows)
    draw(rows, options.output / "digits.png")
    last = {row[0]: row[2] for row in rows}
    ours = last.pop("flow, then LBFGS")
    claim(f"the flow and LBFGS end at a lower loss ({ours:.6f}) than Adam ({min(last.values()):.6f}) in equal time",
          ours < min(last.values()))  # fmt: skip


if __name__ == "__main__":
    main()
