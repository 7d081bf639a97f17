"""One Arrow value as a short text, without reading more of it than the text shows. Calls pyarrow only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["NULL_TEXT", "cell_text", "shortened"]

NULL_TEXT = "null"
"""How a missing value is shown to people."""


def shortened(text: str, limit: int) -> str:
    """`text` in at most `limit` characters, the last three of them dots where it was longer."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def cell_text(value: Any, limit: int) -> str:
    """An Arrow scalar as text of at most `limit` characters.

    Exact where Python's own types are not: nanoseconds are kept. Of a long text, list or blob, only the
    beginning is read.
    """
    return shortened(_text(value, limit), limit)


def _text(value: Any, limit: int) -> str:
    """The text, perhaps longer than `limit`, but not by much."""
    import pyarrow as pa

    types, kind = pa.types, value.type
    if isinstance(kind, pa.BaseExtensionType):
        return _extension_text(value, limit)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind) or types.is_union(kind):
        inner = value.value
        return NULL_TEXT if inner is None or not value.is_valid else _text(inner, limit)
    if not value.is_valid:
        return NULL_TEXT
    if types.is_map(kind):
        pairs = value.values
        keys, items = pairs.field(0), pairs.field(1)
        texts = (f"{_text(keys[i], limit)}: {_text(items[i], limit)}" for i in range(len(pairs)))
        return _joined("{", texts, "}", limit)
    if types.is_struct(kind):
        fields = (f"{kind.field(i).name}: {_text(value[i], limit)}" for i in range(kind.num_fields))
        return _joined("{", fields, "}", limit)
    if types.is_nested(kind):
        values = value.values
        return _joined("[", (_text(values[i], limit) for i in range(len(values))), "]", limit)
    return _plain_text(value, limit)


def _extension_text(value: Any, limit: int) -> str:
    """The values of well-known extension types as themselves (a UUID), of others as they are stored."""
    if not value.is_valid:
        return NULL_TEXT
    if value.type.extension_name == "arrow.uuid":
        return str(value.as_py())
    return _text(value.value, limit)


def _plain_text(value: Any, limit: int) -> str:
    import pyarrow as pa

    types, kind = pa.types, value.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        # Four bytes at most to a character; a cut one at the end is dropped, and dots take its place.
        return _beginning(value, 4 * limit + 4).decode(errors="ignore")
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return repr(_beginning(value, limit))
    if types.is_temporal(kind) and not types.is_interval(kind):
        try:
            return str(value.cast(pa.string()).as_py())
        except pa.ArrowException:  # a duration, or a time zone that is not known here
            return str(value)
    return str(value)


def _beginning(value: Any, nbytes: int) -> bytes:
    content: bytes = value.as_buffer()[:nbytes].to_pybytes()
    return content


def _joined(before: str, texts: Iterable[str], after: str, limit: int) -> str:
    """Texts with commas between them, as many as `limit` characters show."""
    shown = before
    for text in texts:
        shown += text if shown == before else f", {text}"
        if len(shown) > limit:
            return shown
    return shown + after
