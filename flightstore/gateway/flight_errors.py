"""Errors as Flight clients get them: a gRPC code, the error's own text, and never a traceback.

pyarrow's server turns exceptions into gRPC codes by their class. Its Flight errors travel as they are, but
there is one for some of the codes only. For NOT_FOUND, INVALID_ARGUMENT and UNIMPLEMENTED it has to be a
KeyError, ValueError or NotImplementedError, and to those Arrow appends the traceback, unless that cannot be
formatted: then it appends the name of the class alone. So the classes made here refuse to be formatted, and
are named after the error that they stand for: "there is no object 'x'. Detail: Python exception:
ObjectNotFound". tests/gateway/test_flight_errors.py notices when a pyarrow does otherwise.

ALREADY_EXISTS, RESOURCE_EXHAUSTED and FAILED_PRECONDITION cannot be had from Python. GetSchema, and streams
made by Python, let no Flight error through: there UNKNOWN is what is left. The error itself, with its hint
and numbers, goes along as the trailer TRAILER.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyarrow import flight

from flightstore import errors as e
from flightstore.errors import FlightStoreError
from flightstore.wire.faults import Fault, fault_of
from flightstore.wire.messages import encode

__all__ = ["CODES", "TRAILER", "as_flight_error", "code_of", "guarded", "of_client_stream", "packed_fault"]

TRAILER = "x-flightstore-fault-bin"
"""The trailer that carries the error as JSON (wire.faults.Fault)."""
MAX_TEXT_BYTES = 700
MAX_FAULT_BYTES = 1500
"""Longer ones are cut: gRPC refuses trailers beyond 8 KiB in all, and a text is in them three times."""

CODES: tuple[tuple[type[Exception], str], ...] = (
    (e.NotAuthenticated, "UNAUTHENTICATED"),
    (e.NotAllowed, "PERMISSION_DENIED"),
    (e.GetTimeout, "DEADLINE_EXCEEDED"),
    (e.ObjectNotFound, "NOT_FOUND"),
    (e.ObjectLost, "NOT_FOUND"),
    (e.SessionNotFound, "NOT_FOUND"),
    (e.SessionEnded, "NOT_FOUND"),
    (e.BatchEnded, "NOT_FOUND"),
    (e.InvalidArgument, "INVALID_ARGUMENT"),
    (e.ObjectExists, "INVALID_ARGUMENT"),
    (e.NotStorable, "INVALID_ARGUMENT"),
    (e.NotConvertible, "INVALID_ARGUMENT"),
    (e.NotOffered, "UNIMPLEMENTED"),
    (e.MissingExtra, "UNIMPLEMENTED"),
    (e.StoreFull, "UNAVAILABLE"),
    (e.StoreBusy, "UNAVAILABLE"),
    (e.GatewayBusy, "UNAVAILABLE"),
    (e.GatewayUnreachable, "UNAVAILABLE"),
    (e.StoreClosed, "UNAVAILABLE"),
)
"""The code of each error, the first class that fits; INTERNAL for all else."""

_FLIGHT_ERRORS: dict[str, type[flight.FlightError]] = {
    "UNAUTHENTICATED": flight.FlightUnauthenticatedError,
    "PERMISSION_DENIED": flight.FlightUnauthorizedError,
    "DEADLINE_EXCEEDED": flight.FlightTimedOutError,
    "UNAVAILABLE": flight.FlightUnavailableError,
    "INTERNAL": flight.FlightInternalError,
}
_BUILTINS: dict[str, type[Exception]] = {
    "NOT_FOUND": KeyError,
    "INVALID_ARGUMENT": ValueError,
    "UNIMPLEMENTED": NotImplementedError,
}

_STREAM = "a stream"
_WITHOUT_FLIGHT_ERRORS = ("get_schema", _STREAM)
"""Where pyarrow treats Flight's errors like any others."""

_log = logging.getLogger("flightstore.gateway.flight")


def code_of(error: BaseException) -> str:
    """The gRPC code for an error."""
    return next((code for kind, code in CODES if isinstance(error, kind)), "INTERNAL")


def as_flight_error(error: BaseException, what: str) -> tuple[Exception, Fault]:
    """What to raise for an error, and what to send along. What was not foreseen is logged, not told.

    Args:
        error: What happened.
        what: Name of the handler.
    """
    if not isinstance(error, FlightStoreError):
        _log.error("%s failed", what, exc_info=error)
    fault = fault_of(error)
    text = _cut(str(error) if isinstance(error, FlightStoreError) else fault.message)
    code = code_of(error)
    if code in _FLIGHT_ERRORS and what not in _WITHOUT_FLIGHT_ERRORS:
        return _FLIGHT_ERRORS[code](text, packed_fault(fault)), fault
    return _unformattable(code, fault.error)(text), fault


def packed_fault(fault: Fault) -> bytes:
    """The fault as JSON, short enough for a trailer."""
    raw = encode(fault)
    if len(raw) > MAX_FAULT_BYTES:
        raw = encode(Fault(error=fault.error, message=_cut(fault.message), attributes=fault.attributes))
    if len(raw) > MAX_FAULT_BYTES:
        raw = encode(Fault(error=fault.error, message=fault.message[:200]))
    return raw


def _cut(text: str) -> str:
    raw = text.encode(errors="replace")
    return text if len(raw) <= MAX_TEXT_BYTES else raw[:MAX_TEXT_BYTES].decode(errors="ignore") + " ..."


@functools.cache
def _unformattable(code: str, name: str) -> Any:
    """A class of errors that Arrow reports by its name."""
    base = _BUILTINS.get(code, RuntimeError)

    def refuse(self: BaseException) -> None:
        raise AttributeError(name)

    def text(self: BaseException) -> str:
        return str(self.args[0])

    return type(name, (base,), {"__cause__": property(refuse), "__str__": text, "__module__": __name__})


def guarded(batches: Iterator[Any]) -> Iterator[Any]:
    """Batches whose errors Arrow's own reader may meet."""
    try:
        yield from batches
    except Exception as error:
        raise as_flight_error(error, _STREAM)[0] from None


def of_client_stream(error: BaseException) -> BaseException:
    """An error met while a client's stream was read: its own if Arrow could not understand it."""
    if isinstance(error, FlightStoreError) or not isinstance(
        error, pa.ArrowException | OSError | UnicodeDecodeError
    ):
        return error
    return e.InvalidArgument(f"the uploaded stream cannot be read: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].partition(". gRPC client debug context")[0][:300]
