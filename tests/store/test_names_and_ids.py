"""Names and ids: what they may be, who wins, and what overwriting does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import flightstore as fs
from flightstore import ObjectID
from flightstore.testing.children import child

NAMES = [
    "a",
    "with blanks and\nnewlines",
    "a/b/c",
    "../..",
    "\0",
    "*",
    "ünïcode \N{SNOWMAN} \U0001f6f0",
    "0" * 1024,
    "\N{SNOWMAN}" * 341,
    "ID:1f0a",
    "a{",
    " {",
]


@pytest.mark.req("API-11")
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_text_is_a_name(store: fs.Store, name: str) -> None:
    object_id = store.put(b"value", name)
    obj = store.get(name)
    assert (obj.id, obj.name, bytes(obj.value())) == (object_id, name, b"value")  # type: ignore[attr-defined]
    assert name in store


@pytest.mark.req("API-11")
@pytest.mark.parametrize(
    "name", ["", "0" * 1025, "\N{SNOWMAN}" * 342, "{", '{"id": 1}', "id:", "id:1f0a", "\ud800"], ids=range(8)
)
def test_what_cannot_be_a_name_is_refused(store: fs.Store, name: str) -> None:
    with pytest.raises(fs.InvalidArgument):
        store.put(b"", name)
    with pytest.raises(fs.InvalidArgument):
        store.create(1, name)
    with pytest.raises(fs.InvalidArgument):
        store.get(name)
    assert store.stats().objects == store.stats().pending == 0


@pytest.mark.parametrize("name", [b"bytes", 5, ("a",)])
def test_a_name_is_text(store: fs.Store, name: object) -> None:
    with pytest.raises(fs.InvalidArgument, match="name is a str"):
        store.put(b"", name)  # type: ignore[arg-type]
    with pytest.raises(fs.InvalidArgument, match="name is a str"):
        store.get(name)  # type: ignore[arg-type]


@pytest.mark.req("API-11")
def test_long_names_that_begin_alike_are_different(store: fs.Store) -> None:
    names = ["x" * 480, "x" * 481, "x" * 1000 + "1", "x" * 1000 + "2", "x" * 399 + "\N{SNOWMAN}" * 40]
    for name in names:
        store.put(name.encode(), name)
    assert [bytes(store.get(name).value()) for name in names] == [name.encode() for name in names]
    assert {info.name for info in store.list("x*")} == set(names)
    assert store.delete(names[2]) == 1
    assert store.contains(names[3])


@pytest.mark.req("API-11")
@pytest.mark.parametrize("object_id", [b"\0", b"x" * 20, b"x" * 28, bytes(range(64))], ids=len)
def test_ids_of_1_to_64_bytes(store: fs.Store, object_id: bytes) -> None:
    assert store.put(b"mine", object_id=ObjectID(object_id)) == object_id
    assert store.get(ObjectID(object_id)).value() == b"mine"


@pytest.mark.parametrize("object_id", [b"", b"x" * 65])
def test_other_lengths_are_no_ids(object_id: bytes) -> None:
    with pytest.raises(fs.InvalidArgument, match="1 to 64 bytes"):
        ObjectID(object_id)


def test_plain_bytes_are_no_id(store: fs.Store) -> None:
    with pytest.raises(fs.InvalidArgument, match="ObjectID"):
        store.put(b"", object_id=b"plain")  # type: ignore[arg-type]
    with pytest.raises(fs.InvalidArgument, match="ObjectID"):
        store.create(1, object_id=b"plain")  # type: ignore[arg-type]


def test_ids_as_text() -> None:
    object_id = ObjectID.random()
    assert str(object_id) == f"id:{object_id.hex()}"
    assert ObjectID.from_text(str(object_id)) == ObjectID.from_text(object_id.hex()) == object_id
    with pytest.raises(fs.InvalidArgument, match="not an object id"):
        ObjectID.from_text("id:xyz")


@pytest.mark.req("API-11")
def test_a_name_and_an_id_of_the_same_text_do_not_meet(store: fs.Store) -> None:
    store.put(b"by name", "abc")
    store.put(b"by id", object_id=ObjectID(b"abc"))
    assert store.get("abc").value() == b"by name"
    assert store.get(ObjectID(b"abc")).value() == b"by id"


@pytest.mark.req("API-11")
def test_a_taken_id_is_refused(store: fs.Store) -> None:
    taken, pending = ObjectID(b"sealed"), ObjectID(b"pending")
    store.put(b"first", object_id=taken)
    builder = store.create(10, object_id=pending)
    for object_id in (taken, pending):
        for value in (b"second", bytes(100_000)):
            with pytest.raises(fs.ObjectExists, match=str(object_id)):
                store.put(value, object_id=object_id)
        with pytest.raises(fs.ObjectExists, match=str(object_id)):
            store.create(10, object_id=object_id)
    builder.abort()
    assert store.put(b"second", object_id=pending) == pending
    store.delete(taken)
    assert store.put(b"third", object_id=taken) == taken


@pytest.mark.req("API-11", "O-1")
def test_names_and_ids_work_from_any_process(store: fs.Store) -> None:
    object_id = child(store.put, b"from a child", "theirs")
    assert store.get("theirs").value() == store.get(object_id).value() == b"from a child"
    mine = store.put(b"from the parent", "mine")
    assert child(lambda: (bytes(store.get("mine").value()), store.get(mine).name)) == (
        b"from the parent",
        "mine",
    )


@pytest.mark.req("API-11")
@pytest.mark.parametrize("nbytes", [10, 200_000])
def test_overwriting_a_name_deletes_the_old_object(store: fs.Store, nbytes: int) -> None:
    old_id = store.put(b"o" * nbytes, "name")
    reader = store.get("name")
    view = reader.value()
    new_id = store.put(b"n" * nbytes, "name")
    assert store.get("name").id == new_id
    assert old_id not in store
    with pytest.raises(fs.ObjectNotFound):
        store.get(old_id)
    assert view == b"o" * nbytes
    assert reader.value() == b"o" * nbytes
    assert store.stats().objects == 1


@pytest.mark.req("API-11")
def test_overwriting_happens_at_the_seal(store: fs.Store) -> None:
    store.put(b"old", "name")
    with store.create(3, "name") as builder:
        builder.buffer[:] = b"new"
        assert store.get("name").value() == b"old"
    assert store.get("name").value() == b"new"


def test_overwriting_in_vain_changes_nothing(store: fs.Store, another: Callable[[], fs.Store]) -> None:
    store.put(b"old", "name")
    with pytest.raises(fs.StoreFull):
        another().put(bytes(17 << 20), "name")
    with pytest.raises(fs.NotStorable):
        store.put(lambda: None, "name")
    assert store.get("name").value() == b"old"
