"""Every type of the catalogue that Go's library knows, there and back."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from language_checks.building import LANGUAGES
from language_checks.gateway import Gateway
from language_checks.operations import Run, content

from flightstore.testing.types.arrow import CATALOGUE, SAMPLES
from flightstore.testing.types.equality import assert_same

pytestmark = [pytest.mark.req("GW-1", "GW-7"), pytest.mark.slow, pytest.mark.needs("go")]

FORMS = ("", ": nested", ": in chunks")
"""Of each type: alone, within every nested type, and in batches of several sizes."""

UNKNOWN_TO_GO: dict[str, str] = {}


@pytest.fixture
def go(open_gateway: Gateway, tmp_path: Path) -> Run:
    """The program."""
    LANGUAGES["go"].built()
    return Run("go", LANGUAGES["go"].command, open_gateway, open_gateway, tmp_path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_round_trip(sample: str, form: str, go: Run) -> None:
    table = CATALOGUE[sample + form]()
    go.open.store.put(table, "stored")
    go("get", "stored", go.file("got"))
    assert_same(table.combine_chunks(), content(go.file("got")).combine_chunks())
    path = go.file("stream")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    go("put", "sent", path)
    with go.open.store.get("sent") as held:
        assert_same(table.combine_chunks(), held.to_arrow().combine_chunks())
