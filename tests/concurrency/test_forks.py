# ruff: noqa: F821 - closures over views that are deleted later on purpose
"""Forks in the middle of everything: both sides read right values on, and can do all that they could."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from flightstore import FlightStoreError, Store
from flightstore.testing.children import start
from flightstore.testing.events import Gate, wait_until
from flightstore.testing.faults import stopped
from flightstore.testing.stresspattern import content, problem
from flightstore.testing.watched import Link, fork_watched

pytestmark = pytest.mark.req("FAIL-4")

Churn = Callable[[], None]
Returns = Callable[[int], None]


@contextlib.contextmanager
def running(target: Callable[[], object]) -> Iterator[threading.Thread]:
    """A thread that must end without an exception when the block is left."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            target()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(30)
        assert not thread.is_alive()
    assert errors == []


@pytest.mark.req("INV-1", "INV-2")
def test_a_view_lives_on_both_sides(store: Store, churn: Churn, memory_returns: Returns) -> None:
    store.put(content(64, 1), "kept")
    used = store.stats().used_bytes
    obj = store.get("kept")
    view = obj.value()
    go = Gate()

    def child() -> tuple[str | None, int]:
        go.wait()
        wrong = problem(view, 64)
        store.put(b"from the child", "child's")
        return wrong, len(bytes(store.get("child's").value()))

    with start(child) as process:
        both = {os.getpid(), process.pid}
        wait_until(lambda: {holder.pid for holder in obj.holders()} == both, what="the child is a holder")
        store.delete("kept")
        churn()
        assert problem(view, 64) is None
        del obj, view  # from here on the child's lease alone protects it
        churn()
        go.open()
        assert process.result() == (None, 14)
    assert bytes(store.get("child's").value()) == b"from the child"
    store.delete("child's")
    memory_returns(0)
    assert used > 0


def test_a_child_of_a_child(store: Store, churn: Churn) -> None:
    store.put(content(64, 1), "kept")
    view = store.get("kept").value()
    go = Gate()

    def grandchild() -> str | None:
        go.wait()
        return problem(view, 64) or problem(store.get("late").value(), 7)

    def child() -> str | None:
        with start(grandchild) as process:
            return problem(view, 64) or process.result()

    with start(child) as process:
        store.delete("kept")
        del view
        churn()
        store.put(content(7, 2), "late")
        go.open()
        assert process.result() is None


def test_the_parent_dies_right_after_the_fork(store: Store, churn: Churn, memory_returns: Returns) -> None:
    store.put(content(64, 1), "kept")
    go = Gate()

    def body(link: Link) -> None:
        view = store.get("kept").value()
        parent = os.getpid()
        if os.fork():
            os.kill(os.getpid(), signal.SIGKILL)
        wait_until(lambda: os.getppid() != parent, what="the parent dies")
        link.tell("orphaned")
        go.wait()
        link.tell(str(problem(view, 64)))
        link.tell(str(len(bytes(store.get(store.put(b"1234")).value()))))

    watched = fork_watched(body)
    try:
        watched.wait_for("orphaned")
        store.delete("kept")
        assert store.recover().dead_clients == 1
        churn()
        go.open()
    finally:
        ending = watched.wait(deadline_s=30)
    assert ending.messages == ("orphaned", "None", "4")
    store.delete([info.id for info in store.list()])
    memory_returns(0)


def test_the_child_dies_and_the_parent_reads_on(store: Store, churn: Churn) -> None:
    store.put(content(64, 1), "kept")
    view = store.get("kept").value()
    with start(signal.pause) as process:
        process.kill()
    store.delete("kept")
    assert store.recover().dead_clients == 1
    churn()
    assert problem(view, 64) is None


def test_the_parent_closes_and_the_child_goes_on(store_dir: os.PathLike[str]) -> None:
    import flightstore

    store = flightstore.connect(store_dir, capacity="16MiB")
    store.put(content(64, 1), "kept")
    view = store.get("kept").value()
    go = Gate()

    def child() -> str | None:
        go.wait()
        store.put(content(65, 1), "more")
        return (
            problem(view, 64)
            or problem(store.get("more").value(), 65)
            or problem(store.get("kept").value(), 64)
        )

    with start(child) as process:
        del view
        store.close()
        go.open()
        assert process.result() is None
    with flightstore.connect(store_dir) as again:
        assert problem(again.get("more").value(), 65) is None
        again.recover()
        assert again.fsck() == []


# --- another thread in the middle of something ---


def in_a_transaction(
    store: Store, inside: threading.Event, go: threading.Event, then: Callable[[], None]
) -> None:
    """Hold a transaction of this process open until told to go on, then do something within it."""

    def work(_: object) -> None:
        inside.set()
        assert go.wait(30)
        then()

    store._conn.write(work)


def test_a_fork_waits_for_the_transaction_of_another_thread(store: Store) -> None:
    store.put(content(64, 1), "kept")
    view = store.get("kept").value()
    inside, go = threading.Event(), threading.Event()
    results: list[str | None] = []

    def child() -> str | None:
        store.put(content(1, 1), "child's")
        return problem(view, 64) or problem(store.get("child's").value(), 1)

    def fork() -> None:
        with start(child) as process:
            results.append(process.result())

    with running(lambda: in_a_transaction(store, inside, go, lambda: None)):
        assert inside.wait(30)
        with running(fork) as forker:
            forker.join(0.1)
            assert forker.is_alive(), "the fork did not wait for the transaction"
            go.set()
    assert results == [None]
    store.put(content(2, 1), "parent's")
    assert problem(store.get("parent's").value(), 2) is None


def test_what_another_thread_got_while_the_fork_waited_is_leased_for_the_child(
    store: Store, churn: Churn
) -> None:
    """The copy of the leases is made when no get can finish any more, not before."""
    store.put(content(64, 1), "kept")
    store.put(content(65, 1), "other")
    other = store.get("other")  # the child gets a client file in any case
    inside, go, finish = threading.Event(), threading.Event(), Gate()
    got: list[object] = []
    results: list[str | None] = []

    def child() -> str | None:
        finish.wait()
        return problem(got[0], 64)

    def fork() -> None:
        with start(child) as process:
            got.clear()
            store.delete("kept")
            churn()
            finish.open()
            results.append(process.result())

    with running(lambda: in_a_transaction(store, inside, go, lambda: got.append(store.get("kept").value()))):
        assert inside.wait(30)
        with running(fork) as forker:
            forker.join(0.1)  # into the hook
            go.set()
    assert results == [None]
    assert problem(other.value(), 65) is None


def test_forks_beside_busy_threads(store: Store) -> None:
    """Threads get and put all the time; each child reads what it inherited, and works."""
    store.put(content(64, 1), "kept")
    view = store.get("kept").value()
    done = threading.Event()

    def busy(number: int) -> None:
        version = 0
        while not done.is_set():
            version += 1
            store.put(content(number, version), f"busy/{number}")
            assert problem(store.get(f"busy/{number}").value(), number) is None

    def child() -> str | None:
        store.put(content(9, 9), "child's")
        return problem(view, 64) or problem(store.get("child's").value(), 9)

    with contextlib.ExitStack() as stack:
        for number in (1, 2, 65):
            stack.enter_context(running(lambda number=number: busy(number)))
        stack.callback(done.set)
        for _ in range(30):
            with start(child) as process:
                assert process.result() is None
    assert problem(view, 64) is None


# --- another process in the middle of something ---


def test_a_fork_does_not_wait_for_a_stopped_writer(
    store: Store, churn: Churn, memory_returns: Returns
) -> None:
    store.put(content(64, 1), "kept")
    store.put(content(65, 1), "parent's")
    view, parents = store.get("kept").value(), store.get("parent's")
    go, finish = Gate(), Gate()
    with start(lambda: store._conn.write(lambda tx: (go.open(), finish.wait())) and None) as writer:
        go.wait()
        with stopped(writer.pid):
            check = Gate()
            began = time.monotonic()
            with start(lambda: check.wait() or problem(view, 64)) as process:
                assert time.monotonic() - began < 30, "half of the time that is waited for a writer"
                serial = parents._live.record.serial
                del parents
                mine = f"{store._conn.client:016x}"
                assert serial in store._conn.clients.entries(mine), "given back before anybody could look"
                finish.open()
                check.open()
                assert process.result() is None
        writer.result()
    store.put(b"", "anything")  # takes the writers' lock, and so thaws
    assert serial not in store._conn.clients.entries(mine)
    store.delete("kept")
    churn()
    assert problem(view, 64) is None
    store.delete(["parent's", "anything"])
    del view
    memory_returns(0)


def test_a_sweep_that_listed_the_clients_before_the_fork_sees_the_childs_view(store: Store) -> None:
    """The case in which the child's own client file helps nobody: the parent's entry must still be there."""
    store.put(content(64, 1), "kept")
    obj = store.get("kept")
    serial = obj._live.record.serial
    listed, forked = Gate(), Gate()

    def sweep() -> bool:
        conn = store._conn

        def look() -> bool:
            names = conn.clients.names()
            listed.open()
            forked.wait()
            return any(serial in conn.clients.entries(name) for name in names)

        return conn.exclusive(look)

    with start(sweep) as sweeper:
        listed.wait()
        view = obj.value()
        with start(lambda: signal.pause() or problem(view, 64)):
            del obj, view
            forked.open()
            assert sweeper.result()


# --- builders ---


@pytest.mark.req("API-7")
def test_a_child_cannot_write_into_what_its_parent_builds(store: Store) -> None:
    builder = store.create(8192, "built")
    builder.buffer[:4] = b"mine"
    view = builder.buffer
    wrote = Gate()

    def child() -> str:
        view[4:9] = b"child"
        wrote.open()
        with pytest.raises(FlightStoreError, match="being built by process"):
            builder.seal()
        builder.abort()
        return bytes(view[:9]).decode()

    with start(child) as process:
        wrote.wait()
        assert process.result() == "minechild"
    builder.buffer[9:13] = b"more"
    builder.seal()
    assert bytes(store.get("built").value()[:13]) == b"mine\0\0\0\0\0more"


# --- multiprocessing ---

CHILD = """
import flightstore
from flightstore.testing.stresspattern import content, problem
with flightstore.connect(path, create=False) as store:
    view = store.get("kept").value()
    assert problem(view, 64) is None
    store.put(content(3, 3), "child's")
    assert problem(store.get("child's").value(), 3) is None
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(store: Store, churn: Churn, method: str) -> None:
    import multiprocessing
    from multiprocessing import forkserver, resource_tracker

    store.put(content(64, 1), "kept")
    view = store.get("kept").value()
    process = multiprocessing.get_context(method).Process(target=exec, args=(CHILD, {"path": store.path}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    store.put(content(4, 4), "parent's")
    process.join(120)
    assert process.exitcode == 0
    process.close()
    if method != "fork":
        forkserver._forkserver._stop()
        resource_tracker._resource_tracker._stop()
    assert problem(store.get("child's").value(), 3) is None
    store.delete("kept")
    churn()
    assert problem(view, 64) is None


@pytest.mark.parametrize("hook", [None, lambda: None], ids=["plain", "preexec_fn"])
def test_subprocess(store: Store, hook: Callable[[], None] | None) -> None:
    import subprocess
    import sys

    store.put(content(64, 1), "kept")
    view = store.get("kept").value()
    source = f"path = {store.path!r}\n{CHILD}"
    subprocess.run([sys.executable, "-c", source], check=True, preexec_fn=hook, timeout=120)
    assert problem(store.get("child's").value(), 3) is None
    assert problem(view, 64) is None


def test_numpy_views_are_inherited(store: Store, churn: Churn) -> None:
    """The lease hangs on the last view, on both sides, whatever its type."""
    store.put(np.arange(5000), "array")
    part = store.get("array").value()[1000:2000:2]
    go = Gate()

    def child() -> bool:
        go.wait()
        return bool((part == np.arange(1000, 2000, 2)).all())

    with start(child) as process:
        store.delete("array")
        del part
        churn()
        go.open()
        assert process.result()
