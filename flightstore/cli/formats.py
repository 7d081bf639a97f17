"""The file formats the command line knows, and the choice of one: by extension, or by name (--format).

One table for reading and writing alike. A format is written as its name, text formats also with a packing:
``csv``, ``csv.gz``. Reading is in readers.py, writing in writers.py. Calls click only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

from flightstore.errors import InvalidArgument

if TYPE_CHECKING:
    _ParamType = click.ParamType[str]  # a plain class in older versions of click
else:
    _ParamType = click.ParamType

__all__ = [
    "EXTENSIONS",
    "FORMATS",
    "PACKINGS",
    "Format",
    "FormatName",
    "detect_format",
    "format_for",
    "format_of",
    "packing_of",
    "stem",
]


@dataclass(frozen=True, slots=True)
class Format:
    """One file format."""

    name: str
    """What --format calls it."""
    extensions: tuple[str, ...]
    """Ends of file names that tell it, lower case."""
    holds: str = "table"
    """Kind of object in such a file: ``table``, ``tensor``, ``tensors`` (several) or ``blob``."""
    packed: bool = False
    """Whether it may be packed by one of PACKINGS."""
    writes: bool = True
    """Whether objects can be written in it."""
    streams: bool = False
    """Whether it can be written to a pipe."""


FORMATS = {
    one.name: one
    for one in (
        Format("parquet", (".parquet", ".pq")),
        Format("csv", (".csv",), packed=True, streams=True),
        Format("tsv", (".tsv", ".tab"), packed=True, streams=True),
        Format("json", (".json",), packed=True, streams=True),
        Format("jsonl", (".jsonl", ".ndjson"), packed=True, streams=True),
        Format("arrow", (".arrow", ".feather", ".ipc")),
        Format("arrows", (".arrows",), streams=True),
        Format("orc", (".orc",)),
        Format("avro", (".avro",)),
        Format("xlsx", (".xlsx",)),
        Format("ods", (".ods",), writes=False),
        Format("npy", (".npy",), holds="tensor", streams=True),
        Format("npz", (".npz",), holds="tensors", writes=False),
        Format("raw", (), holds="blob", streams=True),
    )
}
"""The formats by name. ``arrow`` is the IPC file format, ``arrows`` the IPC stream format."""

PACKINGS = {"gz": "gzip", "bz2": "bz2", "zst": "zstd", "lz4": "lz4", "br": "brotli", "xz": "xz"}
"""How text formats may be packed: the extension, and what it is called elsewhere."""

EXTENSIONS = {end: one.name for one in FORMATS.values() for end in one.extensions}
"""Format of each extension we know, packed ones not included."""

_PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".pt", ".pth"})
"""Extensions of files that can be read only by running the code in them."""

_ENDS = dict(
    sorted(
        {
            **EXTENSIONS,
            **{
                f"{end}.{packing}": f"{one.name}.{packing}"
                for one in FORMATS.values()
                if one.packed
                for end in one.extensions
                for packing in PACKINGS
            },
        }.items(),
        key=lambda item: -len(item[0]),
    )
)
"""Every end of a file name that tells a format, longest first."""


def detect_format(path: str) -> str | None:
    """The format that a file's name tells, or None."""
    name = Path(path).name.lower()
    return next((found for end, found in _ENDS.items() if name.endswith(end)), None)


def stem(path: str) -> str:
    """A file's name without its extension: the name an object gets when it is given none."""
    name = Path(path).name
    for end in _ENDS:
        if name.lower().endswith(end) and len(name) > len(end):
            return name[: -len(end)]
    return Path(name).stem


def format_of(name: str) -> Format:
    """The format behind a name: ``csv`` behind ``csv.gz``."""
    return FORMATS[name.partition(".")[0]]


def packing_of(name: str) -> str:
    """The packing in a format's name, a key of PACKINGS; empty for none."""
    return name.partition(".")[2]


def format_for(path: str) -> str:
    """The format that a file's name tells.

    Raises:
        InvalidArgument: it tells none, or one that is not read; says what to do.
    """
    found = detect_format(path)
    if found is not None:
        return found
    if Path(path).suffix.lower() in _PICKLES:
        raise InvalidArgument(
            f"{path} is a pickle by its extension: reading it would run the code in it",
            hint="load it in Python and put the value: store.put(value, name); or take the bytes with --raw",
        )
    known = ", ".join(sorted(EXTENSIONS))
    raise InvalidArgument(
        f"{path}: the extension tells no format (known: {known})",
        hint="name it with --format, or store the bytes as they are with --raw",
    )


class FormatName(_ParamType):
    """The value of --format: a format's name or one of its extensions, with or without a packing."""

    name = "format"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """How the help shows the value."""
        return "FORMAT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The format's own name."""
        text = str(value).lower().removeprefix(".")
        if text in FORMATS:
            return text
        found = _ENDS.get(f".{text}")
        return found if found is not None else self._refuse(text, param, ctx)

    def _refuse(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> NoReturn:
        packed = ", ".join(one.name for one in FORMATS.values() if one.packed)
        packings = ", ".join(f".{packing}" for packing in PACKINGS)
        self.fail(
            f"{text!r} is none of {', '.join(FORMATS)}; {packed} may be followed by one of {packings}",
            param,
            ctx,
        )

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The names that begin so; packed ones once the format is written out."""
        names = [*FORMATS]
        if "." in incomplete:
            names = [f"{one}.{packing}" for one in FORMATS if FORMATS[one].packed for packing in PACKINGS]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]
