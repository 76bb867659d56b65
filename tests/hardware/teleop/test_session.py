"""Recording sessions told as stories, and by what holds for every story."""

import json

from hypothesis import given
from hypothesis import strategies as st

from robot_rl.hardware.recording.episode_mark import parse
from robot_rl.hardware.teleop.device import WORDS
from robot_rl.hardware.teleop.session import RecordingSession


class Story:
    def __init__(self, **settings):
        self.session, self.now, self.orders = RecordingSession(**settings), 0.0, []

    def say(self, word):
        self.orders += self.session.hear(word, self.now)
        return self

    def wait(self, seconds, ready=True):
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.orders += self.session.tick(self.now, ready)
        return self

    def take(self, kind):
        texts = [order.text for order in self.orders if order.kind == kind]
        self.orders = [order for order in self.orders if order.kind != kind]
        return texts


def test_an_episode_from_reset_by_countdown_to_success():
    story = Story(countdown=2.0, seed=7, facts={"task": "lift", "text": "lift the red cube"})
    story.say("record")
    assert story.take("reset") == ["7"]
    story.wait(1.0, ready=False)
    assert story.session.phase == "resetting"
    story.wait(0.1)
    assert story.session.phase == "countdown"
    story.wait(3.0)
    assert story.take("cue") == ["reset", "2", "1", "recording"]
    (start,) = story.take("record")
    assert parse(start) == ("start", {"task": "lift", "text": "lift the red cube", "seed": 7})
    story.wait(4.0).say("success")
    assert story.take("record") == ["success"]
    assert story.take("reset") == ["8"]
    story.wait(0.5)
    assert (story.session.phase, story.session.counted) == ("idle", 1)
    values = story.session.statistics.values
    assert (values["kept"], values["success"]) == ("1", "1.00")
    assert 4.0 <= float(values["mean_length"]) <= 5.1


def test_redo_records_the_same_scene_again_by_itself():
    story = Story(countdown=0.0, seed=3).say("record").wait(0.2)
    story.say("redo").wait(0.2)
    assert story.session.phase == "recording"
    assert [parse(text)[1].get("seed") for text in story.take("record")] == [3, None, 3]
    assert story.session.statistics.values["discarded"] == "1"


def test_it_ends_with_enough_successes_and_a_late_word_undoes_that():
    story = Story(countdown=0.0, episodes=3, recorded=1, auto=True).say("record").wait(0.2)
    story.say("failure").wait(0.2).say("success").wait(0.2)
    assert (story.session.counted, story.session.phase) == (2, "recording")
    story.say("success")
    assert story.session.phase == "done"
    story.say("failure").wait(0.2)
    assert (story.session.counted, story.session.phase) == (2, "idle")
    assert story.take("record")[-2:] == ["success", "failure"]


def test_an_emergency_stop_fails_the_episode_and_waits_for_the_person():
    story = Story(countdown=0.0, auto=True).say("record").wait(0.2)
    story.orders.clear()
    story.say("stop")
    assert story.orders[0].kind == "stop"
    assert story.take("record") == ["failure"]
    assert story.wait(1.0).session.phase == "idle"


def test_a_failed_reset_and_a_time_limit():
    story = Story(time_limit=2.0, countdown=0.0).say("record")
    story.orders += story.session.lost(story.now, "the arm is blocked")
    assert story.session.phase == "idle"
    assert story.say("record").wait(0.1).session.phase == "recording"
    story.orders.clear()
    assert story.wait(3.0).take("record") == ["failure"]


def test_a_robot_that_was_moved_goes_to_the_start_before_it_is_recorded():
    story = Story(countdown=0.0).say("reset").wait(0.1)
    story.orders.clear()
    story.session.disturbed()
    assert story.say("record").take("reset") == [""]


@given(
    st.lists(st.one_of(st.sampled_from(sorted(WORDS)), st.floats(0.1, 2.0)), max_size=40),
    st.booleans(), st.integers(0, 3), st.booleans(),
)  # fmt: skip
def test_whatever_is_said_marks_alternate_and_only_what_was_kept_is_counted(script, auto, episodes, until_success):
    story = Story(auto=auto, episodes=episodes, until_success=until_success, countdown=0.3, seed=0)
    for item in script:
        story.say(item) if isinstance(item, str) else story.wait(item)
    open_, verdicts = False, []
    for word, facts in map(parse, story.take("record")):
        if word == "start":
            assert not open_
            open_ = True
            json.dumps(facts)
        elif open_:
            open_ = False
            verdicts.append(word)
        else:
            assert verdicts[-1] != "discard"
            verdicts[-1] = word
    assert open_ == (story.session.phase == "recording")
    assert verdicts == story.session.statistics.verdicts
    counting = {"success"} if until_success else {"success", "failure"}
    assert story.session.counted == sum(verdict in counting for verdict in verdicts)
