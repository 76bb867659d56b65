"""NumPy's generators of many seeds at once, compiled: each seed's numbers are those of `np.random.default_rng`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from robot_rl.sim.compiled import compiled

_AHEAD = 64
"""Numbers that are drawn at once of each generator."""

_U32, _U64 = np.uint32, np.uint64
_POOL = 4
_INIT_A, _MULT_A, _INIT_B, _MULT_B = _U32(0x43B0D7E5), _U32(0x931E8875), _U32(0x8B51F9DD), _U32(0x58F38DED)
_MIX_LEFT, _MIX_RIGHT = _U32(0xCA01F9DD), _U32(0x4973F715)
_HIGH, _LOW = _U64(2549297995355413924), _U64(4865540595714422341)
_S1, _S11, _S16, _S32, _S58, _S63 = _U64(1), _U64(11), _U32(16), _U64(32), _U64(58), _U64(63)
_HALF, _WORD = _U64(0xFFFFFFFF), _U64(64)


class Generators:
    """`np.random.default_rng([seed, stream])` for each of n seeds: one draw gives the next numbers of all.

    Args:
        seeds: 0 <= seed < 2**64.
    """

    def __init__(self, seeds: Sequence[int] | np.ndarray, stream: int) -> None:
        self._states = _begin(generate_state(seeds, 8, stream))
        self._bits, self._at = np.empty((len(self._states), 0), _U64), 0

    def uniform(self, low: np.ndarray | float, high: np.ndarray | float, *shape: int) -> np.ndarray:
        """Numbers in [low, high), float64 [n, *shape], to which the limits broadcast."""
        parts = (self._next(math.prod(shape)) >> _S11) * 2.0**-53
        return np.asarray(low + (high - low) * parts.reshape(len(parts), *shape))

    def integers(self, low: int, high: int) -> np.ndarray:
        """Numbers in [low, high], at most 2**16 of them, int64 [n] (Lemire 2019); at most once of each generator."""
        count = high - low + 1
        if count == 1:
            return np.full(len(self._states), low)
        bits = self._next(1)[:, 0]
        scaled = (bits & _HALF) * _U64(count)
        # What is too small to be fair is drawn anew, of the bits that are left.
        again = (scaled & _HALF) < _U64(2**32 % count)
        scaled = np.where(again, (bits >> _S32) * _U64(count), scaled)
        return low + (scaled >> _S32).astype(np.int64)

    def _next(self, count: int) -> np.ndarray:
        """The next numbers of each, uint64 [n, count]."""
        missing = self._at + count - self._bits.shape[1]
        if missing > 0:
            self._bits = np.concatenate([self._bits[:, self._at :], _draw(self._states, max(missing, _AHEAD))], axis=1)
            self._at = 0
        self._at += count
        return self._bits[:, self._at - count : self._at]


def generate_state(seeds: Sequence[int] | np.ndarray, words: int, *stream: int) -> np.ndarray:
    """`np.random.SeedSequence([seed, *stream]).generate_state(words)` of each seed below 2**64, uint32 [n, words].

    Args:
        stream: none, or one number below 2**32.
    """
    return _generate(np.array([int(seed) for seed in seeds], _U64), np.array(stream, _U64), words)


@compiled
def _generate(seeds: np.ndarray, stream: np.ndarray, words: int) -> np.ndarray:
    """NumPy's SeedSequence (after O'Neill 2015)."""
    found, pool = np.empty((seeds.size, words), np.uint32), np.empty(_POOL, np.uint32)
    for row in range(seeds.size):
        # A seed takes as many words as it needs, and what is missing in the end is zero.
        pool[:] = 0
        pool[0], pool[1] = seeds[row] & _HALF, seeds[row] >> _S32
        for number in stream:
            pool[2 if pool[1] else 1] = number
        key = _INIT_A
        for place in range(_POOL):
            pool[place], key = _hash(pool[place], key, _MULT_A)
        for source in range(_POOL):
            for place in range(_POOL):
                if source != place:
                    value, key = _hash(pool[source], key, _MULT_A)
                    mixed = np.uint32(np.uint32(_MIX_LEFT * pool[place]) - np.uint32(_MIX_RIGHT * value))
                    pool[place] = np.uint32(mixed ^ (mixed >> _S16))
        key = _INIT_B
        for word in range(words):
            found[row, word], key = _hash(pool[word % _POOL], key, _MULT_B)
    return found


@compiled
def _hash(value, key, factor):  # type: ignore[no-untyped-def]
    value = np.uint32(value ^ key)
    key = np.uint32(key * factor)
    value = np.uint32(value * key)
    return np.uint32(value ^ (value >> _S16)), key


@compiled
def _begin(words: np.ndarray) -> np.ndarray:
    """States of PCG64, uint64 [n, 4] (state and increment, each its upper and lower half), of words [n, 8] of seeds."""
    states = np.empty((words.shape[0], 4), np.uint64)
    for row in range(words.shape[0]):
        seed = words[row].view(np.uint64)
        own = states[row]
        own[2], own[3] = (seed[2] << _S1) | (seed[3] >> _S63), (seed[3] << _S1) | _S1
        own[0], own[1] = np.uint64(0), np.uint64(0)
        _advance(own)
        low = own[1] + seed[1]
        own[0], own[1] = own[0] + seed[0] + np.uint64(low < seed[1]), low
        _advance(own)
    return states


@compiled
def _draw(states: np.ndarray, count: int) -> np.ndarray:
    """The next numbers of PCG64 (O'Neill 2014, XSL RR), uint64 [n, count]."""
    found = np.empty((states.shape[0], count), np.uint64)
    for row in range(states.shape[0]):
        own = states[row]
        for place in range(count):
            _advance(own)
            mixed, turn = own[0] ^ own[1], own[0] >> _S58
            found[row, place] = (mixed >> turn) | (mixed << ((_WORD - turn) & _S63))
    return found


@compiled
def _advance(own):  # type: ignore[no-untyped-def]
    """Multiply by a constant and add the increment, modulo 2**128."""
    a, b, c, d = own[1] & _HALF, own[1] >> _S32, _LOW & _HALF, _LOW >> _S32
    middle = b * c + ((a * c) >> _S32)
    carried = a * d + (middle & _HALF)
    high = b * d + (middle >> _S32) + (carried >> _S32)
    low = own[1] * _LOW
    high += own[0] * _LOW + own[1] * _HIGH
    total = low + own[3]
    own[0], own[1] = high + own[2] + np.uint64(total < low), total
