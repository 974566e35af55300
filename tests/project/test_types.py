"""What public signatures say of arrays: array-like or parameters, never anything."""

import inspect
import re

import pytest

import pymlpgf as mg
import pymlpgf.sklearn


def functions():
    """Public functions and methods by their names."""
    for module in (mg, pymlpgf.sklearn):
        for name in module.__all__:
            thing = getattr(module, name)
            members = vars(thing) if inspect.isclass(thing) else {"": thing}
            for member, function in members.items():
                function = getattr(function, "__func__", function)  # of a class method
                if inspect.isfunction(function) and (not member.startswith("_") or member in ("__init__", "__call__")):
                    yield f"{name}.{member}".strip("."), function, thing


FUNCTIONS = {name: (function, thing) for name, function, thing in functions()}
#: Names that stand for arrays wherever they occur.
ARRAYS = {"p", "q", "X", "y", "v", "z", "input", "target", "weights", "eps", "gamma", "points", "sample_weight"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_are_typed(name):
    function, thing = FUNCTIONS[name]
    text = (thing.__doc__ if name.endswith("__init__") else function.__doc__) or ""
    documented = {}
    for names, kind in re.findall(r"^ *((?:\w+, )*\w+) : (.+)$", text, re.M):
        documented.update(dict.fromkeys(names.split(", "), kind))
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in ARRAYS or re.match(r"arrays?\b", documented.get(parameter.name, "")):
            assert not re.match(r"Any\b", str(parameter.annotation)), parameter


def test_many_functions_are_looked_at():
    assert len(FUNCTIONS) > 120
    assert str(inspect.signature(mg.Net.loss).parameters["p"].annotation) == "ParametersLike"
