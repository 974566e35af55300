"""Parameters of a network: one flat vector, and weights and biases as views on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import ArrayLike, DTypeLike

from ..errors import InputError
from ..validate.data import numeric

__all__ = ["Layer", "ParametersLike", "Params"]

Layer = tuple[int, int, bool]  # fan_in, width, bias


class Found(Protocol):
    """A result, which is taken wherever parameters are: its best point counts."""

    @property
    def x(self) -> np.ndarray:
        """The point."""


#: What stands for parameters: an array, ``Params``, or a result.
ParametersLike: TypeAlias = ArrayLike | Found


class Params(NDArrayOperatorsMixin):
    """A flat parameter vector with named views.

    The order is that of ``torch.nn.utils.parameters_to_vector`` on the matching ``nn.Sequential``: layer by layer,
    the weights of shape (width, fan_in) in C order, then the bias if there is one. NumPy functions accept it and
    arithmetic with it gives plain arrays.

    Parameters
    ----------
    flat : array of shape (n_params,)
        Not copied if it is a contiguous float array.
    layers : sequence of (fan_in, width, bias)

    Raises
    ------
    InputError
        If the length of ``flat`` does not fit ``layers``.

    Examples
    --------
    >>> p = Params.from_layers([([[1.0, 2.0]], [3.0]), ([[4.0]], None)])
    >>> p.flat
    array([1., 2., 3., 4.])
    >>> p["w1"], p["b1"], p.biases[1]
    (array([[1., 2.]]), array([3.]), None)
    """

    __slots__ = ("flat", "layers")

    def __init__(self, flat: ArrayLike, layers: Sequence[Layer]) -> None:
        flat = np.ascontiguousarray(numeric("flat", flat))
        if flat.dtype not in (np.float32, np.float64):
            flat = flat.astype(np.float64)
        size = sum(width * (fan_in + bias) for fan_in, width, bias in layers)
        if flat.shape != (size,):
            raise InputError(f"flat has shape {flat.shape}, these layers have {size} parameters: shape ({size},)")
        self.flat: np.ndarray = flat
        self.layers = tuple((int(i), int(w), bool(b)) for i, w, b in layers)

    @classmethod
    def from_layers(cls, layers: Iterable[tuple[ArrayLike, ArrayLike | None]]) -> Params:
        """Copy of weights and biases: (W of shape (width, fan_in), b of shape (width,) or None) per layer."""
        parts: list[np.ndarray] = []
        shapes: list[Layer] = []
        for number, (weights, bias) in enumerate(layers, 1):
            W = np.asarray(weights)
            if W.ndim != 2:
                raise InputError(f"the weights of layer {number} have shape {W.shape}; (width, fan_in) is needed")
            if shapes and shapes[-1][1] != W.shape[1]:
                raise InputError(
                    f"layer {number} takes {W.shape[1]} inputs, the layer before has {shapes[-1][1]} units"
                )
            parts.append(W.ravel())
            if bias is not None:
                b = np.asarray(bias)
                if b.shape != W.shape[:1]:
                    raise InputError(f"the bias of layer {number} has shape {b.shape}; {W.shape[:1]} is needed")
                parts.append(b)
            shapes.append((W.shape[1], W.shape[0], bias is not None))
        if not parts:
            raise InputError("layers is empty")
        return cls(np.concatenate(parts), shapes)

    @classmethod
    def from_dict(cls, parts: Mapping[str, ArrayLike]) -> Params:
        """The inverse of ``to_dict``: ``w1`` (width, fan_in), ``b1`` (width,) where there is a bias, and so on.

        >>> Params.from_dict({"w1": [[1.0, 2.0]], "b1": [3.0], "w2": [[4.0]]}).flat
        array([1., 2., 3., 4.])
        """
        count = sum(1 for name in parts if name.startswith("w"))
        wanted = {f"w{number}" for number in range(1, count + 1)}
        if not wanted or not wanted <= set(parts) <= wanted | {f"b{number}" for number in range(1, count + 1)}:
            raise InputError(f"the names are {', '.join(map(str, parts))}; w1, b1, w2, b2, … are needed")
        return cls.from_layers((parts[f"w{number}"], parts.get(f"b{number}")) for number in range(1, count + 1))

    @classmethod
    def from_peer(cls, x: ArrayLike | Mapping[str, ArrayLike], layers: Sequence[Layer]) -> Params:
        """From MLPGradientFlow.jl's layout, in which a layer is one matrix ``[W b]`` with the bias as last column.

        Parameters
        ----------
        x : mapping of ``w1``, ``w2``, … to arrays of shape (width, fan_in + bias), or its flat vector
            As that package writes them; the vector runs through each matrix column by column.
        layers : sequence of (fan_in, width, bias)
        """
        shapes = [(width, fan_in + bias) for fan_in, width, bias in layers]
        if isinstance(x, Mapping):
            blocks = [np.asarray(x[f"w{number}"]) for number in range(1, len(shapes) + 1)]
        else:
            flat = np.asarray(x)
            ends = np.cumsum([width * columns for width, columns in shapes])
            if flat.shape != (ends[-1],):
                raise InputError(f"x has shape {flat.shape}; these layers have {ends[-1]} parameters")
            parts = np.split(flat, ends[:-1])
            blocks = [part.reshape(shape, order="F") for part, shape in zip(parts, shapes, strict=True)]
        for number, (block, shape) in enumerate(zip(blocks, shapes, strict=True), 1):
            if block.shape != shape:
                raise InputError(f"w{number} has shape {block.shape}; {shape} is needed")
        return cls.from_layers(
            (block[:, :fan_in], block[:, fan_in] if bias else None)
            for block, (fan_in, _, bias) in zip(blocks, layers, strict=True)
        )

    def to_peer(self) -> dict[str, np.ndarray]:
        """MLPGradientFlow.jl's layout: ``w1``, ``w2``, … with the bias as last column of each."""
        return {
            f"w{number}": W.copy() if b is None else np.column_stack([W, b])
            for number, (W, b) in enumerate(self._views(), 1)
        }

    def _views(self) -> list[tuple[np.ndarray, np.ndarray | None]]:
        views, start = [], 0
        for fan_in, width, bias in self.layers:
            W = self.flat[start : start + width * fan_in].reshape(width, fan_in)
            start += width * fan_in
            b = self.flat[start : start + width] if bias else None
            start += width * bias
            views.append((W, b))
        return views

    @property
    def weights(self) -> list[np.ndarray]:
        """Weights (width, fan_in) of each layer: views on ``flat``."""
        return [W for W, _ in self._views()]

    @property
    def biases(self) -> list[np.ndarray | None]:
        """Bias (width,) of each layer, or None: views on ``flat``."""
        return [b for _, b in self._views()]

    def to_dict(self) -> dict[str, np.ndarray]:
        """Copies under the names ``w1``, ``b1``, ``w2``, …; layers without bias have no ``b``."""
        return {name: self[name].copy() for name in self._names()}

    def copy(self) -> Params:
        """A copy that shares nothing."""
        return Params(self.flat.copy(), self.layers)

    def _names(self) -> list[str]:
        return [n for i, (_, _, bias) in enumerate(self.layers, 1) for n in ([f"w{i}", f"b{i}"] if bias else [f"w{i}"])]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in self._names():
                raise KeyError(f"{key!r}; this network has {', '.join(self._names())}")
            W, b = self._views()[int(key[1:]) - 1]
            return W if key[0] == "w" else b
        return self.flat[key]

    def __len__(self) -> int:
        return len(self.flat)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.flat.size

    @property
    def dtype(self) -> np.dtype:
        """Number type."""
        return self.flat.dtype

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if dtype is None or np.dtype(dtype) == self.flat.dtype:
            return self.flat.copy() if copy else self.flat
        return self.flat.astype(dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(x, Params) for x in kwargs.get("out", ())):
            kwargs["out"] = tuple(x.flat if isinstance(x, Params) else x for x in kwargs["out"])
        return getattr(ufunc, method)(*(x.flat if isinstance(x, Params) else x for x in inputs), **kwargs)

    def __reduce__(self) -> Any:
        return Params, (self.flat, self.layers)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{w}×{i}" + ("+b" if b else "") for i, w, b in self.layers)
        return f"Params({self.flat.size} numbers: {shapes})"
