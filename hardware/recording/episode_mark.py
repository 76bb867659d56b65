"""Marks: where episodes begin and end in a recording, and how they went.

The recorder writes a mark into the bag, and publishes it on `recorder/mark`, when somebody calls a service or
publishes a command such as `start task=lift seed=7` or `success`. A mark is a `diagnostic_msgs/msg/DiagnosticStatus`:
`message` is the word, `hardware_id` the number of the episode in the bag, the values are its time and facts given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from robot_rl.hardware.ros2 import messages

TOPIC = "recorder/mark"
TYPE = "diagnostic_msgs/msg/DiagnosticStatus"

Word = Literal["start", "stop", "success", "failure", "discard"]
WORDS: tuple[Word, ...] = get_args(Word)
VERDICTS = {"stop": None, "success": True, "failure": False}
"""What a closing word says of the episode."""


class MarkError(ValueError):
    """A command to the recorder that means nothing; the message says what was expected."""


@dataclass(frozen=True)
class Mark:
    """`start` opens an episode; the others close it or judge the one closed last, `discard` by dropping it.

    Attributes:
        time: on the recorder's clock [s].
        episode: its number in the bag, from 1.
        facts: JSON types, kept with the episode: task, seed, operator, text, ...
    """

    word: Word
    time: float
    episode: int
    facts: Mapping[str, Any] = field(default_factory=dict)


def parse(command: str) -> tuple[Word, dict[str, Any]]:
    """Word and facts of a command such as `start task=lift seed=7`; values are JSON or else text.

    Raises:
        MarkError: no such word, or something that is no `key=value`.
    """
    word, *pairs = command.split() or [""]
    known = next((name for name in WORDS if name == word), None)
    if known is None:
        raise MarkError(f"expected one of {', '.join(WORDS)}, and facts such as task=lift; got {command!r}")
    facts = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise MarkError(f"{word}: expected key=value without blanks, got {pair!r}")
        try:
            facts[key] = json.loads(value)
        except json.JSONDecodeError:
            facts[key] = value
    return known, facts


def encode(mark: Mark) -> Any:
    """The message of a mark."""
    plain = {"time": mark.time, **mark.facts}
    values = [messages.make("diagnostic_msgs/msg/KeyValue", key=k, value=json.dumps(v)) for k, v in plain.items()]
    return messages.make(TYPE, name="episode", message=mark.word, hardware_id=str(mark.episode), values=values)


def decode(message: Any) -> Mark:
    """The mark in a message.

    Raises:
        MarkError: it is none.
    """
    try:
        facts = {pair.key: json.loads(pair.value) for pair in message.values}
        (word,) = (name for name in WORDS if name == message.message)
        time = float(facts.pop("time"))
        if not math.isfinite(time):
            raise ValueError(time)
        return Mark(word, time, int(message.hardware_id), facts)
    except (KeyError, TypeError, ValueError) as error:
        raise MarkError(f"{TOPIC}: no mark of an episode: {message}") from error
