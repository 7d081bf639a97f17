"""Any history of batches: what is visible is what a dictionary says, and all memory comes back."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from dataclasses import dataclass, field

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

picks = st.integers(0, 30)
sizes = st.sampled_from((0, 10, 3_000, 70_000))


@dataclass
class Model:
    """A batch as the machine knows it."""

    batch: fs.Batch
    around: list[Model]
    cleanup: bool
    state: str = "active"
    listed: set[bytes] = field(default_factory=set)
    """Ids of the objects that it lists."""


@dataclass
class Thing:
    """An object as the machine knows it."""

    value: bytes
    name: str | None
    owner: Model | None
    kept: bool = False


class Batches(RuleBasedStateMachine):
    """One store; batches nest as they were begun, and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.parent = tempfile.mkdtemp(dir="/dev/shm", prefix="flightstore-test-")
        self.store = fs.connect(f"{self.parent}/store", capacity="4MiB")
        self.batches: list[Model] = []
        self.things: dict[bytes, Thing] = {}
        self.held: list[tuple[fs.Object, bytes]] = []
        self.numbers = itertools.count()

    def teardown(self) -> None:
        self.held.clear()
        for model in self.batches:
            if model.state != "ended":
                model.batch.delete()
        self.store.delete([info.id for info in self.store.list()])
        self.store.recover()
        stats = self.store.stats()
        assert (stats.objects, stats.used_bytes, self.store.batches()) == (0, 0, [])
        self.store.destroy()
        shutil.rmtree(self.parent)

    def active(self) -> list[Model]:
        return [model for model in self.batches if model.state == "active"]

    def some(self, pick: int) -> Model:
        there = self.active()
        return there[pick % len(there)]

    def thing(self, pick: int) -> tuple[bytes, Thing]:
        there = sorted(self.things)
        object_id = there[pick % len(there)]
        return object_id, self.things[object_id]

    def take_name(self, name: str | None) -> None:
        """What a name meant goes, unless it was kept."""
        for object_id, thing in list(self.things.items()):
            if name is not None and thing.name == name:
                thing.name = None
                if not thing.kept:
                    self.forget(object_id)

    def forget(self, object_id: bytes) -> None:
        del self.things[object_id]
        for model in self.batches:
            model.listed.discard(object_id)

    @rule(pick=picks, nested=st.booleans(), cleanup=st.booleans())
    def begin(self, pick: int, nested: bool, cleanup: bool) -> None:
        if nested and self.active():
            outer = self.some(pick)
            with outer.batch.activate():
                batch = self.store.new_batch(cleanup=cleanup)
            self.batches.append(Model(batch, [outer, *outer.around], cleanup))
        else:
            self.batches.append(Model(self.store.new_batch(cleanup=cleanup), [], cleanup))

    @rule(pick=picks, inside=st.booleans(), name=st.sampled_from((None, "a", "b", "c")), size=sizes)
    def put(self, pick: int, inside: bool, name: str | None, size: int) -> None:
        value = f"{next(self.numbers):06}".encode() + bytes(size)
        owner = self.some(pick) if inside and self.active() else None
        if owner is not None:
            with owner.batch.activate():
                object_id = self.store.put(value, name)
            owner.listed.add(object_id)
        else:
            object_id = self.store.put(value, name)
        self.take_name(name)
        self.things[object_id] = Thing(value, name, owner)

    @precondition(lambda self: self.things and self.active())
    @rule(pick=picks, other=picks)
    def keep(self, pick: int, other: int) -> None:
        object_id, thing = self.thing(pick)
        model = self.some(other)
        owner = thing.owner
        if owner is model or (owner is not None and model in owner.around):
            model.batch.keep(fs.ObjectID(object_id))
            self.pass_on(object_id, thing, next((m for m in model.around if m.state == "active"), None))
        elif owner is None or owner in model.around:
            model.batch.keep(fs.ObjectID(object_id))
        else:
            with pytest.raises(fs.InvalidArgument):
                model.batch.keep(fs.ObjectID(object_id))

    @precondition(lambda self: self.things)
    @rule(pick=picks, other=picks, none=st.booleans())
    def transfer(self, pick: int, other: int, none: bool) -> None:
        object_id, thing = self.thing(pick)
        to = None if none or not self.active() else self.some(other)
        self.store.transfer_ownership(fs.ObjectID(object_id), to.batch if to else None)
        if to is not thing.owner:
            self.pass_on(object_id, thing, to)

    def pass_on(self, object_id: bytes, thing: Thing, to: Model | None) -> None:
        thing.owner, thing.kept = to, True
        if to is not None:
            to.listed.add(object_id)

    @precondition(lambda self: self.active())
    @rule(pick=picks)
    def end(self, pick: int) -> None:
        model = self.some(pick)
        model.batch.end()
        model.state = "ended" if model.cleanup else "closed"
        if model.cleanup:
            for object_id, thing in list(self.things.items()):
                if thing.owner is model:
                    self.forget(object_id)
        with pytest.raises(fs.BatchEnded):
            model.batch.end()

    @precondition(lambda self: any(model.state != "ended" for model in self.batches))
    @rule(pick=picks)
    def delete_batch(self, pick: int) -> None:
        there = [model for model in self.batches if model.state != "ended"]
        model = there[pick % len(there)]
        model.batch.delete()
        model.state = "ended"
        for object_id in list(model.listed):
            self.forget(object_id)

    @precondition(lambda self: self.things)
    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        object_id, _ = self.thing(pick)
        assert self.store.delete(fs.ObjectID(object_id)) == 1
        self.forget(object_id)

    @precondition(lambda self: self.things)
    @rule(pick=picks)
    def hold(self, pick: int) -> None:
        object_id, thing = self.thing(pick)
        self.held.append((self.store.get(fs.ObjectID(object_id)), thing.value))

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        del self.held[pick % len(self.held)]

    @rule()
    def recover(self) -> None:
        self.store.recover()
        assert all(info.state != "ended" for info in self.store.batches())

    @invariant()
    def agrees(self) -> None:
        assert {info.id: info.name for info in self.store.list()} == {
            object_id: thing.name for object_id, thing in self.things.items()
        }
        for object_id, thing in self.things.items():
            assert bytes(self.store.get(fs.ObjectID(object_id)).value()) == thing.value
        for obj, value in self.held:
            assert bytes(obj.value()) == value
        for model in self.batches:
            if model.state != "ended":
                mine = [thing for thing in self.things.values() if thing.owner is model]
                status = model.batch.status()
                assert (status.state, status.objects) == (model.state, len(mine))
        assert self.store.stats().objects == len(self.things)
        assert self.store.fsck() == []


@pytest.mark.slow
@pytest.mark.req("BAT-1", "BAT-2", "BAT-3", "BAT-4", "BAT-8")
def test_histories_of_batches() -> None:
    run_state_machine_as_test(
        Batches,
        settings=settings(
            max_examples=20,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
