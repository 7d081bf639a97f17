"""Ctrl-C at any moment: it comes out soon, nothing stays pending or locked, and the store works on."""

from __future__ import annotations

import contextlib
import contextvars
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pytest

import flightstore
from flightstore import Batch, ObjectID, Store, StoreFull
from flightstore.lifecycle.streaming import TableWriter
from flightstore.memory import kernel
from flightstore.testing.children import start
from flightstore.testing.crashscenes import reset
from flightstore.testing.events import Gate, wait_until
from flightstore.testing.faults import stopped
from flightstore.testing.tracing import can_be_interrupted

pytestmark = pytest.mark.req("FAIL-2")

ROOT = str(Path(flightstore.__file__).parent)


def assert_usable(store: Store) -> None:
    """This process holds no lock, another thread gets all, nothing is left over, the store is sound."""
    conn = store._conn
    # A process that has just forked this one may hold it, for the moment that thawing its leases takes.
    assert conn.control.lock.holder() != os.getpid()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            store.put(b"usable", "usable")
            assert bytes(store.get("usable").value()) == b"usable"
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "a lock is still held"
    assert errors == []
    assert conn.counters is not None
    assert conn.counters.waiting == 0, "a place in the queue of waiting creates is left behind"
    store.recover()
    stats = store.stats()
    assert (stats.pending, stats.dying) == (0, 0)
    assert store.fsck() == []


# --- real signals ---


SOON_S = 1.5
ATTEMPTS = 10
"""A busy machine may not run a thread for longer than that: the best of so many has to come soon."""


def interrupted(operation: Callable[[], object], when: Callable[[], bool]) -> float:
    """Run the operation, send SIGINT once `when` is true; seconds until KeyboardInterrupt came out.

    Infinity where the operation was over before the signal came: the thread that sends it was not run.
    """
    over = threading.Event()
    sent: list[float] = []

    def send() -> None:
        wait_until(lambda: when() or over.is_set(), what="the operation comes so far", timeout_s=60)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        operation()
        over.set()
        thread.join()
        time.sleep(60)  # until it comes
    except KeyboardInterrupt:
        took = math.inf if over.is_set() else time.monotonic() - sent[0]
        thread.join()
        return took
    raise AssertionError("the signal was lost")


def is_asleep() -> bool:
    """Whether the main thread sleeps (its thread id is the process id)."""
    return kernel.process_state(os.getpid()) == "S"


def in_child(store: Store, body: Callable[[], float]) -> None:
    """Run it in a process that SIGINT may hit; then the store must be usable there, and here."""

    def run() -> float:
        seconds = body()
        assert_usable(store)
        return seconds

    assert comes_soon(run)
    assert_usable(store)


def comes_soon(body: Callable[[], float]) -> bool:
    """Whether an interrupt comes out soon, the best of several, each in a process that SIGINT may hit."""

    def run() -> float:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return body()

    def attempt() -> bool:
        with start(run) as process:
            return process.result(deadline_s=120) < SOON_S

    return any(attempt() for _ in range(ATTEMPTS))


@pytest.mark.req("API-3")
def test_in_a_waiting_get(store: Store) -> None:
    in_child(store, lambda: interrupted(lambda: store.get("never", timeout=None), is_asleep))


@pytest.mark.req("API-12")
def test_in_a_wait(store: Store) -> None:
    in_child(store, lambda: interrupted(lambda: store.wait(["never", "neither"]), is_asleep))


def test_in_a_long_put(store_dir: Path) -> None:
    value = bytes(300 << 20)
    with flightstore.connect(store_dir, capacity="400MiB") as store:

        def body() -> float:
            pending = store._conn.control.usage
            seconds = interrupted(lambda: store.put(value, "long"), lambda: pending()[3] > 0)
            return math.inf if store.delete("long") else seconds  # it was over, perhaps just so

        in_child(store, body)
        assert not store.contains("long")
        assert store.stats().used_bytes < 4096


@pytest.mark.req("API-13")
def test_in_put_many(store: Store) -> None:
    values = {f"many/{number}": b"x" * 100 for number in range(20_000)}

    def body() -> float:
        lock = store._conn.control.lock
        seconds = interrupted(lambda: store.put_many(values), lambda: lock.holder() == os.getpid())
        deleted = store.delete(list(values))
        assert deleted in (0, len(values))
        return math.inf if deleted else seconds

    in_child(store, body)
    assert store.list("many/*") == []


def test_in_a_wait_for_the_writers_lock(store: Store) -> None:
    """Not even what has to be undone makes an interrupted put wait for a writer that is stopped."""
    go, finish = Gate(), Gate()
    with start(lambda: store._conn.write(lambda tx: (go.open(), finish.wait(300))) and None) as writer:
        go.wait()
        with stopped(writer.pid):
            assert comes_soon(lambda: interrupted(lambda: store.put(b"x"), is_asleep))
        finish.open()
        writer.result()
    assert_usable(store)


# --- at every line ---


class Interrupter:
    """A trace function that raises KeyboardInterrupt at the k-th line of our code that is executed."""

    def __init__(self, k: int) -> None:
        self.left = k
        self.where = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(ROOT) or self.where:
            return None
        if frame.f_code.co_name in ("__del__", "give_back"):
            return None  # Python drops what is raised in a finalizer: Ctrl-C there is as if it never came
        if event == "line" and can_be_interrupted(frame):
            self.left -= 1
            if self.left < 0:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
                raise KeyboardInterrupt
        return self

    def run(self, operation: Callable[[], object]) -> bool:
        """Whether the operation was interrupted."""
        sys.settrace(self)
        try:
            operation()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False


def build(store: Store) -> None:
    with store.create(5000, "built") as builder:
        builder.buffer[:5] = b"built"


def release(store: Store) -> None:
    obj = store.get("small")
    obj.release()


SESSIONS: list[Store] = []
"""Handles that are closed once nothing is interrupted any more: a connection that an interrupted close has
left would make each round of the test longer than the one before.
"""


def use_session(store: Store) -> None:
    session = store.session("job", quota="1MiB", ephemeral=True)
    SESSIONS.append(session)
    session.put(b"x" * 100, "small")
    session.end()
    store.put(b"", "reclaims")


def begun(store: Store, **options: Any) -> Batch:
    """A batch with an object in it, begun where nobody interrupts."""
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        batch = store.new_batch(**options)
        with batch.activate():
            store.put(b"x" * 100, "in batch")
        return batch.__enter__()
    finally:
        sys.settrace(trace)


BATCH = pa.record_batch({"n": range(400)})


def stream(store: Store) -> TableWriter:
    """A table of two parts that is yet to be sealed: one batch by itself, one that was gathered."""
    writer = TableWriter(store._conn, 0, BATCH.schema, "streamed", group_bytes=6000)
    for batch in (BATCH, BATCH.slice(0, 100), BATCH):
        writer.write(batch)
    return writer


TOO_MUCH = bytes(17 << 20)


def wait_in_vain(store: Store) -> None:
    with contextlib.suppress(StoreFull):
        store.put(TOO_MUCH, "never", timeout=0.01)


OPERATIONS: dict[str, Callable[[Store], object]] = {
    "put small": lambda store: store.put(b"x" * 100, "put"),
    "put large": lambda store: store.put(b"x" * (200 << 10), "put"),
    "put with growth": lambda store: store.put(b"x" * (3 << 20), "put"),
    "put with id": lambda store: store.put(b"x" * (200 << 10), object_id=ObjectID(b"chosen")),
    "overwrite": lambda store: store.put(b"y" * 100, "small"),
    "put_many": lambda store: store.put_many({"put": b"x" * 100, "put2": b"x" * (100 << 10)}),
    "get": lambda store: store.get("small").value(),
    "get_many": lambda store: [obj.value() for obj in store.get_many(["small", "large"])],
    "get and release": release,
    "delete": lambda store: store.delete("small"),
    "delete if unused": lambda store: store.delete("small", if_unused=True),
    "create and seal": build,
    "create and abort": lambda store: store.create(5000, "built").abort(),
    "stream and seal": lambda store: stream(store).seal(),
    "stream and abort": lambda store: stream(store).abort(),
    "recover": lambda store: store.recover(),
    "free and evict": lambda store: (store.free("small"), store.evict()),
    "spill": lambda store: store.spill(),
    "spill and get": lambda store: (store.spill(), store.get("large").value()),
    "use a session": use_session,
    "begin a batch": lambda store: store.new_batch("job"),
    "keep in a batch": lambda store: begun(store).keep("in batch"),
    "end a batch": lambda store: begun(store).end(),
    "leave a batch's block": lambda store: begun(store).__exit__(None, None, None),
    "delete a batch": lambda store: begun(store, cleanup=False).delete(),
    "put waiting in vain": wait_in_vain,
    "subscribe": lambda store: list(store.subscribe(since=0, timeout=0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_at_every_line(store_dir: Path, tmp_path: Path, name: str) -> None:
    operation = OPERATIONS[name]
    k, interrupted_once = 0, True
    while interrupted_once:
        with flightstore.connect(store_dir, capacity="16MiB") as store:
            store.put(b"x" * 100, "small")
            store.put(b"x" * (200 << 10), "large")
            if "spill" in name:
                store.set_spill(str(tmp_path / "spilled"))
            interrupter = Interrupter(k)
            in_context = contextvars.copy_context().run  # a batch that stays current there is current nowhere
            interrupted_once = in_context(interrupter.run, lambda: operation(store))
            while SESSIONS:
                SESSIONS.pop().close()
            try:
                assert_usable(store)
                for kept in ("small", "large"):
                    if store.contains(kept):
                        assert set(bytes(store.get(kept).value())) <= {ord("x"), ord("y")}
            except BaseException as error:
                error.add_note(f"interrupted at {interrupter.where}, line {k} of {name!r}")
                raise
            k += 1
            assert store.stats().leases == 0, "a lease was lost"
            owned = store._conn.catalog.gate._is_owned()  # type: ignore[attr-defined]
            assert not owned, f"the catalog's gate stayed shut, interrupted at {interrupter.where}"
            store.delete(["small", "large"])
            store.recover()
            assert list((tmp_path / "spilled").glob("*")) == [], f"interrupted at {interrupter.where}"
            assert not any(info.ephemeral for info in store.sessions()), "its handle is gone"
            reset(store)  # as if it were new: nothing in it, and no memory behind it yet
        if os.listdir(store_dir / "clients"):  # something interrupted is still connected
            flightstore.connect(store_dir).destroy()
    assert k > 10
