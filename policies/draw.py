"""Random tensors from an explicit generator, on the device where they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor


class BatchPart(torch.Generator):
    """The generator of some consecutive rows of a batch that is spread over processes or accumulated in parts.

    What is drawn is drawn for the whole batch and cut, so that all parts together see the draws of the undivided batch.

    Args:
        start, rows: which rows these are; the first dimension of all that is drawn is a multiple of `rows`.
        total: rows of the whole batch.
    """

    def __new__(cls, start: int, rows: int, total: int, device: torch.device | str = "cpu") -> BatchPart:
        return super().__new__(cls, device)  # type: ignore[call-arg]

    def __init__(self, start: int, rows: int, total: int, device: torch.device | str = "cpu") -> None:
        if not 0 <= start < start + rows <= total:
            raise ValueError(f"rows {start} to {start + rows} are not part of a batch of {total}")
        self.start, self.rows, self.total = start, rows, total


class RowGenerators(torch.Generator):
    """One generator for each row of a batch: what a row draws does not depend on the rows beside it.

    Args:
        generators: of one device; the first dimension of all that is drawn is a multiple of their number.
    """

    def __new__(cls, generators: Sequence[torch.Generator]) -> RowGenerators:
        return super().__new__(cls, generators[0].device)  # type: ignore[call-arg]

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = list(generators)


def normal(shape: Sequence[int], device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Standard normal draws, float32. A generator of another device draws there: one seed, the same values."""
    return _draw(torch.randn, shape, device, generator)


def uniform(shape: Sequence[int], device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Draws from [0, 1), float32."""
    return _draw(torch.rand, shape, device, generator)


def integers(high: int, shape: Sequence[int], device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Draws from 0 ... high - 1, int64."""
    return _draw(partial(torch.randint, high), shape, device, generator)


def _draw(
    draw: Callable[..., Tensor], shape: Sequence[int], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    origin = device if generator is None else generator.device
    first, *rest = shape
    if isinstance(generator, RowGenerators):
        each = _per_row(shape, len(generator.generators))
        parts = [draw((each, *rest), generator=one, device=origin) for one in generator.generators]
        return torch.cat(parts).to(device)
    if not isinstance(generator, BatchPart):
        return draw(tuple(shape), generator=generator, device=origin).to(device)
    each = _per_row(shape, generator.rows)
    whole = draw((each * generator.total, *rest), generator=generator, device=origin)
    start = each * generator.start
    return whole[start : start + first].to(device)


def _per_row(shape: Sequence[int], rows: int) -> int:
    each, remainder = divmod(shape[0], rows)
    if remainder:
        raise ValueError(f"cannot cut draws of shape {list(shape)} for {rows} rows of a batch")
    return each
