"""Every type: put here and got there equals put there and got here, by each way to a gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

import flightstore as fs
from flightstore.testing.types.suite import TypeSuite

from .host import Host


class BothWays(TypeSuite):
    """Put through the memory and got through a gateway; then the other way round."""

    aligned = True
    max_examples = 30
    ways: ClassVar[str]
    here: fs.Store
    there: fs.Store

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def stores(cls, host: Host) -> Iterator[None]:
        """Two handles on one store, for all tests of the class."""
        url = host.make(64 << 20, cls.ways)
        with fs.connect(url) as cls.here, fs.connect(url, map=False) as cls.there:
            assert (cls.here.mapped, cls.there.mapped) == (True, False)
            yield
            assert cls.here.list() == []
        host.end(url)

    def transfer(self, value: Any) -> Any:
        return carried(value, self.there, self.here)

    def check(self, name: str, value: Any) -> None:
        self.check_same(value, carried(value, self.there, self.here))
        self.check_same(value, carried(value, self.here, self.there))


def carried(value: Any, source: fs.Store, target: fs.Store) -> Any:
    object_id = source.put(value)
    try:
        return target.get(object_id).value()  # type: ignore[attr-defined]
    finally:
        target.delete(object_id)


@pytest.mark.req("GW-7", "TYP-1")
class TestHttp(BothWays):
    ways = "http"


@pytest.mark.slow
@pytest.mark.req("GW-7", "TYP-1")
class TestFlight(BothWays):
    ways = "flight"
