"""A network with its data: what the loss is made of, and the loss and its derivatives."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import runtime
from .activations import check_activation
from .errors import InputError
from .params import Params
from .suggest import nearest, suggest_keywords

__all__ = ["Net"]

INITS = ("glorot_normal", "glorot_uniform")


class Net:
    """A multilayer perceptron with its data.

    The loss is the mean over samples, L(θ) = (1/N) Σᵢ wᵢ ‖f(xᵢ; θ) − yᵢ‖².

    Parameters
    ----------
    layers : sequence of (width, activation, bias)
        The output layer last. Activations: ``pymlpgf.ACTIVATIONS``.
    input : array of shape (n_samples, n_features)
    target : array of shape (n_samples, n_outputs), or (n_samples,) for one output
    weights : array of shape (n_samples,), optional
        Sample weights wᵢ ≥ 0; default 1.
    dtype : "float64" or "float32", optional
        Number type of all computations; default float32 if input and target are float32, else float64.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN or infinity, an unknown activation, or a dtype that would lose information.

    Notes
    -----
    The data are copied once, into the layout that the Julia core computes on. Parameters are flat vectors
    (see ``Params``): arrays of this net's dtype and length ``n_params``.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", False)], input=[[1.0], [2.0]], target=[2.0, 4.0])
    >>> net.loss([1.0]), net.gradient([1.0]), net.hessian([1.0])    # L = ((θ - 2)² + (2θ - 4)²)/2
    (2.5, array([-5.]), array([[5.]]))
    """

    @suggest_keywords
    def __init__(
        self,
        layers: Sequence[tuple[int, str, bool]],
        input: Any,
        target: Any,
        *,
        weights: Any = None,
        dtype: Any = None,
    ) -> None:
        self._layers = _check_layers(layers)
        X, Y = _numeric("input", input), _numeric("target", target)
        if X.ndim != 2:
            hint = "; use input.reshape(-1, 1) for one feature" if X.ndim == 1 else ""
            raise InputError(f"input has shape {X.shape}; (n_samples, n_features) is needed{hint}")
        if X.size == 0:
            raise InputError(f"input is empty: shape {X.shape}")
        outputs = self._layers[-1][0]
        if Y.ndim == 1 and outputs == 1:
            Y = Y.reshape(-1, 1)
        if Y.shape != (len(X), outputs):
            raise InputError(
                f"target has shape {np.shape(target)}; {(len(X), outputs)} is needed for {len(X)} samples and an "
                f"output layer of width {outputs}"
            )
        self._dtype = _check_dtype(dtype, X, Y)
        X, Y = _data("input", X, self._dtype), _data("target", Y, self._dtype)
        w = None
        if weights is not None:
            w = _data("weights", _numeric("weights", weights), self._dtype)
            if w.shape != (len(X),):
                raise InputError(f"weights has shape {w.shape}; ({len(X)},) is needed, one for each sample")
            if not (w >= 0).all():
                raise InputError("weights must not be negative")
            if not w.any():
                raise InputError("weights are all zero: no sample counts")
        self._n_samples, self._n_features = X.shape
        fan_ins = [self._n_features, *(width for width, _, _ in self._layers)]
        self._shapes = [(fan_in, width, bias) for fan_in, (width, _, bias) in zip(fan_ins, self._layers, strict=False)]
        self._n_params = sum(width * (fan_in + bias) for fan_in, width, bias in self._shapes)
        self._bridge = runtime.start()
        self._handle = self._bridge.net(self._layers, X, Y, w)
        weakref.finalize(self, self._bridge.release_later, self._handle)

    # ---- what it is ----------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[tuple[int, str, bool]]:
        """(width, activation, bias) of each layer."""
        return list(self._layers)

    @property
    def n_params(self) -> int:
        """Number of parameters P."""
        return self._n_params

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return self._n_samples

    @property
    def n_features(self) -> int:
        """Number of input features D."""
        return self._n_features

    @property
    def n_outputs(self) -> int:
        """Width of the output layer."""
        return self._layers[-1][0]

    @property
    def dtype(self) -> np.dtype:
        """Number type of parameters and derivatives."""
        return self._dtype

    def __repr__(self) -> str:
        arrows = " → ".join(f"{w} {f}" + ("" if b else " (no bias)") for w, f, b in self._layers)
        return f"Net({self._n_features} → {arrows}; {self._n_samples} samples, {self._n_params} parameters)"

    # ---- parameters ----------------------------------------------------------------------------------------

    @suggest_keywords
    def random_params(self, seed: int = 0, init: str = "glorot_normal") -> Params:
        """Initial parameters: Glorot weights, zero biases. The same seed gives the same numbers everywhere.

        Parameters
        ----------
        seed : int, 0 ≤ seed < 2**64
        init : "glorot_normal" or "glorot_uniform"
        """
        if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed < 2**64:
            raise InputError(f"seed is {seed!r}; a whole number from 0 to 2**64 - 1 is needed")
        if init not in INITS:
            raise InputError(f"unknown init {init!r}{nearest(str(init), INITS)}")
        flat = np.empty(self._n_params, self._dtype)
        self._bridge.random_params(self._handle, int(seed), init, flat.ctypes.data)
        return self.params(flat)

    def params(self, flat: Any) -> Params:
        """``flat`` (n_params,) with views on this net's weights and biases."""
        return Params(flat, self._shapes)

    # ---- loss and derivatives ------------------------------------------------------------------------------

    def __call__(self, p: Any, input: Any = None) -> np.ndarray:
        """Outputs (n_samples, n_outputs) on the net's own data, or on ``input`` (M, n_features)."""
        p = self._flat(p)
        if input is None:
            out = np.empty((self._n_samples, self.n_outputs), self._dtype)
            self._bridge.predict(self._handle, _address(p), None, self._n_samples, _address(out))
            return out
        X = _data("input", _numeric("input", input), self._dtype)
        if X.ndim != 2 or X.shape[1] != self._n_features:
            raise InputError(f"input has shape {X.shape}; (n_samples, {self._n_features}) is needed")
        out = np.empty((len(X), self.n_outputs), self._dtype)
        self._bridge.predict(self._handle, _address(p), _address(X), len(X), _address(out))
        return out

    def loss(self, p: Any) -> float:
        """L at the parameters ``p``."""
        p = self._flat(p)  # keeps a converted copy alive during the call
        return self._bridge.loss(self._handle, _address(p))

    def gradient(self, p: Any, out: np.ndarray | None = None) -> np.ndarray:
        """∇L (n_params,); written into ``out`` if that is given."""
        return self.value_and_gradient(p, out)[1]

    def value_and_gradient(self, p: Any, out: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """Loss and gradient in one pass."""
        p = self._flat(p)
        out = self._out(out, (self._n_params,))
        return self._bridge.gradient(self._handle, _address(p), _address(out)), out

    def hessian(self, p: Any, out: np.ndarray | None = None) -> np.ndarray:
        """∇²L (n_params, n_params): exact, dense, symmetric to the last bit."""
        p = self._flat(p)
        out = self._out(out, (self._n_params, self._n_params))
        self._bridge.hessian(self._handle, _address(p), _address(out))
        return out

    def hvp(self, p: Any, v: Any, out: np.ndarray | None = None) -> np.ndarray:
        """∇²L v without the Hessian; about three times the cost of a gradient."""
        p, v = self._flat(p), self._flat(v, "v")
        out = self._out(out, (self._n_params,))
        self._bridge.hvp(self._handle, _address(p), _address(v), _address(out))
        return out

    def hessian_spectrum(self, p: Any) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (ascending) and eigenvectors (in columns) of the Hessian."""
        values, vectors = np.linalg.eigh(self.hessian(p))
        return values, vectors

    def _flat(self, p: Any, name: str = "p") -> np.ndarray:
        if type(p) is Params:
            p = p.flat
        if type(p) is np.ndarray and p.dtype == self._dtype and p.shape == (self._n_params,) and p.flags.c_contiguous:
            return p
        array = _numeric(name, p)
        if array.shape != (self._n_params,):
            raise InputError(f"{name} has shape {array.shape}; this net has {self._n_params} parameters")
        return _data(name, array, self._dtype)

    def _out(self, out: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
        if out is None:
            return np.empty(shape, self._dtype)
        if not isinstance(out, np.ndarray) or out.dtype != self._dtype or out.shape != shape:
            raise InputError(f"out must be an array of shape {shape} and dtype {self._dtype}")
        if not out.flags.c_contiguous or not out.flags.writeable:
            raise InputError("out must be C-contiguous and writeable")
        return out


def _address(array: np.ndarray) -> int:
    # Half the price of array.ctypes.data.
    return array.__array_interface__["data"][0]


def _check_layers(layers: Any) -> list[tuple[int, str, bool]]:
    form = "(width, activation, bias), such as (5, 'softplus', True)"
    try:
        specs = [tuple(spec) for spec in layers]
    except TypeError:
        raise InputError(f"layers must be a sequence of {form}, got {layers!r}") from None
    if not specs:
        raise InputError("layers is empty: give at least the output layer")
    checked = []
    for number, spec in enumerate(specs, 1):
        if len(spec) != 3:
            raise InputError(f"layer {number} is {spec!r}; {form} is needed")
        width, activation, bias = spec
        if not isinstance(width, (int, np.integer)) or isinstance(width, bool) or width < 1:
            raise InputError(f"layer {number} has width {width!r}; a positive whole number is needed")
        if not isinstance(bias, (bool, np.bool_)):
            raise InputError(f"layer {number} has bias {bias!r}; True or False is needed")
        checked.append((int(width), check_activation(activation, f"layer {number}"), bool(bias)))
    return checked


def _numeric(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} is not an array: {error}") from None
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {array.dtype}; real numbers are needed")
    return array


def _check_dtype(dtype: Any, X: np.ndarray, Y: np.ndarray) -> np.dtype:
    if dtype is None:
        return np.dtype(np.float32 if X.dtype == Y.dtype == np.float32 else np.float64)
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        wanted = None
    if wanted not in (np.float32, np.float64):
        raise InputError(f"dtype is {dtype!r}; 'float64' or 'float32' is needed")
    return wanted


def _data(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """``array`` as contiguous finite numbers of ``dtype``."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        raise InputError(f"{name} has dtype {array.dtype}, which float64 cannot hold: convert it yourself")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype)
    if array.dtype.kind in "iu" and not np.array_equal(converted.astype(array.dtype), array):
        raise InputError(f"{name} holds whole numbers that {dtype} cannot represent")
    bad = converted.size - np.count_nonzero(np.isfinite(converted))
    if bad:
        raise InputError(f"{name} contains {bad} NaN or infinite {'entry' if bad == 1 else 'entries'}")
    return converted
