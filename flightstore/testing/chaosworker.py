"""The processes of the chaos test: workers that make random moves and fork, and one that follows the events.

Lives here: `Plan`, `run` (a worker's life), `follow` (the follower's). Calls chaosmoves.py and chaosboard.py.

Invariants: whoever sees the board's gate closed checks and gives back all that it holds, waits for its forked
children, and says that it arrived; it does nothing to the store until the gate is open again. What is
expected of a busy store is counted; any other exception is a failure and ends the process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pyarrow as pa

import flightstore
from flightstore.errors import EventsMissed, FlightStoreError, StoreClosed
from flightstore.store import current
from flightstore.testing.chaosboard import Board, Ledger
from flightstore.testing.chaosmoves import EXPECTED, MOVES, Hand, Wrong
from flightstore.types import Event

__all__ = ["CHILD_ROWS", "COUNTERS", "INTERRUPT", "SETTLED", "Plan", "follow", "run"]

CHILD_ROWS = 2
"""Forked children that a worker has at a time."""
INTERRUPT = signal.SIGUSR1
"""Raises KeyboardInterrupt in a worker's move, and does nothing elsewhere. (Ctrl-C is the controller's.)"""
SETTLED = -1
"""The gate's number while all is recovered, and the follower compares its books."""
_FORK_SHARE = 0.004
_OUTCOMES = (
    "other",
    "checked",
    "forks",
    "interrupts",
    "stuck at exit",
    "dropped",
    "failures",
    "events",
    "SpillFailed",
    *EXPECTED,
)
COUNTERS = (*_OUTCOMES, *(f"move {name}" for name in MOVES))
"""What is counted."""
_GROWTH_BYTES = 80 << 20
_GROWTH_FILES = 4
"""Of its own; what it keeps open of other clients it watches is bounded by how many live."""
_FILES_PER_CLIENT = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """What all processes of a run do."""

    store: str
    """Directory of the store."""
    ledgers: str
    """Directory of the ledgers."""
    seed: int
    """Decides the moves of each process; not the order in which processes come to make them."""
    spill_urls: tuple[str, ...]
    """Spill storages, of which one or the other is in use."""
    steady: bool = True
    """Whether process 0 is never killed, and its memory must not grow."""


def run(plan: Plan, board: Board, row: int, incarnation: int) -> None:
    """Work until the run is over, or somebody kills this process."""
    with _reporting(board, row):
        pa.table(
            {"n": []}
        )  # imports pandas, if it is there: an import that is interrupted leaves half a module
        store = flightstore.connect(plan.store, create=False, busy_timeout=20)
        chance = random.Random(f"{plan.seed}/{row}/{incarnation}")
        hand = Hand(plan.store, store, board, row, chance, Ledger(plan.ledgers), plan.spill_urls)
        sys.unraisablehook = lambda dropped: _note_dropped(hand, dropped.exc_type, dropped.object)
        signal.signal(INTERRUPT, _interrupt)
        children: dict[int, int] = {}
        first: _Footprint | None = None
        while not board.over:
            if board.gate:
                _stand_at_gate(hand, children)
                now = _footprint()
                first = first or (now if board.arrived(row) > 1 else None)
                if plan.steady and row == 0 and first:
                    _compare(first, now, board.rows)
            elif chance.random() < _FORK_SHARE:
                _fork(plan, hand, children)
            else:
                _move(hand)
        hand.let_go()
        _reap(children)
        hand.store.close()


def _move(hand: Hand) -> None:
    names = list(MOVES)
    name = hand.chance.choices(names, [MOVES[one][0] for one in names])[0]
    hand.board.count(hand.row, f"move {name}")
    hand.board.begin(hand.row, name)
    hand.move = name
    try:
        _interruptible(lambda: MOVES[name][1](hand))
    except KeyboardInterrupt:
        hand.board.count(hand.row, "interrupts")
        hand.board.add(hand.row, " interrupted")
        _leave_batches(hand)
        hand.own.clear()  # what became of the one at hand is not known; the ledger says what must be there
        try:
            hand.store.contains("never")
        except StoreClosed:  # it was connecting anew
            hand.store = flightstore.connect(hand.path, create=False, busy_timeout=20)
    except FlightStoreError as error:
        kind = type(error).__name__
        if kind not in EXPECTED and kind != "SpillFailed":
            raise
        hand.board.count(hand.row, kind)
        hand.board.add(hand.row, f" {kind}: {str(error)[:100]}")
        if kind in ("StoreFull", "SpillFailed"):
            hand.check_held()
            hand.held.clear()  # others want this memory as we want theirs
    finally:
        hand.board.conclude(hand.row)


def _leave_batches(hand: Hand) -> None:
    """No batch is current after an interrupt, or all that is put afterwards would go with it."""
    with contextlib.suppress(StoreClosed):
        if hand.store.current_batch() is not None:
            if not _at_exit:
                raise Wrong(f"a batch stayed current after an interrupt in {_where}")
            hand.board.count(hand.row, "stuck at exit")
            current.forget_all()


_armed = False
_where = ""
_at_exit = False


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Interrupt the move, unless it is in a finalizer: Python drops what is raised there, and with it the
    rest of the finalizer, so that a lease or handle stays as long as its process.
    """
    global _armed, _where, _at_exit
    if _armed and not _in_finalizer(frame):
        _armed = False  # once a move: what follows it must not be interrupted
        code = frame.f_code if frame is not None else _interrupt.__code__
        _where = f"{code.co_filename} {code.co_name}, line {frame.f_lineno if frame is not None else 0}"
        # Python itself loses an __exit__ that is interrupted before its first line.
        _at_exit = code.co_name == "__exit__" and frame is not None and frame.f_lineno == code.co_firstlineno
        raise KeyboardInterrupt


def _note_dropped(hand: Hand, kind: type[BaseException], where: object) -> None:
    """Python drops what is raised in finalizers of every kind; `_in_finalizer` knows those with a name."""
    hand.board.count(hand.row, "dropped")
    hand.board.add(hand.row, f" {kind.__name__} dropped in {where!r:.60}, {_where}")


def _in_finalizer(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in ("__del__", "cb"):
            return True
        frame = frame.f_back
    return False


def _interruptible(move: Callable[[], None]) -> None:
    """Run a move that INTERRUPT may interrupt at any line."""
    global _armed
    _armed = True
    try:
        move()
    finally:
        _armed = False


@contextlib.contextmanager
def _reporting(board: Board, row: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        board.report(row, traceback.format_exc())
        board.count(row, "failures")
        raise


# --- the gate ---


def _stand_at_gate(hand: Hand, children: dict[int, int]) -> None:
    number = hand.board.gate
    hand.board.begin(hand.row, f"gate {number}")
    hand.let_go()
    hand.ids.clear()
    _reap(children)
    gc.collect()  # an error refers to the frames that it went through, and they to what they had at hand
    hand.store.recover()  # what finalizers and an interrupt left behind is undone with the next write
    hand.board.conclude(hand.row)
    hand.board.arrive(hand.row, number)
    while hand.board.gate == number and not hand.board.over:
        time.sleep(0.005)


@dataclass(frozen=True, slots=True)
class _Footprint:
    """What a process holds that has given everything back."""

    nbytes: int
    """Private memory."""
    own: Counter[str]
    """Its open files, by what they are."""
    watched: int
    """Files and processes it keeps open because it watches other clients."""


def _footprint() -> _Footprint:
    lines = Path("/proc/self/status").read_text().splitlines()
    anonymous = next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))
    files = Counter(_target(name) for name in os.listdir("/proc/self/fd"))
    watched = [name for name in files if "/clients/" in name or name == "anon_inode:[pidfd]"]
    count = sum(files.pop(name) for name in watched)
    return _Footprint(anonymous, files, count)


def _compare(first: _Footprint, now: _Footprint, clients: int) -> None:
    new = now.own - first.own
    if now.nbytes > first.nbytes + _GROWTH_BYTES or new.total() > _GROWTH_FILES:
        grown = f"from {first.nbytes:,} bytes to {now.nbytes:,}, and by the files {new}"
        raise Wrong(f"this process grew {grown}")
    if now.watched > first.watched + _FILES_PER_CLIENT * clients:
        raise Wrong(f"this process watches others by {now.watched} open files, {first.watched} at first")


def _target(descriptor: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return "?"


# --- forks ---


def _fork(plan: Plan, hand: Hand, children: dict[int, int]) -> None:
    for row, pid in list(children.items()):
        if os.waitpid(pid, os.WNOHANG)[0]:
            del children[row]
    free = [row for row in range(CHILD_ROWS) if row not in children]
    if not free:
        return
    hand.board.count(hand.row, "forks")
    hand.board.begin(hand.row, "fork")
    seed = hand.chance.getrandbits(64)
    pid = os.fork()
    if pid:
        children[free[0]] = pid
        hand.board.conclude(hand.row)
        return
    status = 1
    try:
        _childs_life(plan, hand, hand.row * CHILD_ROWS + free[0], seed)
        status = 0
    finally:
        os._exit(status)


def _childs_life(plan: Plan, hand: Hand, number: int, seed: int) -> None:
    """Check what was inherited, go on for a while as any other, and check it once more."""
    hand.row = hand.board.rows - 1 - number
    with _reporting(hand.board, hand.row):
        hand.chance = random.Random(seed)
        hand.ledger, hand.own = Ledger(plan.ledgers), {}
        inherited, hand.held = hand.held, []
        hand.builders, hand.batches, hand.sessions = [], [], []
        hand.board.begin(hand.row, "child")
        for _ in range(hand.chance.choice((0, 5, 50, 200))):
            if hand.board.stopping:
                break
            _move(hand)
        hand.held += inherited
        hand.let_go()
        if hand.chance.random() < 0.5:
            hand.store.close()
        hand.board.conclude(hand.row)


def _reap(children: dict[int, int]) -> None:
    for pid in children.values():
        os.waitpid(pid, 0)
    children.clear()


# --- the follower ---


def follow(plan: Plan, board: Board, row: int) -> None:
    """Follow all events of the store; at each gate, what they tell must be what the store lists."""
    with _reporting(board, row):
        store = flightstore.connect(plan.store, create=False, busy_timeout=20)
        known: dict[bytes, int] | None = {}
        last = 0
        subscription = store.subscribe(since=0)
        while not board.over:
            settled = board.gate == SETTLED  # looked at first: all events of before are read below
            try:
                for event in _drained(lambda: subscription.poll(0.02)):
                    if event.number <= last:
                        raise Wrong(f"event {event.number} came after {last}")
                    last = event.number
                    board.count(row, "events")
                    if known is not None:
                        _apply(known, event)
            except EventsMissed:
                board.count(row, "EventsMissed")
                known = None
                continue
            if settled and board.arrived(row) != SETTLED:
                listed = {bytes(info.id): info.nbytes for info in store.list()}
                if known is not None and listed.keys() != known.keys():
                    more, fewer = known.keys() - listed.keys(), listed.keys() - known.keys()
                    raise Wrong(
                        f"events tell of {[one.hex() for one in more]} more, {fewer} less than there is"
                    )
                known = dict(listed)
                board.arrive(row, SETTLED)
            elif not board.gate:
                board.arrive(row, 0)
        subscription.close()
        store.close()


def _hexes(ids: set[bytes]) -> list[str]:
    return [one.hex() for one in ids]


def _drained(poll: Callable[[], Event | None]) -> Iterator[Event]:
    while (event := poll()) is not None:
        yield event


def _apply(known: dict[bytes, int], event: Event) -> None:
    if event.kind == "added":
        if bytes(event.id or b"") in known:
            raise Wrong(f"{event} tells of what was there already")
        known[bytes(event.id or b"")] = event.nbytes
    elif event.kind == "deleted" and known.pop(bytes(event.id or b""), None) is None:
        raise Wrong(f"{event} tells of what was not there")
