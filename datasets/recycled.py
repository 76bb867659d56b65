"""Memory for large tensors that is used again as soon as nobody holds them any more.

Fresh memory costs a page fault for every 4 KiB, which for a batch of small images takes a third of the time of decoding
them. Whether the allocator keeps memory of this size depends on what the rest of the program has freed before.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


class RecycledMemory:
    """Hands out tensors; the memory of one returns when it and all its views are gone. Safe from several threads.

    Args:
        spare: pieces of memory kept for later, at most; None is no limit.
    """

    def __init__(self, spare: int | None) -> None:
        self._spare: deque[np.ndarray] = deque(maxlen=spare)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised tensor on the CPU."""
        import torch

        size = math.prod(shape) * dtype.itemsize
        memory = self._piece(size)
        # The tensor's storage holds this array, a new one for each tensor, until its last view is gone.
        held = memory[:size]
        weakref.finalize(held, self._spare.append, memory).atexit = False
        return torch.from_numpy(held).view(dtype).reshape(shape)

    def __reduce__(self) -> tuple[type[RecycledMemory], tuple[int | None]]:
        return RecycledMemory, (self._spare.maxlen,)

    def _piece(self, size: int) -> np.ndarray:
        for _ in range(len(self._spare)):
            try:
                memory = self._spare.popleft()
            except IndexError:
                break
            if memory.size == size:
                return memory
            self._spare.append(memory)
        return np.empty(size, np.uint8)
