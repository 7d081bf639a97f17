"""Objects made of memory that belongs to somebody else: what of a value lies in it is not copied.

From a value and a run of memory to what is to be stored: pure, as in composition. A table keeps those columns
in place all of whose buffers lie in the run (apart.py); the others are stored as usual, in the same object.
An array lies in it as a whole. May call objects.registry's connectors, apart, composition, encoding, tensor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from flightstore.catalog.records import LOAN
from flightstore.errors import NotBorrowable, NotStorable
from flightstore.objects.apart import lies_in, stream_apart
from flightstore.objects.base import KIND_TENSOR, Payload
from flightstore.objects.capture import Message, capture, size_of
from flightstore.objects.composition import Composition, Piece, SegmentSource, Source, compose, own_segments
from flightstore.objects.connector import connector_for
from flightstore.objects.encoding import streams_of
from flightstore.objects.ipc import Stream, expressible, refusing
from flightstore.objects.tensor import encode_tensor

__all__ = ["Lent", "Run", "lend"]


class Run(NamedTuple):
    """A run of memory."""

    address: int
    length: int


class Lent(NamedTuple):
    """An object that refers to borrowed memory: it shares LOAN, which is this part of the run."""

    composition: Composition
    offset: int
    """Where the part begins in the run."""
    length: int
    """Its length."""


def lend(value: Any, run: Run) -> Lent:
    """What to store of a value, parts of which lie in a run of memory.

    Args:
        value: An Arrow table, a NumPy array, or what a connector makes one of these.
        run: The memory.

    Raises:
        NotBorrowable: nothing of it lies there, or only pickle could store it; says why.
    """
    try:
        return _lend(value, run)
    except NotBorrowable:
        raise
    except NotStorable as error:
        raise NotBorrowable(error.message, hint=error.hint) from error


def _lend(value: Any, run: Run) -> Lent:
    connector = connector_for(type(value))
    built = value if connector is None else connector.build(value, pickle=True)
    if isinstance(built, pa.Table):
        lent = _lend_table(built, run, dictionaries=connector is None)
    elif type(built) is np.ndarray:
        lent = _lend_array(built, run)
    else:
        raise NotBorrowable(f"a {type(value).__name__} is stored as a copy of its bytes")
    if connector is None:
        return lent
    payload = msgspec.structs.replace(lent.composition.payload, origin=connector.name)
    return lent._replace(composition=lent.composition._replace(payload=payload))


# --- arrays ---


def _lend_array(array: np.ndarray[Any, Any], run: Run) -> Lent:
    payload = encode_tensor(array)
    offset = array.ctypes.data - run.address
    whole = len(payload.pieces) == 1 and payload.size_bytes == array.nbytes
    if not whole or not (array.flags.c_contiguous or array.flags.f_contiguous):
        raise NotBorrowable(f"an array of {array.dtype} and shape {array.shape} is not one run of bytes")
    if offset < 0 or offset + array.nbytes > run.length:
        raise NotBorrowable("the array's elements lie elsewhere")
    empty = Payload(KIND_TENSOR, payload.layout, 0, ())
    return Lent(Composition(empty, (LOAN,), (), array.nbytes), offset, array.nbytes)


# --- tables ---


def _lend_table(table: pa.Table, run: Run, *, dictionaries: bool) -> Lent:
    expressible(table.schema)
    columns = {index: _captured(table, [index]) for index in range(table.num_columns)}
    lent = [index for index, messages in columns.items() if _lies_there(messages, run)]
    if not lent:
        raise NotBorrowable("no column of the table lies there as a whole")
    rest = [index for index in range(table.num_columns) if index not in set(lent)]
    buffers = _buffers([message for index in lent for message in columns[index]])
    first = min(address for address, _ in buffers)
    used = Run(first, max(address + size for address, size in buffers) - first)
    parts = [(stream, columns, True) for stream, columns in _streams_apart(table, lent, used)]
    if rest:
        kept = streams_of(table.select(rest), dictionaries=dictionaries)
        parts += [(stream, [rest[column] for column in columns], False) for stream, columns in kept]
    segments = _segments(table.schema, parts)
    places = {
        column: (Piece(segment, position),)
        for segment, (_, columns, _) in zip(segments, parts, strict=True)
        for position, column in enumerate(columns)
    }
    wanted = Source(table.schema, table.num_rows, [places[index] for index in range(table.num_columns)])
    composition = compose(wanted, [stream for stream, _, _ in parts])
    nbytes = composition.nbytes + sum(size for _, size in buffers)
    return Lent(composition._replace(nbytes=nbytes), first - run.address, used.length)


def _captured(table: pa.Table, columns: list[int]) -> list[Message]:
    part = table.select(columns)
    with refusing(part.schema):
        return capture(part.schema, part.to_batches())


def _lies_there(messages: list[Message], run: Run) -> bool:
    """Whether there are buffers, and all lie there."""
    some = any(size_of(data) for message in messages for data in message.buffers)
    return some and all(lies_in(message, *run) for message in messages)


def _streams_apart(table: pa.Table, columns: list[int], run: Run) -> list[tuple[Stream, list[int]]]:
    """One stream; or one for each column, where cutting them all at each other's chunks moves buffers."""
    messages = _captured(table, columns)
    if _lies_there(messages, run):
        rows = [batch.num_rows for batch in table.select(columns).to_batches()]
        return [(stream_apart(messages, *run, rows), columns)]
    return [found for column in columns for found in _streams_apart(table, [column], run)]


def _segments(schema: pa.Schema, parts: list[tuple[Stream, list[int], bool]]) -> list[SegmentSource]:
    schemas = [
        pa.schema([schema.field(column) for column in columns], schema.metadata) for _, columns, _ in parts
    ]
    own = own_segments([(stream, part) for (stream, _, _), part in zip(parts, schemas, strict=True)])
    return [
        segment._replace(bodies=LOAN) if apart else segment
        for segment, (_, _, apart) in zip(own, parts, strict=True)
    ]


def _buffers(messages: list[Message]) -> set[tuple[int, int]]:
    """(address, size) of the buffers of messages; several may share one."""
    return {(data.address, data.size) for message in messages for data in message.buffers if size_of(data)}
