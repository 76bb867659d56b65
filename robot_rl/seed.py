"""Which seeds begin episodes of what, and one seed out of several numbers.

| seeds                | begin episodes                                                                           |
|----------------------|------------------------------------------------------------------------------------------|
| below 100 000        | that are recorded                                                                        |
| from 100 000 on      | of evaluations, unseen in training (Chi et al. 2023 begin theirs there), and of the twin |
| from 1 000 000 on    | of evaluations that choose between checkpoints                                           |
| from 10 000 000 on   | that reinforcement learning makes                                                        |
"""

from __future__ import annotations

import numpy as np

FIRST_EVALUATION_SEED = 100_000
FIRST_VALIDATION_SEED = 1_000_000
FIRST_TRAINING_SEED = 10_000_000
LARGEST_SEED = 2**63 - 1
"""Of a training: torch takes no larger one."""


def mixed(*numbers: int) -> int:
    """A seed of 63 bits, as torch takes it, that depends on all of these numbers [>= 0] and on their order.

    So draws of one purpose, step or process do not repeat those of another.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
