"""The server's own memory stays flat, whatever comes and goes."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flightstore.testing.http_gateway import HttpClient

MIB = 1 << 20
SERVER = """
import sys
from flightstore.testing.http_gateway import http_gateway
with http_gateway(sys.argv[1], capacity="256MiB") as gateway:
    print(gateway.port, flush=True)
    sys.stdin.readline()
"""


class Served:
    """A server in a process of its own."""

    def __init__(self, store_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(store_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def private_bytes(self) -> int:
        """What it has that is not shared."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
        raise AssertionError

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[int]]:
        """How much more it takes in the block than before, at most."""
        before, ended = self.private_bytes(), threading.Event()
        most = [0]

        def watch() -> None:
            while not ended.wait(0.005):
                most[0] = max(most[0], self.private_bytes() - before)

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield most
        finally:
            ended.set()
            watching.join()


@pytest.fixture
def served(store_dir: Path) -> Iterator[Served]:
    running = Served(store_dir)
    yield running
    running.process.communicate("\n", timeout=60)


@pytest.fixture
def ask(served: Served) -> Iterator[HttpClient]:
    client = HttpClient(http.client.HTTPConnection("127.0.0.1", served.port, timeout=60))
    yield client
    client.close()


def stream(nbytes: int, batch_bytes: int) -> Iterator[bytes]:
    """An Arrow stream, made while it is sent."""
    batch = pa.record_batch({"a": np.arange(batch_bytes // 8)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    whole = sink.getvalue().to_pybytes()
    head = pa.ipc.read_message(pa.BufferReader(whole)).serialize().size
    yield whole[:head]
    for _ in range(nbytes // batch_bytes):
        yield whole[head:-8]
    yield whole[-8:]


@pytest.mark.req("GW-2", "GW-6")
def test_an_upload_of_any_length(served: Served, ask: HttpClient) -> None:
    ask("PUT", "/objects/warm", stream(8 * MIB, 4 * MIB))
    with served.watched() as most:
        put = ask("PUT", "/objects/large", stream(192 * MIB, 4 * MIB))
    assert (put.status, put.json["num_rows"]) == (201, 192 * MIB // 8)
    assert most[0] < 48 * MIB


@pytest.mark.req("GW-6")
def test_downloads(served: Served, ask: HttpClient) -> None:
    ask("PUT", "/objects/large", stream(96 * MIB, 4 * MIB))
    with served.watched() as most:
        for path in ("/objects/large", "/objects/large?offset=1", "/frames/large"):
            assert len(ask("GET", path).body) > 95 * MIB
    assert most[0] < 24 * MIB


@pytest.mark.req("GW-6")
def test_a_thousand_connections_that_do_nothing(served: Served, ask: HttpClient) -> None:
    ask("GET", "/health")
    with served.watched() as most, contextlib.ExitStack() as stack:
        for _ in range(990):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            sock.sendall(b"GET /health HTTP/1.1\r\nX: ")
        assert ask("GET", "/health").status == 200
    assert most[0] < 48 * MIB
