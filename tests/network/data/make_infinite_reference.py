"""Reference values for InfiniteNet: one student unit and one teacher unit in the plane, by brute force.

    python tests/data/make_infinite_reference.py        # writes infinite_reference.npz beside itself, in some minutes

It shares no rule with the implementation. Smooth pairs: the trapezoidal rule on a product grid along the bisector of
the two directions and across it, where both units are evaluated at every node; the residual is squared there, so the
loss does not cancel. Units with a kink: composite Gauss-Legendre rules along the student's direction, and across it the
closed form of the teacher's unit under a Gaussian, or the trapezoidal rule. exp: moments of a shifted normal. All is
done twice, on different nodes, and must agree to 3e-12 of E f² + E g² or the largest entry, Hessians to 1e-11.

Each row: w1x, b1 (the student's weights are (w1x, 0)), w2x, w2y, b2, then loss, E f² + E g², gradient by (w1x, w1y, b1,
a), lower triangle of the Hessian row by row, with outgoing weights a = 1 of student and teacher.
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy.special import erf, erfcx, expit, ndtr

PAIRS = 500
λ, α = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
phi = lambda x: np.exp(-x * x / 2) / np.sqrt(2 * np.pi)  # noqa: E731


def sigmoid(x):
    y = expit(x)
    s = y * expit(-x)
    return y, s, s * (expit(-x) - y)


def softplus(x):
    return np.logaddexp(0, x), expit(x), expit(x) * expit(-x)


def tanh(x):
    t = np.tanh(x)
    d = 1 / np.cosh(np.minimum(np.abs(x), 300)) ** 2
    return t, d, -2 * t * d


def silu(x):
    y, s, c = sigmoid(x)
    return x * y, y + x * s, 2 * s + x * c


def g(x):
    (f1, d1, s1), (f2, d2, s2) = softplus(x), sigmoid(4 * x)
    return f1 + f2, d1 + 4 * d2, s1 + 16 * s2


def bump(x):  # x exp(-x²)
    e = np.exp(-x * x)
    return x * e, (1 - 2 * x * x) * e, (4 * x**3 - 6 * x) * e


one = np.ones_like
SMOOTH = {
    "softplus": (softplus, np.pi),
    "sigmoid": (sigmoid, np.pi),
    "tanh": (tanh, np.pi / 2),
    "silu": (silu, np.pi),
    "g": (g, np.pi / 4),
    "sigmoid2": (lambda x: (erf(x / np.sqrt(2)), 2 * phi(x), -2 * x * phi(x)), 3.5),
    "normal_cdf": (lambda x: (ndtr(x), phi(x), -x * phi(x)), 3.5),
    "gelu": (lambda x: (x * ndtr(x), ndtr(x) + x * phi(x), (2 - x * x) * phi(x)), 3.5),
    "identity": (lambda x: (x, one(x), 0 * x), np.inf),
    "square": (lambda x: (x * x / 2, x, one(x)), np.inf),
    "cube": (lambda x: (x**3, 3 * x * x, 6 * x), np.inf),
    "poly": (lambda x: (1 + x - 0.5 * x**2 + 0.25 * x**4, 1 - x + x**3, -1 + 3 * x**2), np.inf),
    "x -> x * exp(-x^2)": (bump, 2.0),
}


def relu(x):
    return np.maximum(x, 0), (x > 0) * 1.0, 0 * x


def selu(x):
    e = np.exp(np.minimum(x, 0))
    low = x <= 0
    values = (α * np.expm1(np.minimum(x, 0)), x), (α * e, 1), (α * e, 0)
    return tuple(λ * np.where(low, below, above) for below, above in values)


KINKED = {"relu": (relu, 1.0), "selu": (selu, λ * (1 - α))}  # and the jump of f'


def smoothed(name, m, s):
    """E f(m + s z) and its first and second derivative by m, times s and s²."""
    if s == 0:
        f, d, _ = KINKED[name][0](m)
        return f, 0 * d, 0 * d
    t = m / s
    if name == "relu":
        return m * ndtr(t) + s * phi(t), s * ndtr(t), s * phi(t)
    # exp(-t²/2) erfcx((t + s)/√2)/2 overflows for t + s far below zero, where the other form is good
    tail = np.where(
        t + s > 0,
        phi(t) * np.sqrt(np.pi / 2) * erfcx(np.maximum(t + s, 0) / np.sqrt(2)),
        np.exp(np.minimum(m + s * s / 2, 700)) * ndtr(-t - s),
    )
    f = λ * (m * ndtr(t) + s * phi(t)) + λ * α * (tail - ndtr(-t))
    return f, s * λ * (ndtr(t) + α * tail), s * s * λ * α * tail + s * λ * (1 - α) * phi(t)


def trapezoid(bandwidth, offset, cut=10.0):
    h = 2 * np.pi / (bandwidth + 10)
    x = h * (np.arange(-np.ceil(cut / h), np.ceil(cut / h) + 1) + offset)
    return x, h * phi(x)


def panels(points, longest, n, centers, width):
    """Gauss-Legendre nodes with weights phi between consecutive points, refined towards centers."""
    xs, ws = [], []
    t, v = leggauss(n)

    def add(a, b):
        for c in centers:
            if b - a > max(0.7 * max(a - c, c - b, 0), width):
                add(a, (a + b) / 2)
                add((a + b) / 2, b)
                return
        xs.append((a + b) / 2 + (b - a) / 2 * t)
        ws.append((b - a) / 2 * v * phi(xs[-1]))

    for a, b in pairwise(points):
        edges = np.linspace(a, b, int(np.ceil((b - a) / longest)) + 1)
        for lo, hi in pairwise(edges):
            add(lo, hi)
    return np.concatenate(xs), np.concatenate(ws)


def pack(L, S, G, H):
    return np.concatenate([[L, S], G, H[np.tril_indices(4)]])


def gather(w, X, Y, f, d, s, r):
    """From weights, nodes, f, f', f'' of the student and the residual."""
    xs = (X, Y, one(X))
    G = np.array([2 * np.sum(w * r * d * x) for x in xs] + [2 * np.sum(w * r * f)])
    H = np.zeros((4, 4))
    for i, x in enumerate(xs):
        for j, y in enumerate(xs[: i + 1]):
            H[i, j] = 2 * np.sum(w * (d * d + r * s) * x * y)
        H[3, i] = 2 * np.sum(w * d * (f + r) * x)
    H[3, 3] = 2 * np.sum(w * f * f)
    return G, H


def by_product_grid(first, second, w1, b1, w2, b2, offset):
    (f, pole1), (q, pole2) = SMOOTH[first], SMOOTH[second]
    r1, r2 = np.hypot(*w1), np.hypot(*w2)
    n1 = w1 / r1 if r1 else np.array([1.0, 0.0])
    n2 = w2 / r2 if r2 else n1
    e = n1 + n2 if n1 @ n2 > 0 else n1 - n2
    e /= np.hypot(*e)
    o = np.array([-e[1], e[0]])
    sharp = [max(36 / pole1 * abs(w1 @ v), 36 / pole2 * abs(w2 @ v)) for v in (e, o)]
    # far from its transition such a unit is so small that even its own scale comes from the tail
    cut = 15.0 if {first, second} & {"normal_cdf", "sigmoid2", "gelu"} else 10.0
    (x, wx), (y, wy) = (trapezoid(b, offset, cut) for b in sharp)
    L = S = 0.0
    G, H = np.zeros(4), np.zeros((4, 4))
    for part in np.array_split(np.arange(len(x)), max(1, len(x) * len(y) // 200_000)):
        P = x[part, None] * e[0] + y[None, :] * o[0]
        Q = x[part, None] * e[1] + y[None, :] * o[1]
        w = wx[part, None] * wy[None, :]
        F = f(w1[0] * P + w1[1] * Q + b1)
        T = q(w2[0] * P + w2[1] * Q + b2)[0]
        r = F[0] - T
        L += np.sum(w * r * r)
        S += np.sum(w * (F[0] ** 2 + T**2))
        g_, h_ = gather(w, P, Q, *F, r)
        G += g_
        H += h_
    return pack(L, S, G, H)


def by_lines(first, second, w1, b1, w2, b2, offset):
    """The student along x, the teacher smoothed along y."""
    r1 = w1[0]
    f, jump = KINKED[first] if first in KINKED else (SMOOTH[first][0], 0.0)
    centers, breaks, width = [], [-39.0, 39.0], 1.0
    longest = (0.5 if offset == 0 else 0.37) / max(1.0, 0.2 * abs(r1), 0.2 * np.hypot(*w2))
    if first in KINKED and r1:
        breaks.append(-b1 / r1)
    if second in KINKED and w2[0]:
        c, width = -b2 / w2[0], abs(w2[1] / w2[0])
        if width < 1e-14:
            breaks.append(c)
        else:
            centers.append(c)
    x, w = panels(sorted(t for t in set(breaks) if abs(t) <= 39), longest, 16, centers, max(width, 1e-14))

    def teacher(x):
        """E over y of the unit, of the unit times y, and times y² - 1."""
        if second in KINKED:
            s = abs(w2[1])
            t0, t1, t2 = smoothed(second, w2[0] * x + b2, s)
            return t0, np.sign(w2[1]) * t1, t2
        q, pole = SMOOTH[second]
        y, v = trapezoid(36 / pole * abs(w2[1]), offset)
        T = q(w2[0] * x[:, None] + w2[1] * y[None, :] + b2)[0]
        return T @ v, T @ (v * y), T @ (v * (y * y - 1))

    F = f(r1 * x + b1)
    T = teacher(x)
    squares = self_energy(second, np.hypot(*w2), b2, offset)
    f0 = F[0]
    S = np.sum(w * f0 * f0) + squares
    L = S - 2 * np.sum(w * f0 * T[0])
    # residual and its moments in y
    R = (f0 - T[0], -T[1], -T[2])
    d, s = F[1], F[2]
    G = 2 * np.array([np.sum(w * d * R[0] * x), np.sum(w * d * R[1]), np.sum(w * d * R[0]), np.sum(w * f0 * R[0])])
    H = np.zeros((4, 4))

    def curvature(w, s, x, R):
        return np.array(
            [
                [np.sum(w * s * R[0] * x * x), 0, 0],
                [np.sum(w * s * R[1] * x), np.sum(w * s * (R[0] + R[2])), 0],
                [np.sum(w * s * R[0] * x), np.sum(w * s * R[1]), np.sum(w * s * R[0])],
            ]
        )

    d0, d1, d2 = (np.sum(w * d * d * x**k) for k in range(3))
    dd = np.array([[d2, 0, 0], [0, d0, 0], [d1, 0, d0]])
    H[:3, :3] = 2 * (dd + curvature(w, s, x, R))
    if first in KINKED and r1:
        t = np.array([-b1 / r1])
        T = teacher(t)
        f0t = f(np.zeros(1))[0]
        H[:3, :3] += 2 * curvature(jump * phi(t) / abs(r1), one(t), t, (f0t - T[0], -T[1], -T[2]))
    H[3, :3] = 2 * np.array([np.sum(w * d * (f0 + R[0]) * x), np.sum(w * d * R[1]), np.sum(w * d * (f0 + R[0]))])
    H[3, 3] = 2 * np.sum(w * f0 * f0)
    return pack(L, S, G, H)


def self_energy(name, r, b, offset):
    if name in SMOOTH:
        x, w = trapezoid(36 / SMOOTH[name][1] * r, offset, 15.0)
        return np.sum(w * SMOOTH[name][0](r * x + b)[0] ** 2)
    points = [-39.0, 39.0] + ([-b / r] if r and abs(b / r) < 39 else [])
    x, w = panels(sorted(points), (0.5 if offset == 0 else 0.37) / max(1, 0.2 * r), 16, [], 1.0)
    return np.sum(w * KINKED[name][0](r * x + b)[0] ** 2)


def by_shift(w1, b1, w2, b2):
    """exp with exp."""
    w2 = np.asarray(w2)

    def moments(mu, b):
        m = np.append(mu, 1.0)
        M = np.outer(m, m) + np.diag([1.0, 1.0, 0.0])
        return np.exp(b + mu @ mu / 2), m, M

    c11, m11, M11 = moments(2 * w1, 2 * b1)
    c12, m12, M12 = moments(w1 + w2, b1 + b2)
    c22, _, _ = moments(2 * w2, 2 * b2)
    G = 2 * np.append(c11 * m11 - c12 * m12, c11 - c12)
    H = np.zeros((4, 4))
    H[:3, :3] = 2 * (2 * c11 * M11 - c12 * M12)
    H[3, :3] = 2 * (2 * c11 * m11 - c12 * m12)
    H[3, 3] = 2 * c11
    return pack(c11 - 2 * c12 + c22, c11 + c22, G, H)


def reference(first, second, w1, b1, w2, b2):
    if first == second == "exp":
        return by_shift(w1, b1, w2, b2)
    rule = by_product_grid if first in SMOOTH and second in SMOOTH else by_lines
    one_, two = (rule(first, second, w1, b1, w2, b2, offset) for offset in (0.0, 0.5))
    error = np.abs(one_ - two)
    for part, bound in ((slice(0, 2), 3e-12), (slice(2, 6), 3e-12), (slice(6, None), 1e-11)):
        scale = max(one_[1], np.abs(one_[part]).max(), 1e-300)  # at small norms derivatives are far larger
        assert error[part].max() <= bound * scale, (first, second, w1, b1, w2, b2, error / scale)
    return (one_ + two) / 2


def cases(rng, kinked):
    for _ in range(PAIRS):
        r1, r2 = (
            rng.choice([0.0, 10 ** rng.uniform(-2, 1), rng.uniform(0, 10), 10.0], p=[0.05, 0.45, 0.45, 0.05])
            for _ in range(2)
        )
        b1, b2 = (
            rng.choice([0.0, rng.normal(), rng.uniform(-10, 10), 10.0, -10.0], p=[0.25, 0.35, 0.3, 0.05, 0.05])
            for _ in range(2)
        )
        kind = rng.choice(5, p=[0.2, 0.3, 0.05, 0.4, 0.05])
        r1, r2, b1, b2 = np.round([r1, r2, b1, b2], 3)
        sign = rng.choice([-1, 1])
        if kind == 0:
            w2 = np.array([sign * r2, 0.0])
        elif kind == 1:
            angle = np.arccos(1 - 10 ** rng.uniform(-12, -1))
            w2 = r2 * np.array([sign * np.cos(angle), np.sin(angle)])
        elif kind == 2:
            w2 = np.array([0.0, r2])
        elif kind == 3:
            angle = rng.uniform(0, np.pi)
            w2 = r2 * np.array([np.cos(angle), np.sin(angle)])
        else:  # the student is the teacher
            w2, b2 = np.array([r1, 0.0]), b1
        if kinked and r1 == 0 and b1 == 0:
            b1 = 1.0  # relu has no derivative at zero
        yield np.array([r1, 0.0]), b1, w2, b2


MIXED = [
    ("softplus", "relu"),
    ("relu", "tanh"),
    ("selu", "sigmoid"),
    ("gelu", "selu"),
    ("relu", "selu"),
    ("selu", "relu"),
    ("tanh", "sigmoid2"),
    ("cube", "relu"),
    ("normal_cdf", "sigmoid2"),
    ("g", "silu"),
]


def main():
    names = sys.argv[1:]
    path = Path(__file__).with_name("infinite_reference.npz")
    tables = dict(np.load(path)) if path.exists() else {}  # what is there is kept: delete the file to begin anew
    tables = {key: table for key, table in tables.items() if key not in names}
    jobs = [(name, name) for name in [*KINKED, "exp", *SMOOTH]] + MIXED
    for number, (first, second) in enumerate(jobs):
        key = first if first == second else f"{first}|{second}"
        if (names and key not in names) or key in tables:
            continue
        rows = [
            np.concatenate([[w1[0], b1, *w2, b2], reference(first, second, w1, b1, w2, b2)])
            for w1, b1, w2, b2 in cases(np.random.default_rng(number), first in KINKED)
        ]
        tables[key] = np.array(rows) if first == second else np.array(rows[:100])
        np.savez_compressed(path, **tables)
        print(key, flush=True)


if __name__ == "__main__":
    main()
