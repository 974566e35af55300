"""The same derivatives by pymlpgf, PyTorch, JAX and MLPGradientFlow.jl."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...network.net import Net
from ...runtime.environment import package
from .cases import Call, Case

__all__ = ["Ours", "agree", "available"]


def repeat(f: Callable[[], object]) -> Call:
    """Seconds of so many calls of ``f``."""

    def call(n: int) -> float:
        begin = time.perf_counter()
        for _ in range(n):
            f()
        return time.perf_counter() - begin

    return call


def start(case: Case) -> np.ndarray:
    """The parameters at which everybody computes; their order is that of PyTorch's ``parameters_to_vector``."""
    return Net(layers=case.layers, n_features=case.features, loss=case.loss).random_params(seed=0).flat


class Ours:
    """This package, called from Python with arrays for the results."""

    name = "pymlpgf"

    def __init__(self, dtype: str = "float64") -> None:
        self._dtype = dtype

    def prepare(self, case: Case) -> dict[str, Any]:
        """A ``Call`` for each quantity, and ``values`` for comparison."""
        X, Y = case.data()
        net = Net(layers=case.layers, input=X, target=Y, loss=case.loss, dtype="float64")
        if self._dtype == "float32":
            Y = Y if case.loss == "nll" else Y.astype("f4")
            net = Net(layers=case.layers, input=X.astype("f4"), target=Y, loss=case.loss, dtype="float32")
        p = net.random_params(seed=0).flat
        v = np.random.default_rng(1).normal(size=net.n_params).astype(p.dtype)
        G, y = np.empty_like(p), np.empty_like(p)
        calls: dict[str, Any] = {
            "gradient": repeat(lambda: net.gradient(p, out=G)),
            "hvp": repeat(lambda: net.hvp(p, v, out=y)),
            "values": {"gradient": lambda: net.gradient(p), "hessian": lambda: net.hessian(p)},
        }
        if case.hessian:
            H = np.empty((net.n_params, net.n_params), p.dtype)
            calls["hessian"] = repeat(lambda: net.hessian(p, out=H))
        return calls


class Torch:
    """``loss.backward()`` of an ``nn.Sequential`` and ``torch.autograd.functional.hessian``, eager."""

    name = "PyTorch"

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float64)
        self._torch = torch

    def prepare(self, case: Case) -> dict[str, Any]:
        """A ``Call`` for each quantity, and ``values`` for comparison."""
        torch, nn = self._torch, self._torch.nn
        kinds = {"softplus": nn.Softplus, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "relu": nn.ReLU}
        modules, fan_in = [], case.features
        for width, activation, bias in case.layers:
            modules.append(nn.Linear(fan_in, width, bias=bias))
            if activation in kinds:
                modules.append(kinds[activation]())
            fan_in = width
        model = nn.Sequential(*modules)
        x, y = map(torch.from_numpy, case.data())
        vector = torch.from_numpy(start(case))
        nn.utils.vector_to_parameters(vector, model.parameters())
        shapes = {name: p.shape for name, p in model.named_parameters()}

        def loss(output: Any) -> Any:
            return nn.functional.cross_entropy(output, y) if case.loss == "nll" else ((output - y) ** 2).sum(1).mean()

        def gradient() -> None:
            model.zero_grad(set_to_none=True)
            loss(model(x)).backward()

        def of_vector(theta: Any) -> Any:
            parts = torch.split(theta, [s.numel() for s in shapes.values()])
            parameters = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
            return loss(torch.func.functional_call(model, parameters, (x,)))

        def hessian() -> Any:
            return torch.autograd.functional.hessian(of_vector, vector)

        def flat_gradient() -> np.ndarray:
            gradient()
            return torch.cat([p.grad.flatten() for p in model.parameters()]).numpy()

        values = {"gradient": flat_gradient, "hessian": lambda: hessian().numpy()}
        calls = {"gradient": repeat(gradient), "values": values}
        return calls if case.heavy else {**calls, "hessian": repeat(hessian)}


class Jax:
    """Jitted ``jax.grad`` and ``jax.hessian`` of the loss of a flat vector."""

    name = "JAX"

    def __init__(self) -> None:
        import jax

        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_platforms", "cpu")
        self._jax = jax

    def prepare(self, case: Case) -> dict[str, Any]:
        """A ``Call`` for each quantity, and ``values`` for comparison."""
        jax, jnp = self._jax, self._jax.numpy
        kinds = {name: getattr(jax.nn, name) for name in ("softplus", "tanh", "sigmoid", "relu", "log_softmax")}
        x, y = map(jnp.asarray, case.data())
        theta = jnp.asarray(start(case))

        def loss(theta: Any) -> Any:
            a, fan_in, offset = x, case.features, 0
            for width, activation, bias in case.layers:
                a = a @ theta[offset : offset + width * fan_in].reshape(width, fan_in).T
                offset += width * fan_in
                if bias:
                    a = a + theta[offset : offset + width]
                    offset += width
                a = kinds.get("log_softmax" if activation == "softmax" else activation, lambda h: h)(a)
                fan_in = width
            if case.loss == "nll":
                return -jnp.take_along_axis(a, y[:, None], 1).mean()
            return ((a - y) ** 2).sum(1).mean()

        gradient, hessian = jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss))
        values = {"gradient": lambda: np.asarray(gradient(theta)), "hessian": lambda: np.asarray(hessian(theta))}
        calls = {"gradient": repeat(lambda: gradient(theta).block_until_ready()), "values": values}
        return calls if case.heavy else {**calls, "hessian": repeat(lambda: hessian(theta).block_until_ready())}


class JuliaProcess:
    """A Julia with MLPGradientFlow.jl, in which it and our Julia package take turns."""

    def __init__(self, julia: str, project: str) -> None:
        script = str(Path(__file__).with_name("peer.jl"))
        self._process = subprocess.Popen(
            [julia, f"--project={project}", "--threads=1", "--startup-file=no", script, str(package())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if self.ask("version") == "":
            raise OSError("it did not start")

    def ask(self, line: str) -> str:
        """What it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


class InJulia:
    """``gradient!`` and ``hessian!`` called from Julia: those of MLPGradientFlow.jl (of the sum of squares) or ours."""

    def __init__(self, process: JuliaProcess, name: str, word: str) -> None:
        self.name, self._process, self._word = name, process, word

    def prepare(self, case: Case) -> dict[str, Any]:
        """A ``Call`` for each quantity of the cases that the peer knows; deep Hessians of it compile for minutes."""
        known = {"softplus", "tanh", "sigmoid", "relu", "identity"}
        deep = len(case.layers) > 3
        if deep or case.loss == "nll" or any(activation not in known for _, activation, _ in case.layers):
            return {}
        layers = " ".join(f"{width},{activation},{str(bias).lower()}" for width, activation, bias in case.layers)
        self._process.ask(f"net {self._word} {case.features} {case.samples} {layers}")

        def call(quantity: str) -> Call:
            return lambda n: float(self._process.ask(f"{quantity} {self._word} {n}"))

        return {"gradient": call("gradient"), "hessian": call("hessian")}


def available(threads: int, peer: list[str] | None, note: Callable[[str], None]) -> list[Any]:
    """The contenders that are installed here; ``note`` is told which are not."""
    found: list[Any] = []
    makers: list[tuple[str, Callable[[], Any]]] = [("torch", lambda: Torch(threads)), ("jax", Jax)]
    for name, make in makers:  # before Julia starts, whose threads the others would not expect
        try:
            found.append(make())
        except ImportError:
            note(f"  {name} is not installed: left out")
    if threads == 1 and peer is None:
        note("  MLPGradientFlow.jl is left out: --peer-julia and --peer-project name a Julia that has it")
    elif threads == 1 and peer is not None:
        try:
            process = JuliaProcess(peer[0], peer[1])
        except OSError as error:
            note(f"  MLPGradientFlow.jl is left out: {error}")
        else:
            found += [InJulia(process, "MLPGradientFlow.jl", "peer"), InJulia(process, "pymlpgf in Julia", "own")]
    return [Ours(), *found]


def agree(case: Case, quantity: str, prepared: dict[str, dict[str, Any]]) -> None:
    """Stop where contenders do not compute the same numbers."""
    ours = prepared["pymlpgf"]["values"].get(quantity)
    for name, calls in prepared.items():
        theirs = calls.get("values", {}).get(quantity)
        if name == "pymlpgf" or ours is None or theirs is None or case.samples > 1000:
            continue
        a, b = ours(), theirs()
        error = np.abs(a - b).max() / np.abs(a).max()
        if not error < 1e-10:
            raise AssertionError(f"{case.name}: {quantity} of {name} differs by {error:.1e}")
