"""The processes that train together: one, or several on one or more machines.

`accelerate launch` (or `torchrun`) starts them and says to each by environment variables who it is; they talk over NCCL
on CUDA and over gloo on the CPU.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Processes:
    """This process among all of them.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @staticmethod
    def join(device: str = "auto") -> Processes:
        """Find the device, and meet the other processes if there are any.

        Args:
            device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:<number>`.

        Raises:
            ValueError: the device is not there.
        """
        size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
        chosen = find_device(device)
        if size == 1:
            return Processes(0, 1, chosen)
        if chosen.type == "cuda":
            if local >= torch.cuda.device_count():
                raise ValueError(
                    f"process {local} of this machine has no GPU: {torch.cuda.device_count()} are visible. "
                    "Launch at most one process for each."
                )
            chosen = torch.device("cuda", local)
            torch.cuda.set_device(chosen)
        if not dist.is_initialized():
            # The others wait as long as the main process evaluates in simulation.
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(hours=2))
        return Processes(dist.get_rank(), size, chosen)

    @property
    def is_main(self) -> bool:
        """Whether this process logs and saves."""
        return self.rank == 0

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all must ask at the same moment."""
        return bool(self.total(torch.tensor(int(flag), device=self.device)).item()) if self.size > 1 else flag

    def wait(self) -> None:
        """Continue when all processes have come here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        """Part from the other processes."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def idle_cores(seconds: float = 0.2) -> int:
    """How many cores this process can have to itself: those idle during a short look, at least 1."""
    import psutil

    allowed = os.sched_getaffinity(0)
    busy = psutil.cpu_percent(seconds, percpu=True)
    idle = sum(1.0 - percent / 100.0 for core, percent in enumerate(busy) if core in allowed)
    return max(1, round(idle / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is CUDA where there is one.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device={name}: expected auto, cpu, cuda or cuda:<number>") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={name}: {torch.cuda.device_count()} CUDA devices are visible; use device=cpu or auto")
    return device
