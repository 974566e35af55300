"""PyTorch modules and nets are the same functions of the same vectors."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

import pymlpgf as mg
from pymlpgf.torch import from_module, to_module

NAMED = [
    "relu",
    "softplus",
    "sigmoid",
    "tanh",
    "gelu",
    "silu",
    "selu",
    "sigmoid2",
    "normal_cdf",
    "g",
    "square",
    "cube",
    "exp",
]


def module(dtype=torch.float64, bias=True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 5, bias=bias), nn.Softplus(), nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 2, bias=bias)
    ).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("bias", [True, False])
def test_loss_and_gradient_are_those_of_the_module(dtype, tolerance, bias) -> None:
    m = module(dtype, bias)
    x, y = torch.randn(20, 3, dtype=dtype), torch.randn(20, 2, dtype=dtype)
    net, p = from_module(m, input=x, target=y)
    assert net.dtype == (np.float32 if dtype is torch.float32 else np.float64)
    np.testing.assert_array_equal(p.flat, parameters_to_vector(m.parameters()).detach().numpy())
    loss = ((m(x) - y) ** 2).sum(1).mean()
    loss.backward()
    gradient = torch.cat([q.grad.ravel() for q in m.parameters()]).numpy()
    np.testing.assert_allclose(net.loss(p), loss.item(), rtol=tolerance)
    np.testing.assert_allclose(net.gradient(p), gradient, rtol=0, atol=tolerance * np.abs(gradient).max())


def test_classifier() -> None:
    m = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3), nn.LogSoftmax(dim=1)).double()
    x, y = torch.randn(15, 2, dtype=torch.float64), torch.randint(0, 3, (15,))
    net, p = from_module(m, input=x, target=y)
    np.testing.assert_allclose(net.loss(p), nn.functional.nll_loss(m(x), y).item(), rtol=1e-13)
    back = to_module(net, p)
    np.testing.assert_allclose(back(x).detach(), m(x).detach(), rtol=1e-13)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_there_and_back(name, dtype) -> None:
    net = mg.Net(layers=[(4, name, True), (2, "identity", False)], n_features=3, dtype=dtype)
    p = net.random_params(1)
    m = to_module(net, p)
    x = np.random.default_rng(0).normal(size=(10, 3)).astype(dtype)
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    np.testing.assert_allclose(m(torch.from_numpy(x)).detach().numpy(), net(p, x), rtol=tolerance, atol=tolerance)
    again, q = from_module(m)
    assert again.layers == net.layers
    np.testing.assert_array_equal(q.flat, p.flat)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(2, 1), "module is Linear; an nn.Sequential"),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.1)), "module 1, Dropout.* has no counterpart"),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.GELU(approximate="tanh")), "has no counterpart"),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.Softplus(beta=2)), "has no counterpart"),
        (lambda: nn.Sequential(nn.Tanh(), nn.Linear(2, 3)), "does not follow a Linear"),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.ReLU()), "does not follow a Linear"),
        (lambda: nn.Sequential(), "has no Linear layer"),
        (lambda: nn.Sequential(nn.Linear(2, 3).half()), "float16"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_named(make, message) -> None:
    with pytest.raises(mg.InputError, match=message):
        from_module(make())


def test_units_of_their_own_have_no_module() -> None:
    net = mg.Net(layers=[(2, ("tanh", "relu"), True), (1, "identity", True)], n_features=1)
    with pytest.raises(mg.InputError, match="no counterpart in PyTorch"):
        to_module(net, net.random_params(0))


@pytest.mark.parametrize("first", ["torch", "julia"])
def test_either_may_start_first(run_python, first) -> None:
    run_python(
        f"""
        if {first!r} == "torch":
            import torch
            torch.randn(300, 300) @ torch.randn(300, 300)
        net = make_net()
        p = net.random_params(0)
        net.hessian(p)
        import torch
        from pymlpgf.torch import to_module
        m = to_module(net, p)
        x = torch.randn(50, 1, dtype=torch.float64)
        m(x).sum().backward()
        assert np.allclose(m(x).detach().numpy(), net(p, x.numpy()))
        try:
            torch.randn(2) @ torch.randn(3)      # an exception through C++ frames
        except RuntimeError:
            print("ended")
        """,
        stderr=None,
    )


LLVM_OF_ITS_OWN = r"""
#include <Python.h>
__attribute__((visibility("default"))) void *LLVMContextCreate(void) { return (void *)7; }
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "libtriton", NULL, -1};
PyMODINIT_FUNC PyInit_libtriton(void)
{
    PyObject *module = PyModule_Create(&definition);
    PyModule_AddIntConstant(module, "own", LLVMContextCreate() == (void *)7);
    return module;
}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the embedded Julia")
def test_a_library_with_an_llvm_of_its_own_calls_that(run_python, tmp_path) -> None:
    """PyTorch's CUDA builds load Triton late, which ended in a segmentation fault after Julia had started."""
    compiler = shutil.which("cc")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if compiler is None or not header.exists():
        pytest.skip("no C compiler, or no header of Python")
    folder = tmp_path / "triton" / "_C"
    folder.mkdir(parents=True)
    (tmp_path / "triton" / "__init__.py").touch()
    (tmp_path / "libtriton.c").write_text(LLVM_OF_ITS_OWN)
    command = [compiler, "-shared", "-fPIC", f"-I{header.parent}", "-o", "triton/_C/libtriton.so", "libtriton.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    code = f"""
        mg.init()
        if mg.runtime_info()["host"] == "embedded":
            sys.path.insert(0, {str(tmp_path)!r})
            flags = sys.getdlopenflags()
            from triton._C import libtriton
            assert libtriton.own
            assert sys.getdlopenflags() == flags
        """
    run_python(code, environment={"PYTHONNOUSERSITE": "1"})


@pytest.mark.parametrize("last", [(1, "identity", True), (1, "tanh", False), (3, "softmax", True)])
def test_the_output_factor_is_kept(last, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 2))
    classes = last[1] == "softmax"
    y = rng.integers(0, 3, size=7) if classes else x[:, 0]
    options = {"loss": "nll"} if classes else {}
    net = mg.Net(layers=[(3, "tanh", True), last], input=x, target=y, output_factor=0.5, **options)
    p = net.random_params(seed=1)
    module = to_module(net, p)
    outputs = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(np.exp(outputs) if classes else outputs, net(p), rtol=1e-14)
    np.testing.assert_array_equal(torch.nn.utils.parameters_to_vector(module.parameters()).detach(), p.flat)
    other, q = from_module(module)
    assert other.output_factor == 0.5
    np.testing.assert_array_equal(other(q, x), net(p, x))
    res = mg.minimize(net, p, maxiterations_optim=2, verbosity=0)
    again = to_module(net, p)
    again.load_state_dict(torch.load(res.to_torch(tmp_path / "state.pt")))
    np.testing.assert_array_equal(
        again(torch.from_numpy(x)).detach(), to_module(net, res)(torch.from_numpy(x)).detach()
    )
    with pytest.raises(mg.InputError, match="comes last"):
        from_module(nn.Sequential(*module, nn.Linear(last[0], 1).double()))


def shared_layer():
    shared = nn.Linear(3, 3)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), shared, nn.Tanh(), shared, nn.Softplus(), nn.Linear(3, 1)).double()


def shared_bias():
    module = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    module[2].bias = module[0].bias
    return module


def frozen_bias():
    module = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    module[0].bias.requires_grad_(False)
    return module


@pytest.mark.parametrize("make", [shared_layer, shared_bias, frozen_bias])
def test_shared_and_frozen_parameters_stay_so(make):
    torch.manual_seed(0)
    module = make()
    x, y = torch.randn(20, 2).double(), torch.randn(20, 1).double()
    net, p = from_module(module, input=x, target=y)
    loss = ((module(x) - y) ** 2).sum(1).mean()
    loss.backward()
    trained = [q for q in module.parameters() if q.requires_grad]
    gradient = torch.cat([q.grad.ravel() for q in trained]).numpy()
    assert net.n_params == gradient.size < p.size
    np.testing.assert_array_equal(net.coordinates(p), nn.utils.parameters_to_vector(trained).detach().numpy())
    assert net.loss(p) == pytest.approx(loss.item(), rel=1e-13)
    np.testing.assert_allclose(net.gradient(p), gradient, rtol=1e-11, atol=1e-15)
    res = mg.flow(net, p, maxT=1)
    for q, values in zip(trained, torch.tensor(net.coordinates(res)).split([q.numel() for q in trained]), strict=True):
        q.data = values.reshape(q.shape)
    assert ((module(x) - y) ** 2).sum(1).mean().item() == pytest.approx(res.loss, rel=1e-12)
    assert ((to_module(net, res)(x) - y) ** 2).sum(1).mean().item() == pytest.approx(res.loss, rel=1e-12)


def test_what_parameters_cannot_say_is_refused():
    def refused(module, *parts):
        with pytest.raises(mg.InputError) as error:
            from_module(module)
        assert all(part in str(error.value) for part in parts), error.value

    hooked = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    handle = hooked[1].register_forward_hook(lambda module, x, y: 2 * y)
    refused(hooked, "module 1, Tanh(), has hooks")
    handle.remove()
    hooked.register_forward_pre_hook(lambda module, x: x)
    refused(hooked, "module has hooks")
    refused(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 1))), "module 0", "Parametrized", "remove")
    refused(nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 1))), "module 0", "a weight norm")
