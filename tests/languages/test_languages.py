"""Every program of examples/ does what it says, with its language's stock Flight library at default settings.

The cells of the table that `make languages` prints, one test each; the run of the tests prints it, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from language_checks.building import LANGUAGES
from language_checks.gateway import Gateway
from language_checks.operations import OPERATIONS, CheckFailed, Run

from flightstore.errors import ObjectNotFound

pytestmark = [pytest.mark.req("GW-1"), pytest.mark.slow]

BUILD = "build"


def cells() -> Iterator[Any]:
    """Language and operation, with what the test needs."""
    for name, language in LANGUAGES.items():
        for operation in (BUILD, *OPERATIONS):
            if operation != "in place" or language.maps:
                yield pytest.param(name, operation, marks=pytest.mark.needs(name), id=f"{name}: {operation}")


@pytest.mark.parametrize(("name", "operation"), list(cells()))
def test_cell(
    name: str,
    operation: str,
    open_gateway: Gateway,
    secure_gateway: Gateway,
    tmp_path: Path,
    record_property: Any,
) -> None:
    language = LANGUAGES[name]
    seconds = language.built()
    outcome = f"{seconds:.1f} s"
    if operation != BUILD:
        run = Run(name, language.command, open_gateway, secure_gateway, tmp_path)
        outcome = OPERATIONS[operation](run)
    row = [BUILD, *OPERATIONS].index(operation)
    record_property("table of languages", [row, operation, name, outcome])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_check_can_fail(
    operation: str, open_gateway: Gateway, secure_gateway: Gateway, tmp_path: Path
) -> None:
    """A program that does nothing passes none."""
    run = Run("idle", lambda *_: ["true"], open_gateway, secure_gateway, tmp_path)
    with pytest.raises((CheckFailed, ObjectNotFound, FileNotFoundError)):
        OPERATIONS[operation](run)
