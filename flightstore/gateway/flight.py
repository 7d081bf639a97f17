"""The Flight server: every call taken apart, handed to the service, and answered. It decides nothing.

- flight_calls: who calls, how many at a time; headers
- flight_errors: errors with their gRPC codes, without tracebacks
- flight_streams: tables and frames, in and out
- flight_exchange: DoExchange
- stalled, connections: clients that neither read nor write

gRPC gives each call a thread of its own. Exceptions of a handler leave through `_handled`, and no other way.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import flight

from flightstore.errors import InvalidArgument, ObjectLost, ObjectNotFound
from flightstore.gateway import flight_exchange as exchange
from flightstore.gateway import flight_streams as streams
from flightstore.gateway.access import READ, WRITE, Authenticates, Caller
from flightstore.gateway.connections import Connections
from flightstore.gateway.flight_calls import MIDDLEWARE, Call, Calls, Metrics, NoHandshake
from flightstore.gateway.flight_errors import TRAILER, as_flight_error, code_of, packed_fault
from flightstore.gateway.hydrating import plain_schema
from flightstore.gateway.limits import Limits
from flightstore.gateway.outgoing import rows_of, table_of
from flightstore.gateway.service import ACTIONS, Service, segments_of
from flightstore.gateway.stalled import Watch
from flightstore.objects.base import Object
from flightstore.store.local import Store
from flightstore.types import ObjectID, ObjectInfo
from flightstore.wire import messages as m

__all__ = ["FlightServer", "is_loopback"]

MAX_PARTITIONS = 10_000
LAST_S = 1.0
"""The share of a stop's time, at most, that it keeps for what follows breaking off all connections."""


class _Asked:
    """One call, with all that its handler needs."""

    def __init__(self, server: FlightServer, context: Any, call: Call, caller: Caller) -> None:
        self.context = context
        self.call = call
        self.caller = caller
        self.service = server.service
        self._server = server

    @functools.cached_property
    def store(self) -> Store:
        """The store, or session, that is meant."""
        return self.service.store_for(self.caller, self.call.session)


def _handled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A handler that knows its caller, and whose errors leave as Flight has them."""
    what = function.__name__

    @functools.wraps(function)
    def handler(self: FlightServer, context: Any, *arguments: Any) -> Any:
        call = self.calls.of(context)
        try:
            caller = self.calls.caller_of(call, context)
            answer = function(self, _Asked(self, context, call, caller), *arguments)
        except Exception as error:
            call.code = code_of(error)
            raised, fault = as_flight_error(error, what)
            context.add_trailer(TRAILER, packed_fault(fault))
        else:
            call.waiting_since = time.monotonic()  # for the client, who takes the answer
            return answer
        raise raised

    return handler


class FlightServer(flight.FlightServerBase):  # type: ignore[misc]
    """A store for every language's Flight client. Serves from the moment it is made.

    Args:
        service: What does the work.
        authenticator: Who finds out who calls.
        location: ``grpc://host:port``, ``grpc+tls://host:port`` or ``grpc+unix:///path``; port 0 for any.
        limits: What it refuses beyond.
        tls_certificates: (certificate, key) pairs, PEM.
        verify_client: Whether clients must have a certificate. The basic handshake is not offered then;
            tokens are sent as headers all the same.
        root_certificates: Those that clients' certificates are checked against, PEM.
        advertise: ``host:port`` under which clients reach it; None sends them no location, which means the
            server that they asked.
        metrics: Who counts; None for nobody.
    """

    def __init__(
        self,
        service: Service,
        authenticator: Authenticates,
        location: str,
        *,
        limits: Limits | None = None,
        tls_certificates: list[tuple[bytes, bytes]] | None = None,
        verify_client: bool = False,
        root_certificates: bytes | None = None,
        advertise: str | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.service = service
        self.limits = limits or Limits()
        self.calls = Calls(
            authenticator,
            self.limits,
            metrics,
            local=is_loopback(location),
            certificates=verify_client,
        )
        self._advertise = advertise
        self._tls = bool(tls_certificates)
        super().__init__(
            location,
            auth_handler=None if verify_client else NoHandshake(),
            tls_certificates=tls_certificates,
            verify_client=verify_client,
            root_certificates=root_certificates,
            middleware={MIDDLEWARE: self.calls},
        )
        path = location.partition("://")[2] if location.startswith("grpc+unix") else None
        self._connections = Connections(0 if path else self.port, path)
        self._watch = Watch(self.calls, self._connections, self.limits)

    def stop(self, grace_s: float) -> bool:
        """Take no more calls, wait for those that are running, then break off the connections of those that
        still are: readers that read nothing hold them for ever. Takes grace_s at most.

        Returns:
            Whether all have ended. If not, some call waits for the store, and the process must end by
            ``os._exit``: nothing else ends gRPC's threads.
        """
        deadline = time.monotonic() + grace_s
        self.calls.close()
        stopping = threading.Thread(target=self.shutdown, name="flightstore-flight-stop", daemon=True)
        stopping.start()
        stopping.join(max(grace_s - LAST_S, grace_s / 2))
        if stopping.is_alive():
            self._connections.end_all()
            stopping.join(max(deadline - time.monotonic(), 0))
        self._watch.stop()
        return not stopping.is_alive()

    # --- out ---

    @_handled
    def do_get(self, asked: _Asked, ticket: Any) -> Any:
        asked.caller.require(READ, "getting an object")
        wanted = m.parse_ticket(ticket.ticket)
        reader, asked.call.bytes_out = streams.outgoing(asked.store, wanted, asked.call.max_batch_bytes)
        return flight.RecordBatchStream(reader)

    @_handled
    def get_flight_info(self, asked: _Asked, descriptor: Any) -> Any:
        return self._info(asked, _info_command(descriptor), descriptor)

    @_handled
    def get_schema(self, asked: _Asked, descriptor: Any) -> Any:
        command = _info_command(descriptor)
        held, table = table_of(asked.store, command.ref)
        with held:
            return flight.SchemaResult(_schema(table, command))

    @_handled
    def list_flights(self, asked: _Asked, criteria: bytes) -> Any:
        found = []
        for info in asked.store.list(_pattern(criteria)):
            if info.kind == "table":
                command = m.InfoCommand(id=str(info.id))
                path = [info.name] if info.name is not None else [str(info.id)]
                try:
                    found.append(self._info(asked, command, flight.FlightDescriptor.for_path(*path), info))
                except (ObjectNotFound, ObjectLost):
                    continue
        return iter(found)

    def _info(
        self, asked: _Asked, command: m.InfoCommand, descriptor: Any, known: ObjectInfo | None = None
    ) -> Any:
        if not 1 <= command.partitions <= MAX_PARTITIONS:
            raise InvalidArgument(f"{command.partitions:,} partitions", hint=f"1 to {MAX_PARTITIONS:,}")
        held, table = table_of(asked.store, command.ref)
        with held:
            info = known or asked.store.stat(held.id)
            return flight.FlightInfo(
                _schema(table, command),
                descriptor,
                self._endpoints(command, str(held.id)),
                total_records=table.num_rows,
                total_bytes=info.nbytes if command.columns is None else -1,
                ordered=True,
                app_metadata=self._about(asked, info, held),
            )

    def _endpoints(self, command: m.InfoCommand, object_id: str) -> list[Any]:
        shares: list[int | None] = [None]
        if command.partitions > 1:
            shares = list(range(command.partitions))
        tickets = [
            m.Ticket(
                id=object_id,
                columns=command.columns,
                hydrate=command.hydrate,
                partition=share,
                partitions=command.partitions,
            )
            for share in shares
        ]
        locations = self._locations(object_id)
        return [flight.FlightEndpoint(m.encode(ticket), locations) for ticket in tickets]

    def _locations(self, object_id: str) -> list[str]:
        if self._advertise is None:
            return []
        found = [f"{'grpc+tls' if self._tls else 'grpc+tcp'}://{self._advertise}"]
        http = self.service.http_url
        if http is not None and http.startswith(("http://", "https://")):
            found.append(f"{http}/objects/{object_id}")
        return found

    def _about(self, asked: _Asked, info: ObjectInfo, held: Object) -> bytes:
        http = self.service.http_url
        segments = segments_of(asked.store, held) if asked.call.is_local else []
        about: dict[str, Any] = msgspec.to_builtins(m.info_of(info))
        about["http"] = f"{http}/objects/{info.id}" if http else None
        about["segments"] = segments
        return m.encode(about)

    # --- in ---

    @_handled
    def do_put(self, asked: _Asked, descriptor: Any, reader: Any, writer: Any) -> None:
        asked.caller.require(WRITE, "putting an object")
        command = m.parse_put_command(descriptor.path, descriptor.command)
        incoming = streams.Incoming(asked.context, asked.call, reader, self.limits, writer.write)
        store = asked.store
        if command.payload:
            info = streams.receive_frame(store, incoming, asked.service.staged)
            result = {"id": info.id, "name": info.name, "nbytes": info.nbytes, "num_rows": info.num_rows}
        else:
            result = _put_result(store, streams.receive_table(store, command, incoming))
        writer.write(pa.py_buffer(m.encode(result)))

    @_handled
    def do_exchange(self, asked: _Asked, descriptor: Any, reader: Any, writer: Any) -> None:
        command = descriptor.command or b""
        call = asked.call
        if (wanted := exchange.followed(command)) is not None:
            asked.caller.require(READ, "following events")

            def send(raw: bytes) -> None:
                with call.waiting():
                    writer.write_metadata(pa.py_buffer(raw))

            def is_over() -> bool:
                return self.calls.is_closed or asked.context.is_cancelled()

            call.lasting = True
            exchange.follow(asked.service, asked.caller, call.session, wanted, send, is_over)
            return
        asked.caller.require(WRITE, "adding columns")
        self.calls.begin_upload(call)
        incoming = streams.Incoming(asked.context, call, reader, self.limits, writer.write_metadata)
        put = m.parse_put_command(None, command)
        reply = exchange.add_columns(asked.service, asked.caller, call.session, asked.store, put, incoming)
        writer.write_metadata(pa.py_buffer(reply))

    # --- actions ---

    @_handled
    def do_action(self, asked: _Asked, action: Any) -> Any:
        body = memoryview(action.body) if action.body is not None else b""
        reply = asked.service.act(asked.caller, asked.call.session, action.type, body)
        asked.call.bytes_in, asked.call.bytes_out = len(body), len(reply)
        return iter([flight.Result(reply)])

    @_handled
    def list_actions(self, asked: _Asked) -> Any:
        return [flight.ActionType(name, action.text) for name, action in ACTIONS.items()]


def is_loopback(location: str) -> bool:
    """Whether only this machine reaches what listens there: a unix socket, or any address of loopback."""
    from ipaddress import ip_address
    from urllib.parse import urlsplit

    parts = urlsplit(location)
    if "unix" in parts.scheme or parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _info_command(descriptor: Any) -> m.InfoCommand:
    return m.parse_info_command(descriptor.path, descriptor.command)


def _schema(table: pa.Table, command: m.InfoCommand) -> pa.Schema:
    chosen = rows_of(table, m.Ticket(columns=command.columns, limit=0))
    return plain_schema(chosen.schema, command.hydrate)


def _pattern(criteria: bytes) -> str | None:
    """Criteria: JSON with a pattern, a pattern, or nothing."""
    if criteria.startswith(b"{"):
        return m.decode(criteria, m.ListObjects).pattern
    try:
        return criteria.decode() or None
    except UnicodeDecodeError:
        raise InvalidArgument("criteria are UTF-8 text") from None


def _put_result(store: Store, made: ObjectID) -> dict[str, Any]:
    try:
        info = store.stat(made)
    except ObjectNotFound:  # somebody has deleted it already: it was put all the same
        return {"id": str(made)}
    return {"id": str(info.id), "name": info.name, "nbytes": info.nbytes, "num_rows": info.num_rows}
