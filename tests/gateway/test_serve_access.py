"""Who may do what at a gateway that runs: tokens, TLS, mutual TLS; through Flight and HTTP."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

import flightstore as fs
from flightstore.gateway.tokens import create, revoke
from flightstore.testing.certificates import Authority, Certificate

from .serving import BUSY_S, Served, act, bearer, client, get, request

pytestmark = pytest.mark.req("GW-5")

Serve = Callable[..., Served]
LOOPBACK = ("--flight", "127.0.0.1:0", "--http", "127.0.0.1:0")
TABLE = pa.table({"n": range(10)})
WRONG = "fst_" + "x" * 43


@pytest.fixture
def serve(store_dir: Path) -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> Served:
            served = Served(store_dir, *arguments)
            stack.callback(served.close)
            served.ready()
            return served

        yield start


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def token(path: Path, name: str, **options: Any) -> str:
    _, secret = create(path, name, **options)
    assert secret
    return secret


def put(connected: Any, name: str, options: Any) -> None:
    writer, _ = connected.do_put(flight.FlightDescriptor.for_path(name), TABLE.schema, options)
    with writer:
        writer.write_table(TABLE)


def rows(connected: Any, name: str, options: Any = None) -> int:
    return connected.do_get(flight.Ticket(name.encode()), options).read_all().num_rows


def stream() -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return sink.getvalue().to_pybytes()


def header(secret: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}", **more}


def test_a_read_token_cannot_write(serve: Serve, tokens: Path, tmp_path: Path) -> None:
    writer, reader = token(tokens, "writer", rights="write"), token(tokens, "reader")
    served = serve(*LOOPBACK, "--tokens", str(tokens), "--log-level", "debug")
    http = served.addresses["http"]
    with client(served.addresses["flight"]) as connected:
        put(connected, "x", bearer(writer))
        assert rows(connected, "x", bearer(reader)) == 10
        with pytest.raises(flight.FlightUnauthorizedError, match="right to write"):
            put(connected, "y", bearer(reader))
        with pytest.raises(flight.FlightUnauthorizedError):
            act(connected, "delete", {"refs": ["x"]}, bearer(reader))
        with pytest.raises(flight.FlightUnauthorizedError):
            act(connected, "evict", {"nbytes": 1}, bearer(writer))
        assert act(connected, "list", {}, bearer(reader))["objects"][0]["name"] == "x"
    assert get(http, "/objects/x", **header(reader))[0] == 200
    assert request("PUT", http, "/objects/y", stream(), **header(reader))[0] == 403
    assert request("PUT", http, "/objects/y", stream(), **header(writer))[0] in (200, 201)
    assert request("POST", http, "/actions/delete", b'{"refs":["x"]}', **header(reader))[0] == 403
    assert served.end() == 0
    assert writer not in served.text()
    assert reader not in served.text()


def test_without_a_good_token_there_is_nothing(serve: Serve, tokens: Path, tmp_path: Path) -> None:
    good = token(tokens, "good", rights="admin")
    over = token(tokens, "over", rights="admin", expires=timedelta(seconds=-1))
    served = serve(*LOOPBACK, "--unix", str(tmp_path / "s"), "--tokens", str(tokens), "--log-level", "debug")
    for kind in ("flight", "unix"):
        with client(served.addresses[kind]) as connected:
            put(connected, "x", bearer(good))
            for options in (None, bearer(WRONG), bearer(over), bearer("")):
                with pytest.raises(flight.FlightUnauthenticatedError):
                    rows(connected, "x", options)
                with pytest.raises(flight.FlightUnauthenticatedError):
                    put(connected, "y", options)
                with pytest.raises(flight.FlightUnauthenticatedError):
                    list(connected.list_flights(b"", options))
    for kind in ("http", "unix_http"):
        for headers in ({}, header(WRONG), header(over), {"Authorization": "nonsense"}):
            assert get(served.addresses[kind], "/objects/x", **headers)[0] == 401
            assert request("POST", served.addresses[kind], "/actions/stats", b"{}", **headers)[0] == 401
        assert get(served.addresses[kind], "/objects/x", **header(good))[0] == 200
    served.wait_for_log("refused why=")
    assert served.end() == 0
    assert not any(secret in served.text() for secret in (good, over, WRONG))


def test_a_revoked_token_is_refused_at_once(serve: Serve, tokens: Path) -> None:
    secret = token(tokens, "laptop", rights="write")
    served = serve(*LOOPBACK, "--tokens", str(tokens))
    with client(served.addresses["flight"]) as connected:
        put(connected, "x", bearer(secret))
        revoke(tokens, "laptop")
        with pytest.raises(flight.FlightUnauthenticatedError, match="revoked"):
            rows(connected, "x", bearer(secret))
        assert get(served.addresses["http"], "/objects/x", **header(secret))[0] == 401
        another = token(tokens, "laptop")
        assert rows(connected, "x", bearer(another)) == 10
    assert served.end() == 0


def test_a_token_of_one_session_does_not_see_another(serve: Serve, tokens: Path) -> None:
    whole = token(tokens, "whole", rights="write")
    a, b = (token(tokens, name, rights="write", sessions=[name]) for name in ("A", "B"))
    served = serve(*LOOPBACK, "--tokens", str(tokens))
    http = served.addresses["http"]
    with client(served.addresses["flight"]) as connected:
        put(connected, "mine", bearer(a))
        put(connected, "theirs", bearer(b))
        put(connected, "everybodys", bearer(whole))
        assert rows(connected, "mine", bearer(a)) == rows(connected, "mine", bearer(a, "A")) == 10
        assert rows(connected, "mine", bearer(whole, "A")) == 10
        for name in ("theirs", "everybodys"):
            with pytest.raises(KeyError):
                rows(connected, name, bearer(a))
            assert get(http, f"/objects/{name}", **header(a))[0] == 404
        for session in ("B", "2", "1", "0"):
            with pytest.raises(flight.FlightUnauthorizedError):
                rows(connected, "theirs", bearer(a, session))
            assert get(http, "/objects/theirs", **header(a, x_flightstore_session=session))[0] == 403
        listed = act(connected, "list", {}, bearer(a))["objects"]
        assert [one["name"] for one in listed] == ["mine"]
        flights = [info.descriptor.path for info in connected.list_flights(b"", bearer(a))]
        assert flights == [[b"mine"]]
        assert [one["name"] for one in act(connected, "sessions", {}, bearer(a))["records"]] == ["A"]
    assert json.loads(get(http, "/objects", **header(b))[1])["objects"][0]["name"] == "theirs"
    assert served.end() == 0


def test_bearer_and_basic_in_all_their_forms(serve: Serve, tokens: Path) -> None:
    secret = token(tokens, "laptop", rights="write")
    served = serve(*LOOPBACK, "--tokens", str(tokens))
    with client(served.addresses["flight"]) as connected:
        pair = connected.authenticate_basic_token("laptop", secret)
        assert pair[0] == b"authorization"
        put(connected, "x", flight.FlightCallOptions(headers=[pair]))
        for user in ("", "u", "us", "use"):
            encoded = base64.b64encode(f"{user}:{secret}".encode()).rstrip(b"=")
            options = flight.FlightCallOptions(headers=[(b"authorization", b"Basic " + encoded)])
            assert rows(connected, "x", options) == 10
            status, _ = get(served.addresses["http"], "/objects/x", Authorization=f"Basic {encoded.decode()}")
            assert status == 200
        with pytest.raises(flight.FlightUnauthenticatedError):
            connected.authenticate_basic_token("laptop", WRONG)
    assert served.end() == 0


def test_web_pages_of_others_are_not_trusted_for_being_here(serve: Serve, tokens: Path) -> None:
    served = serve(*LOOPBACK)
    url = served.addresses["http"]
    own = url.removeprefix("http://")
    port = own.rpartition(":")[2]
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://localhost:{port}"},
        {"Host": "evil.example"},
        {"Host": f"evil.example:{port}"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Host": "[::1"},
    ):
        assert request("POST", url, "/actions/stats", b"{}", **headers)[0] in (400, 401), headers
        assert get(url, "/objects", **headers)[0] in (400, 401), headers
    for headers in (
        {"Origin": url},
        {"Host": f"localhost:{port}"},
        {"Host": "[::1]:1"},
        {"Host": "127.0.0.2"},
    ):
        assert request("POST", url, "/actions/stats", b"{}", **headers)[0] == 200, headers
    assert served.end() == 0
    secret = token(tokens, "laptop")
    again = serve("--http", "127.0.0.1:0", "--tokens", str(tokens))
    assert get(again.addresses["http"], "/objects", **header(secret, Host="store.example"))[0] == 200
    assert again.end() == 0


# --- TLS ---


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls(made: Certificate) -> tuple[str, ...]:
    return "--tls-cert", str(made.cert), "--tls-key", str(made.key)


def trusting(authority: Authority, own: Certificate | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.cert))
    if own is not None:
        context.load_cert_chain(own.cert, own.key)
    return context


def options(authority: Authority, own: Certificate | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"tls_root_certs": authority.cert.read_bytes()}
    if own is not None:
        found |= {"cert_chain": own.cert.read_bytes(), "private_key": own.key.read_bytes()}
    return found


def test_tls_beyond_loopback(serve: Serve, tokens: Path, authority: Authority, tmp_path: Path) -> None:
    secret = token(tokens, "laptop", rights="write")
    everywhere = ("--flight", "0.0.0.0:0", "--http", "0.0.0.0:0", "--advertise", "localhost")
    served = serve(*everywhere, *tls(authority.server()), "--tokens", str(tokens))
    assert served.addresses["flight"].startswith("grpc+tls://0.0.0.0:")
    assert served.addresses["http"].startswith("https://0.0.0.0:")
    location = served.addresses["flight"].replace("0.0.0.0", "localhost")
    url = served.addresses["http"].replace("0.0.0.0", "localhost")
    with client(location, **options(authority)) as connected:
        put(connected, "x", bearer(secret))
        assert rows(connected, "x", bearer(secret)) == 10
        assert act(connected, "hello", {}, bearer(secret))["http"] == url
        # Loopback gives no rights where others can connect, too.
        with pytest.raises(flight.FlightUnauthenticatedError):
            rows(connected, "x", flight.FlightCallOptions(timeout=BUSY_S))
    assert get(url, "/objects/x", context=trusting(authority), **header(secret))[0] == 200
    assert get(url, "/objects/x", context=trusting(authority))[0] == 401
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    with pytest.raises(ssl.SSLError):
        get(url, "/objects/x", context=trusting(stranger), **header(secret))
    with client(location, **options(stranger)) as connected, pytest.raises(flight.FlightUnavailableError):
        rows(connected, "x", bearer(secret))
    plain = location.replace("grpc+tls", "grpc+tcp")
    with client(plain) as connected, pytest.raises(flight.FlightUnavailableError):
        rows(connected, "x", bearer(secret))
    assert served.end() == 0


def test_mutual_tls_is_a_credential(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    everywhere = ("--flight", "0.0.0.0:0", "--http", "0.0.0.0:0")
    served = serve(*everywhere, *tls(authority.server()), "--tls-client-ca", str(authority.cert))
    location = served.addresses["flight"].replace("0.0.0.0", "localhost")
    url = served.addresses["http"].replace("0.0.0.0", "localhost")
    own = authority.client("worker.test")
    with client(location, **options(authority, own)) as connected:
        put(connected, "x", flight.FlightCallOptions(timeout=BUSY_S))
        assert act(connected, "hello", {})["rights"] == "admin"
    assert get(url, "/objects/x", context=trusting(authority, own))[0] == 200
    (tmp_path / "other").mkdir()
    strangers = Authority(tmp_path / "other").client("worker.test")
    for wrong in (None, strangers):
        with client(location, **options(authority, wrong)) as connected:
            with pytest.raises(flight.FlightUnavailableError):
                rows(connected, "x", flight.FlightCallOptions(timeout=BUSY_S))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(url, "/objects/x", context=trusting(authority, wrong))
    assert served.end() == 0


def test_certificates_have_rights_of_their_own(serve: Serve, tokens: Path, authority: Authority) -> None:
    create(tokens, "worker", rights="read", certificate="worker.test")
    create(tokens, "owner", rights="write", sessions=["A"], certificate="owner.test")
    secret = token(tokens, "laptop", rights="write")
    served = serve(
        *LOOPBACK, *tls(authority.server()), "--tls-client-ca", str(authority.cert), "--tokens", str(tokens)
    )
    location, url = served.addresses["flight"], served.addresses["http"]
    worker = authority.client("worker.test", file="worker")
    owner = authority.client("owner.test", "second.test", file="owner")
    unknown = authority.client("unknown.test", file="unknown")
    in_time = flight.FlightCallOptions(timeout=BUSY_S)
    with client(location, **options(authority, owner)) as connected:
        put(connected, "x", in_time)
        hello = act(connected, "hello", {})
        assert (hello["rights"], hello["session_name"]) == ("write", "A")
    context = trusting(authority, owner)
    assert request("PUT", url, "/objects/y", stream(), context=context)[0] in (200, 201)
    with client(location, **options(authority, worker)) as connected:
        assert act(connected, "hello", {})["rights"] == "read"
        with pytest.raises(flight.FlightUnauthorizedError, match="worker may read"):
            put(connected, "x", in_time)
        put(connected, "z", bearer(secret))
    assert request("PUT", url, "/objects/y", stream(), context=trusting(authority, worker))[0] == 403
    with client(location, **options(authority, unknown)) as connected:
        with pytest.raises(flight.FlightUnauthenticatedError, match=r"unknown\.test"):
            act(connected, "hello", {})
    assert get(url, "/objects/z", context=trusting(authority, unknown))[0] == 401
    assert served.end() == 0


def test_sighup_takes_new_certificates_for_http(serve: Serve, tokens: Path, authority: Authority) -> None:
    secret = token(tokens, "laptop")
    made = authority.server("old.test", "localhost")
    served = serve("--http", "localhost:0", *tls(made), "--tokens", str(tokens))
    url = served.addresses["http"].replace("127.0.0.1", "localhost")

    def names() -> set[str]:
        host, port = url.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port)), timeout=BUSY_S) as plain:
            with trusting(authority).wrap_socket(plain, server_hostname="localhost") as wrapped:
                found = wrapped.getpeercert()
                assert found
                return {str(name) for _, name in found["subjectAltName"]}

    assert names() == {"old.test", "localhost"}
    made.cert.write_text("rubbish")
    served.process.send_signal(signal.SIGHUP)
    served.wait_for_log("the certificates stay as they were")
    assert names() == {"old.test", "localhost"}
    authority.server("new.test", "localhost")
    served.process.send_signal(signal.SIGHUP)
    served.wait_for_log("read the certificates again")
    assert names() == {"new.test", "localhost"}
    assert get(url, "/objects/x", context=trusting(authority), **header(secret))[0] == 404
    assert served.end() == 0


def test_a_key_of_another_certificate_is_refused(store_dir: Path, authority: Authority, tokens: Path) -> None:
    cert, key = authority.server(file="one").cert, authority.server(file="two").key
    served = Served(store_dir, "--http", "127.0.0.1:0", "--tls-cert", str(cert), "--tls-key", str(key))
    with contextlib.closing(served):
        assert served.ended() == 2
        assert "are no certificate and its key" in served.text()
    assert not store_dir.exists()


def test_a_tokens_file_that_is_not_there_is_an_error(store_dir: Path, tokens: Path) -> None:
    served = Served(store_dir, "--http", "127.0.0.1:0", "--tokens", str(tokens))
    with contextlib.closing(served):
        assert served.ended() == 3
        assert str(tokens) in served.text()
    assert not store_dir.exists()


@pytest.mark.parametrize("scheme", ["flight", "http"])
def test_our_own_client_shows_token_and_certificate(
    serve: Serve, tokens: Path, authority: Authority, tmp_path: Path, scheme: str
) -> None:
    secret = token(tokens, "laptop", rights="write", sessions=["A"])
    create(tokens, "worker", rights="read", certificate="worker.test")
    own = authority.client("worker.test")
    everywhere = ("--flight", "0.0.0.0:0", "--http", "0.0.0.0:0", "--tokens", str(tokens))
    served = serve(*everywhere, *tls(authority.server()), "--tls-client-ca", str(authority.cert))
    url = served.addresses[scheme].replace("0.0.0.0", "localhost")
    shown: dict[str, Any] = {
        "map": False,
        "tls_root_certificates": authority.cert,
        "client_certificate": own.cert,
        "client_key": own.key,
    }
    with fs.connect(url, token=secret, **shown) as store:
        store.put(TABLE, name="x")
        assert store.get("x").to_arrow().equals(TABLE)
    with fs.connect(url, **shown) as store:
        assert not store.contains("x")
        with pytest.raises(fs.NotAllowed):
            store.put(TABLE, name="y")
        with pytest.raises(fs.NotAllowed):
            store.delete("x")
    with pytest.raises(fs.NotAuthenticated):
        fs.connect(url, token=WRONG, **shown)
    assert served.end() == 0
