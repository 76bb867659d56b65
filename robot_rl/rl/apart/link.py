"""An actor's end of the connection: sends what was recorded, brings new parameters, and comes back after a crash."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from robot_rl.datasets import Contract
from robot_rl.rl.apart.channel import AccessError, Channel, ChannelError, keep_alive
from robot_rl.rl.apart.messages import (
    Arrays,
    Join,
    Message,
    MessageError,
    Poll,
    Refused,
    Reply,
    Welcome,
    decode,
    encode,
)
from robot_rl.rl.apart.outbox import Outbox
from robot_rl.rl.on_policy import FinetuneError

POLL = 0.5
"""Seconds between two questions for new parameters, when there is nothing to send."""
LONGEST_PAUSE = 5.0
"""Seconds between two tries to connect."""


@dataclass(frozen=True)
class News:
    """What the learner said last.

    Attributes:
        version, begin, finished: see `Reply`.
        arrays: parameters that were not taken yet; empty if there are none.
        waiting: episodes that are not acknowledged.
    """

    version: int
    begin: bool
    finished: bool
    arrays: Arrays
    waiting: int


class Link:
    """Connects by `meet`, then talks from a thread of its own, begun by `join`.

    Args:
        host, port: of the learner.
        say: is told when the learner is away, and back.
    """

    def __init__(self, host: str, port: int, secret: bytes, say: Callable[[str], None]) -> None:
        self._address, self._secret, self._say = (host, port), secret, say
        self._channel: Channel | None = None
        self._run = ""
        self._changed = threading.Condition()
        self._news: Reply | None = None
        self._fresh: Arrays = {}
        self._committed, self._acknowledged, self._stopped = 0, 0, False
        self._failure: Exception | None = None

    def meet(self, stopping: Callable[[], bool] = lambda: False) -> Welcome | None:
        """Connect, waiting for a learner as long as it takes; None if `stopping` says so first.

        Raises:
            AccessError: it is another protocol, or the secret is another.
            FinetuneError: the learner has begun another training since the first time.
        """
        pause, said = 0.1, False
        while not stopping():
            try:
                connection = _connect(self._address)
                self._channel = Channel(connection, self._secret, learner=False)
                welcome = decode(self._channel.receive(), Welcome)
            except AccessError:
                raise
            except OSError as error:
                if not said:
                    self._say(f"no learner at {self._address[0]}:{self._address[1]} ({error}); waiting for one")
                said = True
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped, pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if self._run not in ("", welcome.run):
                raise FinetuneError(
                    f"the learner at {self._address[0]}:{self._address[1]} has begun another training: expected "
                    f"{self._run}, got {welcome.run}. Start the actor again to take part in it"
                )
            self._run = welcome.run
            if said:
                self._say("found the learner")
            return welcome
        return None

    def join(self, outbox: Outbox, contract: Contract, success: str = "task") -> None:
        """Begin to talk; see `Join`."""
        join = Join(outbox.actor, contract.to_dict(), success)
        threading.Thread(target=self._talk, args=(outbox, join), daemon=True).start()

    def news(self, seconds: float = 0.0) -> News | None:
        """What the learner said last, and its parameters once; waits so long for it to say something new.

        Raises:
            AccessError, MessageError, FinetuneError: there is no going on with it.
        """
        with self._changed:
            before = self._news
            if seconds:
                self._changed.wait_for(lambda: self._news is not before or self._failure is not None, seconds)
            if self._failure is not None:
                raise self._failure
            if self._news is None:
                return None
            arrays, self._fresh = self._fresh, {}
            news = self._news
            return News(news.version, news.begin, news.finished, arrays, self._waiting)

    def recorded(self, number: int) -> None:
        """The episode of this number was committed to the actor's store."""
        with self._changed:
            self._committed = max(self._committed, number + 1)
            self._changed.notify_all()

    def close(self) -> None:
        """End the conversation."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._channel is not None:
            self._channel.close()

    @property
    def _waiting(self) -> int:
        return self._committed - self._acknowledged

    def _talk(self, outbox: Outbox, join: Join) -> None:
        try:
            while not self._stopped:
                assert self._channel is not None
                try:
                    self._converse(self._channel, outbox, join)
                    return
                except AccessError:
                    raise
                except ChannelError as error:
                    if self._stopped:
                        return
                    self._say(f"the learner is away: {error}")
                self._channel.close()
                if self.meet(lambda: self._stopped) is None:
                    return
        except Exception as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _converse(self, channel: Channel, outbox: Outbox, join: Join) -> None:
        """From joining to the end of the training."""
        reply = _ask(channel, join)
        while True:
            outbox.acknowledge(reply.received)
            with self._changed:
                self._news, self._acknowledged = reply, reply.received
                self._committed = max(self._committed, reply.received + outbox.waiting)
                self._fresh = reply.arrays or self._fresh
                self._changed.notify_all()
                if reply.finished or self._stopped:
                    return
                if not self._waiting:
                    self._changed.wait_for(lambda: self._waiting > 0 or self._stopped, POLL)
            reply = _ask(channel, outbox.next(reply.version) or Poll(reply.version))


def _connect(address: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(address, timeout=LONGEST_PAUSE)
    if connection.getsockname() == connection.getpeername():
        # Where nobody listens, a socket that was given that very port as its own has connected to itself.
        connection.close()
        raise ConnectionRefusedError("nobody listens there")
    keep_alive(connection)
    return connection


def _ask(channel: Channel, message: Message) -> Reply:
    channel.send(encode(message))
    reply = decode(channel.receive(), Reply, Refused)
    if isinstance(reply, Refused):
        raise MessageError(f"the learner refuses this actor: {reply.reason}")
    return reply
