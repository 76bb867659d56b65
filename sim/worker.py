"""A process that steps a group of environments on shared memory, and the handle by which its parent drives it.

The process is started afresh rather than forked: nothing of the parent's threads, OpenGL or torch comes along, and the
parent's main program is not imported again. Its memory has no name that could be left behind, and it ends when its
parent does, however that happens.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from typing import Any

from robot_rl.datasets.contract import Contract
from robot_rl.sim import message
from robot_rl.sim.env_group import EnvGroup, make_rows

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "LP_NUM_THREADS")
_GRACE_S = 5.0


class WorkerError(RuntimeError):
    """An environment process failed or died; the message holds its traceback, and its exit code where it ended."""


class SharedMemory:
    """Memory without a name, mapped here and by the workers that it is sent to."""

    def __init__(self, size: int) -> None:
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("robot_rl")
        else:
            with tempfile.TemporaryFile() as file:
                self.descriptor = os.dup(file.fileno())
        os.ftruncate(self.descriptor, size)
        self.view = memoryview(mmap.mmap(self.descriptor, size))

    def close(self) -> None:
        """Give up the descriptor; arrays that view the memory keep it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Worker:
    """A process with environments `start` to `stop`; each request has to be received before the next is sent.

    Args:
        factory, spec: see `EnvGroup`; the specification has to consist of JSON types.
    """

    def __init__(self, factory: str, spec: Any, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        message.encode(spec)  # Fails here, not with a process already running.
        ours, theirs = socket.socketpair()
        self._connection = ours
        self._crash = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {
            **os.environ,
            **dict.fromkeys(_ONE_THREAD, "1"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        arguments = [str(theirs.fileno()), str(self._crash.fileno())]
        try:
            # A process group of its own, or Ctrl-C at a terminal would reach it before the parent could close it.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", "from robot_rl.sim.worker import main; main()", *arguments],
                stdin=subprocess.DEVNULL, env=environment, process_group=0,
                pass_fds=(theirs.fileno(), self._crash.fileno()),
            )  # fmt: skip
        except BaseException:
            ours.close()
            self._crash.close()
            raise
        finally:
            theirs.close()
        self.send({"factory": factory, "spec": spec, "count": stop - start})

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    def send(self, request: Mapping[str, Any] | None) -> None:
        """Ask for something; None asks for a step."""
        try:
            self._connection.sendall(message.encode(request))
        except OSError:
            raise self._death() from None

    def receive(self) -> Any:
        """The answer to the last request.

        Raises:
            WorkerError: the environment raised, or the process has died.
        """
        try:
            answer = message.receive(self._connection)
        except (EOFError, OSError):
            raise self._death() from None
        if isinstance(answer, dict) and "error" in answer:
            raise WorkerError(f"environments {self._range} failed:\n{answer['error']}")
        return answer

    def attach(self, memory: SharedMemory, contract: Contract, num_envs: int) -> None:
        """Let the environments work on their rows of the memory."""
        self.send({"attach": contract.to_dict(), "num_envs": num_envs, "start": self.start, "stop": self.stop})
        socket.send_fds(self._connection, [b"m"], [memory.descriptor])
        self.receive()

    def hang_up(self) -> None:
        """Let the process end, without waiting for it."""
        self._connection.close()

    def join(self) -> None:
        """Wait for the process to end, and kill it if it does not."""
        self.hang_up()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._crash.close()

    @property
    def _range(self) -> str:
        return f"{self.start} to {self.stop - 1} (process {self.pid})"

    def _death(self) -> WorkerError:
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return WorkerError(f"environments {self._range} do not answer any more")
        self._crash.seek(0)
        trace = self._crash.read().decode(errors="replace").strip()
        ended = f"exit code {code}" if code >= 0 else f"exit code {code}, {signal.Signals(-code).name}"
        advice = ""
        if code == -signal.SIGKILL:
            advice = "; the system kills processes when memory runs out: use fewer environments or processes"
        return WorkerError(f"environments {self._range} died: {ended}{advice}" + (f"\n{trace}" if trace else ""))


def main() -> None:
    """Serve one parent until it hangs up. Started by `Worker`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    faulthandler.enable(os.fdopen(int(sys.argv[2]), "w"))
    group: EnvGroup | None = None
    try:
        while True:
            request = message.receive(connection)
            try:
                if group is None:
                    group = EnvGroup(**request)
                    answer: Any = {"contract": group.contract.to_dict(), "spec": group.specification}
                else:
                    answer = _answer(group, request, connection)
                payload = message.encode(answer)
            except Exception:
                payload = message.encode({"error": traceback.format_exc()})
            connection.sendall(payload)
    except (EOFError, ConnectionError):
        pass
    finally:
        if group is not None:
            group.close()


def _answer(group: EnvGroup, request: dict[str, Any] | None, connection: socket.socket) -> Any:
    if request is None:
        return list(group.step().items()) or None
    if "reset" in request:
        return list(group.reset(dict(request["reset"]), request["options"]).items())
    if "call" in request:
        return list(group.call(request["call"], dict(request["arguments"])).items())
    _, (descriptor,), _, _ = socket.recv_fds(connection, 1, 1)
    memory = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    rows = make_rows(Contract.from_dict(request["attach"]), request["num_envs"], memoryview(memory))
    group.rows = rows.part(request["start"], request["stop"])
    return None
