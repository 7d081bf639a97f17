"""A slow reader by Flight gets the original values, every one, while the table is deleted and its memory used
again. Over HTTP: test_http_slow_readers.py.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.gateway.flight import FlightServer
from flightstore.gateway.service import Service

from .conftest import Everybody
from .slowreading import hear, here, is_free, overwrite, say, until, way_by

MIB = 1 << 20
READER = "slow_flight_reader.py"


def capacity(mebibytes: int) -> str:
    return f"{mebibytes * 3 // 2 + 8}MiB"


def put_precious(store: fs.Store, nbytes: int) -> str:
    """Store a column of random numbers; returns the checksum of them."""
    rows = nbytes // 8
    with store.create_table(
        pa.schema([pa.field("n", pa.int64(), nullable=False)]), rows, "precious"
    ) as table:
        values = np.asarray(table["n"])
        random = np.random.default_rng(nbytes)
        for at in range(0, rows, MIB):
            values[at : at + MIB] = random.integers(0, 1 << 62, len(values[at : at + MIB]))
        return hashlib.blake2b(values).hexdigest()


def read_slowly(store: fs.Store, nbytes: int, process: subprocess.Popen[str]) -> bool:
    """Store a table, have it read slowly while its memory is used again; whether that was what was stored."""
    wanted = put_precious(store, nbytes)
    say(process)
    assert hear(process) == ["begun"]
    store.delete("precious")
    overwrite(store, max(nbytes // 16, 64 << 10))
    say(process)
    rows, checksum = hear(process)
    assert int(rows) == nbytes // 8
    assert until(lambda: is_free(store), 60)
    return checksum == wanted


@pytest.mark.req("GW-2", "INV-1")
@pytest.mark.parametrize(
    ("mebibytes", "way"),
    [
        (4, "loopback"),
        pytest.param(4, "veth", marks=pytest.mark.needs("network")),
        pytest.param(1024, "loopback", marks=[pytest.mark.slow, pytest.mark.alone]),
        pytest.param(1024, "veth", marks=[pytest.mark.slow, pytest.mark.alone, pytest.mark.needs("network")]),
    ],
)
def test_a_slow_reader_gets_the_original(store_dir: Path, mebibytes: int, way: str) -> None:
    with way_by(way) as (address, before), fs.connect(store_dir, capacity=capacity(mebibytes)) as store:
        service = Service(fs.connect(store_dir))
        server = FlightServer(service, Everybody(), f"grpc://{address}:0")
        try:
            with here(READER, address, server.port, before=before) as process:
                assert read_slowly(store, mebibytes * MIB, process)
        finally:
            assert server.stop(10)
            service.close()
