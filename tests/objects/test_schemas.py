"""Schemas that Arrow takes for equal, though they are not stored alike."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from flightstore.objects.composition import payload_of_streams
from flightstore.objects.ipc import stream_of
from flightstore.objects.schemas import same_schema

from .conftest import open_payload


def struct(note: str) -> pa.DataType:
    return pa.struct([pa.field("a", pa.int8(), metadata={"note": note})])


VAGUE: dict[str, Callable[[str], pa.DataType]] = {
    "below a dictionary's values": lambda note: pa.dictionary(pa.int8(), struct(note)),
    "below an extension's storage": lambda note: pa.opaque(struct(note), "box", "tests"),
    "in a list": lambda note: pa.list_(pa.dictionary(pa.int8(), struct(note))),
    "an extension in a struct": lambda note: pa.struct([("b", pa.opaque(struct(note), "box", "tests"))]),
    "a dictionary as an extension's storage": lambda note: pa.opaque(
        pa.dictionary(pa.int8(), struct(note)), "box", "tests"
    ),
}


@pytest.mark.parametrize("name", VAGUE)
def test_metadata_that_arrow_overlooks(name: str) -> None:
    one, other, again = (pa.schema([("x", VAGUE[name](note))]) for note in ("one", "other", "one"))
    assert one.equals(other, check_metadata=True), "Arrow compares these now"
    assert not same_schema(one, other)
    assert same_schema(one, again)


def test_plain_schemas() -> None:
    one, again, other = (
        pa.schema([pa.field("x", struct(note), metadata={"k": "v"})], {"table": "t"})
        for note in ("one", "one", "other")
    )
    assert same_schema(one, again)
    assert not same_schema(one, other)
    assert not same_schema(one, one.remove_metadata())


@pytest.mark.req("O-2", "TYP-1")
@pytest.mark.parametrize("name", VAGUE)
def test_a_composed_table_has_the_schema_it_was_given(name: str) -> None:
    """Not that of its streams, though Arrow takes both for equal."""
    given, stored = (pa.schema([("x", VAGUE[name](note))]) for note in ("given", "stored"))
    batch = pa.record_batch([pa.nulls(2, stored.field(0).type)], schema=stored)
    payload = payload_of_streams(given, 2, [(stream_of(stored, [batch]), stored)], [(0, 0)])
    schema = open_payload(payload).to_arrow().schema
    assert schema.serialize().equals(given.serialize())
