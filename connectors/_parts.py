"""One stored table of many parts, none of which need be in memory together: for connectors whose results come
piece by piece.

The parts are put in a batch of their own, so that they go with it, whatever happens; the table that is
composed of them is made outside of it, and shares their memory. Uses the public API alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flightstore.errors import BatchEnded

if TYPE_CHECKING:
    from flightstore.abc import AbstractBatch, AbstractStore
    from flightstore.objects.base import Object

__all__ = ["PART_BYTES", "grouped", "put_parts", "scratch_batch"]

PART_BYTES = 32 << 20
"""Record batches are gathered until they are so large together."""


@contextlib.contextmanager
def scratch_batch(store: AbstractStore, name: str) -> Iterator[AbstractBatch]:
    """A batch that is not current, and over at the end of the block: what is put while it is activated goes,
    what is composed of that stays.
    """
    batch = store.new_batch(name)
    try:
        yield batch
    finally:
        with contextlib.suppress(BatchEnded):
            batch.end()


def put_parts(
    store: AbstractStore, parts: Iterable[pa.Table], name: str | None, metadata: Any, timeout: float | None
) -> Object:
    """The table of all rows of at least one part, in their order; private memory holds one part at a time.

    Raises:
        As ``store.put``; nothing is left behind then.
    """
    with scratch_batch(store, "parts of a table") as batch:
        objects = []
        for part in parts:
            with batch.activate():
                objects.append(store.get(store.put(part, timeout=timeout)))
        return store.concat(objects, name=name, metadata=metadata, timeout=timeout)


def grouped(reader: pa.RecordBatchReader, part_bytes: int = PART_BYTES) -> Iterator[pa.Table]:
    """Tables of about `part_bytes` of a reader's batches; one without rows if there are none."""
    schema, batches, size, count = reader.schema, [], 0, 0
    for batch in reader:
        if not batch.num_rows:
            continue
        batches.append(batch)
        size += batch.nbytes
        if size >= part_bytes:
            yield pa.Table.from_batches(batches, schema)
            batches, size, count = [], 0, count + 1
    if batches or not count:
        yield pa.Table.from_batches(batches, schema)
