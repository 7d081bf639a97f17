"""docs/protocol.md says what the code does: actions, messages and frames, field by field."""

from __future__ import annotations

import msgspec
from pages import ROOT, tables

from flightstore.gateway.flight_errors import code_of
from flightstore.gateway.http_answers import status_of
from flightstore.gateway.service import ACTIONS, MAX_WAIT_S
from flightstore.wire.faults import named_error
from flightstore.wire.frames import FrameHeader
from flightstore.wire.messages import PROTOCOL_VERSION, InfoCommand, PutCommand, Ticket

PAGE = (ROOT / "docs" / "protocol.md").read_text()


def rows_with(*columns: str) -> list[dict[str, str]]:
    """The rows of all tables of the page that have these columns."""
    found = [table for table in tables(PAGE) if table and list(table[0])[: len(columns)] == list(columns)]
    assert found, f"no table with the columns {columns}"
    return [row for table in found for row in table]


def names_in(cell: str) -> list[str]:
    """The names in a cell; `tables` has taken the backticks off a cell that is one name."""
    return cell.split("`")[1::2] or ([cell] if cell else [])


def fields_of(kind: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(kind)}


def test_the_page_lists_every_action_with_its_right_and_fields() -> None:
    listed = {
        names_in(row["action"])[0]: (row["right"], names_in(row["request"]))
        for row in rows_with("action", "right", "request")
    }
    actual = {
        name: (action.right, [field.encode_name for field in msgspec.structs.fields(action.request)])
        for name, action in ACTIONS.items()
    }
    assert listed == actual


def test_the_page_lists_every_field_of_tickets_commands_and_frames() -> None:
    listed = {name for row in rows_with("field", "meaning") for name in names_in(row["field"])}
    for kind in (Ticket, InfoCommand, PutCommand):
        assert fields_of(kind) <= listed, kind
    header = {
        name
        for row in rows_with("field of the header", "meaning")
        for name in names_in(row["field of the header"])
    }
    assert header == fields_of(FrameHeader)


def test_the_page_gives_the_numbers() -> None:
    assert f"Protocol version {PROTOCOL_VERSION}." in PAGE
    assert f"longer than {MAX_WAIT_S:.0f} seconds" in PAGE


def test_the_page_gives_the_codes_and_statuses_of_errors() -> None:
    for row in rows_with("errors", "gRPC's code", "HTTP's status"):
        for name in row["errors"].split(", "):
            if name != "all others":
                error = named_error(name)("what happened")
                assert type(error).__name__ == name
                assert code_of(error) == row["gRPC's code"], name
                assert str(status_of(error)) == row["HTTP's status"], name
