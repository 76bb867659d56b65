"""One seed out of several numbers, so that draws of one purpose, step or process do not repeat those of another."""

from __future__ import annotations

import numpy as np


def mixed(*numbers: int) -> int:
    """A seed of 63 bits, as torch takes it, that depends on all of these numbers [>= 0] and on their order."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
