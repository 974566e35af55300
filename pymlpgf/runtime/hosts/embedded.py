"""A host made of libjulia alone, loaded into this process: any Julia from 1.5, no Julia package needed."""

from __future__ import annotations

import ctypes
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import ModuleType

from ...errors import JuliaError, RuntimeUnavailable
from ..environment import blocking_streams, temporary
from ..julia import Julia, running_juliacall
from .signals import preserved

__all__ = ["EmbeddedHost"]

# jl_eval_string swallows exceptions, so the code answers with its value or with a text.
EVAL = "try\n{code}\ncatch err\nsprint(showerror, err)\nend"


class EmbeddedHost:
    """Starts Julia and evaluates strings; everything else crosses by C function pointers."""

    _began = False  # the Julia that runs, if one does, is ours, though Ctrl-C came before this was over

    def __init__(self, julia: Julia, environment: Mapping[str, str]) -> None:
        """Start ``julia`` with ``environment`` set while it initialises. Once in a process, never undone."""
        if running_juliacall():
            raise RuntimeUnavailable(
                "juliacall has already started another Julia in this process, and two do not fit into one: "
                "start pymlpgf first, or let it use juliacall's Julia (PYMLPGF_JULIA=full)"
            )
        if _julia_runs() and not EmbeddedHost._began:
            raise RuntimeUnavailable(
                "another Julia runs in this process already, and two do not fit into one: where Python runs inside of "
                "Julia, load PythonCall.jl there and use its Julia (PYMLPGF_JULIA=full)"
            )
        with preserved(), blocking_streams(), temporary(environment):
            # libgcc_s first: libunwind, which libjulia brings along, exports _Unwind_Resume as well, and the C++
            # libraries loaded later (matplotlib's, torch's) would unwind with it, which ends in a segmentation fault.
            if sys.platform == "linux":
                for name in ("libgcc_s.so.1", "libstdc++.so.6"):
                    _preload(name, julia)
            # RTLD_GLOBAL: compiled Julia code looks symbols of libjulia up in the process.
            try:
                lib = ctypes.PyDLL(str(julia.libjulia), mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                raise RuntimeUnavailable(f"{julia.libjulia} cannot be loaded: {error}; see `pymlpgf doctor`") from None
            names = ("jl_init_with_image__threading", "jl_init_with_image", "jl_init_with_image_file")
            init = getattr(lib, next(name for name in names if hasattr(lib, name)))
            init.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
            init.restype = None
            EmbeddedHost._began = True
            init(os.fsencode(julia.bindir), os.fsencode(julia.sysimage))
        lib.jl_eval_string.argtypes = [ctypes.c_char_p]
        lib.jl_eval_string.restype = ctypes.c_void_p
        lib.jl_typeof_str.argtypes = [ctypes.c_void_p]
        lib.jl_typeof_str.restype = ctypes.c_char_p
        lib.jl_string_ptr.argtypes = [ctypes.c_void_p]
        lib.jl_string_ptr.restype = ctypes.c_char_p
        lib.jl_unbox_int64.argtypes = [ctypes.c_void_p]
        lib.jl_unbox_int64.restype = ctypes.c_int64
        self._lib = lib
        version = ".".join(map(str, julia.version))
        sys.meta_path.insert(0, _NoSecondJulia(f"Julia {version} from {julia.executable}"))
        if hasattr(os, "RTLD_DEEPBIND"):
            sys.meta_path.insert(0, _OwnLLVM())

    def eval(self, code: str) -> int:
        """The Int64 that ``code`` evaluates to; anything else it ends with is raised as ``JuliaError``."""
        value = self._lib.jl_eval_string(EVAL.format(code=code).encode())
        kind = self._lib.jl_typeof_str(value) if value else b""
        if kind == b"Int64":
            return int(self._lib.jl_unbox_int64(value))
        if kind == b"String":
            raise JuliaError(self._lib.jl_string_ptr(value).decode(errors="replace"))
        raise JuliaError(f"Julia could not evaluate: {code}")


def _preload(name: str, julia: Julia) -> None:
    """Load the machine's ``name``, or where it has none the one that the wheel brings along.

    The machine's goes first: what other packages load later may need a newer one than Julia's distribution has.
    """
    for path in (name, str(julia.bindir.parent.parent / "fallback" / name)):
        with suppress(OSError):
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
            return


def _julia_runs() -> bool:
    """Whether a Julia runs in this process, whoever has started it: PyCall's, for one, is not in ``sys.modules``."""
    if os.name != "posix":
        return False
    runs = getattr(ctypes.CDLL(None), "jl_is_initialized", None)
    return runs is not None and bool(runs())


class _NoSecondJulia(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Refuses ``import juliacall``, which would end the process; asking whether it is there stays possible."""

    def __init__(self, running: str) -> None:
        self._running = running

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "juliacall":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname)
        if spec is not None:
            spec.loader = self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        raise ImportError(
            f"pymlpgf has started {self._running} in this process, and juliacall's would be a second one, which does "
            "not fit: import juliacall before the first use of pymlpgf, which then shares its Julia"
        )


class _OwnLLVM(importlib.abc.MetaPathFinder):
    """Loads Triton, which PyTorch's CUDA builds import late, so that it finds its own LLVM before Julia's.

    Julia's libLLVM came into the global scope with libjulia. Triton holds an LLVM of another version and exports it;
    its calls to itself would end in Julia's, with a segmentation fault while it is being loaded.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "triton._C.libtriton":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and isinstance(spec.loader, importlib.machinery.ExtensionFileLoader):
            spec.loader = _DeepBinding(fullname, spec.loader.path)
        return spec


class _DeepBinding(importlib.machinery.ExtensionFileLoader):
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        flags = sys.getdlopenflags()
        sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
        try:
            return super().create_module(spec)
        finally:
            sys.setdlopenflags(flags)
