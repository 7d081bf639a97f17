"""Tensors: NumPy arrays of any dtype but object. May call objects.base.

The extent holds the elements, C or Fortran ordered, nothing else (a long description of the dtype follows
them). What NumPy cannot describe in plain text (object dtypes, dtypes of other libraries) is refused here and
left to pickle.
"""

from __future__ import annotations

import warnings
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.lib.format import descr_to_dtype, dtype_to_descr

from flightstore.errors import NotStorable
from flightstore.objects.base import KIND_TENSOR, Object, Payload, aligned

__all__ = ["Tensor", "encode_tensor"]

FORMAT_VERSION = 1
DESCRIPTION_BYTES = 300
"""A longer description of the dtype lies in the extent, after the elements."""


class TensorLayout(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A stored format: never reorder or remove a field, append with a default."""

    version: int
    """FORMAT_VERSION of the writer."""
    dtype: bytes
    """msgpack of what ``numpy.lib.format.dtype_to_descr`` says; empty if it lies in the extent."""
    shape: tuple[int, ...]
    """Lengths of the dimensions."""
    order: str = "C"
    """``C``: last index fastest; ``F``: first."""
    dtype_at: tuple[int, int] | None = None
    """Where in the extent the dtype's description lies (offset, length)."""


_encode = msgspec.msgpack.Encoder().encode
_decode_layout = msgspec.msgpack.Decoder(TensorLayout).decode
_described: dict[np.dtype[Any], bytes] = {}
_dtypes: dict[bytes, np.dtype[Any]] = {}
CACHED_DTYPES = 256


def encode_tensor(value: np.ndarray[Any, Any]) -> Payload:
    """Payload of an array; refers to its memory, unless that has gaps and must be compacted first.

    Raises:
        NotStorable: the dtype holds Python objects or has no portable description.
    """
    described = _describe(value.dtype)
    flags = value.flags
    if not (flags.c_contiguous or flags.f_contiguous):
        value = value.copy(order="C")
    order = "C" if value.flags.c_contiguous else "F"
    nbytes = value.nbytes
    pieces: list[tuple[int, Any]] = []
    if nbytes:  # not every dtype exports the buffer protocol, hence by address
        pieces.append((0, pa.foreign_buffer(value.ctypes.data, nbytes, base=value)))
    if len(described) <= DESCRIPTION_BYTES:
        layout = TensorLayout(FORMAT_VERSION, described, value.shape, order)
        return Payload(KIND_TENSOR, _encode(layout), nbytes, pieces, keepalive=value)
    at = aligned(nbytes)
    pieces.append((at, described))
    layout = TensorLayout(FORMAT_VERSION, b"", value.shape, order, (at, len(described)))
    return Payload(KIND_TENSOR, _encode(layout), at + len(described), pieces, keepalive=value)


def _describe(dtype: np.dtype[Any]) -> bytes:
    """The dtype's description; refuses a dtype that would not come back equal."""
    known = _described.get(dtype)
    if known is not None:
        return known
    if dtype.hasobject:
        raise NotStorable(
            f"an array of dtype {dtype} holds Python objects",
            hint="convert it to a dtype of fixed size, or allow pickle",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a dtype's private metadata is not part of its equality
        try:
            described = _encode(dtype_to_descr(dtype))
            same = _restore(described) == dtype
        except (ValueError, TypeError) as error:
            raise NotStorable(f"dtype {dtype} has no portable description: {error}") from error
    if not same:
        raise NotStorable(f"dtype {dtype} has no portable description", hint="view it as a plain dtype")
    if len(_described) >= CACHED_DTYPES:
        _described.clear()
    _described[dtype] = described
    return described


def _restore(described: bytes) -> np.dtype[Any]:
    known = _dtypes.get(described)
    if known is None:
        known = descr_to_dtype(_tuples(msgspec.msgpack.decode(described)))
        if len(_dtypes) >= CACHED_DTYPES:
            _dtypes.clear()
        _dtypes[described] = known
    return known


def _tuples(descr: Any, *, inner: bool = False) -> Any:
    """msgpack has one kind of sequence; NumPy wants lists of fields, and tuples for fields, titles and
    shapes.
    """
    if isinstance(descr, str):
        return descr
    if inner:
        name, kind, *shape = descr
        name = tuple(name) if isinstance(name, list) else name
        return (name, _tuples(kind), *(tuple(lengths) for lengths in shape))
    return [_tuples(field, inner=True) for field in descr]


class Tensor(Object):
    """A NumPy array in the store."""

    __slots__ = ()
    kind = "tensor"

    @property
    def _layout(self) -> TensorLayout:
        return _decode_layout(self._live.record.layout)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The elements' type."""
        layout = self._layout
        described = layout.dtype
        if layout.dtype_at is not None:
            at, length = layout.dtype_at
            described = self._live.payload.slice(at, length).to_pybytes()
        return _restore(described)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the dimensions."""
        return self._layout.shape

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next, for each dimension."""
        return self.to_numpy().strides

    @property
    def order(self) -> str:
        """``C`` (last index fastest) or ``F`` (first index fastest)."""
        return self._layout.order

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """The array, read-only, in the store's memory; valid as long as it lives."""
        layout = self._layout
        return np.ndarray(
            layout.shape,
            dtype=self.dtype,
            buffer=self._live.payload,
            order="C" if layout.order == "C" else "F",
        )

    _value = to_numpy

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """NumPy's protocol: the shared array where that is allowed, a copy where it is asked for or needed.

        Raises:
            ValueError: `copy` is False and another dtype is wanted.
        """
        array = self.to_numpy()
        if dtype is not None and np.dtype(dtype) != array.dtype:
            if copy is False:
                raise ValueError(f"cannot make {np.dtype(dtype)} of {array.dtype} without a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __len__(self) -> int:
        shape = self._layout.shape
        if not shape:
            raise TypeError("a tensor of no dimensions has no length")
        return shape[0]
