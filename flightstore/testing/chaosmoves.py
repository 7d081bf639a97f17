"""The moves of the chaos test: each is one random operation, or a few, on the store.

Lives here: `Hand` (a process at work), `MOVES` (name, weight and function of each move). Calls the public
API, stresspattern.py and chaosboard.py.

Invariants: every value says by itself what it must be, so every read is checked wherever it happens; metadata
repeats the first word, so that an object and its record cannot be mixed up. Protected objects are named
``p/...``, are neither evictable nor freed nor in a batch, and nothing that may be evicted is made of them.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

import flightstore
from flightstore.errors import FlightStoreError, ObjectNotFound
from flightstore.testing.chaosboard import Board, Ledger
from flightstore.testing.stresspattern import block, block_length, blocks_problem
from flightstore.types import ObjectID

__all__ = ["EXPECTED", "KEEP_SESSION", "MOVES", "Hand", "Wrong", "check_object"]

EXPECTED = (
    "StoreFull",
    "CatalogFull",
    "QuotaExceeded",
    "ObjectNotFound",
    "GetTimeout",
    "ObjectExists",
    "BatchEnded",
    "SessionEnded",
    "SessionNotFound",
    "EventsMissed",
)
"""Errors that a busy, small store gives as a matter of course; with a faulty spill storage SpillFailed."""

KEEP_SESSION = "keep"
"""A session that nobody ends, with protected objects."""

_NAMES = 60
_HELD = 12


class Wrong(AssertionError):
    """Something was read that is not what it should be."""


def check_object(obj: Any, heads: set[int] | None = None) -> int:
    """Check all bytes of an object; returns the first word of its first block.

    Raises:
        Wrong: says what is wrong.
    """
    value = obj.value()
    where = f"{obj.id} {obj.name!r}, {type(value).__name__}"
    columns: dict[str, Any] = {"c0": value}
    if isinstance(value, pa.Table):
        columns = {name: value.column(name).to_numpy() for name in value.column_names}
    head = 0
    for name, words in columns.items():
        problem = blocks_problem(words, int(name[1:]))
        if problem:
            raise Wrong(f"{where}, column {name}: {problem}")
        first = int(np.frombuffer(words, dtype=np.uint64, count=1)[0])
        if head and first != head:
            raise Wrong(f"{where}: columns begin with {head:#x} and {first:#x}")
        head = first
    if obj.metadata != head:
        raise Wrong(f"{where} begins with {head:#x}, its metadata says {obj.metadata:#x}")
    if heads is not None and head not in heads:
        raise Wrong(f"{where} begins with {head:#x} instead of {[hex(one) for one in heads]}")
    return head


@dataclass(slots=True)
class Hand:
    """A process at work."""

    path: str
    store: flightstore.Store
    board: Board
    row: int
    chance: random.Random
    ledger: Ledger
    spill_urls: tuple[str, ...]
    held: list[tuple[Any, int]] = field(default_factory=list)
    own: dict[str, int] = field(default_factory=dict)
    """Protected objects of this process: first word by name."""
    ids: list[ObjectID] = field(default_factory=list)
    """Ids that it has seen lately."""
    builders: list[Any] = field(default_factory=list)
    batches: list[Any] = field(default_factory=list)
    sessions: list[Any] = field(default_factory=list)
    serial: int = 0
    move: str = "-"
    """What it is at."""

    def head(self) -> int:
        return self.chance.getrandbits(54) | 1

    def name(self) -> str:
        return f"s/{self.chance.randrange(_NAMES)}"

    def fresh(self, letter: str) -> str:
        self.serial += 1
        return f"{letter}/{id(self.ledger)}-{self.row}-{self.chance.getrandbits(40):x}-{self.serial}"

    def value(self, head: int) -> Any:
        words = block(head)
        kind = self.chance.randrange(3)
        return words.tobytes() if kind == 0 else pa.table({"c0": words}) if kind == 1 else self.wide(head)

    def wide(self, head: int) -> pa.Table:
        return pa.table({f"c{column}": block(head, column) for column in range(self.chance.randrange(1, 4))})

    def ref(self) -> Any:
        """Something that may be there."""
        if self.ids and self.chance.random() < 0.4:
            return self.chance.choice(self.ids)
        if self.own and self.chance.random() < 0.4:
            return self.chance.choice(list(self.own))
        return self.name()

    def unprotected(self) -> Any:
        """The same, of what need not be there; kept to ids that cannot be a protected object's."""
        return self.chance.choice(self.ids) if self.ids and self.chance.random() < 0.4 else self.name()

    def saw(self, object_id: ObjectID) -> None:
        self.ids.append(object_id)
        del self.ids[:-40]

    def check(self, obj: Any, heads: set[int] | None = None) -> int:
        head = check_object(obj, heads)
        self.board.count(self.row, "checked")
        return head

    def hold(self, obj: Any, head: int) -> None:
        """Keep a view instead of another one, which is checked once more."""
        self.held.append((obj, head))
        if len(self.held) > _HELD:
            old, its = self.held.pop(self.chance.randrange(len(self.held)))
            self.check(old, {its})

    def check_held(self) -> None:
        for obj, head in self.held:
            self.check(obj, {head})

    def let_go(self) -> None:
        """Check and give back everything."""
        self.check_held()
        self.held.clear()
        for builder in self.builders:
            with contextlib.suppress(FlightStoreError):
                builder.abort()
        self.builders.clear()
        for session in self.sessions:
            session.close()
        self.sessions.clear()

    @contextlib.contextmanager
    def protecting(self, name: str, head: int) -> Iterator[None]:
        """Announce that a protected object is made, and that it is."""
        self.ledger.write("+", name, head, self.move)
        yield
        self.ledger.write("=", name, head, self.move)
        self.own[name] = head


# --- putting ---


def put(hand: Hand) -> None:
    head = hand.head()
    name = hand.name() if hand.chance.random() < 0.7 else None
    timeout = hand.chance.choice((0, 0, 0, 0.02))
    evictable = hand.chance.random() < 0.6
    hand.saw(hand.store.put(hand.value(head), name, metadata=head, evictable=evictable, timeout=timeout))


def put_id(hand: Hand) -> None:
    head = hand.head()
    again = hand.ids and hand.chance.random() < 0.1
    object_id = hand.chance.choice(hand.ids) if again else ObjectID(hand.chance.randbytes(20))
    hand.saw(hand.store.put(hand.value(head), object_id=object_id, metadata=head, evictable=True))


def put_protected(hand: Hand) -> None:
    if len(hand.own) >= 25:
        delete_protected(hand)
        return
    head = hand.head()
    name = hand.chance.choice(list(hand.own)) if hand.own and hand.chance.random() < 0.3 else hand.fresh("p")
    with hand.protecting(name, head):
        hand.store.put(hand.value(head), name, metadata=head, timeout=hand.chance.choice((0, 0, 0.1)))


def put_many(hand: Hand) -> None:
    # put_many takes no metadata: such objects are read by value only (see get_many).
    names = [hand.fresh("m") for _ in range(hand.chance.randrange(1, 5))]
    hand.store.put_many({name: block(hand.head()).tobytes() for name in names}, evictable=True)
    for obj in hand.store.get_many(names[:1]):
        problem = blocks_problem(obj.value())
        if problem:
            raise Wrong(f"{obj.id}: {problem}")
        hand.board.count(hand.row, "checked")


def create(hand: Hand) -> None:
    head = hand.head()
    protected = hand.chance.random() < 0.3 and len(hand.own) < 25
    name = hand.fresh("p") if protected else hand.name()
    guard = hand.protecting(name, head) if protected else contextlib.nullcontext()
    make = hand.store.create_now if hand.chance.random() < 0.3 else hand.store.create
    with guard:
        builder = make(8 * block_length(head), name, metadata=head)
        builder.buffer[:] = block(head).tobytes()
        builder.seal()


def create_and_not(hand: Hand) -> None:
    """Leave a builder open for a while, then abort it."""
    head = hand.head()
    if hand.builders:
        builder = hand.builders.pop()
        builder.abort() if hand.chance.random() < 0.5 else hand.store.abort(builder.id)
    else:
        hand.builders.append(hand.store.create(8 * block_length(head), hand.name(), metadata=head))
        hand.builders[-1].buffer[:8] = b"\xff" * 8


def create_table(hand: Hand) -> None:
    head = hand.head()
    schema = pa.schema([("c0", pa.uint64()), ("c2", pa.uint64())])
    builder = hand.store.create_table(schema, block_length(head), hand.name(), metadata=head)
    try:
        builder["c0"][:] = block(head)
        builder["c2"] = block(head, 2)
    except BaseException:
        builder.abort()
        raise
    builder.seal() if hand.chance.random() < 0.8 else builder.abort()


# --- reading ---


def get(hand: Hand) -> None:
    ref = hand.ref()
    obj = hand.store.get(ref, timeout=hand.chance.choice((0, 0, 0, 0.01)))
    head = hand.check(obj, {hand.own[ref]} if isinstance(ref, str) and ref in hand.own else None)
    if hand.chance.random() < 0.4:
        hand.hold(obj, head)


def get_many(hand: Hand) -> None:
    for obj in hand.store.get_many([hand.ref() for _ in range(3)]):
        hand.check(obj)


def get_protected(hand: Hand) -> None:
    """What this process made and did not delete is there: always."""
    if not hand.own:
        return
    name = hand.chance.choice(list(hand.own))
    try:
        obj = hand.store.get(name)
    except ObjectNotFound as error:
        raise Wrong(f"the protected object {name} is lost: {error}") from error
    hand.hold(obj, hand.check(obj, {hand.own[name]}))


def wait(hand: Hand) -> None:
    hand.store.wait([hand.name(), "never", hand.ref()], num_ready=2, timeout=0.01)


def look(hand: Hand) -> None:
    for info in hand.store.list("s/1*"):
        hand.saw(info.id)
    hand.store.stats()
    hand.store.stat(hand.ref())


# --- composing ---


def compose(hand: Hand) -> None:
    protected = bool(hand.own) and hand.chance.random() < 0.4 and len(hand.own) < 25
    base = hand.store.get(hand.chance.choice(list(hand.own)) if protected else hand.unprotected())
    if base.kind != "table" or (not protected and (base.name or "").startswith("p/")):
        return
    head = base.metadata
    if head is None:
        return
    name = hand.fresh("p") if protected else hand.chance.choice((hand.name(), None))
    with hand.protecting(name, head) if protected and name else contextlib.nullcontext():
        made = _composed(hand, base, name, head)
    hand.check(made, {head})
    hand.saw(made.id) if not protected else None
    if hand.chance.random() < 0.3:
        hand.hold(made, head)


def _composed(hand: Hand, base: Any, name: str | None, head: int) -> Any:
    move, columns = hand.chance.random(), base.column_names
    blocks = base.num_rows == block_length(head)
    if move < 0.4 and blocks:
        column = hand.chance.randrange(1, 12)
        return hand.store.with_columns(base, {f"c{column}": block(head, column)}, name, metadata=head)
    if move < 0.7 or base.num_rows > 300_000:
        some = hand.chance.sample(columns, hand.chance.randrange(1, len(columns) + 1))
        return hand.store.select(base, some, name, metadata=head)
    return hand.store.concat([base, base], name, metadata=head)


# --- deleting, keeping, making room ---


def delete(hand: Hand) -> None:
    refs = [hand.unprotected() for _ in range(hand.chance.randrange(1, 4))]
    hand.store.delete(refs, if_unused=hand.chance.random() < 0.5)


def delete_protected(hand: Hand) -> None:
    if not hand.own:
        return
    name = hand.chance.choice(list(hand.own))
    hand.ledger.write("-", name)
    unused = hand.chance.random() < 0.5
    head = hand.own.pop(name)
    if hand.store.delete(name, if_unused=unused):
        hand.ledger.write("x", name)
    elif unused:
        hand.own[name] = head
        hand.ledger.write("=", name, head)
    else:
        raise Wrong(f"the protected object {name} was not there to be deleted")


def pin(hand: Hand) -> None:
    ref = hand.ref()
    hand.store.pin(ref)
    if hand.chance.random() < 0.9:
        hand.store.unpin(ref)


def unpin(hand: Hand) -> None:
    hand.store.unpin(hand.ref())


def free(hand: Hand) -> None:
    hand.store.free(hand.unprotected())


def evict(hand: Hand) -> None:
    nbytes = hand.chance.choice((1, 1 << 16, 1 << 20, None))
    hand.store.evict(nbytes, recursive=hand.chance.random() < 0.3)


def spill(hand: Hand) -> None:
    if hand.chance.random() < 0.1:
        hand.store.spill()
    else:
        hand.store.spill([hand.ref() for _ in range(3)])


def set_spill(hand: Hand) -> None:
    hand.store.set_spill(hand.chance.choice(hand.spill_urls))


def recover(hand: Hand) -> None:
    hand.store.recover()


# --- batches ---


def batch(hand: Hand) -> None:
    """A batch, perhaps within another, that ends in one of the ways there are; then nothing is left of it."""
    store, chance = hand.store, hand.chance
    kept = hand.fresh("p")
    head, names = hand.head(), [hand.fresh("b") for _ in range(3)]
    with store.batch(timeout=chance.choice((None, None, 0.05))) as outer:
        store.put(hand.value(head), names[0], metadata=head)
        store.put(hand.value(head + 2), kept, metadata=head + 2)
        with store.batch() as inner:
            store.put(hand.value(head + 4), names[1], metadata=head + 4)
            store.put(hand.value(head + 6), names[2], metadata=head + 6)
            inner.keep(names[2])
        _must_be_gone(hand, names[1])
        hand.hold(store.get(names[2]), head + 6)
        if len(hand.own) < 25 and chance.random() < 0.3:
            with hand.protecting(kept, head + 2):
                outer.keep(kept) if chance.random() < 0.5 else store.transfer_ownership(kept, None)
    _must_be_gone(hand, names[0])
    if kept not in hand.own:
        _must_be_gone(hand, kept)
    store.delete(names[2])  # it stays if the outer batch was over when the inner one kept it


def _must_be_gone(hand: Hand, name: str) -> None:
    if hand.store.contains(name):
        raise Wrong(f"{name} is still seen after its batch ended")


def batch_kept_open(hand: Hand) -> None:
    """Batches that are left open, timed, joined by token, ended by others or not at all."""
    store, chance = hand.store, hand.chance
    if len(hand.batches) > 3:
        mine, name = hand.batches.pop(chance.randrange(len(hand.batches)))
        how = chance.randrange(4)
        (mine.end, mine.delete, mine.leave, lambda: store.destroy_batch(mine.token))[how]()
        if how in (1, 3):
            _must_be_gone(hand, name)
        return
    made = store.new_batch(timeout=chance.choice((None, 0.2)), cleanup=chance.random() < 0.7)
    name, head = hand.fresh("b"), hand.head()
    hand.batches.append((made, name))
    with made.activate():
        store.put(hand.value(head), name, metadata=head, evictable=chance.random() < 0.3)


def join_batch(hand: Hand) -> None:
    """End, or join, any batch that there is."""
    found = hand.store.batches()
    if found:
        number = hand.chance.choice(found).id
        hand.store.end_batch(number) if hand.chance.random() < 0.4 else hand.store.join_batch(number).leave()


# --- sessions ---


def ephemeral(hand: Hand) -> None:
    """A session with a quota that is over when it is closed."""
    head = hand.head()
    if len(hand.sessions) > 2:
        hand.sessions.pop(0).close()
    session = hand.store.session(ephemeral=True, quota="1MiB")
    hand.sessions.append(session)
    for step in range(0, 8, 2):
        session.put(hand.value(head + step), f"s/{step}", metadata=head + step)
    hand.hold(session.get("s/2"), hand.check(session.get("s/2"), {head + 2}))


def named_session(hand: Hand) -> None:
    """Sessions that survive their owners, are attached to, and ended now and then."""
    name, head = f"r{hand.chance.randrange(4)}", hand.head()
    attach = hand.chance.choice((None, True))
    with hand.store.session(name, attach=attach) as session:
        session.put(hand.value(head), hand.name(), metadata=head, evictable=hand.chance.random() < 0.5)
        for info in session.list()[:2]:
            hand.hold(obj := session.get(info.id), hand.check(obj))
        if hand.chance.random() < 0.2:
            session.end()


def keep_session(hand: Hand) -> None:
    """A protected object in a session that nobody ends. It is put anew and never deleted, so no ledger: once
    there, it has to stay (chaoschecks.py).
    """
    name, head = f"p/{hand.chance.randrange(6)}-{hand.row}", hand.head()
    with hand.store.session(KEEP_SESSION, attach=True) as session:
        if name in session:
            hand.check(session.get(name))
        session.put(hand.value(head), name, metadata=head)
        hand.check(session.get(name), {head})


# --- connecting ---


def reconnect(hand: Hand) -> None:
    """Close and connect anew; what is held stays readable."""
    hand.builders.clear()
    hand.batches.clear()
    if hand.chance.random() < 0.5:
        hand.sessions.clear()
    hand.store.close()
    hand.store = flightstore.connect(hand.path, create=False, busy_timeout=20)
    hand.check_held()


def events(hand: Hand) -> None:
    """Some events of the latest: their numbers ascend."""
    with hand.store.subscribe(since=0) as subscription:
        before = 0
        for _ in range(20):
            event = subscription.poll(0)
            if event is None:
                return
            if event.number <= before:
                raise Wrong(f"event {event.number} came after {before}")
            before = event.number


MOVES: dict[str, tuple[int, Callable[[Hand], None]]] = {
    "put": (24, put),
    "put_id": (5, put_id),
    "put_protected": (12, put_protected),
    "put_many": (4, put_many),
    "create": (6, create),
    "create_and_not": (4, create_and_not),
    "create_table": (5, create_table),
    "get": (40, get),
    "get_many": (8, get_many),
    "get_protected": (25, get_protected),
    "wait": (2, wait),
    "look": (3, look),
    "compose": (14, compose),
    "delete": (8, delete),
    "delete_protected": (8, delete_protected),
    "pin": (4, pin),
    "unpin": (4, unpin),
    "free": (5, free),
    "evict": (2, evict),
    "spill": (3, spill),
    "set_spill": (1, set_spill),
    "recover": (1, recover),
    "batch": (8, batch),
    "batch_kept_open": (5, batch_kept_open),
    "join_batch": (2, join_batch),
    "ephemeral": (3, ephemeral),
    "named_session": (4, named_session),
    "keep_session": (3, keep_session),
    "reconnect": (1, reconnect),
    "read_events": (1, events),
}
"""All moves but the fork: how often each is made, compared with the others, and what it does."""
