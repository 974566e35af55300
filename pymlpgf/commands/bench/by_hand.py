"""Derivatives as one writes them with NumPy, and scipy.linalg.blas for the symmetric product."""

from __future__ import annotations

from typing import Any

import numpy as np

from .cases import Case

__all__ = ["forward", "gradient", "hessian"]


def activate(f: str, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f(h) and f'(h)."""
    if f == "tanh":
        a = np.tanh(h)
        return a, 1 - a * a
    if f == "relu":
        return np.maximum(h, 0), (h > 0).astype(h.dtype)
    if f in ("sigmoid", "softplus"):
        e = np.exp(-np.abs(h))
        s = np.where(h >= 0, 1, e) / (1 + e)
        return (s, s * (1 - s)) if f == "sigmoid" else (np.maximum(h, 0) + np.log1p(e), s)
    return h, np.ones_like(h)


def bend(f: str, a: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """f''(h), from f(h) and f'(h)."""
    if f == "tanh":
        return -2 * a * slope
    if f == "sigmoid":
        return slope * (1 - 2 * a)
    return slope * (1 - slope) if f == "softplus" else np.zeros_like(a)


def unpack(case: Case, p: np.ndarray) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Weights (width, inputs) and biases of each layer."""
    found, offset = [], 0
    for width, fan_in, _, bias in case.shapes:
        end = offset + width * fan_in
        W = p[offset:end].reshape(width, fan_in)
        offset = end + width * bias
        found.append((W, p[end:offset] if bias else None))
    return found


def forward(case: Case, X: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The outputs (N, O); of classes, the logits."""
    a = X
    for (W, b), (_, f, _) in zip(unpack(case, p), case.layers, strict=True):
        a = activate(f, a @ W.T + (0 if b is None else b))[0]
    return a


def gradient(case: Case, X: np.ndarray, Y: np.ndarray, p: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and gradient."""
    N = len(X)
    weights, activations, slopes = unpack(case, p), [X], []
    for (W, b), (_, f, _) in zip(weights, case.layers, strict=True):
        a, slope = activate(f, activations[-1] @ W.T + (0 if b is None else b))
        activations.append(a)
        slopes.append(slope)
    a = activations[-1]
    if case.loss == "nll":
        delta = np.exp(a - a.max(1, keepdims=True))
        delta /= delta.sum(1, keepdims=True)
        rows = np.arange(N)
        loss = -np.log(delta[rows, Y]).mean()
        delta[rows, Y] -= 1
        delta /= N
    else:
        r = a - Y
        loss = np.vdot(r, r) / N
        delta = r * (2 / N)
    parts: list[np.ndarray] = []
    for i in range(len(weights) - 1, -1, -1):
        W, b = weights[i]
        if case.layers[i][1] not in ("identity", "softmax"):
            delta *= slopes[i]
        if b is not None:
            parts.append(delta.sum(0))
        parts.append((delta.T @ activations[i]).ravel())
        delta = delta @ W if i else delta
    return float(loss), np.concatenate(parts[::-1])


def hessian(case: Case, X: np.ndarray, Y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The Hessian of one hidden layer with biases and one linear output: 2/N (JᵀJ + Σ r ∇²f)."""
    from scipy.linalg import blas

    (W, b), (v, c) = unpack(case, p)
    assert b is not None
    assert c is not None
    N, (k, D) = len(X), W.shape
    f = case.layers[0][1]
    a, slope = activate(f, X @ W.T + b)
    curvature = bend(f, a, slope)
    r = (a @ v.T + c - Y)[:, 0]
    J = np.empty((N, p.size), p.dtype, order="F")
    outer = slope * v
    J[:, : k * D] = (outer[:, :, None] * X[:, None, :]).reshape(N, k * D)
    J[:, k * D : k * D + k] = outer
    J[:, k * D + k : -1] = a
    J[:, -1] = 1
    syrk: Any = blas.dsyrk if p.dtype == np.float64 else blas.ssyrk
    H = syrk(2 / N, J, trans=1, lower=1)
    H = np.tril(H) + np.tril(H, -1).T
    inputs = np.hstack([X, np.ones((N, 1), p.dtype)])
    weighted = (2 / N) * r[:, None]
    squares = (inputs[:, :, None] * inputs[:, None, :]).reshape(N, -1)
    blocks = ((weighted * curvature * v).T @ squares).reshape(k, D + 1, D + 1)
    mixed = (weighted * slope).T @ inputs
    for unit in range(k):
        own = np.r_[unit * D : (unit + 1) * D, k * D + unit]
        H[np.ix_(own, own)] += blocks[unit]
        H[own, k * D + k + unit] += mixed[unit]
        H[k * D + k + unit, own] += mixed[unit]
    return H
