"""Random histories of composed tables compared with Arrow tables in memory: names swapped under members,
originals deleted under successors, views held throughout.
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

NAMES = ("a", "b", "c", "d")
names = st.sampled_from(NAMES)
picks = st.integers(0, 20)


class Composing(RuleBasedStateMachine):
    """One store, four names, and the views that somebody still holds."""

    def __init__(self) -> None:
        super().__init__()
        self.parent = tempfile.mkdtemp(dir="/dev/shm", prefix="flightstore-test-")
        self.store = fs.connect(f"{self.parent}/store", capacity="4MiB")
        self.model: dict[str, pa.Table] = {}
        self.held: list[tuple[fs.Object | pa.Table, pa.Table]] = []
        self.numbers = itertools.count()

    def teardown(self) -> None:
        self.check_all()
        self.held.clear()
        self.store.delete(list(self.model))
        self.store.recover()
        stats = self.store.stats()
        assert (stats.objects, stats.used_bytes) == (0, 0), self.store.list()
        self.store.destroy()
        shutil.rmtree(self.parent)

    def check_all(self) -> None:
        for name, table in self.model.items():
            assert self.store.get(name).to_arrow().equals(table)
        for held, table in self.held:
            assert (held if isinstance(held, pa.Table) else held.to_arrow()).equals(table)

    def some(self, pick: int) -> str:
        there = sorted(self.model)
        return there[pick % len(there)]

    @rule(name=names, rows=st.integers(0, 2000))
    def put(self, name: str, rows: int) -> None:
        number = next(self.numbers)
        table = pa.table(
            {"x": pa.array(range(number, number + rows)), "s": [f"{number}-{i}" for i in range(rows)]}
        )
        self.store.put(table, name)
        self.model[name] = table

    @precondition(lambda self: self.model)
    @rule(source=picks, name=names, column=st.sampled_from("xyz"))
    def add(self, source: int, name: str, column: str) -> None:
        base = self.model[self.some(source)]
        number = next(self.numbers)
        values = pa.array([number * i for i in range(base.num_rows)], pa.int64())
        there = base.schema.names
        if column in there:
            made = base.set_column(there.index(column), column, values)
        else:
            made = base.append_column(column, values)
        self.store.with_columns(self.some(source), {column: values}, name)
        self.model[name] = made

    @precondition(lambda self: self.model)
    @rule(source=picks, name=names, count=st.integers(1, 3))
    def select(self, source: int, name: str, count: int) -> None:
        base = self.model[self.some(source)]
        chosen = base.schema.names[-count:]
        self.store.select(self.some(source), chosen, name)
        self.model[name] = base.select(chosen)

    @precondition(lambda self: self.model)
    @rule(source=picks, other=picks, name=names)
    def concat(self, source: int, other: int, name: str) -> None:
        first, second = self.model[self.some(source)], self.model[self.some(other)]
        pair = [self.some(source), self.some(other)]
        if first.schema.equals(second.schema) and first.num_rows + second.num_rows < 20_000:
            self.store.concat(pair, name)
            self.model[name] = pa.concat_tables([first, second])
        elif first.schema.names != second.schema.names or first.schema.types != second.schema.types:
            with pytest.raises(fs.InvalidArgument):
                self.store.concat(pair, name)

    @precondition(lambda self: self.model)
    @rule(source=picks, view=st.booleans())
    def hold(self, source: int, view: bool) -> None:
        name = self.some(source)
        obj = self.store.get(name)
        self.held.append((obj.to_arrow() if view else obj, self.model[name]))

    @precondition(lambda self: self.held)
    @rule(pick=picks, name=names)
    def build_upon_what_is_held(self, pick: int, name: str) -> None:
        """Its name may have gone, and its id too."""
        obj, table = self.held[pick % len(self.held)]
        if isinstance(obj, fs.Object):
            self.store.rename(obj, {}, name)
            self.model[name] = table

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        del self.held[pick % len(self.held)]

    @precondition(lambda self: self.model)
    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        name = self.some(pick)
        assert self.store.delete(name) == 1
        del self.model[name]

    @rule()
    def recover(self) -> None:
        self.store.recover()
        self.check_all()

    @invariant()
    def is_sound(self) -> None:
        assert {info.name for info in self.store.list() if info.name} == set(self.model)
        assert [finding for finding in self.store.fsck() if not finding.recoverable] == []


@pytest.mark.req("O-2", "BAT-7", "FAIL-2")
def test_histories_of_composed_tables() -> None:
    run_state_machine_as_test(
        Composing,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
