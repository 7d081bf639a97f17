"""Our own engine, broken on purpose: each of INV-1 to INV-11 in one or more ways.

A pytest plugin: ``python -m pytest -p breakages --breakage NAME tests/invariants/test_inv_04*`` (with this
folder on PYTHONPATH) runs with that one breakage, in the test's process and in all that it forks. The tests
of the invariant must notice it: test_rules_broken_on_purpose.py.

Invariants: a breakage changes functions of the engine, never a test or what tests call to look at the
outcome, unless that is what is broken. It leaves everything else working, so that a run fails by the rule.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from flightstore.catalog import keys
from flightstore.catalog.records import FLAG_PROBING, ObjectRecord, decode_record
from flightstore.catalog.scopes import ADDED, DELETED, FULL, SPILLED, EventRecord
from flightstore.catalog.transaction import WriteTransaction
from flightstore.lifecycle import eviction, freeing, pressure, reading, recovery, sessions, spilling
from flightstore.lifecycle.choosing import marked_first
from flightstore.memory.clients import Clients
from flightstore.memory.leases import HEADER_WORDS, LeaseTable
from flightstore.objects.base import Object
from flightstore.store.keeping import Keeping
from flightstore.store.local import Store

Break = Callable[[], None]
BREAKAGES: dict[str, tuple[int, Break]] = {}
"""By name: the number of the invariant, and what breaks it."""

_replace = msgspec.structs.replace
_kept: list[object] = []


def breaks(invariant: int) -> Callable[[Break], Break]:
    """Enter a function into the table; its name, with spaces, is the breakage's."""

    def enter(function: Break) -> Break:
        BREAKAGES[f"INV-{invariant}: {function.__name__.replace('_', ' ')}"] = (invariant, function)
        return function

    return enter


def before(owner: Any, name: str, first: Callable[..., object]) -> None:
    """Let a function do something else first, with the same arguments."""
    original = getattr(owner, name)

    def both(*args: Any, **kwargs: Any) -> Any:
        first(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(owner, name, both)


def evict_all(conn: Any, *_: object, **__: object) -> None:
    eviction.evict(conn, None, marked_first)


def spill_all(conn: Any, *_: object, **__: object) -> None:
    spilling.spill(conn, None, marked_first)


def nobody(*_: object) -> set[int]:
    return set()


# --- INV-1, INV-2: references ---


@breaks(1)
def looking_at_an_object_takes_a_reference_that_stays() -> None:
    before(Store, "stat", lambda self, ref: _kept.append(reading.acquire(self._conn, self._session, ref)))


@breaks(1)
def composing_holds_the_members_as_long_as_the_process_lives() -> None:
    before(Store, "select", lambda self, ref, *_, **__: _kept.append(reading.acquire(self._conn, 0, ref)))


@breaks(1)
def a_get_takes_no_reference() -> None:
    original = reading.acquire

    def acquire(*args: Any) -> Any:
        found = original(*args)
        return found and (found[0], found[1], args[0].leases.stay())

    reading.acquire = acquire


@breaks(1)
def a_fork_gives_the_child_no_references() -> None:
    original = LeaseTable.copy_for_child

    def copy_for_child(self: LeaseTable, *args: Any) -> Any:
        file = original(self, *args)
        for index in range(self.high_water):
            file.words[HEADER_WORDS + index] = 0
        return file

    LeaseTable.copy_for_child = copy_for_child  # type: ignore[method-assign]


@breaks(2)
def release_does_nothing() -> None:
    Object.release = lambda self: None  # type: ignore[method-assign]


@breaks(2)
def the_references_of_dead_processes_are_counted() -> None:
    def counts(self: Clients) -> Counter[int]:
        found = Counter(entry for name in self.names() for entry in self.entries(name))
        del found[0]
        return found

    Clients.counts = counts  # type: ignore[method-assign]


@breaks(2)
def views_hold_nothing() -> None:
    def mapped(conn: Any, object_id: object, extent: Any, lease: object) -> pa.Buffer:
        return pa.foreign_buffer(conn.arena.address + extent.offset, extent.length)

    reading._mapped = mapped


@breaks(2)
def a_delete_takes_the_references_away() -> None:
    def delete(self: Store, refs: Any, **_: object) -> None:
        words = self._conn.leases.file.words
        for index in range(self._conn.leases.high_water):
            words[HEADER_WORDS + index] = 0

    before(Store, "delete", delete)


# --- INV-3, INV-4: eviction ---


@breaks(3)
def a_get_evicts() -> None:
    before(reading, "acquire", evict_all)


@breaks(3)
def recover_evicts() -> None:
    before(Store, "recover", lambda self: evict_all(self._conn))


@breaks(3)
def spilling_evicts() -> None:
    before(Keeping, "spill", lambda self, *_: evict_all(self._conn))


@breaks(3)
def creates_do_not_evict() -> None:
    pressure.relieve = lambda *_: False


@breaks(4)
def references_are_ignored() -> None:
    Clients.held = nobody  # type: ignore[method-assign]


@breaks(4)
def references_of_other_processes_are_ignored() -> None:
    def held(self: Clients) -> set[int]:
        mine = (name for name in self.names() if self._pid(name) == os.getpid())
        return {serial for name in mine for serial in self.entries(name) if serial}

    Clients.held = held  # type: ignore[method-assign]


@breaks(4)
def references_taken_after_the_choice_are_ignored() -> None:
    original = eviction._settle
    eviction._settle = lambda tx, marked, held: original(tx, marked, set())


@breaks(4)
def pins_set_after_the_choice_are_ignored() -> None:
    def mark(tx: WriteTransaction, plan: Any) -> list[eviction.Marked]:
        marked = []
        for one in plan:
            record = tx.sealed(one.session, one.candidate.id)
            if record is not None:
                record = _replace(record, flags=record.flags | FLAG_PROBING)
                tx.rewrite_sealed(one.session, one.candidate.id, record)
                marked.append((one.session, one.candidate.id, record))
        return marked

    eviction._mark = mark


@breaks(4)
def pins_are_ignored() -> None:
    pins_set_after_the_choice_are_ignored()
    original = eviction._usage
    eviction._usage = lambda conn, key, record, *rest: original(conn, key, _replace(record, pins=0), *rest)


# --- INV-5 to INV-8: spilling ---


@breaks(5)
def a_get_spills() -> None:
    before(reading, "acquire", spill_all)


@breaks(5)
def recover_spills() -> None:
    before(recovery, "recover", spill_all)


@breaks(5)
def create_now_spills() -> None:
    original = pressure.relieve
    pressure.relieve = lambda conn, nbytes, effort: original(
        conn, nbytes, dataclasses.replace(effort, may_spill=True)
    )


@breaks(6)
def creates_spill_before_they_evict() -> None:
    original = pressure.relieve

    def relieve(conn: Any, nbytes: int, effort: Any) -> bool:
        return spilling.spill(conn, nbytes, marked_first) > 0 or original(conn, nbytes, effort)

    pressure.relieve = relieve


@breaks(6)
def quotas_spill_before_they_evict() -> None:
    original = pressure.relieve_session

    def relieve_session(conn: Any, nbytes: int, effort: Any) -> bool:
        spilled = spilling.spill(conn, nbytes, marked_first, session=effort.session)
        return spilled > 0 or original(conn, nbytes, effort)

    pressure.relieve_session = relieve_session


@breaks(6)
def what_eviction_alone_cannot_meet_is_spilled_as_a_whole() -> None:
    original = pressure.relieve

    def relieve(conn: Any, nbytes: int, effort: Any) -> bool:
        if pressure.evictable_bytes(eviction.read_usage(conn)) < nbytes:
            return spilling.spill(conn, nbytes, marked_first) > 0
        return original(conn, nbytes, effort)

    pressure.relieve = relieve


@breaks(7)
def replicas_are_spilled() -> None:
    original = eviction._usage

    def usage(conn: Any, key: bytes, *rest: Any) -> Any:
        return dataclasses.replace(original(conn, key, *rest), spillable=key[:1] == keys.OBJECT)

    eviction._usage = usage


def _unpin_all(tx: WriteTransaction) -> None:
    for key, raw in tx.records(keys.OBJECT):
        record: ObjectRecord = decode_record(raw)
        if record.pins:
            tx.rewrite_sealed(int.from_bytes(key[1:5], "big"), key[5:], _replace(record, pins=0))


@breaks(8)
def announcing_a_spill_unpins() -> None:
    before(spilling, "_announce", lambda conn, tx, *_: _unpin_all(tx))


@breaks(8)
def concluding_a_spill_unpins() -> None:
    before(spilling, "_mark", lambda conn, tx, moves: _unpin_all(tx))


@breaks(8)
def taking_a_spill_back_unpins() -> None:
    before(spilling, "undo_writing", lambda tx, *_: _unpin_all(tx))


@breaks(8)
def pins_set_during_the_write_are_ignored() -> None:
    spilling._all_known = lambda *_: True


@breaks(8)
def references_taken_during_the_write_are_ignored() -> None:
    original = spilling._free
    spilling._free = lambda tx, marked, held: original(tx, marked, set())


# --- INV-9: deleting ---


@breaks(9)
def a_conditional_delete_ignores_references() -> None:
    Clients.held_by_living = nobody  # type: ignore[method-assign]


@breaks(9)
def a_conditional_delete_counts_the_dead() -> None:
    Clients.held_by_living = lambda self, serials: self.held() & serials  # type: ignore[method-assign]


@breaks(9)
def a_conditional_delete_takes_members() -> None:
    original = freeing._visible

    def visible(*args: Any) -> ObjectRecord | None:
        record = original(*args)
        return record and _replace(record, used_by=0)

    freeing._visible = visible


@breaks(9)
def a_plain_delete_leaves_what_is_in_use() -> None:
    freeing.delete = freeing.delete_unused


@breaks(9)
def a_plain_delete_frees_the_memory_of_what_is_in_use() -> None:
    Clients.held = nobody  # type: ignore[method-assign]


# --- INV-10: sessions ---


@breaks(10)
def a_name_leads_to_the_dead_owners_session() -> None:
    sessions.owners_live = lambda *_: True


@breaks(10)
def ids_of_the_earlier_session_are_found() -> None:
    original = reading._find

    def find(conn: Any, session: int, ref: Any) -> Any:
        return original(conn, session, ref) or (original(conn, session - 1, ref) if session > 1 else None)

    reading._find = find


@breaks(10)
def attaching_makes_nobody_the_owner() -> None:
    def enter(conn: Any, tx: Any, entry: Any, owner: Any) -> None:
        entry.attach = False

    before(sessions, "_enter", enter)


@breaks(10)
def a_restart_ends_the_earlier_session() -> None:
    def begin(conn: Any, tx: WriteTransaction, entry: Any, owner: Any) -> None:
        number = sessions._latest(tx.txn.get, entry.name)
        record = sessions._record(tx.txn.get, number)
        if record is not None:
            sessions._end(tx, number, record)

    before(sessions, "_begin", begin)


# --- INV-11: events ---


def _untold(kind: int) -> Break:
    def apply() -> None:
        original = WriteTransaction.add_event

        def add_event(self: WriteTransaction, event: EventRecord) -> None:
            if event.kind != kind:
                original(self, event)

        WriteTransaction.add_event = add_event  # type: ignore[method-assign]

    return apply


for _kind, _word in ((ADDED, "added"), (DELETED, "deleted"), (SPILLED, "spilled"), (FULL, "full")):
    BREAKAGES[f"INV-11: {_word} is not told"] = (11, _untold(_kind))


@breaks(11)
def deleted_is_told_twice() -> None:
    def again(self: WriteTransaction, kind: int, session: int, object_id: bytes, record: Any) -> None:
        if kind == DELETED:
            self.add_event(EventRecord(kind, session, bytes(object_id), (*record.names, None)[0], 0, 1))

    before(WriteTransaction, "note", again)


@breaks(11)
def added_is_told_when_it_is_created() -> None:
    before(
        WriteTransaction, "add_pending", lambda tx, session, oid, record: tx.note(ADDED, session, oid, record)
    )


# --- the plugin ---


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --breakage."""
    parser.addoption("--breakage", choices=sorted(BREAKAGES), help="break the engine in this way")


def pytest_configure(config: pytest.Config) -> None:
    """Break it, before a test or a store is there."""
    name = config.getoption("--breakage")
    if name is not None:
        BREAKAGES[name][1]()
