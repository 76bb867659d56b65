"""A source against statuses written by hand: when it holds the lease, and when it lets go."""

from types import SimpleNamespace

import numpy as np
import pytest

from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.safety.source import SILENCE, Source
from robot_rl.hardware.safety.supervisor_messages import PROPOSAL, SOURCE, decode_proposal, decode_source, diagnostic

CONTRACT = RobotFile.load("panda").contract


class Graph:
    def __init__(self):
        self.time, self.sent = 10.0, {SOURCE: [], PROPOSAL: []}

    def now(self):
        return self.time

    def publisher(self, topic, *_):
        return SimpleNamespace(publish=self.sent[topic].append)

    def subscribe(self, topic, message_type, callback, qos):
        self.callback = callback

    def timer(self, period, callback):
        self.beat = callback

    def hear(self, state, token="", lease=0, reason="", **values):
        status = diagnostic("supervisor", 0, reason, {"state": state, "token": token, "lease": lease, **values})
        self.callback(SimpleNamespace(message=SimpleNamespace(status=[status]), received=self.time))

    @property
    def words(self):
        return [decode_source(message) for message in self.sent[SOURCE]]


@pytest.fixture
def granted():
    graph = Graph()
    source = Source(graph, "flow", "policy", CONTRACT)
    source.acquire()
    token = graph.words[-1].token
    graph.hear("ready", token, 4)
    return graph, source, token


def test_it_asks_until_it_is_granted_and_then_holds(granted):
    graph, source, _token = granted
    graph.beat()
    assert [(word.wish, word.lease) for word in graph.words] == [("acquire", 0), ("hold", 4)]
    assert source.propose(np.arange(8.0), 10.0)
    assert source.propose(np.arange(8.0), 10.05)
    proposals = [decode_proposal(message, CONTRACT.action_names) for message in graph.sent[PROPOSAL]]
    assert [(each.lease, each.sequence, each.stamp) for each in proposals] == [(4, 1, 10.0), (4, 2, 10.05)]
    np.testing.assert_array_equal(proposals[0].action, np.arange(8.0))


def test_a_lost_lease_is_not_asked_for_again(granted):
    graph, source, _token = granted
    graph.hear("intervening", "another", 5, "'mouse' takes over")
    assert (source.lease, source.reason) == (None, "'mouse' takes over")
    assert not source.propose(np.zeros(8), 10.0)
    count = len(graph.words)
    graph.beat()
    assert len(graph.words) == count


def test_what_was_given_back_is_not_taken_for_a_new_lease(granted):
    graph, source, token = granted
    source.release("done")
    graph.hear("running", token, 4)
    source.acquire()
    graph.hear("running", token, 4)
    assert source.lease is None
    graph.hear("ready", token, 5)
    assert source.lease == 5


def test_a_release_that_was_not_heard_is_repeated(granted):
    graph, source, token = granted
    source.release("done")
    graph.hear("running", token, 4)
    graph.beat()
    assert [word.wish for word in graph.words][-2:] == ["release", "release"]


def test_a_silent_supervisor_ends_the_lease(granted):
    graph, source, _token = granted
    graph.time += SILENCE + 0.1
    graph.beat()
    assert (source.lease, source.state, source.reason) == (None, "", "the Supervisor is silent")


def test_it_says_why_it_is_refused():
    graph = Graph()
    source = Source(graph, "flow", "policy", CONTRACT)
    source.acquire()
    graph.hear("idle", **{f"refused.{graph.words[0].token}": "home the arm first"})
    assert source.reason == "home the arm first"
