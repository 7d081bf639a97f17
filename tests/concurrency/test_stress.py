"""The stress driver in the form that fits a test run, and the driver itself: it must notice what is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flightstore.testing.stress import main, stress
from flightstore.testing.stresspattern import LARGE_EVERY, content, length, problem


@pytest.mark.slow
@pytest.mark.req("FAIL-2", "FAIL-4", "API-8", "INV-9")
def test_no_wrong_byte_with_forks_and_kills() -> None:
    least = dict.fromkeys(("gets", "rechecks", "replacements"), 1000)
    least |= dict.fromkeys(("forks", "deletes", "aborts", "kills"), 10)
    result = stress(gets=10**9, seconds=20, forks=True, kills=True, fork_every=100, seed=1, least=least)
    assert result.failures == ()
    counts = {**result.counts, "kills": result.kills}
    lacking = {name: counts[name] for name in least if counts[name] < least[name]}
    assert lacking == {}, "hardly anything was done"
    assert result.capacity_bytes < 1.5 * result.live_bytes, "the arena was not tight"


@pytest.mark.slow
@pytest.mark.req("FAIL-4")
def test_many_forks_under_load() -> None:
    result = stress(gets=0, min_forks=500, seconds=600, forks=True, fork_every=10, seed=2)
    assert result.failures == ()
    assert result.counts["forks"] >= 500


def test_the_command_prints_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gets", "500", "--processes", "2", "--json", "--seed", "3"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"]
    assert printed["counts"]["gets"] >= 500
    assert printed["counts"]["wrong_bytes"] == 0


@pytest.mark.parametrize("index", [0, 1, LARGE_EVERY, LARGE_EVERY + 1])
def test_every_word_follows_from_name_and_version(index: int) -> None:
    words = content(index, 5)
    assert len(words) == length(index, 5)
    assert problem(words, index) is None
    assert not np.array_equal(words[1:60], content(index, 6)[1:60])


def test_every_kind_of_damage_is_found() -> None:
    words = content(1, 5)
    for at in range(len(words)):
        for bit in (0, 17, 63):
            broken = words.copy()
            broken[at] ^= np.uint64(1 << bit)
            assert problem(broken, 1) is not None, f"bit {bit} of word {at}"
    assert "of another" in str(problem(content(2, 5), 1))
    assert "words instead of" in str(problem(words[:-1], 1))
    mixed = words.copy()
    mixed[30:] = content(1, 6)[30 : len(words)] if len(content(1, 6)) >= len(words) else 0
    assert "are wrong, from number 30 on" in str(problem(mixed, 1))
