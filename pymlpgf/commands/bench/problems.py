"""The problems of the time to a minimum: six with isolated minima, and students with more units than their teachers.

Data and starts come from NumPy alone, so that a process of another package need not load Julia.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .by_hand import forward, gradient
from .cases import Case

__all__ = ["PROBLEMS", "Problem"]

OUT = (1, "identity", True)


@dataclass(frozen=True)
class Problem:
    """A network, and how its data are drawn: by a teacher of so many units, with noise on its outputs."""

    case: Case
    noise: float
    l2: float = 0.0
    teacher: int = 0  # units, if not those of the network

    @property
    def name(self) -> str:
        """The name of the network."""
        return self.case.name

    @property
    def overparameterised(self) -> bool:
        """Whether the teacher is smaller than the network."""
        return self.teacher > 0

    def data(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Normal inputs (N, D); targets (N, O) or labels (N,), of a teacher with normal parameters."""
        rng = np.random.default_rng([self.case.features, self.case.n_params, seed])
        layers = ((self.teacher, self.case.layers[0][1], True), OUT) if self.teacher else self.case.layers
        teacher = Case("", self.case.features, self.case.samples, layers)
        X = rng.normal(size=(self.case.samples, self.case.features))
        outputs = forward(teacher, X, rng.normal(size=teacher.n_params))
        if self.case.loss == "nll":
            return X, (outputs + rng.gumbel(size=outputs.shape)).argmax(1)  # a draw from the softmax
        return X, outputs + self.noise * rng.normal(size=outputs.shape)

    def start(self, seed: int) -> np.ndarray:
        """Random parameters."""
        return self.case.start(seed=seed)

    def value_and_gradient(self, X: np.ndarray, Y: np.ndarray, p: np.ndarray) -> tuple[float, np.ndarray]:
        """By hand, for what a contender has found."""
        loss, slope = gradient(self.case, X, Y, p)
        return loss + self.l2 / 2 * float(p @ p), slope + self.l2 * p


def _one_layer(features: int, units: int, f: str, samples: int, noise: float = 0.2, teacher: int = 0) -> Problem:
    name = f"{features}-{units}-1 {f}, {samples}"
    return Problem(Case(name, features, samples, ((units, f, True), OUT)), noise, teacher=teacher)


PROBLEMS = (
    _one_layer(2, 2, "tanh", 200),
    _one_layer(3, 4, "softplus", 1000),
    _one_layer(5, 8, "tanh", 2000),
    _one_layer(5, 20, "tanh", 2000),
    Problem(Case("3-3-3-1 tanh, l2, 500", 3, 500, ((3, "tanh", True), (3, "tanh", True), OUT)), 0.1, l2=1e-4),
    Problem(Case("6-4-3 nll, l2, 300", 6, 300, ((4, "tanh", True), (3, "softmax", True)), loss="nll"), 0.0, l2=1e-3),
    _one_layer(2, 8, "softplus", 10_000, noise=0.0, teacher=2),
    _one_layer(4, 16, "softplus", 10_000, noise=0.0, teacher=4),
)
