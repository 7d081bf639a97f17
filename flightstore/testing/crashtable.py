"""The operations that are killed at every line: what each does, and what it changes.

Lives here: the table's ordinary rows, each an `Act` on the stage of crashscenes.py. Rows with a stage or a
check of their own (making, destroying and recovering a store, forks) are in crashspecial.py. Importing this
module fills `OPERATIONS`.

Every act is registered twice. ``NAME``: the process that survives was connected before the fork and holds an
object, and the victim works with the connection it inherited. ``NAME@newcomer``: the victim connects by
itself, and whoever checks connects after its death.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

import flightstore
from flightstore.errors import ObjectNotFound, StoreFull
from flightstore.store import Store
from flightstore.testing.crashscenes import (
    CAPACITY_BYTES,
    Scene,
    close_scene,
    open_scene,
    pattern,
    verify_scene,
)
from flightstore.testing.operations import Operation, register

__all__ = ["Act", "register_act", "victim_store"]

NEWCOMER = "@newcomer"
WAIT_S = 0.03
"""Waits in vain last so long that a busy machine does not lead past them, and past the lines to kill at."""

SMALL, LARGE = pattern(11, 2_000), pattern(12, 100_000)
GROWS = pattern(13, 200_000)
"""More than is left of the memory that a scene's store has backed."""
SWEPT = {f"dead-{i}": pattern(30 + i, 40_000) for i in range(4)}
"""Enough bytes that deleting them sweeps at once: an eighth of the capacity."""
CROWD = {f"dead-{i}": pattern(30, 500) for i in range(33)}
"""Few enough objects that deleting them does not."""
TABLE = pa.table({"number": pa.array(range(100)), "text": [f"row {i}" for i in range(99)] + [None]})


@dataclass(frozen=True, slots=True)
class Act:
    """Something a client does in one call or a few."""

    name: str
    """Its name in the table."""
    run: Callable[[Any], object]
    """The act; what it is killed in."""
    puts: Mapping[str, Any] | None = None
    """Names and values that it adds or replaces."""
    deletes: tuple[str, ...] = ()
    """Names that it takes away."""
    arrange: Callable[[Store, Scene], object] | None = None
    """What the store holds beyond the base; done here, before the fork."""
    ready: Callable[[Store], object] | None = None
    """Done by the victim before it can be killed; the result is handed to `run` instead of the store."""


def register_act(act: Act) -> None:
    """Add both rows of an act to the table."""
    for survivor in (True, False):

        def prepare(survivor: bool = survivor) -> Scene:
            return _prepared(act, survivor=survivor)

        def setup(scene: Scene) -> Any:
            store = victim_store(scene)
            return act.ready(store) if act.ready else store

        name = act.name if survivor else act.name + NEWCOMER
        register(Operation(name, prepare, act.run, verify_scene, setup=setup, cleanup=close_scene))


def victim_store(scene: Scene) -> Store:
    """The store as the victim uses it: the inherited connection, or one of its own."""
    return scene.survivor or flightstore.connect(scene.path, create=False)


def _prepared(act: Act, *, survivor: bool) -> Scene:
    scene = open_scene(survivor=survivor)
    if act.arrange is not None:
        store = victim_store(scene)
        act.arrange(store, scene)
        if not survivor:
            store.close()
    changed = {name: value for name, value in scene.before.items() if name not in act.deletes}
    scene.after = {**changed, **(act.puts or {})}
    return scene


def _fill(store: Store, scene: Scene) -> None:
    """Back all memory the capacity allows, with holes that are too small for GROWS."""
    filler = pattern(14, 100_000)
    names: list[str] = []
    with contextlib.suppress(StoreFull):
        while True:
            names.append(store_name := f"filler-{len(names)}")
            store.put(filler, store_name)
    names.pop()
    store.delete(names[::2])
    store.recover()
    scene.before.update(dict.fromkeys(names[1::2], filler))


# --- putting ---

register_act(Act("put-small", lambda store: store.put(SMALL, "new"), {"new": SMALL}))
register_act(
    Act(
        "put-metadata",
        lambda store: store.put(b"", "new", metadata={"long": "m" * 1_000}),
        {"new": b""},
    )
)
register_act(Act("put-large", lambda store: store.put(LARGE, "new"), {"new": LARGE}))
register_act(Act("put-table", lambda store: store.put(TABLE, "new"), {"new": TABLE.to_pydict()}))
register_act(Act("put-growing", lambda store: store.put(GROWS, "new"), {"new": GROWS}))
register_act(Act("put-punching", lambda store: store.put(GROWS, "new"), {"new": GROWS}, arrange=_fill))
SEVERAL = {f"new-{i}": pattern(20 + i, 60_000) for i in range(4)}
register_act(Act("put-small-growing", lambda store: store.put_many(SEVERAL), SEVERAL))


def _put_beyond(store: Store) -> None:
    with contextlib.suppress(StoreFull):
        store.put_many({"new": LARGE, "too-large": bytes(CAPACITY_BYTES)})


register_act(Act("put-full", _put_beyond))

MANY = {"new-1": SMALL, "new-2": LARGE, "new-3": b"", "new-4": pattern(15, 70_000), "new-5": b"x"}
register_act(Act("put-many", lambda store: store.put_many(MANY), MANY))
register_act(Act("overwrite-small", lambda store: store.put(SMALL, "small"), {"small": SMALL}))
register_act(Act("overwrite-large", lambda store: store.put(LARGE, "held"), {"held": LARGE}))
register_act(
    Act(
        "overwrite-many",
        lambda store: store.put_many({"small": LARGE, "held": b"", "large": SMALL}),
        {"small": LARGE, "held": b"", "large": SMALL},
    )
)

# --- getting ---


def _get_absent(store: Store) -> None:
    with contextlib.suppress(ObjectNotFound):
        store.get("absent", timeout=WAIT_S)


register_act(Act("get", lambda store: bytes(store.get("large").value())))
register_act(Act("get-many", lambda store: store.get_many(["large", "held", "small"])))
register_act(Act("get-absent", _get_absent))
register_act(Act("wait", lambda store: store.wait(["absent", "small", "missing"], timeout=WAIT_S)))
register_act(Act("look", lambda store: (store.list(), store.stats(), store.stat("held"), store.fsck())))

# --- deleting ---


def _doomed(store: Store, scene: Scene) -> None:
    store.put_many(SWEPT)
    scene.before.update(SWEPT)


def _dying_crowd(store: Store, scene: Scene) -> None:
    """Leave many objects dying."""
    store.put_many(CROWD)
    store.delete(CROWD)


register_act(Act("delete", lambda store: store.delete(["large", "held", "no"]), deletes=("large", "held")))
register_act(Act("delete-sweeping", lambda store: store.delete(SWEPT), deletes=tuple(SWEPT), arrange=_doomed))
register_act(Act("sweep", lambda store: store.recover(), arrange=_dying_crowd))
register_act(
    Act(
        "delete-unused",
        lambda store: store.delete(["large", "small"], if_unused=True),
        deletes=("large", "small"),
    )
)
register_act(
    Act(
        "delete-used",
        lambda views: views[0].delete("large", if_unused=True),
        ready=lambda store: (store, store.get("large")),
    )
)

# --- building in place ---

BUILT = pattern(16, 90_000)


def _build(store: Store) -> None:
    with store.create(len(BUILT), "new", metadata={"made": "in place"}) as blob:
        blob.buffer[:] = BUILT


def _build_over(store: Store) -> None:
    builder = store.create(len(BUILT), "held")
    builder.buffer[:] = BUILT
    builder.seal()


def _abort(store: Store) -> None:
    blob = store.create(len(BUILT), "new")
    blob.buffer[:1000] = b"x" * 1000
    blob.abort()


def _forget(store: Store) -> None:
    """A builder that is dropped unsealed is aborted by the next write."""
    store.create(len(BUILT), "new").buffer[:5] = b"never"
    store.put(SMALL, "small")


register_act(Act("create-seal", _build, {"new": BUILT}))
register_act(Act("create-overwrite", _build_over, {"held": BUILT}))
register_act(Act("create-abort", _abort))
register_act(Act("create-forget", _forget, {"small": SMALL}))

# --- leaving ---

register_act(Act("close", lambda store: store.close()))
register_act(
    Act("close-holding", lambda views: views[0].close(), ready=lambda store: (store, store.get("large")))
)
