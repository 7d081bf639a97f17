"""gRPC's own client, which knows nothing of Arrow: sees codes as other languages do, and reads as slowly as a
test wants.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pyarrow as pa
import pytest

__all__ = ["Raw", "Upload", "batches_of", "fields_of", "message", "outcome"]

SERVICE = "/arrow.flight.protocol.FlightService/"
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536))
"""What is not read stays with the server, but for 64 KiB."""


def message(*fields: tuple[int, bytes]) -> bytes:
    """A protobuf message of bytes fields."""
    parts = []
    for number, value in fields:
        parts += [_varint(number << 3 | 2), _varint(len(value)), value]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def fields_of(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The bytes fields of a protobuf message that has no others."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(raw):
        field, size = number() >> 3, number()
        yield field, raw[at : at + size]
        at += size


def batches_of(messages: list[bytes]) -> pa.Table:
    """The table in the messages of a DoGet."""
    out = bytearray()
    for raw in messages:
        fields = dict(fields_of(raw))
        head = fields[2] + b"\0" * (-len(fields[2]) % 8)
        out += b"\xff\xff\xff\xff" + len(head).to_bytes(4, "little") + head + fields.get(1000, b"")
    return pa.ipc.open_stream(bytes(out)).read_all()


def outcome(call: Any) -> tuple[str, str]:
    """Code and text that a call ends with, once all its messages are read."""
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


class Upload:
    """A DoPut whose messages are sent one by one."""

    def __init__(self, channel: Any, method: str = "DoPut") -> None:
        self._messages: queue.Queue[bytes | None] = queue.Queue()
        start = channel.stream_stream(SERVICE + method, lambda raw: raw, lambda raw: raw)
        self.call = start(iter(self._messages.get, None))

    def send(self, raw: bytes) -> None:
        """One message."""
        self._messages.put(raw)

    def begin(self, name: str, schema: pa.Schema) -> None:
        """The first message of an upload."""
        head = schema.serialize().to_pybytes()[8:]
        self.send(message((1, b"\x08\x01" + message((3, name.encode()))), (2, head)))

    def end(self) -> None:
        """No more messages."""
        self._messages.put(None)

    def error(self) -> Any:
        """What the call ends with."""
        with pytest.raises(grpc.RpcError) as caught:
            list(self.call)
        self.end()
        return caught.value


class Raw:
    """A client of a Flight server."""

    def __init__(self, target: int | str) -> None:
        target = f"127.0.0.1:{target}" if isinstance(target, int) else target
        options = (*SMALL_WINDOW, ("grpc.max_receive_message_length", -1))
        self.channel = grpc.insecure_channel(target, options=options)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *error: object) -> None:
        self.channel.close()

    def stream(self, method: str, request: bytes, *headers: tuple[str, str]) -> Any:
        """The messages that a call returns, none of them read."""
        call = self.channel.unary_stream(SERVICE + method, lambda raw: raw, lambda raw: raw)
        return call(request, timeout=60, metadata=headers)

    def get(self, ticket: bytes) -> Any:
        """The messages of a DoGet."""
        return self.stream("DoGet", message((1, ticket)))

    def upload(self, method: str = "DoPut") -> Upload:
        """A DoPut, or DoExchange, of which nothing is sent yet."""
        return Upload(self.channel, method)

    def error_of(self, method: str, request: bytes, *headers: tuple[str, str]) -> Any:
        """What a call that returns one message or many ends with."""
        with pytest.raises(grpc.RpcError) as caught:
            list(self.stream(method, request, *headers))
        return caught.value
