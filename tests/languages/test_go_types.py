"""Every type of the catalogue that Go's library knows, there and back: alone, nested, in several batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from language_checks.building import LANGUAGES
from language_checks.gateway import Gateway
from language_checks.operations import CheckFailed, Run, content

from flightstore.testing.types.arrow import CATALOGUE, SAMPLES
from flightstore.testing.types.equality import assert_same

pytestmark = [pytest.mark.req("GW-1", "GW-7"), pytest.mark.slow, pytest.mark.needs("go")]

FORMS = ("", ": nested", ": in chunks")

EMPTY_LISTS = "fixed_size_list[0]"
"""Go's library refuses it wherever it meets it."""


def unknown_to_go(kind: pa.DataType) -> set[str]:
    """In which nestings arrow-go 18.8 cannot have a type, whoever sends it."""
    unknown = set()
    if pa.types.is_union(kind) or pa.types.is_run_end_encoded(kind):
        unknown.add("dictionary")  # it cannot read such a dictionary
    if isinstance(kind, pa.BaseExtensionType):
        unknown.add("run_end_encoded")  # it forgets that these values are of an extension type
    return unknown


@pytest.fixture
def go(open_gateway: Gateway, tmp_path: Path) -> Run:
    """The program."""
    LANGUAGES["go"].built()
    return Run("go", LANGUAGES["go"].command, open_gateway, open_gateway, tmp_path)


def got_by(go: Run, table: pa.Table) -> pa.Table:
    """What Go has of a table that was put locally."""
    go.open.store.put(table, "stored")
    go("get", "stored", go.file("got"))
    return content(go.file("got"))


def put_by(go: Run, table: pa.Table) -> pa.Table:
    """What is stored of a table that Go put."""
    path = go.file("sent")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    go("put", "sent", path)
    with go.open.store.get("sent") as held:
        return held.to_arrow()


WAYS = {"got": got_by, "put": put_by}


def assert_same_rows(table: pa.Table, found: pa.Table) -> None:
    """The same types and values; batches may be cut in another way."""
    assert_same(table.combine_chunks(), found.combine_chunks())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sample", [name for name in SAMPLES if name != EMPTY_LISTS])
def test_there_and_back(sample: str, form: str, go: Run) -> None:
    table = CATALOGUE[sample + form]()
    if form == ": nested":
        table = table.drop_columns(sorted(unknown_to_go(SAMPLES[sample]().type)))
    for way in WAYS.values():
        assert_same_rows(table, way(go, table))


def beyond_go() -> Iterator[tuple[str, str]]:
    """(sample, nesting) of all that is left out above; no nesting for a type that is left out whole."""
    yield EMPTY_LISTS, ""
    for name, sample in SAMPLES.items():
        yield from ((name, nesting) for nesting in sorted(unknown_to_go(sample().type)))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize(("sample", "nesting"), list(beyond_go()))
def test_what_is_left_out_is_beyond_go(
    sample: str, nesting: str, way: Callable[[Run, pa.Table], pa.Table], go: Run
) -> None:
    """Fails when a new arrow-go has learned it: then take it out of the list."""
    table = CATALOGUE[f"{sample}: nested"]().select([nesting]) if nesting else CATALOGUE[sample]()
    with pytest.raises((CheckFailed, AssertionError), match=r"arrow/|became") as refused:
        assert_same_rows(table, way(go, table))
    assert "goroutine" not in str(refused.value)


def test_tables_without_rows(go: Run) -> None:
    for form in ("no rows", "no chunks"):
        table = CATALOGUE[f"string: {form}"]()
        for way in WAYS.values():
            assert_same_rows(table, way(go, table))
