"""Arrays that are more than their elements, taken apart and put together again: record arrays, matrices,
masked arrays, Arrow tensors. Calls nothing else of flightstore but errors.

Their pickles copy the elements into the pickle and out of it again; here they are shared like plain ones.
Only these very types: a subclass may know more than is kept here, and goes to pickle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from flightstore.errors import NotStorable

__all__ = [
    "CONTAINER_ARRAY",
    "CONTAINER_ARROW",
    "CONTAINER_MASKED",
    "CONTAINER_MATRIX",
    "CONTAINER_RECORDS",
    "Parts",
    "check_details",
    "put_together",
    "taken_apart",
]

# Stored: never renumber.
CONTAINER_ARRAY, CONTAINER_ARROW, CONTAINER_RECORDS, CONTAINER_MATRIX, CONTAINER_MASKED = range(5)

DETAIL_BYTES = 400
"""What a container needs beside its arrays may be so long at most, as msgpack."""


class Parts(NamedTuple):
    """A value taken apart."""

    container: int
    """CONTAINER_*."""
    array: np.ndarray[Any, Any]
    """The elements, as a plain array."""
    details: bytes = b""
    """What else it needs, as msgpack: names of an Arrow tensor's dimensions; a `_Mask`."""
    mask: np.ndarray[Any, Any] | None = None
    """The mask of a masked array that has one."""


class _Mask(msgspec.Struct, array_like=True, frozen=True):
    """A stored format: append with a default."""

    is_hard: bool
    """Whether masked elements stay masked when they are assigned to."""
    fill_value: bytes | None
    """What stands for masked elements, as the bytes of one; None if it is the dtype's default."""
    at: int | None = None
    """Where in the extent the mask lies, C ordered, a byte (a record of bytes) an element; None: no mask."""


_encode = msgspec.msgpack.Encoder().encode
_decode_names = msgspec.msgpack.Decoder(tuple[str, ...]).decode
_decode_mask = msgspec.msgpack.Decoder(_Mask).decode


def taken_apart(value: Any, mask_at: Callable[[np.ndarray[Any, Any]], int]) -> Parts:
    """The parts of an array of any kind.

    Args:
        value: An Arrow tensor, or an array of one of NumPy's own classes.
        mask_at: Called with the elements: where a mask will lie.

    Raises:
        NotStorable: it holds something that is not kept here.
    """
    if isinstance(value, pa.Tensor):
        names = [name or "" for name in value.dim_names]
        return Parts(CONTAINER_ARROW, value.to_numpy(), _details(names) if any(names) else b"")
    if isinstance(value, np.ma.MaskedArray):
        return _masked(value, mask_at)
    plain = value.view(np.ndarray)
    if isinstance(value, np.recarray):
        return Parts(CONTAINER_RECORDS, _without_record(plain))
    return Parts(CONTAINER_MATRIX if isinstance(value, np.matrix) else CONTAINER_ARRAY, plain)


def _without_record(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A record array's elements as plain structured ones; its view as a record array makes them records."""
    dtype = array.dtype
    if dtype.names is None:
        return array
    if dtype.type is not np.record:
        raise NotStorable("this record array yields tuples, not records", hint="view it as a plain array")
    return array.view(np.dtype((np.void, dtype)))


def _masked(value: np.ma.MaskedArray[Any, Any], mask_at: Callable[[np.ndarray[Any, Any]], int]) -> Parts:
    state = vars(value)
    if state["_baseclass"] is not np.ndarray or state["_optinfo"] or state.get("_basedict"):
        raise NotStorable("this masked array carries more than elements and mask", hint="allow pickle")
    fill = state["_fill_value"]
    mask = None if value.mask is np.ma.nomask else np.ascontiguousarray(value.mask).reshape(value.shape)
    elements = np.asarray(value.data)
    if fill is not None and fill.dtype != elements.dtype:
        raise NotStorable(f"this masked array's fill value is of another dtype, {fill.dtype}")
    details = _Mask(
        bool(value.hardmask),
        None if fill is None else fill.tobytes(),
        None if mask is None else mask_at(elements),
    )
    return Parts(CONTAINER_MASKED, elements, _details(details), mask)


def _details(value: Any) -> bytes:
    details: bytes = _encode(value)
    if len(details) > DETAIL_BYTES:
        raise NotStorable("the names of its dimensions, or its fill value, are too long", hint="allow pickle")
    return details


def put_together(container: int, details: bytes, array: np.ndarray[Any, Any], payload: pa.Buffer) -> Any:
    """The value again, over the same memory.

    Args:
        container: As stored.
        details: As stored.
        array: The elements.
        payload: The extent, in which a mask may lie.
    """
    if container == CONTAINER_ARROW:
        return arrow_tensor(array, _decode_names(details) if details else ())
    if container == CONTAINER_RECORDS:
        return array.view(np.recarray)
    if container == CONTAINER_MATRIX:
        return array.view(np.matrix)
    return _unmasked(array, _decode_mask(details), payload) if container == CONTAINER_MASKED else array


def check_details(container: int, details: bytes, array: np.ndarray[Any, Any], size_bytes: int) -> None:
    """See whether a mask lies within the extent, and the details are as they are written here.

    Raises:
        ValueError, msgspec.MsgspecError: it is not so.
    """
    if container == CONTAINER_MASKED:
        stored = _decode_mask(details)
        mask_bytes = np.ma.make_mask_descr(array.dtype).itemsize * array.size
        if stored.at is not None and not 0 <= stored.at <= size_bytes - mask_bytes:
            raise ValueError("the mask lies outside")
        if stored.fill_value is not None and len(stored.fill_value) != array.dtype.itemsize:
            raise ValueError("a fill value of another length")
    elif container == CONTAINER_ARROW:
        if details and len(_decode_names(details)) != array.ndim:
            raise ValueError("not one name for each dimension")
    elif details:
        raise ValueError("details of a container that has none")
    elif container == CONTAINER_MATRIX and array.ndim != 2:
        raise ValueError("a matrix has two dimensions")


def _unmasked(array: np.ndarray[Any, Any], stored: _Mask, payload: pa.Buffer) -> Any:
    mask: Any = np.ma.nomask
    if stored.at is not None:
        kind = np.ma.make_mask_descr(array.dtype)
        mask = np.ndarray(array.shape, kind, buffer=payload, offset=stored.at)
    made: Any = np.ma.MaskedArray(array, mask=mask, shrink=False, hard_mask=stored.is_hard)
    if stored.fill_value is not None:
        made.fill_value = np.ndarray((), array.dtype, buffer=stored.fill_value or b"\0")
    return made


def arrow_tensor(array: np.ndarray[Any, Any], names: tuple[str, ...] = ()) -> pa.Tensor:
    """An Arrow tensor over an array's memory.

    Raises:
        pyarrow.ArrowException: Arrow has no such type.
    """
    if not array.dtype.isnative or array.dtype == np.bool_:  # Arrow would take them for something else
        raise pa.ArrowTypeError(f"Arrow has no tensors of dtype {array.dtype}")
    return pa.Tensor.from_numpy(array, dim_names=list(names) or None)
