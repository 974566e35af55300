"""To and from PyTorch: the parameters of an ``nn.Sequential`` are those of a ``Net``, in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from .errors import InputError
from .network.activations import Activation, check_layers
from .network.constraints import ConstrainedNet, parameters_of
from .network.net import Net
from .network.params import ParametersLike, Params

__all__ = ["from_module", "to_module"]


def _exact_gelu() -> nn.Module:
    return nn.GELU(approximate="none")


MODULES: dict[str, Any] = {
    "relu": nn.ReLU, "softplus": nn.Softplus, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": _exact_gelu,
    "silu": nn.SiLU, "selu": nn.SELU,
}  # fmt: skip


class _Elementwise(nn.Module):
    """An activation that PyTorch has no module for."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The activation of each entry."""
        if self.name == "sigmoid2":
            return torch.erf(x * 0.5**0.5)
        if self.name == "normal_cdf":
            return torch.special.ndtr(x)
        if self.name == "g":
            return torch.sigmoid(4 * x) + nn.functional.softplus(x)
        return {"square": x**2 / 2, "cube": x**3, "exp": torch.exp(x)}[self.name]

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return self.name


class _Scale(nn.Module):
    """Outputs multiplied by a fixed factor: the ``output_factor`` of a net. A buffer, so that state_dicts have it."""

    factor: torch.Tensor

    def __init__(self, factor: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each entry times the factor."""
        return self.factor * x

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"{self.factor.item():g}"


def from_module(module: nn.Sequential, **data: Any) -> tuple[Net, Params]:
    """A ``Net`` like ``module``, and parameters with its values.

    Parameters
    ----------
    module : nn.Sequential
        Linear layers, each followed by at most one activation: ReLU, Softplus (its default), Sigmoid, Tanh, GELU
        (exact), SiLU, SELU, Identity, or what ``to_module`` makes. LogSoftmax or Softmax may stand at the end, which
        makes it a net with ``loss="nll"``; logits at the end go with ``loss="nll"`` among ``data``.
    data
        Passed on to ``Net``: ``input``, ``target``, ``weights``, ``l2``, … ``input`` and ``target`` may be tensors.

    Returns
    -------
    net, params
        ``params.flat`` equals ``torch.nn.utils.parameters_to_vector(module.parameters())``, in the module's dtype.
        Parameters that layers share, or that do not require a gradient, make it a ``ConstrainedNet``, whose derivatives
        are by the parameters that PyTorch has and trains, in the order of ``module.parameters()``; ``params.flat`` then
        has shared ones once for each layer.

    Raises
    ------
    InputError
        For a module that has no counterpart; the message names it.

    Examples
    --------
    >>> import torch
    >>> from pymlpgf.torch import from_module
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)).double()
    >>> net, p = from_module(module)
    >>> x = torch.randn(5, 2, dtype=torch.float64)
    >>> bool(abs(net(p, x.numpy()) - module(x).detach().numpy()).max() < 1e-14)
    True
    """
    if not isinstance(module, nn.Sequential):
        raise InputError(f"module is {type(module).__name__}; an nn.Sequential is needed")
    layers: list[list[Any]] = []
    values, n_features = [], 0
    _refuse_more_than_parameters(module)
    factor: float | None = None
    places: dict[int, list[str]] = {}  # of each parameter in the flat vector
    frozen, position = [], 0
    for number, part in enumerate(module):
        if factor is not None and not isinstance(part, (nn.Softmax, nn.LogSoftmax)):
            raise InputError(f"module {number}, {part}, follows the factor of the outputs, which comes last")
        if isinstance(part, _Scale) and layers:
            factor = part.factor.item()
            data.setdefault("output_factor", factor)
            continue
        if isinstance(part, nn.Linear):
            if not layers:
                n_features = part.in_features
            layers.append([part.out_features, None, part.bias is not None])
            for parameter in part.parameters():
                values.append(parameter.detach().cpu().numpy().ravel())
                place = f"p[{position}:{position + parameter.numel()}]"
                position += parameter.numel()
                places.setdefault(id(parameter), []).append(place)
                frozen += [] if parameter.requires_grad else [place]
            continue
        name = _name(part)
        if name is None or not layers or layers[-1][1] is not None:
            where = "has no counterpart in pymlpgf" if name is None else "does not follow a Linear"
            raise InputError(f"module {number}, {part}, {where}; Linear layers with one activation each are needed")
        layers[-1][1] = name
    if not layers:
        raise InputError("module has no Linear layer")
    specs = [(width, activation or "identity", bias) for width, activation, bias in layers]
    dtypes = {value.dtype for value in values}
    if len(dtypes) > 1 or dtypes - {np.dtype("f4"), np.dtype("f8")}:
        raise InputError(f"module has parameters of {', '.join(map(str, dtypes))}; float32 or float64 is needed")
    data = {name: value.detach().cpu().numpy() if torch.is_tensor(value) else value for name, value in data.items()}
    if data.get("input") is None:
        data["n_features"] = n_features
    loss = "nll" if specs[-1][1] == "softmax" else "mse"
    net = Net(layers=specs, **{"loss": loss, "dtype": dtypes.pop(), **data})
    p = net.params(np.concatenate(values))
    tied = [tuple(group) for group in places.values() if len(group) > 1]
    return (ConstrainedNet(net, p, freeze=frozen, tie=tied) if frozen or tied else net), p


def _refuse_more_than_parameters(module: nn.Sequential) -> None:
    """Refuse what parameters cannot say: hooks, reparametrisations."""
    if _has_hooks(module):
        raise InputError("module has hooks, which would be ignored: remove them")
    for number, part in enumerate(module):
        if isinstance(part, nn.Linear) and (type(part) is not nn.Linear or hasattr(part, "weight_g")):
            kind = "a weight norm" if hasattr(part, "weight_g") else f"a {type(part).__name__}"
            raise InputError(
                f"module {number} is {kind}, whose weights are made from other parameters: remove it "
                "(torch.nn.utils.parametrize.remove_parametrizations or remove_weight_norm), or give a plain nn.Linear"
            )
        if _has_hooks(part):
            raise InputError(f"module {number}, {part}, has hooks, which would be ignored: remove them")


def _has_hooks(part: nn.Module) -> bool:
    return any(getattr(part, f"_{kind}_hooks", None) for kind in ("forward", "forward_pre", "backward", "backward_pre"))


def _name(part: nn.Module) -> str | None:
    if isinstance(part, _Elementwise):
        return part.name
    if isinstance(part, nn.Identity):
        return "identity"
    if isinstance(part, (nn.Softmax, nn.LogSoftmax)):
        return "softmax" if part.dim in (1, -1) else None
    if isinstance(part, nn.Softplus) and (part.beta != 1 or part.threshold < 20):
        return None
    if isinstance(part, nn.GELU) and part.approximate != "none":
        return None
    return next((name for name, kind in MODULES.items() if isinstance(kind, type) and type(part) is kind), None) or (
        "gelu" if type(part) is nn.GELU else None
    )


def to_module(net: Net, p: ParametersLike) -> nn.Sequential:
    """An ``nn.Sequential`` like ``net`` with the values ``p``, in the net's dtype.

    A softmax output becomes LogSoftmax; a net's ``output_factor`` a module that multiplies, without parameters. What is
    tied or frozen in a ``ConstrainedNet`` becomes parameters of their own.

    Raises
    ------
    InputError
        For units with different activations in one layer, a ``Poly`` or a Julia function.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> from pymlpgf.torch import to_module
    >>> net = mg.Net(layers=[(3, "softplus", True), (1, "identity", False)], n_features=2)
    >>> to_module(net, net.random_params(0))
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): Softplus(beta=1.0, threshold=20.0)
      (2): Linear(in_features=3, out_features=1, bias=False)
    )
    """
    dtype = torch.float32 if net.dtype == np.float32 else torch.float64
    parts: list[nn.Module] = []
    fan_in = net.n_features
    for width, activation, bias in check_layers(net.layers):
        parts.append(nn.Linear(fan_in, width, bias=bias, dtype=dtype))
        if activation == "softmax" and net.output_factor != 1:
            parts.append(_Scale(net.output_factor, dtype))
        if activation != "identity":
            parts.append(_module(activation))
        fan_in = width
    if net.output_factor != 1 and net.layers[-1][1] != "softmax":
        parts.append(_Scale(net.output_factor, dtype))
    module = nn.Sequential(*parts)
    flat = parameters_of(net, p)
    nn.utils.vector_to_parameters(torch.from_numpy(flat.copy()), module.parameters())
    return module


def _module(activation: Activation) -> nn.Module:
    if activation == "softmax":
        return nn.LogSoftmax(dim=-1)
    if isinstance(activation, str) and activation in MODULES:
        return MODULES[activation]()
    if activation in ("sigmoid2", "normal_cdf", "g", "square", "cube", "exp"):
        return _Elementwise(str(activation))
    raise InputError(f"the activation {activation!r} has no counterpart in PyTorch")
