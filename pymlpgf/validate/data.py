"""Arrays from users: checked, and brought into the form that the Julia core takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import InputError

__all__ = ["common_dtype", "contiguous", "inputs", "is_whole", "numeric", "real_number", "sample_weights", "targets"]


def real_number(value: object) -> float:
    """``value`` if it is a real number, else NaN: no text, no truth value, no array."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def is_whole(value: object) -> bool:
    """Whether ``value`` is an integer of Python's or NumPy's, and no truth value."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def inputs(X: Any, n_features: int | None, dtype: np.dtype) -> np.ndarray:
    """``X`` as (n_samples, n_features), with at least one of both."""
    if X.ndim != 2:
        hint = "; use input.reshape(-1, 1) for one feature" if X.ndim == 1 else ""
        raise InputError(f"input has shape {X.shape}; (n_samples, n_features) is needed{hint}")
    if n_features is not None and X.shape[1] != n_features:
        raise InputError(f"input has shape {X.shape}; (n_samples, {n_features}) is needed")
    if X.size == 0:
        raise InputError(f"input is empty: shape {X.shape}")
    return contiguous("input", X, dtype)


def targets(Y: np.ndarray, samples: int, outputs: int, loss: str, dtype: np.dtype) -> np.ndarray:
    """``Y`` as (n_samples, n_outputs); labels from 0 on as (n_samples,) from 1 on."""
    if loss == "nll" and Y.ndim == 1:
        if Y.shape != (samples,):
            raise InputError(f"target has shape {Y.shape}; ({samples},) labels are needed")
        labels = contiguous("target", Y, np.dtype(np.float64))
        wrong = (labels != np.floor(labels)) | (labels < 0) | (labels >= outputs)
        if wrong.any():
            raise InputError(
                f"target has the label {Y[wrong][0]}; labels are whole numbers from 0 to {outputs - 1}, one for each "
                "unit of the output layer"
            )
        return np.ascontiguousarray(labels + 1, dtype)
    shape = Y.shape
    if Y.ndim == 1 and outputs == 1:
        Y = Y.reshape(-1, 1)
    if Y.shape != (samples, outputs):
        raise InputError(
            f"target has shape {shape}; {(samples, outputs)} is needed for {samples} samples and an output layer of "
            f"width {outputs}"
        )
    if loss == "nll" and (Y < 0).any():
        raise InputError("target holds negative probabilities")
    if loss == "correlation":
        for output in np.flatnonzero(np.ptp(Y, axis=0) == 0):
            raise InputError(f"target is the same in all samples for output {output}: nothing correlates with it")
    return contiguous("target", Y, dtype)


def sample_weights(weights: Any, samples: int, dtype: np.dtype) -> np.ndarray | None:
    """``weights`` as (n_samples,), or None."""
    if weights is None:
        return None
    given = numeric("weights", weights)
    if given.shape != (samples,):
        raise InputError(f"weights has shape {given.shape}; ({samples},) is needed, one for each sample")
    w = contiguous("weights", given, dtype)
    if not (w >= 0).all():
        raise InputError("weights must not be negative")
    if not w.any():
        raise InputError("weights are all zero: no sample counts")
    return w


def numeric(name: str, value: Any) -> np.ndarray:
    """``value`` as an array of real numbers; what would lose something on the way is refused by name."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        count = int(np.ma.getmaskarray(value).sum())
        raise InputError(
            f"{name} is masked in {count} {'entry' if count == 1 else 'entries'}, which would count as data: fill them,"
            " or leave those samples out"
        )
    if getattr(value, "requires_grad", False) is True:
        raise InputError(f"{name} is a tensor that requires a gradient: give {name}.detach()")
    if hasattr(value, "columns") and hasattr(value, "dtypes"):
        return _frame(name, value)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} is not an array: {error}") from None
    if array.dtype == object and hasattr(value, "dtype") and not isinstance(value, np.ndarray):  # a nullable series
        array = _column(name, value)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {array.dtype}; real numbers are needed")
    return array


def _frame(name: str, frame: Any) -> np.ndarray:
    """A frame of pandas or polars: its columns one by one, so that the one that is no good can be named."""
    columns = [_column(f"the column {column!r} of {name}", frame[column]) for column in frame.columns]
    return np.stack(columns, axis=1) if columns else np.empty((len(frame), 0))


def _column(what: str, column: Any) -> np.ndarray:
    array = np.asarray(column)
    if array.dtype != object:
        if array.dtype.kind == "f" and (bad := array.size - np.count_nonzero(np.isfinite(array))):
            raise InputError(f"{what} contains {bad} NaN or infinite {'entry' if bad == 1 else 'entries'}")
        if array.dtype.kind in "fiub":
            return array
        raise InputError(f"{what} has dtype {array.dtype}; real numbers are needed")
    values = [real_number(float(v) if isinstance(v, (bool, np.bool_)) else v) for v in array]
    for row, (value, number) in enumerate(zip(array, values, strict=True)):
        if math.isnan(number):
            raise InputError(f"{what} holds {value!r} in row {row}; real numbers are needed")
    converted = np.array(values)
    if any(isinstance(v, (int, np.integer)) and int(number) != v for v, number in zip(array, values, strict=True)):
        raise InputError(f"{what} holds whole numbers that float64 cannot represent")
    return converted


def common_dtype(dtype: Any, *arrays: np.ndarray) -> np.dtype:
    """What the user asks for, else float32 where all ``arrays`` are, else float64."""
    if dtype is None:
        return np.dtype(np.float32 if arrays and all(a.dtype == np.float32 for a in arrays) else np.float64)
    try:
        wanted = None if isinstance(dtype, str) and not dtype.isprintable() else np.dtype(dtype)  # "\x0c" is number 12
    except Exception:  # what NumPy raises depends on how little it can make of it
        wanted = None
    if wanted not in (np.float32, np.float64):
        raise InputError(f"dtype is {dtype!r}; 'float64' or 'float32' is needed")
    return wanted


def contiguous(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
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
