"""Connectors: how the types of another library become objects of the store, and come back.

A connector is a pair of functions. Its *builder* turns a value into something the store takes by itself (an
Arrow table, a NumPy array, bytes); its *resolver* turns the stored object back. The record of the object
names the connector, so that ``obj.value()`` finds it in any process. What a builder hands over may refer to
the value's memory: the store copies it before ``put`` returns.

flightstore's own connectors are modules of ``flightstore.connectors`` with a ``CONNECTOR`` each. Anybody
else's is announced by its distribution as an entry point of the group ``flightstore.connectors``, named like
the top-level module of the types it takes (``geopandas = "my_package.store:CONNECTOR"``), or registered by
:func:`register`. A connector's module is loaded when a value of one of its types is put, or an object of its
making is opened; never before.

Calls nothing else of flightstore but errors and types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from flightstore.errors import InvalidArgument, MissingExtra

if TYPE_CHECKING:
    import pyarrow as pa

    from flightstore.types import ConversionReport

__all__ = ["TYPE_KEYS", "Connector", "connector_for", "connector_named", "register", "unregister"]

ENTRY_POINTS = "flightstore.connectors"
TYPE_KEYS = frozenset({b"ARROW:extension:name", b"ARROW:extension:metadata", b"flightstore.polars"})
"""Metadata of fields, at any depth, that say what the values are, as a type does: columns that differ in them
are of different types. Known before any connector is loaded, since Arrow tables carry them along."""


@dataclass(frozen=True, slots=True)
class Connector:
    """How the types of one library become objects of the store, and come back."""

    name: str
    """What it is called: the library's name. Stored with each object that it built: choose one for ever."""
    types: tuple[str, ...]
    """Qualified names (``module.QualName``) of the types that `build` takes: these, not their subclasses."""
    build: Callable[..., Any]
    """``build(value, *, pickle: bool)``: something the store takes by itself; may share memory with `value`,
    which lives until it is stored. Raises NotStorable, naming the column; then the value is pickled where
    that is allowed, unless the error's `pickle_helps` is False. Without `pickle`, nothing in it may be a
    pickle."""
    resolve: Callable[..., Any]
    """``resolve(obj, **options)``: the value of a stored object, sharing its memory wherever the library can.
    """
    report: Callable[..., ConversionReport] | None = None
    """``report(obj, **options)``: what `resolve` would share and copy, for each column."""
    values: Callable[[pa.Schema], Sequence[int]] | None = None
    """``values(schema)``: which fields of a table it built hold values of the frame; the others its index.
    All of them if None."""
    adapt: Callable[[pa.Schema, int], pa.Schema] | None = None
    """``adapt(schema, num_rows)``: the schema with the metadata this connector wants, after columns of its
    table were added, dropped or renamed, or rows concatenated."""


_OWN = {
    name: f"flightstore.connectors.{name}" for name in ("dask", "duckdb", "jax", "pandas", "polars", "torch")
}
_OWN_TYPES = {
    **dict.fromkeys(
        [f"pandas.{name}" for name in ("DataFrame", "Series", "Index", "RangeIndex", "MultiIndex")]
        + [f"pandas.{name}Index" for name in ("Categorical", "Datetime", "Timedelta", "Period", "Interval")],
        "pandas",
    ),
    "polars.dataframe.frame.DataFrame": "polars",
    "polars.series.series.Series": "polars",
    "polars.lazyframe.frame.LazyFrame": "polars",
    "dask.array.core.Array": "dask",
    "dask.dataframe.dask_expr._collection.DataFrame": "dask",
    "dask.dataframe.dask_expr._collection.Index": "dask",
    "dask.dataframe.dask_expr._collection.Series": "dask",
    "jaxlib._jax.ArrayImpl": "jax",
    "jaxlib.xla_extension.ArrayImpl": "jax",
    "torch.Tensor": "torch",
}
"""Types of our own connectors, known before their modules are loaded."""

_by_name: dict[str, Connector] = {}
_by_type_name: dict[str, str] = dict(_OWN_TYPES)
_by_type: dict[type, Connector | None] = {}


def register(connector: Connector) -> None:
    """Make a connector known to this process; replaces one of the same name.

    Raises:
        InvalidArgument: one of its types belongs to another connector.
    """
    for kind in connector.types:
        taken = _by_type_name.get(kind, connector.name)
        if taken != connector.name:
            raise InvalidArgument(
                f"connector {connector.name!r} claims {kind}, which {taken!r} takes",
                hint="unregister that one first",
            )
    _by_name[connector.name] = connector
    _by_type_name.update(dict.fromkeys(connector.types, connector.name))
    _by_type.clear()


def unregister(name: str) -> None:
    """Forget a connector and its types. Objects that it built are still there; only `value()` needs it."""
    _by_name.pop(name, None)
    for kind in [kind for kind, owner in _by_type_name.items() if owner == name]:
        del _by_type_name[kind]
    _by_type.clear()


def connector_for(kind: type) -> Connector | None:
    """The connector that takes values of exactly this type, or None."""
    if kind in _by_type:
        return _by_type[kind]
    qualified = f"{kind.__module__}.{kind.__qualname__}"
    name = _by_type_name.get(qualified)
    if name is None:
        announced = _announced().get(kind.__module__.partition(".")[0])
        if announced is not None and announced.name not in _by_name:
            _load(announced)
            name = _by_type_name.get(qualified)
    found = _by_type[kind] = connector_named(name) if name is not None else None
    return found


def connector_named(name: str) -> Connector:
    """The connector of that name, loaded if need be.

    Raises:
        MissingExtra: nobody here provides it, or its library is not installed.
    """
    found = _by_name.get(name)
    if found is not None:
        return found
    if name in _OWN:
        register(import_module(_OWN[name]).CONNECTOR)
        return _by_name[name]
    for point in _announced().values():
        _load(point)
        if name in _by_name:
            return _by_name[name]
    raise MissingExtra(
        f"no connector {name!r} is installed here",
        hint="install the package that provides it, or take the object as Arrow: obj.to_arrow()",
    )


def _load(point: EntryPoint) -> None:
    connector = point.load()
    if not isinstance(connector, Connector):
        raise InvalidArgument(
            f"the entry point {point.name!r} of {ENTRY_POINTS} is a {type(connector).__name__}, no Connector",
            hint=f"it says {point.value!r}",
        )
    register(connector)


@cache
def _announced() -> dict[str, EntryPoint]:
    """Connectors of other distributions by top-level module of their types; read once per process."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
