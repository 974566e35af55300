"""SciPy takes the functions of a net, and the result of a run, as they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import OptimizeResult, check_grad, minimize

import pymlpgf as mg


@pytest.fixture(scope="module")
def net():
    X = np.random.default_rng(0).normal(size=(80, 2))
    noise = 0.1 * np.random.default_rng(1).normal(size=80)
    return mg.Net(layers=[(2, "tanh", True), (1, "identity", True)], input=X, target=np.sin(X[:, 0]) + noise, l2=1e-3)


@pytest.mark.parametrize(
    ("method", "derivatives"),
    [
        ("BFGS", ("jac",)),
        ("Newton-CG", ("jac", "hessp")),
        ("trust-krylov", ("jac", "hessp")),
        ("trust-exact", ("jac", "hess")),
    ],
)
def test_minimize_ends_where_ours_does(net, method, derivatives):
    ours = mg.minimize(net, mg.flow(net, net.random_params(seed=0), maxT=100), maxtime_optim=20)
    near = ours.x + 1e-3 * np.random.default_rng(2).normal(size=net.n_params)
    given = {name: {"jac": net.gradient, "hess": net.hessian, "hessp": net.hvp}[name] for name in derivatives}
    found = minimize(net.loss, near, method=method, **given)
    assert abs(found.fun - ours.loss) < 1e-8
    other = ours.to_scipy()
    assert isinstance(other, OptimizeResult)
    assert set(found) & {"x", "fun", "nit", "nfev", "njev", "success", "status", "message"} <= set(other)


def test_value_and_gradient_together(net):
    p = net.random_params(seed=0)
    assert check_grad(net.loss, net.gradient, p.flat) < 1e-6
    found = minimize(net.value_and_gradient, p, jac=True, method="L-BFGS-B", options={"maxiter": 50})
    assert found.fun < net.loss(p)


@pytest.mark.parametrize("method", ["BDF", "Radau"])
def test_solve_ivp_with_the_jacobian(net, method):
    p = net.random_params(seed=0)
    path = solve_ivp(
        lambda t, x: -net.gradient(x), (0, 10), p, method=method, jac=lambda t, x: -net.hessian(x), rtol=1e-8, atol=1e-9
    )
    ours = mg.flow(net, p, maxT=10, alg="Tsit5", abstol=1e-11, reltol=1e-11)
    np.testing.assert_allclose(path.y[:, -1], ours.x, atol=1e-5)
    assert path.njev > 0
