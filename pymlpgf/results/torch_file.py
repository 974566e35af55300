"""The files of ``torch.save``, read without PyTorch and without running anything from them, and written.

A pickle is a program. ``Reader`` executes only the instructions that build numbers, texts and containers, and refuses
all others by name. Nothing that a file names is imported or called: the few names that such files need (a tensor, a
storage, an ordered dictionary) are implemented here.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError

__all__ = ["read_torch_file", "write_torch_file"]

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # torch/serialization.py, the format before the zip archives
STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4",
    "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1", "BoolStorage": "|b1",
}  # fmt: skip
_REBUILD, _ORDERED = "torch._utils._rebuild_tensor_v2", "collections.OrderedDict"
_NAMES = {_REBUILD, _ORDERED, *(f"torch.{name}" for name in STORAGES)}


class _Name(str):
    """A global that a file names: it stays a name."""


class _Mark:
    pass


_MARK = _Mark()
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Reader:
    """Reads pickles one after the other from ``file``, whose arrays may take ``largest`` bytes together."""

    def __init__(self, file: BinaryIO, largest: int) -> None:
        self._file, self._left = file, largest
        self.storages: dict[str, np.ndarray] = {}

    def next(self) -> Any:
        """The value of the next pickle."""
        stack: list[Any] = []
        memo: dict[int, Any] = {}

        def since_mark() -> list[Any]:
            at = len(stack) - 1
            while stack[at] is not _MARK:
                at -= 1
                if at < 0:
                    raise InputError("its pickle is damaged: a mark is missing")
            items = stack[at + 1 :]
            del stack[at:]
            return items

        for code, value, _ in pickletools.genops(self._file):
            name = code.name
            if name in _VALUES:
                stack.append(value)
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                stack.append(_EMPTY[name]())
            elif name == "MARK":
                stack.append(_MARK)
            elif name == "TUPLE":
                stack.append(tuple(since_mark()))
            elif name in _TUPLES:
                items = stack[-_TUPLES[name] :]
                del stack[-_TUPLES[name] :]
                stack.append(tuple(items))
            elif name in ("LIST", "DICT"):
                items = since_mark()
                stack.append(items if name == "LIST" else _pairs({}, items))
            elif name == "APPEND":
                item = stack.pop()
                _of(list, stack[-1]).append(item)
            elif name == "APPENDS":
                items = since_mark()
                _of(list, stack[-1]).extend(items)
            elif name == "SETITEM":
                items = stack[-2:]
                del stack[-2:]
                _pairs(_of(dict, stack[-1]), items)
            elif name == "SETITEMS":
                items = since_mark()
                _pairs(_of(dict, stack[-1]), items)
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[value] = stack[-1]  # type: ignore[index]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[value])  # type: ignore[index]
            elif name == "GLOBAL":
                stack.append(_allowed(str(value).replace(" ", ".")))
            elif name == "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_allowed(f"{module}.{attribute}"))
            elif name == "BINPERSID":
                stack.append(self._storage(stack.pop()))
            elif name == "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._made(function, arguments))
            elif name == "BUILD":  # the version of a state_dict
                if not isinstance(stack.pop(), dict) or not isinstance(stack[-1], dict):
                    raise InputError("it sets the state of an object; arrays, numbers, texts and containers are read")
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise InputError(
                    f"its pickle has the instruction {name}; arrays, numbers, texts and containers are read"
                )
        return stack.pop()

    def _storage(self, description: Any) -> np.ndarray:
        if not isinstance(description, tuple) or len(description) < 5 or description[0] != "storage":
            raise InputError("it refers to something other than a storage of PyTorch")
        kind, key, length = description[1], description[2], description[4]
        if not isinstance(kind, _Name) or not isinstance(key, str) or type(length) is not int or length < 0:
            raise InputError("the description of a storage is damaged")
        if key not in self.storages:
            dtype = np.dtype(STORAGES[kind.rpartition(".")[2]])
            self._left -= length * dtype.itemsize
            if self._left < 0:
                raise InputError("its arrays would be larger than the file")
            self.storages[key] = np.zeros(length, dtype)
        return self.storages[key]

    def _made(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise InputError("it calls something that is not a name")
        if function == _ORDERED:
            return dict(*arguments[:1])
        if function != _REBUILD or len(arguments) < 4:
            raise InputError(f"it calls {function}; arrays, numbers, texts and containers are read")
        storage, offset, size, stride = arguments[:4]
        whole = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
        if not whole or not all(type(k) is int and k >= 0 for k in (offset, *size, *stride)):
            raise InputError("the shape of an array is damaged")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 in size:
            return np.zeros(size, _of(np.ndarray, storage).dtype)
        if last >= len(_of(np.ndarray, storage)) or np.prod(size, dtype=object) > len(storage):
            raise InputError("an array reaches beyond its storage")
        steps = tuple(step * storage.itemsize for step in stride)
        return np.lib.stride_tricks.as_strided(storage[offset:], size, steps)


def _allowed(name: str) -> _Name:
    if name not in _NAMES:
        raise InputError(f"it names {name!r}, which is not needed for arrays, numbers, texts and containers: refused")
    return _Name(name)


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise InputError(f"its pickle is damaged: {type(value).__name__} in place of {kind.__name__}")
    return value


def _pairs(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, (str, int, float)):
            raise InputError(f"its pickle has a key of type {type(key).__name__}; texts and numbers are read")
        target[key] = value
    return target


def read_torch_file(path: Path) -> Any:
    """Read a file of ``torch.save`` or of MLPGradientFlow.jl's ``pickle`` as numbers, texts, containers and arrays."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, size)
    with open(path, "rb") as file:
        reader = Reader(file, size)
        if reader.next() != MAGIC or reader.next() != PROTOCOL:
            raise InputError("it does not begin as the files of torch.save do")
        if not _of(dict, reader.next()).get("little_endian", False):
            raise InputError("it was written on a machine of the other byte order")
        value, keys = reader.next(), reader.next()
        for key in _of(list, keys):
            storage = reader.storages[key]
            (length,) = struct.unpack("<q", file.read(8))
            if length != len(storage):
                raise InputError("the length of a storage is wrong")
            storage.view(np.uint8)[:] = np.frombuffer(file.read(storage.nbytes), np.uint8)
    return value


def _read_archive(archive: zipfile.ZipFile, size: int) -> Any:
    names = archive.namelist()
    found = [name for name in names if name.endswith("/data.pkl")]
    if len(found) != 1:
        raise InputError("it is a zip archive, but not one of torch.save")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise InputError("it is a compressed archive, which torch.save does not write")
    folder = found[0].removesuffix("data.pkl")
    if folder + "byteorder" in names and archive.read(folder + "byteorder") != b"little":
        raise InputError("it was written on a machine of the other byte order")
    with archive.open(found[0]) as file:
        reader = Reader(file, size)  # type: ignore[arg-type]
        value = reader.next()
    for key, storage in reader.storages.items():
        storage.view(np.uint8)[:] = np.frombuffer(archive.read(f"{folder}data/{key}"), np.uint8)
    return value


# ---- writing -----------------------------------------------------------------------------------------------------


class Writer:
    """Writes pickles in the oldest format with tensors, for MLPGradientFlow.jl's ``unpickle`` and ``torch.load``."""

    def __init__(self) -> None:
        self.storages: dict[str, np.ndarray] = {}

    def pickle(self, value: Any) -> bytes:
        """``value`` as one pickle."""
        return b"\x80\x02" + self._bytes(value) + b"."

    def _bytes(self, value: Any) -> bytes:
        if value is None:
            return b"N"
        if isinstance(value, (bool, np.bool_)):
            return b"\x88" if value else b"\x89"
        if isinstance(value, (int, np.integer)):
            number = int(value)
            if -(2**31) <= number < 2**31:
                return b"J" + struct.pack("<i", number)
            raw = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(raw)]) + raw
        if isinstance(value, (float, np.floating)):
            return b"G" + struct.pack(">d", float(value))
        if isinstance(value, str):
            raw = value.encode()
            return b"X" + struct.pack("<I", len(raw)) + raw
        if isinstance(value, (tuple, list)):
            inside = b"".join(map(self._bytes, value))
            return b"(" + inside + b"t" if isinstance(value, tuple) else b"](" + inside + b"e"
        if isinstance(value, dict):  # with numbers as keys the order counts
            start = b"ccollections\nOrderedDict\n)R" if any(not isinstance(key, str) for key in value) else b"}"
            inside = b"".join(self._bytes(key) + self._bytes(part) for key, part in value.items())
            return start + b"(" + inside + b"u"
        return self._tensor(np.asarray(value))

    def _tensor(self, array: np.ndarray) -> bytes:
        """In Fortran's order, which is Julia's: there it becomes an array, not a view."""
        kind = next(name for name, code in STORAGES.items() if np.dtype(code) == array.dtype)
        flat = np.ascontiguousarray(array.ravel(order="F"))
        key = str(len(self.storages))
        self.storages[key] = flat
        stride = tuple(int(np.prod(array.shape[:k])) for k in range(array.ndim))
        storage = b"(" + self._bytes("storage") + f"ctorch\n{kind}\n".encode() + self._bytes(key)
        storage += self._bytes("cpu") + self._bytes(flat.size) + b"NtQ"
        shape = self._bytes(0) + self._bytes(array.shape) + self._bytes(stride)
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + shape + b"\x89ccollections\nOrderedDict\n)RtR"


def write_torch_file(file: BinaryIO, value: Any) -> None:
    """Write numbers, texts, containers and arrays."""
    writer = Writer()
    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"little_endian": True, "protocol_version": PROTOCOL, "type_sizes": sizes}
    for part in (MAGIC, PROTOCOL, system, value):
        file.write(writer.pickle(part))
    file.write(writer.pickle(list(writer.storages)))
    for flat in writer.storages.values():
        file.write(struct.pack("<q", flat.size) + flat.tobytes())
