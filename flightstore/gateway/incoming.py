"""Stand-in until the real one lands."""

from __future__ import annotations

from typing import Any, Self

import pyarrow as pa

from flightstore.objects.base import Payload
from flightstore.store.local import Store
from flightstore.types import ObjectID
from flightstore.wire.frames import FrameHeader
from flightstore.wire.messages import PutCommand, unpack


class _Upload:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.abort()

    def abort(self) -> None:
        pass


class TableUpload(_Upload):
    def __init__(self, store: Store, command: PutCommand, schema: pa.Schema, **limits: Any) -> None:
        self.store, self.command, self.schema = store, command, schema
        self.batches: list[pa.RecordBatch] = []

    def write(self, batch: pa.RecordBatch) -> None:
        batch.validate(full=True)
        self.batches.append(batch)

    def finish(self) -> ObjectID:
        command = self.command
        return self.store.put(
            pa.Table.from_batches(self.batches, self.schema),
            command.name,
            object_id=command.object_id,
            metadata=command.users_metadata,
            evictable=command.evictable,
            timeout=command.timeout_s,
        )


class FrameUpload(_Upload):
    def __init__(self, store: Store, header: FrameHeader, **limits: Any) -> None:
        self.store, self.header = store, header
        self.memory = bytearray(header.size_bytes)
        self.target = memoryview(self.memory)

    def finish(self) -> ObjectID:
        from flightstore.lifecycle import sealing
        from flightstore.lifecycle.sealing import new_object

        h, pieces = self.header, [(0, bytes(self.memory))]
        payload = Payload(h.kind, h.layout, h.size_bytes, pieces, h.num_rows, None, h.origin)
        wanted = ObjectID.from_text(h.id) if h.id else None
        new = new_object(self.store._session, payload, h.name, wanted, unpack(h.metadata_raw))
        sealing.put(self.store._conn, (new,), None)
        return new.id
