"""128-bit integers of polars, which Arrow has no type for, to and from Arrow without a copy.

polars offers them through Arrow's C data interface under formats of its own, which pyarrow does not read. So
the schema is changed on its way, at any depth: for Arrow they are binary values of 16 bytes with a marker in
the field's metadata. Schemas are changed in place and only read by their consumer; their release callbacks
free what they allocated themselves, never what a changed pointer points to.

`_Schema`, `_Array` and `_Stream` are the structures of that interface, which is stable by its specification.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from struct import Struct
from typing import Any

import pyarrow as pa
from pyarrow import types

from flightstore.connectors.polars.markers import INT128, KEY, UINT128, marker

__all__ = ["export_wide", "has_wide", "import_wide"]

FORMATS = {b"_pli128": INT128, b"_plu128": UINT128}
BINARY_FORMAT = b"w:16"
_int32 = Struct("=i")


class _Schema(ctypes.Structure):
    pass


_Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_void_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(_Schema))),
    ("dictionary", ctypes.POINTER(_Schema)),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]


class _Array(ctypes.Structure):
    _fields_ = (
        ("counts", ctypes.c_int64 * 5),
        ("pointers", ctypes.c_void_p * 3),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


class _Stream(ctypes.Structure):
    _fields_ = (
        ("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)),
        ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)),
        ("get_last_error", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


_address_in = ctypes.pythonapi.PyCapsule_GetPointer
_address_in.restype = ctypes.c_void_p
_address_in.argtypes = [ctypes.py_object, ctypes.c_char_p]
_capsule_of = ctypes.pythonapi.PyCapsule_New
_capsule_of.restype = ctypes.py_object
_capsule_of.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class _Carrier:
    """Hands capsules on; consumers move their content out. Keeps alive what the capsules point to."""

    def __init__(self, schema: object, array: object = None, kept: object = None) -> None:
        self._schema = schema
        self._array = array
        self._kept = kept

    def __arrow_c_schema__(self) -> object:
        return self._schema

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return self._schema, self._array


def has_wide(field: pa.Field) -> bool:
    """Whether a field of Arrow is, or holds at any depth, marked 128-bit integers."""
    if types.is_fixed_size_binary(field.type):
        return marker(field) in (INT128, UINT128)
    return any(has_wide(field.type.field(i)) for i in range(field.type.num_fields))


def export_wide(series: Any) -> tuple[pa.Field, pa.ChunkedArray]:
    """A polars series with 128-bit integers as Arrow; shares memory as polars does."""
    capsule = series.__arrow_c_stream__()
    stream = _Stream.from_address(_address_in(capsule, b"arrow_array_stream"))
    field = pa.field(_changed(stream))
    chunks = [pa.array(_changed(stream, array)) for array in _arrays_of(stream)]
    return field.with_name(series.name), pa.chunked_array(chunks, field.type)


def _arrays_of(stream: _Stream) -> Iterator[_Array]:
    while True:
        array = _Array()
        _check(stream.get_next(ctypes.addressof(stream), ctypes.addressof(array)))
        if not array.release:
            return
        yield array


def _changed(stream: _Stream, array: _Array | None = None) -> _Carrier:
    """The stream's schema as Arrow knows it, with an array of it."""
    schema = _Schema()
    _check(stream.get_schema(ctypes.addressof(stream), ctypes.addressof(schema)))
    kept: list[object] = [schema, array]
    _mark(schema, kept)
    of_array = None if array is None else _capsule_of(ctypes.addressof(array), b"arrow_array", None)
    return _Carrier(_capsule_of(ctypes.addressof(schema), b"arrow_schema", None), of_array, kept)


def _check(code: int) -> None:
    if code:
        raise MemoryError(f"polars could not export a column: error {code}")


def _mark(schema: _Schema, kept: list[object]) -> None:
    """Let 128-bit integers be binary values with a marker."""
    named = FORMATS.get(schema.format or b"")
    if named is not None:
        metadata = ctypes.create_string_buffer(_with_entry(schema.metadata, KEY, named))
        kept.append(metadata)
        schema.format = BINARY_FORMAT
        schema.metadata = ctypes.addressof(metadata)
    for i in range(schema.n_children):
        _mark(schema.children[i].contents, kept)


def _with_entry(metadata: int | None, key: bytes, value: bytes) -> bytes:
    """Metadata as the interface lays it out (a count, then lengths and texts), with one more entry."""
    count, end = 0, 4
    if metadata:
        (count,) = _int32.unpack(ctypes.string_at(metadata, 4))
        for _ in range(2 * count):
            end += 4 + _int32.unpack(ctypes.string_at(metadata + end, 4))[0]
    known = ctypes.string_at(metadata + 4, end - 4) if metadata else b""
    added = b"".join([_int32.pack(len(part)) + part for part in (key, value)])
    return _int32.pack(count + 1) + known + added


def import_wide(polars: Any, field: pa.Field, column: pa.ChunkedArray) -> Any:
    """The nameless polars series of a column that `has_wide`; shares memory as polars does."""
    series = []
    for chunk in column.chunks or [pa.nulls(0, field.type)]:
        schema = field.__arrow_c_schema__()
        _unmark(_Schema.from_address(_address_in(schema, b"arrow_schema")), field)
        series.append(polars.Series(_Carrier(schema, chunk.__arrow_c_array__()[1])))
    return series[0] if len(series) == 1 else polars.concat(series, rechunk=False)


def _unmark(schema: _Schema, field: pa.Field) -> None:
    """Let marked binary values be 128-bit integers."""
    kind = marker(field) if types.is_fixed_size_binary(field.type) else None
    for name, named in FORMATS.items():
        if kind == named:
            schema.format = name
    for i in range(schema.n_children):
        _unmark(schema.children[i].contents, field.type.field(i))
