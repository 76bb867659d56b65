"""The channel over a pair of sockets: both sides prove themselves, and nothing else passes."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress

import pytest

from robot_rl.rl.apart import channel as module
from robot_rl.rl.apart.channel import PROTOCOL, AccessError, Channel, ChannelError
from robot_rl.rl.apart.messages import MessageError

SECRET = b"0123456789abcdef"


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Of the learner and of the actor."""
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        yield ours, theirs


def together(one: Callable[[], Channel], other: Callable[[], object]) -> tuple[Future[Channel], Future[object]]:
    """Both at the same time, to their end."""
    with ThreadPoolExecutor(2) as threads:
        return threads.submit(one), threads.submit(other)


def pair(sockets: tuple[socket.socket, socket.socket], largest: int = 1000) -> tuple[Channel, Channel]:
    learner, actor = together(
        lambda: Channel(sockets[0], SECRET, True, largest), lambda: Channel(sockets[1], SECRET, False)
    )
    made = actor.result()
    assert isinstance(made, Channel)
    return learner.result(), made


def test_messages_pass_both_ways_in_their_order(sockets: tuple[socket.socket, socket.socket]) -> None:
    learner, actor = pair(sockets)
    for content in (b"one", b"", b"x" * 1000):
        actor.send(content)
    assert [learner.receive() for _ in range(3)] == [b"one", b"", b"x" * 1000]
    learner.send(b"answer")
    assert actor.receive() == b"answer"


def test_another_secret_is_refused_on_both_sides(sockets: tuple[socket.socket, socket.socket]) -> None:
    learner, actor = together(
        lambda: Channel(sockets[0], SECRET, True), lambda: Channel(sockets[1], b"another secret..", False)
    )
    for side in (learner, actor):
        with pytest.raises(AccessError, match=r"do not share the secret; give both the same file"):
            side.result()
    assert sockets[0].fileno() == sockets[1].fileno() == -1


def test_another_version_is_refused_by_name(sockets: tuple[socket.socket, socket.socket]) -> None:
    sockets[1].sendall(b"robot_rl actors 9".ljust(32, b"\0") + bytes(32))
    with pytest.raises(AccessError, match=r"speaks b'robot_rl actors 9', expected b'robot_rl actors 2'"):
        Channel(sockets[0], SECRET, True)


def test_a_proof_sent_back_does_not_prove_anything(sockets: tuple[socket.socket, socket.socket]) -> None:
    """Who does not know the secret answers an actor with what the actor itself sent."""

    def mirror() -> None:
        for _ in range(2):
            sockets[0].sendall(sockets[0].recv(64, socket.MSG_WAITALL if _ == 0 else 0))

    actor, other = together(lambda: Channel(sockets[1], SECRET, False), mirror)
    other.result()
    with pytest.raises(AccessError, match="do not share the secret"):
        actor.result()


@pytest.mark.parametrize("trickles", [False, True])
def test_who_says_nothing_or_too_little_is_left(
    trickles: bool, sockets: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    stopped = threading.Event()

    def trickle() -> None:
        with suppress(OSError):
            for _ in range(60 if trickles else 0):  # fewer than a greeting has
                if not stopped.wait(0.01):
                    sockets[1].sendall(b"r")

    with ThreadPoolExecutor(1) as threads:
        threads.submit(trickle)
        with pytest.raises(ChannelError, match=r"did not prove itself within 0\.05 s"):
            Channel(sockets[0], SECRET, True)
        stopped.set()


def test_who_leaves_before_the_proof_may_come_again(sockets: tuple[socket.socket, socket.socket]) -> None:
    sockets[1].sendall(PROTOCOL.ljust(32, b"\0") + bytes(32))
    sockets[1].shutdown(socket.SHUT_WR)
    with pytest.raises(ChannelError, match="has gone, after 0 of 32 bytes") as raised:
        Channel(sockets[0], SECRET, True)
    assert not isinstance(raised.value, AccessError)


def test_large_messages_are_refused_before_they_are_read(sockets: tuple[socket.socket, socket.socket]) -> None:
    learner, actor = pair(sockets, largest=1000)
    with pytest.raises(MessageError, match="a message of 1001 bytes is too large: expected at most 1000"):
        learner.send(b"x" * 1001)
    actor.send(b"x" * 1001)
    with pytest.raises(ChannelError, match="a message of 1001 bytes was announced: expected at most 1000"):
        learner.receive()
    sockets[1].sendall(struct.pack("<Q", 2**63) + bytes(32))


def test_a_message_that_is_cut_off_is_none(sockets: tuple[socket.socket, socket.socket]) -> None:
    learner, _ = pair(sockets)
    sockets[1].sendall(struct.pack("<Q", 100) + bytes(32) + b"half")
    sockets[1].shutdown(socket.SHUT_WR)
    with pytest.raises(ChannelError, match="has gone, after 4 of 100 bytes"):
        learner.receive()


def test_what_was_changed_or_repeated_on_the_way_is_refused(sockets: tuple[socket.socket, socket.socket]) -> None:
    learner, actor = pair(sockets)
    actor.send(b"pay 1")
    sealed = sockets[0].recv(1000)
    sockets[1].sendall(sealed)
    assert learner.receive() == b"pay 1"
    sockets[1].sendall(sealed)
    with pytest.raises(ChannelError, match="not genuine"):
        learner.receive()


def test_one_changed_byte_is_noticed(sockets: tuple[socket.socket, socket.socket]) -> None:
    learner, actor = pair(sockets)
    actor.send(b"pay 1")
    sockets[1].sendall(sockets[0].recv(1000)[:-1] + b"9")
    with pytest.raises(ChannelError, match="not genuine"):
        learner.receive()
