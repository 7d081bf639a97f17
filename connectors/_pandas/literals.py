"""Python, NumPy and pandas scalars as JSON: labels, names, attrs, fill values, time zones, offsets.

What JSON has itself is written as it is; anything else is an object of one key that begins with ``$``. The
value that comes back is of the same type. What nobody here knows is pickled, where that is allowed. The keys
are stored: never give one another meaning.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
import pickle
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from flightstore.errors import NotStorable

__all__ = ["Writer", "read_literal", "tz_of"]

_NATIVE = (bool, int, str, type(None))


class Writer:
    """Writes literals of one value that is being stored.

    Args:
        pickle: Whether pickles are allowed.
        where: Part of the value, for errors: "attrs", "the label of a column".
    """

    def __init__(self, pickle: bool, where: str) -> None:
        self.pickle = pickle
        self.where = where

    def write(self, value: Any) -> Any:
        """The JSON form of a value.

        Raises:
            NotStorable: only pickle could take it and may not, or does not.
        """
        kind = type(value)
        if kind in _NATIVE or (kind is float and math.isfinite(value)):
            return value
        if kind is list:
            return [self.write(item) for item in value]
        if kind is tuple:
            return {"$tuple": [self.write(item) for item in value]}
        if kind is dict:
            return self._dict(value)
        writer = _WRITERS.get(kind) or _by_base(value)
        written = writer(self, value) if writer else None
        return self._pickled(value) if written is None else written

    def _dict(self, value: dict[Any, Any]) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.write(item) for key, item in value.items()}
        return {"$dict": [[self.write(key), self.write(item)] for key, item in value.items()]}

    def _pickled(self, value: Any) -> Any:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if not self.pickle:
            raise NotStorable(
                f"{self.where} of this pandas object: only pickle could store a {kind}, which is forbidden",
                hint="replace it by a plain value, or allow pickle",
            )
        try:
            return {"$pickle": _text(pickle.dumps(value, protocol=5))}
        except Exception as error:
            raise NotStorable(
                f"{self.where} of this pandas object: a {kind} cannot be stored: {error}",
                hint="replace it by a plain value",
            ) from error


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _write_timestamp(writer: Writer, value: pd.Timestamp) -> Any:
    at = value.asm8
    return {"$timestamp": [int(at.astype("i8")), np.datetime_data(at.dtype)[0], writer.write(value.tzinfo)]}


def _write_timedelta(writer: Writer, value: pd.Timedelta) -> Any:
    length = value.asm8
    return {"$timedelta": [int(length.astype("i8")), np.datetime_data(length.dtype)[0]]}


def _write_datetime(writer: Writer, value: datetime.datetime) -> Any:
    plain = value.replace(tzinfo=None, fold=0).isoformat()
    return {"$datetime": [plain, value.fold, writer.write(value.tzinfo)]}


def _write_time(writer: Writer, value: datetime.time) -> Any:
    return {"$time": [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, writer.write(value.tzinfo)]}


def _write_interval(writer: Writer, value: Any) -> Any:
    return {"$interval": [writer.write(value.left), writer.write(value.right), value.closed]}


def _write_period(writer: Writer, value: pd.Period) -> Any:
    freq = pd.PeriodDtype(value.freq).name
    same = pd.PeriodDtype(freq[len("period[") : -1]).freq == value.freq
    return {"$period": [value.ordinal, freq[len("period[") : -1]]} if same else None


def _write_scalar(writer: Writer, value: np.generic) -> Any:
    if value.dtype.kind in "OV":
        return None
    return {"$numpy": [value.dtype.str, _text(value.tobytes())]}


_WRITERS: dict[type, Callable[[Writer, Any], Any]] = {
    float: lambda writer, value: {"$float": str(value)},
    bytes: lambda writer, value: {"$bytes": _text(value)},
    complex: lambda writer, value: {"$complex": [writer.write(value.real), writer.write(value.imag)]},
    set: lambda writer, value: {"$set": [writer.write(item) for item in value]},
    frozenset: lambda writer, value: {"$frozenset": [writer.write(item) for item in value]},
    decimal.Decimal: lambda writer, value: {"$decimal": str(value)},
    datetime.date: lambda writer, value: {"$date": value.isoformat()},
    datetime.time: _write_time,
    datetime.datetime: _write_datetime,
    datetime.timedelta: lambda writer, value: {"$duration": [value.days, value.seconds, value.microseconds]},
    type(pd.NaT): lambda writer, value: {"$pandas": "NaT"},
    type(pd.NA): lambda writer, value: {"$pandas": "NA"},
    pd.Timestamp: _write_timestamp,
    pd.Timedelta: _write_timedelta,
    pd.Period: _write_period,
    pd.Interval: _write_interval,
}


def _by_base(value: Any) -> Callable[[Writer, Any], Any] | None:
    """Writers of families of types."""
    if isinstance(value, np.generic):
        return _write_scalar
    if isinstance(value, datetime.tzinfo):
        return _write_tz
    if isinstance(value, pd.tseries.offsets.BaseOffset):
        return _write_offset
    return None


def _write_tz(writer: Writer, tz: datetime.tzinfo) -> Any:
    """A time zone whose type comes back too."""
    kind = f"{type(tz).__module__}.{type(tz).__qualname__}"
    if type(tz) is datetime.timezone:
        offset, *name = tz.__getinitargs__()  # type: ignore[attr-defined]
        return {"$tz": ["fixed", offset / datetime.timedelta(microseconds=1), *name]}
    if kind == "zoneinfo.ZoneInfo" and tz.key:  # type: ignore[attr-defined]
        return {"$tz": ["zoneinfo", tz.key]}  # type: ignore[attr-defined]
    if kind == "pytz._FixedOffset":
        return {"$tz": ["pytz", tz._minutes]}  # type: ignore[attr-defined]
    zone = getattr(tz, "zone", None)
    is_pytz = kind.startswith("pytz.") and zone and import_module("pytz").timezone(zone) is tz
    return {"$tz": ["pytz", zone]} if is_pytz else None


def tz_of(kind: str, what: Any, *name: str) -> datetime.tzinfo:
    """The time zone that `_write_tz` described."""
    if kind == "fixed":
        offset = datetime.timedelta(microseconds=what)
        return datetime.timezone(offset, *name)
    if kind == "zoneinfo":
        import zoneinfo

        return zoneinfo.ZoneInfo(what)
    pytz = import_module("pytz")
    zone: datetime.tzinfo = pytz.FixedOffset(what) if isinstance(what, int) else pytz.timezone(what)
    return zone


def _write_offset(writer: Writer, offset: Any) -> Any:
    """A frequency: its class in pandas, and what makes another one like it."""
    kind = type(offset).__name__
    if getattr(pd.tseries.offsets, kind, None) is not type(offset):
        return None
    kwds = {key: value for key, value in offset.kwds.items() if type(value) is not np.busdaycalendar}
    try:
        written = [kind, offset.n, bool(offset.normalize), Writer(False, writer.where).write(kwds)]
        return {"$offset": written} if _read_offset(*written) == offset else None
    except (TypeError, ValueError):  # NotStorable is a TypeError
        return None


def _read_offset(kind: str, n: int, normalize: bool, kwds: Any) -> Any:
    made = getattr(pd.tseries.offsets, kind)
    options = read_literal(kwds)
    if normalize:
        options["normalize"] = True
    return made(n, **options)


def _read_timestamp(at: int, unit: Any, tz: Any) -> pd.Timestamp:
    naive = pd.Timestamp(np.datetime64(at, unit))
    return naive if tz is None else naive.tz_localize("UTC").tz_convert(read_literal(tz))


def _read_datetime(text: str, fold: int, tz: Any) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(fold=fold, tzinfo=read_literal(tz))


def _read_time(text: str, fold: int, tz: Any) -> datetime.time:
    return datetime.time.fromisoformat(text).replace(fold=fold, tzinfo=read_literal(tz))


_READERS: dict[str, Callable[[Any], Any]] = {
    "$tuple": lambda items: tuple([read_literal(item) for item in items]),
    "$dict": lambda pairs: {read_literal(key): read_literal(item) for key, item in pairs},
    "$set": lambda items: {read_literal(item) for item in items},
    "$frozenset": lambda items: frozenset(read_literal(item) for item in items),
    "$float": float,
    "$bytes": base64.b64decode,
    "$complex": lambda parts: complex(read_literal(parts[0]), read_literal(parts[1])),
    "$decimal": decimal.Decimal,
    "$date": datetime.date.fromisoformat,
    "$time": lambda parts: _read_time(*parts),
    "$datetime": lambda parts: _read_datetime(*parts),
    "$duration": lambda parts: datetime.timedelta(*parts),
    "$pandas": lambda name: {"NaT": pd.NaT, "NA": pd.NA}[name],
    "$timestamp": lambda parts: _read_timestamp(*parts),
    "$timedelta": lambda parts: pd.Timedelta(np.timedelta64(*parts)),
    "$period": lambda parts: pd.Period(ordinal=parts[0], freq=parts[1]),
    "$interval": lambda parts: pd.Interval(read_literal(parts[0]), read_literal(parts[1]), parts[2]),
    "$numpy": lambda parts: np.frombuffer(base64.b64decode(parts[1]), parts[0])[0],
    "$tz": lambda parts: tz_of(*parts),
    "$offset": lambda parts: _read_offset(*parts),
    "$pickle": lambda text: pickle.loads(base64.b64decode(text)),
}


def read_literal(written: Any) -> Any:
    """The value that a `Writer` wrote."""
    if isinstance(written, list):
        return [read_literal(item) for item in written]
    if not isinstance(written, dict):
        return written
    if len(written) == 1:
        ((key, content),) = written.items()
        if key.startswith("$"):
            return _READERS[key](content)
    return {key: read_literal(item) for key, item in written.items()}
