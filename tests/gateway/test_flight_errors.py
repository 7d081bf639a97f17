"""Errors as clients of any language see them: gRPC's code, the error's own text, nothing of the server.

The codes are read by gRPC's own client, which knows nothing of Arrow. Some of what is tested here hangs on
how pyarrow formats exceptions: a version that does otherwise must be noticed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pyarrow as pa
import pytest
from pyarrow import flight

import flightstore as fs
from flightstore import errors
from flightstore.gateway import flight as module
from flightstore.gateway.access import Caller
from flightstore.gateway.flight import FlightServer
from flightstore.gateway.flight_errors import CODES, TRAILER, code_of
from flightstore.gateway.service import Service
from flightstore.wire.faults import Fault, error_of
from flightstore.wire.messages import decode

from .rawflight import Raw, message

pytestmark = pytest.mark.req("GW-6")

EVERY_ERROR = [
    kind
    for name in errors.__all__
    if issubclass(kind := getattr(errors, name), errors.FlightStoreError)
    and kind is not errors.FlightStoreError
]


@pytest.fixture
def raw(server: FlightServer) -> Iterator[Raw]:
    with Raw(server.port) as made:
        yield made


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let DoGet fail with an error."""

    def fail(error: BaseException) -> None:
        def parse(ticket: bytes) -> None:
            raise error

        monkeypatch.setattr(module.m, "parse_ticket", parse)

    return fail


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_every_error(kind: type[errors.FlightStoreError], raw: Raw, failing: Any) -> None:
    error = kind("the thing 'ä/b' is wrong", hint="do this")
    error.asked_bytes = 17  # type: ignore[attr-defined]
    failing(error)
    found = raw.error_of("DoGet", message((1, b"x")))
    assert found.code().name == code_of(error)
    assert found.details().startswith("the thing 'ä/b' is wrong (do this). Detail: ")
    assert_clean(found.details())
    assert len(found.details()) < 120
    [packed] = [value for key, value in found.trailing_metadata() if key == TRAILER]
    again = error_of(decode(packed, Fault))
    assert (type(again), str(again)) == (kind, str(error))
    assert again.asked_bytes == 17  # type: ignore[attr-defined]


def assert_clean(text: str) -> None:
    """Nothing of a traceback, and no file of the server's."""
    for sign in ("Traceback", ".py", ".pyx", "line ", "site-packages", "flightstore/"):
        assert sign not in text


CALLS = [
    ("DoGet", message((1, b"x"))),
    ("GetFlightInfo", b"\x08\x01\x1a\x01x"),
    ("GetSchema", b"\x08\x01\x1a\x01x"),
    ("ListFlights", b""),
    ("DoAction", message((1, b"hello"))),
    ("ListActions", b""),
    ("DoPut", b"\x0a\x05\x08\x01\x1a\x01y"),
    ("DoExchange", b'\x0a\x1a\x08\x02\x12\x16{"add_columns_to":"x"}'),
]
"""Every call, with a request that it takes."""


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0])
def test_every_call(call: Any, raw: Raw, server: FlightServer, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: dict[str, BaseException] = {}

    def fail(*arguments: Any) -> None:
        raise reported["error"]

    monkeypatch.setattr(server.calls, "caller_of", fail)
    for error in [kind("wrong") for kind, _ in CODES] + [RuntimeError("wrong")]:
        reported["error"] = error
        found = raw.error_of(*call)
        code = code_of(error)
        if call[0] == "GetSchema" and code not in ("NOT_FOUND", "INVALID_ARGUMENT", "UNIMPLEMENTED"):
            code = "UNKNOWN"
        assert (found.code().name, error) == (code, error), found
        assert_clean(found.details())


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_every_error_in_arrows_own_client(
    kind: type[errors.FlightStoreError], client: Any, failing: Any
) -> None:
    failing(kind("wrong"))
    expected: dict[str, type[Exception]] = {
        "NOT_FOUND": pa.ArrowKeyError,
        "INVALID_ARGUMENT": pa.ArrowInvalid,
        "UNIMPLEMENTED": pa.ArrowNotImplementedError,
        "UNAVAILABLE": flight.FlightUnavailableError,
        "PERMISSION_DENIED": flight.FlightUnauthorizedError,
        "UNAUTHENTICATED": flight.FlightUnauthenticatedError,
        "DEADLINE_EXCEEDED": flight.FlightTimedOutError,
        "INTERNAL": flight.FlightInternalError,
    }
    with pytest.raises(expected[code_of(kind("wrong"))]) as caught:
        client.do_get(flight.Ticket(b"x"))
    assert_clean(str(caught.value))
    if isinstance(caught.value, flight.FlightError):
        assert json.loads(caught.value.extra_info)["error"] == kind.__name__
    else:
        assert f"wrong. Detail: Python exception: {kind.__name__}" in str(caught.value)


def test_the_first_class_that_fits_is_the_closest() -> None:
    kinds = [kind for kind, _ in CODES]
    for number, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:number])


def test_what_was_not_foreseen_is_logged_and_not_told(
    raw: Raw, failing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    failing(ZeroDivisionError("secret"))
    with caplog.at_level(logging.ERROR, "flightstore.gateway.flight"):
        found = raw.error_of("DoGet", message((1, b"x")))
    assert found.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(found.trailing_metadata()) + found.details()
    assert_clean(found.details())
    assert "ZeroDivisionError: secret" in caplog.text


def test_long_texts_are_cut(raw: Raw, failing: Any) -> None:
    failing(errors.InvalidArgument("\0ü€😀" * 10_000, hint="x" * 10_000))
    found = raw.error_of("DoGet", message((1, b"x")))
    assert found.code() is grpc.StatusCode.INVALID_ARGUMENT
    sizes = [len(key) + len(value) * 4 / 3 for key, value in found.trailing_metadata()]
    assert sum(sizes) + 3 * len(found.details().encode()) < 8000


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("DoGet", message((1, b"nothing")), "NOT_FOUND"),
        ("DoGet", message((1, b"")), "INVALID_ARGUMENT"),
        ("DoGet", message((1, b"{")), "INVALID_ARGUMENT"),
        ("DoGet", message((1, b'{"nam": "x"}')), "INVALID_ARGUMENT"),
        ("DoGet", message((1, b'{"name": "x", "id": "id:00"}')), "INVALID_ARGUMENT"),
        ("DoGet", message((1, b"id:zz")), "INVALID_ARGUMENT"),
        ("DoGet", message((1, b"\xff\xfe")), "INVALID_ARGUMENT"),
        ("DoGet", message((1, b'{"name": "blob"}')), "INVALID_ARGUMENT"),
        ("DoGet", message((1, b'{"name": "t", "columns": ["no"]}')), "INVALID_ARGUMENT"),
        ("DoGet", message((1, b'{"name": "t", "hydrate": ["no"]}')), "INVALID_ARGUMENT"),
        ("DoGet", message((1, b'{"name": "t", "offset": -1}')), "INVALID_ARGUMENT"),
        ("DoGet", message((1, b'{"name": "t", "partition": 0, "partitions": 0}')), "INVALID_ARGUMENT"),
        ("DoGet", message((1, b'{"name": "t", "limit": 99999999999999999999}')), "INVALID_ARGUMENT"),
        ("GetFlightInfo", b"\x08\x01\x1a\x07nothing", "NOT_FOUND"),
        ("GetFlightInfo", b"\x08\x01\x1a\x01a\x1a\x01b", "INVALID_ARGUMENT"),
        ("GetFlightInfo", b"\x08\x02\x12\x01{", "INVALID_ARGUMENT"),
        ("GetFlightInfo", b"", "INVALID_ARGUMENT"),
        ("GetSchema", b"\x08\x01\x1a\x07nothing", "NOT_FOUND"),
        ("ListFlights", message((1, b"{")), "INVALID_ARGUMENT"),
        ("ListFlights", message((1, b"\xff")), "INVALID_ARGUMENT"),
        ("DoAction", message((1, b"nothing")), "UNIMPLEMENTED"),
        ("DoAction", message((1, b"stat")), "INVALID_ARGUMENT"),
        ("DoAction", message((1, b"stat"), (2, b"[]")), "INVALID_ARGUMENT"),
        ("DoAction", message((1, b"stat"), (2, b'{"ref": "no"}')), "NOT_FOUND"),
        ("PollFlightInfo", b"\x08\x01\x1a\x01t", "UNIMPLEMENTED"),
    ],
)
def test_what_clients_get_wrong(raw: Raw, store: fs.Store, method: str, request_: bytes, code: str) -> None:
    store.put(pa.table({"a": [1]}), "t")
    store.put(b"bytes", "blob")
    found = raw.error_of(method, request_)
    assert found.code().name == code, found.details()
    assert_clean(found.details())


class Nobody:
    """Knows nobody, or one who may only read."""

    def __init__(self) -> None:
        self.known: Caller | None = None

    def caller_of(self, authorization: str | None, *, local: bool, certificate: str | None = None) -> Caller:
        if self.known is None:
            raise errors.NotAuthenticated("this gateway wants a token", hint="send one")
        return self.known


def test_who_may_not(service: Service, store: fs.Store) -> None:
    nobody = Nobody()
    server = FlightServer(service, nobody, "grpc://127.0.0.1:0")
    raw = Raw(server.port)
    for method, request in [*CALLS, ("Handshake", b"")]:
        found = raw.error_of(method, request)
        assert (method, found.code().name) == (method, "UNAUTHENTICATED"), found.details()
        assert_clean(found.details())
    nobody.known = Caller("reader", "read")
    store.put(pa.table({"a": [1]}), "x")
    for method, request in [
        ("DoPut", b"\x0a\x05\x08\x01\x1a\x01y"),
        ("DoExchange", b'\x0a\x1a\x08\x02\x12\x16{"add_columns_to":"x"}'),
        ("DoAction", message((1, b"delete"), (2, b'{"refs": ["x"]}'))),
    ]:
        found = raw.error_of(method, request)
        assert (method, found.code().name) == (method, "PERMISSION_DENIED")
    nobody.known = Caller("guest", "admin", ("night",))
    found = raw.error_of("GetSchema", b"\x08\x01\x1a\x01x", ("x-flightstore-session", "day"))
    assert found.code().name == "PERMISSION_DENIED"
    raw.channel.close()
    assert server.stop(10)
    assert store.contains("x")
