"""Bytes: the arena, its free space, leases, the writers' lock and the bell. Knows nothing of objects.

May call the operating system only. Lowest room of the package, beside the catalog.
"""
