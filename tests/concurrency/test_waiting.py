"""Waiting for objects: from other processes, in asyncio, and when the writer dies before it rings."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from flightstore import GetTimeout, Store
from flightstore.testing.children import start
from flightstore.testing.events import Gate
from flightstore.testing.watched import Link, fork_watched

pytestmark = pytest.mark.req("API-3", "API-12")


def test_a_get_waits_for_another_process(store: Store) -> None:
    ready = Gate()

    def read() -> bytes:
        ready.open()
        return bytes(store.get("awaited", timeout=20).value())

    with start(read) as process:
        ready.wait()
        store.put(b"there", "awaited")
        assert process.result() == b"there"


def test_wait_for_some_of_many(store: Store) -> None:
    names = [f"some/{number}" for number in range(5)]
    with start(lambda: store.wait(names, num_ready=2, timeout=20)) as process:
        store.put(b"", names[3])
        store.put(b"", names[1])
        ready, missing = process.result()
    assert set(ready) == {names[1], names[3]}
    assert set(missing) == set(names) - set(ready)
    assert store.wait(names, num_ready=3, timeout=0) == (ready, missing)


@pytest.mark.req("FAIL-2")
def test_a_writer_that_dies_between_commit_and_bell(store: Store) -> None:
    """The bell is never rung: who waits looks again by itself within about a second."""
    store.put(b"first", "first")  # so that the memory is there, and the next put is one transaction
    # The best of several: a busy machine may not run the reader for longer than that.
    assert any(found_after_s(store, f"awaited/{number}") < 2.5 for number in range(10))
    store.put(b"", "the lock is free")


def found_after_s(store: Store, name: str) -> float:
    """How long after the death of its writer an object is found by who waits for it."""
    asleep = threading.Event()
    found: list[float] = []

    def read() -> None:
        asleep.set()
        store.get(name, timeout=60)
        found.append(time.monotonic())

    def body(link: Link) -> None:
        conn = store._conn
        conn._publish = lambda transaction: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        store.put(b"committed", name)

    reader = threading.Thread(target=read)
    reader.start()
    assert asleep.wait(60)
    ending = fork_watched(body).wait(deadline_s=60)
    died = time.monotonic()
    assert ending.exit_code == -signal.SIGKILL
    reader.join(90)
    assert found, "it was never found"
    return found[0] - died


# --- asyncio ---


def test_asyncio_waits_while_another_process_puts(store: Store) -> None:
    ready = Gate()

    async def main() -> bytes:
        get = asyncio.create_task(store.get_async("awaited", timeout=20))
        wait = asyncio.create_task(store.wait_async(["awaited", "second"], timeout=20))
        await asyncio.sleep(0)  # both have begun
        ready.open()
        assert (await wait) == (["awaited", "second"], [])
        return bytes((await get).value())

    def put() -> None:
        ready.wait()
        store.put(b"there", "awaited")
        store.put(b"there too", "second")

    with start(put) as process:
        assert asyncio.run(main()) == b"there"
        process.result()


def test_asyncio_timeouts_and_cancellation(store: Store) -> None:
    async def main() -> None:
        with pytest.raises(GetTimeout):
            await store.get_async("never", timeout=0.05)
        assert await store.wait_async(["never"], timeout=0.05) == ([], ["never"])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.get_async("never"), 0.05)
        task = asyncio.create_task(store.get_async("later"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        store.put(b"x", "later")
        assert bytes((await store.get_async("later")).value()) == b"x"

    asyncio.run(main())


def test_asyncio_program_ends_while_it_waits(store: Store) -> None:
    source = f"""
import asyncio, flightstore
store = flightstore.connect({store.path!r})
async def main():
    await asyncio.wait_for(store.get_async("never"), 0.05)
try:
    asyncio.run(main())
except TimeoutError:
    print("ended")
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")
