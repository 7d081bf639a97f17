"""Dispatch: what cannot be stored says why, others can register, stored handles are copied as they are."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from flightstore.errors import InvalidArgument, MissingExtra, NotStorable
from flightstore.objects import registry
from flightstore.objects.base import Object, Payload
from flightstore.objects.pyobject import PyObject
from flightstore.objects.registry import encode, kind_name, register_encoder, register_kind

from .conftest import open_payload

Through = Callable[..., Any]


@pytest.mark.parametrize(
    ("make", "says", "hint"),
    [
        (lambda: (i for i in range(3)), "generator", "list"),
        (tempfile.TemporaryFile, "Buffered", "content"),
        (lambda: threading.Lock(), "lock", "cloudpickle"),
        (lambda: lambda: 1, "function", "top level"),
        (lambda: sys, "module", "cloudpickle"),
        (lambda: {"deep": [threading.Lock()]}, "lock", ""),
    ],
    ids=["generator", "file", "lock", "lambda", "module", "nested"],
)
def test_what_cannot_be_stored_says_why(make: Callable[[], Any], says: str, hint: str) -> None:
    value = make()
    try:
        with pytest.raises(NotStorable, match=says) as caught:
            encode(value)
        assert hint in caught.value.hint
        assert isinstance(caught.value, TypeError)
    finally:
        getattr(value, "close", lambda: None)()


def test_too_deep_for_pickle() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(NotStorable, match="list"):
        encode(value)
    while value:  # taken apart here: its destructor would recurse too
        value = value[0]


@pytest.mark.parametrize(
    "value", [1, "text", None, {"a": 1}, [1], {1}, object()], ids=lambda value: type(value).__name__
)
def test_pickle_can_be_forbidden(value: Any) -> None:
    with pytest.raises(NotStorable, match="pickle"):
        encode(value, pickle=False)


@pytest.mark.parametrize(
    "value",
    [b"x", bytearray(b"x"), np.zeros(2), pa.table({"a": [1]}), pd.DataFrame({"a": [1]}), pd.Series([1])],
)
def test_and_is_not_needed_for_plain_data(value: Any) -> None:
    assert encode(value, pickle=False).pieces


@pytest.mark.parametrize(
    "value",
    [b"bytes", np.arange(3), pa.table({"a": [1, 2]}), {"x": np.arange(4)}],
    ids=lambda v: type(v).__name__,
)
def test_a_stored_object_is_copied_as_it_is(store_value: Through, value: Any) -> None:
    first = store_value(value)
    second = store_value(first, pickle=False)
    assert type(second) is type(first)
    got, want = second.value(), first.value()
    assert got["x"].tolist() == want["x"].tolist() if isinstance(value, dict) else bool(np.all(got == want))
    payload = encode(first)
    assert payload.layout == encode(value).layout
    assert payload.num_rows == encode(value).num_rows


class Interval:
    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high


class StoredInterval(Object):
    kind = "interval"

    def value(self) -> Interval:
        return Interval(*msgspec.msgpack.decode(self._live.record.layout))


@pytest.fixture
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("_encoders", "_named", "_kinds"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("by_name", [False, True])
def test_others_register_their_types(store_value: Through, by_name: bool) -> None:
    def encoder(value: Interval) -> Payload:
        return Payload(1001, msgspec.msgpack.encode([value.low, value.high]), 0, [])

    register_encoder(f"{Interval.__module__}.Interval" if by_name else Interval, encoder)
    register_kind(1001, StoredInterval)
    obj = store_value(Interval(3, 4), pickle=False)
    assert isinstance(obj, StoredInterval)
    assert (obj.value().low, obj.value().high) == (3, 4)
    assert kind_name(1001) == "interval"
    assert kind_name(1) == "table"
    assert kind_name(1002) == "kind-1002"


@pytest.mark.usefixtures("clean_registry")
def test_a_registered_encoder_can_be_replaced_by_name(store_value: Through) -> None:
    frame = pd.DataFrame({"a": [1]})
    encode(frame)
    register_encoder("pandas.DataFrame", lambda value: encode(b"replaced"))
    register_encoder("pandas.core.frame.DataFrame", lambda value: encode(b"replaced"))
    assert bytes(store_value(frame)) == b"replaced"


@pytest.mark.usefixtures("clean_registry")
def test_kind_codes_are_guarded() -> None:
    with pytest.raises(InvalidArgument, match="1000"):
        register_kind(4, StoredInterval)
    register_kind(1001, StoredInterval)
    register_kind(1001, StoredInterval)
    with pytest.raises(InvalidArgument, match="1001"):
        register_kind(1001, PyObject)


def test_an_unknown_kind_says_so() -> None:
    with pytest.raises(MissingExtra, match="4711"):
        open_payload(Payload(4711, b"", 0, []))


class Frame(pd.DataFrame):
    @property
    def _constructor(self) -> type[Frame]:
        return Frame


def test_a_subclass_keeps_its_type(store_value: Through) -> None:
    got = store_value(Frame({"a": [1]})).value()
    assert type(got) is Frame


@pytest.fixture(scope="module")
def imported() -> set[str]:
    code = (
        "import sys, flightstore.objects.registry as r\n"
        "r.encode(b'x'); r.encode({'a': 1})\n"
        "print(*sorted(m for m in sys.modules if '.' not in m))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_nothing_is_imported_for_values_that_do_not_need_it(imported: set[str]) -> None:
    assert not imported & {"pandas", "polars", "numpy", "pyarrow"}
