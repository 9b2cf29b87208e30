"""Categories as signed hashes, as scikit-learn's FeatureHasher: MurmurHash3 x86 32 bits, seed 0.

The hash is that of A. Appleby, https://github.com/aappleby/smhasher; all texts of one length are hashed at once.

Legend: n rows, C texts of one length in bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.preprocessing.blocks import Block, Numbers, as_labels
from epochd_server.domain.preprocessing import Hashing

_C1, _C2, _N = np.uint32(0xCC9E2D51), np.uint32(0x1B873593), np.uint32(0xE6546B64)
_F1, _F2 = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
_FIVE = np.uint32(5)

Words = NDArray[np.uint32]


def apply_hashing(step: Hashing, block: Block) -> Numbers:
    """+1 or -1 in one of the features [n, features]; zeros where the category is missing."""
    labels = as_labels(block, "hashing")
    values = np.zeros((len(labels), step.features))
    rows = np.flatnonzero(labels.codes >= 0)
    used, positions = np.unique(labels.codes[rows], return_inverse=True)
    texts = [str(text).encode() for text in labels.distinct[used].tolist()]
    found = murmur3(texts).astype(np.int64)[positions]
    values[rows, np.abs(found) % step.features] = np.where(found >= 0, 1.0, -1.0)
    return Numbers(values, tuple(f"{labels.name}#{index}" for index in range(step.features)))


def murmur3(texts: list[bytes], seed: int = 0) -> NDArray[np.int32]:
    """The signed hashes of some texts."""
    lengths = np.array([len(text) for text in texts], np.int64)
    hashes = np.empty(len(texts), np.uint32)
    for length in np.unique(lengths).tolist():
        positions = np.flatnonzero(lengths == length)
        joined = b"".join(texts[position] for position in positions.tolist())
        hashes[positions] = _hash(np.frombuffer(joined, np.uint8).reshape(len(positions), length), seed)
    return hashes.view(np.int32)


def _hash(texts: NDArray[np.uint8], seed: int) -> Words:
    """Hashes [C] of texts [C, length]."""
    count, length = texts.shape
    padded = np.zeros((count, -(-length // 4) * 4), np.uint8)
    padded[:, :length] = texts
    words = np.ascontiguousarray(padded).view("<u4").astype(np.uint32)
    h = np.full(count, seed, np.uint32)
    whole = length // 4
    for word in words.T[:whole]:
        h = _rotated(h ^ _mixed(word), 13) * _FIVE + _N
    if length % 4:
        h ^= _mixed(words.T[whole])
    return _finished(h ^ np.uint32(length))


def _mixed(word: Words) -> Words:
    return _rotated(word * _C1, 15) * _C2


def _rotated(words: Words, bits: int) -> Words:
    return (words << np.uint32(bits)) | (words >> np.uint32(32 - bits))


def _finished(h: Words) -> Words:
    h ^= h >> np.uint32(16)
    h *= _F1
    h ^= h >> np.uint32(13)
    h *= _F2
    h ^= h >> np.uint32(16)
    return h
