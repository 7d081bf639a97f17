"""Plain values that cross the public interface: ids, and frozen records of what a store knows.

Nothing here calls anything else of flightstore. Sizes are bytes, durations seconds, times nanoseconds since
the Unix epoch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, TypeAlias

from flightstore.errors import InvalidArgument

__all__ = [
    "ColumnConversion",
    "ConversionReport",
    "Event",
    "Holder",
    "ObjectID",
    "ObjectInfo",
    "RecoverReport",
    "Ref",
    "StoreStats",
]

MAX_ID_BYTES = 64
"""Ids are 1 to 64 bytes; generated ones are 16 (Plasma's 20 and Ray's 28 fit)."""


class ObjectID(bytes):
    """The identity of one immutable object: 1 to 64 bytes, generated ones 16 random bytes.

    Written ``id:<hex>`` where only text fits (command line, URL, ticket).
    """

    __slots__ = ()

    def __new__(cls, value: bytes) -> ObjectID:
        if not 0 < len(value) <= MAX_ID_BYTES:
            raise InvalidArgument(f"an object id has 1 to {MAX_ID_BYTES} bytes, got {len(value)}")
        return super().__new__(cls, value)

    @classmethod
    def random(cls) -> ObjectID:
        """A new id that no other call returns."""
        return bytes.__new__(cls, os.urandom(16))

    @classmethod
    def from_text(cls, text: str) -> ObjectID:
        """Parse ``id:<hex>`` or bare hex.

        Raises:
            InvalidArgument: `text` is not an id.
        """
        try:
            return cls(bytes.fromhex(text.removeprefix("id:")))
        except ValueError as error:
            raise InvalidArgument(f"{text!r} is not an object id", hint="ids look like id:1f0a...") from error

    def __str__(self) -> str:
        return f"id:{self.hex()}"

    def __repr__(self) -> str:
        return f"ObjectID({self.hex()})"


Ref: TypeAlias = str | ObjectID
"""How a caller names an object: a ``str`` is a name, an :class:`ObjectID` an id."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the catalog knows about one object, at one moment."""

    id: ObjectID
    """The object's id."""
    name: str | None
    """The object's name, if it has one."""
    kind: str
    """``table``, ``tensor``, ``blob`` or ``object``."""
    nbytes: int
    """Bytes of its payload, without padding."""
    num_rows: int | None
    """Rows of a table, else None."""
    created_ns: int
    """When it was sealed (or created, while pending)."""
    creator_pid: int
    """Process that created it."""
    refs: int
    """User references held on it now, in all processes."""
    pinned: bool
    """Whether it is pinned."""
    state: str
    """``pending``, ``sealed`` or ``dying``."""
    metadata: Any = None
    """What the creator attached."""


@dataclass(frozen=True, slots=True)
class Holder:
    """One process that holds references on an object."""

    pid: int
    """Process id; 0 for a child that is being forked at this moment."""
    process: str
    """The process's name."""
    refs: int
    """References it holds."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a store."""

    number: int
    """Its place among all events of the store, from 1: what happened later has a higher number."""
    kind: str
    """``added``: an object was sealed; ``deleted``: a sealed one was deleted, or its name was put anew;
    ``spilled``: one begins to be written to a file; ``full``: a create found no room."""
    id: ObjectID | None
    """The object's id; None for ``full``."""
    name: str | None
    """The name that the object has; None without one, and for ``full``."""
    nbytes: int
    """Bytes of the object's payload; for ``full``, what was asked for."""
    time_ns: int
    """When it happened."""


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Usage of a store, at one moment."""

    path: str
    """Directory of the store."""
    capacity_bytes: int
    """Upper bound of the bytes backed by memory."""
    used_bytes: int
    """Bytes in extents, those of dying and pending objects included."""
    free_bytes: int
    """``capacity_bytes - used_bytes``."""
    backed_bytes: int
    """Bytes of the arena backed by memory: used ones and warm holes."""
    leased_bytes: int
    """Bytes of objects that have at least one user reference."""
    pinned_bytes: int
    """Bytes of pinned objects."""
    largest_hole_bytes: int
    """Largest allocation that would succeed without eviction or spilling."""
    objects: int
    """Sealed objects."""
    pending: int
    """Objects being created."""
    dying: int
    """Deleted objects whose memory has not been given back yet."""
    clients: int
    """Live client processes."""
    leases: int
    """User references in all processes."""
    catalog_bytes: int
    """Size of the catalog."""
    catalog_used_bytes: int
    """Bytes of the catalog in use."""


@dataclass(frozen=True, slots=True)
class RecoverReport:
    """What one :meth:`Store.recover` did."""

    dead_clients: int = 0
    """Clients found dead and removed."""
    aborted_objects: int = 0
    """Unsealed objects of dead clients that were reclaimed."""
    freed_objects: int = 0
    """Deleted objects whose memory was given back."""
    freed_bytes: int = 0
    """Bytes given back to the free space."""
    repaired_ranges: int = 0
    """Address ranges left in transition by dead clients and put right."""
    stale_readers: int = 0
    """Catalog reader slots of dead processes that were cleared."""
    removed_files: int = 0
    """Left-over files that were removed."""


@dataclass(frozen=True, slots=True)
class ColumnConversion:
    """What converting one column to a library's form shares, and what it copies."""

    name: str
    """The column's name."""
    type: str
    """Its Arrow type."""
    shared_bytes: int
    """Bytes of the result that are the store's memory."""
    copied_bytes: int
    """Bytes of the result that are private memory."""
    reason: str = ""
    """Why something was copied or changed; empty when all is shared as it is."""

    @property
    def zero_copy(self) -> bool:
        """Whether nothing was copied."""
        return self.copied_bytes == 0


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What converting an object to a library's form shares, and what it copies, column by column."""

    library: str
    """The connector's name."""
    columns: tuple[ColumnConversion, ...]
    """One entry for each column, in order."""

    @property
    def zero_copy(self) -> bool:
        """Whether nothing was copied."""
        return all(column.zero_copy for column in self.columns)

    @property
    def shared_bytes(self) -> int:
        """Bytes of the result that are the store's memory."""
        return sum(column.shared_bytes for column in self.columns)

    @property
    def copied_bytes(self) -> int:
        """Bytes of the result that are private memory."""
        return sum(column.copied_bytes for column in self.columns)

    def __str__(self) -> str:
        total = f"{self.library}: {self.shared_bytes:,} bytes shared, {self.copied_bytes:,} copied"
        lines = [
            f"  {column.name} ({column.type}): "
            + ("shared" if column.zero_copy else f"{column.copied_bytes:,} bytes copied")
            + (f": {column.reason}" if column.reason else "")
            for column in self.columns
        ]
        return "\n".join([total, *lines])
