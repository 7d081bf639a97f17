"""A stored object as one run of bytes: a header, then the payload just as it lies in the store.

This is how our own client puts and gets: any kind of object, every type exactly, and nothing is encoded or
decoded on the way. Layout: ``FSP1``, the header's length (32 bits, little-endian), the header (JSON), spaces
up to a multiple of 64, the payload.
"""

from __future__ import annotations

from struct import Struct

import msgspec

from flightstore.errors import InvalidArgument
from flightstore.wire import messages

__all__ = ["MAX_HEADER_BYTES", "PREFIX_BYTES", "FrameHeader", "header_bytes", "packed", "unpacked"]

_PREFIX = Struct("<4sI")
_MAGIC = b"FSP1"
PREFIX_BYTES = _PREFIX.size
"""What tells how long the header is."""
MAX_HEADER_BYTES = 4 << 20
"""Longer headers are refused."""


class FrameHeader(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What stands before a payload."""

    kind: int
    """Kind code (objects.base)."""
    size_bytes: int
    """Length of the payload that follows."""
    layout: bytes = b""
    """What the kind needs to read it."""
    num_rows: int | None = None
    origin: str = ""
    """Name of the connector that built it."""
    name: str | None = None
    id: str | None = None
    metadata_raw: bytes = b""
    """msgpack; empty for none."""
    nbytes: int = 0
    """In an answer: what the object counts in the store."""
    members: list[str] = []
    """In an answer: ids of the objects whose columns it shares there."""
    serial: int = 0
    """In an answer: the object's number in its store."""
    created_ns: int = 0
    creator_pid: int = 0
    evictable: bool = False
    batch: int = 0
    """In a request: the batch that it goes with."""
    timeout_s: float = 0
    """In a request: how long to wait for room."""
    staged: bool = False
    """In a request: nobody is to see it before a ``put_many`` names its id (wire.many)."""


def packed(header: FrameHeader) -> bytes:
    """The header with all that stands before the payload."""
    text = messages.encode(header)
    padded = text + b" " * (-(len(text) + PREFIX_BYTES) % 64)
    return _PREFIX.pack(_MAGIC, len(padded)) + padded


def header_bytes(prefix: bytes | memoryview) -> int:
    """How long the header is that follows these PREFIX_BYTES.

    Raises:
        InvalidArgument: it is no frame.
    """
    if len(prefix) != PREFIX_BYTES:
        raise InvalidArgument(f"a frame begins with {PREFIX_BYTES} bytes, got {len(prefix)}")
    magic, length = _PREFIX.unpack(prefix)
    if magic != _MAGIC or length > MAX_HEADER_BYTES:
        raise InvalidArgument("this is not a frame of flightstore", hint="docs/protocol.md describes it")
    return int(length)


def unpacked(raw: bytes | memoryview) -> FrameHeader:
    """The header from its bytes (without the prefix).

    Raises:
        InvalidArgument: it is not one.
    """
    header = messages.decode(raw, FrameHeader)
    if header.size_bytes < 0:
        raise InvalidArgument(f"a payload of {header.size_bytes} bytes")
    return header
