"""Rows of the crash table for tables that are composed of others, and tables that are built in place.

Importing this module fills `OPERATIONS`, as crashtable.py does for the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from flightstore.lifecycle import tablebuilding
from flightstore.objects import columns, inplace, table
from flightstore.store import Store
from flightstore.testing.crashscenes import Scene
from flightstore.testing.crashtable import Act, register_act

__all__ = ["BASE_TABLE", "LONG_COLUMN"]

assert columns, inplace  # the store imports these when they are first needed: here once, not in each child
assert table, tablebuilding

BASE_TABLE = pa.table({"n": pa.array(range(50)), "s": [f"row {i}" for i in range(50)]})
LONG_COLUMN = [f"{i:02000}" for i in range(50)]
"""More bytes than a put of one transaction takes."""


def _with(name: str, values: Any) -> dict[str, Any]:
    return {**BASE_TABLE.to_pydict(), name: list(values)}


def _base(store: Store, scene: Scene) -> None:
    """A table, and something composed of it."""
    store.put(BASE_TABLE, "base")
    scene.before["base"] = BASE_TABLE.to_pydict()


def _composed(store: Store, scene: Scene) -> None:
    _base(store, scene)
    store.with_columns("base", {"n": list(range(50, 100))}, "made")
    scene.before["made"] = _with("n", range(50, 100))


def _many(store: Store, scene: Scene) -> None:
    """So many tables that what is made of them is folded."""
    for index in range(60):
        store.put(pa.table({"n": [index]}), f"part-{index}")
        scene.before[f"part-{index}"] = {"n": [index]}


SHORT = list(range(50))

register_act(
    Act(
        "with-columns",
        lambda store: store.with_columns("base", {"v": SHORT}, "new"),
        {"new": _with("v", SHORT)},
        arrange=_base,
    )
)
register_act(
    Act(
        "with-columns-large",
        lambda store: store.with_columns("base", {"v": LONG_COLUMN}, "new"),
        {"new": _with("v", LONG_COLUMN)},
        arrange=_base,
    )
)
register_act(
    Act(
        "with-columns-over-itself",
        lambda store: store.with_columns("base", {"v": SHORT}, "base"),
        {"base": _with("v", SHORT)},
        arrange=_base,
    )
)
register_act(
    Act(
        "select",
        lambda store: store.select("made", ["s"], "new"),
        {"new": {"s": BASE_TABLE["s"].to_pylist()}},
        arrange=_composed,
    )
)
register_act(
    Act(
        "concat-folded",
        lambda store: store.concat([f"part-{index}" for index in range(60)], "new"),
        {"new": {"n": list(range(60))}},
        arrange=_many,
    )
)


def _folded(store: Store, scene: Scene) -> None:
    _many(store, scene)
    store.concat([f"part-{index}" for index in range(60)], "made")
    store.delete([f"part-{index}" for index in range(60)])
    for index in range(60):
        del scene.before[f"part-{index}"]
    scene.before["made"] = {"n": list(range(60))}


def _delete_and_sweep(store: Store) -> None:
    store.delete("made")
    store.recover()


register_act(Act("delete-folded", _delete_and_sweep, deletes=("made",), arrange=_folded))


def _left(store: Store, scene: Scene) -> None:
    """A composed table whose member has lost its name to it."""
    store.put(BASE_TABLE, "made")
    store.with_columns("made", {"v": SHORT}, "made")
    scene.before["made"] = _with("v", SHORT)


register_act(Act("delete-with-member", _delete_and_sweep, deletes=("made",), arrange=_left))

SCHEMA = pa.schema([pa.field("n", pa.int64()), pa.field("b", pa.bool_())])


def _fill(store: Store, schema: pa.Schema) -> Any:
    builder = store.create_table(schema, 50, "new")
    builder["n"][:] = np.arange(50)
    builder["b"][:] = True
    builder.mask("b")[:] = np.arange(50) % 2 == 0
    return builder


FILLED = {"n": list(range(50)), "b": [None, True] * 25}


def _build(store: Store) -> None:
    _fill(store, SCHEMA).seal()


def _build_with_text(store: Store) -> None:
    builder = _fill(store, SCHEMA.append(pa.field("s", pa.string())))
    builder["s"] = LONG_COLUMN
    builder.seal()


def _abort(store: Store) -> None:
    _fill(store, SCHEMA).abort()


register_act(Act("create-table", _build, {"new": FILLED}))
register_act(Act("create-table-with-text", _build_with_text, {"new": {**FILLED, "s": LONG_COLUMN}}))
register_act(Act("create-table-abort", _abort))
