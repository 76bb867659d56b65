"""A session in which a person records episodes: words in, orders and cues out. Pure, without clock or graph.

| state     | what happens                                       | goes on                                            |
|-----------|----------------------------------------------------|----------------------------------------------------|
| idle      | nobody records; the person may practise            | `record`: to countdown, after a reset where needed |
| resetting | scene and robot go to the start, always the same   | to countdown if that was asked for, else idle      |
| countdown | cues until the recording begins                    | to recording; any verdict: back to idle            |
| recording | the episode is recorded                            | `success`, `failure`, `discard`, `redo`, `stop`    |
| done      | as many episodes as wanted                         | a word about the last one may undo it              |

`redo` discards the episode and begins the same one again: the same seed, so the same scene. A verdict that comes after
the episode was closed corrects that one. Orders are for the node: `record <word>` goes to the recorder; `reset`,
`home`, `land`, `stop` and `clear` to robot and twin; a cue is for the person's ears and eyes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Phase = Literal["idle", "resetting", "countdown", "recording", "done"]
Verdict = Literal["success", "failure", "discard"]

_VERDICTS = {"success": "success", "failure": "failure", "discard": "discard", "redo": "discard", "stop": "failure"}


class Order(NamedTuple):
    """What the node has to do: `record`, `reset`, `home`, `land`, `stop`, `clear` or `cue`, with a text."""

    kind: Literal["record", "reset", "home", "land", "stop", "clear", "cue"]
    text: str = ""


@dataclass
class Statistics:
    """Of the episodes of this session.

    Attributes:
        verdicts: of the episodes, in order; those of earlier sessions are not among them.
        lengths: of the kept ones [s].
        seconds: since the first one began [s].
    """

    verdicts: list[Verdict] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def values(self) -> dict[str, str]:
        """For people: episodes per hour, share of successes, mean length."""
        kept = [verdict for verdict in self.verdicts if verdict != "discard"]
        success = kept.count("success") / len(kept) if kept else 0.0
        return {
            "kept": str(len(kept)),
            "discarded": str(len(self.verdicts) - len(kept)),
            "success": f"{success:.2f}",
            "episodes_per_hour": f"{3600.0 * len(kept) / self.seconds:.0f}" if self.seconds > 0 else "0",
            "mean_length": f"{sum(self.lengths) / len(self.lengths):.1f}" if self.lengths else "0.0",
        }


class RecordingSession:
    """Counts, times and orders; time is given with every call [s].

    Args:
        episodes: wanted; with `until_success` only successes count.
        recorded: that count already, from earlier sessions.
        until_success: whether failures are kept, but not counted.
        countdown: before each recording [s]; 0: none.
        auto: go on with the next episode after a verdict by itself.
        facts: kept with each episode: task, operator, text.
        seed: of the first scene; raised by one with each kept episode, or None without a twin.
        time_limit: after which an episode has failed [s]; 0: none.

    Attributes:
        phase: see the table.
        counted: episodes that count, of all sessions.
    """

    def __init__(
        self, episodes: int = 0, recorded: int = 0, until_success: bool = True, countdown: float = 3.0,
        auto: bool = False, facts: dict[str, str] | None = None, seed: int | None = None, time_limit: float = 0.0,
    ) -> None:  # fmt: skip
        self.episodes, self.counted, self.until_success = episodes, recorded, until_success
        self.countdown, self.auto, self.facts, self.seed = countdown, auto, dict(facts or {}), seed
        self.time_limit = time_limit
        self.phase: Phase = "done" if episodes and recorded >= episodes else "idle"
        self.cue = "enough episodes" if self.phase == "done" else "ready"
        self.statistics = Statistics()
        self._began = self._until = 0.0
        self._first: float | None = None
        self._said = 0
        self._clean = False  # whether scene and robot are where an episode begins
        self._goes_on = False  # whether the next episode begins by itself after the reset

    def hear(self, word: str, now: float) -> list[Order]:
        """A word of the person."""
        if word in ("stop", "clear", "home"):
            orders = self._end(word, now) if word == "stop" and self.phase == "recording" else []
            if word != "clear" and self.phase in ("countdown", "resetting"):
                self.phase = "idle"
            self._clean = False
            return [Order(word), *orders]  # type: ignore[arg-type]
        if word == "land":  # a flight that is recorded ends with a verdict, also on the ground
            if self.phase in ("countdown", "resetting"):
                self.phase = "idle"
            self._clean = False
            return [Order("land")]
        if word == "record" and self.phase == "idle":
            return self._begin(now)
        if word == "reset" and self.phase in ("idle", "countdown"):
            self.phase, self._clean = "resetting", False
            return [Order("reset", self._scene), self._cue("reset")]
        if word in _VERDICTS and self.phase == "recording":
            return self._end(word, now)
        if word in _VERDICTS and self.phase in ("countdown", "resetting"):
            self.phase = "idle"
            return [self._cue("cancelled")]
        if word in ("success", "failure", "discard") and self.statistics.verdicts:
            return self._correct(word)  # type: ignore[arg-type]
        return []

    def tick(self, now: float, ready: bool) -> list[Order]:
        """Time goes on; `ready`: scene and robot are where they were ordered to be."""
        if self._first is not None and self.phase != "done":
            self.statistics.seconds = now - self._first
        if self.phase == "resetting" and ready:
            self._clean = True
            if self.auto or self._goes_on:
                self._goes_on = False
                return self._begin(now)
            self.phase = "idle"
            return [self._cue("ready")]
        if self.phase == "countdown":
            left = self._until - now
            if left <= 0:
                return self._start(now)
            if int(left) + 1 < self._said:
                self._said = int(left) + 1
                return [self._cue(str(self._said))]
        if self.phase == "recording" and self.time_limit and now - self._began >= self.time_limit:
            return self._end("failure", now)
        return []

    def lost(self, now: float, why: str) -> list[Order]:
        """Resetting failed: the person has to look."""
        if self.phase in ("resetting", "countdown"):
            self.phase, self._clean = "idle", False
        return [self._cue(why)]

    def disturbed(self) -> None:
        """The robot was moved: before the next recording it goes to the start again."""
        self._clean = False

    def seconds(self, now: float) -> float:
        """Of the episode that is recorded [s], else 0."""
        return now - self._began if self.phase == "recording" else 0.0

    @property
    def _scene(self) -> str:
        return "" if self.seed is None else str(self.seed)

    def _begin(self, now: float) -> list[Order]:
        self._first = now if self._first is None else self._first
        if not self._clean:
            self.phase, self._goes_on = "resetting", True
            return [Order("reset", self._scene), self._cue("reset")]
        self.phase, self._until, self._said = "countdown", now + self.countdown, int(self.countdown + 0.999) + 1
        return self.tick(now, ready=True)

    def _start(self, now: float) -> list[Order]:
        self.phase, self._began = "recording", now
        facts = self.facts | ({} if self.seed is None else {"seed": str(self.seed)})
        return [Order("record", _mark("start", facts)), self._cue("recording")]

    def _end(self, word: str, now: float) -> list[Order]:
        verdict: Verdict = _VERDICTS[word]  # type: ignore[assignment]
        self.statistics.verdicts.append(verdict)
        if verdict != "discard":
            self.statistics.lengths.append(now - self._began)
        self._count(verdict, 1)
        if verdict != "discard" and self.seed is not None:
            self.seed += 1
        self._clean = False
        orders = [Order("record", verdict), self._cue(word)]
        if self.episodes and self.counted >= self.episodes:
            self.phase = "done"
            return [*orders, self._cue("enough episodes")]
        self._goes_on = word == "redo"
        if word == "stop":
            self.phase = "idle"
            return orders
        self.phase = "resetting"
        return [*orders, Order("reset", self._scene)]

    def _correct(self, verdict: Verdict) -> list[Order]:
        verdicts = self.statistics.verdicts
        if verdicts[-1] == "discard":
            return [self._cue("the last episode was discarded; it is gone")]
        self._count(verdicts[-1], -1)
        self._count(verdict, 1)
        verdicts[-1] = verdict
        if self.phase == "done" and self.counted < self.episodes:
            self.phase = "idle"
        return [Order("record", verdict), self._cue(f"the last episode: {verdict}")]

    def _count(self, verdict: Verdict, number: int) -> None:
        if verdict == "success" or (verdict == "failure" and not self.until_success):
            self.counted += number

    def _cue(self, text: str) -> Order:
        self.cue = text
        return Order("cue", text)


def _mark(word: str, facts: dict[str, str]) -> str:
    """As `recorder/command` takes it: values are JSON without blanks."""
    plain = {key: int(value) if key == "seed" else value for key, value in facts.items() if value}
    return " ".join([
        word,
        *(f"{key}={json.dumps(value).replace(' ', chr(92) + 'u0020')}" for key, value in plain.items()),
    ])
