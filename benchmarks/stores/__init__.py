"""The stores that are measured, one module each. `base` says what a benchmark asks of them.

A module is imported where its library is installed: the stores of this environment in the benchmark's own
process, a peer's in its host. Modules are found by name, so that none is imported needlessly.
"""

from __future__ import annotations

from importlib import import_module

from stores.base import Backend

LOCAL = {"flightstore": "Ours", "lmdb": "Lmdb", "lmdb_stream": "LmdbStream", "file": "File"}
"""Stores of the environment the benchmark itself runs in."""

PEERS = {"plasma": "Plasma", "vineyard": "Vineyard", "ray": "Ray", "iceoryx2": "Iceoryx2"}
"""Stores in environments of their own."""


def backend_class(name: str) -> type[Backend]:
    """The class behind a name of LOCAL or PEERS."""
    module = import_module(f"stores.{name.removesuffix('_stream')}")
    found: type[Backend] = getattr(module, (LOCAL | PEERS)[name])
    return found
