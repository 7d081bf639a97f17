"""FAIL-5: the catalog at its limit, by too many objects or by a reader that stands still."""

from __future__ import annotations

import os
import signal
import time

import pytest

import flightstore.store  # all of it now: not in every child
from flightstore.catalog.environment import FULL_SHARE
from flightstore.errors import CatalogFull
from flightstore.lifecycle.doctor_store import examine
from flightstore.memory.kernel import process_state
from flightstore.testing.faults import child, start, wait_until
from flightstore.types import ObjectID

pytestmark = pytest.mark.req("FAIL-5")

CATALOG_BYTES = 8 << 20


def fill(store: flightstore.Store) -> tuple[list[ObjectID], CatalogFull]:
    """Put tiny objects until the catalog is full."""
    ids: list[ObjectID] = []
    while True:
        try:
            ids += store.put_many([b"%d" % (len(ids) + n) for n in range(10)])
        except CatalogFull as error:
            return ids, error


def test_a_change_too_large_for_the_last_pages_is_refused_soon(store: flightstore.Store) -> None:
    """And not when the time is over that is given to those who keep pages, as for a writer: nobody does."""
    with pytest.raises(CatalogFull):  # noqa: PT012
        while True:
            began = time.monotonic()
            store.put_many([b""] * 500)
    assert store.stats().catalog_used_bytes < FULL_SHARE * CATALOG_BYTES, "there are some pages"
    assert time.monotonic() - began < 60, "half of busy_timeout"


def test_a_catalog_full_of_objects(store_dir: str, store: flightstore.Store) -> None:
    ids, error = fill(store)
    assert len(ids) > 30_000  # how many more depends on how the random ids fill its pages
    assert error.catalog_bytes == CATALOG_BYTES == store.stats().catalog_bytes
    assert 0.8 * CATALOG_BYTES < error.catalog_used_bytes < CATALOG_BYTES
    for number in (error.catalog_bytes, error.catalog_used_bytes):
        assert f"{number:,}" in str(error)
    with pytest.raises(CatalogFull):
        store.put(b"another")
    with pytest.raises(CatalogFull):
        store.create_now(1)
    assert [finding.severity for finding in examine(store_dir)[1] if finding.check == "catalog"] != ["ok"]

    def read_all() -> None:
        with flightstore.connect(store_dir) as mine:
            for n in range(0, len(ids), 500):
                for m, found in enumerate(mine.get_many(ids[n : n + 500]), n):
                    assert bytes(found) == b"%d" % m

    child(read_all)
    store.recover()  # a child that ended with views in use leaves its client file
    assert store.fsck() == []
    for one in ids[:200]:
        assert store.delete(one) == 1  # one by one: each a transaction of its own
    assert store.delete(ids[200 : len(ids) // 2]) == len(ids) // 2 - 200
    store.put(b"again", "again")
    assert bytes(store.get("again")) == b"again"
    assert store.delete(ids[len(ids) // 2 :]) == len(ids) - len(ids) // 2
    more, _ = fill(store)
    assert len(more) > 30_000  # its pages are used again


def stop_in_a_read(path: str) -> None:
    with flightstore.connect(path) as store:
        catalog = store._conn.catalog
        with catalog.gate:
            txn = catalog.begin()
            os.kill(os.getpid(), signal.SIGSTOP)
            txn.abort()


@pytest.mark.parametrize("end", ["killed", "resumed"])
@pytest.mark.parametrize("batch", [1, 300])
def test_a_reader_that_stands_still(store_dir: str, store: flightstore.Store, end: str, batch: int) -> None:
    """Pages it may look at are not used again: named are the process and what to do."""
    store.put(b"kept", "kept")
    with start(stop_in_a_read, store_dir) as process:
        wait_until(lambda: process_state(process.pid) == "T", what="the reader stops")
        with pytest.raises(CatalogFull, match=f"old pages are kept for process {process.pid} ") as caught:  # noqa: PT012
            for n in range(20_000):
                store.put_many({f"name{m}": b"%d" % n for m in range(batch)})
        assert "resume or end that process" in caught.value.hint
        assert caught.value.catalog_used_bytes < CATALOG_BYTES // 2
        lagging = [finding for finding in examine(store_dir)[1] if finding.check == "catalog readers"]
        assert [finding.severity for finding in lagging] == ["warning"]
        assert f"process {process.pid} " in lagging[0].message
        assert bytes(store.get("kept")) == b"kept"
        assert store.fsck() == []
        if end == "killed":
            process.kill()
            store.recover()
        else:
            os.kill(process.pid, signal.SIGCONT)
            process.result()
    for n in range(200):
        store.put(b"%d" % n, f"name{n % 5}")
    assert store.delete("kept") == 1
