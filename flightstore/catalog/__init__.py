"""Metadata: an LMDB environment with objects, names, extents, free space and counters. Knows nothing of
bytes.

May call LMDB and msgspec only. Lowest room of the package, beside memory.
"""
