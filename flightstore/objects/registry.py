"""Which encoder takes a value, and which class opens a stored object. May call the rest of this room.

Dispatch is by the value's exact type. Types of other libraries are known by qualified name: a value of such a
type can only exist once its library is imported, so nothing is ever imported here that the user has not
imported, and the modules that need NumPy or Arrow are loaded with the first value that needs them.

In this order: a registered type; a handle of a stored object (copied as it is); a type of a connector; a
foreign Arrow producer; pickle. A subclass of a registered type is not taken for its parent, since its type
would be lost: it goes to pickle. Where pickle is not allowed or refuses, whatever shares its elements by
DLPack is stored as a tensor, and whatever exposes its bytes as bytes.
"""

from __future__ import annotations

import array
import mmap
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

import msgspec

from flightstore.errors import InvalidArgument, MissingExtra, NotStorable
from flightstore.objects.base import (
    KIND_BLOB,
    KIND_COMPOSED,
    KIND_PYOBJECT,
    KIND_TABLE,
    KIND_TENSOR,
    Handle,
    Object,
    Payload,
)
from flightstore.objects.blob import encode_blob, encode_bytes, encode_exposed
from flightstore.objects.connector import Connector, connector_for
from flightstore.objects.pyobject import encode_pickle

__all__ = ["Encoder", "encode", "kind_name", "open_object", "register_encoder", "register_kind"]

Encoder: TypeAlias = Callable[[Any], Payload]
"""Turns a value into a payload, or raises NotStorable. Called outside any transaction."""

FIRST_FOREIGN_KIND = 1000
"""Kind codes below are flightstore's own."""

_encoders: dict[type, Encoder] = {
    bytes: encode_bytes,
    bytearray: encode_blob,
    memoryview: encode_blob,
    array.array: encode_blob,
    mmap.mmap: encode_blob,
}
"""Encoders by exact type; grows as names are resolved."""

_named: dict[str, str | Encoder] = {
    "pyarrow.lib.Buffer": "flightstore.objects.blob:encode_exposed",
    "pyarrow.lib.ResizableBuffer": "flightstore.objects.blob:encode_exposed",
    "pyarrow.lib.Table": "flightstore.objects.encoding:encode_table",
    "pyarrow.lib.RecordBatch": "flightstore.objects.encoding:encode_batch",
    "pyarrow.lib.ChunkedArray": "flightstore.objects.encoding:encode_chunked",
    "pyarrow.lib.RecordBatchReader": "flightstore.objects.encoding:encode_reader",
    "pyarrow.ipc.RecordBatchStreamReader": "flightstore.objects.encoding:encode_reader",
    "numpy.ndarray": "flightstore.objects.tensor:encode_tensor",
    "numpy.memmap": "flightstore.objects.tensor:encode_tensor",
    "numpy.matrix": "flightstore.objects.tensor:encode_container",
    "numpy.ma.MaskedArray": "flightstore.objects.tensor:encode_container",
    "numpy.ma.core.MaskedArray": "flightstore.objects.tensor:encode_container",
    "numpy.rec.recarray": "flightstore.objects.tensor:encode_container",
    "numpy.recarray": "flightstore.objects.tensor:encode_container",
    "pyarrow.lib.Tensor": "flightstore.objects.tensor:encode_container",
}
"""Encoders, or where they are, by qualified name of the type."""

_KNOWN_LIBRARIES = ("numpy", "pandas", "polars", "pyarrow")
"""Their other types (series, arrays, ...) have more exact pickles than Arrow streams."""

_kinds: dict[int, type[Object] | str] = {
    KIND_TABLE: "flightstore.objects.table:Table",
    KIND_TENSOR: "flightstore.objects.tensor:Tensor",
    KIND_BLOB: "flightstore.objects.blob:Blob",
    KIND_PYOBJECT: "flightstore.objects.pyobject:PyObject",
    KIND_COMPOSED: "flightstore.objects.table:Table",
}
_KIND_NAMES = {
    KIND_TABLE: "table",
    KIND_TENSOR: "tensor",
    KIND_BLOB: "blob",
    KIND_PYOBJECT: "object",
    KIND_COMPOSED: "table",
}


def encode(value: Any, *, pickle: bool = True) -> Payload:
    """The payload of any value.

    Args:
        value: What is to be stored.
        pickle: False refuses what only pickle could take.

    Raises:
        NotStorable: it cannot be stored; says why.
    """
    encoder = _encoders.get(type(value)) or _resolve(value)
    if encoder is None:
        connector = connector_for(type(value))
        return _encode_built(connector, value, pickle) if connector else _encode_other(value, pickle)
    try:
        return encoder(value)
    except NotStorable:
        fallback = _pickled(value) if pickle else None
        if fallback is None:
            raise
        return fallback


def _encode_built(connector: Connector, value: Any, pickle: bool) -> Payload:
    """What a connector builds of the value, marked as its making."""
    try:
        payload = _encode_natively(connector.build(value, pickle=pickle))
    except NotStorable as refusal:
        fallback = _pickled(value) if pickle and refusal.pickle_helps else None
        if fallback is None:
            raise
        return fallback
    return msgspec.structs.replace(payload, origin=connector.name)


def _encode_natively(built: Any) -> Payload:
    """What a connector built. Dictionaries keep all entries: a library's categories are more than values."""
    import pyarrow as pa

    if isinstance(built, pa.Table):
        from flightstore.objects.encoding import encode_table

        return encode_table(built, dictionaries=False)
    return encode(built, pickle=False)


def _pickled(value: Any) -> Payload | None:
    """The value pickled, None where pickle refuses: then the first refusal is the one to report."""
    try:
        return encode_pickle(value)
    except NotStorable:
        return None


def _resolve(value: Any) -> Encoder | None:
    """The encoder registered for the value's type by name."""
    kind = type(value)
    found = _named.get(_qualified_name(kind)) or _arrow_container(value)
    if found is None:
        return copy_of_stored if isinstance(value, Object) else None
    encoder: Encoder = _load(found) if isinstance(found, str) else found
    _encoders[kind] = encoder
    return encoder


def _arrow_container(value: Any) -> str | None:
    """Where the encoder of Arrow's arrays and scalars is: they have a class for each of their types."""
    lib = sys.modules.get("pyarrow.lib")
    if lib is None:
        return None
    if isinstance(value, lib.Array):
        return "flightstore.objects.encoding:encode_array"
    return "flightstore.objects.encoding:encode_scalar" if isinstance(value, lib.Scalar) else None


def _encode_other(value: Any, pickle: bool) -> Payload:
    """A value of a type that nobody registered."""
    refusal = None
    if _is_foreign_arrow_producer(type(value)):
        from flightstore.objects.encoding import encode_arrow_producer

        try:
            return encode_arrow_producer(value)
        except NotStorable as error:
            refusal = error
    if pickle:
        try:
            return encode_pickle(value)
        except NotStorable as error:
            refusal = refusal or error
    payload = _encode_shared_elements(value) or _encode_exposed_bytes(value)
    if payload is not None:
        return payload
    if refusal is not None:
        raise refusal
    raise NotStorable(
        f"only pickle could store a value of type {_qualified_name(type(value))}, which is forbidden",
        hint="convert it to bytes, a NumPy array or a data frame, or allow pickle",
    )


def _is_foreign_arrow_producer(kind: type) -> bool:
    if not (hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__")):
        return False
    return not any(base.__module__.partition(".")[0] in _KNOWN_LIBRARIES for base in kind.__mro__)


def _is_of_numpy(kind: type) -> bool:
    return any(base.__module__ == "numpy" for base in kind.__mro__)


def _encode_shared_elements(value: Any) -> Payload | None:
    """The value as a tensor, where its type shares its elements by DLPack, in this machine's memory."""
    if not hasattr(type(value), "__dlpack__") or _is_of_numpy(type(value)):
        return None
    import numpy as np

    from flightstore.objects.tensor import encode_tensor

    try:
        return encode_tensor(np.from_dlpack(value))
    except (TypeError, ValueError, BufferError, RuntimeError, NotStorable):
        return None


def _encode_exposed_bytes(value: Any) -> Payload | None:
    """The value as bytes, where its type is made of nothing else; arrays with a structure of their own are
    not.
    """
    if _is_of_numpy(type(value)):
        return None
    try:
        return encode_exposed(value)
    except (TypeError, BufferError, NotStorable):
        return None


def copy_of_stored(stored: Object) -> Payload:
    """A stored object put again: the same bytes, converted by nobody; a composed one becomes plain."""
    handle = stored._live
    record = handle.record
    if record.kind == KIND_COMPOSED:  # its layout names extents that the copy will not have
        composed = _encode_natively(stored.to_arrow())  # type: ignore[attr-defined]
        return msgspec.structs.replace(composed, origin=record.origin)
    payload = handle.payload.slice(0, record.nbytes)  # beyond it may lie padding, or the user's metadata
    return Payload(
        record.kind,
        record.layout,
        payload.size,
        ((0, payload),),
        record.num_rows,
        keepalive=handle,
        origin=record.origin,
    )


def open_object(handle: Handle) -> Object:
    """The stored object, as the class of its kind.

    Raises:
        MissingExtra: no library that is imported here registered its kind.
    """
    code = handle.record.kind
    kind = _kinds.get(code)
    if isinstance(kind, str):
        loaded: type[Object] = _load(kind)
        kind = _kinds[code] = loaded
    if kind is None:
        raise MissingExtra(
            f"{handle.id} is of kind {code}, which nothing here can open",
            hint="import the library that registers this kind",
        )
    return kind(handle)


def kind_name(code: int) -> str:
    """``table``, ``tensor``, ``blob``, ``object``, a registered kind's name, or ``kind-<code>``."""
    name = _KIND_NAMES.get(code)
    if name is None:
        kind = _kinds.get(code)
        name = f"kind-{code}" if kind is None or isinstance(kind, str) else kind.kind
    return name


def register_encoder(kind: type | str, encoder: Encoder) -> None:
    """Let `encoder` take values of exactly this type; replaces an earlier one.

    Args:
        kind: The type, or its qualified name (``module.QualName``) so that its library need not be imported.
        encoder: See :data:`Encoder`.
    """
    if isinstance(kind, str):
        _named[kind] = encoder
        for known in [known for known in _encoders if _qualified_name(known) == kind]:
            del _encoders[known]
    else:
        _encoders[kind] = encoder


def register_kind(code: int, kind: type[Object]) -> None:
    """Let objects of kind `code` be opened as `kind`. Codes are stored: choose one for ever.

    Raises:
        InvalidArgument: `code` is one of flightstore's own (below 1,000), or taken by another class.
    """
    if code < FIRST_FOREIGN_KIND:
        raise InvalidArgument(f"kind codes below {FIRST_FOREIGN_KIND} are flightstore's own, got {code}")
    if _kinds.get(code, kind) is not kind:
        raise InvalidArgument(f"kind {code} is taken by {_kinds[code]!r}")
    _kinds[code] = kind


def _qualified_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
