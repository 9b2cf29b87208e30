"""Resource names: the short forms that people type, made full.

Example:
    >>> version_name("house-price@champion")
    'models/house-price@champion'
"""

from __future__ import annotations


def run_name(name: str) -> str:
    """``runs/ID`` of ``ID`` or of itself."""
    return _prefixed(name, "runs/")


def version_name(name: str) -> str:
    """``models/…`` of ``house-price``, ``house-price@champion``, ``house-price/versions/3`` or the full name."""
    return _prefixed(name, "models/")


def model_name(name: str) -> str:
    """``models/MODEL`` of a model's, a version's or an alias's name, short or full."""
    return version_name(name).partition("@")[0].partition("/versions/")[0]


def dataset_name(name: str) -> str:
    """``datasets/DIGEST`` of ``DIGEST`` or of itself."""
    return _prefixed(name, "datasets/")


def _prefixed(name: str, prefix: str) -> str:
    return name if name.startswith(prefix) else prefix + name
