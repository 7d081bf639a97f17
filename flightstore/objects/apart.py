"""Arrow streams whose messages' bodies lie elsewhere: heads in the store, bodies in somebody's memory.

A head is a message's prefix and metadata; heads lie one after the other, as in a stream without bodies. The
body of each message is the same run of memory, whole: the metadata says where in it the message's buffers
are. Arrow's reader asks for the parts of a head and then for its body, so it is handed one after the other;
nothing is copied.

May call objects.ipc, flatmessage, capture and schemas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

from flightstore.objects.capture import Message, size_of
from flightstore.objects.flatmessage import (
    DICTIONARY,
    END_OF_STREAM,
    PREFIX_BYTES,
    body_length,
    place,
    sealed_message,
)
from flightstore.objects.ipc import CONTAINER_TABLE, FLAG_DICTIONARIES, Stream, layout_of_stream
from flightstore.objects.schemas import fingerprint_of

__all__ = ["lies_in", "open_apart", "stream_apart"]

_OFFSET_BYTES = 8  # Arrow's readers take buffers at multiples of it only


def lies_in(message: Message, address: int, length: int) -> bool:
    """Whether all of a message's buffers can be named as places in that run of memory."""
    return all(
        isinstance(data, pa.Buffer)
        and address <= data.address
        and data.address + data.size <= address + length
        and (data.address - address) % _OFFSET_BYTES == 0
        for data in message.buffers
        if size_of(data)
    )


def stream_apart(messages: Sequence[Message], address: int, length: int, rows: Sequence[int]) -> Stream:
    """The heads of messages as a stream. Requires `lies_in` of each.

    Args:
        messages: The schema, then dictionaries and record batches; their metadata are changed.
        address: Where the bodies begin.
        length: How long they are.
        rows: Of each record batch.
    """
    head = sealed_message(messages[0].metadata)
    pieces: list[tuple[int, Any]] = [(0, head)]
    at, flags = len(head), 0
    for message in messages[1:]:
        if any(size_of(data) for data in message.buffers):
            place(message.metadata, [_span(data, address) for data in message.buffers], length)
        flags |= FLAG_DICTIONARIES if message.kind == DICTIONARY else 0
        sealed = sealed_message(message.metadata)
        pieces.append((at, sealed))
        at += len(sealed)
    pieces.append((at, END_OF_STREAM))
    size = at + len(END_OF_STREAM)
    layout = layout_of_stream(fingerprint_of(head), len(head), [], size, flags, CONTAINER_TABLE)
    return Stream(msgspec.structs.replace(layout, num_batches=len(rows)), pieces, sum(rows))


def _span(data: Any, address: int) -> tuple[int, int]:
    return (data.address - address, data.size) if size_of(data) else (0, 0)


def open_apart(heads: pa.Buffer, body: pa.Buffer) -> pa.Table:
    """The table of a stream whose bodies are `body`, over its memory."""
    with pa.ipc.open_stream(pa.PythonFile(_Alternating(heads, body), mode="r")) as reader:
        return pa.Table.from_batches(list(reader), reader.schema)


class _Alternating:
    """A file for Arrow's stream reader: each head, and behind it the body, if the message has one."""

    closed = False

    def __init__(self, heads: pa.Buffer, body: pa.Buffer) -> None:
        self._heads = heads
        self._body = body
        self._at = 0
        self._end = 0  # of the head that is being read
        self._owes_body = False

    def read_buffer(self, nbytes: int) -> pa.Buffer:
        """What Arrow calls: the next bytes, never past the end of a part."""
        if self._owes_body and self._at == self._end:
            self._owes_body = False
            return self._body.slice(0, nbytes)
        if self._at == self._end:
            self._begin()
        nbytes = min(nbytes, self._end - self._at)
        part = self._heads.slice(self._at, nbytes)
        self._at += nbytes
        return part

    def _begin(self) -> None:
        """The next head."""
        prefix = bytes(self._heads.slice(self._at, PREFIX_BYTES))
        length = int.from_bytes(prefix[4:], "little")
        self._end = self._at + PREFIX_BYTES + length
        metadata = memoryview(self._heads.slice(self._at + PREFIX_BYTES, length))
        self._owes_body = length > 0 and body_length(metadata)[1] > 0

    def read(self, nbytes: int = -1) -> bytes:
        data: bytes = self.read_buffer(nbytes).to_pybytes()
        return data

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
