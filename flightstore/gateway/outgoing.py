"""Objects on their way out: as frames for our own client, as tables for everybody.

What is returned refers to the store's memory and holds a reference on the object: the bytes stay what they
are until the last piece is let go, whatever happens to the object meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from flightstore.catalog.records import ARENA_FILE
from flightstore.errors import InvalidArgument
from flightstore.objects.base import KIND_COMPOSED, Object, Payload
from flightstore.objects.registry import copy_of_stored
from flightstore.objects.table import Table
from flightstore.store.local import Store
from flightstore.types import Ref
from flightstore.wire.frames import FrameHeader, packed
from flightstore.wire.messages import Ticket

__all__ = ["Frame", "frame_of", "header_of", "loan_check", "rows_of", "table_of"]


class Frame(NamedTuple):
    """An object as one run of bytes: `head`, then `size_bytes` of payload."""

    head: bytes
    """The frame's header, packed."""
    size_bytes: int
    """Length of the payload."""
    pieces: Sequence[tuple[int, Any]]
    """The payload: (offset, bytes-like object), ascending; zeros between them."""
    file: tuple[str, int] | None
    """Where the payload lies in one piece in a file of the store: path and offset. None if it does not."""
    held: Object
    """The reference that keeps it."""
    check: Callable[[], None] | None
    """Raises once pieces may have become others; None where they cannot."""


def frame_of(store: Store, ref: Ref) -> Frame:
    """An object with everything that makes it, for our own client.

    Raises:
        ObjectNotFound, ObjectLost: there is none.
    """
    held = store.get(ref)
    record = held._live.record
    payload = copy_of_stored(held)
    header = header_of(held, payload)
    file = None
    if record.kind != KIND_COMPOSED and record.extents and record.extents[0].file == ARENA_FILE:
        file = (f"{store.path}/arena", record.extents[0].offset)
    return Frame(packed(header), payload.size_bytes, payload.pieces, file, held, loan_check(held))


def loan_check(held: Object) -> Callable[[], None] | None:
    """Raises ObjectLost once the bytes of an object may have become others, because they are borrowed and
    nobody keeps them any more; None where nothing is borrowed.
    """
    handle = held._live
    return handle.store.loan_check(handle)


def header_of(held: Object, payload: Payload | None = None) -> FrameHeader:
    """What is to be known of an object: as it is sent with `payload`, or as it is stored."""
    record = held._live.record
    metadata = held.metadata
    return FrameHeader(
        kind=record.kind if payload is None else payload.kind,
        size_bytes=record.nbytes if payload is None else payload.size_bytes,
        layout=record.layout if payload is None else payload.layout,
        num_rows=record.num_rows,
        origin=record.origin,
        name=held.name,
        id=str(held.id),
        metadata_raw=msgspec.msgpack.encode(metadata) if metadata is not None else b"",
        nbytes=record.nbytes,
        members=[member.id.hex() for member in record.members],
        serial=record.serial,
        created_ns=record.created_ns,
        creator_pid=record.creator_pid,
    )


def table_of(store: Store, ref: Ref) -> tuple[Object, pa.Table]:
    """A stored table, over the store's memory.

    Raises:
        ObjectNotFound, ObjectLost: there is none.
        InvalidArgument: it is no table.
    """
    held = store.get(ref)
    if not isinstance(held, Table):
        raise InvalidArgument(
            f"{ref} is a {held.kind}, not a table",
            hint="get its bytes over HTTP, or use flightstore's client",
        )
    return held, held.to_arrow()


def rows_of(table: pa.Table, ticket: Ticket) -> pa.Table:
    """The columns and rows that a ticket asks for; nothing is copied.

    Raises:
        InvalidArgument: there is no such column.
    """
    if ticket.columns is not None:
        missing = [name for name in ticket.columns if table.schema.get_field_index(name) < 0]
        if missing:
            raise InvalidArgument(
                f"there is no column {missing[0]!r}, or several",
                hint=f"the columns are {', '.join(table.column_names)[:500]}",
            )
        table = table.select(ticket.columns)
    if ticket.offset or ticket.limit is not None:
        table = table.slice(ticket.offset, ticket.limit)
    if ticket.partition is not None:
        start = table.num_rows * ticket.partition // ticket.partitions
        end = table.num_rows * (ticket.partition + 1) // ticket.partitions
        table = table.slice(start, end - start)
    return table
