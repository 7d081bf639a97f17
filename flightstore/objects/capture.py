"""What Arrow's stream writer writes, message by message, nothing copied. May call objects.flatmessage.

Arrow hands metadata over as bytes and each body buffer as a ``pa.Buffer`` of its own. So a Python sink sees
every buffer before it is copied anywhere, and can decide where it goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from flightstore.objects.flatmessage import DICTIONARY, PREFIX_BYTES, RECORDS, body_length, buffers_of

__all__ = ["Message", "capture", "referenced_bytes", "size_of"]


class Message(NamedTuple):
    """An encapsulated message: its metadata, and the buffers of its body in the order of the format."""

    kind: int
    """Header type, as in flatmessage."""
    metadata: bytearray
    """The flatbuffer, without prefix."""
    buffers: list[Any]
    """One bytes-like object for each buffer that the metadata lists; b"" for an empty one."""


def capture(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> list[Message]:
    """The messages Arrow's writer makes of a schema and batches; never compressed."""
    sink = _Sink()
    options = pa.ipc.IpcWriteOptions(compression=None)
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return [_message(metadata, dict(body)) for metadata, body in sink.messages]


def size_of(data: Any) -> int:
    """Bytes of a buffer, Arrow's or any other."""
    return data.size if isinstance(data, pa.Buffer) else len(data)


def referenced_bytes(values: pa.Array | pa.ChunkedArray) -> int:
    """Bytes that the rows of an array refer to; those of its whole buffers where Arrow cannot tell (pyarrow
    23: views).
    """
    try:
        return int(values.nbytes)
    except pa.ArrowTypeError:
        return int(values.get_total_buffer_size())


def _message(metadata: bytearray, body: dict[int, Any]) -> Message:
    kind, _ = body_length(metadata)
    spans = buffers_of(metadata) if kind in (DICTIONARY, RECORDS) else []
    return Message(kind, metadata, [_slice(body, at, size) if size else b"" for at, size in spans])


def _slice(body: dict[int, Any], offset: int, length: int) -> Any:
    """The `length` bytes at `offset` of a body that was written as the buffers `body`.

    A buffer is normally one write. Were a writer to cut or join them, the body is put together first: slower,
    right.
    """
    data = body.get(offset)
    size = -1 if data is None else size_of(data)
    if size == length:
        return data
    whole = b"".join([bytes(part) for _, part in sorted(body.items(), key=lambda item: item[0])])
    return whole[offset : offset + length]


class _Sink:
    """A file for Arrow's stream writer that keeps what is written."""

    closed = False

    def __init__(self) -> None:
        self.messages: list[tuple[bytearray, list[tuple[int, Any]]]] = []
        """(metadata, [(offset in the body, buffer)])"""
        self._head = bytearray()
        self._body_at = 0
        self._body_bytes = 0

    def write(self, data: Any) -> int:
        size = size_of(data)
        if self._body_at < self._body_bytes:
            self.messages[-1][1].append((self._body_at, data))
            self._body_at += size
            return size
        head = self._head
        head += data
        if len(head) >= PREFIX_BYTES:
            length = int.from_bytes(head[4:8], "little")
            if length and len(head) >= PREFIX_BYTES + length:
                self._begin_body(head[PREFIX_BYTES:])
        return size

    def _begin_body(self, metadata: bytearray) -> None:
        self._head = bytearray()
        self._body_at, self._body_bytes = 0, body_length(metadata)[1]
        self.messages.append((metadata, []))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
