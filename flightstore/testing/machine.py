"""The stateful machine: random histories of several clients on one store, compared with a dictionary.

Lives here: `StoreMachine` (hypothesis rules), `machine_for` (a machine for any store), `explore` (run it for
a given time) and the command ``python -m flightstore.testing.machine``. Needs the package hypothesis. Calls
model.py, machine_clients.py, machine_room.py and the public API.

Theory of operation. Two clients are handles in this process, two are forked workers, which are also killed.
Commands are carried out one after the other, so every outcome can be foretold by the model: results, errors,
the count of references on each object, and after a recovery the bytes in use. A StoreFull must be justified
(machine_room.py says what that means).

A client that was killed leaves things behind until somebody recovers the store. In between (`unsettled`) what
the store counts may exceed what the model says, never fall below it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flightstore.abc import AbstractStore
from flightstore.errors import ObjectExists, ObjectNotFound, StoreClosed, StoreFull
from flightstore.testing.children import child
from flightstore.testing.machine_clients import Answer, Executor, Got, LocalClient, WorkerClient
from flightstore.testing.machine_room import Room
from flightstore.testing.model import KINDS, Hold, Model, Recipe, Thing, make_value, same
from flightstore.types import ObjectID, Ref

__all__ = ["StoreMachine", "explore", "machine_for", "main"]

LOCAL, WORKERS = (0, 1), (2, 3)
CAPACITIES = (256 << 10, 1 << 20, 3 << 20)
_LONG = "long " * 130
NAMES = ("a", "b", "a/1", "ünïcode \N{SNOWMAN}", "id", _LONG + "1", _LONG + "2")
IDS = (ObjectID(b"\0"), ObjectID(b"plasma-id-of-20-byte"), ObjectID(b"\xff" * 64))
PATTERNS = (None, "*", "a*", "?", "[ab]", "long*2", "no such name")
METADATA = (None, None, {"unit": "kg", "n": [1, 2.5, None, b"x"]}, {"long": "m" * 700})
# Around the unit of allocation, a page, and the size from which a put takes two transactions.
SIZES = (
    0,
    1,
    63,
    64,
    65,
    1000,
    4095,
    4096,
    4097,
    20_000,
    65_535,
    65_536,
    65_537,
    150_000,
    400_000,
    4_000_000,
)

clients = st.sampled_from(LOCAL + WORKERS)
names = st.none() | st.sampled_from(NAMES)
ids = st.none() | st.sampled_from(IDS)
picks = st.integers(0, 50)
refs = st.sampled_from(NAMES) | st.sampled_from(IDS) | picks
metadatas = st.sampled_from(range(len(METADATA)))
recipes = st.one_of(
    st.builds(Recipe, st.just("bytes"), st.sampled_from(SIZES), picks),
    st.builds(Recipe, st.just("array"), st.sampled_from((0, 1, 1000, 20_000, 100_000)), picks),
    st.builds(Recipe, st.just("table"), st.sampled_from((0, 1, 100, 5000)), picks),
    st.builds(Recipe, st.just("object"), st.sampled_from((0, 100, 50_000)), picks),
)


class StoreMachine(RuleBasedStateMachine):
    """Random histories on one store. Made for a store by :func:`machine_for`."""

    connect: Callable[[str, int], AbstractStore]
    """Connects to (and makes) the store of the example, by its number, with that capacity."""
    room: type[Room] = Room
    """What is known about the store's use of memory."""
    examples = 0
    """Examples begun."""

    # --- beginning and end ---

    @initialize(capacity_bytes=st.sampled_from(CAPACITIES))
    def begin(self, capacity_bytes: int) -> None:
        """Make the store and its clients."""
        number = StoreMachine.examples
        StoreMachine.examples += 1
        self.capacity_bytes = capacity_bytes
        self.open = lambda: type(self).connect(f"example-{number}", capacity_bytes)
        self.model = Model()
        self.unsettled = False
        self.next_token = 0
        self.clients: dict[int, LocalClient | WorkerClient] = {}
        for index in LOCAL:
            self.clients[index] = LocalClient(self.open)
        for index in WORKERS:
            self.clients[index] = WorkerClient(self.open, self.executors())
        self.space = self.room(capacity_bytes, self.model, self.executors()[0])

    def teardown(self) -> None:
        """All values are right to the end, and all memory comes back."""
        if not getattr(self, "clients", None):
            return
        try:
            self.check_all_values()
            self.give_everything_back()
        finally:
            for index in WORKERS:
                if index in self.clients:
                    self.clients[index].end()
            store = self.executors()[0].store
            for executor in self.executors():
                executor.forget_all()
            store.destroy()

    def check_all_values(self) -> None:
        """Every held view and every object, by id and name, from one client of each sort."""
        for token in self.model.tokens("got"):
            self.check_held(token)
        for index in (LOCAL[0], WORKERS[0]):
            for thing in list(self.model.by_id.values()):
                self.check_got(thing, self.ask(index, "get", thing.id))
                if thing.name is not None:
                    self.check_got(thing, self.ask(index, "get", thing.name))

    def give_everything_back(self) -> None:
        """Drop all references, then all objects; compare what is used after each."""
        for token in list(self.model.holds):
            hold = self.model.holds[token]
            if hold.role == "builder":
                self.ask(hold.client, "abort", token)
                self.model.pending.pop(hold.thing.id)
            else:
                self.ask(hold.client, "drop", token)
            del self.model.holds[token]
        self.settle(LOCAL[0])
        assert self.ask(WORKERS[0], "delete", list(self.model.by_id), False) == len(self.model.by_id)
        for thing in list(self.model.by_id.values()):
            self.model.remove(thing)
        self.settle(WORKERS[0])
        stats = self.ask(LOCAL[0], "stats")
        assert (stats.objects, stats.pending, stats.dying, stats.used_bytes) == (0, 0, 0, 0), stats
        self.space.check_consistent()

    # --- helpers ---

    def executors(self) -> list[Executor]:
        """Those of this process."""
        return [one.executor for one in self.clients.values() if isinstance(one, LocalClient)]

    def attempt(self, client: int, command: str, *arguments: Any) -> Answer:
        """Have a client carry out a command."""
        return self.clients[client].call(command, *arguments)

    def ask(self, client: int, command: str, *arguments: Any) -> Any:
        """A command that must succeed."""
        answer = self.attempt(client, command, *arguments)
        if answer.error is not None:
            notes = "\n".join(getattr(answer.error, "__notes__", ()))
            raise AssertionError(f"client {client}: {command} failed: {answer.error!r}\n{notes}")
        return answer.result

    def token(self) -> int:
        """A new token."""
        self.next_token += 1
        return self.next_token

    def ref(self, pick: Ref | int) -> Ref:
        """The reference that a draw means: numbers pick an object that exists, if there is one."""
        if isinstance(pick, int):
            known = list(self.model.by_id)
            return known[pick % len(known)] if known else IDS[0]
        return pick

    def settle(self, client: int) -> None:
        """Recover, after which bytes in use are exactly those of what is live."""
        self.ask(client, "recover")
        self.unsettled = False
        stats = self.ask(client, "stats")
        live = [(str(thing.id), thing.footprint_bytes) for thing in self.model.live()]
        assert stats.used_bytes == self.model.live_bytes(), f"{stats}\nlive objects take {live}"

    def expect(self, answer: Answer, kind: type[Exception]) -> None:
        """The command failed as foretold."""
        assert type(answer.error) is kind, f"{kind.__name__} expected, got {answer}"

    def check_got(self, thing: Thing, got: Got) -> None:
        """What a get showed is the thing."""
        assert (got.id, got.name, got.kind) == (thing.id, thing.name, thing.kind)
        assert same(got.metadata, thing.metadata), f"metadata {got.metadata!r} of {thing.id}"
        assert same(got.value, thing.value), f"{thing.id} has another value: {got.value!r:.200}"

    def check_held(self, token: int) -> None:
        """What is held is unchanged, deleted or not."""
        hold = self.model.holds[token]
        value = self.ask(hold.client, "held", token)
        assert same(value, hold.thing.value), f"held {hold.thing.id} changed: {value!r:.200}"

    def thing(self, recipe: Recipe, name: str | None, metadata: Any) -> Thing:
        """What a put of a recipe makes, its id to be filled in."""
        value = make_value(recipe)
        rows = recipe.size if recipe.kind == "table" else None
        footprint = self.space.footprint_bytes(value, metadata)
        return Thing(IDS[0], name, KINDS[recipe.kind], value, metadata, footprint, rows)

    def without_orphans(self, object_id: ObjectID | None) -> None:
        """What a dead client was building may still have the id: nothing is certain before a recovery."""
        if object_id is not None and self.unsettled:
            self.settle(LOCAL[0])

    # --- putting ---

    @rule(client=clients, recipe=recipes, name=names, object_id=ids, metadata=metadatas)
    def put(
        self, client: int, recipe: Recipe, name: str | None, object_id: ObjectID | None, metadata: int
    ) -> None:
        """put: a new object, or a taken id, or no room."""
        self.without_orphans(object_id)
        thing = self.thing(recipe, name, METADATA[metadata])
        answer = self.attempt(client, "put", thing.value, name, object_id, thing.metadata)
        if self.model.is_taken(object_id):
            self.expect(answer, ObjectExists)
        elif isinstance(answer.error, StoreFull):
            self.space.check_full(answer.error, thing.footprint_bytes)
        else:
            assert answer.error is None, repr(answer.error)
            assert object_id is None or answer.result == object_id
            thing.id = answer.result
            self.model.seal(thing)

    @rule(
        client=clients,
        several=st.lists(st.tuples(recipes, st.sampled_from(NAMES)), max_size=5),
        named=st.booleans(),
    )
    def put_many(self, client: int, several: list[tuple[Recipe, str]], named: bool) -> None:
        """put_many: all or none."""
        if named:
            several = list({name: (recipe, name) for recipe, name in several}.values())
        things = [self.thing(recipe, name if named else None, None) for recipe, name in several]
        values = {thing.name: thing.value for thing in things} if named else [one.value for one in things]
        answer = self.attempt(client, "put_many", values)
        if isinstance(answer.error, StoreFull):
            self.space.check_full_for_many([thing.footprint_bytes for thing in things])
            return
        assert answer.error is None, repr(answer.error)
        assert len(answer.result) == len(things)
        for thing, object_id in zip(things, answer.result, strict=True):
            thing.id = object_id
            self.model.seal(thing)

    # --- getting and holding ---

    @rule(client=clients, pick=refs)
    def get(self, client: int, pick: Ref | int) -> None:
        """get: the value, or ObjectNotFound."""
        ref = self.ref(pick)
        thing, answer = self.model.find(ref), self.attempt(client, "get", ref)
        if thing is None:
            self.expect(answer, ObjectNotFound)
        else:
            assert answer.error is None, repr(answer.error)
            self.check_got(thing, answer.result)

    @rule(client=clients, several=st.lists(refs, max_size=4))
    def get_many(self, client: int, several: list[Ref | int]) -> None:
        """get_many: all or none."""
        wanted = [self.ref(pick) for pick in several]
        things = [self.model.find(ref) for ref in wanted]
        answer = self.attempt(client, "get_many", wanted)
        if None in things:
            self.expect(answer, ObjectNotFound)
            return
        assert answer.error is None, repr(answer.error)
        for thing, got in zip(things, answer.result, strict=True):
            assert thing is not None
            self.check_got(thing, got)

    @precondition(lambda self: len(self.model.holds) < 12)
    @rule(client=clients, pick=refs, view=st.booleans())
    def hold(self, client: int, pick: Ref | int, view: bool) -> None:
        """Keep an object, or a view only."""
        ref, token = self.ref(pick), self.token()
        thing = self.model.find(ref)
        if thing is not None:
            assert self.ask(client, "hold", token, ref, view) == thing.id
            self.model.holds[token] = Hold(client, thing, "got")

    @precondition(lambda self: self.model.tokens("got"))
    @rule(pick=picks)
    def look_at_held(self, pick: int) -> None:
        """A held value is as it was."""
        tokens = self.model.tokens("got")
        self.check_held(tokens[pick % len(tokens)])

    @precondition(lambda self: self.model.tokens("got") or self.model.tokens("late"))
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        """Give a reference back."""
        tokens = self.model.tokens("got") + self.model.tokens("late")
        token = tokens[pick % len(tokens)]
        self.ask(self.model.holds[token].client, "drop", token)
        del self.model.holds[token]

    # --- deleting ---

    @rule(client=clients, several=st.lists(refs, min_size=1, max_size=4), if_unused=st.booleans())
    def delete(self, client: int, several: list[Ref | int], if_unused: bool) -> None:
        """delete, conditional or not."""
        doomed = [self.ref(pick) for pick in several]
        count = self.ask(client, "delete", doomed, if_unused)
        assert count == self.model.delete(doomed, if_unused=if_unused)

    # --- building in place ---

    @precondition(lambda self: len(self.model.holds) < 12)
    @rule(
        client=clients,
        nbytes=st.sampled_from(SIZES),
        name=names,
        object_id=ids,
        metadata=metadatas,
        now=st.booleans(),
    )
    def create(
        self,
        client: int,
        nbytes: int,
        name: str | None,
        object_id: ObjectID | None,
        metadata: int,
        now: bool,
    ) -> None:
        """create and create_now."""
        self.without_orphans(object_id)
        extra = METADATA[metadata]
        token, footprint = self.token(), self.space.footprint_in_place_bytes(nbytes, extra)
        answer = self.attempt(client, "create", token, nbytes, name, object_id, extra, now)
        if self.model.is_taken(object_id):
            self.expect(answer, ObjectExists)
        elif isinstance(answer.error, StoreFull):
            self.space.check_full(answer.error, footprint)
        else:
            assert answer.error is None, repr(answer.error)
            thing = Thing(answer.result, name, "blob", bytearray(nbytes), extra, footprint)
            self.model.pending[thing.id] = thing
            self.model.holds[token] = Hold(client, thing, "builder")

    def builder(self, pick: int) -> tuple[int, Hold]:
        """One of the open builders."""
        tokens = self.model.tokens("builder")
        token = tokens[pick % len(tokens)]
        return token, self.model.holds[token]

    @precondition(lambda self: self.model.tokens("builder"))
    @rule(pick=picks, at=st.integers(0, 10_000), data=st.binary(min_size=1, max_size=200))
    def fill(self, pick: int, at: int, data: bytes) -> None:
        """Write into a pending object."""
        token, (client, thing, _) = self.builder(pick)
        at = at % (len(thing.value) + 1)
        data = data[: len(thing.value) - at]
        self.ask(client, "fill", token, at, data)
        thing.value[at : at + len(data)] = data

    @precondition(lambda self: self.model.tokens("builder"))
    @rule(pick=picks, keep_view=st.booleans())
    def seal(self, pick: int, keep_view: bool) -> None:
        """Seal; the builder's reference goes with it, unless one of its views stays."""
        token, (client, thing, _) = self.builder(pick)
        assert self.ask(client, "seal", token, keep_view) == thing.id
        thing.value = bytes(thing.value)
        self.model.seal(thing)
        del self.model.holds[token]
        if keep_view:
            self.model.holds[token] = Hold(client, thing, "late")

    @precondition(lambda self: self.model.tokens("late"))
    @rule(pick=picks)
    def scribble(self, pick: int) -> None:
        """Write through a view that outlived the seal: the later checks of all values show where it went."""
        tokens = self.model.tokens("late")
        token = tokens[pick % len(tokens)]
        self.ask(self.model.holds[token].client, "scribble", token)

    @precondition(lambda self: self.model.tokens("builder"))
    @rule(pick=picks, how=st.sampled_from(("abort", "abort_id", "forget")))
    def abort(self, pick: int, how: str) -> None:
        """Abort through the builder, by id, or by losing the builder."""
        token, (client, thing, _) = self.builder(pick)
        if how == "abort_id":
            assert self.ask(client, "abort_id", thing.id) is True
            self.expect(self.attempt(client, "seal", token, False), StoreClosed)
        else:
            self.ask(client, how, token)
        del self.model.pending[thing.id], self.model.holds[token]
        if how == "forget":
            self.settle(client)  # a forgotten one goes with this process's next change

    @precondition(lambda self: self.model.tokens("builder"))
    @rule(pick=picks, other=clients)
    def abort_of_another(self, pick: int, other: int) -> None:
        """Only the process that creates an object can abort it."""
        _, (client, thing, _) = self.builder(pick)
        if client != other and not {client, other} <= set(LOCAL):
            assert self.ask(other, "abort_id", thing.id) is False

    # --- looking ---

    @rule(client=clients, several=st.lists(refs, max_size=5), share=st.integers(0, 5))
    def look(self, client: int, several: list[Ref | int], share: int) -> None:
        """contains, wait and stat agree with the model."""
        wanted = [self.ref(pick) for pick in several]
        there = [self.model.find(ref) is not None for ref in wanted]
        for ref, is_there in zip(wanted, there, strict=True):
            assert self.ask(client, "contains", ref) is is_there
        ready, missing = self.ask(client, "wait", wanted, min(share, len(wanted)))
        assert ready == [ref for ref, is_there in zip(wanted, there, strict=True) if is_there]
        assert missing == [ref for ref, is_there in zip(wanted, there, strict=True) if not is_there]
        for ref in wanted:
            self.check_stat(ref, self.attempt(client, "stat", ref))

    def check_stat(self, ref: Ref, answer: Answer) -> None:
        """stat says what the model says."""
        thing = self.model.find(ref)
        if thing is None:
            self.expect(answer, ObjectNotFound)
            return
        info = answer.result
        assert (info.id, info.name, info.kind) == (thing.id, thing.name, thing.kind)
        assert (info.num_rows, info.state, info.pinned) == (thing.num_rows, "sealed", False)
        assert info.refs == self.model.refs(thing)
        assert same(info.metadata, thing.metadata)

    @rule(client=clients, pattern=st.sampled_from(PATTERNS))
    def list(self, client: int, pattern: str | None) -> None:
        """list: which, and in what order."""
        assert [info.id for info in self.ask(client, "list", pattern)] == self.model.matching(pattern)

    # --- upkeep, closing, dying ---

    @rule(client=clients)
    def recover(self, client: int) -> None:
        """Recover: only what is live is in use, and all is well."""
        self.settle(client)
        self.space.check_consistent()

    @rule(client=clients)
    def reopen(self, client: int) -> None:
        """Close a handle and open another: what is held stays."""
        self.ask(client, "reopen")

    @precondition(lambda self: not self.model.tokens("builder"))
    @rule()
    def reopen_all_here(self) -> None:
        """Close the last handle of a process, then connect anew."""
        for index in LOCAL:
            self.ask(index, "close")
        for index in LOCAL:
            self.ask(index, "open")

    @rule(client=st.sampled_from(WORKERS), settle=st.booleans())
    def die(self, client: int, settle: bool) -> None:
        """A worker is killed, and another one takes its place."""
        worker = self.clients[client]
        assert isinstance(worker, WorkerClient)
        worker.kill()
        self.model.end_client(client)
        self.unsettled = True
        if settle:
            self.settle(LOCAL[0])
        self.clients[client] = WorkerClient(self.open, self.executors())

    @precondition(lambda self: self.model.tokens("got", LOCAL[0]) or self.model.tokens("got", LOCAL[1]))
    @rule()
    def fork(self) -> None:
        """A forked child reads what its parent held, and ends."""
        held = [(index, token) for index in LOCAL for token in self.model.tokens("got", index)]

        def read_all() -> list[Any]:
            return [self.ask(index, "held", token) for index, token in held]

        for (_, token), value in zip(held, child(read_all), strict=True):
            assert same(value, self.model.holds[token].thing.value), "a forked child reads another value"
        self.unsettled = True

    # --- always ---

    @precondition(lambda self: bool(getattr(self, "clients", None)))
    @invariant()
    def agrees(self) -> None:
        """The references on each object, and the figures of the store."""
        stats = self.ask(LOCAL[0], "stats")
        assert stats.objects == len(self.model.by_id)
        assert stats.leases == len(self.model.holds), f"{stats.leases} leases, {len(self.model.holds)} holds"
        assert stats.capacity_bytes == self.capacity_bytes == stats.used_bytes + stats.free_bytes
        assert self.model.live_bytes() <= stats.used_bytes <= stats.backed_bytes <= self.capacity_bytes
        if not self.unsettled:
            assert stats.pending == len(self.model.pending)

        infos = self.ask(LOCAL[1], "list", None)
        assert {info.id: info.refs for info in infos} == {
            thing.id: self.model.refs(thing) for thing in self.model.by_id.values()
        }


def machine_for(connect: Callable[[str, int], AbstractStore], room: type[Room] = Room) -> type[StoreMachine]:
    """The machine for one kind of store.

    Args:
        connect: ``connect(name, capacity_bytes)`` connects to the store of that name, making it first if
            need be. It is called in forked processes too.
        room: What is known about the store's use of memory; the default suits flightstore's own.
    """
    return type("Machine", (StoreMachine,), {"connect": staticmethod(connect), "room": room})


def explore(
    machine: type[StoreMachine], *, seconds: float, steps: int = 60, shrink: bool = True, least: int = 0
) -> int:
    """Run new random histories for about that long; returns how many there were.

    Args:
        machine: From :func:`machine_for`.
        seconds: How long to look, not counting the search for a shorter history once a difference is found.
        steps: Commands in the longest history.
        shrink: Whether to look for a shorter history with the same difference.
        least: Go on beyond `seconds` until there were so many: for machines that have much else to do.

    Raises:
        AssertionError: the shortest history found in which store and model differ, printed by hypothesis.
    """
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    chosen = settings(
        max_examples=10,
        phases=phases,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    end, before = time.monotonic() + seconds, StoreMachine.examples
    while time.monotonic() < end or StoreMachine.examples - before < least:
        run_state_machine_as_test(machine, settings=chosen)
    return StoreMachine.examples - before


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    import tempfile

    from flightstore.store import connect

    parser = argparse.ArgumentParser(
        prog="python -m flightstore.testing.machine",
        description="Compare random histories of several clients with a dictionary.",
    )
    parser.add_argument("--seconds", type=float, default=300, help="how long to look (default: 300)")
    parser.add_argument("--steps", type=int, default=100, help="longest history (default: 100)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="flightstore-machine-") as place:
        machine = machine_for(lambda name, capacity: connect(f"{place}/{name}", capacity=capacity))
        count = explore(machine, seconds=options.seconds, steps=options.steps)
    print(f"{count} histories, no difference")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
