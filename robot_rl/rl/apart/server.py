"""The learner's end of all connections: threads answer actors, and hand their episodes to the learning thread."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress

from robot_rl.datasets import Contract, ContractError, equal
from robot_rl.rl.apart.channel import Channel, ChannelError, keep_alive
from robot_rl.rl.apart.messages import (
    Arrays,
    Join,
    MessageError,
    Poll,
    Recorded,
    Refused,
    Reply,
    Welcome,
    decode,
    encode,
    same_rewards,
)
from robot_rl.rl.on_policy import FinetuneError

MOST = 256
"""Connections at a time, those included that have not proved themselves yet."""
FAREWELL = 3.0
"""Seconds in which actors hear that the training is finished."""

Arrived = tuple[str, Recorded, "Future[None]"]
"""An episode of an actor, and what answers it: done when it is committed, or failed by a `MessageError`."""


class Server:
    """Listens from the beginning, and answers from the first `publish` on.

    Args:
        host, port: to listen at; port 0: a free one.
        contract: that the environments of every actor have to have.
        received: by actor, episodes that are committed; kept by the learning thread.
        say: is told who comes, goes, and is refused.

    Attributes:
        port: that it listens at.

    Raises:
        FinetuneError: nothing can be listened at there.
    """

    def __init__(
        self, host: str, port: int, secret: bytes, welcome: Welcome, contract: Contract, received: Mapping[str, int],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._secret, self._welcome, self._contract, self._received, self._say = (
            secret, encode(welcome), contract, received, say,
        )  # fmt: skip
        self._success = str(welcome.success["name"])
        self._arrived: queue.Queue[Arrived] = queue.Queue()
        self._published = Reply(0, 0, True, False)
        self._connections: set[socket.socket] = set()
        self._lock, self._closed = threading.Lock(), threading.Event()
        try:
            self._listener = socket.create_server((host, port))
        except (OSError, OverflowError) as error:
            raise FinetuneError(f"actors.host={host} actors.listen={port}: {error}") from error
        self.port = int(self._listener.getsockname()[1])
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def connected(self) -> int:
        """Connections that are open."""
        with self._lock:
            return len(self._connections)

    @property
    def answers(self) -> bool:
        """Whether anything was published, without which nobody is answered."""
        return self._accepting.ident is not None

    def publish(self, version: int, begin: bool, finished: bool, arrays: Arrays) -> None:
        """What actors get from now on, see `Reply`; the arrays stay as they are."""
        self._published = Reply(0, version, begin, finished, arrays)
        if not self.answers:
            self._accepting.start()

    def next(self, seconds: float) -> Arrived | None:
        """The next episode that has come, None if none does in this time."""
        try:
            return self._arrived.get(timeout=seconds)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Part from all actors; if the training is finished, after they had the time to hear so."""
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._published.finished:
            with suppress(queue.Empty):
                while True:  # they wait for an answer, which says that it is over
                    self._arrived.get_nowait()[2].set_result(None)
            waiting = threading.Event()
            for _ in range(int(FAREWELL / 0.05)):
                if not self.connected:
                    break
                waiting.wait(0.05)
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, address = self._listener.accept()
            except OSError:
                if self._closed.wait(0.1):
                    return
                continue
            with self._lock:
                full = len(self._connections) >= MOST
                if not full:
                    self._connections.add(connection)
            if full:
                connection.close()
                continue
            name = f"{address[0]}:{address[1]}"
            threading.Thread(target=self._serve, args=(connection, name), daemon=True).start()

    def _serve(self, connection: socket.socket, name: str) -> None:
        try:
            keep_alive(connection)
            channel = Channel(connection, self._secret, learner=True)
            try:
                self._converse(channel, name)
            finally:
                channel.close()
        except ChannelError as error:
            if not (self._closed.is_set() or self._published.finished):
                self._say(f"actor at {name}: {error}")
        except CancelledError:
            pass
        finally:
            connection.close()
            with self._lock:
                self._connections.discard(connection)

    def _converse(self, channel: Channel, name: str) -> None:
        channel.send(self._welcome)
        try:
            join = decode(channel.receive(), Join)
            equal(self._contract, Contract.from_dict(join.contract))
            same_rewards(self._success, join.success)
            self._say(f"actor {join.actor} at {name} has joined; {self._received.get(join.actor, 0)} of its episodes")
            version: int | None = None
            while True:
                channel.send(encode(self._reply(join.actor, version)))
                message = decode(channel.receive(), Recorded, Poll)
                version = message.version
                if isinstance(message, Recorded):
                    self._hand_over(join.actor, message)
        except (MessageError, ContractError) as error:
            self._say(f"actor at {name} is refused: {error}")
            channel.send(encode(Refused(str(error))))

    def _reply(self, actor: str, version: int | None) -> Reply:
        now = self._published
        arrays = now.arrays if version != now.version else {}
        return Reply(self._received.get(actor, 0), now.version, now.begin, now.finished, arrays)

    def _hand_over(self, actor: str, recorded: Recorded) -> None:
        """Wait until the episode is committed, for as long as it takes."""
        answer: Future[None] = Future()
        self._arrived.put((actor, recorded, answer))
        while True:
            try:
                return answer.result(0.5)
            except TimeoutError:
                if self._closed.is_set() and not self._published.finished:
                    raise CancelledError from None
                if self._published.finished:
                    return None
