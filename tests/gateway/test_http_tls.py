"""HTTPS: the same answers, large ones too; and plain clients, and those without a handshake, harm nobody."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import ssl
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flightstore.gateway.access import Caller
from flightstore.gateway.limits import Limits
from flightstore.testing.events import wait_until
from flightstore.testing.http_gateway import Callers, HttpClient, HttpGateway, http_gateway


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_path, key_path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path)


@pytest.fixture
def gateway(store_dir: Path, files: tuple[Path, Path]) -> Iterator[HttpGateway]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files[0]))
    context.load_cert_chain(*files)
    context.verify_mode = ssl.CERT_OPTIONAL
    with http_gateway(
        store_dir, limits=Limits(max_connections=4), host="127.0.0.1", ssl_context=context
    ) as made:
        yield made


def connect(gateway: HttpGateway, files: tuple[Path, Path], *, known: bool = False) -> HttpClient:
    context = ssl.create_default_context(cafile=str(files[0]))
    if known:
        context.load_cert_chain(*files)
    connection = http.client.HTTPSConnection("127.0.0.1", gateway.port, timeout=30, context=context)
    client = HttpClient(connection)
    gateway.clients.append(client)
    return client


@pytest.mark.req("GW-5")
def test_large_bodies_both_ways(gateway: HttpGateway, files: tuple[Path, Path]) -> None:
    ask = connect(gateway, files)
    body = np.random.default_rng(1).bytes(9_000_001)
    kind = {"Content-Type": "application/octet-stream"}
    assert ask("PUT", "/objects/blob", body, kind).status == 201
    assert ask("GET", "/objects/blob").body == body
    frame = ask("GET", "/frames/blob?acknowledge=1")
    assert frame.body.endswith(body)
    assert "x-flightstore-acknowledge" not in frame.headers
    assert gateway.server.url.startswith("https://")


def test_a_reader_who_takes_nothing_is_given_up(store_dir: Path, files: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    limits = Limits(idle_timeout_s=3)
    with http_gateway(store_dir, limits=limits, host="127.0.0.1", ssl_context=context) as gateway:
        gateway.store.put(bytes(32 << 20), name="big")
        ask = connect(gateway, files)
        ask.connection.request("GET", "/objects/big")
        wait_until(lambda: b"http GET /objects" in gateway.metrics.text(), what="it ended")
        wait_until(lambda: gateway.store.stats().leases == 0, what="the object is let go")


def test_certificates_name_callers(store_dir: Path, files: tuple[Path, Path]) -> None:
    class ByCertificate(Callers):
        def caller_of(
            self, authorization: str | None, *, local: bool, certificate: str | None = None
        ) -> Caller:
            return Caller(certificate or "nobody", "admin" if certificate else "read")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files[0]))
    context.load_cert_chain(*files)
    context.verify_mode = ssl.CERT_OPTIONAL
    with http_gateway(store_dir, callers=ByCertificate(), host="127.0.0.1", ssl_context=context) as gateway:
        kind = {"Content-Type": "application/octet-stream"}
        assert connect(gateway, files)("PUT", "/objects/x", b"1", kind).status == 403
        assert connect(gateway, files, known=True)("PUT", "/objects/x", b"1", kind).status == 201


@pytest.mark.req("GW-6")
def test_failed_handshakes_use_up_no_connections(gateway: HttpGateway, files: tuple[Path, Path]) -> None:
    for _ in range(12):
        with gateway.socket() as sock, contextlib.suppress(OSError):
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while sock.recv(1000):
                pass
    end = time.monotonic() + 60
    while (got := connect(gateway, files)("GET", "/health")).status == 503 and time.monotonic() < end:
        time.sleep(float(got.headers["Retry-After"]))
    assert got.status == 200
