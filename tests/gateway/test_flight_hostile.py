"""Input that no honest client sends: each piece is refused with a code that says why, nothing of it is stored
that is not sound, and the server serves on.
"""

from __future__ import annotations

import functools
import json
import logging
import random
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import flight

import flightstore as fs
from flightstore.gateway.flight import FlightServer
from flightstore.gateway.limits import Limits
from flightstore.gateway.service import ACTIONS, Service
from flightstore.testing.types.arrow import CATALOGUE
from flightstore.testing.types.extensions import LabelledType

from .conftest import Everybody
from .rawflight import Raw, fields_of, message, outcome

pytestmark = pytest.mark.req("GW-6")

DESCRIPTOR = message((1, b"\x08\x01" + message((3, b"x"))))
SOUND = [name for name in CATALOGUE if "one run of many rows" not in name]
EXPECTED = {"OK", "INVALID_ARGUMENT", "UNIMPLEMENTED", "UNKNOWN", "NOT_FOUND"}
"""The last two are what Arrow says of a schema that it cannot read, before anything of ours runs."""
NUMBERS = [b"\xff" * 8, (1 << 40).to_bytes(8, "little"), ((1 << 31) - 1).to_bytes(8, "little"), b"\0" * 8]


def as_table(value: Any) -> pa.Table:
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    return value if isinstance(value, pa.Table) else pa.table({"c": value})


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """A message with something wrong in it."""
    fields = dict(fields_of(raw))
    number = chance.choice([number for number, value in fields.items() if value])
    data = bytearray(fields[number])
    at = chance.randrange(len(data))
    kind = chance.random()
    if kind < 0.6:
        data[at] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
    elif kind < 0.75:
        del data[at:]
    elif kind < 0.95:
        data[at : at + 8] = chance.choice(NUMBERS)
    else:
        data += bytes(8)
    fields[number] = bytes(data)
    return message(*fields.items())


@pytest.fixture
def no_python_types() -> Iterator[None]:
    """As in a gateway: Arrow reports the errors of types that are read by Python with their traceback."""
    pa.unregister_extension_type(LabelledType.NAME)
    yield
    pa.register_extension_type(LabelledType(pa.null()))


@pytest.mark.usefixtures("no_python_types")
@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_streams_that_were_damaged(
    store: fs.Store, server: FlightServer, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Real streams of all types, a byte or a number of them changed."""
    chance = random.Random(count)
    codes = set()
    with Raw(server.port) as raw, caplog.at_level(logging.ERROR, "flightstore"):

        @functools.cache
        def sound(name: str) -> list[bytes]:
            """The messages of a whole stream of that type, as the server itself sends them."""
            store.put(as_table(CATALOGUE[name]()).slice(0, 1000), "sound")
            found = list(raw.get(b"sound"))
            store.delete("sound")
            return found

        for _ in range(count):
            messages = list(sound(chance.choice(SOUND)))
            victim = chance.randrange(len(messages))
            messages[victim] = mutated(messages[victim], chance)
            messages[0] = DESCRIPTOR + messages[0]
            upload = raw.upload()
            for one in messages:
                upload.send(one)
            upload.end()
            code, text = outcome(upload.call)
            assert code in EXPECTED, text
            assert "Traceback" not in text
            codes.add(code)
            if code == "OK":
                with store.get("x") as held:
                    held.to_arrow().validate(full=True)
                store.delete("x")
    assert codes >= {"OK", "INVALID_ARGUMENT"}
    assert store.list() == []
    assert caplog.records == []  # nothing was unforeseen
    store.recover()
    assert store.stats().used_bytes == 0


REQUESTS = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(str.encode),
    st.dictionaries(
        st.sampled_from(
            ["name", "id", "columns", "offset", "limit", "partition", "partitions", "hydrate", "ref"]
        ),
        st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=5), max_size=3),
        max_size=4,
    ).map(lambda fields: json.dumps(fields).encode()),
)
CODES = {"OK", "NOT_FOUND", "INVALID_ARGUMENT", "UNIMPLEMENTED", "UNKNOWN"}


@pytest.mark.parametrize(
    "method", ["DoGet", "GetFlightInfo", "GetSchema", "ListFlights", "DoAction", "DoPut"]
)
def test_requests_that_mean_nothing(store: fs.Store, server: FlightServer, method: str) -> None:
    store.put(pa.table({"a": [1]}), "a")

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(REQUESTS, st.sampled_from(sorted(ACTIONS.keys() - {"end_session"})))
    def check(body: bytes, action: str) -> None:
        text = body.decode(errors="replace").encode()  # gRPC itself refuses a path that is none
        requests = {
            "DoAction": message((1, action.encode()), (2, body)),
            "GetFlightInfo": b"\x08\x02" + message((2, body)),
            "GetSchema": b"\x08\x01" + message((3, text)),
            "DoPut": message((1, b"\x08\x02" + message((2, body)))),
        }
        code, said = outcome(raw.stream(method, requests.get(method, message((1, body)))))
        assert code in CODES, said
        assert "Traceback" not in said

    with Raw(server.port) as raw:
        check()


def test_a_batch_beyond_the_limit(service: Service, store: fs.Store) -> None:
    server = FlightServer(
        service,
        Everybody(),
        "grpc://127.0.0.1:0",
        limits=Limits(max_batch_bytes=1 << 20, max_object_bytes=3 << 20),
    )
    small, large = (pa.table({"a": range(size >> 3)}) for size in (1 << 19, 1 << 21))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:

        def put(table: pa.Table, times: int) -> None:
            writer, replies = client.do_put(flight.FlightDescriptor.for_path("x"), table.schema)
            for _ in range(times):
                writer.write_table(table)
            writer.done_writing()
            replies.read()
            writer.close()

        put(small, 5)
        assert store.get("x").num_rows == 5 * small.num_rows  # type: ignore[attr-defined]
        store.delete("x")
        with pytest.raises(pa.ArrowInvalid, match="a batch of"):
            put(large, 1)
        with pytest.raises(pa.ArrowInvalid, match="an object of"):
            put(small, 8)
    assert server.stop(10)
    assert store.list() == []
