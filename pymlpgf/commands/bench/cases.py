"""What is measured: the paper's grid of networks and sample sizes, then deeper and wider ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Call", "Case", "cases"]

Call = Callable[[int], float]  # seconds of so many calls


@dataclass(frozen=True)
class Case:
    """A network and the size of its data."""

    name: str
    features: int
    samples: int
    layers: tuple[tuple[int, str, bool], ...]
    loss: str = "mse"
    grid: bool = False
    hessian: bool = True

    @property
    def heavy(self) -> bool:
        """Whether automatic differentiation is spared the Hessian, for its time and memory."""
        return self.samples * self.layers[0][0] > 100_000

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Normal inputs (N, D), and targets: normal (N, O), or labels (N,)."""
        rng = np.random.default_rng(0)
        X = rng.normal(size=(self.samples, self.features))
        if self.loss == "nll":
            return X, rng.integers(0, self.layers[-1][0], self.samples)
        return X, rng.normal(size=(self.samples, self.layers[-1][0]))


def cases(quick: bool, threads: int) -> Iterator[Case]:
    """The paper's grid, then deeper and wider networks."""
    out = (1, "identity", True)
    for k in (10, 50, 100):
        for N in (10, 1000, 10_000) if quick else (10, 100, 1000, 10_000, 100_000):
            if threads == 1 or (10_000 if quick else 100_000) == N:
                hessian = not quick or (threads == 1 and N * k <= 20_000)
                yield Case(f"k = {k}, N = {N}", 2, N, ((k, "softplus", True), out), grid=True, hessian=hessian)
    if threads > 1:
        return
    yield Case("10 → 16 → 16 → 1 tanh", 10, 1000, ((16, "tanh", True), (16, "tanh", True), out))
    if not quick:
        deep = tuple((12, "sigmoid", True) for _ in range(5))
        yield Case("4 → 5 × 12 → 2 sigmoid", 4, 500, (*deep, (2, "identity", True)))
        yield Case("50 → 500 → 1 relu", 50, 1000, ((500, "relu", True), out), hessian=False)
    digits = ((32, "tanh", True), (10, "softmax", True))
    yield Case("64 → 32 → 10 tanh, nll", 64, 1797, digits, loss="nll", hessian=False)
