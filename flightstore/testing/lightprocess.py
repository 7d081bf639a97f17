"""What makes a process cheap to fork, for the tools that fork one for each line of an operation.

Lives here: `make_light`. Calls nothing else of flightstore, so that it can come before all imports.

A fork costs what the forking process has in memory: page tables are copied, and what either side writes to
afterwards is copied page by page. Three things made these processes dearer than they need be. Arrow
imports pandas, if it is there, for the first list that becomes an array: 30 MB that no operation of the
table uses. And LMDB asks for 2 MiB of zeros whenever an environment is opened, which happens on both sides of
every fork: malloc takes them from its heap once it has seen such a block given back, and then they are zeroed
by hand, where fresh pages of the kernel would never be touched. And every child that builds a table asked all
installed distributions for their entry points anew.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["make_light"]

_M_MMAP_THRESHOLD = -3
_MMAP_FROM_BYTES = 128 << 10


class _Without(MetaPathFinder):
    """Says that some libraries are not installed."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self._names:
            raise ModuleNotFoundError(f"No module named {fullname!r}: left out here", name=fullname)
        return None


def make_light() -> None:
    """Keep this process small: no pandas, large blocks from the kernel alone, entry points looked for once.

    Call it once, before flightstore's modules are imported, in a process that only kills children at lines.
    """
    sys.meta_path.insert(0, _Without(frozenset({"pandas"})))
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_FROM_BYTES)
    importlib.metadata.entry_points = importlib.metadata.entry_points().select
