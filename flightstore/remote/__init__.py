"""Stores on other machines, through their gateways: the same interface as the one here."""
