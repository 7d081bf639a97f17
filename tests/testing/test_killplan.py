"""Lines are shared out between operations: none is forgotten, and everybody draws the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightstore.testing.killapart import shared_apart
from flightstore.testing.killplan import share_out
from flightstore.testing.tracing import Line

pytestmark = pytest.mark.req("FAIL-2")

LINES = st.builds(Line, st.sampled_from("ab"), st.integers(1, 9), st.sampled_from("fg"), st.integers(0, 3))
EXECUTED = st.dictionaries(st.text("xyz", min_size=1, max_size=3), st.sets(LINES), max_size=12)


@given(EXECUTED, st.integers(1, 6))
def test_each_line_kills_as_many_as_asked_or_all_that_execute_it(
    executed: dict[str, set[Line]], share: int
) -> None:
    plan = share_out(executed, share)
    assert plan.keys() == executed.keys()
    for line in set().union(*executed.values()):
        users = [name for name in executed if line in executed[name]]
        dying = [name for name in users if line in plan[name]]
        assert len(dying) == min(share, len(users))
    for name, lines in plan.items():
        assert lines <= executed[name]


@given(EXECUTED, st.integers(1, 6))
def test_more_shares_leave_nothing_out(executed: dict[str, set[Line]], share: int) -> None:
    few, more = share_out(executed, share), share_out(executed, share + 1)
    assert all(few[name] <= more[name] for name in executed)


def test_the_draw_is_another_for_each_line_and_the_same_wherever_a_clone_lies() -> None:
    lines = [Line("/here/module.py", number, "f", 2 * number) for number in range(1, 200)]
    moved = [Line("/there/module.py", line.line + 5, line.function, line.offset) for line in lines]
    names = [f"operation-{number}" for number in range(10)]
    here = share_out(dict.fromkeys(names, lines), 3)
    there = share_out(dict.fromkeys(reversed(names), moved), 3)
    for name in names:
        dies_at = {number for number, line in enumerate(lines) if line in here[name]}
        assert dies_at == {number for number, line in enumerate(moved) if line in there[name]}
        assert len(dies_at) > 30, "a fair share is 60 of 200"


@pytest.mark.parametrize("share", [0, -1])
def test_a_line_may_not_be_left_out_by_all(share: int) -> None:
    with pytest.raises(ValueError, match="nobody dies at"):
        share_out({}, share)


def test_the_plan_of_real_operations_is_the_same_in_a_process_of_its_own() -> None:
    names = ("get", "delete", "put-small")
    plan = shared_apart(names, 1)
    assert plan.keys() == set(names)
    assert all(plan.values())
    assert not plan["get"] & plan["delete"]
    assert plan == shared_apart(names, 1)
