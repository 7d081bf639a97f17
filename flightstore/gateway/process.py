"""One gateway process, from its start to its end.

Starting is all or nothing: what was begun is undone when something fails. Ending is bounded, whatever
clients do: servers stop to listen at once, running requests have GRACE_S to end, then they are broken off,
and leases and the store are let go of. What is stuck even then is inside gRPC or the store, where nothing
ends it but the end of the process; so that is by ``os._exit``.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from importlib import import_module
from types import TracebackType
from typing import Any, NoReturn

import flightstore
from flightstore.errors import FlightStoreError, InvalidArgument, MissingExtra
from flightstore.gateway import logs
from flightstore.gateway.authentication import Authenticator
from flightstore.gateway.listeners import FLIGHT, HEALTH, HTTP, MAP, Listener, listeners
from flightstore.gateway.mediated import MediatedServer
from flightstore.gateway.service import Service
from flightstore.gateway.settings import Settings
from flightstore.gateway.signals import Signals
from flightstore.gateway.sockets import UnixSocket, check_free
from flightstore.gateway.tls import Certificates
from flightstore.gateway.tokens import default_path
from flightstore.store.local import Store

__all__ = ["CLOSING_S", "GRACE_S", "Gateway", "run", "tokens_file"]

GRACE_S = 3.0
"""How long running requests may go on when the gateway ends."""
BREAKING_S = 0.5
"""How long breaking off those that have not ended may take after that."""
CLOSING_S = 1.0
"""How long letting go of leases and store may take after that. All together stay below five seconds."""
MAX_FILES = 65_536
"""How many files and connections the process may have open, if the hard limit lets it."""

_M_ARENA_MAX = -8
_ARENAS = 1

log = logging.getLogger(f"{logs.LOGGER}.process")


def tokens_file(settings: Settings) -> str | None:
    """The tokens file in use: the one that was named, else the user's own if there is one."""
    if settings.tokens:
        return settings.tokens
    return str(default_path()) if default_path().exists() else None


class Gateway:
    """The servers of one store, in this process; a context manager that starts and stops them.

    Raises:
        InvalidArgument, NotAllowed: the settings cannot be used.
        OSError: an address is in use.
        FlightStoreError: what the store says.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.store and "://" in settings.store:
            raise InvalidArgument(
                f"{settings.store} is no directory", hint="a gateway serves a store of its own machine"
            )
        tokens = tokens_file(settings)
        self.settings = settings
        self.listeners = listeners(settings, has_tokens=tokens is not None)
        self.certificates = Certificates.of(settings)
        self.authenticator = Authenticator(tokens, open_to_all=settings.insecure)
        self.addresses: dict[str, str] = {}
        """Where it listens, by kind; complete once started."""
        self._stops: list[Callable[[float], Any]] = []
        self._health: Any = None
        self._sockets: list[UnixSocket] = []
        self._http: Listener | None = None
        self._ended = threading.Event()

    # --- start ---

    def __enter__(self) -> Gateway:
        for listener in self.listeners:
            if listener.path:
                UnixSocket(listener.path).check()
            else:
                check_free(listener.host, listener.port)
        self.store = flightstore.connect(self.settings.store, capacity=self.settings.capacity)
        try:
            self.service = Service(self.store)
            self.metrics = _logged_metrics(self.store)
            # HTTP first: Flight tells where it is.
            for listener in sorted(self.listeners, key=lambda one: (one.kind != HTTP, one.kind == HEALTH)):
                self._start(listener)
        except BaseException:
            self.stop(0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, listener: Listener) -> None:
        begin = {
            FLIGHT: self._flight_server,
            HTTP: self._http_server,
            MAP: self._map_server,
            HEALTH: self._health_server,
        }[listener.kind]
        name = listener.kind
        if listener.path:
            name = "unix" if listener.kind == FLIGHT else f"unix_{listener.kind}"
            made = UnixSocket(listener.path)
            self._sockets.append(made)
            with made.binding():
                self.addresses[name] = begin(listener)
        else:
            self.addresses[name] = begin(listener)
        log.info("listening", extra={"server": name, "address": self.addresses[name]})
        if not listener.local and self.settings.insecure:
            log.warning("insecure: open beyond this machine", extra={"address": self.addresses[name]})

    def _http_server(self, listener: Listener) -> str:
        http = _part("http")
        service = self._service_at(listener.location)
        server = http.HttpServer(service, self.authenticator, self.settings.limits, self.metrics)
        self._stops.append(server.stop)
        if listener.path:
            server.start(path=listener.path)
            return listener.location
        context = self.certificates.context if self.certificates and listener.tls else None
        server.start(host=listener.host, port=listener.port, ssl_context=context)
        self._http = listener
        # One that stands for all interfaces means, to clients, the host that they have called.
        service.http_url = listener.url(self.settings.advertise or listener.host, server.port)
        self._http_url = service.http_url
        return listener.url(listener.host, server.port)

    def _flight_server(self, listener: Listener) -> str:
        options: dict[str, Any] = {"limits": self.settings.limits, "metrics": self.metrics}
        port = listener.port
        if self.certificates is not None and listener.tls:
            options["tls_certificates"] = [(self.certificates.cert, self.certificates.key)]
            options["verify_client"] = self.certificates.client_ca is not None
            options["root_certificates"] = self.certificates.client_ca
        if self.settings.advertise and not listener.path:
            port = port or check_free(listener.host, 0)
            url = listener.url(self.settings.advertise, port)
            options["advertise"] = url.partition("://")[2]
        service = self._service_at(self._http_for(listener))
        location = listener.url(listener.host, port)
        flight = _part("flight")
        try:
            server = flight.FlightServer(service, self.authenticator, location, **options)
        except Exception as error:
            raise OSError(
                0, f"the Flight server did not start: {str(error).splitlines()[0]}", location
            ) from None
        self._stops.append(server.stop)
        return listener.url(listener.host, server.port)

    def _map_server(self, listener: Listener) -> str:
        server = MediatedServer(self.service, self.authenticator, listener.path)
        server.start()
        self._stops.append(lambda _grace_s: server.stop())
        return listener.location

    def _health_server(self, listener: Listener) -> str:
        health = _part("health")
        url = listener.url(listener.host, listener.port)
        try:
            self._health = health.HealthServer(self.store, url.partition("://")[2])
        except RuntimeError:
            raise OSError(0, "the health service cannot listen there", url) from None
        return listener.url(listener.host, self._health.port)

    def _service_at(self, http_url: str | None) -> Service:
        """The one service, as those see it whom another address is told: all else is shared."""
        view = copy.copy(self.service)
        view.http_url = http_url
        return view

    def _http_for(self, listener: Listener) -> str | None:
        """Where callers of a Flight listener find HTTP."""
        if listener.path:
            return next(one.location for one in self.listeners if one.kind == HTTP and one.path)
        if self._http is None or (self._http.local and not listener.local and not self.settings.advertise):
            return None
        return self._http_url

    # --- while it runs ---

    def reload(self) -> None:
        """Read tokens and certificates again. Flight keeps its certificate until the gateway is restarted."""
        self.authenticator.reload()
        if self.certificates is None:
            return
        try:
            self.certificates.reload(self.settings)
        except (FlightStoreError, OSError) as error:
            log.error("the certificates stay as they were", extra={"error": str(error)})
            return
        log.info("read the certificates again, for HTTP; Flight's changes with a restart")

    # --- end ---

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Stop all servers, let go of everything. Idempotent; takes grace_s + BREAKING_S + CLOSING_S at most.

        A server whose clients stall may be left running in part: then the process must end by ``os._exit``.
        """
        if self._ended.is_set():
            return
        self._ended.set()
        if self._health is not None:
            self._health.drain()
        if not _together([functools.partial(one, grace_s) for one in self._stops], grace_s + BREAKING_S):
            log.warning("some requests did not end in time and are cut off")
        if not _together([self._close], CLOSING_S):
            log.warning("the store could not be closed in time; whoever needs it next cleans up")
        self.remove_sockets()

    def remove_sockets(self) -> None:
        """Leave no unix socket behind. Idempotent."""
        for one in self._sockets:
            one.remove()

    def _close(self) -> None:
        if self._health is not None:
            self._health.stop()
        if hasattr(self, "service"):
            self.service.close()
        self.store.close()


def _part(name: str) -> Any:
    """One of the modules that want libraries of the extra."""
    try:
        return import_module(f"flightstore.gateway.{name}")
    except ImportError as error:
        raise MissingExtra(
            f"the gateway's part {name} cannot be imported: {error}",
            hint="pip install 'flightstore[gateway]'",
        ) from error


def _logged_metrics(store: Store) -> Any:
    """The counts of this gateway; each request is logged as it is counted."""
    requests = logging.getLogger(f"{logs.LOGGER}.requests")

    class Logged(_part("metrics").Metrics):  # type: ignore[misc]
        def request(
            self, kind: str, code: str, seconds: float, bytes_in: int = 0, bytes_out: int = 0
        ) -> None:
            sizes = {"bytes_in": bytes_in, "bytes_out": bytes_out}
            requests.debug(kind, extra={"code": str(code), "seconds": round(seconds, 6), **sizes})
            super().request(kind, code, seconds, bytes_in, bytes_out)

    return Logged(store)


def _together(tasks: list[Callable[[], Any]], within_s: float) -> bool:
    """Run all at once; whether all are done in time, none saying False."""
    done: list[bool] = []

    def run(task: Callable[[], Any]) -> None:
        try:
            done.append(task() is not False)
        except Exception:
            log.exception("stopping a server failed")
            done.append(False)

    threads = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + within_s
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    return len(done) == len(tasks) and all(done)


def _use_few_arenas() -> None:
    """Let all threads share one arena of the C library's malloc. It makes one for each thread otherwise, each
    with free memory of its own, which it gives little of back. What an upload takes is mostly something else:
    gRPC reads ahead, by a window that it measures and that pyarrow lets nobody bound (docs/benchmarks.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, _ARENAS)


def run(settings: Settings, announce: Callable[[Gateway], None]) -> NoReturn:
    """Serve until SIGTERM or SIGINT; SIGHUP reloads. For the main thread. Ends the process, with exit code 0.

    Args:
        settings: What to serve, and how.
        announce: Called once all listen.

    Raises:
        InvalidArgument, NotAllowed, OSError, FlightStoreError: it could not start, see `Gateway`.
    """
    logs.configure(settings.log_format, "warning" if settings.quiet else settings.log_level)
    _raise_file_limit()
    _use_few_arenas()
    # It writes lines of its own to stderr, in the middle of the log, one for each bad handshake.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with Gateway(settings) as gateway, Signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP)) as signals:
        log.info("started", extra={"store": gateway.store.path, "pid": os.getpid()})
        announce(gateway)
        notify("READY=1")
        while (number := signals.wait()) == signal.SIGHUP:
            gateway.reload()
        log.info("stopping", extra={"signal": signal.Signals(number or 0).name})
        notify("STOPPING=1")
        _stop(gateway, signals)
    log.info("stopped")
    logging.shutdown()
    os._exit(0)


def _stop(gateway: Gateway, signals: Signals) -> None:
    """Stop; another signal meanwhile ends the process at once."""
    stopping = threading.Thread(target=gateway.stop, daemon=True)
    stopping.start()
    while stopping.is_alive():
        number = signals.wait(0.05)
        if number is not None and number != signal.SIGHUP:
            log.warning("a second signal: ending at once")
            gateway.remove_sockets()
            os._exit(128 + number)


def _raise_file_limit() -> None:
    """Let there be as many connections as the limits say; the usual 1,024 files are too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def notify(state: str) -> None:
    """Tell systemd, if it asked to be told."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.connect(f"\0{path[1:]}" if path.startswith("@") else path)
        there.send(state.encode())
