"""The connections of a server whose library does not show them: gRPC has no limits of time and hands out no
sockets, and a client that neither reads nor writes keeps one of its threads for ever.

But the sockets are this process's own. They are found among its descriptors by the address that they were
accepted at, and ended by shutting them down, upon which gRPC ends their calls as it does when a client is
gone. A socket is duplicated before it is looked at, so one that is closed and used again meanwhile is never
mistaken. Linux.

Only sockets are: closing any duplicate of a file drops the record locks that this process has on it. LMDB's
locks on the catalog are such; without them others take this process for dead, and its readers' slots for
free.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Connection", "Connections"]

_TCP_INFO_BYTES = 256
_LAST_DATA_RECV = 52
_BYTES_ACKED = 120
"""Where struct tcp_info of linux/tcp.h has them."""


class Connection(NamedTuple):
    """One accepted connection, at the moment it was looked at."""

    socket: socket.socket
    """A duplicate: valid until the next connection is looked at."""
    peer: str
    """As gRPC writes it: ``ipv4:127.0.0.1:5123``, ``ipv6:%5B::1%5D:5123``, or ``unix:``."""
    acked_bytes: int
    """What the client's machine has acknowledged so far; 0 for unix sockets."""
    silent_s: float
    """For how long nothing has come from it; 0 for unix sockets."""

    def end(self) -> None:
        """Break it off."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Connections:
    """Those that were accepted at one port, or one unix socket.

    Args:
        port: The TCP port; 0 for none.
        path: The unix socket; None for none.
    """

    def __init__(self, port: int, path: str | None) -> None:
        self._port = port
        self._path = path

    def __iter__(self) -> Iterator[Connection]:
        for found in _sockets():
            with found, contextlib.suppress(OSError):
                if self._is_ours(found):
                    yield _looked_at(found)

    def end(self, peer: str) -> None:
        """Break off the connection of a peer, as gRPC writes it; unix peers cannot be told apart."""
        for connection in self:
            if connection.peer == peer and peer != "unix:":
                connection.end()

    def end_all(self) -> None:
        """Break off all of them."""
        for connection in self:
            connection.end()

    def _is_ours(self, found: socket.socket) -> bool:
        own = found.getsockname()
        if found.family == socket.AF_UNIX:
            ours = self._path is not None and own == self._path
        else:
            ours = found.family in (socket.AF_INET, socket.AF_INET6) and self._port == own[1] != 0
        if not ours:
            return False
        found.getpeername()  # which a listening socket has none of
        return True


def _sockets() -> Iterator[socket.socket]:
    """Duplicates of all sockets of this process."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            descriptor = os.dup(int(name))
        except OSError:
            continue
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            continue  # a file's, between these two lines: it stays open, see above
        try:
            yield socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)


def _looked_at(found: socket.socket) -> Connection:
    if found.family == socket.AF_UNIX:
        return Connection(found, "unix:", 0, 0.0)
    host, port = found.getpeername()[:2]
    host = host.removeprefix("::ffff:")
    peer = f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
    raw = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    (silent_ms,) = struct.unpack_from("I", raw, _LAST_DATA_RECV)
    (acked,) = struct.unpack_from("Q", raw, _BYTES_ACKED)
    return Connection(found, peer, acked, silent_ms / 1000)
