"""Any picklable object: its pickle (protocol 5), and its buffers beside it, out of band. May call
objects.base.

The extent: the pickle, then (where there are buffers) an index of uint64 pairs (offset, length), then the
buffers, each at a multiple of 64 bytes. Unpickling hands the buffers over as they lie in the store,
read-only, not copied. Unpickling runs code of the pickle: who may write to the store may run code in whoever
reads objects of this kind.
"""

from __future__ import annotations

import collections.abc
import io
import pickle
import types
from struct import Struct
from typing import Any

import msgspec

from flightstore.errors import NotStorable
from flightstore.objects.base import KIND_PYOBJECT, Object, Payload, aligned

__all__ = ["PyObject", "decode_layout", "encode_pickle"]

FORMAT_VERSION = 1
PROTOCOL = 5


class PyObjectLayout(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A stored format: never reorder or remove a field, append with a default."""

    version: int
    """FORMAT_VERSION of the writer."""
    pickle_bytes: int
    """Length of the pickle, which begins the extent."""
    num_buffers: int = 0
    """Buffers out of band."""
    index_at: int = 0
    """Where the index of the buffers lies in the extent."""


_encode_layout = msgspec.msgpack.Encoder().encode
decode_layout = msgspec.msgpack.Decoder(PyObjectLayout).decode


def encode_pickle(value: Any) -> Payload:
    """Payload of a picklable object; refers to the memory of its buffers.

    Raises:
        NotStorable: pickle refuses it; says why.
    """
    buffers: list[memoryview] = []

    def out_of_band(buffer: pickle.PickleBuffer) -> bool:
        try:
            buffers.append(buffer.raw())
        except BufferError:  # not contiguous: pickle copies it into the stream
            return True
        return False

    try:
        data = pickle.dumps(value, protocol=PROTOCOL, buffer_callback=out_of_band)
    except MemoryError:
        raise
    except Exception as error:
        raise NotStorable(
            f"a value of type {_type_name(value)} cannot be stored: {type(error).__name__}: {error}",
            hint=_hint(value),
        ) from error
    if not buffers:
        layout = PyObjectLayout(FORMAT_VERSION, len(data))
        return Payload(KIND_PYOBJECT, _encode_layout(layout), len(data), ((0, data),))
    return _with_buffers(value, data, buffers)


def _with_buffers(value: Any, data: bytes, buffers: list[memoryview]) -> Payload:
    index_at = aligned(len(data))
    at = aligned(index_at + 16 * len(buffers))
    index: list[int] = []
    pieces: list[tuple[int, Any]] = []
    end = index_at + 16 * len(buffers)
    for buffer in buffers:
        index += (at, buffer.nbytes)
        if buffer.nbytes:
            pieces.append((at, buffer))
            end = at + buffer.nbytes
            at = aligned(end)
    packed = Struct(f"<{len(index)}Q").pack(*index)
    layout = PyObjectLayout(FORMAT_VERSION, len(data), len(buffers), index_at)
    return Payload(
        KIND_PYOBJECT,
        _encode_layout(layout),
        end,
        [(0, data), (index_at, packed), *pieces],
        keepalive=value,
    )


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _hint(value: Any) -> str:
    """What to do about a value that pickle refuses."""
    if isinstance(value, io.IOBase):
        return "store the file's content, or its path"
    if isinstance(value, collections.abc.Iterator | collections.abc.AsyncIterator):
        return "store what it yields, for example list(value)"
    if isinstance(value, types.FunctionType | type):
        return "define it at the top level of a module, or store cloudpickle.dumps(value)"
    return "store the data in it instead, or what cloudpickle.dumps(value) makes of it"


class PyObject(Object):
    """A pickled Python object in the store."""

    __slots__ = ()
    kind = "object"

    def _value(self) -> Any:
        """The object, unpickled anew at each call. Its buffers (of arrays, say) are read-only store memory.

        Unpickling runs code that the object's creator chose.
        """
        handle = self._live
        layout = decode_layout(handle.record.layout)
        payload = memoryview(handle.payload).cast("B")
        data = payload[: layout.pickle_bytes]
        if not layout.num_buffers:
            return pickle.loads(data)
        index = Struct(f"<{2 * layout.num_buffers}Q").unpack_from(payload, layout.index_at)
        spans = zip(index[::2], index[1::2], strict=True)
        return pickle.loads(data, buffers=[payload[at : at + length] for at, length in spans])
