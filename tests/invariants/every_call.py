"""Every public call of a store, once, on the objects that `furnish` puts: for rules like "only X does Y".

`CALLS` names each public method and property of Store, but those that end the handle or the store. Who adds
one adds it here, and to the sets of those modules whose rule it is an exception of;
`test_every_call_is_listed` fails until then.

Invariants: a call returns what its user would hold. Whatever it deletes, frees or pins is ``victim`` or an
object of its own, never one that the test looks at (``watched``, and others put by the test). Calls that put
something ask for `ASKED` bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable

import pyarrow as pa

import flightstore as fs
from flightstore.testing.lenders import Lender

ASKED = 1 << 19
"""What every call asks for that puts something."""
PIECE = 1 << 18
"""An object of `fill`."""

TABLE = pa.table({"x": [1, 2, 3]})
COLUMN = pa.array(range(ASKED // 8), pa.int64())


def furnish(store: fs.Store) -> None:
    """Put what the calls work on."""
    store.put(TABLE, "watched")
    store.put(TABLE, "victim")
    store.put(pa.table({"y": COLUMN}), "long")


def fill(store: fs.Store, *, evictable: bool) -> set[str]:
    """Put objects of `PIECE` bytes until one more would not fit; returns their names."""
    names = set()
    while store.stats().free_bytes >= PIECE:
        name = f"piece {len(names):02}"
        store.put(bytes([len(names)]) * PIECE, name, evictable=evictable)
        names.add(name)
    return names


def _in_a_batch(store: fs.Store, end: Callable[[fs.Store, fs.AbstractBatch], object]) -> None:
    batch = store.new_batch()
    with batch.activate():
        store.put(b"")
    end(store, batch)


def _pass_on(store: fs.Store) -> None:
    batch = store.new_batch()
    with batch.activate():
        own = store.put(b"")
    store.transfer_ownership(own, None)
    batch.end()


def _build_table(store: fs.Store) -> object:
    return store.create_table(pa.schema([("x", pa.int64())]), ASKED // 8, "built table")


def _stream(store: fs.Store) -> None:
    with store.create_stream(pa.schema([("x", pa.int64())]), "streamed") as writer:
        writer.write(pa.record_batch([range(ASKED // 8)], ["x"]))


def _streams(store: fs.Store) -> None:
    writers = [store.create_stream(pa.schema([("x", pa.int64())])) for _ in range(2)]
    for writer in writers:
        writer.write(pa.record_batch([range(10)], ["x"]))
    store.seal_many(writers)


def _create_and_abort(store: fs.Store) -> None:
    builder = store.create(10)
    store.abort(builder.id)


def _session(store: fs.Store) -> None:
    with store.session("job") as session:
        session.put(b"", "watched")
        session.end()


def _called_back(register: Callable[..., fs.EventCallback]) -> None:
    register(lambda event: None).close()


def _pinned(store: fs.Store) -> None:
    store.pin("victim")
    store.unpin("victim")


def _subscribed(store: fs.Store) -> list[fs.Event]:
    with store.subscribe(since=0) as subscription:
        return list(iter(subscription.poll, None))


def _waited(store: fs.Store) -> None:
    store.wait(["watched", "absent"], timeout=0)
    asyncio.run(store.wait_async(["watched"], timeout=0))


def _set_spill(store: fs.Store) -> None:
    store.set_spill(store.spill_url)


def _spill(store: fs.Store) -> None:
    with contextlib.suppress(fs.InvalidArgument):  # no storage is configured
        store.spill()


def _put_borrowed(store: fs.Store) -> None:
    """What only refers to the file that this test lends; deleted again before that goes."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        lender = Lender(f"{folder}/lender", 1 << 20)
        store.delete(store.put_borrowed(lender.moved(pa.table({"z": COLUMN})), lender.loan()))


def _deleted(store: fs.Store) -> int:
    return store.delete("victim", if_unused=True) + store.delete("victim")


CALLS: dict[str, Callable[[fs.Store], object]] = {
    "abort": _create_and_abort,
    "batch": lambda store: _in_a_batch(store, lambda store, batch: batch.end()),
    "batches": lambda store: store.batches(),
    "capacity_bytes": lambda store: store.capacity_bytes,
    "client_id": lambda store: store.client_id,
    "concat": lambda store: store.concat(["watched", "watched"], "concatenated"),
    "contains": lambda store: store.contains("watched"),
    "create": lambda store: store.create(ASKED, "created"),
    "create_now": lambda store: store.create_now(ASKED, "created now"),
    "create_stream": _stream,
    "create_table": _build_table,
    "current_batch": lambda store: store.current_batch(),
    "delete": _deleted,
    "destroy_batch": lambda store: _in_a_batch(store, lambda store, batch: store.destroy_batch(batch)),
    "drop": lambda store: store.drop("watched", [], "dropped"),
    "end_batch": lambda store: _in_a_batch(store, lambda store, batch: store.end_batch(batch)),
    "evict": lambda store: store.evict(),
    "free": lambda store: store.free("victim"),
    "fsck": lambda store: store.fsck(),
    "get": lambda store: store.get("watched"),
    "get_async": lambda store: asyncio.run(store.get_async("watched", timeout=0)),
    "get_many": lambda store: store.get_many(["watched", "long", "watched"]),
    "holders": lambda store: store.holders("watched"),
    "join_batch": lambda store: _in_a_batch(store, lambda store, batch: store.join_batch(batch.token).end()),
    "list": lambda store: store.list(),
    "loans": lambda store: store.loans(),
    "mapped": lambda store: store.mapped,
    "new_batch": lambda store: store.new_batch().end(),
    "on_added": lambda store: _called_back(store.on_added),
    "on_deleted": lambda store: _called_back(store.on_deleted),
    "on_full": lambda store: _called_back(store.on_full),
    "on_spilled": lambda store: _called_back(store.on_spilled),
    "path": lambda store: store.path,
    "pin": _pinned,
    "put": lambda store: store.put(bytes(ASKED), "put"),
    "put_borrowed": _put_borrowed,
    "put_many": lambda store: store.put_many({"put one": bytes(ASKED), "put two": b""}),
    "recover": lambda store: store.recover(),
    "rename": lambda store: store.rename("watched", {"x": "z"}, "renamed"),
    "seal_many": _streams,
    "select": lambda store: store.select("watched", ["x"], "selected"),
    "session": _session,
    "sessions": lambda store: store.sessions(),
    "set_policy": lambda store: store.set_policy("marked-first"),
    "set_spill": _set_spill,
    "spill": _spill,
    "spill_url": lambda store: store.spill_url,
    "split": lambda store: store.split("watched", rows=[1]),
    "stat": lambda store: store.stat("watched"),
    "stats": lambda store: store.stats(),
    "subscribe": _subscribed,
    "transfer_ownership": _pass_on,
    "unpin": _pinned,
    "wait": _waited,
    "wait_async": _waited,
    "with_columns": lambda store: store.with_columns("long", {"z": COLUMN}, "widened"),
}
"""By name: what calls it. Sorted."""

ENDING = {"close", "destroy"}
"""The public calls that are not in CALLS: they end the handle, or the store."""


def public_names() -> set[str]:
    """All public methods and properties of a store."""
    return {name for name in dir(fs.Store) if not name.startswith("_")}
