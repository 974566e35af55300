"""What is measured: small, deep and wide networks, and the paper's grid of units and sample sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Case", "cases"]

#: most parameters of which a Hessian is measured: 50 MB in float64
LARGEST_HESSIAN = 2500


@dataclass(frozen=True)
class Case:
    """A network and the size of its data."""

    name: str
    features: int
    samples: int
    layers: tuple[tuple[int, str, bool], ...]
    loss: str = "mse"
    grid: bool = False

    @property
    def shapes(self) -> list[tuple[int, int, str, bool]]:
        """Width, inputs, activation and whether there are biases, of each layer."""
        fan_ins = [self.features, *(width for width, _, _ in self.layers)]
        return [(width, fan_in, f, bias) for fan_in, (width, f, bias) in zip(fan_ins, self.layers, strict=False)]

    @property
    def n_params(self) -> int:
        """The number of parameters."""
        return sum(width * (fan_in + bias) for width, fan_in, _, bias in self.shapes)

    @property
    def hessian(self) -> bool:
        """Whether the Hessian is measured."""
        return self.n_params <= LARGEST_HESSIAN

    @property
    def wide(self) -> bool:
        """Whether the layer with most weights has more than 64 inputs, so that products of matrices decide."""
        return max((width * fan_in, fan_in) for width, fan_in, _, _ in self.shapes)[1] > 64

    @property
    def tangents(self) -> int:
        """Bytes of the activations' derivatives by every parameter, which automatic Hessians hold at once."""
        return 8 * self.samples * self.n_params * sum(width for width, _, _ in self.layers)

    def data(self, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
        """Normal inputs (N, D), and targets: normal (N, O), or labels (N,)."""
        rng = np.random.default_rng(0)
        X = rng.normal(size=(self.samples, self.features)).astype(dtype)
        if self.loss == "nll":
            return X, rng.integers(0, self.layers[-1][0], self.samples)
        return X, rng.normal(size=(self.samples, self.layers[-1][0])).astype(dtype)

    def start(self, dtype: str = "float64", seed: int = 0) -> np.ndarray:
        """Parameters in the order of PyTorch's ``parameters_to_vector``: Glorot-normal weights, zero biases."""
        rng = np.random.default_rng([1, seed])
        parts = []
        for width, fan_in, _, bias in self.shapes:
            parts += [rng.normal(size=width * fan_in) * np.sqrt(2 / (width + fan_in)), np.zeros(width * bias)]
        return np.concatenate(parts).astype(dtype)


def cases(quick: bool, threads: int) -> Iterator[Case]:
    """Small, deep and wide networks, then the paper's grid; with two threads the largest data of the grid alone."""
    out = (1, "identity", True)
    if threads == 1:
        yield _tanh(24, (8,), 200, outputs=2)  # the example of SimpleChains.jl
        yield _tanh(5, (8, 8), 200)
        yield _tanh(2, (16, 16, 16), 1000)
    if threads == 1 and not quick:
        yield _tanh(10, (32, 32), 1000)
        yield _classes(64, 30, 1200)
        yield _tanh(1, (64, 64, 64), 500)
        yield _classes(784, 100, 2000)
        yield _tanh(100, (256, 256), 2000)
        yield _tanh(20, (50, 50), 10_000)
        deep = tuple((12, "sigmoid", True) for _ in range(5))
        yield Case("4 → 5 × 12 → 2 sigmoid, 500", 4, 500, (*deep, (2, "identity", True)))
        yield Case("50 → 500 → 1 relu, 1000", 50, 1000, ((500, "relu", True), out))
    sizes = (10, 1000, 10_000) if quick else (10, 100, 1000, 10_000, 100_000)
    for N in sizes if threads == 1 else sizes[-1:]:
        for k in (10, 50) if quick else (10, 50, 100):
            yield Case(f"k = {k}, N = {N}", 2, N, ((k, "softplus", True), out), grid=True)


def _tanh(features: int, widths: tuple[int, ...], samples: int, outputs: int = 1) -> Case:
    layers = tuple((width, "tanh", True) for width in widths)
    name = " → ".join(map(str, (features, *widths, outputs)))
    return Case(f"{name} tanh, {samples}", features, samples, (*layers, (outputs, "identity", True)))


def _classes(features: int, units: int, samples: int) -> Case:
    layers = ((units, "tanh", True), (10, "softmax", True))
    return Case(f"{features} → {units} → 10 nll, {samples}", features, samples, layers, loss="nll")
