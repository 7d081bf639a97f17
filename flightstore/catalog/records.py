"""What the catalog stores: one msgspec struct per kind of record, encoded as msgpack arrays.

Fields are identified by position. Never reorder or remove one; append new ones with a default, so that an
older record still decodes. Records stay well below a page of 4096 bytes: whatever can be longer lives in an
extent.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

__all__ = ["Extent", "ObjectRecord", "decode_record", "encode_record"]

ARENA_FILE = 0
"""The file number of the arena; other files (spilled, borrowed, adopted) get other numbers."""


class Extent(NamedTuple):
    """A run of payload bytes: ``length`` bytes from ``offset`` of file ``file``."""

    file: int
    offset: int
    length: int


class ObjectRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One object: everything but its id (which is in the key) and its payload.

    Invariant: `serial` is unique in the store for ever; leases name objects by it.
    """

    serial: int
    """Number of the object in the store; never used twice."""
    kind: int
    """Which registered kind opens it; see objects.base."""
    extents: tuple[Extent, ...]
    """Where the payload lies."""
    layout: bytes
    """What the kind needs to read the payload, msgpack."""
    names: tuple[str, ...] = ()
    """The object's names, first the one it was put under."""
    nbytes: int = 0
    """Payload bytes the user thinks of, without padding."""
    num_rows: int | None = None
    """Rows of a table."""
    created_ns: int = 0
    """When it was created."""
    creator_pid: int = 0
    """Process that created it."""
    client: int = 0
    """Client id of the creator; who owns the object while it is pending."""
    flags: int = 0
    """Bits FLAG_*."""
    metadata: bytes = b""
    """The user's metadata, msgpack; empty for none."""
    metadata_at: tuple[int, int] | None = None
    """Where in the first extent the metadata lies (offset, length), when it is too long for the record."""
    pins: int = 0
    """How often it is pinned."""
    batch: int = 0
    """Batch it belongs to; 0 for none."""
    members: tuple[bytes, ...] = ()
    """Ids of the objects it is composed of."""
    spill: bytes = b""
    """Where its payload was spilled to, msgpack; empty while in memory."""
    expires_ns: int = 0
    """When it becomes invisible; 0 for never."""
    origin: str = ""
    """Name of the connector that built the payload; empty for what the store takes by itself."""


FLAG_PROBING = 1 << 0
"""A conditional delete is looking for readers; readers wait for its outcome (INV-9)."""
FLAG_EVICTABLE = 1 << 1
"""May be dropped to make room."""
FLAG_REPLICA = 1 << 2
"""A copy of an object whose primary lies elsewhere."""
FLAG_BORROWED = 1 << 3
"""The payload is somebody else's memory."""

_encoder = msgspec.msgpack.Encoder()
encode_record = _encoder.encode
"""Encode any record to bytes."""
decode_record = msgspec.msgpack.Decoder(ObjectRecord).decode
"""Decode an ObjectRecord from bytes."""
