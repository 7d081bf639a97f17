"""Where a gateway listens, and whether it may: nothing listens beyond loopback without TLS and a credential.

Names are looked up once, here, and servers are given the address that was found: what is checked is what is
bound.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from flightstore.errors import InvalidArgument, NotAllowed
from flightstore.gateway.settings import Settings

__all__ = ["FLIGHT", "HEALTH", "HTTP", "MAP", "Listener", "listeners"]

FLIGHT, HTTP, MAP, HEALTH = "flight", "http", "map", "health"
UNIX_SUFFIXES = {FLIGHT: "", HTTP: ".http", MAP: ".map"}
"""What is served on which unix socket, by what is put behind the path."""
_SCHEMES = {
    FLIGHT: {"grpc": False, "grpc+tcp": False, "grpc+tls": True},
    HTTP: {"http": False, "https": True},
    HEALTH: {"grpc": False},
}
"""The schemes of each kind of server, and whether they are TLS."""
MAX_SOCKET_PATH = 107
"""Bytes; the kernel takes no more."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One place to listen at."""

    kind: str
    """FLIGHT, HTTP, MAP (unix sockets only, see mediated.py) or HEALTH."""
    host: str = ""
    """An IP address; empty for a unix socket."""
    port: int = 0
    tls: bool = False
    path: str = ""
    """Of the unix socket; empty for TCP."""
    asked: str = ""
    """What the setting says."""

    @property
    def local(self) -> bool:
        """Whether only callers of this machine get here."""
        return bool(self.path) or ipaddress.ip_address(self.host).is_loopback

    @property
    def location(self) -> str:
        """As a URL."""
        return self.url(self.host, self.port)

    def url(self, host: str, port: int) -> str:
        """As a URL, at another host and port."""
        if self.kind == HTTP:
            scheme = "http+unix" if self.path else "https" if self.tls else "http"
        else:
            scheme = (
                "unix"
                if self.kind == MAP
                else "grpc+unix"
                if self.path
                else "grpc+tls"
                if self.tls
                else "grpc+tcp"
            )
        if self.path:
            return f"{scheme}://{self.path}"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def listeners(settings: Settings, *, has_tokens: bool) -> list[Listener]:
    """Where to listen.

    Raises:
        InvalidArgument: an address is malformed, or its host unknown.
        NotAllowed: a listener beyond loopback that is not safe.
    """
    found = []
    if settings.unix:
        path = os.path.abspath(settings.unix)
        if len(os.fsencode(path)) > MAX_SOCKET_PATH - max(map(len, UNIX_SUFFIXES.values())):
            raise InvalidArgument(f"unix: the path {path} is too long for a socket")
        found += [Listener(kind, path=path + suffix, asked=path) for kind, suffix in UNIX_SUFFIXES.items()]
    has_certificate = settings.tls_cert is not None
    if settings.flight:
        found.append(_parsed(FLIGHT, settings.flight, has_certificate))
    if settings.http:
        found.append(_parsed(HTTP, settings.http, has_certificate))
    if settings.health:
        text = settings.health
        found.append(_parsed(HEALTH, f"127.0.0.1:{text}" if text.isdecimal() else text, False))
    for listener in found:
        _check(listener, settings, has_tokens)
    return found


def _parsed(kind: str, text: str, has_certificate: bool) -> Listener:
    schemes = _SCHEMES[kind]
    default = max(schemes, key=lambda name: schemes[name] == has_certificate)
    try:
        url = urlsplit(text if "://" in text else f"{default}://{text}")
        scheme, host, port, rest = url.scheme, url.hostname, url.port, url.path.strip("/") + url.query
    except ValueError:
        scheme, host, port, rest = "", None, None, ""
    if scheme not in schemes or not host or port is None or rest:
        wanted = " or ".join(f"{name}://HOST:PORT" for name in schemes)
        hint = "--unix serves a unix socket" if "unix" in scheme else "such as 127.0.0.1:0 for any port"
        raise InvalidArgument(f"{kind}: {text!r} is not {wanted}", hint=hint)
    tls = schemes[scheme]
    if tls and not has_certificate:
        raise InvalidArgument(f"{kind}: {text} needs a certificate", hint="give --tls-cert and --tls-key")
    return Listener(kind, _address(kind, host), port, tls, asked=text)


def _address(kind: str, host: str) -> str:
    """The address that is bound: one beyond loopback, if the name has any."""
    try:
        found = [str(one[4][0]) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise InvalidArgument(f"{kind}: the host {host!r} is not known") from None
    # A name can have several. The one to be wary of comes first, then the older kind.
    return min(found, key=lambda one: (ipaddress.ip_address(one).is_loopback, ":" in one))


def _check(listener: Listener, settings: Settings, has_tokens: bool) -> None:
    if listener.local or settings.insecure:
        return
    if listener.kind == HEALTH:
        if settings.insecure_health:
            return
        raise NotAllowed(
            f"the health service would listen beyond loopback, at {listener.asked}, without TLS",
            hint="give a port alone, or --insecure-health: it tells whether the gateway serves, and no more",
        )
    missing = []
    if not listener.tls:
        missing.append("TLS (--tls-cert and --tls-key)")
    if not (has_tokens or (listener.tls and settings.tls_client_ca)):
        missing.append("a credential (--tokens, or --tls-client-ca)")
    if missing:
        raise NotAllowed(
            f"{listener.kind} would listen beyond loopback, at {listener.asked}, without "
            + " and ".join(missing),
            hint="both TLS and a credential are needed there; --insecure listens all the same",
        )
