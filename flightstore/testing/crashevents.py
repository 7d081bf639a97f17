"""Rows of the crash table for following events, and for creates that wait for room.

Importing this module fills `OPERATIONS`, as crashtable.py does for the rest. That the log tells what became
of the objects is checked after every row (crashscenes.py).
"""

from __future__ import annotations

import contextlib

from flightstore.catalog import keys
from flightstore.catalog.records import encode_record
from flightstore.catalog.scopes import WaiterRecord
from flightstore.catalog.transaction import WriteTransaction
from flightstore.errors import EventsMissed, StoreFull
from flightstore.store import Store
from flightstore.testing.crashscenes import CAPACITY_BYTES, Scene
from flightstore.testing.crashtable import SMALL, WAIT_S, Act, register_act

__all__ = ["leave_ticket"]


def _subscribe(store: Store) -> None:
    """Read what there is, wait in vain, go on elsewhere."""
    with store.subscribe("*l*", since=0) as subscription:
        next(subscription)
        while subscription.poll(WAIT_S) is not None:
            pass
        position = subscription.position
    store.subscribe(since=position, timeout=0.001).poll()
    store.on_added(print).close()


def _subscribe_late(store: Store) -> None:
    subscription = store.subscribe(since=1)
    with contextlib.suppress(EventsMissed):
        next(subscription)
    next(subscription)


def _drop_events(store: Store, scene: Scene) -> None:
    """Let the log drop its oldest events."""
    kept = store._conn.events_kept
    for _ in range(3):
        store.delete(store.put_many([b""] * (kept // 4)))
    store.recover()


register_act(Act("subscribe-next", _subscribe))
register_act(Act("subscribe-missed", _subscribe_late, arrange=_drop_events))


def leave_ticket(store: Store, scene: Scene | None = None) -> None:
    """What a client leaves that died while it waited for room."""

    def work(tx: WriteTransaction) -> None:
        counters = tx.counters
        tx.txn.put(keys.waiter_key(counters.next_ticket), encode_record(WaiterRecord(1, 1, 100, 0)))
        counters.next_ticket += 1
        counters.waiting += 1

    store._conn.write(work)


def _put_in_turn(store: Store) -> None:
    store.put(SMALL, "new", timeout=10)


def _wait_in_vain(store: Store) -> None:
    with contextlib.suppress(StoreFull):
        store.put(bytes(CAPACITY_BYTES - 100_000), "never", timeout=2 * WAIT_S)


register_act(Act("create-queued", _put_in_turn, {"new": SMALL}, arrange=leave_ticket))
register_act(Act("create-waiting", _wait_in_vain))
