"""The programs of examples/, built once, and gateways to run them against."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from language_checks.gateway import Gateway


@pytest.fixture(scope="session")
def open_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway on loopback that asks nobody who he is."""
    with Gateway(tmp_path_factory.mktemp("gateway") / "open", secure=False) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def secure_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with TLS and tokens."""
    with Gateway(tmp_path_factory.mktemp("gateway") / "secure", secure=True) as gateway:
        yield gateway
