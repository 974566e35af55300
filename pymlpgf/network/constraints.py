"""Parameters that are not free: frozen ones, tied ones, θ = B z + c."""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..validate.data import is_whole, numeric
from ..validate.suggest import suggest_keywords
from .net import Net
from .params import ParametersLike, Params

__all__ = [
    "ConstrainedNet",
    "carried",
    "constrained",
    "constraint_of",
    "nearest_point",
    "parameters_of",
    "rewired",
    "split",
]

# As border_constraint in julia/src/interface/c_solve.jl reads it: `freeze` and `tie` as the keywords take them, or B by
# columns, and c.
Rule = dict[str, Any]

ENTRY = re.compile(r"-?p\[(\d+)\]")
NAME = re.compile(r"\s*([+-]?)\s*([wb]\d+|p)\s*(?:\[(.*)\])?\s*")
SLICE = re.compile(r"\s*([+-]?\d+)?\s*(?:(:)\s*([+-]?\d+)?\s*(?::\s*([+-]?\d+)?\s*)?)?")


class ConstrainedNet(Net):
    """A net on the points θ = B z + c that a constraint leaves: a function of the coordinates z.

    Gradients are Bᵀg and Hessians BᵀHB, and everything else that a ``Net`` has is by z, too. Solvers and ``classify``
    take it as they take a net with ``freeze``, ``tie`` or ``constraint``: their results are θ.

    Parameters
    ----------
    net : Net or InfiniteNet
    p : array of shape (net.n_params,), Params or TrainResult, optional
        The values of parameters that are frozen.
    freeze : name, index, mask, or a sequence of names and indices, optional
        What keeps its value in ``p``. Names are "w1", "b1", "w2", … as in ``Params``, or parts of these such as
        "w1[0]", "w2[:, 3]"; "p[7]" and the index 7 are the parameter 7 of the flat vector. A mask (n_params,) is true
        where parameters are frozen.
    tie : sequence of groups, optional
        A group is a sequence of names or indices of parameters that are equal, entry by entry:
        ``tie=[("w1[0]", "w1[1]")]``. A minus sign means the opposite: ``tie=[("w2[0, 0]", "-w2[0, 1]")]``. A coordinate
        is the value of the first of its group in the flat vector, and its derivative the sum over the group, as of a
        parameter that PyTorch shares.
    constraint : tuple (B, c) or dict, optional
        In place of ``freeze`` and ``tie``: a matrix of shape (n_params, n), sparse (of SciPy) or dense, whose columns
        are linearly independent, and an array (n_params,), or None for zero. Or the ``constraint`` of a result, a
        certificate or another ConstrainedNet.

    Raises
    ------
    InputError
        For unknown names, a parameter tied to its own opposite, a tie of frozen and free parameters, a constraint that
        leaves nothing free, or that is not linear (a unit norm).

    Notes
    -----
    Methods take coordinates z, of shape (n_params,), where ``n_params`` is their number; or parameters that obey the
    constraint, as Params, as a TrainResult or as an array with as many entries as ``net`` has parameters.

    Examples
    --------
    >>> import pymlpgf as mg
    >>> net = mg.Net(layers=[(2, "tanh", False), (1, "identity", False)], input=[[1.0], [2.0]], target=[1.0, 0.0])
    >>> odd = mg.ConstrainedNet(net, tie=[("w1[0]", "-w1[1]"), ("w2[0, 0]", "-w2[0, 1]")])
    >>> odd.n_params, odd.embed([1.0, 3.0]).flat
    (2, array([ 1., -1.,  3., -3.]))
    >>> p = [0.5, 0.5, 1.0, 2.0]
    >>> frozen = mg.ConstrainedNet(net, p, freeze="w1")
    >>> bool((frozen.gradient([1.0, 2.0]) == net.gradient(p)[2:]).all())
    True
    """

    @suggest_keywords
    def __init__(
        self,
        net: Net,
        p: ParametersLike | None = None,
        *,
        freeze: ArrayLike | None = None,
        tie: Any = None,
        constraint: Any = None,
    ) -> None:
        if not isinstance(net, Net) or isinstance(net, ConstrainedNet):
            raise InputError(f"net is {type(net).__name__}; a net without constraints is needed")
        rule = _rule(net, freeze, tie, constraint)
        if rule is None:
            raise InputError("nothing is constrained: give freeze, tie or constraint")
        if p is None and rule.get("freeze"):
            raise InputError("p is missing: it has the values of the parameters that freeze names")
        self._hold(net, rule, np.zeros(net.n_params, net.dtype) if p is None else net._flat(p).copy())

    def _hold(self, net: Net, rule: Rule, point: np.ndarray) -> None:
        self.__dict__.update(net.__dict__)
        self._net, self._rule, self._point = net, rule, point
        self._connect()
        self._n_params = len(self._ask("coordinates_of", self._net, point))

    def _connect(self) -> None:
        net = self._net
        self._bridge = net._bridge
        self._handle = self._bridge.answer(net._handle, "constrain", {"constraint": self._rule}, [self._point])
        weakref.finalize(self, self._bridge.release_later, self._handle)

    def _ask(self, what: str, net: Net, p: Any) -> np.ndarray:
        return self._bridge.tool(self._handle, what, {}, [net._flat(p)], lambda answer: self._bridge.field(answer, ""))

    def _other(self, net: Net) -> ConstrainedNet:
        return constrained(net, self._rule, self._point)

    # ---- parameters ----------------------------------------------------------------------------------------

    @property
    def unconstrained(self) -> Net:
        """The net without the constraint."""
        return self._net

    @property
    def constraint(self) -> Rule:
        """What ``constraint=`` takes again, as results hold it: with ``freeze`` for the values that are given then."""
        return self._rule

    @property
    def B(self) -> Any:
        """The matrix of the constraint as a ``scipy.sparse.csc_array`` of shape (parameters, n_params)."""
        from scipy.sparse import csc_array

        first, rows, values, c = self._fields()
        return csc_array((values, rows - 1, first - 1), shape=(len(c), self._n_params))

    @property
    def c(self) -> np.ndarray:
        """The point z = 0."""
        return self._fields()[3]

    def _fields(self) -> list[np.ndarray]:
        names = ("first", "rows", "values", "c")
        return self._bridge.tool(self._handle, "constraint", {}, [], lambda answer: self._bridge.fields(answer, names))

    def embed(self, z: ParametersLike) -> Params:
        """The parameters θ = B z + c at the coordinates ``z`` (n_params,)."""
        return self._net.params(self._ask("embed", self, z))

    def coordinates(self, p: ParametersLike) -> np.ndarray:
        """The coordinates (n_params,) of the nearest point to the parameters ``p`` that obeys the constraint.

        ``p`` may be an array of points (M, parameters), which gives (M, n_params).
        """
        points: Any = getattr(p, "x", p)
        if np.ndim(points) == 2:
            return np.array([self._ask("coordinates_of", self._net, row) for row in points])
        return self._ask("coordinates_of", self._net, p)

    def params(self, flat: ParametersLike) -> Params:
        """The same as ``embed``."""
        return self.embed(flat)

    def random_params(self, *args: Any, **options: Any) -> Any:
        """Coordinates (n_params,) of the nearest point to initial parameters of the net without the constraint."""
        return self.coordinates(self._net.random_params(*args, **options))

    def _theta(self, p: Any) -> np.ndarray:
        """Parameters of the net without the constraint, from these or from coordinates."""
        if self._is_theta(p):
            return self._net._flat(p)
        return self.embed(p).flat

    def _is_theta(self, p: Any) -> bool:
        if isinstance(p, Params) or type(getattr(p, "x", None)) is np.ndarray:
            return True
        return np.shape(p) == (self._net.n_params,) != (self._n_params,)

    def _flat(self, p: Any, name: str = "p") -> np.ndarray:
        if self._is_theta(p):
            x = self._net._flat(p, name)
            z = self.coordinates(x)
            off = np.abs(self.embed(z).flat - x).max()
            if off > np.sqrt(np.finfo(x.dtype).eps) * (1 + np.linalg.norm(x)):
                raise InputError(f"{name} does not obey the constraint: one that does is {off:.2g} away in a parameter")
            return z
        return super()._flat(p, name)

    # ---- other nets ----------------------------------------------------------------------------------------

    def on(self, input: ArrayLike, target: ArrayLike | None = None, weights: ArrayLike | None = None) -> ConstrainedNet:
        """The same on other data."""
        return self._other(self._net.on(input, target, weights))

    def replace(self, **settings: Any) -> ConstrainedNet:
        """The same with other settings, as ``Net.replace``."""
        return self._other(self._net.replace(**settings))

    def _like(self, layers: Any = None, **settings: Any) -> NoReturn:
        raise InputError("other units have other parameters: give the net itself, without its constraint")

    # ---- limits --------------------------------------------------------------------------------------------

    def limit(self, *args: Any, **options: Any) -> ConstrainedNet:
        """The limit of the net, as ``Net.limit``, with the constraint in the parameters of the limit.

        The constraint must be the same at each distance from the limit: what it holds of a pair of units that merge it
        must hold of both, as frozen biases of one value, or tied ones (then Δ has none); units that become a tail, a
        step or a relu must be free but for what does not change on their way. With ``eps`` there is no such condition.

        Raises
        ------
        InputError
            Also if the constraint has no limit: it names the parameters that stand in the way.
        """
        return carried(self, self._net.limit(*args, **options))

    def ordinary(self) -> ConstrainedNet:
        """The net of which this is a limit, with the constraint in its parameters."""
        return carried(self, self._net.ordinary())

    def at_distance(self, eps: float) -> ConstrainedNet:
        """The limit at another distance, as ``Net.at_distance``, with the constraint in its parameters."""
        return carried(self, self._net.at_distance(eps))

    def with_samples_inside(self, units: Sequence[int], layer: int) -> ConstrainedNet:
        """The net in which these units are steps that have samples inside (``Inside``)."""
        return carried(self, self._net.with_samples_inside(units, layer))

    def to_limit(self, p: ParametersLike) -> tuple[Params, np.ndarray]:
        """Parameters of this limit that are nearest to ``p`` of the ordinary net, as ``Net.to_limit``.

        ``p`` may be coordinates of ``ordinary()``. Its units may have the opposite sign in the limit only if the
        constraint allows that.
        """
        q, eps = self._net.to_limit(self.ordinary()._theta(p))
        return self.embed(self._flat(q, "p in the parameters of the limit")), eps

    def from_limit(self, q: ParametersLike, eps: ArrayLike | None = None) -> Params:
        """Parameters of the ordinary net at the distance ``eps`` from ``q`` of this limit, as ``Net.from_limit``.

        ``q`` may be coordinates. Units that the constraint ties to each other need the same ``eps``.
        """
        ordinary, theta = self.ordinary(), self._net.from_limit(self.embed(self._flat(q)), eps)
        try:
            return ordinary.embed(theta)
        except InputError:
            raise InputError(f"eps is {eps!r}; units that the constraint ties to each other need the same") from None

    def tauinv(self) -> NoReturn:
        """Coordinates have lengths of their own: the flow of the ordinary net is that of ``from_limit``."""
        raise InputError(
            "time constants that make the flow of a limit that of the ordinary net are those of free parameters: "
            "give the net itself, without its constraint"
        )

    def _fingerprint(self) -> str:
        return f"{self._net._fingerprint()} {self._rule} {self._point.tobytes().hex()}"

    def hessian_blocks(self, p: ParametersLike) -> NoReturn:
        """Coordinates may belong to several layers: take blocks of ``hessian(p)``."""
        raise InputError("coordinates of a constraint may belong to several layers: take blocks of hessian(p)")

    def __repr__(self) -> str:
        return f"ConstrainedNet({self._n_params} coordinates of {self._net!r})"


def constraint_of(net: Net, freeze: Any, tie: Any, constraint: Any) -> tuple[Net, Rule | None]:
    """The net without its constraint, and that constraint: its own or the one that the keywords describe."""
    if isinstance(net, ConstrainedNet):
        if freeze is not None or tie is not None or constraint is not None:
            raise InputError(
                "net is constrained already: give its net without the constraint, and all of the constraint"
            )
        return net._net, net._rule
    return net, _rule(net, freeze, tie, constraint)


def constrained(net: Net, rule: Rule, p: Any) -> ConstrainedNet:
    """The net on the points that obey ``rule``; frozen parameters have their values in ``p``."""
    made = object.__new__(ConstrainedNet)
    made._hold(net, rule, net._flat(p).copy())
    return made


def carried(net: ConstrainedNet, other: Net) -> ConstrainedNet:
    """The constraint of ``net`` on a limit of the same ordinary net, or on that net."""
    (*fields, blocked) = _answer(net, "carried", {"to": other._handle}, "blocked")
    if len(blocked):
        raise InputError(
            f"the constraint has no limit: it holds {', '.join(_names(other, blocked - 1))}, which would be at another "
            "place at each distance from it. Free these, or hold the same of both units of a pair (equal weights and "
            "biases by tie=); or give the net itself, without its constraint"
        )
    return _obeying(other, *fields)


def rewired(net: ConstrainedNet, other: Net, layer: int, units: Sequence[int]) -> Net:
    """What is left of the constraint on ``other``, with other units in a layer: copies, or new ones, free, for -1."""
    options: dict[str, object] = {"layer": layer + 1, "units": [unit + 1 for unit in units]}
    found = _obeying(other, *_answer(net, "rewired", options))
    return other if found.constraint == {"freeze": [], "tie": []} else found


def split(net: ConstrainedNet, other: Net, layer: int, unit: int) -> ConstrainedNet:
    """The constraint of ``net`` on the net in which a unit is split in two."""
    return _obeying(other, *_answer(net, "split_constraint", {"layer": layer + 1, "unit": unit + 1}))


def _answer(net: ConstrainedNet, what: str, options: dict[str, object], *more: str) -> list[np.ndarray]:
    names = ("first", "rows", "values", "c", *more)
    return net._bridge.tool(net._handle, what, options, [], lambda answer: net._bridge.fields(answer, names))


def _obeying(net: Net, first: np.ndarray, rows: np.ndarray, values: np.ndarray, c: np.ndarray) -> ConstrainedNet:
    """``net`` under a constraint from Julia."""
    return constrained(net, _rule_from(first - 1, rows - 1, values, c), c.astype(net.dtype))


def _rule_from(first: np.ndarray, rows: np.ndarray, values: np.ndarray, c: np.ndarray) -> Rule:
    """A rule with ``freeze`` and ``tie`` where these are enough."""
    free = np.zeros(len(c), bool)
    free[rows] = True
    if len(set(rows.tolist())) < len(rows) or (abs(values) != 1).any() or c[free].any():
        return {"first": first.tolist(), "rows": rows.tolist(), "values": values.tolist(), "c": c.tolist()}
    names = [f"{'-' if value < 0 else ''}p[{row}]" for row, value in zip(rows, values, strict=True)]
    groups = [names[start:end] for start, end in pairwise(first) if end - start > 1]
    return {"freeze": np.flatnonzero(~free).tolist(), "tie": groups}


def _names(net: Net, indices: np.ndarray) -> list[str]:
    """The names of parameters, as ``freeze`` takes them."""
    found = []
    for name, array in net.params(np.arange(net.n_params, dtype=float)).to_dict().items():
        for place in np.argwhere(np.isin(array, indices)):
            found.append(f"{name}[{', '.join(map(str, place))}]")
    return found


def parameters_of(net: Net, p: Any) -> np.ndarray:
    """What ``p`` stands for, as parameters θ also where the net is constrained."""
    return net._theta(p) if isinstance(net, ConstrainedNet) else net._flat(p)


def nearest_point(net: Net, rule: Rule, x: np.ndarray) -> np.ndarray:
    """The nearest point to the parameters ``x`` that obeys the constraint."""
    bridge = net._bridge
    return bridge.tool(net._handle, "nearest", {"constraint": rule}, [x], lambda answer: bridge.field(answer, ""))


def _rule(net: Net, freeze: Any, tie: Any, constraint: Any) -> Rule | None:
    if constraint is not None:
        if freeze is not None or tie is not None:
            raise InputError("constraint is given beside freeze or tie: B and c describe all of it")
        return _again(net, constraint) if isinstance(constraint, dict) else _matrix(net, constraint)
    frozen = [k - 1 for k in _frozen(net, freeze)]
    groups = _groups(net, tie)
    for group in groups:
        held = [abs(k) - 1 in frozen for k in group]
        if any(held) and not all(held):
            names = [f"p[{abs(group[held.index(state)]) - 1}]" for state in (True, False)]
            raise InputError(f"{names[0]} is frozen and {names[1]}, which is tied to it, is not: freeze both or none")
    named = [[f"{'-' * (k < 0)}p[{abs(k) - 1}]" for k in group] for group in groups]
    return {"freeze": frozen, "tie": named} if frozen or named else None


def _again(net: Net, rule: Rule) -> Rule:
    """A rule that ``_rule`` has made before, for a net with as many parameters."""
    if rule.keys() == {"freeze", "tie"}:
        tied = [ENTRY.fullmatch(str(name)) for group in rule["tie"] for name in group]
        named = [*rule["freeze"], *(int(match[1]) if match else -1 for match in tied)]
        fits = all(is_whole(k) and 0 <= k < net.n_params for k in named) and bool(named)
    else:
        fits = rule.keys() == {"first", "rows", "values", "c"} and len(rule["c"]) == net.n_params
    if not fits:
        raise InputError("constraint is a dictionary, but not the constraint of a result about such a net")
    return rule


def _frozen(net: Net, freeze: Any) -> list[int]:
    if freeze is None:
        return []
    freeze = list(freeze) if isinstance(freeze, (set, frozenset)) else freeze
    if isinstance(freeze, np.ndarray) and freeze.dtype.kind in "US":
        freeze = freeze.tolist()
    if isinstance(freeze, (dict, slice)):
        raise InputError(f"freeze is {freeze!r}; names, indices or a mask are needed, such as ['w1', 'b1[0]', 7]")
    if not isinstance(freeze, str) and not isinstance(freeze, (list, tuple)):
        array = numeric("freeze", freeze)
        if array.dtype.kind == "b":
            if array.shape != (net.n_params,):
                raise InputError(f"freeze is a mask of shape {array.shape}; ({net.n_params},) is needed")
            return [int(i) + 1 for i in np.flatnonzero(array)]
        freeze = array.ravel().tolist()
    elif isinstance(freeze, (list, tuple)) and freeze and all(isinstance(v, (bool, np.bool_)) for v in freeze):
        return _frozen(net, np.array(freeze))
    members = [freeze] if isinstance(freeze, str) else freeze
    indices = [int(member) for member in members if is_whole(member)]
    if len(set(indices)) < len(indices):
        twice = next(k for k in indices if indices.count(k) > 1)
        raise InputError(f"freeze names the parameter {twice} more than once; a mask has truth values, not numbers")
    found = [abs(int(k)) for member in members for k in _members(net, "freeze", member)]
    return sorted(set(found))


def _groups(net: Net, tie: Any) -> list[list[int]]:
    if tie is None:
        return []
    if isinstance(tie, str) or not isinstance(tie, Sequence) or any(_is_member(group) for group in tie):
        _refuse_norm("tie", tie)
        raise InputError(f"tie is {tie!r}; a list of groups is needed, such as [('w1[0]', 'w1[1]')]")
    groups = []
    for group in tie:
        parts = [_members(net, "tie", member) for member in group]
        sizes = {len(part) for part in parts}
        if len(parts) < 2 or len(sizes) > 1:
            sizes_text = " and ".join(f"{member!r} with {len(part)}" for member, part in zip(group, parts, strict=True))
            raise InputError(f"tie has the group {sizes_text}; two members at least, with as many entries, are needed")
        groups += np.stack(parts, axis=1).tolist()
    return groups


def _is_member(value: Any) -> bool:
    return isinstance(value, (str, int, np.integer))


def _members(net: Net, keyword: str, member: Any) -> np.ndarray:
    """The parameters that a name or an index stands for, from 1 on; negative where the opposite is meant."""
    if is_whole(member):
        if not 0 <= member < net.n_params:
            raise InputError(f"{keyword} names the parameter {member}; this net has 0 to {net.n_params - 1}")
        return np.array([int(member) + 1])
    _refuse_norm(keyword, member)
    match = NAME.fullmatch(member) if isinstance(member, str) else None
    numbers = net.params(np.arange(1.0, net.n_params + 1))
    known = [*numbers._names(), "p"]
    if match is None or match[2] not in known:
        raise InputError(
            f"{keyword} names {member!r}; {', '.join(known)}, parts of these as 'w1[0, 2]', or indices are known"
        )
    sign, name, part = match.groups()
    array = numbers.flat if name == "p" else numbers[name]
    if part is not None:
        try:
            array = array[tuple(_index(text) for text in part.split(","))]
        except (IndexError, ValueError) as error:
            raise InputError(f"{keyword} names {member!r}; {name} has shape {array.shape}: {error}") from None
    found = np.ravel(array).astype(int)
    return -found if sign == "-" else found


def _index(text: str) -> int | slice:
    match = SLICE.fullmatch(text)
    if match is None or not text.strip():
        raise ValueError(f"{text!r} is no index")
    start, colon, stop, step = match.groups()
    if colon is None:
        return int(start)
    return slice(*(None if number is None else int(number) for number in (start, stop, step)))


def _refuse_norm(keyword: str, member: Any) -> None:
    if re.search("norm|sphere|unit", str(member).lower()):
        raise InputError(
            f"{keyword} names {member!r}; a fixed norm is not linear in the parameters, and constraints are: bound "
            "norms by l2 or maxnorm of the net, or freeze one weight of each unit whose scale is to be fixed"
        )


def _matrix(net: Net, constraint: Any) -> Rule:
    _refuse_norm("constraint", constraint) if isinstance(constraint, str) else None
    if not isinstance(constraint, (tuple, list)) or len(constraint) != 2:
        raise InputError(
            f"constraint is {type(constraint).__name__}; a pair (B, c) of matrix and array, or None, is needed"
        )
    B, c = constraint
    if hasattr(B, "tocsc"):
        B = B.tocsc().copy()
        B.sum_duplicates()
        shape, first, rows, values = B.shape, B.indptr, B.indices, numeric("B", B.data)
    else:
        dense = numeric("B", B)
        if dense.ndim != 2:
            raise InputError(f"B has shape {dense.shape}; (n_params, coordinates) is needed")
        shape, columns = dense.shape, dense.T
        rows, values = np.nonzero(columns)[1], columns[np.nonzero(columns)]
        first = np.concatenate([[0], np.cumsum((columns != 0).sum(1))])
    offset = np.zeros(net.n_params) if c is None else numeric("c", c)
    if shape[0] != net.n_params or offset.shape != (net.n_params,):
        raise InputError(f"B has shape {shape} and c {offset.shape}; the net has {net.n_params} parameters")
    if not (np.isfinite(values).all() and np.isfinite(offset).all()):
        raise InputError("B or c contains NaN or infinite entries")
    return {
        "first": np.asarray(first).tolist(),
        "rows": np.asarray(rows).tolist(),
        "values": np.asarray(values, np.float64).tolist(),
        "c": np.asarray(offset, np.float64).tolist(),
    }
