"""A store as a dictionary: what the stateful machine compares a real store with.

Lives here: `Model`, the pure state and its rules, `Thing`, one object of it, and the values that are stored
(`Recipe`). Calls nothing of a store.

Invariants: a thing is sealed (in `by_id`), pending, or gone and still held (in `held_dead`). `holds` has one
entry for each user reference: the model's whole idea of reference counts.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from flightstore.types import ObjectID, Ref

__all__ = ["KINDS", "Model", "Recipe", "Thing", "make_value", "same"]

KINDS = {"bytes": "blob", "array": "tensor", "table": "table", "object": "object"}
"""Recipes' names of kinds, and the store's."""


class Recipe(NamedTuple):
    """How a value is made: small to print, whatever the value's size."""

    kind: str
    """A key of KINDS."""
    size: int
    """Bytes, elements or rows."""
    seed: int
    """Values that differ in it differ."""


def make_value(recipe: Recipe) -> Any:
    """The value of a recipe; equal recipes give equal values."""
    kind, size, seed = recipe
    if kind == "bytes":
        return _pattern(size, seed)
    if kind == "array":
        return np.arange(seed, seed + size, dtype=np.int32)
    if kind == "table":
        numbers = pa.array(np.arange(size, dtype=np.int64) * (seed + 1))
        texts = pa.array(
            [None if row % 7 == seed % 7 else f"{seed}-{row}" for row in range(size)], pa.string()
        )
        return pa.table({"number": numbers, "text": texts})
    return {"seed": seed, "rows": [np.full(size // 8, seed, dtype=np.float64), "text" * (seed % 5)]}


def _pattern(size: int, seed: int) -> bytes:
    block = hashlib.blake2b(seed.to_bytes(8, "little")).digest()
    return (block * (size // len(block) + 1))[:size]


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal, types and dtypes included."""
    if isinstance(left, np.ndarray):
        return (
            isinstance(right, np.ndarray) and left.dtype == right.dtype and bool(np.array_equal(left, right))
        )
    if isinstance(left, pa.Table):
        return isinstance(right, pa.Table) and bool(left.equals(right, check_metadata=True))
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and left.keys() == right.keys()
            and all(same(left[key], right[key]) for key in left)
        )
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and bool(left == right)


@dataclass(eq=False, slots=True)
class Thing:
    """One object of the model."""

    id: ObjectID
    """Its id."""
    name: str | None
    """Its name."""
    kind: str
    """The store's name of its kind."""
    value: Any
    """What was put; a bytearray while it is being built."""
    metadata: Any
    """What was attached."""
    footprint_bytes: int
    """What it takes of the store."""
    num_rows: int | None = None
    """Rows of a table."""


class Hold(NamedTuple):
    """One user reference."""

    client: int
    """Which client has it."""
    thing: Thing
    """On what."""
    role: str
    """``got``, ``builder``, or ``late`` (a view that outlived the seal)."""


@dataclass(slots=True)
class Model:
    """All objects, names and references."""

    by_id: dict[ObjectID, Thing] = field(default_factory=dict)
    """Sealed objects."""
    names: dict[str, Thing] = field(default_factory=dict)
    """Sealed objects by name."""
    pending: dict[ObjectID, Thing] = field(default_factory=dict)
    """Objects being built."""
    holds: dict[int, Hold] = field(default_factory=dict)
    """References by token."""

    def find(self, ref: Ref) -> Thing | None:
        """The sealed object that a reference means."""
        return self.by_id.get(ref) if isinstance(ref, ObjectID) else self.names.get(ref)

    def is_taken(self, object_id: ObjectID | None) -> bool:
        """Whether an id belongs to a sealed or pending object."""
        return object_id in self.by_id or object_id in self.pending

    def seal(self, thing: Thing) -> None:
        """Make a thing visible; whatever had its name goes."""
        self.pending.pop(thing.id, None)
        if thing.name is not None:
            old = self.names.get(thing.name)
            if old is not None:
                self.remove(old)
            self.names[thing.name] = thing
        self.by_id[thing.id] = thing

    def remove(self, thing: Thing) -> None:
        """Delete a sealed thing; whoever holds it keeps it."""
        del self.by_id[thing.id]
        if thing.name is not None:
            del self.names[thing.name]

    def delete(self, refs: Iterable[Ref], *, if_unused: bool) -> int:
        """Delete things; returns how many."""
        found = [self.find(ref) for ref in refs]
        doomed = {id(thing): thing for thing in found if thing is not None}
        chosen = [thing for thing in doomed.values() if not (if_unused and self.refs(thing))]
        for thing in chosen:
            self.remove(thing)
        return len(chosen)

    def refs(self, thing: Thing) -> int:
        """User references on a thing."""
        return sum(hold.thing is thing for hold in self.holds.values())

    def tokens(self, role: str, client: int | None = None) -> list[int]:
        """Tokens of the references of one role."""
        return [
            token for token, hold in self.holds.items() if hold.role == role and client in (None, hold.client)
        ]

    def matching(self, pattern: str | None) -> list[ObjectID]:
        """Ids that a list shows, in its order."""
        chosen = [
            thing
            for thing in self.by_id.values()
            if pattern is None or (thing.name is not None and fnmatch.fnmatchcase(thing.name, pattern))
        ]
        return [
            thing.id for thing in sorted(chosen, key=lambda one: (one.name is None, one.name or "", one.id))
        ]

    def live(self) -> list[Thing]:
        """Everything that memory is needed for: sealed, pending, held."""
        things = [*self.by_id.values(), *self.pending.values(), *(hold.thing for hold in self.holds.values())]
        return list({id(thing): thing for thing in things}.values())

    def live_bytes(self) -> int:
        """What the store must use, once everything else was given back."""
        return sum(thing.footprint_bytes for thing in self.live())

    def end_client(self, client: int) -> None:
        """A client died: its references and what it was building go."""
        for token, hold in list(self.holds.items()):
            if hold.client == client:
                del self.holds[token]
                if hold.role == "builder":
                    self.pending.pop(hold.thing.id, None)
