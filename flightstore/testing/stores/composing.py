"""Tests of a store: with_columns, select, drop, rename, concat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flightstore.abc import AbstractStore
from flightstore.errors import InvalidArgument, ObjectExists, ObjectNotFound
from flightstore.testing.stores.backend import Backend, Capability, needs
from flightstore.types import ObjectID

__all__ = ["Composing"]

ROWS = 20_000
TABLE = pa.table(
    {
        "n": np.arange(ROWS),
        "x": np.linspace(0, 1, ROWS),
        "s": [f"row {number}" for number in range(ROWS)],
    },
    metadata={"made": "here"},
)
NEW = np.arange(ROWS) * 2.5
HEADERS = 8 << 10
"""What a composed object may cost beside new columns."""


def arrow(obj: Any) -> pa.Table:
    """The object as a table."""
    return obj.to_arrow()


class Composing(Backend):
    """with_columns, select, drop, rename, concat."""

    @pytest.fixture
    def orders(self, store: AbstractStore) -> ObjectID:
        """A stored table named ``orders``."""
        return store.put(TABLE, "orders")

    @needs(Capability.COMPOSITION)
    def test_each_way_of_composing(
        self, store: AbstractStore, second: AbstractStore, orders: ObjectID
    ) -> None:
        """By name, by id and of an object; the result is there for everybody."""
        made = {
            "with": store.with_columns("orders", {"vat": NEW}, "with"),
            "replaced": store.with_columns(orders, {"x": NEW}, "replaced"),
            "selected": store.select(store.get("orders"), ["s", "n"], "selected"),
            "dropped": store.drop("orders", ["x"], "dropped"),
            "renamed": store.rename("orders", {"n": "number"}, "renamed"),
            "longer": store.concat(["orders", orders, store.get("orders")], "longer"),
        }
        expected = {
            "with": TABLE.append_column("vat", pa.array(NEW)),
            "replaced": TABLE.set_column(1, "x", pa.array(NEW)),
            "selected": TABLE.select(["s", "n"]),
            "dropped": TABLE.drop_columns(["x"]),
            "renamed": TABLE.rename_columns(["number", "x", "s"]).replace_schema_metadata({"made": "here"}),
            "longer": pa.concat_tables([TABLE] * 3),
        }
        for name, table in expected.items():
            assert arrow(made[name]).equals(table, check_metadata=True), name
            assert arrow(second.get(name)).equals(table, check_metadata=True), name
            assert second.get(name).id == made[name].id
        assert arrow(store.get("orders")).equals(TABLE, check_metadata=True)

    @needs(Capability.COMPOSITION)
    def test_composed_tables_can_be_composed(self, store: AbstractStore, orders: ObjectID) -> None:
        """As often as is wanted."""
        made = store.with_columns(orders, {"vat": NEW})
        made = store.rename(store.select(made, ["vat", "n"]), {"n": "number"})
        made = store.concat([made, made])
        expected = pa.table({"vat": np.tile(NEW, 2), "number": np.tile(np.arange(ROWS), 2)})
        assert arrow(made).cast(expected.schema).equals(expected)

    @needs(Capability.COMPOSITION)
    @pytest.mark.usefixtures("orders")
    def test_the_original_may_go(self, store: AbstractStore) -> None:
        """What was made of it stays whole, whatever is put meanwhile."""
        store.with_columns("orders", {"vat": NEW}, "vat")
        store.select("vat", ["vat", "s"], "part")
        store.delete("orders")
        store.put(b"", "vat")
        store.recover()
        for number in range(4):
            store.put(bytes([number]) * (1 << 20), f"other-{number}")
        expected = pa.table({"vat": NEW, "s": TABLE["s"]}).replace_schema_metadata({"made": "here"})
        assert arrow(store.get("part")).equals(expected)

    @needs(Capability.COMPOSITION)
    @pytest.mark.usefixtures("orders")
    def test_the_new_object_takes_a_name_an_id_and_metadata(self, store: AbstractStore) -> None:
        """As put does."""
        mine = ObjectID(b"mine")
        made = store.select("orders", ["n"], "orders", object_id=mine, metadata={"why": "because"})
        assert (made.id, made.name, made.metadata) == (mine, "orders", {"why": "because"})
        assert arrow(store.get("orders")).column_names == ["n"]
        assert store.stat(mine).metadata == {"why": "because"}
        with pytest.raises(ObjectExists):
            store.select("orders", ["n"], object_id=mine)

    @needs(Capability.COMPOSITION)
    @pytest.mark.usefixtures("orders")
    def test_what_is_refused(self, store: AbstractStore) -> None:
        """With a ValueError that names the column, and nothing happens."""
        store.put(np.zeros(3), "tensor")
        calls: list[tuple[str, Any]] = [
            ("'vat'", lambda: store.with_columns("orders", {"vat": [1, 2, 3]}, "bad")),
            ("'z'", lambda: store.select("orders", ["n", "z"], "bad")),
            ("'z'", lambda: store.drop("orders", ["z"], "bad")),
            ("'z'", lambda: store.rename("orders", {"z": "y"}, "bad")),
            ("nothing|empty|none", lambda: store.concat([], "bad")),
            ("tensor", lambda: store.rename("tensor", {}, "bad")),
            ("name", lambda: store.select("orders", ["n"], "{")),
        ]
        for named, call in calls:
            with pytest.raises(InvalidArgument, match=named):
                call()
        with pytest.raises(ObjectNotFound):
            store.select("nothing", ["n"])
        assert [info.name for info in store.list()] == ["orders", "tensor"]

    @needs(Capability.COMPOSITION, Capability.ACCOUNTING)
    @pytest.mark.usefixtures("orders")
    def test_a_new_column_costs_its_own_bytes(self, store: AbstractStore) -> None:
        """And selections, names and rows that are there cost nothing."""
        before = store.stats().used_bytes
        kept = [
            store.select("orders", ["s"]),
            store.rename("orders", {"n": "m"}),
            store.concat(["orders", "orders"]),
        ]
        assert store.stats().used_bytes - before <= len(kept) * HEADERS
        before = store.stats().used_bytes
        kept.append(store.with_columns("orders", {"vat": NEW}))
        assert NEW.nbytes <= store.stats().used_bytes - before <= NEW.nbytes + HEADERS

    @needs(Capability.COMPOSITION, Capability.ZERO_COPY)
    @pytest.mark.usefixtures("orders")
    def test_columns_are_shared(self, store: AbstractStore) -> None:
        """The same memory, in the old table and the new ones."""
        made = store.with_columns("orders", {"vat": NEW})
        places = [
            arrow(table)["x"].chunk(0).buffers()[1].address
            for table in (store.get("orders"), made, store.select(made, ["x"]))
        ]
        assert len(set(places)) == 1
