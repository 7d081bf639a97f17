"""Connectors: one module per library, named like it."""
