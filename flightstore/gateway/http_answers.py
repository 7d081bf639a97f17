"""What HTTP says: the status of each error, errors as JSON, and what stands in a request's query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web
from multidict import MultiMapping

from flightstore import errors
from flightstore.errors import FlightStoreError, InvalidArgument
from flightstore.objects.base import Object
from flightstore.wire import messages as m
from flightstore.wire.faults import Fault, fault_of
from flightstore.wire.messages import PutCommand, Ticket

__all__ = [
    "JSON",
    "NotAcceptable",
    "answer",
    "error_answer",
    "json_answer",
    "object_headers",
    "put_command",
    "status_of",
    "ticket_of",
]

JSON = "application/json"

_STATUSES: tuple[tuple[type[FlightStoreError], int], ...] = (
    (errors.ObjectLost, 410),
    (errors.ObjectNotFound, 404),
    (errors.SessionNotFound, 404),
    (errors.ObjectExists, 409),
    (errors.NotAuthenticated, 401),
    (errors.NotAllowed, 403),
    (errors.BatchEnded, 410),
    (errors.SessionEnded, 410),
    (errors.EventsMissed, 410),
    (errors.StoreFull, 507),
    (errors.StoreBusy, 503),
    (errors.StoreClosed, 503),
    (errors.GatewayBusy, 503),
    (errors.GatewayUnreachable, 400),
    (errors.NotOffered, 501),
    (errors.InvalidArgument, 400),
    (errors.NotStorable, 400),
    (errors.NotConvertible, 400),
)
"""The first class that fits counts."""


class NotAcceptable(InvalidArgument):
    """This kind of object has no form that this way of asking brings."""


def status_of(error: BaseException) -> int:
    """The status code that says best what happened; 500 for what nobody foresaw."""
    if isinstance(error, NotAcceptable):
        return 406
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def answer(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, kind: str = JSON
) -> web.Response:
    """A short answer."""
    return web.Response(status=status, body=body, headers=headers, content_type=kind if body else None)


def json_answer(message: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A message of flightstore.wire as an answer."""
    return answer(status, m.encode(message), headers)


def error_answer(error: BaseException) -> web.Response:
    """An error as an answer: its Fault as JSON."""
    status = status_of(error)
    fault = fault_of(error)
    if isinstance(error, NotAcceptable):
        fault = msgspec.structs.replace(fault, error=InvalidArgument.__name__)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="flightstore"'
    elif status == 503:
        headers["Retry-After"] = "1"
    return json_answer(fault, status, headers)


def http_fault(error: web.HTTPException) -> web.Response:
    """What aiohttp says by itself (no such route, method, too long), in our words."""
    kind = "NotOffered" if error.status in (404, 405) else "InvalidArgument"
    fault = Fault(
        error=kind, message=f"HTTP {error.status}: {error.reason}", hint="GET / tells what there is"
    )
    kept = {name: value for name, value in error.headers.items() if name in ("Allow", "Retry-After")}
    return json_answer(fault, error.status, kept)


def object_headers(held: Object) -> dict[str, str]:
    """What the headers say about an object."""
    rows = held._live.record.num_rows
    headers = {"x-flightstore-id": str(held.id), "x-flightstore-kind": held.kind}
    if held.name is not None:
        headers["x-flightstore-name"] = quote(held.name, safe="/")
    if rows is not None:
        headers["x-flightstore-rows"] = str(rows)
    return headers


# --- queries ---

_TICKET = frozenset(("columns", "column", "offset", "limit", "partition", "partitions", "hydrate"))
_PUT = frozenset(("metadata", "evictable", "batch", "timeout_s", "id"))


def _known(query: MultiMapping[str], names: frozenset[str]) -> None:
    for name in query:
        if name not in names:
            raise InvalidArgument(
                f"there is no parameter {name[:100]!r}", hint=f"there are {', '.join(sorted(names))}"
            )
        if name != "column" and len(query.getall(name)) > 1:
            raise InvalidArgument(f"the parameter {name!r} is given more than once")


def _texts(query: MultiMapping[str], name: str) -> list[str]:
    text = query.get(name, "")
    return text.split(",") if text else []


def _convert(fields: dict[str, Any], kind: type[Any]) -> Any:
    try:
        return msgspec.convert(fields, kind, strict=False)
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise InvalidArgument(f"the query: {error}") from None


def ticket_of(ref: str, query: MultiMapping[str]) -> Ticket:
    """What a GET of a table asks for.

    Columns come as ``columns=a,b`` or, for names with commas, ``column=a&column=b``.

    Raises:
        InvalidArgument: a parameter is unknown, given twice, or none that it can be.
    """
    _known(query, _TICKET)
    if "columns" in query and "column" in query:
        raise InvalidArgument("give columns=a,b or column=a&column=b, not both")
    wanted = m.parse_ref(ref)
    fields: dict[str, Any] = {"name": wanted} if isinstance(wanted, str) else {"id": str(wanted)}
    for name in ("offset", "limit", "partition", "partitions"):
        if name in query:
            fields[name] = query[name]
    if "columns" in query:
        fields["columns"] = _texts(query, "columns")
    elif "column" in query:
        fields["columns"] = query.getall("column")
    fields["hydrate"] = _texts(query, "hydrate")
    return m.parse_ticket(m.encode(_convert(fields, Ticket)))


def put_command(ref: str, query: MultiMapping[str]) -> PutCommand:
    """How a PUT of an object is to be stored.

    Raises:
        InvalidArgument: as for `ticket_of`.
    """
    _known(query, _PUT)
    wanted = m.parse_ref(ref)
    fields: dict[str, Any] = {"name": wanted} if isinstance(wanted, str) else {"id": str(wanted)}
    for name in ("evictable", "batch", "timeout_s"):
        if name in query:
            fields[name] = query[name]
    if "id" in query:
        fields["id"] = query["id"]
    if "metadata" in query:
        try:
            fields["metadata"] = msgspec.json.decode(query["metadata"])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidArgument(f"metadata is not JSON: {error}") from None
    command: PutCommand = _convert(fields, PutCommand)
    if not command.timeout_s >= 0 or command.batch < 0:
        raise InvalidArgument("timeout_s and batch are never below 0")
    return command
