"""The stage for crash tests: a small store in a known state, and what must hold whatever died in it.

Lives here: `Scene` (a store, what is in it, what the surviving process holds), `open_scene` / `close_scene`
and the checks of `verify_scene`. Uses the engine's insides for one thing only: to put a used store back to
its first state, which is ten times faster than making another one.

Invariants: a store goes back into the pool only after a check that found nothing wrong. Stores lie in
/dev/shm under a name of this process; the last one is removed when it exits, or by `empty_pool`.
"""

from __future__ import annotations

import atexit
import mmap
import os
import random
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flightstore
from flightstore.catalog import keys
from flightstore.catalog.environment import scan
from flightstore.catalog.records import ARENA_FILE
from flightstore.catalog.scopes import SpillRecord, decode_spill
from flightstore.catalog.transaction import Counters, WriteTransaction
from flightstore.lifecycle import spilling
from flightstore.memory.allocator import size_class
from flightstore.store import Store
from flightstore.testing.killpoints import Outcome
from flightstore.testing.watched import Link, Watched, fork_watched

__all__ = [
    "CAPACITY_BYTES",
    "Scene",
    "close_scene",
    "contents",
    "empty_pool",
    "end_bystander",
    "fresh_path",
    "held_is_right",
    "open_scene",
    "plain",
    "pattern",
    "reset",
    "sound",
    "spill_directory",
    "verify_scene",
    "works",
]

CAPACITY_BYTES = 1 << 20
"""Capacity of the stores: four steps of growth."""
OUR_FILES = {"arena", "catalog", "clients", "control", "new", "reserve"}

Values = Mapping[str, Any]


def pattern(seed: int, nbytes: int) -> bytes:
    """Bytes that no other seed gives, of which no two pieces are alike."""
    return random.Random(seed).randbytes(nbytes)


BASE: Values = {"small": pattern(1, 1_000), "large": pattern(2, 100_000), "held": pattern(3, 3_000)}
"""What is in every store to begin with."""
_NEXT: Values = {"next-small": pattern(4, 700), "next-large": pattern(5, 70_000)}


@dataclass(slots=True)
class Scene:
    """A store for one run of one operation."""

    path: str
    """Directory of the store."""
    before: dict[str, Any]
    """Names and values as they are before the operation."""
    after: dict[str, Any]
    """Names and values once it has happened."""
    survivor: Store | None
    """The surviving process's handle, connected before the fork; None when it connects afterwards."""
    held: list[tuple[Any, Any]] = field(default_factory=list)
    """Objects that the survivor holds, and their right values."""
    between: list[dict[str, Any]] = field(default_factory=list)
    """Other states in which it may be left: where several processes act."""
    bystander: Watched | None = None
    """A third process that has the store open, and does nothing."""
    found_sound: bool = False
    """Whether it was recovered and checked after the last thing that was done in it."""
    flag: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, mmap.PAGESIZE))
    """Memory shared with the children: a non-zero byte says that one of them read something wrong."""

    @property
    def clients(self) -> int:
        """How many clients live while this process is connected."""
        return 1 + (self.bystander is not None)


# --- making and removing ---

_idle: dict[bool, list[tuple[str, Watched | None]]] = {True: [], False: []}
"""Stores that wait, those with a bystander and those without: where, and the bystander."""
_made = 0
_lifelines: dict[int, int] = {}
"""Of each bystander, the end of a pipe that closes when this process ends."""


def open_scene(*, survivor: bool = True, hold: bool = True) -> Scene:
    """A store that holds `BASE`.

    Args:
        survivor: This process stays connected, and a bystander has the catalog open all the time: forks close
            it here, and when the last one that has it open dies, the next to open it starts LMDB's locks and
            reader slots over. Otherwise nobody has it open when the victim dies, and this process connects
            to verify.
        hold: It also keeps a view of the object "held" (with `survivor` only).
    """
    idle = _idle[survivor]
    path, bystander = idle.pop() if idle else (fresh_path(), None)
    if survivor and bystander is None:
        bystander = _begin_bystander(path)
    store = flightstore.connect(path, capacity=CAPACITY_BYTES)
    for name, value in BASE.items():
        store.put(value, name)
    scene = Scene(path, dict(BASE), dict(BASE), store if survivor else None, bystander=bystander)
    if survivor and hold:
        scene.held.append((store.get("held"), BASE["held"]))
    if not survivor:
        store.close()
    return scene


def close_scene(scene: Scene) -> None:
    """Put the store back to its first state and into the pool; remove it when it is not sound."""
    store = scene.survivor or flightstore.connect(scene.path, capacity=CAPACITY_BYTES)
    scene.survivor = None
    scene.held.clear()
    shutil.rmtree(spill_directory(scene.path), ignore_errors=True)
    try:
        if not scene.found_sound:
            store.recover()
            if store.fsck() or store.stats().leases:
                raise flightstore.FlightStoreError("not sound")
        reset(store)
    except flightstore.FlightStoreError:
        _remove(store, scene.bystander)
        return
    store.close()  # a fresh connection for each run: the lines it executes depend on what it did before
    _idle[scene.bystander is not None].append((scene.path, scene.bystander))


def empty_pool() -> None:
    """Remove the stores that wait to be used again."""
    for stores in _idle.values():
        while stores:
            path, bystander = stores.pop()
            _remove(flightstore.connect(path), bystander)


def _remove(store: Store, bystander: Watched | None) -> None:
    if bystander is not None:
        end_bystander(bystander)
    store.destroy()


def end_bystander(bystander: Watched) -> None:
    """Kill it and wait until it is gone."""
    bystander.kill()
    os.close(_lifelines.pop(bystander.pid))


def _begin_bystander(path: str) -> Watched:
    """Fork a process that connects to the store, making it if need be, and stays."""

    parent, ours = os.pipe()

    def body(link: Link) -> None:
        os.close(ours)
        store = flightstore.connect(path, capacity=CAPACITY_BYTES)
        link.tell("connected")
        os.read(parent, 1)  # ends with the process that forked it, however that one ends
        store.close()

    bystander = fork_watched(body)
    os.close(parent)
    bystander.wait_for("connected")
    _lifelines[bystander.pid] = ours
    return bystander


def fresh_path() -> str:
    """Where no store is yet."""
    global _made
    _made += 1
    if _made == 1:
        atexit.register(empty_pool)
    return f"/dev/shm/flightstore-crash-{os.getpid()}-{_made}"


def spill_directory(path: str) -> str:
    """Where a scene's store spills to, if it does."""
    return os.path.join(tempfile.gettempdir(), os.path.basename(path) + "-spilled")


def reset(store: Store) -> None:
    """Empty the catalog and the arena; serial numbers go on. Requires that nobody holds anything."""
    conn = store._conn
    end = conn.arena.arena_bytes.to_bytes(8, "big")

    def work(tx: WriteTransaction) -> None:
        for key, _ in list(scan(tx.txn, b"")):
            if key not in (keys.FORMAT, keys.COUNTERS):
                tx.txn.delete(key)
        klass = size_class(conn.arena.arena_bytes).to_bytes(2, "big")
        tx.txn.put(keys.COLD + end, bytes(8))
        tx.txn.put(keys.COLD.lower() + klass + end, b"")
        tx.counters = Counters(next_serial=tx.counters.next_serial)

    def both_steps() -> None:
        conn.transact(work)
        conn.arena.punch(0, conn.arena.arena_bytes)

    conn.exclusive(both_steps)


# --- checking ---


def contents(store: Store) -> dict[str, Any]:
    """All names and values; every sealed object has a name here, or is a member of one that has."""
    found = {}
    for info in store.list():
        obj = store.get(info.id)
        if info.name is None:
            assert obj._live.record.used_by, f"{info.id} has no name"
        else:
            found[info.name] = plain(obj)
    return found


def plain(obj: Any) -> Any:
    """A copy of an object's value, read through its mapping."""
    return obj.to_arrow().to_pydict() if obj.kind == "table" else bytes(obj.value())


def verify_scene(scene: Scene, outcome: Outcome) -> None:
    """Everything that must hold after a process was killed in the middle of an operation, or finished it."""
    held_is_right(scene)
    assert not any(scene.flag[:8]), "another process read a wrong value"
    store = scene.survivor or flightstore.connect(scene.path, create=False)
    try:
        store.recover()
        sound(store, held=len(scene.held), clients=scene.clients)
        found = contents(store)
        allowed = [scene.after] if outcome.kind == "finished" else [scene.before, scene.after, *scene.between]
        assert any(_same(found, one) for one in allowed), _difference(found, scene)
        _accounts(store, found, scene)
        _told(store)
        held_is_right(scene)
        works(store)
        held_is_right(scene)
        scene.held.clear()
        store.recover()
        sound(store, clients=scene.clients)
        assert _same(contents(store), found)
        assert store.stats().dying == 0, "memory of deleted objects did not come back"
        scene.found_sound = True
    finally:
        if scene.survivor is None:
            store.close()


def held_is_right(scene: Scene) -> None:
    """What the survivor holds still reads as it did, deleted or not."""
    for obj, value in scene.held:
        assert plain(obj) == value, "a value that is held changed under its reader"


def sound(store: Store, *, held: int = 0, clients: int = 1) -> None:
    """fsck finds nothing, and no file, lease, pending object or page is left of the dead."""
    findings = store.fsck()
    assert not findings, findings
    directory = store.path
    files = os.listdir(directory)
    assert set(files) == OUR_FILES, files
    assert not os.listdir(f"{directory}/new"), "half-made client files remain"
    files = os.listdir(f"{directory}/clients")
    assert len(files) == clients, f"client files of the dead remain: {files}"
    stats = store.stats()
    assert (stats.clients, stats.leases, stats.pending) == (clients, held, 0), stats
    assert store._conn.catalog.clear_stale_readers() == 0, "reader slots of the dead keep old pages"
    spilled = spill_directory(store.path)
    files = os.listdir(spilled) if os.path.isdir(spilled) else []
    known = [spilling.file_name(store._conn, record.file) for _, record in _spills(store) if record.location]
    assert sorted(files) == sorted(known), "spill files and the catalog do not agree"
    # fsck compares these too; here they are read by other means.
    assert os.stat(f"{directory}/arena").st_blocks * 512 == stats.backed_bytes, stats
    assert store._conn.control.usage()[:3] == (stats.used_bytes, stats.backed_bytes, stats.objects)


def _accounts(store: Store, found: Values, scene: Scene) -> None:
    """Used bytes are those of the live objects, and of what is held although it was deleted."""
    there = store.list()
    names = [info.name for info in there if info.name is not None]
    assert sorted(names) == sorted(found), "two objects bear one name"
    alive = [*store.get_many(info.id for info in there), *(obj for obj, _ in scene.held)]
    extents = {extent for obj in alive for extent in obj._live.record.extents}
    records = {number: record for number, record in _spills(store) if record.offset >= 0}
    extents = {extent for extent in extents if extent[0] == ARENA_FILE or extent[1] in records}
    expected = sum(extent[2] for extent in extents)
    assert store.stats().used_bytes == expected, (store.stats().used_bytes, expected)


def _spills(store: Store) -> list[tuple[int, SpillRecord]]:
    items = store._conn.catalog.items(keys.SPILL)
    return [(int.from_bytes(key[1:], "big"), decode_spill(raw)) for key, raw in items]


def _told(store: Store) -> None:
    """The log of events tells what became of every object, as far as it goes back."""
    events = list(store.subscribe(since=0, timeout=0, kinds=("added", "deleted")))
    whole = bool(events) and events[0].number == 1
    alive = set()
    for event in events:
        if event.kind == "added":
            assert event.id not in alive, f"told twice: {event}"
            alive.add(event.id)
        else:
            assert event.id in alive or not whole, f"told twice, or not told of before: {event}"
            alive.discard(event.id)
    there = {info.id for info in store.list()}
    assert alive == there or (alive < there and not whole), "the log does not tell what is there"


def works(store: Store) -> None:
    """The next operation of every kind succeeds."""
    ids = store.put_many(_NEXT)
    assert store.contains("next-small")
    assert plain(store.get("next-small")) == _NEXT["next-small"]
    assert [plain(obj) for obj in store.get_many(ids)] == list(_NEXT.values())
    store.put(b"changed", "next-small")
    assert plain(store.get("next-small")) == b"changed"
    with store.create(5_000, "next-built") as blob:
        blob.buffer[:] = bytes(5_000)
    del blob
    store.create(5_000, "next-aborted").abort()
    assert plain(store.get("next-built")) == bytes(5_000)
    assert store.wait(["next-built", "next-small"], timeout=0)[1] == []
    assert store.delete("next-built", if_unused=True) == 1
    assert store.delete(["next-small", "next-large", "next-aborted"]) == 2


def _same(one: Values, other: Values) -> bool:
    return one.keys() == other.keys() and all(one[name] == other[name] for name in one)


def _difference(found: Values, scene: Scene) -> str:
    def told(values: Values) -> dict[str, str]:
        known = {**scene.before, **scene.after}
        return {
            name: "right"
            if name in known and value in (scene.before.get(name), scene.after.get(name))
            else "WRONG"
            for name, value in values.items()
        }

    return f"found {told(found)}; before: {sorted(scene.before)}, after: {sorted(scene.after)}"
