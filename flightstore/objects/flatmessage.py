"""Arrow IPC messages as bytes: find a message's list of buffers, move the buffers to multiples of 64, and
change what it says of lengths.

pyarrow pads body buffers to 8 bytes and offers no option, yet a reader takes whatever offsets the message
names. So the message the writer made is kept, and only its numbers are changed: offsets and lengths of
buffers, lengths and null counts of nodes, rows, and the length of the body. No other byte of the flatbuffer
moves, so it stays valid for every reader.

Calls nothing else. The format, little-endian throughout, of what is walked here:

    message   = FF FF FF FF | int32 length of metadata and padding | metadata | padding | body
    metadata  = flatbuffer: uint32 at 0 = position of the root table
    table     = int32: distance back to its vtable | fields
    vtable    = uint16 own size | uint16 table size | per field uint16: place in the table, 0 = absent
    reference = uint32: distance from itself to the table or vector
    vector    = uint32 count | elements

    Schema          fields: 0 endianness (int16, 0 = little)
    Message         fields: 0 version, 1 header type (uint8), 2 header (reference), 3 body length (int64)
    DictionaryBatch fields: 0 id, 1 data (reference to a RecordBatch), 2 is delta
    RecordBatch     fields: 0 length (int64), 1 nodes, 2 buffers (vector of Buffer), 3 compression,
                            4 numbers of data buffers of views (vector of int64)
    FieldNode       = int64 length | int64 null count
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
    "buffers_of",
    "is_compressed",
    "is_little_endian",
    "null_counts",
    "place",
    "realign",
    "relay",
    "resize",
    "sealed_message",
    "view_counts",
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


def _batch_of(metadata: Any) -> int:
    """Position of the RecordBatch table of a record or dictionary batch."""
    root = _follow(metadata, 0)
    batch = _follow(metadata, _field(metadata, root, 2))
    if metadata[_field(metadata, root, 1)] == DICTIONARY:
        batch = _follow(metadata, _field(metadata, batch, 1))
    return batch


def _numbers(metadata: Any, table: int, number: int, width: int) -> tuple[list[int], int]:
    """The int64 numbers in a vector of structs of `width` of them, and where they begin; absent is empty."""
    field = _field(metadata, table, number)
    if not field:
        return [], 0
    vector = _follow(metadata, field)
    return list(unpack_from(f"<{width * _u32(metadata, vector)[0]}q", metadata, vector + 4)), vector + 4


def buffers_of(metadata: Any) -> list[tuple[int, int]]:
    """(offset, length) of each buffer of a record or dictionary batch, as the metadata says."""
    numbers, _ = _numbers(metadata, _batch_of(metadata), 2, 2)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def view_counts(metadata: Any) -> list[int]:
    """For each view column of a record batch, depth first, how many data buffers it has."""
    return _numbers(metadata, _batch_of(metadata), 4, 1)[0]


def is_compressed(metadata: Any) -> bool:
    """Whether the body of a record or dictionary batch is compressed."""
    return _field(metadata, _batch_of(metadata), 3) != 0


def is_little_endian(metadata: Any) -> bool:
    """Whether the buffers of a schema's batches are."""
    schema = _follow(metadata, _field(metadata, _follow(metadata, 0), 2))
    place = _field(metadata, schema, 0)
    return not place or _u16(metadata, place)[0] == 0


def null_counts(metadata: Any) -> list[int]:
    """Null counts of the nodes of a batch, depth first."""
    return _numbers(metadata, _batch_of(metadata), 1, 2)[0][1::2]


def relay(metadata: bytearray, lengths: list[int]) -> tuple[list[int], int]:
    """Change `metadata` (of a record or dictionary batch) to buffers of these lengths, each at a multiple of
    64.

    Returns:
        The offset of each buffer, and the new body length.
    """
    offsets = []
    at = 0
    for length in lengths:
        offsets.append(at)
        at += (length + 63) & -64
    place(metadata, list(zip(offsets, lengths, strict=True)), at)
    return offsets, at


def place(metadata: bytearray, buffers: list[tuple[int, int]], body_bytes: int) -> None:
    """Change `metadata` (of a record or dictionary batch) to buffers at these (offset, length) of a body."""
    _, where = _numbers(metadata, _batch_of(metadata), 2, 2)
    if buffers:
        numbers = [number for buffer in buffers for number in buffer]
        pack_into(f"<{len(numbers)}q", metadata, where, *numbers)
    position = _field(metadata, _follow(metadata, 0), 3)
    if position:  # absent means 0, and an empty body stays empty
        _i64.pack_into(metadata, position, body_bytes)
    elif body_bytes:
        raise ValueError("a message without a body cannot be given one")


def resize(metadata: bytearray, num_rows: int, nodes: list[tuple[int, int]]) -> None:
    """Change a record batch of at least one row to `num_rows` rows and (length, null count) of `nodes`."""
    batch = _batch_of(metadata)
    _i64.pack_into(metadata, _field(metadata, batch, 0), num_rows)
    numbers, where = _numbers(metadata, batch, 1, 2)
    pack_into(f"<{len(numbers)}q", metadata, where, *(number for node in nodes for number in node))


def realign(metadata: bytearray) -> tuple[list[tuple[int, int, int]], int]:
    """Change `metadata` (of a record or dictionary batch) so that every buffer begins at a multiple of 64.

    Returns:
        The moves of the buffers that are not empty, as (old offset, new offset, length), and the new body
        length.
    """
    old = buffers_of(metadata)
    offsets, at = relay(metadata, [length for _, length in old])
    moves = [(was, now, length) for (was, length), now in zip(old, offsets, strict=True) if length]
    return moves, at


def sealed_message(metadata: bytes | bytearray) -> bytes:
    """Prefix, metadata, and padding: a body after it begins at a multiple of 64 if the message does."""
    length = ((PREFIX_BYTES + len(metadata) + 63) & -64) - PREFIX_BYTES
    return b"\xff\xff\xff\xff" + length.to_bytes(4, "little") + bytes(metadata).ljust(length, b"\0")
