"""A student network learns from a teacher: follow the gradient flow, then land on the minimum."""

import numpy as np

import pymlpgf as mg

# The same numbers as in quickstart.jl: points on a grid, and a teacher with two hidden units.
grid = np.linspace(-2, 2, 21)
X = np.array([(a, b) for a in grid for b in grid])  # (n_samples, n_features) = (441, 2)
Y = np.tanh(X[:, 0] + 0.5 * X[:, 1]) - 0.7 * np.tanh(X[:, 0] - X[:, 1] + 0.3)

net = mg.Net(layers=[(3, "tanh", True), (1, "identity", True)], input=X, target=Y)
p = net.random_params(seed=1)
res = mg.train(net, p, alg="Rodas5P", maxT=100, maxtime_optim=5)
print(res)
print(f"loss {net.loss(p):.6f} -> {res.ode_loss:.6e} -> {res.loss:.3e}, |gradient| = {res.gnorm:.1e}")
print("smallest eigenvalue of the Hessian:", net.hessian_spectrum(res.x)[0][0])
