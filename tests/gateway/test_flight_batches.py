"""What DoGet sends: batches that clients of every language receive, of types that they can read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight

import flightstore as fs
from flightstore.gateway import reslicing
from flightstore.gateway.flight import FlightServer
from flightstore.gateway.hydrating import KINDS, hydrated
from flightstore.objects.schemas import nested_types
from flightstore.testing.types.arrow import CATALOGUE
from flightstore.testing.types.equality import assert_same

from .rawflight import Raw, batches_of

pytestmark = pytest.mark.req("GW-1")

LIMIT = 2 << 20
TEXTS = [f"{number:06}" + "text " * 8 for number in range(50_000)]


def arrays() -> dict[str, pa.Array]:
    """About 2 to 12 MiB each."""
    text = pa.array(TEXTS)
    words = pa.array(["word " * (number % 40) for number in range(100)])
    indices = pa.array(np.arange(len(TEXTS)) % 100, pa.int32())
    lists = pa.ListArray.from_arrays(np.arange(0, 50_001, 10), text)
    views = text.cast(pa.string_view())
    backwards = np.arange(49_990, -10, -10, dtype=np.int32)
    return {
        "numbers": pa.array(np.arange(1 << 20)),
        "texts": text,
        "lists": lists,
        "structs": pa.StructArray.from_arrays([text, indices], ["t", "i"]),
        "views": views,
        "lists of views": pa.ListArray.from_arrays(np.arange(0, 50_001, 10), views),
        "list views": pa.ListViewArray.from_arrays(backwards, np.full(5000, 10, np.int32), text),
        "a dictionary": pa.DictionaryArray.from_arrays(pa.concat_arrays([indices] * 30), words),
        "a large dictionary": pa.DictionaryArray.from_arrays(
            pa.array(np.arange(100_000) % len(TEXTS), pa.int32()), text
        ),
        "lists of a large dictionary": pa.ListArray.from_arrays(
            np.arange(0, 50_001, 10),
            pa.DictionaryArray.from_arrays(pa.array(np.arange(50_000), pa.int32()), text),
        ),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array(np.arange(3, 150_003, 3), pa.int32()), text),
    }


@pytest.mark.parametrize("name", arrays())
def test_every_message_is_small_enough(store: fs.Store, server: FlightServer, name: str) -> None:
    column = arrays()[name]
    table = pa.table({"n": pa.array(np.arange(len(column))), "c": column})
    store.put(table, "x")
    with Raw(server.port) as raw:
        messages = list(raw.get(b"x"))
    assert max(map(len, messages)) < LIMIT + 4096
    assert len(messages) < 20
    assert_same(table, batches_of(messages))


def test_a_client_may_take_more(store: fs.Store, server: FlightServer) -> None:
    table = pa.table({"a": np.arange(1 << 20)})
    store.put(table, "x")
    with Raw(server.port) as raw:
        call = raw.stream("DoGet", b"\x0a\x01x", ("x-flightstore-max-message", str(6 << 20)))
        messages = list(call)
    assert 4 << 20 < max(map(len, messages)) < (6 << 20) + 4096
    assert batches_of(messages) == table


def test_a_row_above_the_limit_comes_alone(client: Any, store: fs.Store) -> None:
    table = pa.table({"a": ["x", "y" * (5 << 20), "z" * 10, "w"]})
    store.put(table, "x")
    batches = [chunk.data for chunk in client.do_get(flight.Ticket(b"x"))]
    assert [batch.num_rows for batch in batches][:2] == [1, 1]
    assert client.do_get(flight.Ticket(b"x")).read_all() == table


@pytest.mark.parametrize("rows", [0, 3])
def test_no_columns(client: Any, store: fs.Store, rows: int) -> None:
    batch = pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
    store.put(pa.Table.from_batches([batch]), "x")
    assert client.do_get(flight.Ticket(b"x")).read_all().num_rows == rows


def test_views_cost_no_more_memory_than_a_few_batches(store: fs.Store) -> None:
    column = pa.array(TEXTS).cast(pa.string_view())
    store.put(pa.table({"a": pa.concat_arrays([column] * 10)}), "x")
    with store.get("x") as held:
        table = held.to_arrow()
        before = pa.total_allocated_bytes()
        reader = reslicing.reader_of(table, LIMIT)
        rows = highest = 0
        for batch in reader:
            rows += batch.num_rows
            highest = max(highest, pa.total_allocated_bytes() - before)
        assert rows == table.num_rows
        assert highest < 4 * LIMIT


HYDRATABLE = [name for name in CATALOGUE if "one run of many rows" not in name]


def is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    views = types.is_string_view(kind) or types.is_binary_view(kind)
    lists = types.is_list_view(kind) or types.is_large_list_view(kind)
    return not (views or lists or types.is_dictionary(kind) or types.is_run_end_encoded(kind))


def as_table(value: Any) -> pa.Table:
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    return value if isinstance(value, pa.Table) else pa.table({"c": value})


@pytest.mark.parametrize("name", HYDRATABLE)
def test_every_type_is_hydrated(name: str) -> None:
    """What is left has the same values, and no type that some clients do not know."""
    table = as_table(CATALOGUE[name]())
    for index in range(table.num_columns):
        column = table.select([index])
        if all(map(is_plain, nested_types(column.schema.field(0).type))):
            continue
        if name.startswith("dictionary of null") and "map of keys" in column.column_names:
            with pytest.raises(fs.NotConvertible, match="a key is null"):
                hydrated(column, KINDS)
            continue
        plain = hydrated(column, KINDS)
        plain.validate(full=True)
        assert all(map(is_plain, nested_types(plain.schema.field(0).type)))
        try:
            expected = column.column(0).to_pylist()
        except (OverflowError, ValueError):  # far dates have no Python value
            continue
        assert repr(plain.column(0).to_pylist()) == repr(expected)


@pytest.mark.parametrize("name", ["views", "list views", "a large dictionary", "runs"])
def test_hydrated_over_flight(client: Any, store: fs.Store, name: str) -> None:
    table = pa.table({"c": arrays()[name]})
    store.put(table, "x")
    ticket = json.dumps({"name": "x", "hydrate": KINDS}).encode()
    found = client.do_get(flight.Ticket(ticket)).read_all()
    assert found["c"].to_pylist() == table["c"].to_pylist()
    command = json.dumps({"name": "x", "hydrate": KINDS}).encode()
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    assert info.schema == found.schema
    assert client.do_get(info.endpoints[0].ticket).read_all() == found


def test_a_long_run_is_hydrated_a_slice_at_a_time() -> None:
    """Ten bytes that stand for 2 GiB."""
    rows = 1 << 28
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([rows], pa.int32()), pa.array([7]))
    before = pa.total_allocated_bytes()
    reader = reslicing.reader_of(pa.table({"a": runs}), LIMIT, ("run_end",))
    for _ in range(20):
        batch = reader.read_next_batch()
        assert batch.column(0)[-1].as_py() == 7
        assert pa.total_allocated_bytes() - before < 4 * LIMIT
    assert batch.num_rows > 50_000


def test_what_goes_wrong_in_the_middle_is_clean(
    client: Any, store: fs.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(pa.table({"c": arrays()["views"]}), "x")

    def fail(*arguments: Any) -> None:
        raise fs.NotConvertible("it cannot be")

    monkeypatch.setattr(reslicing, "_rewritten", fail)
    with pytest.raises(pa.ArrowInvalid, match="it cannot be") as caught:
        client.do_get(flight.Ticket(b"x")).read_all()
    assert "Traceback" not in str(caught.value)
