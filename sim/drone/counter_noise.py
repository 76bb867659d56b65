"""Random numbers that depend on a key and a counter alone: the same for a drone whatever flies beside it."""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S11, _S30, _S27, _S31, _S32, _LOW = (np.uint64(number) for number in (11, 30, 27, 31, 32, 0xFFFFFFFF))


def uniforms(keys: np.ndarray, counters: np.ndarray, count: int) -> np.ndarray:
    """Numbers in [0, 1), [N, count], for keys [N] (uint64) at counters [N]."""
    return np.asarray((_bits(keys, counters, count) >> _S11) * 2.0**-53)


def normals(keys: np.ndarray, counters: np.ndarray, count: int) -> np.ndarray:
    """Normal numbers of mean 0 and deviation 1, [N, count] (Box and Muller)."""
    bits = _bits(keys, counters, count)
    radius = np.sqrt(-2 * np.log(((bits >> _S32) + 1.0) * 2.0**-32))
    return np.asarray(radius * np.cos((2 * np.pi * 2.0**-32) * (bits & _LOW)))


def _bits(keys: np.ndarray, counters: np.ndarray, count: int) -> np.ndarray:
    """SplitMix64 (Steele et al. 2014) at the keys' own places, uint64 [N, count]."""
    place = counters.astype(np.uint64)[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)
    z: np.ndarray = keys[:, None] + (place + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> _S30)) * _FIRST
    z = (z ^ (z >> _S27)) * _SECOND
    return z ^ (z >> _S31)
