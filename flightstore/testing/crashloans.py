"""Rows of the crash table for objects made of somebody else's memory.

Importing this module fills `OPERATIONS`, as crashtable.py does for the rest. The lender is memory of the
process that runs the table, which outlives every victim.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from flightstore.store import Store
from flightstore.testing.crashscenes import Scene
from flightstore.testing.crashtable import TABLE, Act, register_act
from flightstore.testing.lenders import Lender

__all__ = ["LENT"]

LENT = TABLE.to_pydict()


@cache
def _lent() -> tuple[Any, Lender]:
    """The table in the lender's memory."""
    lender = Lender(capacity_bytes=1 << 18)
    return lender.moved(TABLE), lender


def _put(store: Store, name: str) -> None:
    table, lender = _lent()
    store.put_borrowed(table, lender.loan(), name)


def _make(store: Store, scene: Scene) -> None:
    """The lender, before the fork."""
    _lent()


def _base(store: Store, scene: Scene) -> None:
    """A borrowed table, and one made of it."""
    _put(store, "lent")
    store.select("lent", ["number"], "part")
    scene.before["lent"] = LENT
    scene.before["part"] = {"number": LENT["number"]}


def _persisted(store: Store, scene: Scene) -> None:
    """The same, persisted: the loan is over with the next look."""
    _base(store, scene)
    store.get("part").persist()


def _delete(store: Store) -> None:
    store.delete(["lent", "part"])
    store.recover()


register_act(Act("put-borrowed", lambda store: _put(store, "new"), {"new": LENT}, arrange=_make))
register_act(Act("put-borrowed-over", lambda store: _put(store, "lent"), {"lent": LENT}, arrange=_base))
register_act(Act("persist", lambda store: store.get("part").persist(), arrange=_base))
register_act(Act("loan-over", lambda store: store.recover(), arrange=_persisted))
register_act(Act("delete-borrowed", _delete, deletes=("lent", "part"), arrange=_base))
