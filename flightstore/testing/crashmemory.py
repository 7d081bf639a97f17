"""Rows of the crash table for what goes when memory is short: pins, eviction, spilling, restoring.

Importing this module fills `OPERATIONS`, as crashtable.py does for the rest. Spill files lie in a directory
of the scene's own; that they are exactly those that the catalog knows is checked with every scene.
"""

from __future__ import annotations

import itertools
from typing import Any

import pyarrow as pa

from flightstore.store import Store
from flightstore.testing.crashscenes import Scene, pattern, spill_directory
from flightstore.testing.crashtable import Act, register_act

__all__ = ["EVICTABLE"]

EVICTABLE = {f"evictable-{i}": pattern(50 + i, nbytes) for i, nbytes in enumerate((60_000, 60_000, 200_000))}
LARGE = pattern(60, 300_000)
TABLE = pa.table({"n": pa.array(range(9_000))})


def _evictable(store: Store, scene: Scene) -> None:
    """Some objects that may go, one of them with a mark."""
    store.put_many(EVICTABLE, evictable=True)
    store.free("evictable-1")
    scene.before.update(EVICTABLE)
    others = {name: value for name, value in scene.before.items() if name not in EVICTABLE}
    for count in range(len(EVICTABLE)):
        for left in itertools.combinations(EVICTABLE, count):
            scene.between.append({**others, **{name: EVICTABLE[name] for name in left}})


def _full_of_evictable(store: Store, scene: Scene) -> None:
    """No room is left but for what `LARGE` makes go."""
    _evictable(store, scene)
    filler = {f"filler-{number}": pattern(70 + number, 100_000) for number in range(4)}
    store.put_many(filler)
    scene.before.update(filler)
    scene.between = [{**state, **filler} for state in scene.between]
    scene.between += [{**state, "new": GOES_IN} for state in scene.between]


GOES_IN = pattern(61, 354_000)


def _spilling(store: Store, scene: Scene) -> None:
    store.set_spill(spill_directory(scene.path))


def _spilled(store: Store, scene: Scene) -> None:
    """Everything that nobody holds is in files."""
    _spilling(store, scene)
    store.spill()


def _composed(store: Store, scene: Scene) -> None:
    """Bytes with several users."""
    _spilling(store, scene)
    store.put(TABLE, "base")
    store.with_columns("base", {"v": list(range(9_000))}, "made")
    scene.before["base"] = TABLE.to_pydict()
    scene.before["made"] = {**TABLE.to_pydict(), "v": list(range(9_000))}


def _composed_and_spilled(store: Store, scene: Scene) -> None:
    _composed(store, scene)
    store.spill()


def _full_and_spilled(store: Store, scene: Scene) -> None:
    """Spilled objects, and no room for them to come back."""
    _spilled(store, scene)
    name, value = "filler", pattern(80, 980_000)
    store.put(value, name)
    scene.before[name] = value


def _spilling_and_full(store: Store, scene: Scene) -> None:
    """Hardly room; what is there can be spilled."""
    _spilling(store, scene)
    for number in range(8):
        name, value = f"filler-{number}", pattern(80 + number, 100_000)
        store.put(value, name)
        scene.before[name] = value


def _restored(store: Store, scene: Scene) -> None:
    """In memory again, with finished files."""
    _spilled(store, scene)
    for name in ("large", "small"):
        store.get(name).release()


def _read(*names: str) -> Any:
    return lambda store: [bytes(store.get(name).value()) for name in names]


register_act(Act("pin", lambda store: (store.pin(["large", "held"]), store.unpin("held"))))
register_act(Act("free", lambda store: store.free(["large", "small"])))
register_act(
    Act(
        "evict", lambda store: store.evict(70_000), deletes=("evictable-1", "evictable-2"), arrange=_evictable
    )
)
register_act(
    Act(
        "put-evicting",
        lambda store: store.put(GOES_IN, "new"),
        {"new": GOES_IN},
        deletes=("evictable-1", "evictable-2"),
        arrange=_full_of_evictable,
    )
)
register_act(Act("spill", lambda store: store.spill(), arrange=_spilling))
register_act(Act("spill-shared", lambda store: store.spill(), arrange=_composed))
register_act(Act("spill-again", lambda store: store.spill(), arrange=_restored))
register_act(
    Act("put-spilling", lambda store: store.put(LARGE, "new"), {"new": LARGE}, arrange=_spilling_and_full)
)
register_act(Act("get-restoring", _read("large", "small"), arrange=_spilled))
register_act(Act("get-mapping", _read("large", "small"), arrange=_full_and_spilled))
register_act(
    Act(
        "with-columns-spilled",
        lambda store: store.select("made", ["v"], "new"),
        {"new": {"v": list(range(9_000))}},
        arrange=_composed_and_spilled,
    )
)
register_act(
    Act(
        "delete-spilled",
        lambda store: store.delete(["large", "base", "made"]),
        deletes=("large", "base", "made"),
        arrange=_composed_and_spilled,
    )
)
register_act(
    Act("overwrite-spilled", lambda store: store.put(b"new", "large"), {"large": b"new"}, arrange=_spilled)
)
