"""Tensors as plain bytes ↔ PyTorch's, bfloat16 included."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from epochd_server.domain.tensors import RawTensor


def torch_dtype(name: str) -> torch.dtype:
    """PyTorch's type of a name such as ``float32``."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def from_bytes(data: bytes | bytearray | memoryview, dtype: str, shape: Sequence[int]) -> torch.Tensor:
    """A tensor of little-endian row-major bytes: it shares a bytearray, and copies anything else."""
    if not data:
        return torch.empty(tuple(shape), dtype=torch_dtype(dtype))
    writable = data if isinstance(data, bytearray) else bytearray(data)
    return torch.frombuffer(writable, dtype=torch_dtype(dtype)).reshape(tuple(shape))


def from_raw(raw: RawTensor) -> torch.Tensor:
    """A tensor of its own memory."""
    return from_bytes(raw.data, raw.dtype, raw.shape)


def to_raw(tensor: torch.Tensor) -> RawTensor:
    """A tensor's little-endian row-major bytes, shared where it is contiguous."""
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
    return RawTensor(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), data.toreadonly())
