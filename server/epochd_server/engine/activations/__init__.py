"""Activation functions, more accurate than PyTorch's, on tensors of any size.

``transform`` applies a chain to a tensor; ``transform_chunk`` to a piece of a larger one, with the same bits;
``is_elementwise`` says whether a chain allows that.
"""

from __future__ import annotations

from epochd_server.domain.activations import is_elementwise
from epochd_server.engine.activations.transform import transform, transform_chunk

__all__ = ["is_elementwise", "transform", "transform_chunk"]
