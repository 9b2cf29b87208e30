"""Thin Python client of the epochd training server."""
