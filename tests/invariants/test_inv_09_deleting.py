"""INV-9: delete(if_unused=True) only deletes what exists, is sealed and is unused, and does nothing else. A
plain delete: gone for new readers at once, its memory freed after the last reader.
"""

from __future__ import annotations

import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.testing.children import child, start
from flightstore.testing.events import Gate

pytestmark = pytest.mark.req("INV-9")

SIZE = 1 << 20


def is_untouched(store: fs.Store, name: str) -> bool:
    """Whether delete(if_unused=True) does nothing to it: no count, no event, the same information."""
    before, follower = store.stat(name), store.subscribe()
    return store.delete(name, if_unused=True) == 0 and store.stat(name) == before and follower.poll() is None


def test_what_is_in_use_is_left_alone(store: fs.Store) -> None:
    store.put_many({name: bytes(SIZE // 2) for name in ("held", "viewed", "elsewhere", "free")})
    held, view = store.get("held"), memoryview(store.get("viewed").value())
    with Gate("held") as ready, Gate("end") as end:

        def holds() -> None:
            held.release()
            nonlocal view
            view = memoryview(store.get("elsewhere").value())
            ready.open()
            end.wait()

        with start(holds) as process:
            ready.wait()
            assert all(is_untouched(store, name) for name in ("held", "viewed", "elsewhere"))
            assert child(lambda: store.delete(["free", "held", "elsewhere"], if_unused=True)) == 1
            assert not store.contains("free")
            end.open()
            process.result()
    assert store.delete("elsewhere", if_unused=True) == 1, "the dead hold nothing"
    assert all(is_untouched(store, name) for name in ("held", "viewed"))
    held.release()
    del view
    assert store.delete(["held", "viewed"], if_unused=True) == 2


def test_what_does_not_exist_or_is_not_sealed(store: fs.Store) -> None:
    builder = store.create(10, "pending")
    refs = ["absent", "pending", builder.id, fs.ObjectID(b"absent")]
    assert store.delete(refs, if_unused=True) == store.delete(refs) == 0
    view = builder.buffer
    builder.seal()
    assert is_untouched(store, "pending"), "the builder's view holds it"
    del view
    assert store.delete("pending", if_unused=True) == 1


def test_a_member_is_in_use(store: fs.Store) -> None:
    store.put(pa.table({"x": [1]}), "base")
    store.select("base", ["x"], "made").release()
    assert is_untouched(store, "base")
    assert store.delete("made", if_unused=True) == store.delete("base", if_unused=True) == 1


@pytest.mark.parametrize("if_unused", [False, True])
def test_gone_for_all_at_once(store: fs.Store, if_unused: bool) -> None:
    object_id = store.put(bytes(10), "a")

    def finds() -> list[bool]:
        return [
            store.contains("a"),
            store.contains(object_id),
            bool(store.list()),
            bool(store.stats().objects),
        ]

    assert child(finds) == finds() == [True] * 4
    assert store.delete("a", if_unused=if_unused) == 1
    assert child(finds) == finds() == [False] * 4
    for read in (store.get, store.stat, store.holders):
        with pytest.raises(fs.ObjectNotFound):
            read("a")
    assert store.delete("a", if_unused=if_unused) == 0


def test_the_memory_follows_the_last_reader(store: fs.Store) -> None:
    """Readers here and elsewhere read on, whatever is put meanwhile; then the memory is there again."""
    store.put(b"a" * SIZE, "a")
    view = memoryview(store.get("a").value())
    with Gate("held") as ready, Gate("end") as end:

        def reads() -> bool:
            mine = memoryview(store.get("a").value())
            ready.open()
            end.wait()
            return bytes(mine) == b"a" * SIZE

        with start(reads) as process:
            ready.wait()
            assert store.delete("a") == 1
            assert (store.stats().used_bytes, store.stats().dying) == (SIZE, 1)
            store.put(b"b" * SIZE * 3, "b")
            with pytest.raises(fs.StoreFull):
                store.put(b"c" * SIZE, "c")
            assert bytes(view) == b"a" * SIZE
            del view
            with pytest.raises(fs.StoreFull):
                store.put(b"c" * SIZE, "c")
            end.open()
            assert process.result()
    store.put(b"c" * SIZE, "c")
    assert (store.stats().used_bytes, store.stats().dying) == (4 * SIZE, 0)
    assert bytes(store.get("b").value()) == b"b" * SIZE * 3
