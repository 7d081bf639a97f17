"""Packed text files: reading and writing through a compressor. Calls pyarrow only."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from flightstore.connectors.sources.formats import PACKINGS

__all__ = ["Unclosed", "packed_sink", "unpacked_source"]


def unpacked_source(file: Any, packing: str) -> Any:
    """A binary file that yields the text in `file`; several packed streams one after the other are one text.

    Args:
        file: An open binary file.
        packing: A key of PACKINGS, or empty for a file that is not packed.
    """
    import pyarrow as pa

    if packing == "xz":
        import lzma

        return lzma.LZMAFile(file)
    source = pa.PythonFile(file, mode="r")
    return pa.CompressedInputStream(source, PACKINGS[packing]) if packing else source


@contextmanager
def packed_sink(file: IO[bytes], packing: str) -> Iterator[Any]:
    """A binary file that packs what is written to it into `file`, complete when the block ends.

    The same content gives the same bytes (gzip's time stamp is left zero). `file` stays open.
    """
    import pyarrow as pa

    if not packing:
        yield file
    elif packing == "gz":
        import gzip

        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0) as packed:
            yield packed
    elif packing == "xz":
        import lzma

        with lzma.LZMAFile(file, "wb") as squeezed:
            yield squeezed
    else:
        sink = pa.CompressedOutputStream(pa.PythonFile(Unclosed(file), mode="w"), PACKINGS[packing])
        try:
            yield _Written(sink)
        except BaseException:
            with suppress(Exception):  # what has failed is to be told, not that the end could not be written
                sink.close()
            raise
        sink.close()


class Unclosed(io.RawIOBase):
    """A file as a stream of bytes and nothing else: whoever writes to it may close it, and cannot seek."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)


class _Written(io.RawIOBase):
    """An Arrow stream as a Python file; unlike pyarrow's own, Arrow's writers may close it."""

    def __init__(self, sink: Any) -> None:
        super().__init__()
        self._sink = sink

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._sink.write(data)
        return len(data)
