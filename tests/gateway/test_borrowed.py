"""Borrowed memory goes out right or not at all: its keepers may end in the middle of an answer."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight

import flightstore as fs
from flightstore.gateway.flight import FlightServer
from flightstore.testing.http_gateway import HttpGateway, http_gateway
from flightstore.testing.lenders import Lender

pytestmark = pytest.mark.req("O-5", "GW-3")

MIB = 1 << 20
ROWS = 6 * MIB  # 48 MiB: more than connections hold
TABLE = pa.table({"n": np.arange(ROWS)})


KEEPER = """
import sys, flightstore
store = flightstore.connect(sys.argv[1])
print(store.client_id, flush=True)
sys.stdin.read()
"""


class Lent:
    """A table that lies in a lender's memory, and the process that keeps it."""

    def __init__(self, store: fs.Store, path: Path) -> None:
        self.lender = Lender(str(path), 56 * MIB)
        command = [sys.executable, "-c", KEEPER, store.path]
        self.keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.keeper.stdout is not None
        number = int(self.keeper.stdout.readline())
        moved = self.lender.moved(TABLE)
        self.id = store.put_borrowed(moved, self.lender.loan([number]), "lent")
        assert store.get("lent").borrowed

    def lose(self) -> None:
        """The keeper dies, and the owner uses the memory for something else."""
        self.keeper.kill()
        self.keeper.communicate()
        self.lender.reuse()


@pytest.fixture
def lender_path(store_dir: Path) -> Iterator[Path]:
    path = store_dir.parent / f"{store_dir.name}-lender"
    yield path
    os.unlink(path)


@pytest.fixture
def gateway(store_dir: Path) -> Iterator[HttpGateway]:
    with http_gateway(store_dir) as made:
        yield made


@contextlib.contextmanager
def asked(gateway: HttpGateway, path: str) -> Iterator[http.client.HTTPResponse]:
    """A GET whose answer has begun, on a connection that holds little."""
    with gateway.socket(receive_bytes=64 << 10) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        with http.client.HTTPResponse(sock) as response:
            response.begin()
            yield response


def whole(gateway: HttpGateway, path: str) -> bytes:
    with asked(gateway, path) as response:
        assert response.status == 200
        return response.read()


def rest_of(response: http.client.HTTPResponse) -> bytes:
    """What comes until the connection ends, or there is no more."""
    data = bytearray()
    try:
        while piece := response.read1(MIB):
            data += piece
    except (ConnectionError, http.client.IncompleteRead):
        pass
    return bytes(data)


PATHS = ["/objects/lent", "/objects/lent?columns=n&offset=8", "/frames/lent", "/frames/lent?acknowledge=1"]


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_breaks_off_before_it_is_wrong(gateway: HttpGateway, lender_path: Path, path: str) -> None:
    lent = Lent(gateway.store, lender_path)
    right = whole(gateway, path)
    assert len(right) >= ROWS * 8 - 64
    with asked(gateway, path) as response:
        data = response.read(MIB)
        lent.lose()
        data += rest_of(response)
    assert MIB <= len(data) < len(right)
    assert data == right[: len(data)]
    with asked(gateway, path) as response:
        assert response.status == 410  # ObjectLost


def test_what_is_kept_goes_out_whole(gateway: HttpGateway, lender_path: Path) -> None:
    """And what was persisted in the middle of an answer: its reader keeps the loan."""
    lent = Lent(gateway.store, lender_path)
    with asked(gateway, "/objects/lent") as response:
        data = response.read(MIB)
        gateway.store.get("lent").persist()
        gateway.store.recover()
        assert len(gateway.store.loans()) == 1
        data += response.read()
    assert pa.ipc.open_stream(data).read_all().equals(TABLE)
    lent.lose()
    assert pa.ipc.open_stream(whole(gateway, "/objects/lent")).read_all().equals(TABLE)


def test_batches_end_before_they_are_wrong(store: fs.Store, server: FlightServer, lender_path: Path) -> None:
    lent = Lent(store, lender_path)
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        for ticket in (b"lent", b'{"name": "lent", "payload": true}'):
            assert len(client.do_get(flight.Ticket(ticket)).read_all()) > 0
        assert client.do_get(flight.Ticket(b"lent")).read_all().equals(TABLE)
        reader = client.do_get(flight.Ticket(b"lent"))
        rows = _check_rows(reader.read_chunk().data, 0)
        lent.lose()
        with pytest.raises(pa.ArrowKeyError, match="cannot be had any more") as caught:
            rows = _read_on(reader, rows)
        assert rows < ROWS
        del reader, caught


def _read_on(reader: Any, rows: int) -> int:
    while True:
        try:
            rows = _check_rows(reader.read_chunk().data, rows)
        except StopIteration:
            return rows


def _check_rows(batch: pa.RecordBatch, start: int) -> int:
    assert batch.column(0).equals(TABLE["n"].slice(start, len(batch)).combine_chunks())
    return start + len(batch)
