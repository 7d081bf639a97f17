"""Credentials as the Flight clients of several languages send them; rights; sessions; TLS."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest
from pyarrow import flight

import flightstore as fs
from flightstore.gateway.authentication import Authenticator
from flightstore.gateway.flight import FlightServer, is_loopback
from flightstore.gateway.flight_calls import is_local
from flightstore.gateway.service import Service
from flightstore.gateway.tokens import create
from flightstore.testing.certificates import Authority

from .conftest import Everybody
from .rawflight import Raw, message

pytestmark = pytest.mark.req("GW-5")

TABLE = pa.table({"a": [1, 2, 3]})
GET = message((1, b"x"))


class Clients:
    """A server that wants tokens, and ways to talk to it."""

    def __init__(self, server: FlightServer, tokens: dict[str, str]) -> None:
        self.address = f"grpc://127.0.0.1:{server.port}"
        self.raw = Raw(server.port)
        self.client = flight.connect(self.address)
        self.tokens = tokens

    def bearer(self, who: str, **headers: str) -> Any:
        """Call options of one who has a token."""
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        return flight.FlightCallOptions(
            headers=[(b"authorization", f"Bearer {self.tokens[who]}".encode()), *pairs]
        )


@pytest.fixture
def clients(service: Service, store: fs.Store, tmp_path: Path) -> Iterator[Clients]:
    path = tmp_path / "tokens.toml"
    tokens = {"reader": create(path, "reader", rights="read")[1]}
    tokens["writer"] = create(path, "writer", rights="write")[1]
    tokens["guest"] = create(path, "guest", rights="write", sessions=["A"])[1]
    server = FlightServer(service, Authenticator(path), "grpc://127.0.0.1:0")
    store.put(TABLE, "x")
    made = Clients(server, tokens)
    yield made
    made.client.close()
    made.raw.channel.close()
    assert server.stop(10)


def test_the_basic_handshake(clients: Clients) -> None:
    pair = clients.client.authenticate_basic_token("anybody", clients.tokens["reader"])
    assert pair == (b"authorization", f"Bearer {clients.tokens['reader']}".encode())
    options = flight.FlightCallOptions(headers=[pair])
    assert clients.client.do_get(flight.Ticket(b"x"), options).read_all() == TABLE
    with pytest.raises(flight.FlightUnauthenticatedError):
        clients.client.authenticate_basic_token("anybody", "wrong")


@pytest.mark.parametrize("user", ["", "u", "us", "use"])
def test_unpadded_base64_and_a_header_that_comes_twice(clients: Clients, user: str) -> None:
    """As Go's client and ADBC send it."""
    encoded = base64.b64encode(f"{user}:{clients.tokens['reader']}".encode()).decode().rstrip("=")
    header = ("authorization", f"Basic {encoded}")
    assert list(clients.raw.stream("DoGet", GET, header, header))
    call = clients.raw.stream("Handshake", b"", header, header)
    assert dict(call.initial_metadata())["authorization"] == f"Bearer {clients.tokens['reader']}"
    assert list(call) == []


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic !!!", "Bearer", "", "Digest x"])
def test_strangers_get_nowhere(clients: Clients, header: str | None) -> None:
    headers = [] if header is None else [("authorization", header)]
    for method in ("DoGet", "DoPut", "DoAction", "ListFlights", "GetSchema", "Handshake"):
        found = clients.raw.error_of(method, GET, *headers)
        assert found.code() is grpc.StatusCode.UNAUTHENTICATED
    assert clients.raw.upload().error().code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_reader_reads_and_does_not_write(clients: Clients) -> None:
    reader = clients.bearer("reader")
    assert clients.client.do_get(flight.Ticket(b"x"), reader).read_all() == TABLE
    writer, replies = clients.client.do_put(flight.FlightDescriptor.for_path("y"), TABLE.schema, reader)
    assert replies.read() is None
    with pytest.raises(flight.FlightUnauthorizedError, match="needs the right to write, reader may read"):
        writer.close()
    with pytest.raises(flight.FlightUnauthorizedError):
        list(clients.client.do_action(flight.Action("delete", b'{"refs": ["x"]}'), reader))


def test_a_guest_sees_its_session_alone(clients: Clients, store: fs.Store) -> None:
    with store.session("A") as inside, store.session("B") as other:
        inside.put(TABLE.slice(1), "x")
        other.put(TABLE, "secret")
        guest = clients.bearer("guest")
        assert clients.client.do_get(flight.Ticket(b"x"), guest).read_all() == TABLE.slice(1)
        with pytest.raises(pa.ArrowKeyError):
            clients.client.do_get(flight.Ticket(b"secret"), guest)
        assert len(list(clients.client.list_flights(b"", guest))) == 1
        for method in ("DoGet", "GetSchema"):
            headers = [("authorization", f"Bearer {clients.tokens['guest']}"), ("x-flightstore-session", "B")]
            found = clients.raw.error_of(method, GET, *headers)
            assert found.code() is grpc.StatusCode.PERMISSION_DENIED


Secure = Callable[..., FlightServer]


@pytest.fixture
def secure(service: Service, store: fs.Store, tmp_path: Path) -> Iterator[Secure]:
    """Starts servers with a certificate."""
    started: list[FlightServer] = []
    authority = Authority(tmp_path)
    certificate = authority.server()

    def start(authenticator: Any, **options: Any) -> FlightServer:
        pair = (certificate.cert.read_bytes(), certificate.key.read_bytes())
        location = "grpc+tls://127.0.0.1:0"
        started.append(FlightServer(service, authenticator, location, tls_certificates=[pair], **options))
        return started[-1]

    start.authority = authority  # type: ignore[attr-defined]
    store.put(TABLE, "x")
    yield start
    for server in started:
        assert server.stop(10)


def test_tls(secure: Any) -> None:
    server = secure(Everybody(), advertise="localhost:1234")
    address = f"grpc+tls://127.0.0.1:{server.port}"
    root = secure.authority.cert.read_bytes()
    with flight.connect(address, tls_root_certs=root) as client:
        assert client.do_get(flight.Ticket(b"x")).read_all() == TABLE
        info = client.get_flight_info(flight.FlightDescriptor.for_path("x"))
        assert info.endpoints[0].locations == [flight.Location("grpc+tls://localhost:1234")]
    with flight.connect(address) as client, pytest.raises(flight.FlightUnavailableError):
        client.do_get(flight.Ticket(b"x"))


def test_mutual_tls(secure: Any, tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    create(path, "worker", rights="read", certificate="worker.test")
    root = secure.authority.cert.read_bytes()
    server = secure(Authenticator(path), verify_client=True, root_certificates=root)
    address = f"grpc+tls://127.0.0.1:{server.port}"

    def client(name: str) -> Any:
        own = secure.authority.client(name, file=name)
        pair = {"cert_chain": own.cert.read_bytes(), "private_key": own.key.read_bytes()}
        return flight.connect(address, tls_root_certs=root, **pair)

    with client("worker.test") as known:
        assert known.do_get(flight.Ticket(b"x")).read_all() == TABLE
        with pytest.raises(flight.FlightUnauthorizedError):
            list(known.do_action(flight.Action("delete", b'{"refs": ["x"]}')))
    with client("stranger.test") as unknown, pytest.raises(flight.FlightUnauthenticatedError):
        unknown.do_get(flight.Ticket(b"x"))
    with flight.connect(address, tls_root_certs=root) as bare, pytest.raises(flight.FlightUnavailableError):
        bare.do_get(flight.Ticket(b"x"))


def test_locations(service: Service, store: fs.Store) -> None:
    """None, unless clients are to be told; then HTTP's as well."""
    made = store.put(TABLE, "x")
    service.http_url = "http://here:8816"
    server = FlightServer(service, Everybody(), "grpc://127.0.0.1:0", advertise="here:8815")
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_path("x"))
    assert [location.uri.decode() for location in info.endpoints[0].locations] == [
        "grpc+tcp://here:8815",
        f"http://here:8816/objects/{made}",
    ]
    assert json.loads(info.app_metadata)["http"] == f"http://here:8816/objects/{made}"
    assert server.stop(10)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:127.0.0.1:5123", True),
        ("ipv4:127.9.9.9:1", True),
        ("ipv6:%5B::1%5D:5123", True),
        ("ipv6:[::1]:5123", True),
        ("unix:", True),
        ("unix:/run/x", True),
        ("ipv4:10.0.0.1:5123", False),
        ("ipv6:%5Bfe80::1%25eth0%5D:5123", False),
        ("ipv6:%5B::ffff:10.0.0.1%5D:5123", False),
        ("ipv6:%5B::ffff:127.0.0.1%5D:5123", True),
        ("", False),
        ("vsock:3:4", False),
    ],
)
def test_who_is_on_this_machine(peer: str, expected: bool) -> None:
    assert is_local(peer) == expected


def test_each_call_is_counted(service: Service, store: fs.Store) -> None:
    counted: list[tuple[str, str, int, int]] = []

    class Counting:
        def request(self, kind: str, code: str, seconds: float, bytes_in: int, bytes_out: int) -> None:
            assert 0 < seconds < 20
            counted.append((kind, code, bytes_in, bytes_out))

    server = FlightServer(service, Everybody(), "grpc://127.0.0.1:0", metrics=Counting())
    table = pa.table({"a": range(1000)})
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        writer, _ = client.do_put(flight.FlightDescriptor.for_path("y"), table.schema)
        writer.write_table(table)
        writer.close()
        client.do_get(flight.Ticket(b"y")).read_all()
        with pytest.raises(pa.ArrowKeyError):
            client.do_get(flight.Ticket(b"z"))
        list(client.do_action("list"))
    assert server.stop(10)
    calls = [(kind, code) for kind, code, _, _ in counted]
    assert calls == [
        ("flight:do_put", "OK"),
        ("flight:do_get", "OK"),
        ("flight:do_get", "NOT_FOUND"),
        ("flight:do_action", "OK"),
    ]
    assert 8000 <= counted[0][2] < 20_000
    assert 8000 <= counted[1][3] < 20_000
    assert counted[3][3] > 0


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("grpc+tcp://127.0.0.1:0", True),
        ("grpc+tcp://127.0.0.2:0", True),
        ("grpc+tcp://[::1]:0", True),
        ("grpc+tcp://localhost:0", True),
        ("grpc+unix:///run/x", True),
        ("grpc+tcp://10.0.0.1:0", False),
        ("grpc+tcp://0.0.0.0:0", False),
        ("grpc+tcp://here:0", False),
    ],
)
def test_which_listeners_are_for_this_machine(location: str, expected: bool) -> None:
    assert is_loopback(location) == expected
