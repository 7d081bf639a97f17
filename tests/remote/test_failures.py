"""What clients see when a gateway is gone, comes back, stalls, or is none."""

from __future__ import annotations

import itertools
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flightstore as fs
from flightstore.testing.children import Child, child, start, start_spawned

from .host import Host, serve_one, total

WAYS = ["http", "flight"]


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that nobody else is given while the block runs; who asks for it by number may listen there."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])


class Gateway:
    """A gateway that can be killed, and begun again at the same place."""

    def __init__(self, path: Path, way: str, port: int) -> None:
        self.path = str(path)
        self.way = way
        self.port = port
        scheme = "http" if way == "http" else "grpc"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.process: Child[None] | None = None

    def begin(self) -> None:
        """Begin, and wait until it answers."""
        self.process = start_spawned(serve_one, self.path, self.way, self.port)
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                time.sleep(0.02)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        assert self.process is not None
        self.process.kill()


@pytest.fixture(params=WAYS)
def gateway(request: pytest.FixtureRequest, store_dir: Path) -> Iterator[Gateway]:
    """A gateway of its own."""
    fs.connect(store_dir, capacity="32MiB").close()
    with reserved_port() as port:
        gateway = Gateway(store_dir, request.param, port)
        gateway.begin()
        yield gateway
        gateway.kill()
    with fs.connect(store_dir) as store:
        store.recover()
        assert store.fsck() == []
        store.destroy()


@pytest.mark.req("FAIL-1")
def test_clients_go_on_after_the_gateway_was_killed(gateway: Gateway) -> None:
    with fs.connect(gateway.url, map=False) as store:
        store.put(b"kept", "kept")
        followed = store.subscribe(since=0)
        assert followed.poll(60).name == "kept"  # type: ignore[union-attr]
        heard: list[str | None] = []
        both = threading.Event()
        store.on_added(lambda event: (heard.append(event.name), len(heard) == 2 and both.set()))
        store.put(b"", "heard before")
        gateway.kill()
        for call in (lambda: store.get("kept"), lambda: store.put(b"", "new"), store.list):
            with pytest.raises(fs.GatewayUnreachable, match=str(gateway.port)):
                call()
        gateway.begin()
        assert bytes(until_it_answers(lambda: store.get("kept")).value()) == b"kept"
        store.put(b"after", "heard after")
        assert [followed.poll(60).name for _ in range(2)] == ["heard before", "heard after"]  # type: ignore[union-attr]
        assert both.wait(60)
        assert heard == ["heard before", "heard after"]


def until_it_answers(call: Any) -> Any:
    """gRPC waits a moment before it connects again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return call()
        except fs.GatewayUnreachable:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.req("FAIL-1")
def test_what_was_put_is_there_whatever_was_answered(gateway: Gateway) -> None:
    """Everything of which a put returned, and nothing half."""
    returned: list[int] = []
    names = 50  # half of what fits; put anew and anew until the gateway is killed

    def put_all() -> None:
        with fs.connect(gateway.url, map=False) as store:
            for number in itertools.count():
                store.put(np.full(20_000, number), f"{number % names}")
                returned.append(number)

    def run() -> None:
        with pytest.raises(fs.GatewayUnreachable):
            put_all()

    threads = [threading.Thread(target=run) for _ in range(1)]
    for thread in threads:
        thread.start()
    while len(returned) < 20:
        time.sleep(0.005)
    gateway.kill()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    with fs.connect(gateway.path) as store:
        assert returned == list(range(len(returned)))
        latest = {f"{number % names}": number for number in returned}
        found = {str(info.name): store.get(str(info.name)).value() for info in store.list()}  # type: ignore[attr-defined]
        assert latest.keys() <= found.keys()
        for name, value in found.items():
            assert (value == value[0]).all()
            # Or the one after all these, whose answer was lost.
            assert value[0] in (latest.get(name), len(returned))
            assert value[0] % names == int(name)


@contextmanager
def answering(answer: bytes | None) -> Iterator[int]:
    """A server that accepts, and says the same to everybody: nothing at all, or this."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted = []

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                accepted.append(connection)
                if answer is not None:
                    with suppress(OSError):  # whoever asked has given up
                        connection.recv(65536)
                        connection.sendall(answer)
                        connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in accepted:
            connection.close()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_one_that_never_answers(scheme: str) -> None:
    with answering(None) as port:
        began = time.monotonic()
        with pytest.raises(fs.GatewayUnreachable, match=r"in time|timed out") as failure:
            fs.connect(f"{scheme}://127.0.0.1:{port}", connect_timeout=0.3, map=False)
        assert time.monotonic() - began < 30
        assert f"{scheme}://127.0.0.1:{port}" in str(failure.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
def test_what_is_no_gateway(answer: bytes) -> None:
    with answering(answer) as port, pytest.raises(fs.FlightStoreError, match=r"gateway|Hello"):
        fs.connect(f"http://127.0.0.1:{port}", map=False)


@pytest.mark.parametrize("scheme", ["http", "https", "grpc", "grpc+tls"])
def test_nobody_listens(scheme: str) -> None:
    with reserved_port() as port:
        with pytest.raises(fs.GatewayUnreachable, match=re.escape(f"{scheme}://127.0.0.1:{port}")):
            fs.connect(f"{scheme}://127.0.0.1:{port}", connect_timeout=2)


def test_no_socket_is_there(tmp_path: Path) -> None:
    with pytest.raises(fs.GatewayUnreachable, match="nothing"):
        fs.connect(f"unix://{tmp_path}/nothing")


@pytest.mark.parametrize(
    "url",
    ["grpc://", "grpc://host", "http://user@host:1", "http://h:1/path", "http://h:x", "ftp://h:1", "://"],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(fs.InvalidArgument, match="URL"):
        fs.connect(url)


@pytest.mark.parametrize("option", [{"capacity": 1 << 20}, {"spill": "/tmp"}, {"policy": "lru"}])
def test_options_of_local_stores(option: dict[str, Any]) -> None:
    with pytest.raises(fs.InvalidArgument, match=next(iter(option))):
        fs.connect("http://localhost:1", **option)


@pytest.mark.parametrize("option", [{"token": "x"}, {"map": False}, {"session": "x"}, {"transport": "http"}])
def test_options_of_gateways(option: dict[str, Any], store_dir: Path) -> None:
    with pytest.raises(fs.InvalidArgument, match=next(iter(option))):
        fs.connect(store_dir, **option)
    assert not store_dir.exists()


# --- who may ---


@pytest.mark.parametrize("ways", WAYS)
def test_tokens(host: Host, ways: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = host.make(16 << 20, ways)
    with fs.connect(url, map=False) as store:
        store.put(b"abc", "a")
    with pytest.raises(fs.NotAuthenticated):
        fs.connect(url, token="unheard of")
    with fs.connect(url, token="reader") as reader:
        assert not reader.mapped, "what is mapped can be written to"
        assert bytes(reader.get("a").value()) == b"abc"  # type: ignore[attr-defined]
        for call in (lambda: reader.put(b"", "b"), lambda: reader.delete("a"), reader.recover):
            with pytest.raises(fs.NotAllowed):
                call()
    monkeypatch.setenv("FLIGHTSTORE_TOKEN", "alice")
    with fs.connect(url, map=False) as alice:
        assert alice.session_name == "alice"  # type: ignore[attr-defined]
        assert "a" not in alice
        alice.put(b"hers", "a")
        assert [info.name for info in alice.sessions()] == ["alice"]
        with fs.connect(url, map=False, session="shared") as shared:
            assert shared.session_name == "shared"  # type: ignore[attr-defined]
            assert "a" not in shared
        with pytest.raises(fs.NotAllowed):
            fs.connect(url, session="bob")
        with pytest.raises(fs.NotAllowed):
            alice.session("bob")
        assert bytes(alice.session("alice").get("a").value()) == b"hers"  # type: ignore[attr-defined]
    with fs.connect(url) as mapped:
        assert mapped.mapped
        assert mapped.session_name == "alice"  # type: ignore[attr-defined]
        assert bytes(mapped.get("a").value()) == b"hers"  # type: ignore[attr-defined]
    monkeypatch.delenv("FLIGHTSTORE_TOKEN")
    host.end(url)


def test_the_nonce_decides_whether_to_map(host: Host, store_dir: Path) -> None:
    """Not the path: another store may be there."""
    from flightstore.remote import connecting
    from flightstore.wire import messages as m

    with fs.connect(store_dir, capacity="16MiB") as store:
        nonce = store._conn.control.identity.nonce
        hello = m.Hello(
            protocol=1, version="", path=str(store_dir), nonce=nonce.hex(), capacity_bytes=1, rights="write"
        )
        with connecting._mapped(hello) as found:  # type: ignore[union-attr]
            assert found.path == str(store_dir)
        for other in ({"nonce": "00" * 16}, {"path": f"{store_dir}x"}, {"rights": "read"}, {"session": 77}):
            assert connecting._mapped(m.msgspec.structs.replace(hello, **other)) is None
        store.destroy()


# --- processes ---


def test_a_forked_child_goes_on_over_http(host: Host) -> None:
    url = host.make(16 << 20)
    with fs.connect(url, map=False) as store:
        store.put(b"mine", "mine")

        def work() -> bytes:
            store.put(b"theirs", "theirs")
            return bytes(store.get("mine").value())  # type: ignore[attr-defined]

        running = [start(work) for _ in range(3)]
        for _ in range(50):
            assert bytes(store.get("mine").value()) == b"mine"  # type: ignore[attr-defined]
        assert [one.result() for one in running] == [b"mine"] * 3
        assert bytes(store.get("theirs").value()) == b"theirs"  # type: ignore[attr-defined]
    host.end(url)


@pytest.mark.req("FAIL-4")
def test_a_child_waits_for_no_thread_that_it_has_not(host: Host) -> None:
    """One of the parent's is just opening, subscribing to or closing a handle at the moment of the fork."""
    url = host.make(16 << 20)
    with fs.connect(url, map=False) as store:

        def work() -> str:
            with store.subscribe() as subscription:
                store.put(b"", "from the child")
                event = subscription.poll(60)
            store.close()
            assert event is not None
            return str(event.name)

        with store._closing, store._shared._lock:  # type: ignore[attr-defined]
            process = start(work)
        with process:
            assert process.result() == "from the child"
    host.end(url)


def test_a_forked_child_is_told_that_flight_ends_there(host: Host) -> None:
    url = host.make(16 << 20, "flight")
    with fs.connect(url, map=False) as store:
        store.put(b"mine", "mine")
        with pytest.raises(fs.FlightStoreError, match="fork"):
            child(store.get, "mine")
        assert store.contains("mine")
    host.end(url)


def test_a_forked_child_connects_where_http_is_offered(host: Host) -> None:
    """It knows from its parent where that is."""
    url = host.make(16 << 20, "both")
    fs.connect(url, map=False).close()

    def work() -> bool:
        with fs.connect(url, map=False) as store:
            return store.contains("nothing")

    assert child(work) is False
    host.end(url)


def test_objects_and_batches_travel(host: Host) -> None:
    """As their gateway and id; never with a token."""
    import pickle

    url = host.make(16 << 20)
    with fs.connect(url, map=False, token="writer") as store:
        store.put(np.arange(10), "a")
        raw = pickle.dumps(store.get("a"))
        assert b"writer" not in raw
        assert (pickle.loads(raw).value() == np.arange(10)).all()
        batch = store.new_batch(timeout=60)
        joined = pickle.loads(pickle.dumps(batch))
        with joined.activate():
            joined.store.put(b"", "in batch")
        assert b"writer" not in pickle.dumps(batch)
        assert "in batch" in store
        batch.end()
        assert "in batch" not in store
        with pytest.raises(TypeError):
            pickle.dumps(fs.remote.address.Credentials("secret"))  # type: ignore[attr-defined]
        assert start_spawned(total, raw).result() == 45
        store.delete("a")
        with pytest.raises(fs.ObjectNotFound):
            pickle.loads(raw)
    host.end(url)


def test_auto_finds_http(host: Host) -> None:
    from flightstore.remote.flight import FlightTransport
    from flightstore.remote.http import HttpTransport

    url = host.make(16 << 20, "both")
    for option, kind in (("auto", HttpTransport), ("http", HttpTransport), ("flight", FlightTransport)):
        with fs.connect(url, map=False, transport=option) as store:
            assert type(store._shared.transport) is kind  # type: ignore[attr-defined]
            store.put(np.arange(300_000), "a")
            assert store.get("a").value().sum() == sum(range(300_000))  # type: ignore[attr-defined]
    with pytest.raises(fs.InvalidArgument, match="transport"):
        fs.connect(url, transport="carrier pigeon")
    host.end(url)
