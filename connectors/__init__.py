"""Connectors: one module per library, named like it.

A third party adds a library of its own with :class:`Connector` and :func:`register`, or by an entry point of
the group ``flightstore.connectors``; ``flightstore.objects.connector`` has the theory.
"""

from flightstore.objects.connector import Connector, register, unregister

__all__ = ["Connector", "register", "unregister"]
