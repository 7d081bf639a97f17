"""Random histories of three sessions and the store itself, compared with dictionaries: equal names and ids,
quotas, tables composed across sessions, objects held beyond the end of theirs.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import flightstore as fs

QUOTA = 60_000
NAMES = ("a", "b", "c")
IDS = tuple(fs.ObjectID(b"id-%d" % number) for number in range(3))
slots = st.integers(0, 3)
names = st.sampled_from(NAMES)
picks = st.integers(0, 20)


class Slot:
    """A session (or the store itself) and what must be in it."""

    def __init__(self, handle: fs.Store, *, quota: int = 0, ephemeral: bool = False) -> None:
        self.handle = handle
        self.quota = quota
        self.ephemeral = ephemeral
        self.objects: dict[fs.ObjectID, tuple[str | None, list[int]]] = {}
        self.left: set[fs.ObjectID] = set()
        """Those that lost their name: they stay as long as another is composed of them."""

    def forget_left(self) -> None:
        for object_id in list(self.left):
            if not self.handle.contains(object_id):
                self.left.remove(object_id)
                del self.objects[object_id]

    def named(self, name: str) -> fs.ObjectID | None:
        return next((one for one, (known, _) in self.objects.items() if known == name), None)


class Sessions(RuleBasedStateMachine):
    """One store, three sessions of it, and the objects that somebody still holds."""

    def __init__(self) -> None:
        super().__init__()
        self.parent = tempfile.mkdtemp(dir="/dev/shm", prefix="flightstore-test-")
        self.store = fs.connect(f"{self.parent}/store", capacity="4MiB")
        self.slots: list[Slot | None] = [Slot(self.store), None, None, None]
        self.over: list[fs.Store] = []
        self.held: list[tuple[fs.Object, list[int]]] = []
        self.numbers = itertools.count()

    def teardown(self) -> None:
        for slot in range(1, 4):
            self.end(slot)
        self.held.clear()
        self.store.delete(list(self.slots[0].objects))  # type: ignore[union-attr]
        self.store.recover()
        stats = self.store.stats()
        assert (stats.objects, stats.used_bytes, self.store.sessions()) == (0, 0, [])
        assert self.store.fsck() == []
        self.store.destroy()
        shutil.rmtree(self.parent)

    def living(self, pick: int) -> Slot:
        there = [slot for slot in self.slots if slot is not None]
        return there[pick % len(there)]

    # --- sessions ---

    @rule(slot=st.integers(1, 3), limited=st.booleans(), ephemeral=st.booleans())
    def begin(self, slot: int, limited: bool, ephemeral: bool) -> None:
        if self.slots[slot] is None:
            quota = QUOTA if limited else None
            session = self.store.session(f"session-{slot}", quota=quota, ephemeral=ephemeral)
            self.slots[slot] = Slot(session, quota=quota or 0, ephemeral=ephemeral)

    @rule(slot=st.integers(1, 3))
    def end(self, slot: int) -> None:
        ending = self.slots[slot]
        if ending is not None and isinstance(ending.handle, fs.Session):
            ending.handle.end()
            self.over.append(ending.handle)
            self.slots[slot] = None

    @rule(slot=st.integers(1, 3))
    def close(self, slot: int) -> None:
        """An ephemeral one is over, another is joined again."""
        closing = self.slots[slot]
        if closing is None or not isinstance(closing.handle, fs.Session):
            return
        number = closing.handle.number
        closing.handle.close()
        if closing.ephemeral:
            with pytest.raises(fs.SessionNotFound):
                self.store.session(number)
            self.slots[slot] = None
        else:
            closing.handle = self.store.session(f"session-{slot}")
            assert closing.handle.number == number

    @rule()
    def recover(self) -> None:
        self.store.recover()
        assert self.store.fsck() == []
        living = [slot for slot in self.slots[1:] if slot is not None]
        assert len(self.store.sessions()) == len(living)

    # --- objects ---

    def seal(self, slot: Slot, object_id: fs.ObjectID, name: str | None, values: list[int]) -> None:
        old = slot.named(name) if name is not None else None
        slot.objects[object_id] = name, values
        if old is not None:
            slot.left.add(old)
            slot.objects[old] = None, slot.objects[old][1]
        slot.forget_left()

    @rule(
        pick=slots, name=st.none() | names, wanted=st.none() | st.sampled_from(IDS), rows=st.integers(0, 2000)
    )
    def put(self, pick: int, name: str | None, wanted: fs.ObjectID | None, rows: int) -> None:
        slot = self.living(pick)
        number = next(self.numbers)
        values = list(range(number, number + rows))
        try:
            object_id = slot.handle.put(pa.table({"x": pa.array(values, pa.int64())}), name, object_id=wanted)
        except fs.ObjectExists:
            assert wanted in slot.objects
        except fs.QuotaExceeded:
            assert slot.quota
        else:
            assert wanted is None or wanted not in slot.objects
            self.seal(slot, object_id, name, values)

    @rule(pick=slots, source=slots, which=picks, name=names)
    def compose(self, pick: int, source: int, which: int, name: str) -> None:
        """Twice the rows of an object of this session or another one."""
        slot, there = self.living(pick), self.living(source)
        if there.objects:
            object_id = sorted(there.objects)[which % len(there.objects)]
            values = there.objects[object_id][1] * 2
            if len(values) < 10_000:
                obj = there.handle.get(object_id)
                try:
                    made = slot.handle.concat([obj, obj], name).id
                except fs.QuotaExceeded:
                    assert slot.quota
                else:
                    self.seal(slot, made, name, values)

    @rule(pick=slots, which=picks)
    def delete(self, pick: int, which: int) -> None:
        slot = self.living(pick)
        if slot.objects:
            object_id = sorted(slot.objects)[which % len(slot.objects)]
            name = slot.objects[object_id][0]
            assert slot.handle.delete(name or object_id) == 1
            del slot.objects[object_id]
            slot.left.discard(object_id)
            slot.forget_left()

    @rule(pick=slots, which=picks)
    def hold(self, pick: int, which: int) -> None:
        slot = self.living(pick)
        if slot.objects:
            object_id = sorted(slot.objects)[which % len(slot.objects)]
            self.held.append((slot.handle.get(object_id), slot.objects[object_id][1]))

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        del self.held[pick % len(self.held)]

    # --- what must hold ---

    @invariant()
    def everything_is_where_it_was_put(self) -> None:
        for slot in self.slots:
            if slot is not None:
                found = {info.id: info.name for info in slot.handle.list()}
                assert found == {one: name for one, (name, _) in slot.objects.items()}
                for object_id, (name, values) in slot.objects.items():
                    assert slot.handle.get(name or object_id).to_arrow()["x"].to_pylist() == values
        for obj, values in self.held:
            assert obj.to_arrow()["x"].to_pylist() == values
        for handle in self.over[-2:]:
            assert handle.list() == []
            assert not any(handle.contains(ref) for ref in (*NAMES, *IDS))

    @invariant()
    def quotas_are_kept(self) -> None:
        quotas = {info.id: (info.quota_bytes, info.used_bytes) for info in self.store.sessions()}
        assert all(used <= quota for quota, used in quotas.values() if quota)
        assert [finding for finding in self.store.fsck() if not finding.recoverable] == []


@pytest.mark.slow
@pytest.mark.req("ISO-1", "ISO-2", "ISO-3")
def test_sessions_behave_like_dictionaries() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Sessions,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
