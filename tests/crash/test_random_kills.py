"""Kills at random moments: they reach what lies inside C calls, such as commits, fallocate and copying."""

from __future__ import annotations

import contextlib
import hashlib
import random

import pytest

from flightstore.errors import StoreFull
from flightstore.store import Store
from flightstore.testing.children import start_spawned
from flightstore.testing.crashscenes import (
    CAPACITY_BYTES,
    Scene,
    close_scene,
    contents,
    held_is_right,
    open_scene,
    sound,
    works,
)
from flightstore.testing.killpoints import Outcome
from flightstore.testing.randomkills import random_kills

NOISE = random.Random(7).randbytes(CAPACITY_BYTES)


def value(number: int, nbytes: int) -> bytes:
    """Bytes that tell whether they are whole, and which round wrote them."""
    body = number.to_bytes(8, "big") + NOISE[number % 1000 : number % 1000 + nbytes]
    return hashlib.blake2b(body, digest_size=16).digest() + body


def is_whole(data: bytes) -> bool:
    return hashlib.blake2b(data[16:], digest_size=16).digest() == data[:16]


def one_round(store: Store, number: int) -> None:
    """A bit of everything, in sizes that grow, punch and sweep."""
    pair = value(number, (1_000, 90_000, 150_000)[number % 3])
    with contextlib.suppress(StoreFull):
        store.put_many({"left": pair, "right": pair})
    with contextlib.suppress(StoreFull):
        store.put(value(number, 250_000 if number % 2 else 100), "single")
    built = value(number, 70_000)
    with contextlib.suppress(StoreFull), store.create(len(built), "built") as blob:
        blob.buffer[:] = built
    store.get_many(["small", "large"])
    store.delete("single", if_unused=bool(number % 4))


def check(scene: Scene, outcome: Outcome) -> None:
    store = scene.survivor
    assert store is not None
    held_is_right(scene)
    store.recover()
    sound(store, held=1, clients=scene.clients)
    found = contents(store)
    assert found.get("left") == found.get("right"), "half of a put_many is visible"
    for name in ("small", "large"):
        assert found.pop(name) == scene.before[name]
    found.pop("held", None)
    assert all(map(is_whole, found.values())), [name for name in found if not is_whole(found[name])]


def kill_at_random_moments(seed: int) -> None:
    """A hundred kills; raises when what one of them left is wrong."""
    scene = open_scene()
    try:
        report = random_kills(
            scene, one_round, check, kills=100, seed=seed, setup=lambda scene: scene.survivor, longest_s=0.03
        )
        assert report.executed_lines > 10, "rounds were completed between the kills"
        assert scene.survivor is not None
        scene.survivor.delete(["left", "right", "single", "built"])
        scene.survivor.recover()
        works(scene.survivor)
        held_is_right(scene)
    finally:
        close_scene(scene)


@pytest.mark.slow
@pytest.mark.req("FAIL-2", "FAIL-3", "API-13", "INV-2")
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments(seed: int) -> None:
    # In a process of its own, as in test_every_line.py.
    with start_spawned(kill_at_random_moments, seed) as process:
        process.result(deadline_s=300)
