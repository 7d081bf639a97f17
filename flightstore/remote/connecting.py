"""Finding the best way to a store behind a gateway.

1. Ask the gateway who it is (``hello``): by Flight for ``grpc`` URLs, by HTTP for ``http`` ones.
2. If its store is on this machine, map it. What tells is the nonce in the control file at the store's path:
   no other machine, and no later store of that path, has the same. Then the handle *is* a local one (a
   `Store`, or a `Session`): there is nothing between the caller and the memory, and nothing that could behave
   otherwise. The gateway is not asked again; what keeps others out of the memory are the files' permissions.
   A token that may only read gets no mapping, since a mapped store can be written to.
3. Else, where it is reached over a unix socket, have the gateway hold what this process maps (mediated.py).
4. What is not mapped comes by HTTP, if the gateway offers it and it answers, because payloads go where they
   stay without a detour; else by Flight.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path

from flightstore.errors import FlightStoreError, GatewayUnreachable, InvalidArgument, StoreVersionMismatch
from flightstore.memory.control import Control
from flightstore.remote.address import Address, Credentials
from flightstore.remote.attached import Shared
from flightstore.remote.session import RemoteSession
from flightstore.remote.store import RemoteStore
from flightstore.remote.transport import Timeouts, Transport
from flightstore.store.local import Store
from flightstore.store.local import connect as connect_here
from flightstore.wire import messages as m

__all__ = ["connect", "handle_for", "nonce_of"]

CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 60.0
TRANSPORTS = ("auto", "http", "flight")

_known: weakref.WeakValueDictionary[str, Shared] = weakref.WeakValueDictionary()
_http_of: dict[str, str] = {}
"""URLs at which gateways answered HTTP before, by their Flight URLs: a forked child need not ask by gRPC."""
_lock = threading.Lock()
os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))


def connect(
    url: str,
    *,
    token: str | None = None,
    session: str | int | None = None,
    map: bool = True,
    transport: str = "auto",
    tls_root_certificates: str | os.PathLike[str] | bytes | None = None,
    client_certificate: str | os.PathLike[str] | bytes | None = None,
    client_key: str | os.PathLike[str] | bytes | None = None,
    connect_timeout: float = CONNECT_TIMEOUT_S,
    request_timeout: float = REQUEST_TIMEOUT_S,
) -> Store | RemoteStore:
    """A handle on the store behind a gateway; :func:`flightstore.connect` says what the arguments mean.

    Raises:
        GatewayUnreachable, NotAuthenticated, NotAllowed, SessionNotFound, InvalidArgument: what they say.
    """
    if transport not in TRANSPORTS:
        raise InvalidArgument(f"transport={transport!r}", hint=f"one of {', '.join(TRANSPORTS)}")
    address = Address.parse(url)
    for name, seconds in (("connect_timeout", connect_timeout), ("request_timeout", request_timeout)):
        if not 0 < seconds < 1e9:
            raise InvalidArgument(f"{name}={seconds}: give seconds, more than 0")
    credentials = Credentials(
        token if token is not None else os.environ.get("FLIGHTSTORE_TOKEN") or None,
        _pem(tls_root_certificates, "tls_root_certificates"),
        _pem(client_certificate, "client_certificate"),
        _pem(client_key, "client_key"),
    )
    way, hello = _way(address, credentials, Timeouts(connect_timeout, request_timeout), transport)
    if map and session is None and (here := _mapped(hello)) is not None:
        way.close()
        return here
    shared = Shared(way, hello, address.url)
    if map and address.path:
        shared.map_path = f"{address.path.removesuffix('.http')}.map"
        shared.authorization = f"Bearer {credentials.token}" if credentials.token else None
    try:
        store = _of(shared, None if session is None else str(session))
    except BaseException:
        way.close()
        raise
    if map and session is not None:
        number = store._session_known.number if store._session_known is not None else 0
        here = _mapped(hello, number)
        if here is not None:
            store.close()
            return here
    with _lock:
        _known[address.url] = shared
    return store


def handle_for(url: str, session: str | None) -> Store | RemoteStore:
    """A handle on a gateway for something that travelled here: with the credentials of a handle that this
    process has on it, else with those of the environment.
    """
    with _lock:
        shared = _known.get(url)
    if shared is not None and not shared.closed:
        return _of(shared, session)
    return connect(url, session=session)


def nonce_of(store: Store | RemoteStore) -> bytes:
    """What tells a store from every other one."""
    return store.nonce if isinstance(store, RemoteStore) else store._conn.control.identity.nonce


# --- ways ---


def _way(
    address: Address, credentials: Credentials, timeouts: Timeouts, wanted: str
) -> tuple[Transport, m.Hello]:
    """The transport to be used, and what the gateway says of itself."""
    if address.speaks == "either":
        return _either(address, credentials, timeouts, wanted)
    if address.speaks == "http":
        if wanted == "flight":
            raise InvalidArgument(f"{address.url} is a URL for HTTP", hint="give the gateway's grpc:// URL")
        return _http(address, credentials, timeouts)
    if wanted != "flight" and (beside := address.beside(_http_of.get(address.url, ""))) is not None:
        try:
            return _http(beside, credentials, timeouts)
        except GatewayUnreachable:
            _http_of.pop(address.url, None)
    flight, hello = _flight(address, credentials, timeouts)
    if wanted == "flight":
        return flight, hello
    beside = address.beside(hello.http) if hello.http else None
    if beside is not None:
        try:
            way, told = _http(beside, credentials, timeouts)
            if told.nonce == hello.nonce:
                _http_of[address.url] = str(hello.http)
                flight.close()
                return way, told
            way.close()
        except GatewayUnreachable:
            if wanted == "http":
                raise
    if wanted == "http":
        raise GatewayUnreachable(f"the gateway {address.url} offers no HTTP that can be used from here")
    return flight, hello


def _either(
    address: Address, credentials: Credentials, timeouts: Timeouts, wanted: str
) -> tuple[Transport, m.Hello]:
    """A unix socket: a gateway's is Flight's, with HTTP's beside it; or it is HTTP's by itself."""
    if wanted != "flight":
        refusal = None
        for path in (f"{address.path}.http", address.path):
            if _is_socket(path):
                try:
                    return _http(address.speaking_http(path), credentials, timeouts)
                except GatewayUnreachable as error:
                    refusal = error
        if wanted == "http":
            raise refusal or GatewayUnreachable(f"there is no socket {address.path}")
    return _flight(address, credentials, timeouts)


def _is_socket(path: str) -> bool:
    return Path(path).is_socket()


def _http(address: Address, credentials: Credentials, timeouts: Timeouts) -> tuple[Transport, m.Hello]:
    from flightstore.remote.http import HttpTransport

    return _greeted(HttpTransport(address, credentials, timeouts))


def _flight(address: Address, credentials: Credentials, timeouts: Timeouts) -> tuple[Transport, m.Hello]:
    from flightstore.remote.flight import FlightTransport

    return _greeted(FlightTransport(address, credentials, timeouts))


def _greeted(way: Transport) -> tuple[Transport, m.Hello]:
    try:
        hello = _hello(way, None)
    except BaseException:
        way.close()
        raise
    if hello.protocol != m.PROTOCOL_VERSION:
        way.close()
        raise StoreVersionMismatch(
            f"the gateway {way.url} speaks version {hello.protocol} of the protocol, this flightstore "
            f"version {m.PROTOCOL_VERSION}",
            hint=f"the gateway is flightstore {hello.version}: use the same here",
        )
    return way, hello


def _hello(way: Transport, session: str | None) -> m.Hello:
    return m.decode(way.act("hello", b"", session=session), m.Hello)


# --- handles ---


def _of(shared: Shared, session: str | None) -> RemoteStore:
    hello = shared.hello if session is None else _hello(shared.transport, session)
    if not hello.session:
        return RemoteStore(shared, None, session)
    known = m.SessionReply(number=hello.session, name=hello.session_name)
    return RemoteSession(shared, known, session)


def _mapped(hello: m.Hello, session: int | None = None) -> Store | None:
    """The store itself, if it is on this machine and this process may write to it; else None."""
    if hello.rights == "read":
        return None
    number = hello.session if session is None else session
    try:
        if Control(hello.path).identity.nonce.hex() != hello.nonce:
            return None
        store = connect_here(hello.path, create=False)
    except (FlightStoreError, OSError):
        return None
    try:
        if store._conn.control.identity.nonce.hex() == hello.nonce:
            if not number:
                return store
            with store:
                return store.session(number)
    except FlightStoreError:
        pass
    store.close()
    return None


def _pem(given: str | os.PathLike[str] | bytes | None, what: str) -> bytes | None:
    """A certificate, or key, or the file that has it.

    Raises:
        InvalidArgument: the file cannot be read.
    """
    if given is None or isinstance(given, bytes):
        return given
    try:
        return Path(given).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{what}: {error}") from None
