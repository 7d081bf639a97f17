"""An upload's private memory does not grow with the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.gateway.incoming import TableUpload
from flightstore.testing.children import spawned
from flightstore.wire.messages import PutCommand

pytestmark = [pytest.mark.slow, pytest.mark.req("GW-2")]

MIB = 1 << 20
TABLE_BYTES = 512 * MIB


def private_bytes() -> int:
    """Memory of this process that no other has, and no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise AssertionError("the kernel tells no RssAnon")


def upload(path: str, message_bytes: int) -> int:
    """Upload a table in messages of this size, each in memory of its own; by how much private memory grew."""
    rows = message_bytes // 16
    batch = pa.record_batch({"x": np.random.default_rng(1).random(rows), "n": np.arange(rows)})
    message = batch.serialize()
    store = fs.connect(path)
    start = highest = private_bytes()
    with TableUpload(store, PutCommand(name="t"), batch.schema) as uploading:
        for _ in range(TABLE_BYTES // message_bytes):
            received = pa.py_buffer(message.to_pybytes())
            uploading.write(pa.ipc.read_record_batch(received, batch.schema))
            highest = max(highest, private_bytes())
        uploading.finish()
    assert store.get("t").num_rows == rows * (TABLE_BYTES // message_bytes)
    store.close()
    return highest - start


@pytest.mark.parametrize(
    "message_bytes", [MIB // 64, 2 * MIB, 32 * MIB], ids=lambda size: f"{size >> 10} KiB"
)
def test_private_memory(store_dir: Path, message_bytes: int) -> None:
    with fs.connect(store_dir, capacity=TABLE_BYTES + 64 * MIB) as store:
        grown = spawned(upload, str(store_dir), message_bytes)
        print(f"{message_bytes >> 10} KiB messages: private memory grew by {grown / MIB:.1f} MiB")
        assert grown < 128 * MIB
        store.destroy()
