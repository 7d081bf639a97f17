"""A gateway over a store of its own, as the programs of examples/ meet it: open on loopback, or with TLS and
tokens. Used by languages.py and the tests.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import flightstore as fs

ROOT = Path(__file__).parents[2]
FLIGHTSTORE = [sys.executable, "-m", "flightstore.cli"]


class Gateway:
    """`flightstore serve` over a new store; a context manager that starts and ends it."""

    def __init__(self, place: Path, *, secure: bool) -> None:
        self.place = place
        self.secure = secure
        self.url = ""
        self.token = ""
        """What a client sends; empty for none."""
        self.ca = place / "ca.pem"

    def __enter__(self) -> Gateway:
        self.place.mkdir()
        with contextlib.ExitStack() as stack:
            memory = Path(tempfile.mkdtemp(prefix="flightstore-languages-", dir="/dev/shm"))
            stack.callback(shutil.rmtree, memory)
            self.store = fs.connect(memory / "store", capacity="1GiB")
            stack.callback(self.store.destroy)
            options = self._make_secure() if self.secure else []
            process = subprocess.Popen(
                [*FLIGHTSTORE, "serve", self.store.path, "--flight", "127.0.0.1:0", *options, "--json"],
                env=_environment(self.place),
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(open(self.place / "log", "w")),
                text=True,
            )
            stack.callback(_end, process)
            assert process.stdout is not None
            self.url = json.loads(process.stdout.readline())["flight"]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def options(self) -> list[str]:
        """What every program takes to reach it."""
        options = ["--url", self.url]
        if self.secure:
            options += ["--token", self.token, "--ca", str(self.ca)]
        return options

    def _make_secure(self) -> list[str]:
        tokens = self.place / "tokens.toml"
        made = subprocess.run(
            [*FLIGHTSTORE, "tokens", "create", "example", "--rights", "write", "--tokens", tokens, "--json"],
            env=_environment(self.place),
            check=True,
            capture_output=True,
        )
        self.token = json.loads(made.stdout)["token"]
        certificate, key = self.place / "cert.pem", self.place / "key.pem"
        _write_certificates(self.ca, certificate, key)
        options = {"--tokens": tokens, "--tls-cert": certificate, "--tls-key": key}
        return [str(word) for option in options.items() for word in option]


def _end(process: subprocess.Popen[str]) -> None:
    with process:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _environment(home: Path) -> dict[str, str]:
    """Without the user's own settings and tokens."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLIGHTSTORE_")}
    return kept | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "PYTHONPATH": str(ROOT)}


def _write_certificates(ca: Path, certificate: Path, key: Path) -> None:
    """An authority, and what it issued for 127.0.0.1."""
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _signed("flightstore example CA", authority_key, None, authority_key, [])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    names = x509.SubjectAlternativeName([address, x509.DNSName("localhost")])
    server = _signed("localhost", server_key, authority, authority_key, [names])
    ca.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    certificate.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    key.touch(mode=0o600)
    key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _signed(
    name: str, key: Any, issuer: x509.Certificate | None, issuer_key: Any, extensions: list[Any]
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
