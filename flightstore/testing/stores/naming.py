"""Tests of a store: what may be a name or an id, and who wins."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flightstore.abc import AbstractStore
from flightstore.errors import InvalidArgument
from flightstore.testing.stores.backend import Backend, value_of
from flightstore.types import ObjectID

__all__ = ["Naming"]

NAMES = [
    "a",
    "with blanks and\nnewlines",
    "a/b/c",
    "../..",
    "/",
    "\0",
    "*",
    "%41",
    "a?b#c&d=e",
    "ünïcode \N{SNOWMAN} \U0001f6f0",
    "0" * 1024,
    "\N{SNOWMAN}" * 341,
    "ID:1f0a",
    "a{",
    " {",
]
NO_NAMES = ["", "0" * 1025, "\N{SNOWMAN}" * 342, "{", '{"id": 1}', "id:", "id:1f0a", "\ud800"]


class Naming(Backend):
    """Names and ids."""

    @pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
    def test_any_text_is_a_name(self, store: AbstractStore, second: AbstractStore, name: str) -> None:
        """1 to 1,024 bytes of UTF-8."""
        object_id = store.put(b"value", name)
        obj = second.get(name)
        assert (obj.id, obj.name, value_of(obj)) == (object_id, name, b"value")
        assert name in second
        assert second.stat(name).name == second.stat(object_id).name == name
        assert [info.name for info in second.list()] == [name]
        assert second.delete(name) == 1
        assert name not in store

    @pytest.mark.parametrize("name", NO_NAMES, ids=range(len(NO_NAMES)))
    def test_what_cannot_be_a_name_is_refused(self, store: AbstractStore, name: str) -> None:
        """By every call, with a ValueError; nothing happens."""
        calls: list[Callable[[], object]] = [
            lambda: store.put(b"", name),
            lambda: store.put_many({"fine": b"", name: b""}),
            lambda: store.get(name),
            lambda: store.get_many([name]),
            lambda: store.stat(name),
            lambda: store.delete(name),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument) as failure:
                call()
            assert isinstance(failure.value, ValueError)
        assert store.list() == []

    @pytest.mark.parametrize("name", [b"bytes", 5, ("a",)], ids=repr)
    def test_a_name_is_text(self, store: AbstractStore, name: object) -> None:
        """Bytes are no id either."""
        with pytest.raises(InvalidArgument):
            store.put(b"", name)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument):
            store.get(name)  # type: ignore[arg-type]
        assert store.list() == []

    def test_plain_bytes_are_no_id(self, store: AbstractStore) -> None:
        """An id is an ObjectID."""
        with pytest.raises(InvalidArgument):
            store.put(b"", object_id=b"plain")  # type: ignore[arg-type]
        assert store.list() == []

    @pytest.mark.parametrize("object_id", [b"\0", b"x" * 20, b"x" * 28, bytes(range(64))], ids=len)
    def test_ids_of_1_to_64_bytes(
        self, store: AbstractStore, second: AbstractStore, object_id: bytes
    ) -> None:
        """Any bytes."""
        mine = ObjectID(object_id)
        assert store.put(b"mine", object_id=mine) == mine
        assert value_of(second.get(mine)) == b"mine"
        assert second.get(mine).name is None

    def test_generated_ids_differ(self, store: AbstractStore) -> None:
        """Always."""
        ids = store.put_many([b""] * 100) + [store.put(b"") for _ in range(10)]
        assert len(set(ids)) == 110

    def test_a_name_and_an_id_of_the_same_text_do_not_meet(self, store: AbstractStore) -> None:
        """A str is a name, an ObjectID an id."""
        store.put(b"by name", "abc")
        store.put(b"by id", object_id=ObjectID(b"abc"))
        assert value_of(store.get("abc")) == b"by name"
        assert value_of(store.get(ObjectID(b"abc"))) == b"by id"
        store.delete("abc")
        assert ObjectID(b"abc") in store

    def test_long_names_that_begin_alike_are_different(self, store: AbstractStore) -> None:
        """However they are kept."""
        names = ["x" * 480, "x" * 481, "x" * 1000 + "1", "x" * 1000 + "2", "x" * 399 + "\N{SNOWMAN}" * 40]
        for name in names:
            store.put(name.encode(), name)
        assert [value_of(store.get(name)) for name in names] == [name.encode() for name in names]
        assert {info.name for info in store.list("x*")} == set(names)
        assert store.delete(names[2]) == 1
        assert names[3] in store
