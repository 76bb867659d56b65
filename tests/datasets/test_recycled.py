from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from robot_rl.datasets.recycled import RecycledMemory


def test_memory_returns_when_the_last_view_is_gone():
    memory = RecycledMemory(4)
    first = memory.empty((3, 1000), torch.float32)
    address = first.data_ptr()
    first.fill_(7)
    view = first[1:].transpose(0, 1)
    del first
    other = memory.empty((3, 1000), torch.float32).fill_(8)
    assert other.data_ptr() != address
    assert (view == 7).all()
    del view
    assert memory.empty((3, 1000), torch.float32).data_ptr() == address


def test_memory_held_by_numpy_or_by_a_gradient_is_not_handed_out():
    memory = RecycledMemory(4)
    array = memory.empty((100,), torch.uint8).numpy()
    assert memory.empty((100,), torch.uint8).data_ptr() != array.ctypes.data
    weight = torch.ones(50, requires_grad=True)
    values = memory.empty((50,), torch.float32).fill_(2)
    address, loss = values.data_ptr(), (weight * values).sum()
    del values
    assert memory.empty((50,), torch.float32).fill_(9).data_ptr() != address
    loss.backward()
    assert (weight.grad == 2).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.bool])
def test_shape_and_dtype(dtype):
    tensor = RecycledMemory(1).empty((2, 3, 4), dtype)
    assert (tuple(tensor.shape), tensor.dtype) == ((2, 3, 4), dtype)


def test_no_more_is_kept_than_said():
    memory = RecycledMemory(2)
    tensors = [memory.empty((10,), torch.uint8) for _ in range(5)]
    tensors.clear()
    assert len(memory._spare) == 2
    assert not pickle.loads(pickle.dumps(memory))._spare


def test_threads_never_share_memory():
    memory = RecycledMemory(8)

    def use(number: int) -> bool:
        tensor = memory.empty((20_000,), torch.uint8).fill_(number % 251)
        return bool((tensor == number % 251).all())

    def results() -> Iterator[bool]:
        with ThreadPoolExecutor(4) as pool:
            yield from pool.map(use, range(500))

    assert all(results())
