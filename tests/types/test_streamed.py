"""The conformance suite for what arrives in pieces: tables batch by batch, and payloads as frames."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.gateway.incoming import FrameUpload, TableUpload
from flightstore.lifecycle.streaming import TableWriter
from flightstore.memory.copying import copy_pieces
from flightstore.objects.ipc import expressible
from flightstore.objects.registry import encode
from flightstore.wire.frames import FrameHeader
from flightstore.wire.messages import PutCommand

from .test_composed import Composing
from .test_local import LocalSuite


def header_and_bytes(value: Any, **options: Any) -> tuple[FrameHeader, bytes]:
    """A value as our own client sends it."""
    payload = encode(value)
    memory = np.zeros(payload.size_bytes + 1, np.uint8)
    copy_pieces(memory.ctypes.data, payload.size_bytes, payload.pieces)
    header = FrameHeader(
        kind=payload.kind,
        size_bytes=payload.size_bytes,
        layout=payload.layout,
        num_rows=payload.num_rows,
        origin=payload.origin,
        **options,
    )
    return header, memory[: payload.size_bytes].tobytes()


def chunk_rows(table: pa.Table) -> int:
    """Rows of a batch: few, and not too many batches."""
    return max(3, table.num_rows // 40)


class Streaming(Composing):
    """What is no table has no other way than the plain one."""

    test_numpy: Any = None
    test_generated_numpy_arrays: Any = None


class Written(Streaming):
    """Every batch of three rows becomes a part of its own."""

    group_bytes: ClassVar[int] = 1

    def made(self, table: pa.Table) -> fs.Object | None:
        with TableWriter(self.store._conn, 0, table.schema, "made", group_bytes=self.group_bytes) as writer:
            for batch in table.to_batches(max_chunksize=chunk_rows(table)):
                writer.write(batch)
        return self.store.get("made")


class Gathered(Written):
    """Some batches share a part."""

    group_bytes = 4096


class Uploaded(Streaming):
    """Batches that arrived as an Arrow stream, every kind of table."""

    def made(self, table: pa.Table) -> fs.Object | None:
        expressible(table.schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=chunk_rows(table))
        reader = pa.ipc.open_stream(sink.getvalue())
        with TableUpload(self.store, PutCommand(name="made"), reader.schema) as upload:
            for batch in reader:
                upload.write(batch)
            upload.finish()
        return self.store.get("made")


class Framed(LocalSuite):
    """Payloads that are checked where they were received."""

    max_examples = 60

    def transfer(self, value: Any) -> Any:
        header, raw = header_and_bytes(value)
        with FrameUpload(self.store, header) as upload:
            upload.target[:] = raw
            upload.finish()
        try:
            return self.store.get(upload.id).value()
        finally:
            self.store.delete(upload.id)


TestWritten = pytest.mark.req("TYP-1")(Written)
TestGathered = pytest.mark.req("TYP-1")(Gathered)
TestUploaded = pytest.mark.req("TYP-1", "GW-2")(Uploaded)
TestFramed = pytest.mark.req("TYP-1", "GW-2")(Framed)
