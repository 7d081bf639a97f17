"""The certificates of a gateway, as its two servers want them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from flightstore.errors import InvalidArgument
from flightstore.gateway.settings import Settings

__all__ = ["Certificates"]


@dataclass(frozen=True, slots=True)
class Certificates:
    """A certificate with its chain, its key, and the CA of the clients if they need certificates: PEM."""

    cert: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext
    """For HTTP. Connections take what it holds when they begin, so that it can be reloaded."""

    @classmethod
    def of(cls, settings: Settings) -> Certificates | None:
        """Those that the settings name; None without any.

        Raises:
            InvalidArgument: the files are not what they should be, or do not belong together.
            OSError: one cannot be read.
        """
        if not settings.tls_cert or not settings.tls_key:
            return None
        files = [Path(settings.tls_cert), Path(settings.tls_key)]
        cert, key = (file.read_bytes() for file in files)
        client_ca = Path(settings.tls_client_ca).read_bytes() if settings.tls_client_ca else None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.tls_client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
        loaded = cls(cert, key, client_ca, context)
        loaded.reload(settings)
        return loaded

    def reload(self, settings: Settings) -> None:
        """Read the files again, for the connections that begin from now on, to HTTP alone.

        Raises:
            InvalidArgument, OSError: see `of`; what was loaded stays.
        """
        try:
            self.context.load_cert_chain(settings.tls_cert or "", settings.tls_key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidArgument(
                f"{settings.tls_cert} and {settings.tls_key} are no certificate and its key: {error}",
                hint="both PEM, the certificate before its chain, the key without a password",
            ) from None
        if settings.tls_client_ca:
            try:
                self.context.load_verify_locations(settings.tls_client_ca)
            except ssl.SSLError as error:
                raise InvalidArgument(f"{settings.tls_client_ca} is no CA certificate: {error}") from None


def _no_password() -> NoReturn:
    raise ValueError("the key has a password")
