"""What a pickled object is, told without unpickling it: unpickling runs code that its creator chose.

The pickle is read as a list of instructions, of which none is carried out.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from flightstore.objects.pyobject import PyObjectLayout

__all__ = ["Outline", "outline"]

_INSTRUCTIONS = 20_000
"""So many of a pickle's instructions are looked at."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A pickled object as its pickle describes it."""

    pickle_bytes: int
    """Length of the pickle."""
    buffers: int
    """Buffers beside it, of arrays for instance."""
    names: tuple[str, ...]
    """Classes and functions that unpickling would import, in the order of their appearance."""
    complete: bool
    """False if only the beginning of a long pickle was looked at, or it is no valid one."""


def outline(obj: Any) -> Outline:
    """Describe an object of the kind ``object``."""
    handle = obj._live
    layout = msgspec.msgpack.decode(handle.record.layout, type=PyObjectLayout)
    data = handle.payload.slice(0, layout.pickle_bytes).to_pybytes()
    names, complete = _imports(data)
    return Outline(layout.pickle_bytes, layout.num_buffers, names, complete)


def _imports(data: bytes) -> tuple[tuple[str, ...], bool]:
    """What a pickle imports, and whether it was looked at to its end."""
    found: dict[str, None] = {}
    texts: list[str] = []  # as they were pushed; STACK_GLOBAL takes the last two
    memo: dict[Any, str | None] = {}
    pushed: str | None = None
    count = 0
    try:
        for opcode, argument, _at in islice(pickletools.genops(data), _INSTRUCTIONS):
            count += 1
            name = opcode.name
            if name == "MEMOIZE":
                memo[len(memo)] = pushed
                continue
            if name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = pushed
                continue
            if name == "GLOBAL":
                found[str(argument).replace(" ", ".")] = None
            elif name == "STACK_GLOBAL":
                found[".".join(texts[-2:])] = None
            pushed = memo.get(argument) if name in ("BINGET", "LONG_BINGET") else _text_of(name, argument)
            if pushed is not None:
                texts = [*texts[-1:], pushed]
    except (ValueError, IndexError):  # not a pickle, or cut short
        return tuple(found), False
    return tuple(found), count < _INSTRUCTIONS


def _text_of(name: str, argument: Any) -> str | None:
    return argument if "UNICODE" in name and isinstance(argument, str) else None
