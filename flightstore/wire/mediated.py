"""How a process that may not be a client of the store reads its memory all the same: over a unix socket of
the gateway, beside the others, that carries descriptors.

Messages are JSON with their length before them (32 bits, little-endian). The first one of each side says
hello; the gateway's carries two descriptors: the arena, opened for reading, and the file that stands for this
process (lifecycle.guests), to be kept open for as long as anything is read. Then the client asks for objects,
one after the other, and says which it needs no more; that has no answer.
"""

from __future__ import annotations

import socket
from struct import Struct
from typing import TypeVar

import msgspec

from flightstore.errors import GatewayUnreachable
from flightstore.wire import messages
from flightstore.wire.faults import Fault

__all__ = ["MAX_MESSAGE_BYTES", "Answer", "Greeting", "Request", "Welcome", "received", "send"]

T = TypeVar("T")

_LENGTH = Struct("<I")
MAX_MESSAGE_BYTES = 64 << 20
"""Longer messages end the connection."""


class Greeting(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The client's first message."""

    authorization: str | None = None
    """As in the header of that name."""
    session: str | None = None
    """As in ``x-flightstore-session``."""


class Welcome(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The gateway's first message, with the two descriptors; or why there are none."""

    arena_bytes: int = 0
    """Length of the arena's file."""
    fault: Fault | None = None


class Request(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A further message of the client."""

    get: str | None = None
    """The object wanted; None for nothing, when there is only something to release."""
    timeout_s: float = 0
    """How long to wait for it, 30 at most."""
    release: list[int] = []
    """Numbers of references that are needed no more."""


class Answer(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What there is to say to a `get`."""

    number: int = 0
    """Number of the reference; 0 when not all of the object lies in the arena, and it must be fetched."""
    id: str = ""
    record: bytes = b""
    """The object's record, as the catalog encodes it, with all its extents."""
    fault: Fault | None = None


def send(connection: socket.socket, message: msgspec.Struct, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message.

    Raises:
        OSError: the connection is broken, or its time is over.
    """
    text = messages.encode(message)
    data = _LENGTH.pack(len(text)) + text
    sent = socket.send_fds(connection, [data], list(descriptors)) if descriptors else 0
    connection.sendall(memoryview(data)[sent:])


def received(connection: socket.socket, kind: type[T], *, descriptors: int = 0) -> tuple[T, list[int]] | None:
    """The next message, and the descriptors that came with it; None when the other side has ended.

    Raises:
        OSError: the connection is broken, or its time is over.
        InvalidArgument, GatewayUnreachable: it is not a message.
    """
    head, found = b"", []
    while len(head) < _LENGTH.size:
        if descriptors:
            part, more, _, _ = socket.recv_fds(connection, _LENGTH.size - len(head), descriptors)
            found += more
        else:
            part = connection.recv(_LENGTH.size - len(head))
        if not part:
            return None
        head += part
    (length,) = _LENGTH.unpack(head)
    if length > MAX_MESSAGE_BYTES:
        raise GatewayUnreachable(f"a message of {length:,} bytes came over the socket for mapping")
    body = bytearray(length)
    view = memoryview(body)
    while view:
        got = connection.recv_into(view)
        if not got:
            return None
        view = view[got:]
    return messages.decode(memoryview(body), kind), found
