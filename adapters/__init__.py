"""Adapters: other systems' interfaces on top of flightstore."""
