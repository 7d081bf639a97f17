"""Ranges, entity tags and conditional requests."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from flightstore.gateway.http_ranges import etag_matches, part_asked
from flightstore.gateway.sending import cut
from flightstore.testing.http_gateway import HttpClient, HttpGateway, http_gateway

SIZE = 300_000


@pytest.fixture
def gateway(store_dir: Path) -> Iterator[HttpGateway]:
    with http_gateway(store_dir) as running:
        running.store.put(np.random.default_rng(1).bytes(SIZE), name="blob")
        yield running


@pytest.fixture
def ask(gateway: HttpGateway) -> Iterator[HttpClient]:
    client = gateway.client()
    yield client
    client.close()


@pytest.mark.req("GW-3")
@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-99999", 10, 100_000),
        ("bytes=299999-", SIZE - 1, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        ("bytes=-900000", 0, SIZE),
        ("bytes=5-900000", 5, SIZE),
    ],
)
def test_a_range(ask: HttpClient, asked: str, start: int, stop: int) -> None:
    whole = ask("GET", "/objects/blob").body
    part = ask("GET", "/objects/blob", headers={"Range": asked})
    assert (part.status, part.body) == (206, whole[start:stop])
    assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert int(part.headers["Content-Length"]) == stop - start


@pytest.mark.req("GW-3")
def test_ranges_that_cannot_be_had(ask: HttpClient) -> None:
    beyond = ask("GET", "/objects/blob", headers={"Range": f"bytes={SIZE}-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{SIZE}")
    for whole in ("bytes=0-1,5-6", "lines=1-2", "bytes=9-1", "bytes=-", "bytes=a-b", "nonsense"):
        assert ask("GET", "/objects/blob", headers={"Range": whole}).status == 200


@pytest.mark.req("GW-3")
def test_an_interrupted_download_goes_on_or_begins_anew(gateway: HttpGateway, ask: HttpClient) -> None:
    first = ask("GET", "/objects/blob", headers={"Range": "bytes=0-99999"})
    condition = {"Range": "bytes=100000-", "If-Range": first.headers["ETag"]}
    rest = ask("GET", "/objects/blob", headers=condition)
    assert (rest.status, first.body + rest.body) == (206, ask("GET", "/objects/blob").body)
    gateway.store.put(b"another one", name="blob")
    assert ask("GET", "/objects/blob", headers=condition).body == b"another one"


@pytest.mark.req("GW-3")
def test_what_a_cache_has_is_not_sent_again(gateway: HttpGateway, ask: HttpClient) -> None:
    got = ask("GET", "/objects/blob")
    for tag in (got.headers["ETag"], f'"x", W/{got.headers["ETag"]}', "*"):
        fresh = ask("GET", "/objects/blob", headers={"If-None-Match": tag})
        assert (fresh.status, fresh.body, fresh.headers["ETag"]) == (304, b"", got.headers["ETag"])
    gateway.store.put(b"another one", name="blob")
    assert ask("GET", "/objects/blob", headers={"If-None-Match": got.headers["ETag"]}).status == 200


def test_an_id_that_is_used_again_has_another_tag(gateway: HttpGateway, ask: HttpClient) -> None:
    made = gateway.store.put(b"one", name="x")
    before = ask("GET", "/objects/x").headers["ETag"]
    gateway.store.delete(made)
    gateway.store.put(b"two", name="x", object_id=made)
    assert ask("GET", "/objects/x", headers={"If-None-Match": before}).body == b"two"


def test_parts_have_tags_of_their_own(gateway: HttpGateway, ask: HttpClient) -> None:
    gateway.store.put(pa.table({"a": [1, 2], "b": [3, 4]}), name="t")
    queries = ("", "?columns=a", "?columns=b", "?limit=1", "?partition=0&partitions=2", "?columns=a,b")
    tags = [ask("GET", f"/objects/t{query}").headers["ETag"] for query in queries]
    assert len(set(tags)) == len(tags)
    assert tags == [ask("GET", f"/objects/t{query}").headers["ETag"] for query in queries]


# --- as functions ---

HEADERS = st.text(string.printable.replace("\r", "").replace("\n", ""), max_size=60)


@given(HEADERS | st.from_regex(r"bytes=\d{0,25}-\d{0,25}", fullmatch=True), HEADERS, st.integers(0, 1 << 40))
def test_any_range_has_an_answer(asked: str, condition: str, size: int) -> None:
    request = make_mocked_request("GET", "/", headers={"Range": asked, "If-Range": condition})
    start, stop, status = part_asked(request, '"tag"', size)
    if status == 206:
        assert 0 <= start < stop <= size
    else:
        assert (start, stop, status) in ((0, size, 200), (0, 0, 416))
    assert etag_matches(condition, '"tag"', weak=True) in (True, False)


@given(st.data())
def test_cut_is_a_slice(data: st.DataObject) -> None:
    blocks = data.draw(st.lists(st.tuples(st.integers(0, 9000), st.binary(max_size=50)), max_size=6))
    pieces, whole = [], b""
    for gap, block in blocks:
        whole += bytes(gap)
        pieces.append((len(whole), block))
        whole += block
    whole += bytes(data.draw(st.integers(0, 9000)))
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    views = cut(pieces, len(whole), start, stop)
    assert views.left == stop - start
    assert b"".join(views.pieces(1000)) == whole[start:stop]
