"""What the routes of the HTTP server share: who calls, threads for calls that block, uploads under way."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar
from urllib.parse import unquote

from aiohttp import web

from flightstore.errors import GatewayBusy
from flightstore.gateway.access import Authenticates, Caller
from flightstore.gateway.authentication import is_own_page
from flightstore.gateway.http_bodies import Body
from flightstore.gateway.http_connection import Connections
from flightstore.gateway.limits import Limits
from flightstore.gateway.metrics import Metrics
from flightstore.gateway.sending import Sender
from flightstore.gateway.service import Service
from flightstore.gateway.threads import Threads
from flightstore.store.local import Store

__all__ = ["SESSION_HEADER", "Context", "session_of"]

P = ParamSpec("P")
T = TypeVar("T")

SESSION_HEADER = "x-flightstore-session"
_QUICK_THREADS = 32
_GET_THREADS = 64  # a get may read a spilled object from a storage far away


class Context:
    """One server's."""

    def __init__(
        self, service: Service, authenticator: Authenticates, limits: Limits, metrics: Metrics
    ) -> None:
        self.service = service
        self.limits = limits
        self.metrics = metrics
        self.connections = Connections(limits.max_connections, limits.idle_timeout_s)
        self.sender = Sender(limits.idle_timeout_s, 2 * (os.cpu_count() or 1) + 2)
        self.uploads = 0
        """Uploads that are under way."""
        self._authenticator = authenticator
        self._quick = Threads(_QUICK_THREADS, "flightstore-http")
        self._getting = Threads(_GET_THREADS, "flightstore-http-get")
        self._waiting = Threads(limits.max_connections, "flightstore-http-wait")
        self.upload_threads = Threads(limits.max_uploads, "flightstore-http-upload")

    def close(self) -> None:
        """Begin nothing more."""
        self.sender.close()
        for threads in (self._quick, self._getting, self._waiting, self.upload_threads):
            threads.shutdown()

    def caller(self, request: web.BaseRequest, right: str | None = None, what: str = "") -> Caller:
        """Who calls; refused without the right to `what`.

        Raises:
            NotAuthenticated, NotAllowed: it is so.
        """
        connection = self.connections.of(request)
        caller = self._authenticator.caller_of(
            request.headers.get("Authorization"),
            local=connection is not None
            and connection.local
            and is_own_page(request.headers.get("Host"), request.headers.get("Origin")),
            certificate=_certificate(request),
        )
        if right is not None:
            caller.require(right, what)
        return caller

    async def store(self, request: web.BaseRequest, caller: Caller) -> Store:
        """The store, or the session, that a request is about.

        Raises:
            NotAllowed, SessionNotFound: as `Service.store_for`.
        """
        session = session_of(request)
        if session is None and caller.sessions is None:
            return self.service.store
        return await self.call(self.service.store_for, caller, session)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call that may block, but not for long."""
        return await asyncio.wrap_future(self._quick.submit(function, *args, **kwargs))

    async def call_get(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call that gets an object."""
        return await asyncio.wrap_future(self._getting.submit(function, *args, **kwargs))

    async def call_waiting(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call that may wait for something to happen, in a thread of its own."""
        return await asyncio.wrap_future(self._waiting.submit(function, *args, **kwargs))

    async def call_upload(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call for an upload: there is a thread for each that may be under way."""
        return await asyncio.wrap_future(self.upload_threads.submit(function, *args, **kwargs))

    def undo(self, function: Callable[[], object]) -> None:
        """Have something undone; nobody waits for it."""
        try:
            self.upload_threads.submit(function)
        except GatewayBusy:  # the server stops
            function()

    def body(self, request: web.BaseRequest) -> Body:
        """The request's body."""
        connection = self.connections.of(request)
        incoming = connection.incoming if connection is not None else None
        return Body(request, incoming, self.limits.idle_timeout_s)

    @contextlib.contextmanager
    def upload(self) -> Iterator[None]:
        """An upload is under way.

        Raises:
            GatewayBusy: as many as may be are.
        """
        if self.uploads >= self.limits.max_uploads:
            raise GatewayBusy(
                f"{self.uploads} uploads are under way, the most there can be", hint="try again in a moment"
            )
        self.uploads += 1
        try:
            yield
        finally:
            self.uploads -= 1


def session_of(request: web.BaseRequest) -> str | None:
    """The session that a request asks for: percent-encoded, since a header is no place for every name."""
    session = request.headers.get(SESSION_HEADER)
    return None if session is None else unquote(session)


def _certificate(request: web.BaseRequest) -> str | None:
    transport = request.transport
    peer = transport.get_extra_info("peercert") if transport is not None else None
    if not peer:
        return None
    from flightstore.gateway.authentication import certificate_name

    return certificate_name(peer)
