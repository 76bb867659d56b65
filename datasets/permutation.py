"""A random order of n items that is computed, not stored: any position on its own, in no memory.

A Feistel network over the pairs (left, right) with left < a and right < b, the smallest such grid that holds n items;
positions that fall outside are walked on until they fall inside (Black and Rogaway, "Ciphers with arbitrary finite
domains", 2002). Every round adds to one half a hash of the other, so that the whole is a bijection.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

ROUNDS = 8


def permute(positions: np.ndarray, size: int, key: tuple[int, ...]) -> np.ndarray:
    """The items at some positions of a random order of `size` items.

    Args:
        positions: int64 of any shape, within 0..size-1.
        size: number of items.
        key: what selects the order, for example (seed, epoch); numbers >= 0.

    Returns:
        int64 of the same shape, within 0..size-1. All positions together give every item exactly once.
    """
    left_size = math.isqrt(size - 1) + 1
    right_size = -(-size // left_size)
    round_keys = _round_keys(key)
    items = np.array(positions, np.uint64).reshape(-1)
    outside = np.arange(items.size)
    while outside.size:
        left, right = np.divmod(items[outside], np.uint64(right_size))
        for number, round_key in enumerate(round_keys):
            if number % 2:
                right = (right + _hash(left, round_key) % np.uint64(right_size)) % np.uint64(right_size)
            else:
                left = (left + _hash(right, round_key) % np.uint64(left_size)) % np.uint64(left_size)
        items[outside] = left * np.uint64(right_size) + right
        outside = outside[items[outside] >= size]
    return items.astype(np.int64).reshape(np.shape(positions))


@lru_cache(maxsize=64)
def _round_keys(key: tuple[int, ...]) -> tuple[np.uint64, ...]:
    return tuple(np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64))


def _hash(values: np.ndarray, key: np.uint64) -> np.ndarray:
    # The finaliser of splitmix64 (Steele, Lea and Flood 2014).
    mixed = values + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
