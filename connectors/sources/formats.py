"""The file formats that are known, and the choice of one: by extension, or by name.

One table for reading and writing alike. A format is written as its name, text formats also with a packing:
``csv``, ``csv.gz``. Reading is in reading.py, writing in writing.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flightstore.errors import InvalidArgument

__all__ = [
    "EXTENSIONS",
    "FORMATS",
    "PACKINGS",
    "Format",
    "detect_format",
    "ends",
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


def ends() -> dict[str, str]:
    """Every end of a file name that tells a format, longest first, and that format."""
    return dict(_ENDS)


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
