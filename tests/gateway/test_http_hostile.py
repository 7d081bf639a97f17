"""Malformed, truncated, oversized, slow and unauthorised HTTP clients; and that others are served on."""

from __future__ import annotations

import contextlib
import gc
import json
import random
import re
import socket
import string
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from flightstore.errors import InvalidArgument
from flightstore.gateway.access import Caller
from flightstore.gateway.http_answers import put_command, ticket_of
from flightstore.gateway.limits import Limits
from flightstore.testing.http_gateway import Callers, HttpClient, HttpGateway, http_gateway
from flightstore.wire.frames import FrameHeader, packed

STREAM = {"Content-Type": "application/vnd.apache.arrow.stream"}
BLOB = {"Content-Type": "application/octet-stream"}
IDLE_S = 0.5
LATE_S = 25
"""Long after IDLE_S, however busy the machine is, and long before clients are given up by default, and before
those who wait for an object have waited enough.
"""
LIMITS = Limits(max_connections=8, max_uploads=2, max_batch_bytes=1 << 20)


@pytest.fixture
def gateway(store_dir: Path) -> Iterator[HttpGateway]:
    with http_gateway(store_dir, limits=LIMITS) as running:
        yield running


@pytest.fixture
def impatient(store_dir: Path) -> Iterator[HttpGateway]:
    """One whose clients may do nothing for IDLE_S only: they connect and ask while it stands still."""
    with http_gateway(store_dir, limits=replace(LIMITS, idle_timeout_s=IDLE_S)) as running:
        yield running


@pytest.fixture
def ask(gateway: HttpGateway) -> Iterator[HttpClient]:
    client = gateway.client()
    yield client
    client.close()


def until(condition: object, seconds: float = LATE_S) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.01)
    return False


def everything(sock: socket.socket) -> bytes:
    """All that the server says until it closes."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(1 << 16):
            said += piece
    return said


def stream(rows: int = 1000, batches: int = 3) -> bytes:
    sink = pa.BufferOutputStream()
    batch = pa.record_batch({"a": np.arange(rows), "s": [f"text {n}" for n in range(rows)]})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for _ in range(batches):
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


@contextlib.contextmanager
def said_at_once(gateway: HttpGateway, said: bytes, **options: Any) -> Iterator[socket.socket]:
    """A connection by which all this has come when the server sees it."""
    with contextlib.ExitStack() as stack:
        with gateway.standing_still():
            sock = stack.enter_context(gateway.socket(**options))
            with contextlib.suppress(OSError):  # a server that refuses it need not hear all
                sock.sendall(said)
        yield sock


def serves(gateway: HttpGateway, path: str = "/health") -> bool:
    """Whether it answers a new client."""
    with said_at_once(gateway, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as sock:
        return sock.recv(1000).startswith(b"HTTP/1.1 200 ")


def began(gateway: HttpGateway) -> bool:
    """Whether a request is being served that keeps something, or was: it may be over by now."""
    leases, uploads = gateway.store.stats().leases, gateway.server._context.uploads
    return bool(leases or uploads) or b'kind="http' in gateway.metrics.text()


def assert_nothing_stored(gateway: HttpGateway) -> None:
    assert until(lambda: gateway.store.stats().pending == 0)
    assert gateway.store.list() == []
    assert until(lambda: gateway.store.stats().used_bytes == 0 or bool(gateway.store.recover().freed_bytes))
    assert gateway.store.fsck() == []


# --- too many ---


@pytest.mark.req("GW-6")
def test_connections_beyond_the_limit_are_refused_at_once(gateway: HttpGateway) -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(gateway.socket()) for _ in range(8)]
        assert until(lambda: len(gateway.server._context.connections) == 8)
        refused = stack.enter_context(gateway.socket())
        refused.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        said = everything(refused)
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in said
        assert json.loads(said.partition(b"\r\n\r\n")[2])["error"] == "GatewayBusy"
        socks[0].sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert socks[0].recv(1000).startswith(b"HTTP/1.1 200 ")
        socks[1].close()
        assert until(lambda: len(gateway.server._context.connections) < 8)
        assert gateway.client()("GET", "/health").status == 200


@pytest.mark.req("GW-6")
def test_uploads_beyond_the_limit_are_refused(store_dir: Path) -> None:
    with http_gateway(store_dir, limits=Limits(max_uploads=1)) as gateway:
        head = b"PUT /objects/x HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        with gateway.socket() as slow:
            slow.sendall(head + b"Content-Length: 10\r\n\r\n12345")
            assert until(lambda: gateway.server._context.uploads == 1)
            refused = gateway.client()("PUT", "/objects/y", b"1", BLOB)
            assert (refused.status, refused.json["error"]) == (503, "GatewayBusy")
            slow.sendall(b"67890")
            assert slow.recv(1000).startswith(b"HTTP/1.1 201 ")
        assert gateway.client()("PUT", "/objects/y", b"1", BLOB).status == 201


# --- too slow ---


@pytest.mark.req("GW-6")
@pytest.mark.parametrize("said", [b"", b"GET /hea", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_that_does_not_end_is_cut_off(impatient: HttpGateway, said: bytes) -> None:
    with said_at_once(impatient, said) as sock:
        begin = time.monotonic()
        everything(sock)
        assert time.monotonic() - begin < LATE_S


@pytest.mark.req("GW-6")
def test_trickling_headers_do_not_keep_a_connection(impatient: HttpGateway) -> None:
    with said_at_once(impatient, b"GET / HTTP/1.1\r\n") as sock:
        begin = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - begin < LATE_S:
                sock.sendall(b"X-A: b\r\n")
                time.sleep(IDLE_S / 5)
        assert time.monotonic() - begin < LATE_S


@pytest.mark.req("GW-6")
@pytest.mark.parametrize("path", ["/objects/x", "/frames"])
def test_a_body_that_stalls_is_given_up(impatient: HttpGateway, path: str) -> None:
    body = packed(FrameHeader(kind=3, size_bytes=1000, name="x")) if path == "/frames" else stream()[:1000]
    head = b"PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" % path.encode()
    with said_at_once(impatient, head + body) as sock:
        begin = time.monotonic()
        assert b" 40" in everything(sock)[:20]
        assert time.monotonic() - begin < LATE_S
    assert_nothing_stored(impatient)


@pytest.mark.req("GW-6")
@pytest.mark.parametrize("path", ["/objects/big", "/frames/big", "/frames/big?acknowledge=1"])
def test_a_reader_who_takes_nothing_is_given_up(impatient: HttpGateway, path: str) -> None:
    gateway = impatient
    gateway.store.put(bytes(32 << 20), name="big")
    said = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with said_at_once(gateway, said, receive_bytes=4096) as sock:
        assert until(lambda: began(gateway))
        assert until(lambda: gateway.store.stats().leases == 0), "the object is held for ever"
        assert until(lambda: len(gateway.server._context.connections) == 0)
        assert len(everything(sock)) < 32 << 20


@pytest.mark.req("GW-6")
def test_many_requests_whose_answers_nobody_takes(impatient: HttpGateway) -> None:
    gateway = impatient
    for number in range(100):
        gateway.store.put(b"1", name=f"some object with a long name {number}")
    with gateway.socket(receive_bytes=4096) as sock:
        with contextlib.suppress(OSError):
            sock.settimeout(1)
            sock.sendall(b"GET /objects HTTP/1.1\r\nHost: x\r\n\r\n" * 5000)
        assert until(lambda: began(gateway))
        assert until(lambda: len(gateway.server._context.connections) == 0)


def test_many_readers_who_take_nothing_hold_no_thread(gateway: HttpGateway) -> None:
    gateway.store.put(bytes(32 << 20), name="big")
    with contextlib.ExitStack() as stack:
        for _ in range(7):
            sock = stack.enter_context(gateway.socket(receive_bytes=4096))
            sock.sendall(b"GET /objects/big HTTP/1.1\r\nHost: x\r\n\r\n")
        client = gateway.client()
        assert client("GET", "/health").status == 200
        begin = time.monotonic()
        assert len(client("GET", "/objects/big").body) == 32 << 20
        assert time.monotonic() - begin < LATE_S


def test_an_unacknowledged_frame_is_let_go(impatient: HttpGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = impatient
    gateway.store.put(bytes(1 << 20), name="big")
    held: list[int] = []
    hold = gateway.server._frames._hold

    def counted(*arguments: Any) -> Any:
        made = hold(*arguments)
        held.append(gateway.store.stats().leases)
        return made

    monkeypatch.setattr(gateway.server._frames, "_hold", counted)
    with said_at_once(gateway, b"GET /frames/big?acknowledge=1 HTTP/1.1\r\nHost: x\r\n\r\n") as sock:
        head = everything(sock).partition(b"\r\n\r\n")[0].decode()
    assert held == [1]
    assert until(lambda: gateway.store.stats().leases == 0)
    token = re.findall("(?i)x-flightstore-acknowledge: (.*)", head)[0].strip()
    with said_at_once(
        gateway, f"POST /acknowledgements/{token} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    ) as sock:
        late = everything(sock)
    assert late.startswith(b"HTTP/1.1 404 ")
    assert json.loads(late.partition(b"\r\n\r\n")[2])["error"] == "ObjectNotFound"


def test_a_frame_is_let_go_with_its_connection(store_dir: Path) -> None:
    with http_gateway(store_dir) as gateway:
        gateway.store.put(bytes(1 << 20), name="big")
        client = gateway.client()
        token = client("GET", "/frames/big?acknowledge=1").headers["x-flightstore-acknowledge"]
        assert gateway.store.stats().leases == 1
        client.close()
        assert until(lambda: gateway.store.stats().leases == 0)
        assert gateway.client()("POST", f"/acknowledgements/{token}").status == 404


@pytest.mark.req("GW-6")
def test_waiting_requests_keep_nobody_from_being_served(store_dir: Path) -> None:
    with http_gateway(store_dir) as gateway:
        body = json.dumps({"refs": ["later"], "timeout_s": 30})
        clients = [gateway.client(60) for _ in range(50)]
        for client in clients:
            client.connection.request("POST", "/actions/wait", body)
        ask = gateway.client()
        assert until(lambda: gateway.server._context._waiting._count == 50)
        assert ask("POST", "/actions/contains", b'{"ref": "later"}').json["found"] is False
        assert gateway.server._context._waiting._count == 50, "all of them wait, still"
        gateway.store.put(b"1", name="later")
        for client in clients:
            assert json.loads(client.connection.getresponse().read())["ready"] == [True]
            client.close()


@pytest.mark.req("GW-8")
def test_stopping_does_not_wait_for_a_stalled_reader(store_dir: Path) -> None:
    with http_gateway(store_dir) as gateway:
        gateway.store.put(bytes(32 << 20), name="big")
        with gateway.socket(receive_bytes=4096) as sock, gateway.socket() as waiting:
            sock.sendall(b"GET /objects/big HTTP/1.1\r\nHost: x\r\n\r\n")
            body = b'{"refs": ["never"], "timeout_s": 30}'
            waiting.sendall(
                b"POST /actions/wait HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            assert until(lambda: gateway.store.stats().leases == 1)
            begin = time.monotonic()
            gateway.server.stop(0.5)
            assert time.monotonic() - begin < LATE_S
        assert until(lambda: gateway.store.stats().leases == 0)


# --- too much ---


@pytest.mark.req("GW-6")
@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 100_000), b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"x" * 100_000), b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5000 + b"\r\n", b"400"),
        (b"HELLO\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"GET /objects/%ff%fe%00 HTTP/1.1\r\nHost: x\r\n\r\n", b"40"),
        (b"PUT /objects/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"PUT /objects/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (
            b"PUT /objects/x HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
            b"415",
        ),
        (
            b"PUT /objects/x HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 1\r\n\r\nx",
            b"415",
        ),
    ],
)
def test_malformed_and_oversized_requests(impatient: HttpGateway, said: bytes, status: bytes) -> None:
    with said_at_once(impatient, said) as sock:
        answered = everything(sock)
        assert answered.partition(b" ")[2].startswith(status), answered[:200]
        assert b"Traceback" not in answered
        assert b".py" not in answered
    assert serves(impatient)
    assert_nothing_stored(impatient)


@pytest.mark.req("GW-6")
def test_a_batch_longer_than_the_limit_is_refused_unread(gateway: HttpGateway, ask: HttpClient) -> None:
    refused = ask("PUT", "/objects/x", stream(100_000, 1), STREAM)
    assert (refused.status, refused.json["error"]) == (400, "InvalidArgument")
    # What a message says about its length is not believed either.
    head = stream()[:8]
    lying = head[:4] + (1 << 30).to_bytes(4, "little") + stream()[8:]
    assert gateway.client()("PUT", "/objects/x", lying, STREAM).status == 400
    assert_nothing_stored(gateway)


@pytest.mark.req("GW-6")
def test_objects_longer_than_the_limit_are_refused(store_dir: Path) -> None:
    with http_gateway(store_dir, limits=Limits(max_object_bytes=100_000)) as gateway:
        for body, headers in ((stream(10_000), STREAM), (bytes(100_001), BLOB)):
            assert gateway.client()("PUT", "/objects/x", body, headers).status == 400
        assert_nothing_stored(gateway)


@pytest.mark.req("GW-6")
@pytest.mark.parametrize("kind", ["table", "blob", "frame"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99, 0.9999])
def test_an_upload_that_breaks_off_leaves_nothing(gateway: HttpGateway, kind: str, share: float) -> None:
    body = stream() if kind == "table" else bytes(100_000)
    if kind == "frame":
        body = packed(FrameHeader(kind=3, size_bytes=len(body), name="x")) + body
    path, mime = ("/frames", "x") if kind == "frame" else ("/objects/x", (STREAM, BLOB)[kind == "blob"])
    mime = mime if isinstance(mime, str) else mime["Content-Type"]
    head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {mime}\r\nContent-Length: {len(body)}\r\n\r\n"
    with gateway.socket() as sock:
        sock.sendall(head.encode() + body[: int(len(body) * share)])
    assert until(lambda: b'kind="http PUT' in gateway.metrics.text())
    assert_nothing_stored(gateway)


def test_bytes_behind_a_stream_are_refused(gateway: HttpGateway, ask: HttpClient) -> None:
    assert ask("PUT", "/objects/x", stream() + b"more", STREAM).status == 400
    assert_nothing_stored(gateway)


# --- not allowed ---


@pytest.mark.req("GW-5", "GW-6")
def test_rights_and_sessions(store_dir: Path) -> None:
    callers = Callers(
        {
            "Bearer all": Caller("all", "admin"),
            "Bearer reader": Caller("reader", "read"),
            "Bearer a": Caller("a", "write", ("a",)),
        }
    )
    with http_gateway(store_dir, callers=callers) as gateway:
        ask = gateway.client()

        def status(method: str, path: str, who: str, session: str | None = None) -> int:
            headers = {"Authorization": f"Bearer {who}"}
            if session is not None:
                headers["x-flightstore-session"] = quote(session)
            body = stream() if method == "PUT" else None
            return ask(method, path, body, headers).status

        gateway.store.put(stream(), name="x")
        refused = ask("GET", "/objects/x")
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        for path in ("/", "/metrics", "/objects", "/objects/x", "/frames/x"):
            assert status("GET", path, "nobody") == 401
            assert status("GET", path, "reader") == 200
        for method, path in (("PUT", "/objects/y"), ("DELETE", "/objects/x"), ("POST", "/actions/pin")):
            assert status(method, path, "reader") == 403
        assert status("PUT", "/frames", "reader") == 403
        assert status("GET", "/objects/x", "a") == 404
        assert status("GET", "/objects/x", "a", "b") == 403
        assert status("PUT", "/objects/mine", "a") == 201
        assert status("GET", "/objects/mine", "a", "a") == 200
        assert status("GET", "/objects/mine", "reader") == 404
        assert status("GET", "/objects/mine", "all", "a") == 200
        assert status("GET", "/health", "nobody") == 200


def test_references_to_memory_are_sent_to_those_only_who_may_read_all(store_dir: Path) -> None:
    callers = Callers({"Bearer a": Caller("a", "write", ("a",))})
    with http_gateway(store_dir, callers=callers) as gateway:
        ask, headers = gateway.client(), {"Authorization": "Bearer a"}
        assert ask("PUT", "/objects/x", bytes(1 << 20), {**headers, **BLOB}).status == 201
        got = ask("GET", "/frames/x?acknowledge=1", headers=headers)
        assert got.status == 200
        assert "x-flightstore-acknowledge" not in got.headers


def test_what_nobody_foresaw_is_not_told(gateway: HttpGateway, ask: HttpClient, caplog) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("a secret")

    gateway.service.act = fail  # type: ignore[method-assign]
    failed = ask("POST", "/actions/stat", b'{"ref": "x"}')
    assert (failed.status, failed.json["error"]) == (500, "InternalError")
    assert b"secret" not in failed.body
    assert "a secret" in caplog.text


# --- random ---


def mutated(whole: bytes, dice: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(dice.randint(1, 8)):
        at = dice.randrange(len(data))
        action = dice.randrange(4)
        if action == 0:
            data[at] = dice.randrange(256)
        elif action == 1:
            del data[at : at + dice.randint(1, 40)]
        elif action == 2:
            data[at:at] = dice.randbytes(dice.randint(1, 40))
        else:
            data = data[: max(at, 1)]
        if not data:
            return b"\n"
    return bytes(data)


def requests() -> list[bytes]:
    def put(path: str, body: bytes, kind: str = "") -> bytes:
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\n{kind}Content-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    table = stream(50, 2)
    frame = packed(FrameHeader(kind=3, size_bytes=100, name="f")) + bytes(100)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(table), table)
    act = b'{"ref": "x"}'
    large = bytes((1 << 20) + 5)
    return [
        put("/frames", packed(FrameHeader(kind=3, size_bytes=len(large), name="l")) + large),
        put("/objects/x?evictable=true", table, "Content-Type: application/vnd.apache.arrow.stream\r\n"),
        put("/objects/b", b"12345" * 9, "Content-Type: application/octet-stream\r\n"),
        put("/frames", frame),
        b"PUT /objects/c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
        b"GET /objects/orders?columns=a&offset=1&limit=5 HTTP/1.1\r\nHost: x\r\nRange: bytes=1-50\r\n\r\n",
        b"GET /frames/orders?acknowledge=1 HTTP/1.1\r\nHost: x\r\n\r\n" * 2,
        b"POST /actions/stat HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(act), act),
    ]


def throw(gateway: HttpGateway, count: int, seed: int) -> None:
    dice = random.Random(seed)
    whole = requests()
    for _ in range(count):
        with gateway.socket() as sock, contextlib.suppress(OSError):
            sock.sendall(mutated(dice.choice(whole), dice))
            sock.shutdown(socket.SHUT_WR)
            said = everything(sock)
            assert b"Traceback" not in said
            assert b" 500 " not in said[:20], said


def check_mutations(gateway: HttpGateway, count: int, seed: int) -> None:
    gateway.store.put(pa.table({"a": np.arange(1000)}), name="orders")
    threads = [threading.Thread(target=throw, args=(gateway, count // 2, seed + at)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert until(lambda: len(gateway.server._context.connections) == 0)
    assert serves(gateway, "/objects/orders")
    assert until(lambda: gateway.store.stats().pending == 0)
    assert until(lambda: gateway.store.stats().leases == 0)
    assert gateway.store.fsck() == []
    for one in gateway.store.list():
        with gateway.store.get(one.name or "") as stored:
            stored.value()


@pytest.mark.req("GW-6")
def test_mutated_requests(impatient: HttpGateway) -> None:
    check_mutations(impatient, 400, 1)


@pytest.mark.slow
@pytest.mark.req("GW-6")
def test_ten_thousand_mutated_requests(impatient: HttpGateway) -> None:
    check_mutations(impatient, 10_000, 2)


WORDS = "columns column offset limit partition partitions hydrate metadata evictable batch timeout_s id name"
NAMES = st.sampled_from([*WORDS.split(), ""])
NUMBERS = st.sampled_from(["1", "-1", "1e9", "nan", "true", "{}", "[" * 5000, "9" * 400])
VALUES = st.text(max_size=20) | NUMBERS
QUERIES = st.lists(st.tuples(NAMES, VALUES), max_size=5)
REFS = st.text(max_size=20) | st.from_regex("id:[0-9a-f]{0,40}", fullmatch=True)


@pytest.mark.req("GW-6")
@given(REFS, QUERIES)
def test_any_query_is_taken_or_refused(ref: str, pairs: list[tuple[str, str]]) -> None:
    for parse in (ticket_of, put_command):
        with contextlib.suppress(InvalidArgument):
            parse(ref, MultiDict(pairs))


@pytest.mark.req("GW-6")
def test_any_name_comes_through(gateway: HttpGateway, ask: HttpClient) -> None:
    dice = random.Random(3)
    alphabet = string.printable.replace("\x0b", "").replace("\x0c", "") + "äß漢字😀/%+&=?#;.."
    names = ["..", ".", "a/../b", "%2F", "a%20b", "/", "//", "a/", "?", "#", "+", " ", "x" * 400]
    names += ["".join(dice.choice(alphabet) for _ in range(dice.randint(1, 30))) for _ in range(100)]
    for name in names:
        if name.startswith("id:"):
            continue
        put = ask("PUT", f"/objects/{quote(name, safe='')}", name.encode(), BLOB)
        if put.status == 400:
            continue  # no name at all
        assert put.status == 201, (name, put)
        assert put.json["name"] == name
        assert ask("GET", f"/objects/{quote(name, safe='')}").body == name.encode()
        assert ask("DELETE", f"/objects/{quote(name, safe='')}").status == 204


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.req("GW-6")
@pytest.mark.parametrize("stalls", [False, True])
@pytest.mark.parametrize("what", ["blob", "frame", "table", "small", "get", "get frame", "get by reference"])
def test_memory_is_let_go_without_the_garbage_collector(
    impatient: HttpGateway, without_collector: None, what: str, stalls: bool
) -> None:
    """A reference that only a collection would end keeps memory for an unknown time."""
    gateway = impatient
    length = b"Content-Length: 4000000\r\n\r\n"
    head = b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n" + length
    frame = packed(FrameHeader(kind=3, size_bytes=4_000_000, name="x"))
    framed = length.replace(b"4000000", b"%d" % (len(frame) + 4_000_000))
    requests = {
        "blob": b"PUT /objects/x" + head + bytes(100_000),
        "small": b"PUT /objects/x" + head.replace(b"4000000", b"400000") + bytes(100_000),
        "frame": b"PUT /frames HTTP/1.1\r\nHost: x\r\n" + framed + frame + bytes(100_000),
        "table": b"PUT /objects/x HTTP/1.1\r\nHost: x\r\n" + length + stream(),
        "get": b"GET /objects/big HTTP/1.1\r\nHost: x\r\n\r\n",
        "get frame": b"GET /frames/big HTTP/1.1\r\nHost: x\r\n\r\n",
        "get by reference": b"GET /frames/big?acknowledge=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    }
    gateway.store.put(bytes(32 << 20), name="big")
    with said_at_once(gateway, requests[what], receive_bytes=4096):
        if stalls or what.startswith("get"):
            assert until(lambda: began(gateway))
        if stalls:
            assert until(lambda: len(gateway.server._context.connections) == 0)
    assert until(lambda: b'kind="http' in gateway.metrics.text())
    assert until(lambda: gateway.store.stats().pending == 0)
    assert until(lambda: gateway.store.stats().leases == 0)
