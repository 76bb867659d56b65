"""Inference beside the control loop: a policy computed in a process of its own, which the loop never waits for.

    inference = Inference("runs/demo", wake=…)             # loads the policy, warms it up
    inference.submit(id, observation, prefix)              # returns at once
    for event in inference.events():                       # returns at once; `wake` is called when there are some
        ...                                                # an Answer with the chunk, a Failure, or Ready again

A process rather than a thread: while PyTorch computes in a thread of the same interpreter, a loop that wakes up has to
wait for the interpreter's lock, up to its switch interval of 5 ms each time; a crash of a native library, or the kernel
that kills what needs too much memory, would take the loop with it; and a computation that hangs could not be ended.
Nothing of torch is loaded beside the loop.

One thread speaks with the process: it sends what was submitted, waits for the answer, and starts the process again when
it died, hung for longer than the time-out or failed. The process ends with its parent.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.datasets import Contract
from robot_rl.hardware.child_process import describe_exit, end_with_parent
from robot_rl.policies.correction import Correction
from robot_rl.policies.prefix import Prefix
from robot_rl.sim import message

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_ATTEMPTS = 3
_WARM_UP = 3  # chunks: the first ones take many times as long
_GRACE_S = 2.0


class InferenceError(RuntimeError):
    """The policy cannot be computed; the message holds what its process said last."""


@dataclass(frozen=True)
class Description:
    """What the loop has to know of a policy; enough for a `ChunkRunner`."""

    contract: Contract
    obs_horizon: int
    action_horizon: int
    action_offset: int
    prefix_max_length: int
    execute: int | None = None
    correction: Correction | None = None


@dataclass(frozen=True)
class Answer:
    """The chunk [1, H, A] float32 of a request, and the time that it took to compute [s]."""

    id: int
    chunk: NDArray[np.float32]
    seconds: float


@dataclass(frozen=True)
class Failure:
    """There will be no chunk for request `id` (None: none was awaited). `final`: nor for any other, it is given up."""

    id: int | None
    reason: str
    final: bool = False


@dataclass(frozen=True)
class Ready:
    """The process was started again and answers."""


Event = Answer | Failure | Ready


class Inference:
    """A policy in a process of its own.

    Args:
        path: a run folder, a checkpoint folder or an exported policy.
        device: of a policy in torch.
        threads: of the computation.
        guidance: how requests with a prefix are computed, see `Policy.sample`.
        timeout: longest time for one chunk [s]; a process that takes longer is killed and started again.
        start_timeout: longest time for loading the policy [s].
        wake: called, by another thread, when there are events.

    Attributes:
        policy: what was loaded.

    Raises:
        InferenceError: the policy cannot be loaded.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "cpu",
        threads: int = 1,
        guidance: float | None = None,
        timeout: float = 2.0,
        start_timeout: float = 120.0,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = {"path": str(path), "device": device, "threads": threads, "guidance": guidance}
        self._timeout, self._start_timeout, self._wake = timeout, start_timeout, wake
        self._seed: int | None = 0
        self._submitted: deque[dict[str, Any]] = deque()
        self._events: deque[Event] = deque()
        self._bell, self._ring = os.pipe()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._loaded = threading.Event()
        self._description: Description | None = None
        # The process is told to end with the thread that started it; this one lives as long as `self`.
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()
        self._loaded.wait()
        if self._description is None:
            failure = self._events.pop()
            self.close()
            raise InferenceError(failure.reason if isinstance(failure, Failure) else "cannot be started")
        self.policy: Description = self._description

    @property
    def pid(self) -> int | None:
        """Id of the process, None while there is none."""
        return None if self._process is None else self._process.pid

    def begin(self, seed: int) -> None:
        """Draw from a new generator from the next request on."""
        self._seed = seed

    def submit(self, request_id: int, observation: Mapping[str, NDArray[Any]], prefix: Prefix | None = None) -> None:
        """Ask for a chunk.

        Args:
            request_id: comes back with the answer.
            observation: by name [1, To, ...], see `ChunkRunner.request`.
        """
        held = None if prefix is None else [prefix.actions, prefix.weights, np.asarray(prefix.length)]
        seed, self._seed = self._seed, None
        self._submitted.append({"id": request_id, "observation": dict(observation), "prefix": held, "seed": seed})
        os.write(self._ring, b"x")

    def events(self) -> list[Event]:
        """What has happened since the last call, oldest first."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def close(self) -> None:
        """End the process."""
        if self._closed:
            return
        self._closed = True
        os.write(self._ring, b"x")
        self._thread.join()
        os.close(self._bell)
        os.close(self._ring)

    def _run(self) -> None:
        failed = 0
        while not self._closed:
            asked: int | None = None
            connection = None
            try:
                connection = self._start()
                if self._description is None:
                    self._description = self._load(connection)
                    self._loaded.set()
                else:
                    self._load(connection)
                    self._report(Ready())
                while True:
                    waited: list[Any] = [connection, self._bell]
                    readable, _, _ = select.select(waited, [], [])
                    if self._closed:
                        return
                    if connection in readable:  # nothing was asked: it has gone
                        raise EOFError
                    os.read(self._bell, 1)
                    request = self._submitted.popleft()
                    asked = request["id"]
                    answer = self._call(connection, request, self._timeout)
                    if "error" in answer:
                        self._report(Failure(asked, f"the policy failed: {answer['error']}"))
                    else:
                        self._report(Answer(answer["id"], answer["chunk"], answer["seconds"]))
                        failed = 0
                    asked = None
            except (EOFError, OSError, InferenceError) as error:
                reason = self._describe(error)
                failed += 1
                final = failed == _ATTEMPTS or self._description is None
                self._report(Failure(asked, reason, final))
                if final:
                    self._loaded.set()
                    return
            finally:
                if connection is not None:
                    connection.close()
                self._end()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        environment = {
            **os.environ,
            **dict.fromkeys(_THREADS, str(self._settings["threads"])),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        try:
            # A process group of its own, or Ctrl-C at a terminal would reach it before the arm has come to rest.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", "from robot_rl.hardware.inference import main; main()",
                 str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL, env=environment, process_group=0, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def _load(self, connection: socket.socket) -> Description:
        answer = self._call(connection, self._settings, self._start_timeout)
        if "error" in answer:
            raise InferenceError(answer["error"])
        correction = answer.pop("correction")
        return Description(
            **{**answer, "contract": Contract.from_dict(answer["contract"])},
            correction=None if correction is None else Correction.from_dict(correction),
        )

    def _call(self, connection: socket.socket, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        connection.settimeout(timeout)
        connection.sendall(message.encode(request))
        return dict(message.receive(connection))

    def _describe(self, error: Exception) -> str:
        if isinstance(error, InferenceError):
            return str(error)
        if isinstance(error, TimeoutError):
            waited = self._timeout if self._description is not None else self._start_timeout
            return f"the inference process gave no answer within {waited:g} s and was killed"
        return f"the inference process died: {self._end()}"

    def _end(self) -> str:
        if self._process is None:
            return "it could not be started"
        try:
            # One that has gone is only waited for; one that works or hangs has nothing to lose.
            self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return describe_exit(self._process.wait(_GRACE_S))

    def _report(self, event: Event) -> None:
        self._events.append(event)
        self._wake()


def main() -> None:
    """Serve one parent until it hangs up. Started by `Inference`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(signal.SIGKILL, int(sys.argv[2]))
    faulthandler.enable()
    connection = socket.socket(fileno=int(sys.argv[1]))
    server: _Server | None = None
    while True:
        try:
            request = message.receive(connection)
            try:
                if server is None:
                    server = _Server(**request)
                    answer = server.describe()
                else:
                    answer = server.answer(request)
            except Exception as error:
                if server is not None:
                    traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"}
            connection.sendall(message.encode(answer))
        except (EOFError, ConnectionError):
            return


class _Server:
    """The policy, in its process."""

    def __init__(self, path: str, device: str, threads: int, guidance: float | None) -> None:
        from robot_rl.policies.prediction import load, new_generator

        self._policy, _, _ = load(path, device, threads)
        self._guidance = guidance
        self._generator: Any = new_generator(self._policy, 0)
        contract, horizon = self._policy.contract, self._policy.obs_horizon
        nothing = {
            name: np.zeros((1, horizon, *feature.shape), feature.dtype)
            for name, feature in contract.observation.items()
        }
        for _ in range(_WARM_UP):
            self.answer({"id": 0, "observation": nothing, "prefix": None, "seed": None})

    def describe(self) -> dict[str, Any]:
        policy = self._policy
        keys = ("obs_horizon", "action_horizon", "action_offset", "prefix_max_length", "execute")
        correction = None if policy.correction is None else policy.correction.to_dict()
        described = {"contract": policy.contract.to_dict(), "correction": correction}
        return described | {key: getattr(policy, key) for key in keys}

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        from robot_rl.policies.prediction import new_generator, predict

        began = time.perf_counter()
        if request["seed"] is not None:
            self._generator = new_generator(self._policy, request["seed"])
        prefix = None if request["prefix"] is None else Prefix(*request["prefix"])
        guidance = None if prefix is None else self._guidance
        chunk = predict(self._policy, request["observation"], [self._generator], prefix, guidance)
        return {"id": request["id"], "chunk": chunk, "seconds": time.perf_counter() - began}
