"""Many threads on one store, several handles and stores in one process."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

import flightstore
from flightstore import ObjectNotFound, Store, StoreClosed
from flightstore.testing.children import child, start
from flightstore.testing.stresspattern import content, problem

THREADS = 32


def run_threads(bodies: list[Callable[[], object]]) -> list[BaseException]:
    """Run each in a thread of its own, all beginning at once; what they raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(bodies))

    def run(body: Callable[[], object]) -> None:
        try:
            barrier.wait(30)
            body()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
        assert not thread.is_alive(), "a thread hangs"
    return errors


def mix(store: Store, seed: int, rounds: int = 60) -> None:
    """All operations on a handful of names that others use too."""
    chance = random.Random(seed)
    held = []
    for step in range(rounds):
        index = chance.choice((64, 65, 66, 67))
        name = f"shared/{index}"
        move = chance.randrange(8)
        if move <= 2:
            try:
                view = store.get(name).value()
            except ObjectNotFound:
                continue
            assert problem(view, index) is None
            held = [*held[-3:], (view, index)]
        elif move <= 4:
            store.put(content(index, seed * 1000 + step), name)
        elif move == 5:
            with store.create(content(index, step).nbytes, name) as builder:
                builder.buffer[:] = content(index, step).tobytes()
        elif move == 6:
            store.delete(name, if_unused=chance.random() < 0.5)
        else:
            ids = store.put_many([content(1, seed), content(2, seed)])
            for number, obj in enumerate(store.get_many(ids), 1):
                assert problem(obj.value(), number) is None
            assert store.wait(ids, timeout=60)[1] == []
            assert store.delete(ids) == 2
        for view, at in held:
            assert problem(view, at) is None


@pytest.mark.req("API-3", "API-8", "API-13", "INV-1")
def test_32_threads_on_one_store(store: Store) -> None:
    assert run_threads([lambda seed=seed: mix(store, seed) for seed in range(THREADS)]) == []
    store.recover()
    assert store.stats().leases == 0


@pytest.mark.req("API-1")
def test_two_handles_on_one_path(store: Store) -> None:
    with flightstore.connect(store.path) as other:
        assert run_threads([lambda seed=seed: mix((store, other)[seed % 2], seed) for seed in range(8)]) == []
        other.put(b"x", "from the other")
    assert bytes(store.get("from the other").value()) == b"x"
    assert store.stats().clients == 1


@pytest.mark.req("API-1")
def test_two_stores_side_by_side(store: Store, store_dir: Path) -> None:
    second_dir = store_dir.with_name("second")
    with flightstore.connect(second_dir, capacity="16MiB") as second:
        assert (
            run_threads([lambda seed=seed: mix((store, second)[seed % 2], seed) for seed in range(8)]) == []
        )
        store.put(content(1, 1), "only")
        second.put(content(1, 2), "only")
        assert len(store.get("only").value()) != len(second.get("only").value())

        def read_both() -> str | None:
            return problem(store.get("only").value(), 1) or problem(second.get("only").value(), 1)

        with start(read_both) as process:
            assert process.result() is None
        second.recover()
        assert second.fsck() == []


@pytest.mark.req("API-1")
def test_closing_one_handle_while_others_work(store: Store) -> None:
    def open_and_close() -> None:
        for _ in range(50):
            with flightstore.connect(store.path) as other:
                other.put(content(3, 1), "mine")
                assert other.contains("mine")

    bodies: list[Callable[[], object]] = [lambda seed=seed: mix(store, seed) for seed in range(4)]
    assert run_threads([*bodies, open_and_close, open_and_close]) == []


@pytest.mark.req("API-1")
@pytest.mark.parametrize("nbytes", [100, 6 << 20], ids=["small", "large"])
def test_closing_the_last_handle_while_threads_work(store_dir: Path, nbytes: int) -> None:
    """They finish what they are doing, or get StoreClosed; none reads or writes what it has no claim on."""
    piece = content(3, 1).tobytes() + bytes(nbytes)
    for _ in range(20):
        handle = flightstore.connect(store_dir, capacity="32MiB")

        def work(handle: Store = handle) -> None:
            def use() -> None:
                while True:
                    handle.put(piece, "worked")
                    assert bytes(handle.get("worked").value()[:100]) == piece[:100]

            with pytest.raises(StoreClosed):
                use()

        assert run_threads([work, work, handle.close]) == []
    with flightstore.connect(store_dir) as again:
        assert again.stats().leases == 0
        assert again.stats().clients == 1
        again.recover()
        assert again.fsck() == []


@pytest.mark.req("API-1", "FAIL-3")
def test_the_last_handle_goes_while_a_put_copies(store_dir: Path) -> None:
    """What is pending belongs to the client file, which therefore stays until the put is through."""
    store = flightstore.connect(store_dir, capacity="16MiB")
    inside, go = threading.Event(), threading.Event()

    def pause(frame: FrameType, event: str, _: object) -> None:
        if frame.f_code.co_name == "copy_pieces" and not inside.is_set():
            inside.set()
            assert go.wait(30)

    def put() -> None:
        sys.settrace(pause)
        try:
            store.put(bytes(1 << 20), "late")
        finally:
            sys.settrace(None)

    def close() -> None:
        assert inside.wait(30)
        store.close()
        try:
            assert child(lambda: recovered(store_dir)) == 0, "somebody took what is being written"
        finally:
            go.set()

    assert run_threads([put, close]) == []
    with flightstore.connect(store_dir) as again:
        assert bytes(again.get("late").value()) == bytes(1 << 20)
        again.recover()
        assert again.fsck() == []


def recovered(path: Path) -> int:
    """How many objects a recovery from another process aborts."""
    with flightstore.connect(path) as store:
        return store.recover().aborted_objects
