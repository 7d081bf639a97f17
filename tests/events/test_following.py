"""Following the log while others write it: other processes, threads, asyncio; interrupts, ends, forks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import flightstore
from flightstore import FlightStoreError, Store, StoreClosed
from flightstore.memory import kernel
from flightstore.testing.children import start
from flightstore.testing.events import Barrier, Gate, wait_until
from flightstore.testing.killpoints import kill_points, run_killed
from flightstore.types import Event

pytestmark = pytest.mark.req("INV-11")

LAST = "the last one"


def sleeps(process_id: int) -> bool:
    return kernel.process_state(process_id) == "S"


# --- many processes ---


def write_at_random(store: Store, seed: int, ready: Barrier, last: int) -> None:
    """Change a few names over and over, until killed or, about, until the event with the number `last`.

    The first change comes before the others begin: they may be done before this process is run again.
    """
    chance = random.Random(seed)
    store.put(b"", f"{seed}/0")
    ready.wait()
    while store.subscribe().position < last:
        name = f"{seed}/{chance.randrange(5)}"
        match chance.randrange(5):
            case 0:
                store.delete(name)
            case 1:
                store.put_many({name: b"x", f"{seed}/pair": b"y"})
            case 2:
                store.put(bytes(80_000), name)
            case 3:
                store.create(3000, name).abort()
            case _:
                store.put(b"z" * chance.randrange(500), name)
    signal.pause()


def follow(path: str, since: int, pattern: str | None) -> list[tuple[int, str, bytes, str | None]]:
    """All events up to the last one, in a process of its own."""
    found = []
    with flightstore.connect(path) as store, store.subscribe(pattern, since=since) as subscription:
        for event in subscription:
            found.append((event.number, event.kind, bytes(event.id or b""), event.name))
            if event.name == LAST:
                return found
    raise AssertionError("the subscription ended")


@pytest.mark.slow
@pytest.mark.req("FAIL-2")
def test_writers_are_killed_and_subscribers_miss_nothing(store: Store) -> None:
    """What three subscribers saw are the same events, without a gap, and they add up to what is there.

    The writers stop before the log drops an event: a reader that gets no processor for a second misses none.
    """
    ready = Barrier(5)
    begun = store.subscribe().position
    last = begun + store._conn.events_kept * 3 // 4
    writers = [start(write_at_random, store, seed, ready, last) for seed in range(4)]
    readers = [start(follow, store.path, begun, pattern) for pattern in (None, None, "[02]*")]
    try:
        ready.wait()
        for number, writer in enumerate(writers):
            wait_until(
                lambda goal=begun + 60 * (number + 1): store.subscribe().position > goal, what="they write"
            )
            writer.kill()
            store.recover()
        store.put(b"", LAST)
        everything, again, some = [reader.result() for reader in readers[:2]] + [None]
        readers[2].kill()
        some = [event for event in follow(store.path, begun, None) if (event[3] or "")[:1] in ("0", "2")]
    finally:
        for process in (*writers, *readers):
            process.kill()
    assert everything == again
    assert [event[0] for event in everything] == list(range(begun + 1, everything[-1][0] + 1))
    assert some
    alive: dict[bytes, str | None] = {}
    for _, kind, object_id, name in everything:
        if kind == "added":
            assert object_id not in alive
            alive[object_id] = name
        else:
            assert kind == "deleted"
            assert alive.pop(object_id) == name
    assert alive == {bytes(info.id): info.name for info in store.list()}


def test_since_goes_on_in_another_process(store: Store) -> None:
    """Subscribers come and go, each beginning where the one before it stored its position."""

    def a_few(since: int) -> tuple[list[int], int]:
        with flightstore.connect(store.path) as mine, mine.subscribe(since=since) as subscription:
            found = [next(subscription).number for _ in range(3)]
            return found, subscription.position

    store.put_many([b"x"] * 12)
    seen: list[int] = []
    position = 0
    for _ in range(4):
        with start(a_few, position) as process:
            found, position = process.result()
        seen += found
    assert seen == list(range(1, 13))


def test_a_writer_that_dies_before_it_rings(store: Store) -> None:
    """Whoever sleeps looks again within about a second."""
    subscription = store.subscribe()
    point = next(at for at in kill_points(lambda: store.put(b"", "a")) if at.at.function == "Control.ring")
    assert [event.name for event in iter(subscription.poll, None)] == ["a"]
    found: list[Event | None] = []
    thread = threading.Thread(target=lambda: found.append(subscription.poll(timeout=20)))
    thread.start()
    assert run_killed(lambda: store.put(b"", "b"), point).kind in ("killed", "finished")
    thread.join(20)
    event = found[0]
    assert event is not None
    assert event.name in ("a", "b")


# --- waiting and its end ---


def test_an_event_wakes_who_waits(store: Store) -> None:
    waiting = Gate()

    def wait() -> str | None:
        subscription = store.subscribe()
        waiting.open()
        return next(subscription).name

    with start(wait) as process:
        waiting.wait()
        wait_until(lambda: sleeps(process.pid), what="it sleeps")
        store.put(b"", "awaited")
        assert process.result() == "awaited"


def test_poll_and_timeouts(store: Store) -> None:
    subscription = store.subscribe(timeout=0.05)
    assert subscription.poll() is None
    assert subscription.poll(0.01) is None
    assert list(subscription) == []
    store.put(b"", "a")
    assert [event.name for event in subscription] == ["a"], "it may be iterated again"


@pytest.mark.parametrize("end", ["close", "handle", "with"])
def test_closing_ends_a_wait_of_another_thread(store: Store, end: str) -> None:
    mine = flightstore.connect(store.path)
    subscription = mine.subscribe()
    ended: list[object] = []
    about_to = threading.Event()

    def run() -> None:
        about_to.set()
        ended.append(list(subscription))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    about_to.wait()
    if end == "close":
        subscription.close()
    elif end == "handle":
        mine.close()
    else:
        with subscription:
            pass
    thread.join(20)
    assert ended == [[]]
    subscription.close()
    assert subscription.poll(timeout=None) is None
    store.put(b"", "a")
    assert list(subscription) == []
    mine.close()


def test_a_closed_handle_takes_no_subscriptions(store: Store) -> None:
    mine = flightstore.connect(store.path)
    mine.close()
    with pytest.raises(StoreClosed):
        mine.subscribe()
    with pytest.raises(StoreClosed):
        mine.on_added(print)


def test_a_subscription_keeps_its_handle(store: Store) -> None:
    subscription = flightstore.connect(store.path).subscribe()
    gc.collect()
    store.put(b"", "a")
    event = subscription.poll(timeout=10)
    assert event is not None
    assert event.name == "a"


def test_a_destroyed_store_ends_a_subscription(store_dir: Path) -> None:
    made = flightstore.connect(store_dir, capacity="16MiB")
    other = flightstore.connect(store_dir)
    subscription = other.subscribe()
    made.destroy()
    with pytest.raises(StoreClosed):
        subscription.poll(timeout=None)
    other.close()


def test_two_threads_share_the_events(store: Store) -> None:
    subscription = store.subscribe(timeout=20)
    found: list[int] = []

    def run() -> None:
        for event in subscription:
            found.append(event.number)
            if len(found) >= 300:
                subscription.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    store.put_many([b"x"] * 150)
    for _ in range(150):
        store.put(b"y")
    for thread in threads:
        thread.join(30)
    assert sorted(found) == list(range(1, 301))


def test_ctrl_c_while_it_waits(store: Store) -> None:
    waiting = Gate()

    def run() -> str | None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        subscription = store.subscribe()
        try:
            waiting.open()
            next(subscription)
        except KeyboardInterrupt:
            store.put(b"", "after Ctrl-C")
            return next(subscription).name
        return "not interrupted"

    with start(run) as process:
        waiting.wait()
        wait_until(lambda: sleeps(process.pid), what="it sleeps")
        os.kill(process.pid, signal.SIGINT)
        assert process.result() == "after Ctrl-C"


# --- asyncio ---


def test_asyncio_follows(store: Store) -> None:
    ready = Gate()

    async def main() -> list[str | None]:
        found = []
        with store.subscribe(timeout=20) as subscription:
            ready.open()
            async for event in subscription:
                found.append(event.name)
                if event.name == LAST:
                    break
        return found

    def put() -> None:
        ready.wait()
        for number in range(5):
            store.put(b"", f"n{number}")
        store.put(b"", LAST)

    with start(put) as process:
        assert asyncio.run(main()) == ["n0", "n1", "n2", "n3", "n4", LAST]
        process.result()


def test_asyncio_ends_with_time_and_by_close(store: Store) -> None:
    async def main() -> None:
        assert [event async for event in store.subscribe(timeout=0.05)] == []
        subscription = store.subscribe()
        waits = asyncio.create_task(anext(subscription))
        await asyncio.sleep(0)
        subscription.close()
        with pytest.raises(StopAsyncIteration):
            await waits

    asyncio.run(main())


def test_a_cancelled_wait_loses_no_event(store: Store) -> None:
    """Its thread lives on for a moment and may read the log; what it finds stays where it is."""

    async def main() -> list[int]:
        found = []
        subscription = store.subscribe()
        for number in range(20):
            waits = asyncio.create_task(anext(subscription))
            await asyncio.sleep(0)
            store.put(b"", f"n{number}")
            if number % 3:
                waits.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                found.append((await waits).number)
        found += [event.number for event in iter(subscription.poll, None)]
        return found

    assert asyncio.run(main()) == list(range(1, 21))


# --- the end of the interpreter, forks ---

ENDS = {
    "subscription": "subscription = store.subscribe()",
    "thread waits": """
started = threading.Event()
def wait():
    with store.subscribe() as subscription:
        started.set()
        for event in subscription: pass
threading.Thread(target=wait, daemon=True).start()
started.wait()
""",
    "callbacks": """
called = threading.Event()
store.on_added(lambda event: called.set())
store.put(b"", "again")
called.wait()
""",
    "callback busy": """
called = threading.Event()
def slow(event):
    called.set()
    while True: store.put(b"", "more")
store.on_added(slow)
store.put(b"", "again")
called.wait()
""",
    "asyncio wait abandoned": """
import asyncio
async def main():
    asyncio.create_task(anext(store.subscribe()))
    await asyncio.sleep(0)
asyncio.run(main())
""",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_the_interpreter_exits_cleanly(store: Store, end: str) -> None:
    source = f"import threading, flightstore\nstore = flightstore.connect({store.path!r})\n{end}"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.req("FAIL-4")
def test_a_forked_child_subscribes_again(store: Store) -> None:
    """Also when another thread was waiting in the parent's, with all the locks that this takes."""
    subscription = store.subscribe()
    callback = store.on_added(lambda event: None)
    waiting = threading.Thread(target=lambda: next(subscription))
    waiting.start()

    def run() -> list[str | None]:
        with pytest.raises(FlightStoreError, match="subscribe again in the child"):
            subscription.poll()
        position = subscription.position
        subscription.close()
        callback.close()
        again = store.subscribe(since=position)
        heard: list[str | None] = []
        called = threading.Event()
        store.on_added(lambda event: (heard.append(event.name), called.set()))
        store.put(b"", "from the child")
        assert called.wait(20)
        return [*heard, *(event.name for event in iter(again.poll, None))]

    with start(run) as process:
        assert process.result() == ["from the child", "from the child"]
    waiting.join(20)
    assert not waiting.is_alive(), "the parent's goes on"
    callback.close()


@pytest.mark.req("FAIL-4")
def test_a_child_waits_for_no_thread_that_it_has_not(store: Store) -> None:
    """One of the parent's is just subscribing, or closing the handle, at the moment of the fork."""

    def run() -> str:
        with store.subscribe() as subscription:
            store.put(b"", "from the child")
            event = subscription.poll()
        callback = store.on_added(print)
        callback.close()
        store.close()
        assert event is not None
        return str(event.name)

    with store._closing:
        process = start(run)
    with process:
        assert process.result(deadline_s=60) == "from the child"


def test_forks_while_threads_follow(store: Store) -> None:
    """Children of every moment can close what they inherited, and work.

    In the life of one child the threads write less than the log keeps, however long it gets no processor.
    """
    stop = threading.Event()
    left = [0, 0]
    """How many puts each thread has left until the next child."""

    def churn(number: int) -> None:
        while not stop.is_set():
            handle = store.on_added(lambda event: None)
            with store.subscribe(timeout=0) as subscription:
                if left[number]:
                    left[number] -= 1
                    store.put(b"", "churn")
                list(subscription)
            handle.close()

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()

    def live(number: int) -> None:
        subscription = store.subscribe("child")
        store.put(b"", "child")
        event = subscription.poll()
        assert event is not None
        assert event.kind == ("deleted" if number else "added")
        store.close()

    try:
        for number in range(20):
            left[:] = [100, 100]
            with start(live, number) as process:
                process.result()
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


@pytest.mark.req("FAIL-5")
def test_events_while_the_catalog_is_nearly_full(store: Store) -> None:
    """Deletes fit, and are told; so is the create that did not fit."""
    names: list[str] = []
    with pytest.raises(flightstore.CatalogFull):  # noqa: PT012
        while True:
            more = [f"{number:0400}" for number in range(len(names), len(names) + 10)]
            store.put_many(dict.fromkeys(more, b""))
            names += more
    assert len(names) > store._conn.events_kept
    kept = list(store.subscribe(since=0, timeout=0))
    assert [event.kind for event in kept[-2:]] == ["added", "full"]
    deleted = store.subscribe()
    for name in names[:50]:
        assert store.delete(name) == 1
    assert [(event.kind, event.name) for event in iter(deleted.poll, None)] == [
        ("deleted", name) for name in names[:50]
    ]
    assert store.delete(names[50:]) == len(names) - 50
