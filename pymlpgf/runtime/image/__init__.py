"""System images: the compiled package, kept for the private Julia, so that a process need not compile it again.

An image is built once a machine (build.py), by ``pymlpgf install`` or in the background after the first use, from what
the workload of the Julia package runs (julia/src/interface/workload.jl). It is found by a key of all that it depends on
(key.py)
and loaded only as it was built (store.py).
"""

from __future__ import annotations

from .key import features, key
from .store import LIBRARY, Store, held

__all__ = ["LIBRARY", "Store", "features", "held", "key"]
