"""Random kills: they come, they leave what was done, and they tell what the operation did by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from flightstore.testing.killpoints import KillPointFailure, Outcome
from flightstore.testing.randomkills import random_kills

pytestmark = pytest.mark.req("FAIL-2")


def append(path: Path, number: int) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(b"%08d" % number)


def test_each_kill_leaves_whole_rounds(tmp_path: Path) -> None:
    path, sizes = tmp_path / "log", []

    def verify(state: Path, outcome: Outcome) -> None:
        data = state.read_bytes() if state.exists() else b""
        numbers = [int(data[at : at + 8]) for at in range(0, len(data), 8)]
        assert numbers == list(range(len(numbers)))
        assert outcome.rounds <= len(numbers) <= outcome.rounds + 1
        sizes.append(len(numbers))
        state.unlink(missing_ok=True)

    # So long that a child that others keep from the processor for a while still comes to its rounds.
    report = random_kills(path, append, verify, kills=20, seed=3, longest_s=0.2)
    assert (report.points, report.killed) == (20, 20)
    assert len(set(sizes)) > 5, "kills come at different moments"


def test_a_wrong_state_names_the_kill(tmp_path: Path) -> None:
    def verify(state: Path, outcome: Outcome) -> None:
        raise AssertionError("lost")

    with pytest.raises(KillPointFailure, match=r"'append', random kill 0 of seed 9, in round \d+: .*lost"):
        random_kills(tmp_path / "log", append, verify, kills=3, seed=9)


def test_an_operation_that_fails_by_itself_is_told() -> None:
    def operation(state: None, number: int) -> None:
        raise ValueError(f"round {number}")

    with pytest.raises(KillPointFailure, match=r"(?s)raised instead.*ValueError: round 0"):
        random_kills(None, operation, lambda *_: None, kills=1, seed=1, longest_s=600)  # it ends before that
