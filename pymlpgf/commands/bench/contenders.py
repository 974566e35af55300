"""The same derivatives by pymlpgf, NumPy by hand, PyTorch, JAX, SimpleChains.jl and MLPGradientFlow.jl.

A contender has ``prepare(case, dtype)``: (name, quantity) -> a ``Form``, or why it is left out for that case.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...network.net import Net
from ...runtime.environment import package
from .by_hand import gradient, hessian
from .cases import Case

__all__ = [
    "Call",
    "Form",
    "Jax",
    "Ours",
    "Prepared",
    "Torch",
    "agree",
    "available",
    "jax_loss",
    "jax_outputs",
    "load_jax",
    "torch_loss",
]

Call = Callable[[int], float]  # seconds of so many calls
Clock = Callable[[], float]

#: more than this is not given to automatic Hessians, which hold several times as much
LARGEST_TANGENTS = 1_000_000_000


class Form(NamedTuple):
    """How a quantity is computed: the seconds of so many calls, and its value for comparison where it is at hand."""

    call: Call
    value: Callable[[], np.ndarray] | None = None


Prepared = dict[tuple[str, str], Form | str]


def repeat(f: Callable[[], object], clock: Clock = time.process_time) -> Form:
    """The form whose call is ``f``. One thread is measured in CPU time, which other processes disturb less."""

    def call(n: int) -> float:
        begin = clock()
        for _ in range(n):
            f()
        return clock() - begin

    return Form(call, lambda: np.asarray(f()))


def direction(case: Case, dtype: str) -> np.ndarray:
    """The vector of the Hessian-vector products."""
    return np.random.default_rng(1).normal(size=case.n_params).astype(dtype)


class Ours:
    """This package, called from Python with arrays for the results."""

    def __init__(self, clock: Clock = time.process_time) -> None:
        self._clock = clock

    def prepare(self, case: Case, dtype: str) -> Prepared:
        """Its forms."""
        X, Y = case.data(dtype)
        net = Net(layers=case.layers, input=X, target=Y, loss=case.loss, dtype=dtype)
        p, v = case.start(dtype), direction(case, dtype)
        G, y = np.empty_like(p), np.empty_like(p)
        forms: Prepared = {
            ("pymlpgf", "gradient"): repeat(lambda: net.gradient(p, out=G), self._clock),
            ("pymlpgf", "hvp"): repeat(lambda: net.hvp(p, v, out=y), self._clock),
        }
        if case.hessian:
            H = np.empty((net.n_params, net.n_params), p.dtype)
            forms["pymlpgf", "hessian"] = repeat(lambda: net.hessian(p, out=H), self._clock)
        return forms


class Numpy:
    """Loss and gradient, and Hessians of one hidden layer through dsyrk, written by hand for NumPy and SciPy."""

    def prepare(self, case: Case, dtype: str) -> Prepared:
        """Its forms."""
        X, Y = case.data(dtype)
        p = case.start(dtype)
        forms: Prepared = {("NumPy", "gradient"): repeat(lambda: gradient(case, X, Y, p)[1])}
        one_layer = len(case.layers) == 2 and case.layers[-1] == (1, "identity", True) and case.layers[0][2]
        if one_layer and case.hessian:
            forms["NumPy + dsyrk", "hessian"] = repeat(lambda: hessian(case, X, Y, p))
        return forms


def torch_loss(torch: Any, case: Case, x: Any, y: Any) -> Callable[[Any], Any]:
    """The loss of a flat tensor of parameters, for data in tensors."""
    F = torch.nn.functional
    kinds = {"softplus": F.softplus, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}
    sizes = [size for width, fan_in, _, bias in case.shapes for size in (width * fan_in, width * bias)]

    def loss(theta: Any) -> Any:
        parts, a = torch.split(theta, sizes), x
        for i, (width, fan_in, activation, bias) in enumerate(case.shapes):
            a = F.linear(a, parts[2 * i].view(width, fan_in), parts[2 * i + 1] if bias else None)
            a = kinds[activation](a) if activation in kinds else a
        return F.cross_entropy(a, y) if case.loss == "nll" else ((a - y) ** 2).sum(1).mean()

    return loss


class Torch:
    """``backward()`` and ``torch.func``, eager, and the same through ``torch.compile``."""

    def __init__(self, compiled: bool = True) -> None:
        import torch

        torch.set_num_threads(1)
        self._torch, self._compiled = torch, compiled

    def compiles(self) -> str:
        """Why ``torch.compile`` does not work here, or nothing."""
        torch = self._torch
        try:
            torch.compile(lambda x: torch.sin(x) + 1)(torch.ones(3))
        except Exception as error:  # of the compiler, the linker or the loader, in whatever class torch puts them
            return str(error).strip().splitlines()[0]
        return ""

    def prepare(self, case: Case, dtype: str) -> Prepared:
        """Its forms."""
        torch, func = self._torch, self._torch.func
        x, y = map(torch.from_numpy, case.data(dtype))
        theta, v = torch.from_numpy(case.start(dtype)), torch.from_numpy(direction(case, dtype))
        leaf = theta.clone().requires_grad_()
        loss = torch_loss(torch, case, x, y)

        def backward() -> Any:
            leaf.grad = None
            loss(leaf).backward()
            return leaf.grad

        def hvp(theta: Any, v: Any) -> Any:
            return func.jvp(func.grad(loss), (theta,), (v,))[1]

        forms: Prepared = {
            ("PyTorch", "gradient"): repeat(backward),
            ("PyTorch", "hvp"): repeat(lambda: hvp(theta, v)),
        }
        if case.hessian:
            forms["PyTorch", "hessian"] = fitting(case, lambda: func.hessian(loss)(theta))
        if self._compiled:
            torch._dynamo.reset()  # the compiler gives up after eight shapes of one function
            fast, product, square = (
                torch.compile(f, dynamic=False)
                for f in (func.grad_and_value(loss), hvp, func.jacrev(func.jacrev(loss)))
            )
            forms["torch.compile", "gradient"] = repeat(lambda: fast(theta)[0])
            forms["torch.compile", "hvp"] = repeat(lambda: product(theta, v))
            if case.hessian:
                forms["torch.compile", "hessian"] = fitting(case, lambda: square(theta))
        return forms


def jax_outputs(jax: Any, case: Case, x: Any) -> Callable[[Any], Any]:
    """The outputs (O, N) by a flat array of parameters: samples in columns, which XLA computes faster."""
    nn = jax.nn
    kinds = {"softplus": nn.softplus, "tanh": nn.tanh, "sigmoid": nn.sigmoid, "relu": nn.relu}

    def outputs(theta: Any) -> Any:
        a, offset = x.T, 0
        for width, fan_in, activation, bias in case.shapes:
            a = theta[offset : offset + width * fan_in].reshape(width, fan_in) @ a
            offset += width * fan_in
            if bias:
                a = a + theta[offset : offset + width, None]
                offset += width
            a = kinds[activation](a) if activation in kinds else a
        return a

    return outputs


def load_jax() -> Any:
    """JAX, with float64 and on the processor."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    return jax


def jax_loss(jax: Any, case: Case, x: Any, y: Any) -> Callable[[Any], Any]:
    """The loss of a flat array of parameters."""
    outputs = jax_outputs(jax, case, x)

    def loss(theta: Any) -> Any:
        a = outputs(theta)
        if case.loss == "nll":
            return -jax.numpy.take_along_axis(jax.nn.log_softmax(a, 0), y[None], 0).mean()
        return ((a - y.T) ** 2).sum(0).mean()

    return loss


class Jax:
    """Jitted gradients, products, ``jax.hessian`` and the Hessian column by column, of a flat vector."""

    def __init__(self) -> None:
        self._jax = load_jax()

    def prepare(self, case: Case, dtype: str) -> Prepared:
        """Its forms."""
        jax, jnp = self._jax, self._jax.numpy
        x, y = map(jnp.asarray, case.data(dtype))
        theta, v = jnp.asarray(case.start(dtype)), jnp.asarray(direction(case, dtype))
        loss = jax_loss(jax, case, x, y)
        both, square = jax.jit(jax.value_and_grad(loss)), jax.jit(jax.hessian(loss))

        def hvp(theta: Any, v: Any) -> Any:
            return jax.jvp(jax.grad(loss), (theta,), (v,))[1]

        product = jax.jit(hvp)
        columns = jax.jit(lambda theta: jax.vmap(lambda e: hvp(theta, e))(jnp.eye(theta.size, dtype=theta.dtype)))
        forms: Prepared = {
            ("JAX", "gradient"): repeat(lambda: jax.block_until_ready(both(theta))[1]),
            ("JAX", "hvp"): repeat(lambda: product(theta, v).block_until_ready()),
        }
        if case.hessian:
            forms["JAX", "hessian"] = fitting(case, lambda: square(theta).block_until_ready())
            forms["JAX vmap(jvp(grad))", "hessian"] = fitting(case, lambda: columns(theta).block_until_ready())
        return forms


def fitting(case: Case, f: Callable[[], object]) -> Form | str:
    """The form of an automatic Hessian, unless that would fill the memory."""
    return repeat(f) if case.tangents <= LARGEST_TANGENTS else "memory"


class JuliaProcess:
    """A Julia with SimpleChains.jl or MLPGradientFlow.jl, in which they and our Julia package take turns."""

    def __init__(self, julia: str, project: str) -> None:
        script = str(Path(__file__).with_name("peer.jl"))
        self._process = subprocess.Popen(
            [julia, f"--project={project}", "--threads=1", "--startup-file=no", script, str(package())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.packages = self.ask("packages").split()
        if not self.packages:
            raise OSError("it did not start")

    def ask(self, line: str) -> str:
        """What it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def prepare(self, case: Case, dtype: str) -> Prepared:
        """The forms of all packages that know the case."""
        layers = " ".join(f"{width},{activation},{str(bias).lower()}" for width, activation, bias in case.layers)
        forms: Prepared = {}
        for name in self.packages:
            quantities = self.ask(f"net {name} {dtype} {case.features} {case.samples} {case.loss} {layers}").split()
            for quantity in quantities:
                if quantity != "hessian" or case.hessian:
                    forms[name, quantity] = Form(self._call(name, quantity))
        return forms

    def _call(self, name: str, quantity: str) -> Call:
        return lambda n: float(self.ask(f"{quantity} {name} {n}"))


def available(peer: list[str] | None, compiled: bool, note: Callable[[str], None]) -> list[Any]:
    """The contenders that are installed here; ``note`` is told which are not."""
    found: list[Any] = []
    makers: list[tuple[str, Callable[[], Any]]] = [("torch", lambda: Torch(compiled)), ("jax", Jax)]
    for name, make in makers:  # before Julia starts, whose threads the others would not expect
        try:
            found.append(make())
        except ImportError:
            note(f"  {name} is not installed: left out")
    if not compiled:
        note("  torch.compile is left out of --quick: it takes ten seconds for each network")
    elif found and isinstance(found[0], Torch) and (reason := found[0].compiles()):
        note(f"  torch.compile is left out, since it cannot compile here: {reason}")
        found[0] = Torch(compiled=False)
    if peer is None:
        note("  SimpleChains.jl and MLPGradientFlow.jl are left out: --peer-julia names a Julia that has one of them")
    else:
        try:
            found.append(JuliaProcess(peer[0], peer[1]))
        except OSError as error:
            note(f"  the packages of {peer[0]} are left out: {error}")
    return [Ours(), Numpy(), *found]


def agree(case: Case, dtype: str, quantity: str, forms: dict[str, Form]) -> None:
    """Stop where contenders do not compute the same numbers."""
    ours = forms["pymlpgf"].value
    if ours is None or case.samples > 1000:
        return
    a = np.array(ours())
    for name, form in forms.items():
        if name != "pymlpgf" and form.value is not None:
            error = np.abs(a - form.value()).max() / np.abs(a).max()
            if not error < (1e-10 if dtype == "float64" else 1e-4):
                raise AssertionError(f"{case.name}: {quantity} of {name} differs by {error:.1e}")
