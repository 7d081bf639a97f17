"""Columns of dtypes that another library defines: through Arrow, through their values, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pandas.api.extensions import ExtensionArray, ExtensionDtype, register_extension_dtype

import flightstore as fs
from flightstore.connectors.pandas import build
from flightstore.testing.types.pandas import assert_same_frame

pytestmark = pytest.mark.req("TYP-2")


class Length:
    """A scalar of a library's own."""

    def __init__(self, metres: float) -> None:
        self.metres = metres

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Length) and other.metres == self.metres

    def __hash__(self) -> int:
        return hash(self.metres)

    def __repr__(self) -> str:
        return f"Length({self.metres})"


class LengthDtype(ExtensionDtype):
    """Lengths, which know nothing of Arrow."""

    name = "length"
    type = Length
    na_value = None

    @classmethod
    def construct_array_type(cls) -> Any:
        return Lengths


@register_extension_dtype
class ArrowLengthDtype(LengthDtype):
    """Lengths that Arrow holds as numbers."""

    name = "arrow-length"

    @classmethod
    def construct_array_type(cls) -> Any:
        return ArrowLengths

    def __from_arrow__(self, array: pa.ChunkedArray) -> Any:
        return ArrowLengths(np.array(array.to_pylist(), float))


class Lengths(ExtensionArray):
    """An array over a NumPy array of metres."""

    made_of: Any = LengthDtype

    def __init__(self, metres: np.ndarray[Any, Any]) -> None:
        self.metres = metres

    @classmethod
    def _from_sequence(cls, scalars: Sequence[Any], *, dtype: Any = None, copy: bool = False) -> Any:
        return cls(np.array([np.nan if value is None else value.metres for value in scalars], float))

    @property
    def dtype(self) -> Any:
        return self.made_of()

    @property
    def nbytes(self) -> int:
        return int(self.metres.nbytes)

    def __len__(self) -> int:
        return len(self.metres)

    def __getitem__(self, item: Any) -> Any:
        found = self.metres[item]
        if isinstance(found, np.ndarray):
            return type(self)(found)
        return None if np.isnan(found) else Length(float(found))

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self)))

    def __eq__(self, other: object) -> Any:
        return self.metres == other.metres if isinstance(other, Lengths) else NotImplemented

    def isna(self) -> Any:
        return np.isnan(self.metres)

    def take(self, indices: Any, *, allow_fill: bool = False, fill_value: Any = None) -> Any:
        return type(self)(self.metres[np.asarray(indices)])

    def copy(self) -> Any:
        return type(self)(self.metres.copy())

    @classmethod
    def _concat_same_type(cls, arrays: Any) -> Any:
        return cls(np.concatenate([array.metres for array in arrays]))


class ArrowLengths(Lengths):
    """The same, known to Arrow."""

    made_of = ArrowLengthDtype

    def __arrow_array__(self, type: Any = None) -> pa.Array:
        return pa.array(self.metres, from_pandas=True)


class ForgetfulLengths(Lengths):
    """The same, made wrongly from its own values."""

    @classmethod
    def _from_sequence(cls, scalars: Sequence[Any], *, dtype: Any = None, copy: bool = False) -> Any:
        return cls(np.zeros(len(scalars)))


def frame(kind: type[Lengths]) -> pd.DataFrame:
    return pd.DataFrame({"x": [1, 2, 3], "l": pd.Series(kind(np.array([1.5, np.nan, 3.0])))})


def check(store: fs.Store, kind: type[Lengths], pickle: bool) -> fs.Object:
    obj = store.get(store.put(frame(kind), pickle=pickle))
    got = obj.value()
    assert_same_frame(frame(kind), got)
    assert type(got["l"].array) is kind
    return obj


def test_through_arrow(store: fs.Store) -> None:
    obj = check(store, ArrowLengths, pickle=False)
    assert obj.to_arrow()["l"].to_pylist() == [1.5, None, 3.0]  # type: ignore[attr-defined]


def test_through_its_values(store: fs.Store) -> None:
    assert check(store, Lengths, pickle=True).kind == "table"
    with pytest.raises(fs.NotStorable, match=r"column 'l'.*pickle"):
        store.put(frame(Lengths), pickle=False)


def test_what_comes_back_neither_way_is_pickled_as_a_whole(store: fs.Store) -> None:
    with pytest.raises(fs.NotStorable, match=r"column 'l'.*dtype length"):
        build(frame(ForgetfulLengths), pickle=True)
    obj = store.get(store.put(frame(ForgetfulLengths)))
    assert obj.kind == "object"
    assert obj.to("pandas")["l"].tolist() == frame(ForgetfulLengths)["l"].tolist()


def test_a_dtype_that_is_not_known_here_is_named(store: fs.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from pandas.core.dtypes.base import _registry

    store.put(frame(ArrowLengths), "lengths")
    kept = [dtype for dtype in _registry.dtypes if dtype is not ArrowLengthDtype]
    monkeypatch.setattr(_registry, "dtypes", kept)
    with pytest.raises(fs.NotConvertible, match="arrow-length"):
        store.get("lengths").value()
    assert store.get("lengths").to_arrow()["l"].to_pylist() == [1.5, None, 3.0]
