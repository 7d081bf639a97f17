"""Every call of Flight does what the protocol says, for a stock client."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight

import flightstore as fs
from flightstore.gateway.service import ACTIONS

pytestmark = pytest.mark.req("GW-2")


def get(client: Any, ticket: Any, **headers: str) -> pa.Table:
    raw = ticket if isinstance(ticket, bytes) else json.dumps(ticket).encode()
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return client.do_get(flight.Ticket(raw), flight.FlightCallOptions(headers=pairs)).read_all()


def put(client: Any, descriptor: Any, table: pa.Table) -> list[Any]:
    """Put a table; returns the messages that came back."""
    if isinstance(descriptor, dict):
        descriptor = flight.FlightDescriptor.for_command(json.dumps(descriptor).encode())
    elif isinstance(descriptor, str):
        descriptor = flight.FlightDescriptor.for_path(descriptor)
    writer, reader = client.do_put(descriptor, table.schema)
    writer.write_table(table)
    writer.done_writing()
    replies = []
    while (reply := reader.read()) is not None:
        replies.append(json.loads(reply.to_pybytes()))
    writer.close()
    return replies


@pytest.fixture
def orders() -> pa.Table:
    return pa.table({"a": range(1000), "b": [str(i) for i in range(1000)], "c": np.arange(1000) * 0.5})


def test_get_by_name_by_id_and_by_json(client: Any, store: fs.Store, orders: pa.Table) -> None:
    made = store.put(orders, "orders")
    for ticket in (b"orders", str(made).encode(), {"name": "orders"}, {"id": str(made)}):
        assert get(client, ticket) == orders


def test_get_columns_and_rows(client: Any, store: fs.Store, orders: pa.Table) -> None:
    store.put(orders, "orders")
    ticket = {"name": "orders", "columns": ["c", "a"], "offset": 10, "limit": 20}
    assert get(client, ticket) == orders.select(["c", "a"]).slice(10, 20)


def test_partitions_together_are_the_table(client: Any, store: fs.Store, orders: pa.Table) -> None:
    store.put(orders, "orders")
    command = json.dumps({"name": "orders", "partitions": 3}).encode()
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    assert info.ordered
    parts = [client.do_get(endpoint.ticket).read_all() for endpoint in info.endpoints]
    assert [part.num_rows for part in parts] == [333, 333, 334]
    assert pa.concat_tables(parts) == orders


def test_put_by_path_and_by_command(client: Any, store: fs.Store, orders: pa.Table) -> None:
    [reply] = put(client, "orders", orders)
    with store.get("orders") as held:
        assert held.to_arrow() == orders
        assert reply == {"id": str(held.id), "name": "orders", "nbytes": held.nbytes, "num_rows": 1000}
    [reply] = put(client, {"metadata": {"k": [1]}}, orders)
    assert reply["name"] is None
    with store.get(fs.ObjectID.from_text(reply["id"])) as held:
        assert held.metadata == {"k": [1]}


def test_put_without_batches(client: Any, store: fs.Store) -> None:
    schema = pa.schema([pa.field("a", pa.int8(), nullable=False, metadata={"k": "v"})], {"m": "n"})
    [reply] = put(client, "empty", schema.empty_table())
    assert reply["num_rows"] == 0
    with store.get("empty") as held:
        assert held.schema.equals(schema, check_metadata=True)
    assert get(client, b"empty").schema.equals(schema, check_metadata=True)


def test_put_echoes_metadata(client: Any, orders: pa.Table) -> None:
    writer, reader = client.do_put(flight.FlightDescriptor.for_path("orders"), orders.schema)
    for number in range(3):
        writer.write_with_metadata(orders.to_batches()[0], str(number).encode())
    writer.done_writing()
    echoed = [reader.read().to_pybytes() for _ in range(3)]
    assert echoed == [b"0", b"1", b"2"]
    assert json.loads(reader.read().to_pybytes())["num_rows"] == 3000
    writer.close()


def test_flight_info(client: Any, store: fs.Store, orders: pa.Table) -> None:
    made = store.put(orders, "orders", metadata={"k": 1})
    info = client.get_flight_info(flight.FlightDescriptor.for_path("orders"))
    assert info.schema.equals(orders.schema, check_metadata=True)
    assert (info.total_records, info.total_bytes) == (1000, store.stat(made).nbytes)
    [endpoint] = info.endpoints
    assert endpoint.locations == []
    assert client.do_get(endpoint.ticket).read_all() == orders
    about = json.loads(info.app_metadata)
    assert (about["id"], about["name"], about["num_rows"]) == (str(made), "orders", 1000)
    assert (about["metadata"], about["http"]) == ({"k": 1}, None)
    [segment] = about["segments"]
    with open(segment["path"], "rb") as arena:
        arena.seek(segment["offset"])
        assert pa.ipc.open_stream(arena.read(segment["length"])).read_all() == orders


def test_flight_info_of_columns(client: Any, store: fs.Store, orders: pa.Table) -> None:
    store.put(orders, "orders")
    command = json.dumps({"name": "orders", "columns": ["b"]}).encode()
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    assert info.schema == orders.select(["b"]).schema
    assert client.do_get(info.endpoints[0].ticket).read_all() == orders.select(["b"])


def test_schema(client: Any, store: fs.Store, orders: pa.Table) -> None:
    store.put(orders, "orders")
    found = client.get_schema(flight.FlightDescriptor.for_path("orders"))
    assert found.schema.equals(orders.schema, check_metadata=True)


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [(b"", {"a1", "a2", "b"}), (b"a*", {"a1", "a2"}), (b'{"pattern": "b"}', {"b"})],
)
def test_list(client: Any, store: fs.Store, criteria: bytes, expected: set[str]) -> None:
    for name in ("a1", "a2", "b"):
        store.put(pa.table({name: [1]}), name)
    store.put(b"no table", "a3")
    flights = list(client.list_flights(criteria))
    assert {info.descriptor.path[0].decode() for info in flights} == expected
    assert all(client.get_flight_info(info.descriptor).schema == info.schema for info in flights)


def test_actions(client: Any, store: fs.Store, orders: pa.Table) -> None:
    store.put(orders, "orders")
    assert {action.type for action in client.list_actions()} == ACTIONS.keys()
    [result] = client.do_action(flight.Action("stat", b'{"ref": "orders"}'))
    assert json.loads(result.body.to_pybytes())["num_rows"] == 1000
    [result] = client.do_action(flight.Action("delete", b'{"refs": ["orders"]}'))
    assert json.loads(result.body.to_pybytes()) == {"count": 1}
    assert not store.contains("orders")


def test_sessions_by_header(client: Any, store: fs.Store, orders: pa.Table) -> None:
    with store.session("night") as night:
        night.put(orders, "orders")
        assert get(client, b"orders", x_flightstore_session="night") == orders
        with pytest.raises(pa.ArrowKeyError):
            get(client, b"orders")


@pytest.mark.parametrize("value", [pa.table({"a": range(300_000)}), b"bytes" * 1000, b"", {"a": (1, 2)}])
def test_frames_both_ways(client: Any, store: fs.Store, value: Any) -> None:
    store.put(value, "value", metadata={"k": 1})
    frame = get(client, {"name": "value", "payload": True})
    assert frame.column_names == ["frame"]
    raw = b"".join(row.as_py() for row in frame["frame"])
    store.delete("value")
    for cut in (1000, 1 << 20):
        rows = pa.table({"frame": [raw[at : at + cut] for at in range(0, len(raw), cut)]})
        [reply] = put(client, {"payload": True}, rows)
        with store.get("value") as held:
            assert str(held.id) == reply["id"]
            assert held.value() == value
            assert held.metadata == {"k": 1}
        store.delete("value")


def test_columns_are_added(client: Any, store: fs.Store, orders: pa.Table) -> None:
    store.put(orders, "orders")
    more = pa.table({"d": range(1000)})
    command = json.dumps({"add_columns_to": "orders", "name": "wide"}).encode()
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(command))
    writer.begin(more.schema)
    writer.write_table(more)
    writer.done_writing()
    reply = json.loads(reader.read_chunk().app_metadata.to_pybytes())
    with pytest.raises(StopIteration):
        reader.read_chunk()
    writer.close()
    assert (reply["name"], reply["num_rows"]) == ("wide", 1000)
    with store.get("wide") as held:
        assert held.to_arrow() == orders.append_column("d", more["d"])
    assert [info.name for info in store.list()] == ["orders", "wide"]


def test_events_are_followed(client: Any, store: fs.Store) -> None:
    command = json.dumps({"follow": {"since": 0}}).encode()
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(command))
    seen: list[Any] = []
    for number in range(3):
        store.put(b"x", f"x{number}")
        while len(seen) <= number:
            seen += json.loads(reader.read_chunk().app_metadata.to_pybytes())["events"]
    assert [event["name"] for event in seen] == ["x0", "x1", "x2"]
    reader.cancel()
    with pytest.raises((pa.ArrowException, flight.FlightError)):
        writer.close()
