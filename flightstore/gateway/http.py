"""The HTTP server: requests taken apart and answered. It translates, and does nothing else.

It runs its own event loop in a thread. Calls into the store are made in other threads; large bodies are sent
by sending.py. Limits: connections (refused beyond with 503), uploads (likewise), the length of headers and
URLs, the time that a client may do nothing, and the time of a request in all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

from aiohttp import web

import flightstore
from flightstore.errors import FlightStoreError
from flightstore.gateway.access import READ, Authenticates
from flightstore.gateway.http_answers import answer, error_answer, http_fault, json_answer
from flightstore.gateway.http_context import Context, session_of
from flightstore.gateway.http_frames import FrameRoutes
from flightstore.gateway.http_objects import ObjectRoutes
from flightstore.gateway.limits import Limits
from flightstore.gateway.metrics import CONTENT_TYPE, Metrics
from flightstore.gateway.sending import Views
from flightstore.gateway.service import ACTIONS, Service
from flightstore.wire import messages as m

__all__ = ["HttpServer"]

log = logging.getLogger("flightstore.gateway.http")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LONG = frozenset(
    (
        "wait",
        "events",
        "put_many",
        "compose",
        "batch",
        "join_batch",
        "evict",
        "spill",
        "recover",
        "lease",
        "session",
    )
)
"""Actions that may take long, or wait for something to happen, or for room."""
_LINE_BYTES = 16 << 10
_FIELD_BYTES = 16 << 10
_MAX_HEADERS = 100
_LINGER_S = 5.0
_HANDSHAKE_S = 10.0


class HttpServer:
    """Serves one service over HTTP.

    Args:
        service: What is served.
        authenticator: Finds out who calls.
        limits: What is refused.
        metrics: Where requests are counted.
        by_reference: Whether frames may be sent with `sendfile` to clients that acknowledge them. Off: on
            Linux 6.18 `send` carried twice as much, with half the processor time, on loopback and veth.
    """

    def __init__(
        self,
        service: Service,
        authenticator: Authenticates,
        limits: Limits,
        metrics: Metrics,
        *,
        by_reference: bool = False,
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._limits = limits
        self._context = Context(service, authenticator, limits, metrics)
        self._frames = FrameRoutes(self._context, by_reference=by_reference)
        self._objects = ObjectRoutes(self._context)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flightstore-http", daemon=True)
        self._runner: web.AppRunner | None = None
        self._listeners: list[asyncio.Server] = []
        self._running: set[asyncio.Task[Any] | None] = set()
        self._stopping = False
        self._sweep: asyncio.Task[None] | None = None
        self.url = ""
        """Where the server is to be found: ``http://host:port``, ``https://...`` or ``http+unix://path``."""
        self.port = 0
        """The TCP port that it listens on."""

    # --- start and stop ---

    def start(
        self,
        host: str | None = None,
        port: int = 0,
        *,
        path: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Listen, and serve until `stop`. May be called again, to listen somewhere else as well.

        Args:
            host: Address to listen on by TCP; None for none.
            port: Its port; 0 for any that is free (`url` tells which).
            path: Path of a unix socket, which only this user may connect to; None for none. Nothing may be
                there; whoever calls removes it afterwards.
            ssl_context: For TLS on the TCP listener; None for plain HTTP.

        Raises:
            OSError: the address cannot be listened on.
        """
        if not self._thread.is_alive():
            self._thread.start()
            self._do(self._set_up())
            self._metrics.watch(self._service.store)
            self._metrics.track("leases", "gateway", self._service.leases.__len__)
            self._metrics.track("connections", "http", self._count_connections)
            self._metrics.track("uploads", "http", self._count_uploads)
        if host is not None:
            self._do(self._listen(host, port, ssl_context))
        if path is not None:
            self._do(self._listen_unix(path))

    def stop(self, grace_s: float = 5.0) -> None:
        """Listen no more, let requests that are under way end, for that long, and cut off the rest.

        Idempotent.
        """
        if not self._thread.is_alive():
            return
        self._do(self._stop(grace_s))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._metrics.untrack("connections", "http", self._count_connections)
        self._metrics.untrack("uploads", "http", self._count_uploads)

    def _count_connections(self) -> int:
        return len(self._context.connections)

    def _count_uploads(self) -> int:
        return self._context.uploads

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _set_up(self) -> None:
        app = web.Application(middlewares=[self._middleware], client_max_size=self._limits.max_batch_bytes)
        self._add_routes(app)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=0.1,
            keepalive_timeout=self._limits.idle_timeout_s,
            lingering_time=min(_LINGER_S, self._limits.idle_timeout_s),
            max_line_size=_LINE_BYTES,
            max_field_size=_FIELD_BYTES,
            max_headers=_MAX_HEADERS,
            auto_decompress=False,
            logger=_quiet_logger(),
        )
        await self._runner.setup()
        self._sweep = asyncio.create_task(self._context.connections.sweep())

    async def _listen(self, host: str, port: int, ssl_context: ssl.SSLContext | None) -> None:
        server = self._server()
        listener = await self._loop.create_server(
            self._context.connections.factory(server, local=_is_loopback(host)),
            host,
            port,
            ssl=ssl_context,
            ssl_handshake_timeout=_HANDSHAKE_S if ssl_context else None,
            ssl_shutdown_timeout=_HANDSHAKE_S if ssl_context else None,
            backlog=min(self._limits.max_connections, 1024),
        )
        self._listeners.append(listener)
        shown = f"[{host}]" if ":" in host else host
        scheme = "https" if ssl_context else "http"
        self.port = listener.sockets[0].getsockname()[1]
        self.url = f"{scheme}://{shown}:{self.port}"

    async def _listen_unix(self, path: str) -> None:
        sock = _unix_socket(path)
        factory = self._context.connections.factory(self._server(), local=True)
        self._listeners.append(await self._loop.create_unix_server(factory, sock=sock))
        self.url = self.url or f"http+unix://{path}"

    def _server(self) -> web.Server:
        assert self._runner is not None
        assert self._runner.server is not None
        return self._runner.server

    async def _stop(self, grace_s: float) -> None:
        self._stopping = True
        for listener in self._listeners:
            listener.close()
        self._server().pre_shutdown()
        under_way = [task for task in self._running if task is not None]
        if under_way:
            await asyncio.wait(under_way, timeout=grace_s)
        self._context.close()
        self._frames.close()
        assert self._runner is not None
        await self._runner.cleanup()
        if self._sweep is not None:
            self._sweep.cancel()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=1)
        await self._context.connections.abort(1)

    # --- requests ---

    def _add_routes(self, app: web.Application) -> None:
        add = app.router.add_route
        add("GET", "/", self._index)
        add("GET", "/health", self._health)
        add("GET", "/metrics", self._metrics_text)
        add("POST", "/actions/{name}", self._act)
        add("GET", "/objects", self._objects.list)
        for method in ("GET", "HEAD"):
            add(method, "/objects/{ref:[\\s\\S]+}", self._objects.get)
        add("PUT", "/objects/{ref:[\\s\\S]+}", self._objects.put)
        add("DELETE", "/objects/{ref:[\\s\\S]+}", self._objects.delete)
        for method in ("GET", "HEAD"):
            add(method, "/frames/{ref:[\\s\\S]+}", self._frames.get)
        add("PUT", "/frames", self._frames.put)
        add("POST", "/acknowledgements/{token}", self._frames.acknowledge)

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        begin = time.monotonic()
        task = asyncio.current_task()
        self._running.add(task)
        response: web.StreamResponse | None = None
        try:
            response = await self._answered(request, handler)
            if self._stopping and not response.prepared:
                response.force_close()
            return response
        finally:
            self._running.discard(task)
            connection = self._context.connections.of(request)
            direct = connection.answered() if connection is not None else 0
            self._metrics.request(
                _kind_of(request),
                str(response.status) if response is not None else "cancelled",
                time.monotonic() - begin,
                direct + request.content.total_bytes,
                (response.content_length or 0) if response is not None and request.method != "HEAD" else 0,
            )

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            async with asyncio.timeout(self._limits.request_timeout_s):
                return await handler(request)
        except web.HTTPException as error:
            return http_fault(error)
        except FlightStoreError as error:
            return error_answer(error)
        except TimeoutError:
            return http_fault(web.HTTPRequestTimeout(reason="the request took too long"))
        except ConnectionError:  # whoever asked has gone
            return answer(499)
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            return error_answer(error)

    async def _index(self, request: web.Request) -> web.Response:
        self._context.caller(request, READ, "looking")
        paths = sorted(
            {f"{route.method} {_path_of(route.resource)}" for route in request.app.router.routes()}
        )
        about = {
            "flightstore": flightstore.__version__,
            "protocol": m.PROTOCOL_VERSION,
            "routes": paths,
            "actions": sorted(ACTIONS),
        }
        return json_answer(about)

    async def _health(self, request: web.Request) -> web.Response:
        try:
            await self._context.call(self._service.store.stats)
        except (FlightStoreError, OSError) as error:
            return json_answer({"healthy": False, "error": type(error).__name__}, 503)
        return json_answer({"healthy": True})

    async def _metrics_text(self, request: web.Request) -> web.Response:
        self._context.caller(request, READ, "metrics")
        text = await self._context.call(self._metrics.text)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def _act(self, request: web.Request) -> web.StreamResponse:
        """POST /actions/NAME."""
        context = self._context
        caller = context.caller(request)
        name = request.match_info["name"]
        raw = await context.body(request).whole(self._limits.max_batch_bytes)
        call = context.call_waiting if name in _LONG else context.call
        session = session_of(request)
        reply = await call(self._service.act, caller, session, name, memoryview(raw))
        response = web.StreamResponse()
        response.content_type = "application/json"
        await context.sender.send(request, response, Views([memoryview(reply)]))
        return response


def _path_of(resource: web.AbstractResource | None) -> str:
    return resource.canonical if resource is not None else ""


def _kind_of(request: web.Request) -> str:
    """What a request is counted as: one of few, whatever clients send."""
    resource = request.match_info.route.resource
    if resource is None:
        return "http other"
    path = resource.canonical
    if path == "/actions/{name}":
        name = request.match_info["name"]
        return f"http action {name}" if name in ACTIONS else "http action"
    return f"http {request.method} {path}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return False


def _unix_socket(path: str) -> socket.socket:
    """A socket at a path, for this user alone from the moment it is there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(sock.fileno(), 0o600)  # Linux gives the file no more than the socket itself allows
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _quiet_logger() -> logging.Logger:
    """What aiohttp says about malformed requests is for those who look for it."""
    quiet = logging.getLogger("flightstore.gateway.http.protocol")
    quiet.setLevel(logging.CRITICAL)
    return quiet
