"""Where a gateway is, and how this client shows who it is. Opens nothing."""

from __future__ import annotations

import os
import ssl
import urllib.parse
from dataclasses import dataclass, replace

from flightstore.errors import InvalidArgument

__all__ = ["Address", "Credentials", "is_url"]

_SCHEMES = {
    "grpc": ("flight", False),
    "grpc+tcp": ("flight", False),
    "grpc+tls": ("flight", True),
    "grpc+unix": ("flight", False),
    "http": ("http", False),
    "https": ("http", True),
    "http+unix": ("http", False),
    "unix": ("either", False),
}


def is_url(target: object) -> bool:
    """Whether it names a gateway, and not a directory."""
    return isinstance(target, str) and target.partition("://")[0] in _SCHEMES and "://" in target


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway listens."""

    url: str
    """As it was given, without what stands behind the port."""
    speaks: str
    """``flight``, ``http``, or ``either`` (to be found out)."""
    tls: bool
    host: str = ""
    port: int = 0
    path: str = ""
    """Of a unix socket; then there is no host."""

    @classmethod
    def parse(cls, url: str) -> Address:
        """The address in a URL.

        Raises:
            InvalidArgument: it is none.
        """
        scheme, _, rest = url.partition("://")
        if scheme not in _SCHEMES or not rest:
            raise _wrong(url)
        speaks, tls = _SCHEMES[scheme]
        if scheme.endswith("unix"):
            return cls(url, speaks, tls, path=rest if rest.startswith("/") else os.path.abspath(rest))
        try:
            parts = urllib.parse.urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise _wrong(url) from None
        if not host or parts.username is not None or parts.path.strip("/") or parts.query:
            raise _wrong(url)
        if port is None and speaks == "flight":
            raise _wrong(url)
        port = port or (443 if tls else 80)
        shown = f"[{host}]" if ":" in host else host
        return cls(f"{scheme}://{shown}:{port}", speaks, tls, host, port)

    def speaking_http(self, path: str) -> Address:
        """A socket at that path, taken for one that speaks HTTP."""
        return replace(self, speaks="http", path=path)

    @property
    def flight_location(self) -> str:
        """As pyarrow wants it."""
        if self.path:
            return f"grpc+unix://{self.path}"
        return self.url.replace("grpc://", "grpc+tcp://") if self.url.startswith("grpc://") else self.url

    def beside(self, url: str) -> Address | None:
        """An address that this gateway gave for itself; None if it must not, or cannot, be used from here.

        One that stands for all interfaces means the host that is known already. A token that came by TLS is
        not sent without.
        """
        try:
            found = Address.parse(url)
        except InvalidArgument:
            return None
        if found.speaks != "http" or (self.tls and not found.tls and not found.path):
            return None
        if found.path:
            return found if os.path.exists(found.path) else None
        if found.host in ("0.0.0.0", "::", "*") and self.host:
            scheme = "https" if found.tls else "http"
            shown = f"[{self.host}]" if ":" in self.host else self.host
            return replace(found, host=self.host, url=f"{scheme}://{shown}:{found.port}")
        return found


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client shows, and what it wants to see. Never pickled, never printed."""

    token: str | None = None
    tls_root_certificates: bytes | None = None
    """PEM; None for those of the system."""
    client_certificate: bytes | None = None
    """PEM, with its key; for gateways that want one."""
    client_key: bytes | None = None

    def __repr__(self) -> str:
        return f"<Credentials{' with a token' if self.token else ''}>"

    def __reduce__(self) -> str:
        raise TypeError("credentials do not travel")

    def ssl_context(self) -> ssl.SSLContext:
        """For HTTP.

        Raises:
            InvalidArgument: a certificate is none.
        """
        try:
            roots = self.tls_root_certificates
            context = ssl.create_default_context(cadata=roots.decode() if roots else None)
            if self.client_certificate:
                _load_chain(context, self.client_certificate, self.client_key or b"")
        except (ssl.SSLError, ValueError) as error:
            raise InvalidArgument(f"a certificate, or key, is not PEM: {error}") from None
        return context


def _load_chain(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """ssl reads files only: one without a name, gone at once."""
    descriptor = os.memfd_create("flightstore-client-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, certificate + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _wrong(url: str) -> InvalidArgument:
    return InvalidArgument(
        f"{url!r} is not the URL of a gateway",
        hint="such as grpc://host:8815, grpc+tls://host:8815, http://host:8816 or unix:///path",
    )
