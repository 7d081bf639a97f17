"""Tickets, commands, and the requests and replies of all actions. JSON on the wire; docs/protocol.md has
the same in words.

Sizes are bytes, durations seconds. ``bytes`` fields are base64 in JSON. Unknown fields are refused: a
misspelt one must not mean "no such wish". Replies may gain fields; readers skip those they do not know.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import msgspec

from flightstore.errors import InvalidArgument
from flightstore.types import ObjectID, ObjectInfo, Ref

__all__ = [
    "PROTOCOL_VERSION",
    "Hello",
    "Info",
    "InfoCommand",
    "PutCommand",
    "Ticket",
    "decode",
    "encode",
    "info_of",
    "object_info",
    "parse_info_command",
    "parse_put_command",
    "parse_ref",
    "parse_ticket",
    "text_of",
]

PROTOCOL_VERSION = 1

T = TypeVar("T")

encode = msgspec.json.Encoder().encode
"""Any message as JSON."""

_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def decode(raw: bytes | memoryview, kind: type[T]) -> T:
    """A message from JSON; an empty text is an empty object.

    Raises:
        InvalidArgument: it is not one; says what is wrong and where.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        decoded: T = decoder.decode(raw or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(
            f"{kind.__name__}: {error}", hint="docs/protocol.md lists the fields of each message"
        ) from None
    return decoded


def text_of(ref: Ref) -> str:
    """A reference as text: a name, or ``id:<hex>``."""
    return str(ref)


def parse_ref(text: str) -> Ref:
    """A reference from text: ``id:<hex>`` is an id, everything else a name (which never begins like one).

    Raises:
        InvalidArgument: it is neither.
    """
    return ObjectID.from_text(text) if text.startswith("id:") else text


class _Request(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What is asked."""


class _Reply(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What is answered."""


# --- tickets and descriptors ---


class Ticket(_Request):
    """What a DoGet, or an HTTP GET, is to bring."""

    name: str | None = None
    id: str | None = None
    """``id:<hex>`` or bare hex; this or a name."""
    columns: list[str] | None = None
    """These columns, in this order; None for all."""
    offset: int = 0
    """Rows left out at the beginning."""
    limit: int | None = None
    """Rows at most, counted from `offset`."""
    partition: int | None = None
    """Which of `partitions` shares of the rows, from 0; offset and limit come first."""
    partitions: int = 1
    """Into how many shares, of nearly equal numbers of rows, the rows are cut."""
    hydrate: list[str] = []
    """Types to be sent as plain ones: some of ``dictionary``, ``run_end``, ``view``."""
    payload: bool = False
    """Send the object's frame instead (see frames.py), as rows of one binary column."""

    @property
    def ref(self) -> Ref:
        """The object that is meant."""
        return _one_ref(self.name, self.id, "a ticket")


class InfoCommand(_Request):
    """What a GetFlightInfo, or GetSchema, asks about."""

    name: str | None = None
    id: str | None = None
    partitions: int = 1
    """Endpoints wanted."""
    columns: list[str] | None = None
    hydrate: list[str] = []

    @property
    def ref(self) -> Ref:
        """The object that is meant."""
        return _one_ref(self.name, self.id, "a command")


class PutCommand(_Request):
    """How a DoPut, or an HTTP PUT, is to be stored."""

    name: str | None = None
    id: str | None = None
    metadata: Any = None
    """Anything JSON can say."""
    metadata_raw: bytes = b""
    """The same as msgpack, for what JSON cannot say."""
    evictable: bool = False
    batch: int = 0
    """Number of the batch that it goes with; 0 for none."""
    timeout_s: float = 0
    """How long to wait for room."""
    add_columns_to: str | None = None
    """DoExchange: the stored table whose columns the uploaded ones join."""
    payload: bool = False
    """What is uploaded is an object's frame, as rows of one binary column."""

    @property
    def object_id(self) -> ObjectID | None:
        """The id asked for."""
        return ObjectID.from_text(self.id) if self.id is not None else None

    @property
    def users_metadata(self) -> Any:
        """The metadata, however they were sent.

        Raises:
            InvalidArgument: they are not msgpack.
        """
        return unpack(self.metadata_raw) if self.metadata_raw else self.metadata


def unpack(raw: bytes) -> Any:
    """Metadata that came as msgpack.

    Raises:
        InvalidArgument: they are not.
    """
    try:
        return msgspec.msgpack.decode(raw) if raw else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InvalidArgument(f"metadata_raw is not msgpack: {error}") from None


def _one_ref(name: str | None, object_id: str | None, what: str) -> Ref:
    if (name is None) == (object_id is None):
        raise InvalidArgument(f"{what} gives a name or an id", hint='for example {"name": "orders"}')
    return ObjectID.from_text(object_id) if object_id is not None else str(name)


def parse_ticket(raw: bytes) -> Ticket:
    """A ticket: a plain name, ``id:<hex>``, or a JSON object.

    Raises:
        InvalidArgument: it is none of them.
    """
    if raw.startswith(b"{"):
        ticket = decode(raw, Ticket)
        _ = ticket.ref
        if ticket.partition is not None and not 0 <= ticket.partition < ticket.partitions:
            raise InvalidArgument(f"there is no partition {ticket.partition} of {ticket.partitions}")
        if not all(0 <= count < 1 << 63 for count in (ticket.offset, ticket.limit or 0)):
            raise InvalidArgument("offset and limit count rows: neither is below 0, nor beyond 63 bits")
        return ticket
    ref = parse_ref(_text(raw))
    return Ticket(id=str(ref)) if isinstance(ref, ObjectID) else Ticket(name=ref)


def parse_info_command(path: list[bytes] | None, command: bytes | None) -> InfoCommand:
    """What a descriptor asks about: a path of one name, or a command (JSON, a plain name, or id).

    Raises:
        InvalidArgument: it is neither.
    """
    if command and command.startswith(b"{"):
        return decode(command, InfoCommand)
    ref = parse_ref(_text(command) if command else _only(path))
    return InfoCommand(id=str(ref)) if isinstance(ref, ObjectID) else InfoCommand(name=ref)


def parse_put_command(path: list[bytes] | None, command: bytes | None) -> PutCommand:
    """How a descriptor wants something stored: under the name that is its path, or as its command says.

    Raises:
        InvalidArgument: it is neither.
    """
    if command and command.startswith(b"{"):
        return decode(command, PutCommand)
    ref = parse_ref(_text(command) if command else _only(path))
    return PutCommand(id=str(ref)) if isinstance(ref, ObjectID) else PutCommand(name=ref)


def _only(path: list[bytes] | None) -> str:
    if not path or len(path) != 1:
        raise InvalidArgument(
            f"a descriptor's path is one name, got {len(path or ())}", hint="put slashes into the name itself"
        )
    return _text(path[0])


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidArgument("a name is UTF-8 text") from None


# --- what is known about an object ---


class Info(_Reply):
    """One object, as ObjectInfo has it."""

    id: str
    name: str | None = None
    kind: str = ""
    nbytes: int = 0
    num_rows: int | None = None
    created_ns: int = 0
    creator_pid: int = 0
    refs: int = 0
    pinned: bool = False
    state: str = "sealed"
    metadata: Any = None
    """What JSON can say of the metadata."""
    metadata_raw: bytes = b""
    """All of them, msgpack; empty for none."""
    evictable: bool = False


def info_of(info: ObjectInfo) -> Info:
    """An ObjectInfo as it is sent."""
    fields = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    fields["id"] = str(info.id)
    raw = msgspec.msgpack.encode(info.metadata) if info.metadata is not None else b""
    fields["metadata"] = _sayable(info.metadata)
    return Info(metadata_raw=raw, **fields)


def object_info(info: Info) -> ObjectInfo:
    """An ObjectInfo as it arrived."""
    fields = {field.name: getattr(info, field.name) for field in dataclasses.fields(ObjectInfo)}
    fields["id"] = ObjectID.from_text(info.id)
    fields["metadata"] = unpack(info.metadata_raw)
    return ObjectInfo(**fields)


def _sayable(metadata: Any) -> Any:
    """The metadata, or None where JSON has no words for them (keys that are no text, huge numbers)."""
    try:
        encode(metadata)
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return None
    return metadata


# --- actions ---


class Hello(_Reply):
    """What a gateway says of itself, and of the caller. Action ``hello``."""

    protocol: int
    """PROTOCOL_VERSION."""
    version: str
    """Version of flightstore."""
    path: str
    """Directory of its store."""
    nonce: str
    """The store's nonce, hex: whoever finds it in the control page at `path` has the same memory."""
    capacity_bytes: int
    http: str | None = None
    """URL at which it answers HTTP, if it does: ``http://host:port`` or ``http+unix:///path``."""
    session: int = 0
    """Number of the session that the caller is in; 0 for the store's own objects."""
    session_name: str | None = None
    rights: str = "read"
    """``read``, ``write`` or ``admin``."""


class Empty(_Request):
    """No fields."""


class Done(_Reply):
    """Nothing to say."""


class OneRef(_Request):
    """``ref``: a name, or ``id:<hex>``."""

    ref: str


class Refs(_Request):
    """``refs``: names, or ``id:<hex>``."""

    refs: list[str]


class Delete(_Request):
    refs: list[str]
    if_unused: bool = False


class Count(_Reply):
    count: int


class Bytes(_Reply):
    nbytes: int


class Found(_Reply):
    found: bool


class ListObjects(_Request):
    pattern: str | None = None


class Objects(_Reply):
    objects: list[Info]


class Wait(_Request):
    """A gateway waits for 30 seconds at most; ask again."""

    refs: list[str]
    num_ready: int | None = None
    timeout_s: float = 0


class Ready(_Reply):
    ready: list[bool]


class Evict(_Request):
    nbytes: int | None = None
    recursive: bool = False


class Spill(_Request):
    refs: list[str] | None = None


class Compose(_Request):
    """A table of stored ones; no row is written."""

    operation: str
    """``with_columns``, ``select``, ``drop``, ``rename`` or ``concat``."""
    refs: list[str]
    """The tables: one; for ``with_columns`` two (the second has the new columns); for ``concat`` any number.
    """
    columns: list[str] = []
    """For ``select`` and ``drop``."""
    names: dict[str, str] = {}
    """For ``rename``: old to new."""
    name: str | None = None
    id: str | None = None
    metadata: Any = None
    metadata_raw: bytes = b""
    batch: int = 0
    timeout_s: float = 0


class NewSession(_Request):
    """As ``Store.session``."""

    name: str | None = None
    number: int | None = None
    quota_bytes: int | None = None
    attach: bool = False


class SessionReply(_Reply):
    number: int
    name: str | None = None


class NewBatch(_Request):
    """As ``Store.batch``. A batch that is begun here belongs to the gateway: give it a timeout."""

    name: str | None = None
    timeout_s: float | None = None
    cleanup: bool = True
    parent: int = 0


class BatchReply(_Reply):
    number: int
    token: str


class OneBatch(_Request):
    """``batch``: number, or token."""

    batch: int | str


class KeepObjects(_Request):
    batch: int
    refs: list[str]


class Transfer(_Request):
    refs: list[str]
    batch: int | str | None = None


class Records(_Reply):
    """A list of records of ``flightstore.types`` (holders, sessions, batches), as JSON objects."""

    records: list[dict[str, Any]]


class Record(_Reply):
    """One record of ``flightstore.types`` (stats, a recover report, a batch), as a JSON object."""

    record: dict[str, Any]


class FollowEvents(_Request):
    """Events after number `since` (None: from now on); answers at once when there are some."""

    since: int | None = None
    pattern: str | None = None
    kinds: list[str] | None = None
    timeout_s: float = 0
    limit: int = 1000


class Events(_Reply):
    events: list[dict[str, Any]]
    position: int
    """Number to ask on from."""
    missed: int = 0
    """Events that were dropped before they were asked for."""


class LeaseObject(_Request):
    """Keep an object's memory as it is for a while, for a client that reads it in place."""

    ref: str
    seconds: float = 60


class OneLease(_Request):
    lease: str
    seconds: float = 60


class Segment(_Reply):
    """An Arrow stream in the store's memory."""

    path: str
    """The file to map."""
    offset: int
    length: int


class Leased(_Reply):
    lease: str
    expires_s: float
    info: Info
    segments: list[Segment] = []
    """A table that is one stream has one; others have none, and are fetched."""
