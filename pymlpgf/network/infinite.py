"""Teacher and student in the limit of infinitely many standard normal inputs."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from .. import runtime
from ..errors import InputError
from ..validate.data import is_whole, real_number
from ..validate.suggest import suggest_keywords
from .activations import Activation
from .constraints import ConstrainedNet
from .net import Net, _address
from .params import ParametersLike
from .teacher import TeacherNet

__all__ = ["InfiniteNet", "gauss_hermite_net"]


class InfiniteNet(Net):
    """The population loss of a student and a teacher under standard normal inputs.

    L(θ) = E ‖student(x; θ) − teacher(x)‖² + R(θ) with x ~ N(0, I): no samples, no sampling noise. It goes wherever a
    ``Net`` goes that needs no data of its own: ``train``, ``flow``, ``minimize``, and all derivatives.

    Parameters
    ----------
    teacher : TeacherNet
    student : Net or sequence of (width, activation, bias)
        Its regularisers and output factor count, its data do not. Both have one hidden layer and the activation
        "identity" in the output layer; widths, biases and hidden activations are free, and may differ.

    Raises
    ------
    InputError
        If teacher or student are something else, or their inputs or outputs do not fit.

    Notes
    -----
    The loss depends on the weights through norms, overlaps and biases only: the cost grows with the number of pairs
    of hidden units, not with samples, and with the dimension as inner products do. relu, sigmoid2, normal_cdf, exp and
    polynomials have closed forms; for others the error of loss and gradient is below 1e-10, that of the Hessian
    below 1e-8 of E‖student‖² + E‖teacher‖², for weight norms up to 10 and biases up to ±10.
    ``on``, ``loss(p, input, target)`` and their like use the student on finite data.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> layers = [(2, "relu", False), (1, "identity", False)]
    >>> teacher = mg.TeacherNet(layers=layers, params=[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], n_features=2)
    >>> net = mg.InfiniteNet(teacher, layers)
    >>> round(net.loss([0.0] * 6), 12)                # E (relu(x₁) + relu(x₂))² = 1 + 1/π
    1.318309886184
    """

    @suggest_keywords
    def __init__(self, teacher: TeacherNet, student: Net | Sequence[tuple[int, Activation, bool]]) -> None:
        if not isinstance(teacher, TeacherNet):
            raise InputError(f"teacher is {type(teacher).__name__}; a pymlpgf.TeacherNet is needed")
        if isinstance(student, ConstrainedNet):
            raise InputError("the student is constrained: constrain the InfiniteNet of student.unconstrained instead")
        if not isinstance(student, Net):
            student = Net(student, n_features=teacher.net.n_features, dtype=teacher.net.dtype)
        for who, net in (("teacher", teacher.net), ("student", student)):
            if len(net.layers) != 2 or net.layers[-1][1] != "identity" or net._loss != "mse":
                raise InputError(
                    f"the {who} has the layers {net.layers} and the loss {net._loss!r}; infinite data need one hidden "
                    "layer, an output layer with the activation 'identity' and the loss 'mse'"
                )
        shapes = [(net.n_features, net.n_outputs) for net in (teacher.net, student)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"the teacher has {shapes[0][0]} inputs and {shapes[0][1]} outputs, the student {shapes[1][0]} and "
                f"{shapes[1][1]}"
            )
        self.__dict__.update(student.__dict__)
        self._teacher, self._student, self._n_samples = teacher, student, 0
        self._connect()

    def _connect(self) -> None:
        teacher, student = self._teacher, self._student
        self._bridge = student._bridge
        parameters = np.ascontiguousarray(teacher.params.flat, teacher.net.dtype)
        self._handle = self._bridge.infinite_net(teacher.net._handle, _address(parameters), student._handle)
        weakref.finalize(self, self._bridge.release_later, self._handle)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256((super()._fingerprint() + self._teacher.net._fingerprint()).encode())
        digest.update(self._teacher.params.flat.tobytes())
        return digest.hexdigest()

    def _like(self, layers: Sequence[tuple[int, Activation, bool]] | None = None, **settings: Any) -> Net:
        return InfiniteNet(self._teacher, self._student._like(layers, **settings))

    @property
    def teacher(self) -> TeacherNet:
        """The teacher."""
        return self._teacher

    @property
    def student(self) -> Net:
        """The student, which has no data, or its own."""
        return self._student

    def on(self, input: ArrayLike, target: ArrayLike | None = None, weights: ArrayLike | None = None) -> Net:
        """The student on finite data, with its regularisers; the teacher makes the target unless it is given."""
        return self._student.on(input, self._teacher(input) if target is None else target, weights)

    def replace(self, **settings: Any) -> InfiniteNet:
        """The same teacher, and a student with other settings, as ``Net.replace``."""
        return InfiniteNet(self._teacher, self._student.replace(**settings))

    def jacobian(self, p: ParametersLike) -> NoReturn:
        """Needs samples: ``net.on(input).jacobian(p)``."""
        raise InputError("infinite data have no Jacobian of outputs: use net.on(input).jacobian(p)")

    def gauss_newton(self, p: ParametersLike) -> NoReturn:
        """Needs samples: ``net.on(input).gauss_newton(p)``."""
        raise InputError("infinite data have no Gauss-Newton matrix here: use net.on(input).gauss_newton(p)")

    def tangent_kernel(self, p: ParametersLike) -> NoReturn:
        """Needs samples: ``net.on(input).tangent_kernel(p)``."""
        raise InputError("infinite data have no tangent kernel: use net.on(input).tangent_kernel(p)")

    def __repr__(self) -> str:
        return f"InfiniteNet(teacher {self._teacher.net.layers}, student {self.layers}; {self.n_features} inputs)"


@suggest_keywords
def gauss_hermite_net(
    target: Callable[[np.ndarray], ArrayLike] | TeacherNet, net: Net, order: int = 30, threshold: float = 1e-20
) -> Net:
    """``net`` on Gauss–Hermite nodes as weighted samples: its loss is an expectation over standard normal inputs.

    Parameters
    ----------
    target : TeacherNet or function
        Maps inputs (n_samples, n_features) to targets (n_samples, n_outputs), or (n_samples,) for one output.
    net : Net
        Any network with few inputs; its layers, loss and regularisers are used.
    order : int
        Nodes in each dimension: exact where the loss of a sample is a polynomial of degree up to 2·order − 1 in each
        input.
    threshold : float
        Nodes whose weight is below this part of the largest are left out. At most 10⁷ nodes may remain, for memory and
        time: with 6 inputs that allows an order of 16, with 8 inputs one of 7, with 10 inputs one of 5.

    Raises
    ------
    InputError
        For more nodes than that (it says which order or threshold has fewer), a threshold outside [0, 1), or an order
        that is no whole number from 1 to 1000.

    Notes
    -----
    For more inputs: an ``InfiniteNet``, if there is one hidden layer, or normal samples, whose mean converges as the
    square root of their number in any dimension. Sparse grids (Smolyak) are no better than product rules for nets: with
    some 5000 nodes in 4 dimensions the mean square of three tanh units of norm 1 is off by 1e-4, by the product rule
    with 4100 by 7e-6; and their negative weights leave a loss without a lower bound.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(1, "identity", False)], n_features=1)
    >>> round(mg.gauss_hermite_net(lambda x: x**3, net, order=4).loss([0.0]), 12)        # E x⁶
    15.0
    """
    if not isinstance(net, Net):
        raise InputError(f"net is {type(net).__name__}; a pymlpgf.Net is needed")
    if not callable(target):
        raise InputError(f"target is {type(target).__name__}; a pymlpgf.TeacherNet or a function is needed")
    if not is_whole(order) or not 1 <= order <= 1000:
        raise InputError(f"order is {order!r}; a whole number from 1 to 1000 is needed")
    bridge = runtime.start()
    if not 0 <= (least := real_number(threshold)) < 1:
        raise InputError(f"threshold is {threshold!r}; a number from 0 to below 1 is needed")
    options: dict[str, object] = {"n_features": net.n_features, "order": int(order), "threshold": least}
    X, w = bridge.tool(0, "gauss_hermite", options, [], lambda answer: bridge.fields(answer, ("X", "w")))
    X = X.astype(net.dtype)
    return net.on(X, target(X), (len(w) * w).astype(net.dtype))
