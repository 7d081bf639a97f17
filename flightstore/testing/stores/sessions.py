"""Tests of a store: sessions, and quotas."""

from __future__ import annotations

from typing import Any

import pytest

from flightstore import errors
from flightstore.errors import ObjectNotFound, StoreFull
from flightstore.testing.stores.backend import CAPACITY_BYTES, Backend, Capability, needs, value_of
from flightstore.types import ObjectID

__all__ = ["Sessions"]


def begin(store: Any, name: str, ephemeral: bool) -> int:
    """Begin a session and put something there; its number."""
    session = store.session(name, ephemeral=ephemeral)
    session.put(b"theirs", "object")
    return int(session.number)


def begin_and_wait(store: Any, name: str, ephemeral: bool) -> None:
    """The same, and then go on until killed."""
    session = store.session(name, ephemeral=ephemeral)
    session.put(b"theirs", "object")
    store.put(str(session.number).encode(), "begun")
    store.wait(["never"], timeout=60)


class Sessions(Backend):
    """session, sessions, and what a session is."""

    @needs(Capability.SESSIONS)
    def test_equal_names_and_ids_do_not_meet(self, store: Any) -> None:
        """In two sessions, and in none."""
        one, two = store.session("one"), store.session()
        mine = ObjectID(b"mine")
        for number, place in enumerate((store, one, two)):
            assert place.put(bytes([number]), "name", object_id=mine) == mine
        for number, place in enumerate((store, one, two)):
            assert value_of(place.get("name")) == value_of(place.get(mine)) == bytes([number])
            assert [info.id for info in place.list()] == [mine]
            assert place.stat("name").id == mine
        assert one.delete("name") == 1
        for place, there in ((store, True), (one, False), (two, True)):
            assert ("name" in place) is (mine in place) is there
        with pytest.raises(ObjectNotFound):
            one.get(mine)

    @needs(Capability.SESSIONS)
    def test_a_session_is_joined_by_name(self, store: Any, second: Any) -> None:
        """And by number, as long as its owner lives."""
        one = store.session("one")
        one.put(b"abc", "a")
        for other in (second.session("one"), second.session(one.number), one.session("one")):
            assert (other.number, other.session_name) == (one.number, "one")
            assert value_of(other.get("a")) == b"abc"
        numbers = {store.session().number for _ in range(3)} | {one.number}
        assert len(numbers) == 4
        found = {info.id: info for info in second.sessions()}
        assert found.keys() >= numbers
        assert (found[one.number].name, found[one.number].state) == ("one", "active")
        assert found[one.number].objects == 1

    @needs(Capability.SESSIONS)
    def test_the_end_of_a_session(self, store: Any, second: Any) -> None:
        """Its ids and names are gone for everybody; who holds an object reads on."""
        one = store.session("one")
        other = second.session("one")
        object_id = one.put(b"x" * 100_000, "a")
        view = other.get("a").value()
        other.end()
        other.end()
        for place in (one, other):
            assert "a" not in place
            assert object_id not in place
            with pytest.raises(ObjectNotFound):
                place.get("a")
            with pytest.raises(errors.FlightStoreError) as failure:
                place.put(b"", "b")
            assert type(failure.value).__name__ == "SessionEnded"
        again = store.session("one")
        assert again.number != one.number
        assert again.list() == []
        store.recover()
        store.put(b"y" * 100_000, "other")
        assert bytes(view) == b"x" * 100_000

    @needs(Capability.SESSIONS)
    def test_a_session_that_is_not_there(self, store: Any) -> None:
        """Is a LookupError."""
        one = store.session()
        one.end()
        for attach in (one.number, one.number + 1000):
            with pytest.raises(LookupError) as failure:
                store.session(attach=attach)
            assert type(failure.value).__name__ == "SessionNotFound"

    @needs(Capability.SESSIONS, Capability.PROCESSES)
    def test_a_session_survives_its_owner(self, store: Any) -> None:
        """A new one of its name sees nothing of it; attached to, it is all there."""
        number = self.run_in_client(store, begin, "work", False)
        fresh = store.session("work")
        assert fresh.number != number
        assert "object" not in fresh
        attached = store.session(attach=number)
        assert attached.number == number
        assert value_of(attached.get("object")) == b"theirs"

    @needs(Capability.SESSIONS, Capability.PROCESSES, Capability.WAITING)
    @pytest.mark.parametrize("ephemeral", [False, True])
    def test_the_owner_is_killed(self, store: Any, ephemeral: bool) -> None:
        """An ephemeral session is over at that instant."""
        running = self.start_in_client(store, begin_and_wait, "work", ephemeral)
        try:
            number = int(value_of(store.get("begun", timeout=30)))
            joined = store.session(number)
            assert value_of(joined.get("object")) == b"theirs"
        finally:
            running.kill()
        assert ("object" in joined) is not ephemeral
        store.recover()
        assert ("object" in joined) is not ephemeral

    @needs(Capability.QUOTAS)
    def test_a_quota(self, store: Any) -> None:
        """Limits one session, and nobody else."""
        share = CAPACITY_BYTES // 8
        one = store.session("one", quota=3 * share)
        kept = [one.put(bytes(share // 2), f"{number}") for number in range(4)]
        with pytest.raises(StoreFull) as failure:
            one.put(bytes(2 * share))
        assert type(failure.value).__name__ == "QuotaExceeded"
        assert len(one.list()) == 4
        store.put(bytes(4 * share), "other")
        one.delete(kept)
        one.put(bytes(2 * share), "again")
        assert "again" in one
