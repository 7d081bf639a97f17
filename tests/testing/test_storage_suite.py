"""The suite of spill storages lets nothing through: one that is wrong in one thing fails the test of it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.abc.storage import SpillStorage
from flightstore.lifecycle import storages
from flightstore.lifecycle.storage_local import LocalStorage
from flightstore.testing.children import ChildDied
from flightstore.testing.storages import StorageSuite

FAILURES = (AssertionError, pytest.fail.Exception, OSError, fs.FlightStoreError, ChildDied)


class Sound(LocalStorage):
    def __init__(self, url: str) -> None:
        super().__init__("file" + url[url.index("://") :].partition("?")[0])
        self.url = url


class WritesInPlace(Sound):
    def write(self, name: str, pieces: Sequence[memoryview]) -> None:
        Path(self._directory).mkdir(exist_ok=True, parents=True)
        with open(self.local_path(name), "wb") as file:
            for piece in pieces:
                file.write(piece)


class LeavesUnfinishedOnes(Sound):
    def remove_unfinished(self, name: str) -> None:
        self.local_path(name)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            Path(self.local_path(name)).unlink()


class ReadsWhatThereIs(Sound):
    def read_into(self, name: str, target: memoryview) -> None:
        data = Path(self.local_path(name)).read_bytes()[: len(target)]
        target[: len(data)] = data


class RemovesOnlyOnce(Sound):
    def remove(self, name: str) -> None:
        Path(self.local_path(name)).unlink()


class GoesAnywhere(Sound):
    def local_path(self, name: str) -> str:
        return f"{self._directory}/{name}"


class ListsAll(Sound):
    def names(self, prefix: str = "") -> list[str]:
        return super().names()


class IsAnotherElsewhere(Sound):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url.replace("?", "/elsewhere?")


class Tells(Sound):
    def __repr__(self) -> str:
        return f"<storage {self.url}>"


FAILS: dict[type[Sound], str] = {
    WritesInPlace: "test_a_write_that_fails_leaves_what_was_there",
    LeavesUnfinishedOnes: "test_a_writer_that_is_killed_leaves_nothing_finished",
    ReadsWhatThereIs: "test_another_length_is_damage",
    RemovesOnlyOnce: "test_removing",
    GoesAnywhere: "test_what_cannot_be_a_name_is_refused",
    ListsAll: "test_listing",
    IsAnotherElsewhere: "test_other_processes_find_the_same_files",
    Tells: "test_what_it_says_of_itself",
}
ARGUMENTS = {"test_another_length_is_damage": 999, "test_what_cannot_be_a_name_is_refused": "../x"}
NEED_THE_URL = (
    "test_a_writer_that_is_killed_leaves_nothing_finished",
    "test_other_processes_find_the_same_files",
    "test_what_it_says_of_itself",
)


def run(kind: type[Sound], test: str, folder: Path) -> None:
    """One test of the suite on a storage of one kind."""
    url = f"tried://{folder}?token=secret"
    suite = StorageSuite()
    suite.secret = "secret"  # type: ignore[misc]
    storages.register_spill_storage("tried", kind)
    try:
        storage: SpillStorage = storages.storage_for(url)
        more = [url] if test in NEED_THE_URL else [ARGUMENTS[test]] if test in ARGUMENTS else []
        getattr(suite, test)(storage, *more)
    finally:
        del storages._factories["tried"]
        storages._made.clear()


@pytest.mark.req("PLG-6")
@pytest.mark.parametrize("kind", FAILS)
def test_a_broken_storage_fails_where_it_is_broken(kind: type[Sound], tmp_path: Path) -> None:
    with pytest.raises(FAILURES):
        run(kind, FAILS[kind], tmp_path)


@pytest.mark.parametrize("test", sorted(FAILS.values()))
def test_a_sound_one_does_not(test: str, tmp_path: Path) -> None:
    run(Sound, test, tmp_path)
