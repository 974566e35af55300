"""A network with its data: what the loss is made of, and the loss and its derivatives."""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import runtime
from ..errors import InputError
from ..facts import LOSSES
from ..runtime.bridge import Bridge
from ..validate.data import common_dtype, contiguous, inputs, is_whole, numeric, real_number, sample_weights, targets
from ..validate.memory import refuse_matrices, refuse_square
from ..validate.suggest import check_keywords, nearest, suggest_keywords
from .activations import Activation, check_layers, json_layers
from .limits import Limits
from .params import ParametersLike, Params

__all__ = ["Net"]

R = TypeVar("R")

INITS = ("glorot_normal", "glorot_uniform")


class Net(Limits):
    """A multilayer perceptron with its data and its loss.

    The loss is the mean over samples plus regularisers, L(θ) = (1/N) Σᵢ wᵢ ℓ(f(xᵢ; θ), yᵢ) + R(θ).

    Parameters
    ----------
    layers : sequence of (width, activation, bias)
        The output layer last. An activation is one of ``pymlpgf.ACTIVATIONS``, a ``Poly``, a Julia function such as
        ``"x -> x * exp(-x^2)"``, or a tuple with one of these for each unit.
    input : array of shape (n_samples, n_features), optional
        A net without input has outputs, and a loss on other data.
    target : array of shape (n_samples, n_outputs), or (n_samples,) for one output
        For ``loss="nll"`` probabilities, or labels from 0 on of shape (n_samples,).
    n_features : int, optional
        In place of ``input``.
    weights : array of shape (n_samples,), optional
        Sample weights wᵢ ≥ 0; default 1.
    loss : "mse", "nll", "correlation" or a Julia function
        "mse": ℓ = ‖f − y‖². "nll": −Σₒ yₒ log fₒ with the activation "softmax" in the output layer, or with "identity",
        where the outputs are logits. A function of one output and its target, such as
        ``"(f, y) -> log(cosh(f - y))"``, is summed over outputs; its derivatives are found by automatic
        differentiation. "correlation": in place of the mean over samples Σₒ (1 − rₒ), with Pearson's correlation rₒ of
        output and target, in which samples count by their weights. Scale and offset of outputs have no effect, so that
        there is no minimum with ``l2``.
    l2 : float
        λ of (λ/2)‖θ‖² in R.
    maxnorm : float
        c of (1/3) max(0, ‖θ‖²/(2P) − c)³ in R.
    merge : tuple (layer, i, j, λ) or a list of these, optional
        (λ/2) times the squared distance of the incoming weights and biases of units i and j, all counted from 0, in R.
    output_factor : float
        Outputs are multiplied by it: 1/k or 1/√k for lazy and rich regimes.
    dtype : "float64" or "float32", optional
        Number type of all computations; default float32 if input and target are float32, else float64.
    threads : int, optional
        How many of Julia's threads share the samples; default all of them (one, unless ``pymlpgf.init(threads=…)`` or
        PYMLPGF_THREADS asked for more). Results depend on this number in the last digits, and on nothing else.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN or infinity, labels out of range, an unknown activation, or a dtype that would
        lose information.

    Notes
    -----
    The data are copied into the layout that the Julia core computes on, and once more for pickling. A net that arrives
    in another process starts Julia there at its first use, in the thread that uses it. Parameters are flat vectors
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
        layers: Sequence[tuple[int, Activation, bool]],
        input: ArrayLike | None = None,
        target: ArrayLike | None = None,
        *,
        n_features: int | None = None,
        weights: ArrayLike | None = None,
        loss: str = "mse",
        l2: float = 0,
        maxnorm: float = math.inf,
        merge: Any = None,
        output_factor: float = 1,
        dtype: DTypeLike | None = None,
        threads: int | None = None,
    ) -> None:
        self._layers = check_layers(layers)
        _check_loss(loss, self._layers[-1][1])
        self._loss = loss
        self._kept: Any = None
        if input is None:
            if target is not None or weights is not None:
                raise InputError("target or weights are given without input")
            if n_features is None or not is_whole(n_features) or n_features < 1:
                raise InputError(f"n_features is {n_features!r}; a net without input needs it, a positive whole number")
            self._dtype = common_dtype(dtype)
            self._n_samples, self._n_features = 0, int(n_features)
        else:
            if target is None:
                raise InputError("input is given without target")
            X, Y = numeric("input", input), numeric("target", target)
            self._dtype = common_dtype(dtype, X, X if loss == "nll" and Y.dtype.kind in "iub" else Y)
            self._kept = self._data(X, Y, weights, n_features)
            self._n_samples, self._n_features = self._kept[0].shape
        fan_ins = [self._n_features, *(width for width, _, _ in self._layers)]
        self._shapes = [(fan_in, width, bias) for fan_in, (width, _, bias) in zip(fan_ins, self._layers, strict=False)]
        self._n_params = sum(width * (fan_in + bias) for fan_in, width, bias in self._shapes)
        options: dict[str, object] = {"loss": loss}
        options.update(l2=_not_negative("l2", l2), maxnorm=_not_negative("maxnorm", maxnorm, infinite=True))
        options.update(output_factor=_factor(output_factor), merge=self._merge(merge))
        if threads is not None and (not is_whole(threads) or threads < 1):
            raise InputError(f"threads is {threads!r}; a positive whole number is needed")
        self._options, self._threads = options, threads
        self._settings = {"loss": loss, "l2": l2, "maxnorm": maxnorm, "merge": merge, "output_factor": output_factor}
        self._connect()

    def _connect(self) -> None:
        """Start Julia if need be, and give it this net."""
        bridge = runtime.start()
        available = runtime.info()["threads"]
        if self._threads is not None and self._threads > available:
            raise InputError(
                f"threads is {self._threads}, but Julia runs with {available}: call "
                f"pymlpgf.init(threads={self._threads}) before the first use, or set PYMLPGF_THREADS"
            )
        options = {
            **self._options,
            "layers": json_layers(self._layers),
            "threads": available if self._threads is None else self._threads,
        }
        single = self._dtype == np.float32
        self._handle = bridge.net(single, options, self._n_features, self._kept)
        self._bridge = bridge
        weakref.finalize(self, bridge.release_later, self._handle)

    def __getattr__(self, name: str) -> Any:
        if name in ("_bridge", "_handle") and "_settings" in self.__dict__:  # the first use after unpickling
            self._connect()
            return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_bridge", "_handle", "_labels")}

    @property
    def _core(self) -> Core:
        """For the package's other rooms, which use nothing else of a net that is not public."""
        return Core(self)

    def _fingerprint(self) -> str:
        """The same for nets with the same loss function."""
        digest = hashlib.sha256(json.dumps(json_layers(self._layers)).encode())
        digest.update(repr((self._n_features, self._dtype.str, sorted(self._options.items()))).encode())
        for array in self._kept or ():
            digest.update(b"none" if array is None else array.tobytes())
        return digest.hexdigest()

    @property
    def _given(self) -> tuple[Any, Any, Any]:
        """Input, target and weights as ``Net`` takes them; labels count from 0 there, and are made once."""
        if self._kept is None:
            return None, None, None
        X, Y, w = self._kept
        if Y.ndim == 1:
            if "_labels" not in self.__dict__:
                self._labels = Y - 1
            Y = self._labels
        return X, Y, w

    def _like(self, layers: Sequence[tuple[int, Activation, bool]] | None = None, **settings: Any) -> Net:
        """The same data and settings, but for these and with other layers."""
        X, Y, w = self._given
        given = {**self._settings, "dtype": self._dtype, "threads": self._threads, "weights": w, **settings}
        return Net(layers or self._layers, X, Y, n_features=self._n_features, **given)

    def _data(self, X: Any, Y: Any, weights: Any, n_features: int | None) -> Any:
        samples = inputs(X, n_features, self._dtype)
        labels = targets(Y, len(samples), self.n_outputs, self._loss, self._dtype)
        w = sample_weights(weights, len(samples), self._dtype)
        return _own(samples, X), _own(labels, Y), None if w is None else _own(w, weights)

    def _merge(self, merge: Any) -> list[list[Any]]:
        """One-based, as Julia counts."""
        if merge is None:
            return []
        entries = merge if isinstance(merge, list) else [merge]
        parts = []
        for entry in entries:
            if not isinstance(entry, tuple) or len(entry) != 4 or not all(map(is_whole, entry[:3])):
                raise InputError(f"merge has the entry {entry!r}; a tuple (layer, i, j, λ) is needed")
            layer, i, j, strength = entry
            if not 0 <= layer < len(self._layers):
                raise InputError(f"merge names layer {layer}; this net has layers 0 to {len(self._layers) - 1}")
            width = self._layers[layer][0]
            if not (0 <= i < width and 0 <= j < width and i != j):
                raise InputError(f"merge names units {i} and {j}; layer {layer} has the units 0 to {width - 1}")
            parts.append([int(layer) + 1, int(i) + 1, int(j) + 1, _not_negative("merge λ", strength)])
        return parts

    # ---- what it is ----------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[tuple[int, Activation, bool]]:
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
    def random_params(
        self,
        seed: int | np.random.Generator = 0,
        init: str | Callable[..., ArrayLike] = "glorot_normal",
        scales: ArrayLike = 1,
        *,
        biases: float | Callable[..., ArrayLike] = 0,
    ) -> Params:
        """Initial parameters: Glorot weights, zero biases. The same seed gives the same numbers everywhere.

        Parameters
        ----------
        seed : int with 0 ≤ seed < 2**64, or NumPy Generator
            A generator gives the seed, and other parameters at the next call.
        init : "glorot_normal", "glorot_uniform" or a function
            A function is called as ``init((width, fan_in), rng)`` for each layer, with a NumPy generator of that seed,
            and returns the weights.
        scales : float or sequence of floats, one for each layer
            Multiplies the weights.
        biases : float or function
            Standard deviation of normal biases, or a function that is called as ``biases((width,), rng)``, after the
            weights, and returns them.
        """
        if isinstance(seed, np.random.Generator):
            seed = int(seed.integers(2**63))
        if not is_whole(seed) or not 0 <= seed < 2**64:
            raise InputError(
                f"seed is {seed!r}; a whole number from 0 to 2**64 - 1, or a numpy.random.Generator, is needed"
            )
        flat = np.zeros(self._n_params, self._dtype)
        p = self.params(flat)
        rng = np.random.default_rng(int(seed))
        if callable(init):
            for W in p.weights:
                W[:] = _drawn("init", init, W.shape, rng)
        elif isinstance(init, str) and init in INITS:
            self._bridge.random_params(self._handle, int(seed), init, flat.ctypes.data)
        else:
            raise InputError(f"unknown init {init!r}{nearest(str(init), INITS)}")
        factors = numeric("scales", scales)
        if factors.shape not in ((), (len(self._layers),)) or not np.isfinite(factors).all():
            raise InputError(f"scales is {scales!r}; a finite number, or one for each of {len(self._layers)} layers")
        for W, factor in zip(p.weights, np.broadcast_to(factors, len(self._layers)), strict=True):
            W *= factor
        deviation = 0.0 if callable(biases) else _not_negative("biases", biases)
        for b in p.biases:
            if b is not None and callable(biases):
                b[:] = _drawn("biases", biases, b.shape, rng)
            elif b is not None and deviation > 0:
                b[:] = deviation * rng.standard_normal(b.shape)
        return p

    def params(self, flat: ParametersLike) -> Params:
        """``flat`` (n_params,) with views on this net's weights and biases."""
        given: Any = flat
        point = getattr(given, "x", None)  # of a result
        return Params(point if type(point) is np.ndarray else given, self._shapes)

    # ---- loss and derivatives ------------------------------------------------------------------------------

    def __call__(self, p: ParametersLike, input: ArrayLike | None = None) -> np.ndarray:
        """Outputs (n_samples, n_outputs) on the net's own data, or on ``input`` (M, n_features)."""
        p = self._flat(p)
        if input is None:
            if self._n_samples == 0:
                raise InputError("this net has no data: give input")
            out = np.empty((self._n_samples, self.n_outputs), self._dtype)
            self._bridge.predict(self._handle, _address(p), None, self._n_samples, _address(out))
            return out
        X = contiguous("input", numeric("input", input), self._dtype)
        if X.ndim != 2 or X.shape[1] != self._n_features:
            raise InputError(f"input has shape {X.shape}; (n_samples, {self._n_features}) is needed")
        out = np.empty((len(X), self.n_outputs), self._dtype)
        self._bridge.predict(self._handle, _address(p), _address(X), len(X), _address(out))
        return out

    def on(self, input: ArrayLike, target: ArrayLike | None, weights: ArrayLike | None = None) -> Net:
        """The same network, loss and regularisers on other data; evaluated in this net's dtype."""
        if target is None:
            raise InputError("target is missing: other data are input and target")
        other = object.__new__(Net)
        other.__dict__.update(self.__dict__)
        other._kept = self._data(numeric("input", input), numeric("target", target), weights, self._n_features)
        other._n_samples = len(other._kept[0])
        other._handle = self._bridge.on(self._handle, other._kept)
        weakref.finalize(other, self._bridge.release_later, other._handle)
        return other

    def replace(self, **settings: Any) -> Net:
        """The same network on the same data with other settings: l2, maxnorm, merge, weights, output_factor or threads.

        Parameters
        ----------
        **settings
            As for ``Net``; ``weights=None`` makes all of them one.

        Examples
        --------
        >>> import pymlpgf as mg
        >>> net = mg.Net(layers=[(1, "identity", False)], input=[[1.0]], target=[2.0])
        >>> net.replace(l2=0.5).loss([1.0]), net.loss([1.0])        # (1 - 2)² + (0.5/2) 1²
        (1.25, 1.0)
        """
        check_keywords("replace", settings, ("l2", "maxnorm", "merge", "weights", "output_factor", "threads"))
        if self._kept is None and settings.get("weights") is not None:
            raise InputError("weights are given, but this net has no data")
        return self._like(**settings)

    @property
    def output_factor(self) -> float:
        """What the outputs are multiplied by."""
        return float(self._settings["output_factor"])

    def _on(self, input: Any, target: Any, weights: Any) -> Net:
        """This net, or the same on what a call gives in place of its data."""
        if input is None and target is None and weights is None:
            return self
        if input is None:
            if self._n_samples == 0:
                raise InputError("this net has no data of its own: give input and target")
            input, Y, w = self._given
            target, weights = Y if target is None else target, w if weights is None else weights
        return self.on(input, target, weights)

    def loss(
        self,
        p: ParametersLike,
        input: ArrayLike | None = None,
        target: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> float:
        """L at the parameters ``p``, on the net's own data or on others.

        Others are given as for ``on``; what is not given is the net's own, where ``input`` is. They are copied in each
        call: for many calls ``net.on(input, target, weights)`` is faster. The same holds for all derivatives.
        """
        net = self._on(input, target, weights)
        p = net._flat(p)  # keeps a converted copy alive during the call
        return net._bridge.loss(net._handle, _address(p))

    def gradient(
        self,
        p: ParametersLike,
        out: np.ndarray | None = None,
        input: ArrayLike | None = None,
        target: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> np.ndarray:
        """∇L (n_params,), on the net's own data or on others; written into ``out`` if that is given."""
        return self.value_and_gradient(p, out, input, target, weights)[1]

    def value_and_gradient(
        self,
        p: ParametersLike,
        out: np.ndarray | None = None,
        input: ArrayLike | None = None,
        target: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> tuple[float, np.ndarray]:
        """Loss and gradient in one pass, on the net's own data or on others."""
        net = self._on(input, target, weights)
        p = net._flat(p)
        out = net._out(out, (net._n_params,))
        return net._bridge.gradient(net._handle, _address(p), _address(out)), out

    def hessian(
        self,
        p: ParametersLike,
        out: np.ndarray | None = None,
        input: ArrayLike | None = None,
        target: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> np.ndarray:
        """∇²L (n_params, n_params), on the net's own data or on others: exact, dense, symmetric to the last bit."""
        net = self._on(input, target, weights)
        p = net._flat(p)
        if out is None and net._n_params > 1000:  # a million numbers have a place anywhere
            refuse_square(net, "the Hessian", "use hvp, extreme_eigenvalues or linear_operator")
        out = net._out(out, (net._n_params, net._n_params))
        net._bridge.hessian(net._handle, _address(p), _address(out))
        return out

    def hvp(
        self,
        p: ParametersLike,
        v: ParametersLike,
        out: np.ndarray | None = None,
        input: ArrayLike | None = None,
        target: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> np.ndarray:
        """∇²L v without the Hessian, at the cost of one to three gradients; on the net's own data or on others."""
        net = self._on(input, target, weights)
        p, v = net._flat(p), net._flat(v, "v")
        out = net._out(out, (net._n_params,))
        net._bridge.hvp(net._handle, _address(p), _address(v), _address(out))
        return out

    def hessian_spectrum(self, p: ParametersLike) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (ascending) and eigenvectors (in columns) of the Hessian."""
        values, vectors = np.linalg.eigh(self.hessian(p))
        return values, vectors

    def hessian_blocks(self, p: ParametersLike) -> list[np.ndarray]:
        """The diagonal blocks of the Hessian that belong to one layer each, without the rest of it."""
        fan_in = self.n_features
        for number, (width, _, bias) in enumerate(self._layers, 1):
            size = width * (fan_in + bias)
            refuse_matrices(f"the Hessian of layer {number}", (size, size), self._dtype, "use hvp")
            fan_in = width

        def read(handle: int) -> list[np.ndarray]:
            return [self._bridge.field(handle, str(number)) for number in range(1, len(self._layers) + 1)]

        return self._compute("hessian_blocks", p, read)

    def extreme_eigenvalues(self, p: ParametersLike, k: int = 6, which: str = "both") -> np.ndarray:
        """``k`` eigenvalues at the "smallest" or "largest" end of the Hessian's spectrum, or at "both", ascending.

        Of "both" ends an odd ``k`` has one more of the largest. By Lanczos on Hessian-vector products (ARPACK through
        SciPy), so the Hessian is never formed.
        """
        ends = {"smallest": "SA", "largest": "LA", "both": "BE"}
        if which not in ends:
            raise InputError(f"unknown which {which!r}{nearest(str(which), ends)}")
        if not 0 < k < self._n_params:
            raise InputError(f"k is {k!r}; 1 to {self._n_params - 1} is possible with {self._n_params} parameters")
        from scipy.sparse.linalg import eigsh

        start = np.ones(self._n_params)
        end = "LA" if k == 1 and which == "both" else ends[which]
        values = eigsh(self.linear_operator(p), k=k, which=end, return_eigenvectors=False, v0=start)
        return np.sort(values)

    def linear_operator(self, p: ParametersLike) -> Any:
        """The Hessian at ``p`` as a ``scipy.sparse.linalg.LinearOperator``."""
        from scipy.sparse.linalg import LinearOperator

        p = self._flat(p).copy()
        return LinearOperator(
            (self._n_params, self._n_params),
            matvec=lambda v: self.hvp(p, np.ravel(v)),
            rmatvec=lambda v: self.hvp(p, np.ravel(v)),
            dtype=self._dtype,
        )

    def jacobian(self, p: ParametersLike) -> np.ndarray:
        """Derivatives of the outputs (n_samples, n_outputs, n_params) on the net's data; before a softmax."""
        size = (self._n_samples or 0, self.n_outputs, self._n_params)
        refuse_matrices("the Jacobian", size, self._dtype, "take fewer samples, with net.on(input, target)")
        return self._compute("jacobian", p).transpose(1, 2, 0)

    def gauss_newton(self, p: ParametersLike) -> np.ndarray:
        """Gauss–Newton matrix (n_params, n_params) of the data term: the Hessian without the network's curvature."""
        refuse_square(self, "the Gauss–Newton matrix", "use hvp")
        return self._compute("gauss_newton", p)

    def tangent_kernel(self, p: ParametersLike) -> np.ndarray:
        """Neural tangent kernel J Jᵀ, of shape (n_samples·n_outputs, n_samples·n_outputs), samples first."""
        size = ((self._n_samples or 0) * self.n_outputs,) * 2
        refuse_matrices("the tangent kernel", size, self._dtype, "take fewer samples, with net.on(input, target)")
        return self._compute("tangent_kernel", p)

    def data_terms(self, p: ParametersLike) -> tuple[float, float]:
        """Loss and ‖∇L‖_∞ without the regularisers."""
        loss, gnorm = self._compute("data_terms", p)
        return float(loss), float(gnorm)

    def _compute(self, what: str, p: Any, read: Callable[[int], Any] | None = None) -> Any:
        p = self._flat(p)
        return self._bridge.tool(self._handle, what, {}, [p], read or (lambda handle: self._bridge.field(handle, "")))

    def _flat(self, p: Any, name: str = "p") -> np.ndarray:
        if type(p) is Params:
            p = p.flat
        elif type(p) is not np.ndarray and type(getattr(p, "x", None)) is np.ndarray:  # a result
            p = p.x
        if type(p) is np.ndarray and p.dtype == self._dtype and p.shape == (self._n_params,) and p.flags.c_contiguous:
            return p
        array = numeric(name, p)
        if array.shape != (self._n_params,):
            raise InputError(f"{name} has shape {array.shape}; this net has {self._n_params} parameters")
        return contiguous(name, array, self._dtype)

    def _out(self, out: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
        if out is None:
            return np.empty(shape, self._dtype)
        if not isinstance(out, np.ndarray) or out.dtype != self._dtype or out.shape != shape:
            raise InputError(f"out must be an array of shape {shape} and dtype {self._dtype}")
        if not out.flags.c_contiguous or not out.flags.writeable:
            raise InputError("out must be C-contiguous and writeable")
        return out


class Core:
    """A net as Julia has it, and what it was made of."""

    def __init__(self, net: Net) -> None:
        self._net = net

    @property
    def bridge(self) -> Bridge:
        """To Julia, which is started if need be."""
        return self._net._bridge

    @property
    def handle(self) -> int:
        """Of the net in Julia."""
        return self._net._handle

    @property
    def settings(self) -> dict[str, Any]:
        """What ``Net`` was given beside layers, data, number type and threads."""
        return self._net._settings

    @property
    def threads(self) -> int | None:
        """As given."""
        return self._net._threads

    @property
    def data(self) -> tuple[Any, Any, Any]:
        """Input, target and weights as ``Net`` takes them; None where there are none."""
        return self._net._given

    def flat(self, p: Any, name: str = "p") -> np.ndarray:
        """The parameters ``p``, whatever stands for them, as an array that Julia can read; ``name`` is for errors."""
        return self._net._flat(p, name)

    def tool(self, what: str, options: dict[str, object], arrays: list[np.ndarray], read: Callable[[int], R]) -> R:
        """What ``read`` makes of the handle to the answer of a tool of julia/src/interface/tools.jl about this net."""
        return self.bridge.tool(self.handle, what, options, arrays, read)

    def like(self, layers: Sequence[tuple[int, Activation, bool]] | None = None, **settings: Any) -> Net:
        """A net with the same data and settings, but for these and with other layers."""
        return self._net._like(layers, **settings)

    def fingerprint(self) -> str:
        """The same for nets with the same loss function."""
        return self._net._fingerprint()


def _check_loss(loss: Any, last: Activation) -> None:
    if not isinstance(loss, str) or (loss not in LOSSES and "->" not in loss):
        raise InputError(
            f"unknown loss {loss!r}{nearest(str(loss), LOSSES)}; a function of Julia is written as '(f, y) -> …'"
        )
    if (last == "softmax" and loss != "nll") or (loss == "nll" and last not in ("softmax", "identity")):
        raise InputError(
            f"loss={loss!r} and the output activation {last!r} do not fit: 'softmax' needs 'nll', and 'nll' needs "
            "'softmax', or 'identity' for logits"
        )


def _own(array: np.ndarray, given: Any) -> np.ndarray:
    """``array``, or a copy where it is still the user's."""
    return array.copy() if isinstance(given, np.ndarray) and np.may_share_memory(array, given) else array


def _address(array: np.ndarray) -> int:
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))  # 0.4 µs, array.ctypes.data 1.4 µs
    except (TypeError, ValueError):  # read-only, or empty
        return array.__array_interface__["data"][0]


def _not_negative(name: str, value: Any, infinite: bool = False) -> float:
    number = real_number(value)
    if not number >= 0 or (math.isinf(number) and not infinite):
        raise InputError(f"{name} is {value!r}; a{'' if infinite else ' finite'} number that is not negative is needed")
    return number


def _drawn(name: str, draw: Callable[..., Any], shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    drawn = np.asarray(draw(shape, rng))
    if drawn.shape != shape:
        what = "weights" if name == "init" else "biases"
        raise InputError(f"{name} returned shape {drawn.shape} for {what} of shape {shape}")
    return drawn


def _factor(value: Any) -> float:
    number = real_number(value)
    if not math.isfinite(number) or number == 0:
        raise InputError(f"output_factor is {value!r}; a finite number other than 0 is needed")
    return number
