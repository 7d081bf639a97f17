"""The HTTP server's plain answers: actions, frames, tables and blobs, in and out."""

from __future__ import annotations

import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flightstore.errors import ObjectNotFound
from flightstore.testing.http_gateway import HttpClient, HttpGateway, http_gateway
from flightstore.wire import messages as m
from flightstore.wire.frames import PREFIX_BYTES, FrameHeader, header_bytes, packed, unpacked

STREAM = "application/vnd.apache.arrow.stream"
BLOB = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def gateway(store_dir: Path) -> Iterator[HttpGateway]:
    with http_gateway(store_dir) as running:
        yield running


@pytest.fixture
def ask(gateway: HttpGateway) -> Iterator[HttpClient]:
    client = gateway.client()
    yield client
    client.close()


def orders(rows: int = 1000) -> pa.Table:
    return pa.table({"id": np.arange(rows), "city": pa.array([f"city {n % 7}" for n in range(rows)])})


def stream(table: pa.Table, rows: int | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, rows)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def read(body: bytes) -> pa.Table:
    return pa.ipc.open_stream(body).read_all()


def quoted(ref: object) -> str:
    return urllib.parse.quote(str(ref), safe="")


# --- actions ---


@pytest.mark.req("GW-3")
def test_actions_are_json_in_and_out(gateway: HttpGateway, ask: HttpClient) -> None:
    gateway.store.put(orders(), name="orders")
    found = ask("POST", "/actions/stat", m.encode({"ref": "orders"}))
    assert (found.status, found.headers["Content-Type"]) == (200, "application/json")
    assert found.json["num_rows"] == 1000
    assert ask("POST", "/actions/delete", b'{"refs": ["orders"]}').json == {"count": 1}
    assert not gateway.store.contains("orders")


def test_an_error_is_a_fault_with_a_fitting_status(ask: HttpClient) -> None:
    missing = ask("POST", "/actions/stat", b'{"ref": "nothing"}')
    assert (missing.status, missing.json["error"]) == (404, "ObjectNotFound")
    wrong = ask("POST", "/actions/stat", b'{"rfe": "nothing"}')
    assert (wrong.status, wrong.json["error"]) == (400, "InvalidArgument")
    unknown = ask("POST", "/actions/fly", b"{}")
    assert (unknown.status, unknown.json["error"]) == (501, "NotOffered")


def test_a_gateway_that_stops_is_busy(gateway: HttpGateway, ask: HttpClient) -> None:
    """What it still hears is answered with what clients take as: not begun, try elsewhere or later."""
    gateway.server._context.close()
    found = ask("POST", "/actions/stat", b'{"ref": "nothing"}')
    assert (found.status, found.json["error"]) == (503, "GatewayBusy")


# --- frames ---


def frame_in(body: bytes) -> tuple[FrameHeader, bytes]:
    length = header_bytes(body[:PREFIX_BYTES])
    return unpacked(body[PREFIX_BYTES : PREFIX_BYTES + length]), body[PREFIX_BYTES + length :]


VALUES = [
    pytest.param(lambda: orders(), id="table"),
    pytest.param(lambda: np.arange(12.0).reshape(3, 4), id="tensor"),
    pytest.param(lambda: b"some bytes", id="blob"),
    pytest.param(lambda: orders(200_000), id="large table"),
]


@pytest.mark.parametrize("query", ["", "?acknowledge=1"])
@pytest.mark.parametrize("value", VALUES)
def test_a_frame_comes_back_as_it_went(gateway: HttpGateway, ask: HttpClient, value, query: str) -> None:
    made = gateway.store.put(value(), name="a b/c", metadata={"x": 1})
    got = ask("GET", f"/frames/{quoted('a b/c')}{query}")
    header, payload = frame_in(got.body)
    assert (got.status, header.id, header.name, len(payload)) == (200, str(made), "a b/c", header.size_bytes)
    token = got.headers.get("x-flightstore-acknowledge")
    assert (token is not None) == (bool(query) and header.size_bytes > 64 << 10)
    if token:
        assert ask("POST", f"/acknowledgements/{token}").status == 204
    again = FrameHeader(
        kind=header.kind,
        size_bytes=header.size_bytes,
        layout=header.layout,
        num_rows=header.num_rows,
        name="again",
        metadata_raw=header.metadata_raw,
    )
    put = ask("PUT", "/frames", packed(again) + payload)
    assert put.status == 200, put.body
    with gateway.store.get("a b/c") as before, gateway.store.get("again") as after:
        assert str(after.id) == put.json["id"]
        assert after.metadata == {"x": 1}
        if before.kind == "table":
            assert after.to_arrow().equals(before.to_arrow())
        else:
            assert np.array_equal(np.asarray(after.value()), np.asarray(before.value()))


# --- objects ---


@pytest.mark.req("GW-3")
def test_a_table_is_an_arrow_stream(gateway: HttpGateway, ask: HttpClient) -> None:
    made = gateway.store.put(orders(), name="orders")
    by_name, by_id = ask("GET", "/objects/orders"), ask("GET", f"/objects/{quoted(made)}")
    assert (by_name.status, by_name.headers["Content-Type"]) == (200, STREAM)
    assert read(by_name.body).equals(orders())
    assert by_id.body == by_name.body
    assert by_name.headers["x-flightstore-id"] == str(made)
    assert by_name.headers["x-flightstore-rows"] == "1000"
    assert "immutable" in by_id.headers["Cache-Control"]
    assert "no-cache" in by_name.headers["Cache-Control"]


@pytest.mark.req("GW-3")
def test_head_says_what_get_does_and_sends_nothing(gateway: HttpGateway, ask: HttpClient) -> None:
    gateway.store.put(orders(100_000), name="orders")
    head, get = ask("HEAD", "/objects/orders"), ask("GET", "/objects/orders")
    assert (head.status, head.body) == (200, b"")
    assert {**head.headers, "Date": ""} == {**get.headers, "Date": ""}
    assert int(head.headers["Content-Length"]) == len(get.body)


@pytest.mark.req("GW-3")
@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("columns=city", lambda table: table.select(["city"])),
        ("columns=city,id", lambda table: table.select(["city", "id"])),
        ("column=city&column=id", lambda table: table.select(["city", "id"])),
        ("offset=10&limit=5", lambda table: table.slice(10, 5)),
        ("partition=1&partitions=3", lambda table: table.slice(333, 333)),
        ("limit=0", lambda table: table.slice(0, 0)),
        ("columns=", lambda table: table.select([])),
    ],
)
def test_parts_of_a_table(gateway: HttpGateway, ask: HttpClient, query: str, wanted) -> None:
    gateway.store.put(orders(), name="orders")
    got = ask("GET", f"/objects/orders?{query}")
    assert got.status == 200, got.body
    assert read(got.body).equals(wanted(orders()))
    assert int(got.headers["x-flightstore-rows"]) == wanted(orders()).num_rows


@pytest.mark.req("GW-3")
def test_composed_tables_of_many_pieces(gateway: HttpGateway, ask: HttpClient) -> None:
    store = gateway.store
    for number in range(5):
        store.put(orders(20_000 + number), name=f"part {number}")
    store.concat([f"part {number}" for number in range(5)], "all")
    store.with_columns("all", {"double": pa.array(np.arange(100_010) * 2)}, "wide")
    with store.get("wide") as wide:
        got = ask("GET", "/objects/wide")
        assert read(got.body).equals(wide.to_arrow())
        part = ask("GET", "/objects/wide?columns=double,city&offset=19990&limit=50000")
        assert read(part.body).equals(wide.to_arrow().select(["double", "city"]).slice(19_990, 50_000))


def test_blobs_tensors_and_objects(gateway: HttpGateway, ask: HttpClient) -> None:
    store = gateway.store
    store.put(b"x" * 100_001, name="blob")
    store.put(b"", name="empty")
    store.put(np.eye(3), name="tensor")
    store.put({"any": object}, name="object")
    blob = ask("GET", "/objects/blob")
    assert (blob.body, blob.headers["Content-Type"]) == (b"x" * 100_001, "application/octet-stream")
    assert ask("GET", "/objects/empty").body == b""
    for name in ("tensor", "object"):
        refused = ask("GET", f"/objects/{name}")
        assert (refused.status, refused.json["error"]) == (406, "InvalidArgument")
        assert name in refused.json["message"]
    assert ask("GET", "/objects/blob?columns=a").status == 400
    assert ask("GET", "/objects/nothing").status == 404


@pytest.mark.req("GW-3")
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("rows", [0, 1000, 300_000])
def test_put_a_table(gateway: HttpGateway, ask: HttpClient, rows: int, chunked: bool) -> None:
    table = orders(rows)
    body = stream(table, 50_000)
    pieces = (body[at : at + 70_001] for at in range(0, len(body), 70_001)) if chunked else body
    put = ask("PUT", "/objects/orders?metadata=%7B%22a%22:1%7D", pieces, {"Content-Type": STREAM})
    assert put.status == 201, put.body
    with gateway.store.get("orders") as stored:
        assert str(stored.id) == put.json["id"]
        assert stored.to_arrow().equals(table)
        assert stored.metadata == {"a": 1}


@pytest.mark.parametrize("kind", ["application/vnd.apache.arrow.file", ""])
def test_put_an_arrow_file(gateway: HttpGateway, ask: HttpClient, kind: str) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, orders().schema) as writer:
        writer.write_table(orders(), 100)
    body = sink.getvalue().to_pybytes()
    assert ask("PUT", "/objects/orders", body, {"Content-Type": kind}).status == 201
    with gateway.store.get("orders") as stored:
        assert stored.to_arrow().equals(orders())
    assert ask("PUT", "/objects/cut", body[:-1], {"Content-Type": kind}).status == 400
    assert not gateway.store.contains("cut")


def test_put_and_delete_a_blob(gateway: HttpGateway, ask: HttpClient) -> None:
    body = np.random.default_rng(1).bytes(3_000_000)
    put = ask("PUT", "/objects/blob", body, BLOB)
    assert (put.status, put.json["nbytes"]) == (201, len(body))
    assert ask("GET", "/objects/blob").body == body
    assert ask("PUT", "/objects/piped", iter([b"a", b"b"]), BLOB).status == 411
    assert ask("DELETE", "/objects/blob").status == 204
    assert ask("DELETE", "/objects/blob").status == 404
    with pytest.raises(ObjectNotFound):
        gateway.store.get("blob")


def test_list(gateway: HttpGateway, ask: HttpClient) -> None:
    for name in ("a/1", "a/2", "b"):
        gateway.store.put(b"1", name=name)
    names = {one["name"] for one in ask("GET", "/objects?pattern=a/*").json["objects"]}
    assert names == {"a/1", "a/2"}
    assert len(ask("GET", "/objects").json["objects"]) == 3
    assert ask("GET", "/objects?patern=x").status == 400


@pytest.mark.needs("curl")
@pytest.mark.req("GW-3")
def test_curl_into_a_reader(gateway: HttpGateway) -> None:
    gateway.store.put(orders(12_345), name="orders")
    reader = "import pyarrow as pa, sys; print(pa.ipc.open_stream(sys.stdin.buffer).read_all().num_rows)"
    url = f"http://127.0.0.1:{gateway.port}/objects/orders"
    done = subprocess.run(
        f'curl -s {url} | "{sys.executable}" -c "{reader}"',
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "12345\n", done.stderr


# --- the server itself ---


@pytest.mark.req("GW-8")
def test_health_metrics_and_index(gateway: HttpGateway, ask: HttpClient) -> None:
    gateway.store.put(orders(), name="orders")
    gateway.store.put(b"x" * 1000, evictable=True)
    assert gateway.store.evict() > 0
    ask("GET", "/objects/orders")
    assert ask("GET", "/health").json == {"healthy": True}
    assert "GET /objects/{ref}" in " ".join(ask("GET", "/").json["routes"])
    text = ask("GET", "/metrics").body.decode()
    assert 'flightstore_requests_total{code="200",kind="http GET /objects/{ref}"} 1.0' in text
    assert "flightstore_objects 1.0" in text
    assert "flightstore_up 1.0" in text
    assert "flightstore_evictions_total 1.0" in text
    assert "flightstore_spills_total 0.0" in text
    assert 'flightstore_gateway_connections{server="http"} 1.0' in text


def test_what_is_not_there_is_a_fault(ask: HttpClient) -> None:
    assert ask("GET", "/nothing").json["error"] == "NotOffered"
    refused = ask("POST", "/objects/orders")
    assert refused.status == 405
    assert "PUT" in refused.headers["Allow"]


@pytest.mark.needs("curl")
@pytest.mark.req("GW-5")
def test_unix_socket(store_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with http_gateway(store_dir, path=str(path)) as gateway:
        assert path.stat().st_mode & 0o777 == 0o600
        gateway.store.put(orders(200_000), name="orders")
        done = subprocess.run(
            ["curl", "-s", "--unix-socket", str(path), "http://localhost/objects/orders"],
            capture_output=True,
            timeout=60,
            check=True,
        )
        assert read(done.stdout).num_rows == 200_000


@pytest.mark.req("GW-3")
def test_types_that_a_reader_does_not_know_are_sent_as_plain_ones(
    gateway: HttpGateway, ask: HttpClient
) -> None:
    plain = pa.array(["a", "b", "a"])
    gateway.store.put(pa.table({"d": plain.dictionary_encode(), "v": plain.cast(pa.string_view())}), name="t")
    got = read(ask("GET", "/objects/t?hydrate=dictionary,view").body)
    assert got.equals(pa.table({"d": plain, "v": plain.cast(pa.large_string())}))
    assert ask("GET", "/objects/t?hydrate=everything").status == 400


@pytest.mark.req("GW-6")
def test_a_few_bytes_that_stand_for_gigabytes_are_not_sent_as_plain_types(
    gateway: HttpGateway, ask: HttpClient
) -> None:
    run = pa.RunEndEncodedArray.from_arrays(pa.array([1 << 30], pa.int64()), pa.array([1.5]))
    gateway.store.put(pa.table({"r": run}), name="t")
    answer = ask("GET", "/objects/t?hydrate=run_end")
    assert answer.status == 400
    assert b"ask for partitions of it" in answer.body
