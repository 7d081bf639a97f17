"""Calls of the Flight server: who makes them, how many at a time, how they end.

A middleware sees every call first (its headers, no more) and last (how it went). It finds out who calls, so
that nobody unknown gets as far as a handler, which gRPC runs only when the client's first message is there.
Certificates are known to handlers alone: with mutual TLS they ask.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import unquote

from pyarrow import flight

from flightstore.errors import FlightStoreError, GatewayBusy, InvalidArgument
from flightstore.gateway.access import Authenticates, Caller
from flightstore.gateway.authentication import token_in
from flightstore.gateway.flight_errors import as_flight_error, code_of
from flightstore.gateway.limits import Limits
from flightstore.gateway.reslicing import DEFAULT_BATCH_BYTES

__all__ = [
    "MAX_MESSAGE_HEADER",
    "MIDDLEWARE",
    "SESSION_HEADER",
    "Call",
    "Calls",
    "Metrics",
    "NoHandshake",
]

SESSION_HEADER = "x-flightstore-session"
MAX_MESSAGE_HEADER = "x-flightstore-max-message"
"""Bytes that the client takes in one message; 2 MiB for one who does not say."""
LARGEST_MESSAGE_BYTES = 1 << 30
SMALLEST_MESSAGE_BYTES = 64 << 10
MIDDLEWARE = "flightstore"


class Metrics(Protocol):
    """Who counts."""

    def request(self, kind: str, code: str, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """One call that has ended."""
        ...


class Call(flight.ServerMiddleware):  # type: ignore[misc]
    """One call, from its headers to its end."""

    def __init__(self, calls: Calls, info: Any, headers: dict[str, list[str]]) -> None:
        self.method = info.method
        self.began = time.monotonic()
        self.waiting_since: float | None = self.began
        """Since when the client is to send, or to take, something; None while the store works."""
        self.is_upload = False
        """Whether it counts as one, and it is for the client to send; else it takes."""
        self.lasting = False
        """Whether it may take as long as the client likes."""
        self.is_over = False
        self.peer: str | None = None
        """As gRPC has it, ``ipv4:127.0.0.1:5123`` or ``unix:``; None until the handler runs."""
        self.caller: Caller | None = None
        self.code = "OK"
        self.bytes_in = 0
        self.bytes_out = 0
        self.answer: dict[str, str] = {}
        """Headers of the answer."""
        self._calls = calls
        self._headers = headers

    def header(self, name: str) -> str | None:
        """A header of the request; the first where it came several times, as ADBC sends some."""
        values = self._headers.get(name)
        if not values:
            return None
        return values[0]

    @property
    def authorization(self) -> str | None:
        """The credential, as it came."""
        return self.header("authorization")

    @property
    def session(self) -> str | None:
        """The session asked for; percent-encoded in the header."""
        asked = self.header(SESSION_HEADER)
        return unquote(asked) if asked else None

    @property
    def is_local(self) -> bool:
        """Whether the peer is on this machine."""
        return is_local(self.peer or "")

    @property
    def max_batch_bytes(self) -> int:
        """The largest message that the client wants.

        Raises:
            InvalidArgument: it did not give a number.
        """
        asked = self.header(MAX_MESSAGE_HEADER)
        if asked is None:
            return DEFAULT_BATCH_BYTES
        if not asked.isdecimal() or len(asked) > 18:
            raise InvalidArgument(f"{MAX_MESSAGE_HEADER}: {asked[:40]!r}", hint="give a number of bytes")
        return min(max(int(asked), SMALLEST_MESSAGE_BYTES), LARGEST_MESSAGE_BYTES)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """It is the client's turn."""
        self.waiting_since = time.monotonic()
        try:
            yield
        finally:
            self.waiting_since = None

    # --- what pyarrow calls ---

    def sending_headers(self) -> dict[str, str]:
        return self.answer

    def call_completed(self, exception: BaseException | None) -> None:
        if exception is not None and self.code == "OK":
            self.code = _code_of_status(exception)
        self._calls.ended(self)


class Calls(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """All calls that are running, of one server."""

    def __init__(
        self,
        authenticator: Authenticates,
        limits: Limits,
        metrics: Metrics | None,
        *,
        local: bool,
        certificates: bool,
    ) -> None:
        self._authenticator = authenticator
        self._limits = limits
        self._metrics = metrics
        self._local = local
        """Whether only clients of this machine can connect."""
        self._certificates = certificates
        """Whether clients have certificates."""
        self._lock = threading.Lock()
        self._running: set[Call] = set()
        self._closed = False

    def running(self) -> list[Call]:
        """The calls that have begun and not ended."""
        with self._lock:
            return list(self._running)

    @property
    def is_closed(self) -> bool:
        """Whether no further call is taken."""
        return self._closed

    def close(self) -> None:
        """Refuse all further calls."""
        self._closed = True

    def of(self, context: Any) -> Call:
        """The call that a handler serves."""
        call: Call = context.get_middleware(MIDDLEWARE)
        call.peer = context.peer()
        call.waiting_since = None
        return call

    def caller_of(self, call: Call, context: Any) -> Caller:
        """Who makes it.

        Raises:
            NotAuthenticated: nobody we know.
        """
        if call.caller is None:
            identity = context.peer_identity()
            certificate = identity.decode(errors="replace") if identity else None
            call.caller = self._authenticated(call, certificate)
        return call.caller

    def _authenticated(self, call: Call, certificate: str | None) -> Caller:
        found = self._authenticator.caller_of(call.authorization, local=self._local, certificate=certificate)
        if not (call.session or "").isdecimal():  # whose name a number stands for the service knows
            found.session_for(call.session)
        return found

    # --- what pyarrow calls ---

    def start_call(self, info: Any, headers: dict[str, list[str]]) -> Call:
        call = Call(self, info, headers)
        try:
            self._admit(call)
            if info.method == flight.FlightMethod.HANDSHAKE:
                self._shake_hands(call)
            elif not self._certificates:
                call.caller = self._authenticated(call, None)
        except Exception as error:
            call.code = code_of(error)
            self.ended(call)
            raise as_flight_error(error, "start_call")[0] from None
        return call

    def _shake_hands(self, call: Call) -> None:
        """The basic handshake: a token as the password; answered by the header to send from now on."""
        authorization = call.authorization
        self._authenticator.caller_of(authorization, local=self._local, certificate=None)
        if authorization is not None:
            call.answer["authorization"] = f"Bearer {token_in(authorization)}"

    def _admit(self, call: Call) -> None:
        with self._lock:
            if self._closed:
                raise GatewayBusy("this gateway is shutting down", hint="try again later, or elsewhere")
            if len(self._running) >= self._limits.max_connections:
                raise _busy(self._limits.max_connections, "calls")
            self._running.add(call)
            if call.method == flight.FlightMethod.DO_PUT:
                self._count_upload(call)

    def begin_upload(self, call: Call) -> None:
        """A call turns out to be one.

        Raises:
            GatewayBusy: there are enough.
        """
        with self._lock:
            self._count_upload(call)

    def _count_upload(self, call: Call) -> None:
        if sum(one.is_upload for one in self._running) >= self._limits.max_uploads:
            raise _busy(self._limits.max_uploads, "uploads")
        call.is_upload = True

    def ended(self, call: Call) -> None:
        """It is over. Idempotent."""
        with self._lock:
            self._running.discard(call)
            if call.is_over:
                return
            call.is_over = True
        if self._metrics is not None:
            kind = f"flight:{call.method.name.lower()}"
            seconds = time.monotonic() - call.began
            self._metrics.request(kind, call.code, seconds, call.bytes_in, call.bytes_out)


class NoHandshake(flight.ServerAuthHandler):  # type: ignore[misc]
    """Lets the handshake through, which Flight refuses without a handler: the middleware has seen to it."""

    def authenticate(self, outgoing: Any, incoming: Any) -> None:
        """Nothing is asked."""

    def is_valid(self, token: bytes) -> bytes:
        """Nobody is told apart here."""
        return b""


def is_local(peer: str) -> bool:
    """Whether a peer, as gRPC writes it, is on this machine."""
    scheme, _, rest = peer.partition(":")
    if scheme == "unix":
        return True
    if scheme not in ("ipv4", "ipv6"):
        return False
    host = rest.rpartition(":")[0].strip("[]").replace("%5B", "").replace("%5D", "")
    try:
        address = ipaddress.ip_address(host.removeprefix("::ffff:"))
    except ValueError:
        return False
    return address.is_loopback


def _busy(limit: int, what: str) -> FlightStoreError:
    return GatewayBusy(f"this gateway serves {limit:,} {what} already, the most it takes", hint="try later")


def _code_of_status(error: BaseException) -> str:
    """The code that Flight gave an error of its own, for the metrics."""
    if isinstance(error, flight.FlightCancelledError):
        return "CANCELLED"
    return "INVALID_ARGUMENT" if isinstance(error, ValueError) else "UNKNOWN"
