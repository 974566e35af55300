"""A network that makes targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..validate.suggest import suggest_keywords
from .activations import Activation
from .net import Net
from .params import ParametersLike

__all__ = ["TeacherNet"]


class TeacherNet:
    """A network with fixed parameters that makes targets.

    Parameters
    ----------
    layers : as for ``Net``
    params : array of shape (n_params,) or Params, optional
        Default those of ``Net.random_params(seed)``.
    n_features : int
    dtype : "float64" or "float32", optional
    seed : int or NumPy Generator

    Examples
    --------
    >>> import numpy as np, pymlpgf as mg
    >>> teacher = mg.TeacherNet(layers=[(1, "softplus", True)], params=[1.0, -1.0, 0.0], n_features=2)
    >>> teacher(np.zeros((2, 2)))
    array([[0.69314718],
           [0.69314718]])
    """

    @suggest_keywords
    def __init__(
        self,
        layers: Sequence[tuple[int, Activation, bool]],
        params: ParametersLike | None = None,
        n_features: int | None = None,
        dtype: DTypeLike | None = None,
        *,
        seed: int | np.random.Generator = 0,
    ) -> None:
        softmax = len(layers) > 0 and tuple(layers[-1])[1:2] == ("softmax",)
        self.net = Net(layers=layers, n_features=n_features, loss="nll" if softmax else "mse", dtype=dtype)
        given = self.net.random_params(seed) if params is None else params
        self.params = self.net.params(self.net._flat(given).copy())

    def __call__(self, input: ArrayLike) -> np.ndarray:
        """Outputs (n_samples, n_outputs) on ``input`` (n_samples, n_features)."""
        return self.net(self.params, input)

    def __repr__(self) -> str:
        return f"TeacherNet({self.net.n_features} → {self.net.layers})"
