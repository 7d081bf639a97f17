"""Many batches at once: in threads and tasks, in several stores, and one job after the other."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

import flightstore as fs


def names(store: fs.Store) -> list[str | None]:
    return [info.name for info in store.list()]


@pytest.mark.req("BAT-5")
def test_threads_have_their_own(store: fs.Store) -> None:
    """A thread is in no batch until it enters one; several may be in the same."""
    seen: list[object] = []

    def work(number: int) -> None:
        seen.append(store.current_batch())
        with batch.activate():
            store.put(b"x", f"thread {number}")
        store.put(b"x", f"outside {number}")

    with store.batch() as batch:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert batch.status().objects == 4
    assert seen == [None] * 4
    assert names(store) == [f"outside {number}" for number in range(4)]


@pytest.mark.req("BAT-5")
def test_two_tasks_with_interleaved_batches(store: fs.Store) -> None:
    async def job(mine: str, turn: asyncio.Event, others: asyncio.Event) -> None:
        with store.batch(mine) as batch:
            for step in range(5):
                await turn.wait()
                turn.clear()
                store.put(mine.encode(), f"{mine} {step}")
                current = store.current_batch()
                assert current is not None
                assert current.name == mine
                others.set()
            batch.keep(f"{mine} 4")
            counted.append(batch.status().objects)

    async def run() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        first.set()
        await asyncio.gather(job("one", first, second), job("two", second, first))

    counted: list[int] = []
    asyncio.run(run())
    assert counted == [4, 4]
    assert names(store) == ["one 4", "two 4"]
    assert store.current_batch() is None


@pytest.mark.req("BAT-5")
def test_tasks_and_threads_begun_within_inherit_it(store: fs.Store) -> None:
    async def run() -> None:
        with store.batch() as batch:
            await asyncio.to_thread(store.put, b"x", "in a thread")

            async def task() -> None:
                store.put(b"y", "in a task")

            await asyncio.create_task(task())
            assert batch.status().objects == 2

    asyncio.run(run())
    assert store.list() == []


@pytest.mark.req("BAT-5")
def test_blocks_that_do_not_end_in_the_order_in_which_they_began(store: fs.Store) -> None:
    def block(name: str) -> fs.Batch:
        batch = store.new_batch(name)
        batch.__enter__()
        return batch

    one, two = block("one"), block("two")
    one.__exit__(None, None, None)
    assert store.current_batch() is two
    two.__exit__(None, None, None)
    assert store.current_batch() is None


@pytest.mark.req("BAT-5")
def test_batches_of_two_stores_do_not_mix(store: fs.Store, store_dir: str) -> None:
    with fs.connect(f"{store_dir}-2", capacity="1MiB") as other:
        with store.batch() as mine, other.batch() as others:
            store.put(b"1", "mine")
            other.put(b"2", "others")
            assert (store.current_batch(), other.current_batch()) == (mine, others)
            with pytest.raises(fs.InvalidArgument, match="another"):
                store.end_batch(others)
            with pytest.raises(fs.InvalidArgument, match="not of this store"):
                mine.keep(other.get("others"))
            others.keep("others")
        assert (names(store), names(other)) == ([], ["others"])
        other.destroy()


@pytest.mark.req("BAT-1", "BAT-11")
def test_puts_reclaim_what_has_ended_slice_by_slice(store: fs.Store) -> None:
    with store.batch():
        for _ in range(300):
            store.put(b"x" * 100)
    assert store.stats().used_bytes >= 30_000
    used = []
    for number in range(4):
        store.put(b"", f"put {number}")
        used.append(store.stats().used_bytes)
    assert used == sorted(used, reverse=True)
    assert used[-1] == 0
    assert store.batches() == []


@pytest.mark.req("BAT-11")
def test_many_batches_reclaim_fairly(store: fs.Store) -> None:
    """An ended batch is found however many are active."""
    active = [store.new_batch() for _ in range(100)]
    with store.batch():
        store.put(b"x" * 100)
    for batch in active[:-1]:
        batch.end()
    for number in range(110):
        store.put(b"", f"put {number}")
    assert [info.id for info in store.batches()] == [active[-1].number]
    active[-1].end()


@pytest.mark.req("BAT-11")
def test_a_long_job_among_many_short_ones(store: fs.Store) -> None:
    """A store far too small for all of them: the long one is untouched, and nobody is refused."""
    value = np.arange(2_000)
    peak = 0
    with store.batch("long"):
        mine = {f"long {number}": np.full(5_000, number) for number in range(50)}
        store.put_many(mine)
        floor = store.stats().used_bytes
        for job in range(60):
            with store.batch(f"short {job}"):
                for number in range(50):
                    store.put(value, f"{job} {number}")
            peak = max(peak, store.stats().used_bytes)
        assert peak - floor <= 3 * 50 * 16_064, "what short jobs leave behind does not pile up"
        for name, array in mine.items():
            assert np.array_equal(store.get(name).to_numpy(), array)
    store.recover()
    assert (store.stats().used_bytes, store.batches()) == (0, [])
