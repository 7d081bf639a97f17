"""What a store behind a gateway does otherwise than a local one, and what this process's handles share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.remote import AsyncStore, RemoteStore
from flightstore.testing.events import wait_until

from .host import Host


@pytest.fixture
def url(host: Host) -> Iterator[str]:
    """A gateway over HTTP."""
    url = host.make(32 << 20)
    yield url
    host.end(url)


@pytest.fixture
def remote(url: str) -> Iterator[RemoteStore]:
    """A handle by the network."""
    with fs.connect(url, map=False) as store:
        assert isinstance(store, RemoteStore)
        yield store


@pytest.fixture
def mapped(url: str) -> Iterator[fs.Store]:
    """A handle on the memory."""
    with fs.connect(url) as store:
        assert type(store) is fs.Store
        yield store


def test_an_id_is_taken_by_the_seal(remote: RemoteStore) -> None:
    """Not before: nothing of a builder is in the store until then."""
    mine = fs.ObjectID(b"mine")
    builder = remote.create(10, object_id=mine)
    remote.put(b"faster", object_id=mine)
    with pytest.raises(fs.ObjectExists):
        builder.seal()
    assert bytes(remote.get(mine).value()) == b"faster"  # type: ignore[attr-defined]
    with pytest.raises(fs.StoreFull):
        remote.create(64 << 20)


def test_a_copy_holds_nothing(remote: RemoteStore, mapped: fs.Store) -> None:
    mapped.put(np.arange(1000), "a")
    got = remote.get("a")
    # The gateway's own reference goes once the last byte is sent, which may be a moment after it was read.
    wait_until(lambda: mapped.stat("a").refs == 0, what="the gateway's reference is gone")
    assert got.holders() == []
    view = mapped.get("a")
    assert [holder.refs for holder in got.holders()] == [1]
    view.release()
    assert mapped.delete("a", if_unused=True) == 1
    assert got.value()[999] == 999
    assert not got.value().flags.writeable


def test_new_columns_leave_nothing_but_themselves(remote: RemoteStore, mapped: fs.Store) -> None:
    """Whether it goes well or not; and rows that are there are not sent."""
    mapped.put(pa.table({"n": np.arange(200_000)}), "t")
    before = mapped.stats().used_bytes
    made = remote.with_columns("t", {"m": np.ones(200_000)}, "with")
    assert [info.name for info in mapped.list()] == ["t", "with"]
    assert mapped.stats().used_bytes - before < 200_000 * 8 + (16 << 10)
    mapped.recover()
    assert mapped.batches() == []
    assert made.to_arrow().column_names == ["n", "m"]  # type: ignore[attr-defined]
    with pytest.raises(fs.ObjectExists):
        remote.with_columns("t", {"m": np.ones(200_000)}, object_id=made.id)
    assert len(mapped.list()) == 2
    mapped.recover()
    assert mapped.stats().used_bytes - before < 200_000 * 8 + (16 << 10)


def test_a_pandas_frame_stays_one(remote: RemoteStore) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2, 3]}, index=pd.Index(["x", "y", "z"], name="key"))
    remote.put(frame, "frame")
    more = pd.Series(pd.Categorical(["u", "v", "u"], categories=["u", "v", "w"]), index=frame.index)
    made: Any = remote.with_columns("frame", {"b": more})
    assert made.value().equals(frame.assign(b=more))


def test_put_many_of_large_objects_is_one_commit(remote: RemoteStore, mapped: fs.Store) -> None:
    """Staged ones are seen by nobody before, and given up when another one is refused."""
    with mapped.subscribe() as followed:
        remote.put_many({"a": np.arange(100_000), "b": b"small", "c": bytes(1 << 20)})
        assert {followed.poll(60).name for _ in range(3)} == {"a", "b", "c"}  # type: ignore[union-attr]
        assert followed.poll() is None
    with pytest.raises(fs.StoreFull):
        remote.put_many({"d": bytes(1 << 20), "e": bytes(64 << 20)})
    assert mapped.stats().pending == 0
    assert [info.name for info in mapped.list()] == ["a", "b", "c"]


def test_many_threads_share_a_handle(remote: RemoteStore) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(20):
                value = np.full(20_000, number * 100 + step)
                remote.put(value, f"{number}")
                assert (remote.get(f"{number}").value() == value).all()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(remote._shared.transport._idle) <= 8  # type: ignore[attr-defined]


def test_many_that_wait_for_room_keep_nobody_from_making_some(remote: RemoteStore, mapped: fs.Store) -> None:
    """The gateway has more threads for those who wait than for all else."""
    capacity = mapped.capacity_bytes
    remote.put(bytes(capacity - (64 << 10)), "large")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            remote.put(bytes(50_000), f"{number}", timeout=20)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    with mapped.subscribe("large", kinds=["deleted"]) as followed:
        remote.wait(["0"], timeout=0.5)  # as long as it takes them to get there; nothing depends on it
        assert remote.delete("large") == 1
        assert followed.poll(1) is not None
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(mapped.list()) == 40


@pytest.mark.parametrize("ways", ["http", "flight"])
def test_more_uploads_than_a_gateway_takes_at_a_time(host: Host, ways: str) -> None:
    """Wait for their turn."""
    url = host.make(64 << 20, ways, uploads=1)
    failures: list[BaseException] = []
    with fs.connect(url, map=False) as store, fs.connect(url) as here:

        def work(number: int) -> None:
            try:
                store.put(np.full(200_000, number), f"{number}")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        for number in range(12):
            assert (here.get(f"{number}").value() == number).all()  # type: ignore[attr-defined]
    host.end(url)


@pytest.mark.parametrize("ways", ["http", "flight"])
def test_a_handle_is_closed_under_its_threads(host: Host, ways: str) -> None:
    """They end with an error, or with what they asked for; whatever they were doing."""
    url = host.make(64 << 20, ways)
    outcomes: list[str] = []

    def work(store: Any, begun: threading.Barrier) -> None:
        transport = store._shared.transport
        begun.wait()
        try:
            while True:
                header, payload = transport.get_frame("a", session=None)
                assert payload.size == header.size_bytes == 800_000
        except (fs.StoreClosed, fs.GatewayUnreachable) as error:
            outcomes.append(type(error).__name__)

    with fs.connect(url) as here:
        here.put(np.arange(100_000), "a")
        for _ in range(10):
            store = fs.connect(url, map=False)
            store.on_added(print)
            begun = threading.Barrier(4)
            threads = [threading.Thread(target=work, args=(store, begun)) for _ in range(3)]
            for thread in threads:
                thread.start()
            begun.wait()
            store.get("a")
            store.close()
            for thread in threads:
                thread.join()
    assert len(outcomes) == 30
    host.end(url)


def test_what_is_not_offered(remote: RemoteStore) -> None:
    calls = [
        lambda: remote.session(ephemeral=True),
        lambda: remote.set_spill(None),
        lambda: remote.set_policy("lru"),
        remote.fsck,
        remote.destroy,
    ]
    for call in calls:
        with pytest.raises(fs.NotOffered):
            call()


def test_what_a_handle_says_of_itself(remote: RemoteStore, mapped: fs.Store, url: str) -> None:
    assert repr(remote) == f"<RemoteStore {url}>"
    assert (remote.url, remote.path, remote.capacity_bytes) == (url, mapped.path, 32 << 20)
    with remote.session("one") as session:
        assert repr(session) == f"<RemoteSession {session.number} 'one' of {url}>"
    assert "closed" in repr(session)
    assert repr(mapped) == f"<Store {mapped.path}>"


@pytest.mark.parametrize("mapped", [False, True])
def test_asyncio(url: str, mapped: bool) -> None:
    async def main() -> None:
        async with AsyncStore(fs.connect(url, map=mapped)) as store:
            ids = await asyncio.gather(*(store.put(np.arange(1000), f"{n}") for n in range(20)))
            assert len(set(ids)) == 20
            waiting = asyncio.create_task(store.get("late", timeout=30))
            cancelled = asyncio.create_task(store.get("never", timeout=None))
            with store.store.batch(timeout=60):
                await store.put(b"x", "late")
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            waiting.cancel()  # its batch may have been over before it looked
            await store.put_many({"late": b"y"})
            assert bytes((await store.get("late", timeout=30)).value()) == b"y"  # type: ignore[attr-defined]
            assert await store.wait(["late", "never"], num_ready=1) == (["late"], ["never"])
            assert len(await store.list()) == (await store.stats()).objects == 21
            assert await store.contains("late")
            assert (await store.stat("late")).nbytes == 1
            assert await store.call(store.store.pin, "late") == 1
            assert len(await store.get_many(["0", "1"])) == 2
            assert await store.delete([*map(str, range(20)), "late"]) == 21

    asyncio.run(main())


def test_a_table_written_batch_by_batch_is_sent_by_the_seal(remote: RemoteStore, mapped: fs.Store) -> None:
    schema = pa.schema([("n", pa.int64())], {"of": "the table"})
    with remote.create_stream(schema, "t", metadata="notes") as writer:
        writer.section(1).write(pa.record_batch([range(1000, 2000)], schema=schema))
        with writer.section(0) as section:
            section.write(pa.table([range(1000)], schema=schema))
        assert (writer.num_rows, section.num_rows) == (2000, 1000)
        assert mapped.list() == []
        with pytest.raises(fs.InvalidArgument):
            writer.write(pa.record_batch([["x"]], ["n"]))
    obj = mapped.get(writer.id)
    assert obj.to_arrow()["n"].to_pylist() == list(range(2000))  # type: ignore[attr-defined]
    assert (obj.name, obj.metadata) == ("t", "notes")
    forgotten = remote.create_stream(pa.schema([]), "u")
    forgotten.write(pa.table({"x": [1]}).select([]))
    forgotten.abort()
    with pytest.raises(fs.StoreClosed):
        forgotten.seal()
    assert [info.name for info in mapped.list()] == ["t"]
