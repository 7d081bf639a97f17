"""Arrow IPC messages as bytes: find a message's list of buffers and move the buffers to multiples of 64.

pyarrow pads body buffers to 8 bytes and offers no option, yet a reader takes whatever offsets the message
names. So the message the writer made is kept, and only its numbers are changed: the offset of each buffer and
the length of the body. No other byte of the flatbuffer moves, so it stays valid for every reader.

Calls nothing else. The format, little-endian throughout, of what is walked here:

    message   = FF FF FF FF | int32 length of metadata and padding | metadata | padding | body
    metadata  = flatbuffer: uint32 at 0 = position of the root table
    table     = int32: distance back to its vtable | fields
    vtable    = uint16 own size | uint16 table size | per field uint16: place in the table, 0 = absent
    reference = uint32: distance from itself to the table or vector
    vector    = uint32 count | elements

    Message         fields: 0 version, 1 header type (uint8), 2 header (reference), 3 body length (int64)
    DictionaryBatch fields: 0 id, 1 data (reference to a RecordBatch), 2 is delta
    RecordBatch     fields: 0 length (int64), 1 nodes, 2 buffers (vector of Buffer), 3 compression
    Buffer          = int64 offset in the body | int64 length
"""

from __future__ import annotations

from struct import Struct, pack_into, unpack_from
from typing import Any

__all__ = [
    "DICTIONARY",
    "END_OF_STREAM",
    "PREFIX_BYTES",
    "RECORDS",
    "body_length",
    "realign",
    "sealed_message",
]

SCHEMA, DICTIONARY, RECORDS = 1, 2, 3
"""Header types of messages, as the Arrow format numbers them."""

PREFIX_BYTES = 8
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"

_u16 = Struct("<H").unpack_from
_u32 = Struct("<I").unpack_from
_i32 = Struct("<i").unpack_from
_i64 = Struct("<q")


def _field(data: Any, table: int, number: int) -> int:
    """Position of a table's field, 0 if it is absent (it has its default value)."""
    vtable = table - _i32(data, table)[0]
    slot = 4 + 2 * number
    if slot >= _u16(data, vtable)[0]:
        return 0
    place: int = _u16(data, vtable + slot)[0]
    return table + place if place else 0


def _follow(data: Any, position: int) -> int:
    """What the reference at `position` points to."""
    return position + int(_u32(data, position)[0])


def body_length(metadata: Any) -> tuple[int, int]:
    """(header type, length of the body in bytes) of a message."""
    root = _follow(metadata, 0)
    kind = _field(metadata, root, 1)
    length = _field(metadata, root, 3)
    return metadata[kind] if kind else 0, _i64.unpack_from(metadata, length)[0] if length else 0


def realign(metadata: bytearray) -> tuple[list[tuple[int, int, int]], int]:
    """Change `metadata` (of a record or dictionary batch) so that every buffer begins at a multiple of 64.

    Returns:
        The moves of the buffers that are not empty, as (old offset, new offset, length), and the new body
        length.
    """
    root = _follow(metadata, 0)
    batch = _follow(metadata, _field(metadata, root, 2))
    if metadata[_field(metadata, root, 1)] == DICTIONARY:
        batch = _follow(metadata, _field(metadata, batch, 1))
    moves = []
    at = 0
    buffers = _field(metadata, batch, 2)
    if buffers:
        vector = _follow(metadata, buffers)
        layout = f"<{2 * _u32(metadata, vector)[0]}q"
        numbers = list(unpack_from(layout, metadata, vector + 4))
        for i in range(0, len(numbers), 2):
            length = numbers[i + 1]
            if length:
                moves.append((numbers[i], at, length))
            numbers[i] = at
            at += (length + 63) & -64
        pack_into(layout, metadata, vector + 4, *numbers)
    position = _field(metadata, root, 3)
    if position:  # absent means 0, and an empty body stays empty
        _i64.pack_into(metadata, position, at)
    return moves, at


def sealed_message(metadata: bytes | bytearray) -> bytes:
    """Prefix, metadata, and padding: a body after it begins at a multiple of 64 if the message does."""
    length = ((PREFIX_BYTES + len(metadata) + 63) & -64) - PREFIX_BYTES
    return b"\xff\xff\xff\xff" + length.to_bytes(4, "little") + bytes(metadata).ljust(length, b"\0")
