"""What docs/how-to/types.md says is shared is what is measured here and now."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pages import load_script, table_after

import flightstore as fs

types_page = load_script("zero_copy_table")


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    """What is measured."""
    return types_page.measure_all()


def test_the_tables_are_up_to_date(found: dict[str, dict[str, Any]]) -> None:
    page = types_page.PAGE.read_text()
    assert types_page.filled(page, types_page.tables(found)) == page, "run `make docs`"


@pytest.mark.req("TYP-6")
def test_the_reports_say_what_is_measured(found: dict[str, dict[str, Any]]) -> None:
    assert {
        (words, form): (one.state, one.reported)
        for words, row in found.items()
        for form, one in row.items()
        if one.reported and one.reported != one.state
    } == {}


def test_what_matters_most_is_shared() -> None:
    rows = {row["Arrow type"]: row for row in table_after(types_page.PAGE.read_text(), "<!-- sharing")}
    assert set(rows["integers, floats"].values()) == {"integers, floats", "shared"}
    assert {row["Arrow"] for row in rows.values()} <= {"shared", "-"}


def test_a_copy_is_told_from_the_stores_memory(store_dir: str) -> None:
    with fs.connect(store_dir, capacity="16MiB") as store:
        obj = store.get(store.put(pa.table({"x": np.arange(10)})))
        assert isinstance(obj, types_page.Table)
        ranges = types_page.arena_ranges(store)
        values = obj.to_arrow()["x"].chunk(0).to_numpy()
        for array, inside in ((values, True), (values.copy(), False)):
            [(address, nbytes)] = types_page.spans_of_array(array)
            assert any(first <= address < end for first, end in ranges) is inside
            assert nbytes == 80
        store.destroy()


def test_a_page_without_the_marks_is_noticed() -> None:
    with pytest.raises(ValueError, match="sharing"):
        types_page.filled("no marks", {"sharing": "text"})
