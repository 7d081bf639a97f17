"""The suite of stores lets nothing through: a store that is wrong in one thing fails the tests of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.abc import AbstractStore
from flightstore.abc.partial import partial_store
from flightstore.testing.stores import Capability

ROOT = Path(__file__).parents[2]
BROKEN = Path(__file__).with_name("brokenstores.py")

FAILS: dict[str, set[str]] = {
    "Sound": set(),
    "GetsTheOldValue": {
        "test_putting_a_name_anew",
        "test_a_name_is_put_anew_by_the_seal",
        "test_several_threads",
    },
    "DeletesNothing": {
        "test_delete",
        "test_delete_if_unused",
        "test_an_id_of_ones_own",
        "test_several_threads",
    },
    "ContainsWhatIsPending": {"test_nobody_sees_what_is_not_sealed"},
    "AliasesTheCaller": {"test_changing_the_source_afterwards_changes_nothing"},
    "PutsOneByOne": {"test_put_many_stores_all_or_nothing"},
    "LosesMetadata": {"test_metadata"},
    "OverwritesIds": {"test_an_id_of_ones_own"},
    "IsAlwaysReady": {"test_wait"},
    "RaisesAnything": {
        "test_getting_what_is_not_there",
        "test_delete",
        "test_putting_a_name_anew",
        "test_nobody_sees_what_is_not_sealed",
    },
    "DropsWhatWasComposed": {"test_the_original_may_go"},
}
"""By broken store: which tests fail, of all that are named here."""
PARTS = {
    "IgnoresPins": (Capability.PINS, "test_pins"),
    "NeverEvicts": (Capability.EVICTION, "test_evict_drops_what_may_be_dropped"),
    "TellsEverything": (Capability.EVENTS, "test_choosing"),
    "HasOneSession": (Capability.SESSIONS, "test_equal_names_and_ids_do_not_meet"),
    "EndsNoBatch": (Capability.BATCHES, "test_objects_go_with_their_batch"),
}
"""By broken store: what the contract must have, and a test that then fails."""


@pytest.fixture(scope="module")
def outcome() -> str:
    """What pytest says of the tests named above, on all broken stores."""
    names = set().union(*FAILS.values(), {"test_a_killed"}) - {"test_metadata"}
    names |= {test for _, test in PARTS.values()}
    wanted = " or ".join([*sorted(names), "(test_metadata and table-10)"])
    command = [sys.executable, "-W", "ignore", "-m", "pytest", str(BROKEN), "-k", wanted, "-rfs", "-q"]
    command += ["--noconftest", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", "/dev/null"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.req("PLG-1")
@pytest.mark.parametrize("broken", FAILS)
def test_a_broken_store_fails_where_it_is_broken(outcome: str, broken: str) -> None:
    found = re.findall(rf"^FAILED .*::Test{broken}::(\w+)", outcome, re.MULTILINE)
    assert set(found) - {test for _, test in PARTS.values()} == FAILS[broken]


@pytest.mark.slow
@pytest.mark.parametrize("broken", PARTS)
def test_so_does_one_whose_further_parts_are_broken(outcome: str, broken: str) -> None:
    capability, test = PARTS[broken]
    found = re.findall(rf"^FAILED .*::Test{broken}::(\w+)", outcome, re.MULTILINE)
    assert (test in found) is (capability in Capability.of_the_contract())


@pytest.mark.slow
def test_what_is_not_declared_is_left_out_by_name(outcome: str) -> None:
    assert "needs the capability PROCESSES, which this store does not declare" in outcome


def test_a_store_that_offers_a_part() -> None:
    @partial_store
    class Part(AbstractStore):
        def contains(self, ref: fs.Ref) -> bool:
            return True

    store = Part()  # type: ignore[abstract]
    assert "anything" in store
    with pytest.raises(fs.NotOffered, match="Part does not offer get") as failure:
        store.get("anything")
    assert isinstance(failure.value, NotImplementedError)
