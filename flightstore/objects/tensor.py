"""Tensors: NumPy arrays of any dtype but object, and Arrow tensors. May call objects.base and arrays.

The extent holds the elements, C or Fortran ordered; a mask or a long description of the dtype follows them.
What NumPy cannot describe in plain text (object dtypes, dtypes of other libraries) is refused here and left
to pickle.
"""

from __future__ import annotations

import warnings
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.lib.format import descr_to_dtype, dtype_to_descr

from flightstore.errors import FlightStoreError, NotConvertible, NotStorable
from flightstore.objects.arrays import CONTAINER_ARRAY, Parts, arrow_tensor, put_together, taken_apart
from flightstore.objects.base import KIND_TENSOR, Object, Payload, aligned

__all__ = ["Tensor", "decode_layout", "encode_container", "encode_tensor", "restored_dtype"]

FORMAT_VERSION = 1
DESCRIPTION_BYTES = 300
"""A longer description of the dtype lies in the extent, after the elements."""
ROW_BYTES = 32 << 10
"""Arrays with gaps go piece by piece where what lies together is at least so long; else by a private copy."""
WRITABLE = 1
"""Flag of a request for a buffer: memory to write to (PyBUF_WRITABLE)."""
MAX_ROWS = 16 << 10
"""More pieces than this are not made of an array."""


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
    container: int = CONTAINER_ARRAY
    """CONTAINER_* of `arrays`: what was put."""
    details: bytes = b""
    """What the container needs besides, msgpack."""


_encode = msgspec.msgpack.Encoder().encode
decode_layout = msgspec.msgpack.Decoder(TensorLayout).decode
_described: dict[Any, bytes] = {}
"""Descriptions by dtype; of structures by what else tells them apart, too."""
_dtypes: dict[bytes, np.dtype[Any]] = {}
CACHED_DTYPES = 256


def encode_tensor(value: np.ndarray[Any, Any]) -> Payload:
    """Payload of an array; refers to its memory, unless gaps make it cheaper to copy it first.

    Raises:
        NotStorable: the dtype holds Python objects or has no portable description.
    """
    return _encode_parts(value, Parts(CONTAINER_ARRAY, value))


def encode_container(value: Any) -> Payload:
    """Payload of a record array, a matrix, a masked array or an Arrow tensor; refers to its memory.

    Raises:
        NotStorable: as :func:`encode_tensor`, or it holds something that would not come back.
    """
    return _encode_parts(value, taken_apart(value, lambda elements: aligned(elements.nbytes)))


def _encode_parts(value: Any, parts: Parts) -> Payload:
    array = parts.array
    described = _describe(array.dtype)
    pieces, order = _elements(array)
    end = array.nbytes
    if parts.mask is not None:
        if parts.mask.nbytes:
            pieces.append((aligned(end), _memory(parts.mask)))
        end = aligned(end) + parts.mask.nbytes
    dtype_at = None
    if len(described) > DESCRIPTION_BYTES:
        dtype_at = (aligned(end), len(described))
        pieces.append((dtype_at[0], described))
        described, end = b"", sum(dtype_at)
    layout = TensorLayout(
        FORMAT_VERSION, described, array.shape, order, dtype_at, parts.container, parts.details
    )
    return Payload(KIND_TENSOR, _encode(layout), end, pieces, keepalive=(value, parts))


def _memory(array: np.ndarray[Any, Any]) -> pa.Buffer:
    """The memory of a contiguous array; not every dtype exports the buffer protocol, hence by address."""
    return pa.foreign_buffer(array.ctypes.data, array.nbytes, base=array)


def _elements(array: np.ndarray[Any, Any]) -> tuple[list[tuple[int, Any]], str]:
    """The elements as pieces of an extent, and their order."""
    flags = array.flags
    if flags.c_contiguous or flags.f_contiguous:
        return [(0, _memory(array))] if array.nbytes else [], "C" if flags.c_contiguous else "F"
    row_bytes, outer = _rows(array)
    count = array.nbytes // row_bytes if row_bytes else 0
    if row_bytes < ROW_BYTES or count > MAX_ROWS:
        return _elements(array.copy(order="C"))
    starts = sum(np.ix_(*[np.arange(length) * stride for length, stride in outer]), start=np.int64(0))
    first = array.ctypes.data
    return [
        (row_bytes * index, pa.foreign_buffer(first + int(start), row_bytes, base=array))
        for index, start in enumerate(np.ravel(starts))
    ], "C"


def _rows(array: np.ndarray[Any, Any]) -> tuple[int, list[tuple[int, int]]]:
    """Bytes that lie together in C order, and (length, stride) of the dimensions around them."""
    row_bytes, outer = array.itemsize, list(zip(array.shape, array.strides, strict=True))
    while outer and (outer[-1][1] == row_bytes or outer[-1][0] == 1):
        row_bytes *= outer.pop()[0]
    return row_bytes, outer


def _describe(dtype: np.dtype[Any]) -> bytes:
    """The dtype's description; refuses a dtype that would not come back equal."""
    key = dtype if dtype.kind != "V" else (dtype, dtype.type, tuple(_alignments(dtype)))
    known = _described.get(key)
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
            described = _encode(_description(dtype))
            restored = restored_dtype(described)
            # Records and plain structures are equal, and so are structures that are aligned and that are not.
            same = restored == dtype and (
                dtype.kind != "V"
                or (restored.type is dtype.type and _alignments(restored) == _alignments(dtype))
            )
        except (ValueError, TypeError) as error:
            raise NotStorable(f"dtype {dtype} has no portable description: {error}") from error
    if not same:
        raise NotStorable(f"dtype {dtype} has no portable description", hint="view it as a plain dtype")
    if len(_described) >= CACHED_DTYPES:
        _described.clear()
    _described[key] = described
    return described


def _alignments(dtype: np.dtype[Any]) -> list[bool]:
    """Whether a structure is aligned, and those within it, depth first."""
    found = [dtype.isalignedstruct]
    if dtype.subdtype is not None:
        found += _alignments(dtype.subdtype[0])
    for name in dtype.names or ():
        found += _alignments(dtype[name])
    return found


def _description(dtype: np.dtype[Any]) -> Any:
    """What ``.npy`` files say of a dtype; for a structure that is aligned, or holds one, its fields: those
    files do not say so.
    """
    if dtype.subdtype is not None:
        return {"array": _description(dtype.subdtype[0]), "shape": dtype.shape}
    if not any(_alignments(dtype)):
        return dtype_to_descr(dtype)
    fields = [(name, _description(dtype[name]), _offset(dtype, name)) for name in dtype.names or ()]
    return {"aligned": dtype.isalignedstruct, "fields": fields, "itemsize": dtype.itemsize}


def _offset(dtype: np.dtype[Any], name: str) -> int:
    fields: Any = dtype.fields
    offset: int = fields[name][1]
    return offset


def _described_dtype(described: Any) -> np.dtype[Any]:
    if not isinstance(described, dict):
        return descr_to_dtype(_tuples(described))
    if "array" in described:
        return np.dtype((_described_dtype(described["array"]), tuple(described["shape"])))
    fields = described["fields"]
    return np.dtype(
        {
            "names": [name for name, _, _ in fields],
            "formats": [_described_dtype(inner) for _, inner, _ in fields],
            "offsets": [offset for _, _, offset in fields],
            "itemsize": described["itemsize"],
        },
        align=described["aligned"],
    )


def restored_dtype(described: bytes) -> np.dtype[Any]:
    """The dtype that was described so, cached."""
    known = _dtypes.get(described)
    if known is None:
        known = _described_dtype(msgspec.msgpack.decode(described))
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


class _NotExportable(FlightStoreError, BufferError):
    """A protocol between libraries cannot hand this tensor over. BufferError is what they expect; at a
    TypeError, consumers of DLPack try again the way of its earlier versions.
    """


class Tensor(Object):
    """A NumPy array, or an Arrow tensor, in the store."""

    __slots__ = ()
    kind = "tensor"

    @property
    def _layout(self) -> TensorLayout:
        return decode_layout(self._live.record.layout)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The elements' type."""
        layout = self._layout
        described = layout.dtype
        if layout.dtype_at is not None:
            at, length = layout.dtype_at
            described = self._live.payload.slice(at, length).to_pybytes()
        return restored_dtype(described)

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
        """The elements, read-only, in the store's memory; valid as long as the array lives."""
        return self._elements(self._layout)

    def _elements(self, layout: TensorLayout) -> np.ndarray[Any, Any]:
        return np.ndarray(
            layout.shape,
            dtype=self.dtype,
            buffer=self._live.payload,
            order="C" if layout.order == "C" else "F",
        )

    def _value(self) -> Any:
        """The array as it was put: plain, of records, a matrix, masked, or an Arrow tensor; all read-only."""
        layout = self._layout
        array = self._elements(layout)
        if layout.container == CONTAINER_ARRAY:
            return array
        return put_together(layout.container, layout.details, array, self._live.payload)

    def to_arrow(self) -> pa.Tensor:
        """The elements as an Arrow tensor, in the store's memory; valid as long as the tensor lives.

        Raises:
            NotConvertible: Arrow has no tensors of this dtype.
        """
        value = self._value()
        if isinstance(value, pa.Tensor):
            return value
        try:
            return arrow_tensor(self.to_numpy())
        except pa.ArrowException as error:
            raise NotConvertible(
                f"Arrow has no tensors of dtype {self.dtype}", hint="obj.to_numpy() holds every dtype"
            ) from error

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """DLPack's protocol: the elements in the store's memory, marked read-only, or a copy that may be
        written to where `copy` is True.

        Consumers of DLPack 1.0 and later (``np.from_dlpack``) share the memory; earlier ones cannot be told
        that it is read-only, so they must ask for a copy.

        Raises:
            BufferError: the consumer does not take read-only memory, or DLPack has no such dtype or device.
        """
        asked = {"stream": stream, "max_version": max_version, "dl_device": dl_device}
        array = self.to_numpy()
        if copy:
            array = array.copy(order="K")
        elif max_version is None or max_version[0] < 1:
            raise _NotExportable(
                "a stored tensor is read-only, which this consumer of DLPack cannot be told",
                hint="hand it a copy: obj.to_numpy().copy()",
            )
        try:
            return array.__dlpack__(**{name: value for name, value in asked.items() if value is not None})
        except (BufferError, TypeError) as error:  # TypeError: NumPy before 2.1 has fewer arguments
            raise _NotExportable(
                f"a tensor of dtype {self.dtype} does not go through DLPack: {error}",
                hint="np.asarray(obj) shares it",
            ) from error

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's protocol: the CPU's memory."""
        return (1, 0)

    def __buffer__(self, flags: int, /) -> memoryview:
        """Python's buffer protocol, from Python 3.12 on: the elements in the store's memory, read-only. On
        earlier versions: ``memoryview(obj.to_numpy())``.

        Raises:
            BufferError: memory to write to is asked for, or the protocol has no such dtype.
        """
        array: Any = self.to_numpy()
        if flags & WRITABLE:
            raise _NotExportable("a stored tensor is read-only", hint="write to obj.to_numpy().copy()")
        try:
            view = memoryview(array)
            if np.asarray(view).dtype == array.dtype:
                return view
        except (ValueError, TypeError):
            pass
        raise _NotExportable(
            f"the buffer protocol has no elements of dtype {array.dtype}",
            hint="memoryview(obj.to_numpy().view('u1')) gives the bytes",
        )

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
