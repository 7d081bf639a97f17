"""Reading from and writing to S3, on an S3-compatible server on this machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import s3fs

import flightstore as fs
from flightstore.connectors import sources
from flightstore.testing.events import wait_for_file

pytestmark = [pytest.mark.req("O-4"), pytest.mark.slow]

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(server.get_host_and_port()[1]))
import os
os.rename(sys.argv[1] + ".new", sys.argv[1])
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Where a server listens; it has a bucket named ``bucket``."""
    with tempfile.TemporaryDirectory() as folder:
        port = Path(folder, "port")
        command = [sys.executable, "-W", "ignore", "-c", SERVER, str(port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
            wait_for_file(port, timeout_s=60)
            address = f"127.0.0.1:{port.read_text()}"
            s3fs.S3FileSystem(**options(address)).mkdir("bucket")
            yield address
            server.kill()


def options(endpoint: str) -> dict[str, Any]:
    return {"key": "access-key", "secret": "secret", "endpoint_url": f"http://{endpoint}"}


def test_by_fsspec(store: fs.Store, table: pa.Table, endpoint: str) -> None:
    given = {"storage_options": options(endpoint)}
    stored = store.get(store.put(table))
    done = sources.write(stored, "s3://bucket/one/f.parquet", row_group_size=5000, **given)
    assert done.files == ("s3://bucket/one/f.parquet",)
    assert sources.read("s3://bucket/one/f.parquet", store=store, **given).to_arrow().equals(table)
    with pytest.raises(sources.FileTaken):
        sources.write(stored, "s3://bucket/one/f.parquet", **given)
    sources.write(stored, "s3://bucket/many", partition_by="kind", **given)
    found = sources.read("s3://bucket/many", store=store, columns=["id", "kind"], **given).to_arrow()
    assert found.num_rows == table.num_rows
    assert sorted(found["kind"].unique().to_pylist()) == [f"kind {number}" for number in range(5)]


def test_by_arrow(store: fs.Store, table: pa.Table, endpoint: str) -> None:
    url = f"s3://access-key:secret@bucket/arrow/f.csv.gz?endpoint_override={endpoint}&scheme=http&region=us-east-1"
    value = table.select(["id", "s"])
    sources.write(value, url, format="csv.gz")
    assert sources.read(url, store=store, format="csv.gz").to_arrow().equals(value)
