"""Who is dead, and who only looks so: client files of the killed, the forked, the many and the foreign."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import time
from pathlib import Path

import pytest

import flightstore.store  # all of it now: not in every child
from flightstore.memory import kernel
from flightstore.memory.clients import Clients
from flightstore.memory.leases import CLIENT_HEADER, new_client_file
from flightstore.testing.faults import Gate, child, start, wait_until

pytestmark = pytest.mark.req("FAIL-2", "FAIL-3", "INV-2")

MIB = 1 << 20


def hold(path: str, ready: Gate) -> None:
    """Hold an object, be creating another one, and wait for the end."""
    store = flightstore.connect(path)
    held = store.get("held")
    building = store.create(MIB, "unsealed")
    ready.open()
    signal.pause()
    del held, building


def test_what_a_killed_client_held_is_released(store_dir: str, store: flightstore.Store) -> None:
    store.put(bytes(MIB), "held")
    with Gate("holding") as ready, start(hold, store_dir, ready) as process:
        ready.wait()
        assert [holder.pid for holder in store.holders("held")] == [process.pid]
        store.delete("held")
        assert store.recover().freed_objects == 0
        assert (store.stats().dying, store.stats().pending) == (1, 1)
        process.kill()
        report = store.recover()
    assert (report.dead_clients, report.aborted_objects, report.freed_objects) == (1, 1, 2)
    assert report.freed_bytes == 2 * MIB
    assert store.stats().used_bytes == 0


def test_an_ended_process_nobody_waited_for_is_dead(store_dir: str, store: flightstore.Store) -> None:
    """Its lock is kept alive by a child that C code forked, and its pid by its parent: two appearances."""
    store.put(bytes(MIB), "held")
    with Gate("holding") as ready, Gate("end") as end:

        def fork_in_c_and_end() -> None:
            mine = flightstore.connect(store_dir)
            held = mine.get("held")
            if ctypes.PyDLL(None).fork() == 0:  # no hooks of Python run
                end.wait()
                os._exit(0)
            ready.open()
            assert held is not None
            os._exit(0)

        pid = os.fork()
        if pid == 0:
            fork_in_c_and_end()
        try:
            ready.wait()
            wait_until(lambda: kernel.process_state(pid) == "Z", what="the process ends")

            def is_dead() -> bool:  # its first thread is; the others may still be on their way out
                locked = [info for info in Clients(store_dir).infos() if info.pid == pid]
                return [info.alive for info in locked] == [False]

            wait_until(is_dead, what="the process is found dead")
            store.delete("held")
            report = store.recover()
            assert (report.dead_clients, report.freed_objects) == (1, 1)
        finally:
            os.waitpid(pid, 0)
            end.open()


def test_a_pid_that_was_used_again_is_not_its_predecessor(store_dir: str, store: flightstore.Store) -> None:
    """The file is locked (by us, here), and its header names a living process of another start time."""
    file = new_client_file(store_dir, 0o600)
    file.sign()
    file.publish(os.path.join(store_dir, "clients", f"{file.client:016x}"))
    name = os.path.basename(file.path)
    assert store._conn.clients.alive(name)
    start_at = struct.calcsize("<8sII")
    header = CLIENT_HEADER.unpack_from(file.words)
    file.words.cast("B")[start_at : start_at + 8] = struct.pack("<Q", header[3] - 1)
    assert not store._conn.clients.alive(name)
    assert store.recover().dead_clients == 1
    file.close()


def test_foreign_files_are_left_alone(store_dir: str, store: flightstore.Store) -> None:
    clients = Path(store_dir) / "clients"
    (clients / "README").write_text("not a client")
    (clients / "directory").mkdir()
    (clients / "0123").write_bytes(bytes(9000))
    os.mkfifo(clients / "pipe")
    (Path(store_dir) / "new" / "theirs").touch()
    store.put(b"x", "kept")
    store.delete("kept")
    assert store.recover().dead_clients == 0
    findings = store.fsck()
    assert len(findings) == 4
    assert all("is not a client's" in finding.message for finding in findings)
    assert store.stats().clients == 1
    assert sorted(os.listdir(clients))[:1] == ["0123"]
    (clients / "README").unlink()
    (clients / "directory").rmdir()
    (clients / "0123").unlink()
    (clients / "pipe").unlink()
    assert (Path(store_dir) / "new" / "theirs").exists()


def test_connecting_while_others_recover(store_dir: str) -> None:
    """Between its making and its locking, a recovery may take a client's file for a dead one's."""
    child(lambda: flightstore.connect(store_dir, capacity=MIB).close())
    with Gate("done") as done:

        def recover() -> int:
            with flightstore.connect(store_dir) as mine:
                count = 0
                while not done.is_open:
                    mine.recover()
                    count += 1
                return count

        def connect() -> None:
            for _ in range(300):
                with flightstore.connect(store_dir) as mine:
                    assert mine.stats().clients >= 1

        with start(recover) as first, start(connect) as second:
            second.result()
            done.open()
            assert first.result() > 0

    def check() -> None:
        with flightstore.connect(store_dir) as mine:
            mine.recover()
            assert mine.fsck() == []

    child(check)


def test_two_recoveries_and_a_growth_at_the_same_address(store: flightstore.Store) -> None:
    """The second one must not punch what a living client grows from where the dead one's range began."""
    from flightstore.catalog.transaction import GROWING
    from flightstore.lifecycle import recovery

    conn = store._conn
    dead = (0, MIB, GROWING, 12345)

    def leave(tx: object) -> None:
        ((start, end),) = tx.cold.ranges()  # type: ignore[attr-defined]
        tx.cold.apply([(start, end)], [(MIB, end)])  # type: ignore[attr-defined]
        tx.add_transit(*dead)  # type: ignore[attr-defined]
        tx.counters.backed_bytes += MIB  # type: ignore[attr-defined]

    conn.write(leave)
    seen = conn.write(lambda tx: recovery._disown(conn, tx, set(), False)[2])
    assert seen == [dead]
    assert store.recover().repaired_ranges == 1  # the other recovery is faster
    store.put(b"\x05" * MIB, "grown there")
    recovery._return_ranges(conn, seen)
    assert bytes(store.get("grown there")) == b"\x05" * MIB


@pytest.mark.slow
def test_a_thousand_clients(store_dir: str, store: flightstore.Store) -> None:
    """Dead ones and live ones; sweeping and checking stay far below a second."""
    store.put(bytes(1000), "held")
    files = []
    for _ in range(1000):
        file = new_client_file(store_dir, 0o600)
        file.sign()
        file.publish(os.path.join(store_dir, "clients", f"{file.client:016x}"))
        files.append(file)
    assert store.stats().clients >= 1000
    store.put(bytes(1000), "another")
    store.delete("another")
    begun = time.perf_counter()
    assert store.recover().freed_objects == 1
    swept = time.perf_counter() - begun
    begun = time.perf_counter()
    assert store.fsck() == []
    print(f"\n1,000 clients: recover {swept * 1e3:.0f} ms, fsck {(time.perf_counter() - begun) * 1e3:.0f} ms")
    for file in files[::2]:
        file.close()
        file.words = memoryview(b"")  # Python's mmap keeps a copy of the descriptor, and so the lock
    assert store.recover().dead_clients == 500
    for file in files[1::2]:
        file.discard()


@pytest.mark.slow
def test_a_hundred_thousand_leases_in_one_process(store_dir: str, store: flightstore.Store) -> None:
    ids = store.put_many([b"%d" % n for n in range(1000)])
    held = [store.get(ids[n % 1000]) for n in range(100_000)]
    assert store.stats().leases == 100_000
    store.delete(ids[:500])
    begun = time.perf_counter()
    assert store.recover().freed_objects == 0
    swept = time.perf_counter() - begun
    begun = time.perf_counter()
    assert store.fsck() == []
    print(
        f"\n100,000 leases: recover {swept * 1e3:.0f} ms, fsck {(time.perf_counter() - begun) * 1e3:.0f} ms"
    )
    assert all(bytes(one) == b"%d" % (n % 1000) for n, one in enumerate(held) if n % 97 == 0)
    del held
    assert store.stats().leases <= 1
    assert store.recover().freed_objects == 500
