"""Several processes compose, replace, delete and read tables of one store, and are killed while they do."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.testing.children import ChildDied, start
from flightstore.testing.events import Barrier

pytestmark = pytest.mark.req("O-2", "FAIL-2", "BAT-7")

NAMES = [f"t{number}" for number in range(6)]
MOVES = 400
ROWS = 300


def base(chance: random.Random) -> pa.Table:
    """Rows that tell which table they were put with, and where in it they belong."""
    first = chance.getrandbits(40)
    numbers = np.arange(first, first + chance.randrange(1, ROWS))
    return pa.table({"n": numbers, "s": [str(number) for number in numbers]})


def check(table: pa.Table) -> None:
    """Whatever was added to it, concatenated or selected: rows of one base follow each other, v is 3 n."""
    numbers = table["n"].to_numpy()
    for chunk in table["n"].chunks:
        assert (np.diff(chunk.to_numpy()) == 1).all(), "rows of another table among these"
    for name in table.schema.names:
        if name == "s":
            assert table["s"].to_pylist() == [str(number) for number in numbers]
        if name.startswith("v"):
            assert (table[name].to_numpy() == numbers * 3).all(), f"{name} belongs to another table"


def live(path: str, seed: int, ready: Barrier, moves: Iterable[int]) -> int:
    """Move after move, once everybody is connected; returns how many tables were read."""
    chance, read, held = random.Random(seed), 0, []
    with fs.connect(path) as store:
        ready.wait()
        for _ in moves:
            name, other = chance.choice(NAMES), chance.choice(NAMES)
            move = chance.randrange(8)
            with contextlib.suppress(fs.ObjectNotFound, fs.StoreFull):
                if move == 0:
                    store.put(base(chance), name)
                elif move == 1:
                    store.delete(name)
                elif move == 2:
                    obj = store.get(other)
                    if len(obj.schema) < 12:
                        values = obj.to_arrow()["n"].to_numpy() * 3
                        store.with_columns(obj, {f"v{chance.randrange(9)}": values}, name)
                elif move == 3:
                    store.select(other, ["n"], name)
                elif move == 4:
                    pair = [store.select(one, ["n"]) for one in (name, other)]
                    if sum(one.num_rows for one in pair) < 20 * ROWS:
                        store.concat(pair, name)
                    store.delete([one.id for one in pair])
                else:
                    table = store.get(name).to_arrow()
                    check(table)
                    read += 1
                    held.append(table)
            if len(held) > 8:
                check(held.pop(chance.randrange(len(held))))
        for table in held:
            check(table)
    return read


def test_many_processes_compose_and_some_are_killed(store: fs.Store) -> None:
    chance = random.Random(3)
    killed = read = 0
    store.put_many({name: base(chance) for name in NAMES})
    for round_ in range(4):
        with contextlib.ExitStack() as stack:
            ready = stack.enter_context(Barrier(5, "everybody connected"))
            seeds = range(10 * round_, 10 * round_ + 4)
            doomed = chance.randrange(4)  # it goes on until it is killed, however late that is
            lives = [
                stack.enter_context(
                    start(live, store.path, seed, ready, itertools.count() if at == doomed else range(MOVES))
                )
                for at, seed in enumerate(seeds)
            ]
            victim = lives[doomed]
            ready.wait()
            victim.kill()
            for one in lives:
                try:
                    read += one.result(deadline_s=120)
                except ChildDied:
                    assert one is victim
                    killed += 1
        store.recover()
        assert store.fsck() == []
        for info in store.list():
            check(store.get(info.id).to_arrow())
    assert read > 200
    assert killed == 4
    store.delete([info.id for info in store.list()])
    store.recover()
    assert (store.stats().objects, store.stats().used_bytes) == (0, 0)
