"""A bytearray stands in for the extent: place a payload in it, and open it as a stored object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from flightstore.catalog.records import ObjectRecord, decode_record, encode_record
from flightstore.memory.copying import copy_pieces
from flightstore.objects.base import Handle, Object, Payload
from flightstore.objects.registry import encode, open_object
from flightstore.types import Holder, ObjectID


class Extent:
    """Memory at a multiple of 64 bytes, full of garbage until a payload is placed in it."""

    def __init__(self, size_bytes: int) -> None:
        self.memory = bytearray(b"\xaa" * (size_bytes + 64))
        whole = pa.py_buffer(self.memory)
        self.address = (whole.address + 63) // 64 * 64
        self.buffer = pa.foreign_buffer(self.address, size_bytes, base=whole)
        """Read-only, as readers map it."""


class Nobody:
    """A store of which nothing is asked."""

    def holders_of(self, serial: int) -> list[Holder]:
        return []

    def departing(self, object_id: ObjectID) -> tuple[Callable[..., Object], tuple[Any, ...]]:
        raise NotImplementedError


def place(payload: Payload) -> Extent:
    """The payload as the store would write it."""
    extent = Extent(payload.size_bytes)
    copy_pieces(extent.address, payload.size_bytes, payload.pieces)
    return extent


def open_payload(payload: Payload, extent: Extent | None = None) -> Object:
    """The object as a reader in another process would open it: through a record's bytes."""
    extent = extent or place(payload)
    record = ObjectRecord(
        1,
        payload.kind,
        (),
        payload.layout,
        nbytes=payload.size_bytes,
        num_rows=payload.num_rows,
        origin=payload.origin,
    )
    record = decode_record(encode_record(record))
    return open_object(Handle(Nobody(), ObjectID(b"x" * 16), record, None, extent.buffer))


@pytest.fixture
def store_value() -> Callable[..., Any]:
    """``store_value(value)``: put and get."""

    def through(value: Any, **options: Any) -> Object:
        payload = encode(value, **options)
        assert len(payload.layout) < 1000
        return open_payload(payload)

    return through
