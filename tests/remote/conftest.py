"""A process with gateways, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .host import Host, hosting


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """The process that serves stores."""
    with hosting() as host:
        yield host
