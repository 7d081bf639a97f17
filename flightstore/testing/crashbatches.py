"""Rows of the crash table for batches.

The batch is the survivor's, so that it goes on when the victim dies, except where its beginning is what dies.
After each death the survivor settles the batch, and the ordinary check of a scene decides: what went with it
is gone, what was kept is there, and no memory is missing.

Importing this module fills `OPERATIONS`, as crashtable.py does for the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flightstore.errors import BatchEnded
from flightstore.store import Store
from flightstore.testing.crashscenes import Scene, close_scene, open_scene, pattern, verify_scene
from flightstore.testing.crashtable import Act, register_act, victim_store
from flightstore.testing.killpoints import Outcome
from flightstore.testing.operations import Operation, register

__all__ = ["BatchAct"]

IN_BATCH = {"in-small": pattern(40, 500), "in-large": pattern(41, 70_000), "in-third": b"third"}
NEW = {"new-small": pattern(42, 800), "new-large": pattern(43, 90_000)}


@dataclass(frozen=True, slots=True)
class BatchAct:
    """Something done with a batch of the survivor's, in which `IN_BATCH` was put."""

    name: str
    """Its name in the table."""
    run: Callable[[tuple[Store, int]], object]
    """The act; what it is killed in. Gets the store and the batch's number."""
    before: Mapping[str, Any]
    """What is there beyond the base if it did not happen, once the batch is settled."""
    after: Mapping[str, Any]
    """The same if it did."""
    settled: bool = True
    """Whether the batch is ended after the death, before anything is checked."""
    cleanup: bool = True
    """How the batch is begun."""
    arrange: Callable[[Store, int], object] | None = None
    """Done with the batch here, before the fork."""


def _number(scene: Scene) -> int:
    """The batch is the first of its store."""
    assert scene.survivor is not None
    return scene.survivor.batches()[0].id


def _prepare(act: BatchAct) -> Scene:
    scene = open_scene()
    store = scene.survivor
    assert store is not None
    batch = store.new_batch(cleanup=act.cleanup)
    with batch.activate():
        store.put_many(IN_BATCH)
    if act.arrange is not None:
        act.arrange(store, batch.number)
    scene.after = {**scene.before, **act.after}
    scene.before = {**scene.before, **act.before}
    return scene


def _setup(scene: Scene) -> tuple[Store, int]:
    return victim_store(scene), _number(scene)


def _verify(act: BatchAct, scene: Scene, outcome: Outcome) -> None:
    store = scene.survivor
    assert store is not None
    if act.settled:
        with contextlib.suppress(BatchEnded, IndexError):
            store.end_batch(_number(scene))
    verify_scene(scene, outcome)
    store.recover()
    assert all(info.state != "ended" for info in store.batches()), "an ended batch was not reclaimed"


def _register(act: BatchAct) -> None:
    register(
        Operation(
            act.name,
            partial(_prepare, act),
            act.run,
            partial(_verify, act),
            setup=_setup,
            cleanup=close_scene,
        )
    )


# --- acts upon the survivor's batch ---


def _put(stage: tuple[Store, int]) -> None:
    store, number = stage
    with store.join_batch(number):
        store.put(NEW["new-small"], "new-small")


def _keep(stage: tuple[Store, int]) -> None:
    store, number = stage
    store.join_batch(number).keep(list(IN_BATCH))


def _join(stage: tuple[Store, int]) -> None:
    store, number = stage
    with store.join_batch(number) as batch:
        batch.status()


def _keep_one(store: Store, number: int) -> None:
    store.transfer_ownership("in-third", None)


def _keep_one_and_end(store: Store, number: int) -> None:
    _keep_one(store, number)
    store.end_batch(number)


_register(BatchAct("batch-put", _put, before={}, after={}))
_register(
    BatchAct(
        "batch-put-staying",
        lambda stage: stage[0].join_batch(stage[1]).__enter__() and stage[0].put_many(NEW),
        before=IN_BATCH,
        after={**IN_BATCH, **NEW},
        settled=False,
    )
)
_register(BatchAct("batch-keep", _keep, before={}, after=IN_BATCH))
_register(BatchAct("batch-join", _join, before={}, after={}))
_register(
    BatchAct(
        "batch-end", lambda stage: stage[0].end_batch(stage[1]), before=IN_BATCH, after={}, settled=False
    )
)
_register(
    BatchAct(
        "batch-delete",
        lambda stage: stage[0].destroy_batch(stage[1]),
        before=IN_BATCH,
        after={},
        settled=False,
        cleanup=False,
        arrange=_keep_one,
    )
)
_register(
    BatchAct(
        "batch-reclaim",
        lambda stage: stage[0].put(NEW["new-small"], "new-small"),
        before={"in-third": IN_BATCH["in-third"]},
        after={"in-third": IN_BATCH["in-third"], "new-small": NEW["new-small"]},
        settled=False,
        arrange=_keep_one_and_end,
    )
)

# --- batches of the victim's own ---


def _begin(store: Store) -> None:
    with store.batch("mine", timeout=1000):
        store.put(NEW["new-small"], "new-small")
        with store.batch("inner") as inner:
            inner.keep("new-small")


register_act(Act("batch-begin", _begin))
