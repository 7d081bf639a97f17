"""Rows of the crash table for tables that are written batch by batch.

Importing this module fills `OPERATIONS`, as crashtable.py does for the rest.
"""

from __future__ import annotations

import pyarrow as pa

from flightstore.lifecycle.streaming import TableWriter
from flightstore.store import Store
from flightstore.testing.crashscenes import Scene
from flightstore.testing.crashtable import SMALL, Act, register_act

__all__ = ["BATCHES", "begin_stream"]

GROUP_BYTES = 20_000
"""Small enough that a few batches are many parts."""
BATCHES = [
    pa.record_batch({"n": range(at, at + 50), "s": [f"{row:0{width}}" for row in range(at, at + 50)]})
    for at, width in ((0, 100), (50, 300), (100, 100), (150, 250), (200, 100), (250, 300), (300, 100))
]
"""Some go by themselves, some are gathered; eight extents and more are folded."""
ROWS = {name: [value for batch in BATCHES for value in batch[name].to_pylist()] for name in ("n", "s")}
LONG = {"long": "m" * 1_000}
"""Metadata that lie in the extent."""


def begin_stream(store: Store, name: str) -> TableWriter:
    """A table of BATCHES that is yet to be written, in small parts."""
    schema = BATCHES[0].schema
    return TableWriter(store._conn, store._session, schema, name, metadata=LONG, group_bytes=GROUP_BYTES)


def _write(store: Store, name: str, times: int = 1) -> TableWriter:
    writer = begin_stream(store, name)
    for batch in BATCHES * times:
        writer.write(batch)
    return writer


def _seal(store: Store) -> None:
    _write(store, "new").seal()


def _seal_over(store: Store) -> None:
    _write(store, "held", 2).seal()


def _abort(store: Store) -> None:
    _write(store, "new").abort()


def _forget(store: Store) -> None:
    """A writer that is dropped unsealed is aborted by the next write."""
    writer = _write(store, "new")
    del writer
    store.put(SMALL, "small")


def _written(store: Store, scene: Scene) -> None:
    _write(store, "made", 2).seal()
    scene.before["made"] = {name: values * 2 for name, values in ROWS.items()}


def _delete(store: Store) -> None:
    store.delete("made")
    store.recover()


TWICE = {name: values * 2 for name, values in ROWS.items()}

register_act(Act("stream", _seal, {"new": ROWS}))
register_act(Act("stream-overwrite", _seal_over, {"held": TWICE}))
register_act(Act("stream-abort", _abort))
register_act(Act("stream-forget", _forget, {"small": SMALL}))
register_act(Act("stream-delete", _delete, deletes=("made",), arrange=_written))
