"""Tests of stores behind a gateway."""
