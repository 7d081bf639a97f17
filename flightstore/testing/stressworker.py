"""One process of the stress driver: gets, checks, holds and replaces objects, and forks while it does.

Lives here: `Plan` (what to do), `Tally` (where it counts), `run` (the process's life). Calls the public API
and stresspattern.py.

Invariants: a row of the tally is written by one thread of one process at a time, so that counts survive the
death of whoever counted. Whatever is held was checked when it was got, and is checked again before it is let
go. Each thread draws its moves from a seed of its own.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import flightstore
from flightstore.errors import ObjectNotFound, StoreFull
from flightstore.testing.stresspattern import content, length, name_of, problem

__all__ = ["COUNTERS", "ROWS_PER_PROCESS", "Plan", "Tally", "fill", "run"]

COUNTERS = (
    "gets",
    "rechecks",
    "replacements",
    "deletes",
    "aborts",
    "absent",
    "store_full",
    "forks",
    "wrong_bytes",
    "errors",
)
"""What is counted, in the order of a row's words."""

_MAX_CHILDREN = 3
_THREADS = 2
ROWS_PER_PROCESS = _THREADS + 2 * _MAX_CHILDREN  # each child may have a child of its own
_HELD = 12  # of some 15 KiB in the mean with a dying version each: a small share of the arena
_LONG_HELD = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What all processes of a run do."""

    store: str
    """Directory of the store."""
    objects: int
    """How many names there are."""
    seed: int
    """Decides all moves; not the order in which processes come to make them."""
    replace_share: float = 0.2
    """Share of the moves that replace an object; the others get one."""
    forks: bool = False
    """Whether the processes fork, from beside a busy thread."""
    fork_every: int = 400
    """Moves between two forks of a process."""


class Tally:
    """Counts of all processes, in memory that all of them share, and the word that ends the run."""

    def __init__(self, processes: int, log: str) -> None:
        self.processes = processes
        self._rows = 1 + processes * ROWS_PER_PROCESS
        self.words = memoryview(mmap.mmap(-1, 8 * len(COUNTERS) * self._rows)).cast("q")
        self.log = log
        """File that errors are appended to."""

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.words[0] != 0

    def end(self) -> None:
        """Have all processes finish."""
        self.words[0] = 1

    def counter(self, process: int, row: int, name: str) -> int:
        """Where a counter lies."""
        return (1 + process * ROWS_PER_PROCESS + row) * len(COUNTERS) + COUNTERS.index(name)

    def total(self, name: str, process: int | None = None) -> int:
        """A count over all rows, or over those of one process."""
        first = 1 if process is None else 1 + process * ROWS_PER_PROCESS
        last = self._rows if process is None else first + ROWS_PER_PROCESS
        at, step = COUNTERS.index(name), len(COUNTERS)
        return sum(self.words[first * step + at : last * step + at : step].tolist())

    def report(self, text: str) -> None:
        """Write an error down."""
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"process {os.getpid()}: {text}\n".encode())
        finally:
            os.close(descriptor)


@dataclass(slots=True)
class _Hand:
    """One thread at work."""

    store: flightstore.Store
    plan: Plan
    tally: Tally
    process: int
    row: int
    chance: random.Random
    held: list[tuple[int, Any]] = field(default_factory=list)
    long_held: list[tuple[int, Any]] = field(default_factory=list)

    def count(self, name: str) -> None:
        self.tally.words[self.tally.counter(self.process, self.row, name)] += 1

    # --- reading ---

    def check(self, index: int, value: Any, kind: str) -> None:
        what = problem(value, index)
        self.count(kind)
        if what is not None:
            self.count("wrong_bytes")
            self.tally.report(f"{kind}: {what}")

    def get(self) -> None:
        index = self.chance.randrange(self.plan.objects)
        try:
            value = self.store.get(name_of(index)).value()
        except ObjectNotFound:
            self.count("absent")
            if self.chance.random() < 0.5:
                self.attempt(self.put, index)
            return
        self.check(index, value, "gets")
        move = self.chance.random()
        if move < 0.2:
            self.hold(self.held, _HELD, index, value)
        elif move < 0.202:
            self.hold(self.long_held, _LONG_HELD, index, value)

    def hold(self, where: list[tuple[int, Any]], most: int, index: int, value: Any) -> None:
        """Keep a value instead of another one, which is checked before it goes."""
        if len(where) < most:
            where.append((index, value))
            return
        at = self.chance.randrange(most)
        self.check(*where[at], "rechecks")
        where[at] = index, value

    def check_all_held(self) -> None:
        for index, value in (*self.held, *self.long_held):
            self.check(index, value, "rechecks")

    # --- writing ---

    def put(self, index: int) -> None:
        self.store.put(content(index, self.chance.getrandbits(32)), name_of(index))
        self.count("replacements")

    def put_in_place(self, index: int) -> None:
        version = self.chance.getrandbits(32)
        with self.store.create(8 * length(index, version), name_of(index)) as builder:
            builder.buffer[:] = content(index, version).tobytes()
        self.count("replacements")

    def put_several(self, index: int) -> None:
        several = {(index + step) % self.plan.objects for step in (0, 1, 2)}
        self.store.put_many({name_of(one): content(one, self.chance.getrandbits(32)) for one in several})
        for _ in several:
            self.count("replacements")

    def abort(self, index: int) -> None:
        version = self.chance.getrandbits(32)
        builder = self.store.create(8 * length(index, version), name_of(index))
        builder.buffer[:8] = b"\xff" * 8
        builder.abort()
        self.count("aborts")

    def delete(self, index: int) -> None:
        if self.store.delete(name_of(index), if_unused=self.chance.random() < 0.5):
            self.count("deletes")

    def replace(self) -> None:
        move, index = self.chance.random(), self.chance.randrange(self.plan.objects)
        moves = ((0.72, self.put), (0.82, self.put_in_place), (0.88, self.put_several), (0.92, self.abort))
        self.attempt(next((action for limit, action in moves if move < limit), self.delete), index)

    def attempt(self, action: Callable[[int], None], index: int) -> None:
        try:
            action(index)
        except StoreFull:
            self.count("store_full")
            self.check_all_held()
            self.held.clear()  # others want this memory as we want theirs

    def move(self) -> None:
        if self.chance.random() < self.plan.replace_share:
            self.replace()
        else:
            self.get()


def fill(store: flightstore.Store, objects: int) -> None:
    """Put the first version of all objects."""
    for index in range(objects):
        store.put(content(index, 0), name_of(index))


def run(plan: Plan, tally: Tally, process: int, incarnation: int) -> None:
    """Work until the tally says that the run is over, or somebody kills this process."""
    store = flightstore.connect(plan.store, create=False, busy_timeout=60)
    hands = [
        _Hand(store, plan, tally, process, row, random.Random(f"{plan.seed}/{process}/{incarnation}/{row}"))
        for row in range(_THREADS if plan.forks else 1)
    ]
    threads = [threading.Thread(target=_guard, args=(hand, _work), daemon=True) for hand in hands[1:]]
    for thread in threads:
        thread.start()
    if plan.forks:
        _guard(hands[0], lambda hand: _work_and_fork(hand, hands))
    else:
        _guard(hands[0], _work)
    for thread in threads:
        thread.join()
    store.close()


def _guard(hand: _Hand, life: Callable[[_Hand], None]) -> None:
    """Run a thread's life; an exception is written down and ends the process's part, but not its deaths."""
    try:
        life(hand)
        hand.check_all_held()
    except BaseException:
        hand.count("errors")
        hand.tally.report(traceback.format_exc())
    finally:
        hand.held.clear()
        hand.long_held.clear()


def _work(hand: _Hand) -> None:
    while not hand.tally.ended:
        hand.move()


# --- forks ---


def _work_and_fork(hand: _Hand, hands: list[_Hand]) -> None:
    children: dict[int, int] = {}  # row -> pid
    every = hand.plan.fork_every
    due = hand.chance.randrange(1, 2 * every)
    while not hand.tally.ended:
        hand.move()
        due -= 1
        if due <= 0:
            due = hand.chance.randrange(1, 2 * every)
            _reap(children, os.WNOHANG)
            free = [row for row in range(_MAX_CHILDREN) if row not in children]
            if free:
                children[free[0]] = _fork(hand, hands, _THREADS + free[0])
    _reap(children, 0)


def _reap(children: dict[int, int], flags: int) -> None:
    for row, pid in list(children.items()):
        if os.waitpid(pid, flags)[0]:
            del children[row]


def _fork(hand: _Hand, hands: list[_Hand], row: int, *, grandchild: bool = False) -> int:
    """Fork a child that checks what it inherited, and goes on for a while as any other."""
    hand.count("forks")
    seed = hand.chance.getrandbits(64)
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        hand.row, hand.chance = row, random.Random(seed)
        _childs_life(hand, hands, grandchild)
        status = 0
    except BaseException:
        hand.count("errors")
        hand.tally.report(traceback.format_exc())
    finally:
        os._exit(status)


def _childs_life(hand: _Hand, hands: list[_Hand], grandchild: bool) -> None:
    inherited = [pair for one in hands for pair in (*one.held, *one.long_held)]
    for index, value in inherited:
        hand.check(index, value, "rechecks")
    moves = hand.chance.choice((0, 5, 50))
    for _ in range(moves):
        if hand.tally.ended:
            break
        hand.move()
    born = 0
    if not grandchild and hand.chance.random() < 0.2:
        born = _fork(hand, hands, hand.row + _MAX_CHILDREN, grandchild=True)
    with contextlib.suppress(IndexError):
        del inherited[: hand.chance.randrange(len(inherited) + 1)]
    time.sleep(hand.chance.choice((0, 0, 0.01)))  # let the parent and others replace what is held here
    for index, value in inherited:
        hand.check(index, value, "rechecks")
    hand.check_all_held()
    if born:
        os.waitpid(born, 0)
