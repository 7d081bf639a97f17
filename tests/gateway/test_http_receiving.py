"""Large uploads, which are received past aiohttp: the same answers, however the bytes come."""

from __future__ import annotations

import contextlib
import http.client
import io
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightstore.gateway.access import Caller
from flightstore.gateway.http_receiving import LARGE_BYTES, head_of
from flightstore.gateway.limits import Limits
from flightstore.testing.http_gateway import Callers, HttpGateway, http_gateway
from flightstore.wire.frames import FrameHeader, packed

IDLE_S = 0.5
LATE_S = 30
"""Long after IDLE_S, however busy the machine is, and long before clients are given up by default."""
BODY = np.random.default_rng(1).bytes(LARGE_BYTES + 12_345)
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def gateway(store_dir: Path) -> Iterator[HttpGateway]:
    with http_gateway(store_dir) as running:
        yield running


@pytest.fixture
def impatient(store_dir: Path) -> Iterator[HttpGateway]:
    """One whose clients may do nothing for IDLE_S only."""
    with http_gateway(store_dir, limits=Limits(idle_timeout_s=IDLE_S)) as running:
        yield running


def until(condition: object, seconds: float = LATE_S) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.01)
    return False


def put(path: str, body: bytes, kind: str = "application/octet-stream", more: str = "") -> bytes:
    head = (
        f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def frame(body: bytes = BODY) -> bytes:
    return put("/frames", packed(FrameHeader(kind=3, size_bytes=len(body), name="x")) + body)


def status(sock: socket.socket) -> int:
    """Read one answer, and not a byte of the next one."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise http.client.RemoteDisconnected(f"the connection ended after {head!r}")
        head += byte
    answer = http.client.parse_headers(io.BytesIO(head.partition(b"\r\n")[2]))
    left = int(answer.get("Content-Length", "0"))
    while left:
        left -= len(sock.recv(left))
    return int(head.split()[1])


def table(rows: int = 300_000) -> pa.Table:
    return pa.table({"a": np.arange(rows), "s": [f"text {n}" for n in range(rows)]})


def stream(rows: int = 300_000) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table(1).schema) as writer:
        writer.write_table(table(rows), rows // 3)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("seed", range(8))
def test_however_the_bytes_are_cut(gateway: HttpGateway, seed: int) -> None:
    """One connection, plain and large requests in turn, sent in pieces of any size."""
    dice = random.Random(seed)
    uploads = {
        "blob": put("/objects/blob", BODY),
        "x": frame(),
        "table": put("/objects/table", stream(), "application/vnd.apache.arrow.stream"),
    }
    with gateway.socket() as sock:
        for name in dice.sample([*uploads, "", ""], 5):
            data = uploads.get(name, HEALTH)
            at = 0
            while at < len(data):
                step = dice.choice([1, 7, 100, 5000, 70_000, 300_000, len(data)])
                sock.sendall(data[at : at + step])
                at += step
            assert status(sock) in (200, 201)
    for name in ("blob", "x"):
        with gateway.store.get(name) as stored:
            assert bytes(stored.value()) == BODY
    with gateway.store.get("table") as stored:
        assert stored.to_arrow().equals(table())


def test_they_are_received_past_aiohttp(gateway: HttpGateway) -> None:
    data = frame()
    with gateway.socket() as sock:
        sock.sendall(HEALTH)
        assert status(sock) == 200
        (connection,) = gateway.server._context.connections._of.values()
        for _ in range(3):
            sock.sendall(data[:1000])
            assert until(lambda: connection.incoming is not None)
            sock.sendall(data[1000:])
            assert status(sock) == 200
            assert until(lambda: connection.incoming is None)
    counted = 'flightstore_received_bytes_total{kind="http PUT /frames"} '

    def received() -> float:
        (line,) = [line for line in gateway.metrics.text().decode().splitlines() if line.startswith(counted)]
        return float(line.removeprefix(counted))

    # The last one is counted right after it was answered.
    assert until(lambda: received() == 3 * len(data.partition(b"\r\n\r\n")[2])), received()


def test_pipelined_requests(gateway: HttpGateway) -> None:
    with gateway.socket() as sock:
        sock.sendall(HEALTH + HEALTH + frame() + HEALTH)
        assert [status(sock) for _ in range(4)] == [200] * 4
    with gateway.socket() as sock:
        sock.sendall(frame() + HEALTH + frame())
        assert [status(sock) for _ in range(3)] == [200] * 3


@pytest.mark.req("GW-6")
@pytest.mark.parametrize("share", [0.0, 0.1, 0.999999])
@pytest.mark.parametrize("data", [frame(), put("/objects/x", BODY), put("/objects/x", stream(60_000), "")])
def test_what_breaks_off_or_stalls_leaves_nothing(impatient: HttpGateway, data: bytes, share: float) -> None:
    gateway = impatient
    head = data.index(b"\r\n\r\n") + 4
    part = data[: head + int((len(data) - head) * share)]
    for stalls in (False, True):
        with contextlib.ExitStack() as stack:
            with gateway.standing_still():
                sock = stack.enter_context(gateway.socket())
                sock.sendall(part)
            if stalls:
                assert status(sock) == 408
        assert until(lambda: gateway.server._context.uploads == 0)
        assert until(lambda: len(gateway.server._context.connections) == 0)
    assert until(lambda: gateway.store.stats().pending == 0)
    assert gateway.store.list() == []
    assert gateway.store.fsck() == []


@pytest.mark.req("GW-6")
def test_what_is_refused_is_not_taken_for_requests(store_dir: Path) -> None:
    callers = Callers({"Bearer r": Caller("r", "read"), "Bearer w": Caller("w", "write")})
    evil = (b"DELETE /objects/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer w\r\n\r\n" * 20_000)[: len(BODY)]
    with http_gateway(store_dir, callers=callers) as gateway:
        gateway.store.put(b"1", name="x")
        with gateway.socket() as sock:
            sock.sendall(put("/objects/y", evil, more="Authorization: Bearer r\r\n"))
            assert status(sock) == 403
            sock.sendall(put("/nowhere", evil, more="Authorization: Bearer w\r\n"))
            assert status(sock) == 404
            sock.sendall(put("/objects/y", evil, more="Authorization: Bearer w\r\n"))
            assert status(sock) == 201
            sock.sendall(HEALTH)
            assert status(sock) == 200
        assert gateway.store.contains("x")
        with gateway.store.get("y") as stored:
            assert bytes(stored.value()) == evil


def test_a_full_store_says_so_and_the_connection_lives(store_dir: Path) -> None:
    with http_gateway(store_dir, capacity="4MiB") as gateway:
        large = np.zeros(8 << 20, np.uint8).tobytes()
        with gateway.socket() as sock:
            sock.sendall(put("/objects/y", large))
            assert status(sock) == 507
            sock.sendall(HEALTH)
            assert status(sock) == 200


def test_an_upload_is_cut_off_when_the_server_stops(gateway: HttpGateway) -> None:
    with gateway.socket() as sock:
        sock.sendall(frame()[:500_000])
        assert until(lambda: gateway.store.stats().pending == 1)
        begin = time.monotonic()
        gateway.server.stop(0.1)
        assert time.monotonic() - begin < LATE_S
    assert until(lambda: gateway.store.stats().pending == 0 or bool(gateway.store.recover()))
    assert gateway.store.fsck() == []


# --- heads ---

FIELDS = st.sampled_from(
    [
        b"Content-Length: 2000000",
        b"content-length:2000000",
        b"Content-Length: +2000000",
        b"Content-Length: 2_000_000",
        b"Content-Length : 2000000",
        b"Content-Length: 2000000, 2000000",
        b"Transfer-Encoding: chunked",
        b"Upgrade: x",
        b"Expect: 100-continue",
        b" folded",
        b"X-\xff: y",
        b"X: \xff",
        b"X:",
        b"Host: x",
    ]
)


@given(st.sampled_from([b"PUT", b"GET", b"put"]), st.lists(FIELDS, max_size=4), st.binary(max_size=5))
def test_only_plain_heads_are_changed(method: bytes, fields: list[bytes], rest: bytes) -> None:
    lines = [method + b" /frames HTTP/1.1", *fields, b"", b""]
    data = b"\r\n".join(lines) + rest
    head = head_of(data)
    good = [b"Content-Length: 2000000", b"content-length:2000000"]
    plain = all(field in (*good, b"X:", b"Host: x") for field in fields) and method != b"put"
    lengths = sum(field in good for field in fields)
    if not plain or lengths > 1:
        assert head is None
        return
    assert head is not None
    assert head.size_bytes == len(data) - len(rest)
    assert head.body_bytes == 2_000_000 * lengths
    if method == b"PUT" and lengths:
        changed = [b"Content-Length: 0" if field in good else field for field in fields]
        assert head.without_body == b"\r\n".join([lines[0], *changed, b"", b""])
    else:
        assert head.without_body is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_none(data: bytes) -> None:
    with contextlib.suppress(AttributeError):
        assert head_of(data).size_bytes <= len(data)  # type: ignore[union-attr]
