"""Two hundred students of a smooth teacher: where do they end?

Four tanh units learn a smooth function of one or of two inputs. Most runs never end, since two units merge while their
outgoing weights diverge, or a unit goes out to its exponential tail. ``minimize(..., at_infinity=True)`` lands on the
minimum of the limit. Run it with the number of seeds:

    python examples/minima_at_infinity.py 200
"""

import sys
from collections import Counter

import numpy as np

import pymlpgf as mg


def one_input():
    x = np.linspace(-2, 2, 60)[:, None]
    return mg.Net(layers=[(4, "tanh", True), (1, "identity", True)], input=x, target=np.sin(3 * x) + 0.3 * x**2)


def two_inputs():
    x = np.random.default_rng(0).normal(size=(100, 2))
    return mg.Net(layers=[(4, "tanh", True), (1, "identity", True)], input=x, target=np.cos(2 * x[:, 0]) * x[:, 1])


def ends(net, seeds):
    """What each seed leads to."""
    return [
        mg.minimize(net, net.random_params(seed=seed), at_infinity=True, maxiterations_optim=20_000, verbosity=0)
        for seed in seeds
    ]


def table(found):
    """How often each end was reached, with its loss, channels and the coefficients h of L = L0 + Σ h ε²."""
    counts = Counter((m.kind, f"{m.loss:.6g}", ", ".join(sorted(f"{h:.4g}" for h in m.coefficients))) for m in found)
    for (kind, loss, h), count in counts.most_common():
        yield f"{count:4d}  {kind:20s} loss {loss:12s} " + (f"h {h}" if h else "")


if __name__ == "__main__":
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
    for problem in (one_input, two_inputs):
        found = ends(problem(), seeds)
        closed = [m.gnorm for m in found if m.kind != "open"]
        print(f"{problem.__name__}: {len(closed)} of {len(found)} runs ended, with gradients below {max(closed):.1e}")
        print("\n".join(table(found)))
        for seed, m in zip(seeds, found, strict=True):
            if m.kind == "open":
                print(f"  seed {seed} is open at loss {m.loss:.6g}: {m.reason}")
