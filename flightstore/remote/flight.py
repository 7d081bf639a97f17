"""The way over Arrow Flight, where HTTP is not offered: frames travel as rows of one binary column.

gRPC does not survive a fork: its threads are the parent's. A forked child is told so, clearly, instead of
being left to hang. gRPC counts a whole call, not its signs of life: transfers may take TRANSFER_FACTOR times
the request timeout.
"""

from __future__ import annotations

import contextlib
import os
import threading
import urllib.parse
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import flight

from flightstore.errors import (
    FlightStoreError,
    GatewayUnreachable,
    NotAllowed,
    NotAuthenticated,
    StoreClosed,
)
from flightstore.remote.address import Address, Credentials
from flightstore.remote.private import private_memory
from flightstore.remote.transport import REPEATABLE, Timeouts, pieces_of, unreachable
from flightstore.types import ObjectID
from flightstore.wire.faults import Fault, error_of, named_error
from flightstore.wire.frames import PREFIX_BYTES, FrameHeader, header_bytes, packed, unpacked
from flightstore.wire.messages import Info, PutCommand, Ticket, decode, encode, parse_ref

__all__ = ["FlightTransport"]

TRAILER = "x-flightstore-fault-bin"
TRANSFER_FACTOR = 10
_ROW_BYTES = 1 << 20
_FRAME = pa.schema([pa.field("frame", pa.large_binary(), nullable=False)])
_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
]
_used_in: set[int] = set()
"""Processes, among this one and its ancestors, that used gRPC."""
_clients: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited: list[Any] = []
"""A parent's clients: to end one in a forked child would wait for threads that are not there."""
os.register_at_fork(after_in_child=lambda: _inherited.extend(_clients))


class FlightTransport:
    """Requests to one gateway over gRPC."""

    def __init__(self, address: Address, credentials: Credentials, timeouts: Timeouts) -> None:
        self._address = address
        self._timeouts = timeouts
        self._pid = os.getpid()
        self._refuse_forked()
        _used_in.add(self._pid)
        self._headers = []
        if credentials.token:
            self._headers.append((b"authorization", f"Bearer {credentials.token}".encode()))
        self._faults = _Faults()
        tls: dict[str, Any] = {}
        if address.tls:
            tls["tls_root_certs"] = credentials.tls_root_certificates
            if credentials.client_certificate:
                tls["cert_chain"] = credentials.client_certificate
                tls["private_key"] = credentials.client_key
        # The least that an attempt to connect is given, whatever the name says.
        patience = ("grpc.min_reconnect_backoff_ms", int(timeouts.connect_s * 1000))
        options = [*_OPTIONS, patience]
        try:
            self._client: Any = flight.FlightClient(
                address.flight_location, generic_options=options, middleware=[self._faults], **tls
            )
        except pa.ArrowException as error:
            raise unreachable(self.url, error) from error
        _clients.add(self._client)

    @property
    def url(self) -> str:
        return self._address.url

    def act(self, action: str, request: bytes, *, session: str | None, wait_s: float = 0) -> bytes:
        options = self._options(session, self._timeouts.request_s + wait_s)
        if action == "hello":
            options = self._options(session, self._timeouts.connect_s)
        client = self._live_client()
        for last in (action not in REPEATABLE, True):
            try:
                with self._said(sent=True):
                    results = list(client.do_action(flight.Action(action, request), options))
                return b"".join(bytes(one.body) for one in results)
            except GatewayUnreachable as error:
                if last or isinstance(error.__cause__, flight.FlightTimedOutError):
                    raise
        raise AssertionError

    def get_frame(self, ref: str, *, session: str | None) -> tuple[FrameHeader, pa.Buffer]:
        found = parse_ref(ref)
        ticket = Ticket(payload=True)
        if isinstance(found, ObjectID):
            ticket.id = str(found)
        else:
            ticket.name = found
        options = self._options(session, self._timeouts.request_s * TRANSFER_FACTOR)
        client = self._live_client()
        with self._said(sent=False):
            reader = client.do_get(flight.Ticket(encode(ticket)), options)
            try:
                return _received(_rows(reader))
            except BaseException:
                reader.cancel()
                raise

    def put_frame(
        self, header: FrameHeader, pieces: Sequence[tuple[int, Any]], *, session: str | None, wait_s: float
    ) -> Info:
        command = encode(PutCommand(payload=True))
        options = self._options(session, self._timeouts.request_s * TRANSFER_FACTOR + wait_s)
        client = self._live_client()
        with self._said(sent=True):
            descriptor = flight.FlightDescriptor.for_command(command)
            writer, results = client.do_put(descriptor, _FRAME, options)
            with contextlib.closing(writer):
                for run in pieces_of(packed(header), header.size_bytes, pieces):
                    for at in range(0, run.nbytes, _ROW_BYTES):
                        writer.write_batch(_row(pa.py_buffer(run[at : at + _ROW_BYTES])))
                writer.done_writing()
                answer = results.read()
        if answer is None:
            raise unreachable(self.url, EOFError("no answer"), sent=True)
        return decode(bytes(answer), Info)

    def rest(self) -> None:
        pass

    def close(self) -> None:
        """Let go of the client. It ends with the last call that uses it: closed under a call, it crashes."""
        if self._pid == os.getpid():
            self._client = None

    # --- inside ---

    def _live_client(self) -> Any:
        """The client; whoever calls keeps it until the call is over."""
        self._refuse_forked()
        client = self._client
        if client is None:
            raise StoreClosed("this store handle was closed", hint="connect again")
        return client

    def _options(self, session: str | None, timeout_s: float) -> Any:
        self._refuse_forked()
        headers = list(self._headers)
        if session is not None:
            headers.append((b"x-flightstore-session", urllib.parse.quote(session, safe="").encode()))
        return flight.FlightCallOptions(timeout=timeout_s, headers=headers)

    def _refuse_forked(self) -> None:
        if os.getpid() != self._pid or _used_in - {os.getpid()}:
            raise FlightStoreError(
                f"the gateway {self.url} was reached by Flight before this process was forked, and gRPC does "
                "not survive a fork",
                hint="let the gateway serve HTTP, or start processes with multiprocessing's 'spawn'",
            )

    @contextlib.contextmanager
    def _said(self, *, sent: bool) -> Iterator[None]:
        """What Flight raises, as what it means."""
        try:
            yield
        except (pa.ArrowException, OSError, KeyError, NotImplementedError) as error:
            raise self._meaning(error, sent) from error

    def _meaning(self, error: Exception, sent: bool) -> FlightStoreError:
        raw = getattr(error, "extra_info", None) or self._faults.of_this_thread()
        if raw:
            try:
                return error_of(decode(bytes(raw), Fault))
            except FlightStoreError:
                pass
        text = str(error)
        name = text.rpartition("Detail: Python exception: ")[2].strip() if "Detail:" in text else ""
        kind = named_error(name)
        if kind is not FlightStoreError:
            return kind(text.partition(". Detail:")[0])
        if isinstance(error, flight.FlightUnauthenticatedError):
            return NotAuthenticated(_first_line(text))
        if isinstance(error, flight.FlightUnauthorizedError):
            return NotAllowed(_first_line(text))
        if isinstance(error, flight.FlightTimedOutError):
            return unreachable(self.url, TimeoutError(_first_line(text)), sent=sent)
        not_sent = "failed to connect" in text.lower() or "name resolution" in text.lower()
        return unreachable(self.url, OSError(_first_line(text)), sent=sent and not not_sent)


class _Faults(flight.ClientMiddlewareFactory):  # type: ignore[misc]
    """Knows the error that came with the latest answer to each thread: the trailer TRAILER."""

    def __init__(self) -> None:
        super().__init__()
        self._local = threading.local()

    def start_call(self, info: Any) -> Any:
        self._local.call = call = _Call()
        return call

    def of_this_thread(self) -> bytes | None:
        """As JSON; None if there was none."""
        call = getattr(self._local, "call", None)
        return call.fault if call is not None else None


class _Call(flight.ClientMiddleware):  # type: ignore[misc]
    """One call."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: bytes | None = None

    def received_headers(self, headers: dict[str, list[Any]]) -> None:
        found = headers.get(TRAILER)
        if found:
            self.fault = found[0]


def _first_line(text: str) -> str:
    return text.partition("\n")[0].partition(". gRPC client debug context")[0][:500]


def _row(buffer: pa.Buffer) -> pa.RecordBatch:
    offsets = pa.py_buffer(b"\0" * 8 + buffer.size.to_bytes(8, "little"))
    array = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, buffer], 0)
    return pa.RecordBatch.from_arrays([array], schema=_FRAME)


def _rows(reader: Any) -> Iterator[memoryview]:
    while True:
        try:
            batch = reader.read_chunk().data
        except StopIteration:
            return
        for value in batch.column(0):
            yield memoryview(value.as_buffer()).cast("B")


def _received(rows: Iterator[memoryview]) -> tuple[FrameHeader, pa.Buffer]:
    """Header and payload from rows that were cut anywhere."""
    got, wanted = bytearray(), PREFIX_BYTES
    for row in rows:
        got += row
        if len(got) >= PREFIX_BYTES:
            wanted = PREFIX_BYTES + header_bytes(bytes(got[:PREFIX_BYTES]))
        if len(got) >= wanted > PREFIX_BYTES:
            break
    header = unpacked(bytes(got[PREFIX_BYTES:wanted]))
    target, buffer = private_memory(header.size_bytes)
    rest = memoryview(got)[wanted:]
    at = rest.nbytes
    if at > header.size_bytes:
        raise OSError(f"a frame of more than the {header.size_bytes:,} bytes that were announced")
    target[:at] = rest
    for row in rows:
        if at + row.nbytes > header.size_bytes:
            raise OSError(f"a frame of more than the {header.size_bytes:,} bytes that were announced")
        target[at : at + row.nbytes] = row
        at += row.nbytes
    if at != header.size_bytes:
        raise OSError(f"a frame that ends after {at:,} of {header.size_bytes:,} bytes")
    return header, buffer
