"""DoExchange: columns added to a stored table, and events as they happen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec

from flightstore.errors import InvalidArgument
from flightstore.gateway.access import Caller
from flightstore.gateway.flight_streams import Incoming, receive_table
from flightstore.gateway.service import Service
from flightstore.store.local import Store
from flightstore.wire import messages as m

__all__ = ["add_columns", "follow", "followed"]

FOLLOW_S = 1.0
"""How often it is looked whether the client is still there."""


class _Follow(msgspec.Struct, forbid_unknown_fields=True):
    follow: m.FollowEvents


def followed(command: bytes) -> m.FollowEvents | None:
    """What a command asks to follow; None when it asks for something else.

    Raises:
        InvalidArgument: it is not what it should be.
    """
    if not command.startswith(b"{") or "follow" not in m.decode(command, dict[str, msgspec.Raw]):
        return None
    return m.decode(command, _Follow).follow


def follow(
    service: Service,
    caller: Caller,
    session: str | None,
    wanted: m.FollowEvents,
    send: Callable[[bytes], None],
    is_over: Callable[[], bool],
) -> None:
    """Send events until the client is gone; each message is a reply of the action ``events``."""
    since = wanted.since
    while not is_over():
        request = msgspec.structs.replace(wanted, since=since, timeout_s=FOLLOW_S)
        raw = service.act(caller, session, "events", m.encode(request))
        found = m.decode(raw, m.Events)
        if found.events or found.missed or since is None:
            send(raw)
        since = found.position


def add_columns(
    service: Service,
    caller: Caller,
    session: str | None,
    store: Store,
    command: m.PutCommand,
    incoming: Incoming,
) -> bytes:
    """Store the uploaded columns beside those of a stored table, as a new one; returns its Info as JSON."""
    if command.add_columns_to is None:
        raise InvalidArgument(
            "DoExchange wants a command", hint='{"add_columns_to": name, "name": new name} or {"follow": {}}'
        )
    columns = receive_table(store, m.PutCommand(batch=command.batch, timeout_s=command.timeout_s), incoming)
    try:
        request = m.Compose(
            operation="with_columns",
            refs=[command.add_columns_to, str(columns)],
            name=command.name,
            id=command.id,
            metadata=command.metadata,
            metadata_raw=command.metadata_raw,
            batch=command.batch,
            timeout_s=command.timeout_s,
        )
        return service.act(caller, session, "compose", m.encode(request))
    finally:
        with contextlib.suppress(Exception):
            store.delete(columns)
