"""Who calls: by a token, as Bearer or Basic, or by the certificate of a mutual TLS connection.

With a tokens file every listener asks, the unix socket too. Without one, who comes from this machine, and who
has a certificate of the client CA, may do everything. An Authenticator may be used from any thread.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import logging
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from flightstore.errors import NotAuthenticated
from flightstore.gateway.access import ADMIN, Caller
from flightstore.gateway.tokens import Token, TokensFile, hash_of

__all__ = ["Authenticator", "certificate_name", "is_own_page", "token_in"]

log = logging.getLogger("flightstore.gateway.authentication")

_HINT = "flightstore tokens create makes a token; send it as 'Authorization: Bearer TOKEN'"


class Authenticator:
    """Finds out who calls.

    Args:
        tokens: The tokens file; None for none. It is read again whenever it has changed.
        open_to_all: Without a tokens file, callers from elsewhere may do everything, too (``--insecure``).

    Raises:
        InvalidArgument, OSError: the tokens file cannot be used.
    """

    def __init__(self, tokens: str | os.PathLike[str] | None = None, *, open_to_all: bool = False) -> None:
        self._tokens = None if tokens is None else TokensFile(tokens)
        self._open_to_all = open_to_all

    def caller_of(self, authorization: str | None, *, local: bool, certificate: str | None = None) -> Caller:
        """Who calls. A token counts before a certificate.

        Args:
            authorization: The header: ``Bearer TOKEN``, or ``Basic`` and base64 of ``user:TOKEN``, padded or
                not; the user is not looked at. None for none.
            local: The listener is a unix socket, or loopback.
            certificate: Name in the client's verified certificate, see `certificate_name`; None for none.

        Raises:
            NotAuthenticated: nobody that is known.
        """
        try:
            return self._known(authorization, local, certificate)
        except NotAuthenticated as error:
            log.info("refused", extra={"why": error.message, "local": local})
            raise

    def _known(self, authorization: str | None, local: bool, certificate: str | None) -> Caller:
        if self._tokens is None:
            if certificate:
                return Caller(certificate, ADMIN)
            if local or self._open_to_all:
                return Caller("local" if local else "anyone", ADMIN)
            raise NotAuthenticated("this gateway has no tokens, and serves its own machine only")
        entries = self._tokens.entries()
        if authorization:
            name, entry = _by_token(entries, token_in(authorization))
        elif certificate:
            name, entry = _by_certificate(entries, certificate)
        else:
            raise NotAuthenticated("this gateway wants a token", hint=_HINT)
        if entry.is_expired():
            raise NotAuthenticated(f"the token {name!r} has expired", hint="ask for a new one")
        return entry.caller(name)

    def reload(self) -> None:
        """Look at the tokens file now; it is looked at with every call anyway."""
        if self._tokens is not None:
            self._tokens.entries()


def certificate_name(peer: Mapping[str, Any] | None) -> str | None:
    """How a client's certificate names it: its first subject alternative name, else its common name; the same
    that gRPC tells.

    Args:
        peer: What `ssl.SSLSocket.getpeercert` says.
    """
    if not peer:
        return None
    for _, name in peer.get("subjectAltName", ()):
        return str(name)
    subject = dict(pair for part in peer.get("subject", ()) for pair in part)
    return subject.get("commonName")


def is_own_page(host: str | None, origin: str | None) -> bool:
    """Whether a request over HTTP is nothing that a web page of somebody else made a browser here send.

    A page may post to any address (its name is the Origin), and may have its own name lead to this machine
    (which is then the Host; such names have dots). Who needs a token is safe from that; who is trusted for
    being here is not.

    Args:
        host: The header Host.
        origin: The header Origin.
    """
    if origin is not None and origin.partition("://")[2] != host:
        return False
    try:
        name = urlsplit(f"//{host or ''}").hostname or ""
        return not set(name) & set(".:") or ipaddress.ip_address(name) is not None
    except ValueError:
        return False


def token_in(authorization: str) -> str:
    """The token in an Authorization header.

    Raises:
        NotAuthenticated: there is none.
    """
    scheme, _, rest = authorization.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer" and rest:
        return rest
    if scheme.lower() == "basic" and rest:
        try:
            # Some clients leave the padding out.
            decoded = base64.b64decode(rest.rstrip("=") + "=" * (-len(rest.rstrip("=")) % 4), validate=True)
            user, colon, password = decoded.decode().partition(":")
        except (binascii.Error, ValueError):
            user = colon = password = ""
        if colon:
            return password or user
    raise NotAuthenticated("the Authorization header is malformed", hint="send Bearer TOKEN, or Basic")


def _by_token(entries: Mapping[str, Token], token: str) -> tuple[str, Token]:
    """All are compared, each in constant time: how long it takes tells nothing."""
    hashed = hash_of(token)
    found = None
    for name, entry in entries.items():
        if hmac.compare_digest(entry.hash or "", hashed):
            found = name, entry
    if found is None:
        raise NotAuthenticated("the token is not known here, or was revoked", hint=_HINT)
    return found


def _by_certificate(entries: Mapping[str, Token], certificate: str) -> tuple[str, Token]:
    for name, entry in entries.items():
        if entry.certificate == certificate:
            return name, entry
    raise NotAuthenticated(
        f"nobody is known by the certificate {certificate!r}",
        hint=f"flightstore tokens create NAME --certificate {certificate}",
    )
