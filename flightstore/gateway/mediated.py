"""Lets processes map the store's memory that cannot be its clients: in other containers, or with a read-only
mount. One thread for each of them, which waits for what it asks; wire.mediated has the messages.

The references are held by a `Guest` and protect what is read even when this gateway is killed. Whoever maps
the arena sees all of it, so only callers of the whole store may.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from io import FileIO

from flightstore.catalog.records import ARENA_FILE, encode_record
from flightstore.errors import FlightStoreError, GatewayBusy, NotAllowed
from flightstore.gateway.access import Authenticates, Caller
from flightstore.gateway.service import MAX_WAIT_S, Service
from flightstore.lifecycle.guests import Guest
from flightstore.store.local import Store
from flightstore.wire.faults import Fault, fault_of
from flightstore.wire.mediated import Answer, Greeting, Request, Welcome, received, send
from flightstore.wire.messages import parse_ref

__all__ = ["MediatedServer"]

_log = logging.getLogger("flightstore.gateway")
_GREETING_S = 10.0


class MediatedServer:
    """The unix socket at `path`, of mode 0600."""

    def __init__(
        self, service: Service, authenticator: Authenticates, path: str, *, max_clients: int = 256
    ) -> None:
        self.path = path
        self._service = service
        self._authenticator = authenticator
        self._max_clients = max_clients
        self._clients: dict[socket.socket, Guest | None] = {}
        self._lock = threading.Lock()
        self._stopped = False
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: there is something else at the path.
        """
        before = os.umask(0o177)  # it never exists with other permissions
        try:
            self._listening.bind(self.path)
        finally:
            os.umask(before)
        self._listening.listen(64)
        threading.Thread(target=self._accept, name="flightstore-mediated", daemon=True).start()

    def stop(self) -> None:
        """Accept nobody any more, and leave those who are there what they read. Idempotent."""
        with self._lock:
            self._stopped = True
            clients = list(self._clients.items())
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listening.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        for connection, guest in clients:
            if guest is not None:
                guest.leave()  # before its thread sees the end and takes it for the client's
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                if self._stopped:
                    connection.close()
                    return
                full = len(self._clients) >= self._max_clients
                if not full:
                    self._clients[connection] = None
            if full:
                with contextlib.suppress(OSError), connection:
                    connection.settimeout(_GREETING_S)
                    busy = GatewayBusy(f"{self._max_clients} processes map this store already")
                    send(connection, Welcome(fault=fault_of(busy)))
                continue
            threading.Thread(
                target=self._serve, args=(connection,), name="flightstore-guest", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        guest = None
        try:
            with connection:
                found = self._greeted(connection)
                if found is not None:
                    store, guest = found
                    _answer_all(connection, store, guest)
        except (OSError, FlightStoreError) as error:
            _log.info("a client that maps the store broke off: %s", error)
        finally:
            if guest is not None:
                guest.end()
            with self._lock:
                self._clients.pop(connection, None)

    def _greeted(self, connection: socket.socket) -> tuple[Store, Guest] | None:
        """The store that a client may read, and its guest; None when it was refused."""
        connection.settimeout(_GREETING_S)
        came = received(connection, Greeting)
        if came is None:
            return None
        greeting = came[0]
        try:
            caller = self._authenticator.caller_of(greeting.authorization, local=True)
            store = self._store_of(caller, greeting.session)
            guest = Guest(store._conn)
        except FlightStoreError as error:
            send(connection, Welcome(fault=fault_of(error)))
            return None
        with self._lock:
            if self._stopped:
                guest.end()
                return None
            self._clients[connection] = guest
        try:
            with FileIO(f"{store.path}/arena") as arena:
                welcome = Welcome(arena_bytes=store._conn.control.identity.arena_bytes)
                send(connection, welcome, (arena.fileno(), guest.shared.fileno()))
        except BaseException:
            guest.end()
            raise
        connection.settimeout(None)  # it stays as long as its process does
        return store, guest

    def _store_of(self, caller: Caller, session: str | None) -> Store:
        if caller.sessions is not None:
            raise NotAllowed(
                f"{caller.name} may use some sessions only, and cannot map the store's memory",
                hint="connect with map=False",
            )
        return self._service.store_for(caller, session)


def _answer_all(connection: socket.socket, store: Store, guest: Guest) -> None:
    """Answer what a client asks until it ends."""
    while (came := received(connection, Request)) is not None:
        request = came[0]
        for number in request.release:
            guest.drop(number)
        if request.get is not None:
            send(connection, _answer(store, guest, request.get, request.timeout_s))


def _answer(store: Store, guest: Guest, ref: str, timeout_s: float) -> Answer:
    try:
        held = store.get(parse_ref(ref), timeout=min(max(timeout_s, 0.0), MAX_WAIT_S))
        record = held._live.record
        if any(extent.file != ARENA_FILE for extent in record.extents):
            return Answer(id=str(held.id))
        return Answer(number=guest.hold(held), id=str(held.id), record=encode_record(record))
    except FlightStoreError as error:
        return Answer(fault=fault_of(error))
    except Exception:
        _log.exception("a get for a client that maps the store failed")
        return Answer(fault=Fault(error="InternalError", message="the gateway failed"))
