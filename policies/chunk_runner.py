"""The chunk runner: the only place that knows how chunks of actions are executed.

A pure state machine over N environments, without threads, clock or network: synchronous simulation, reinforcement
learning and an asynchronous robot drive it alike.

    runner.observe(observation)                     # every control step, before the action
    if request := runner.request():                 # some environments need a chunk
        runner.deliver(request.id, predict(request.observation))     # now, or some steps later
    action = runner.next_action()                   # [N, A]

Time is counted in executed actions. A chunk belongs to the observation it was computed from: its element j is the
action for step `t + action_offset + j`, t being the number of actions executed when that observation arrived. However
long the prediction took, a delivered chunk therefore continues exactly where execution stands. Steps on which an
environment was starved and held do not count: the robot waited, and its plan waits with it.

Modes:

- `receding_horizon`: the first `execute` actions of a chunk, then the next chunk (Chi et al., 2023).
- `temporal_ensembling`: all chunks that cover a step, averaged with weights exp(-decay·i), i = 0 for the oldest; a new
  chunk at every step unless `execute` says otherwise (Zhao et al., 2023).
- `asynchronous`: a new chunk is requested after `execute` actions, and the old one goes on until it has come. Nothing
  makes the new one continue the old one.
- `real_time`: the same, and the request carries the actions that are committed until it can be answered, which the new
  chunk is to continue (Black et al., 2025, arXiv:2506.07339).

While a chunk is computed, `receding_horizon` has nothing left to execute: a robot for which that takes longer than a
step holds still meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_rl.datasets import Contract
from robot_rl.policies.correction import Correction
from robot_rl.policies.prefix import Prefix

Mode = Literal["receding_horizon", "temporal_ensembling", "asynchronous", "real_time"]

_NEVER = -(1 << 40)  # a step before all steps, as the start of a chunk that does not exist
_REMEMBERED_DELAYS = 10  # the buffer of recent delays in Black et al., whose maximum is the forecast


class StarvedError(RuntimeError):
    """No action is left for some environments. `envs` holds their indices."""

    def __init__(self, envs: NDArray[np.int64]) -> None:
        self.envs = envs
        super().__init__(
            f"no action is left for environments {envs.tolist()}: deliver the chunk that request() asked for before "
            "next_action(), or pass `hold` to say what they do meanwhile"
        )


class UnknownRequestError(ValueError):
    """A chunk was delivered, or a request cancelled, that nobody waits for."""


class Chunked(Protocol):
    """What the runner needs to know of a policy."""

    @property
    def contract(self) -> Contract: ...
    @property
    def obs_horizon(self) -> int: ...
    @property
    def action_horizon(self) -> int: ...
    @property
    def action_offset(self) -> int: ...
    @property
    def prefix_max_length(self) -> int: ...
    @property
    def execute(self) -> int | None: ...
    @property
    def correction(self) -> Correction | None: ...


@dataclass(frozen=True)
class Request:
    """A chunk is wanted for `envs`, from the observations up to now.

    Attributes:
        id: to be handed back with the chunk.
        envs: int64 [n], the environments in the order of all other arrays.
        observation: by name [n, To, ...], the newest last; before the first observation, that one repeated.
        prefix: what is already decided; None unless the mode is `real_time`.
    """

    id: int
    envs: NDArray[np.int64]
    observation: dict[str, NDArray[Any]]
    prefix: Prefix | None


@dataclass
class _Outstanding:
    envs: NDArray[np.int64]
    lives: NDArray[np.int64]  # of each environment when it asked: a flush starts a new life
    step: NDArray[np.int64]
    ticks: NDArray[np.int64]


class ChunkRunner:
    """Executes chunks of actions for N environments, each with its own queue and history.

    Args:
        policy: gives To (`obs_horizon`), H (`action_horizon`), A, the step of a chunk's first action relative to the
            last observation (`action_offset`, at most 0), how many actions it was trained to continue, how many it was
            made to `execute`, and the `correction` that each action takes from the newest observation.
        num_envs: N.
        execute: actions of a chunk before the next is requested; by default 1 for temporal ensembling, for the receding
            horizon what the policy was made for, else half of H.
        mode: see the module.
        decay: of the ensembling weights with a chunk's rank of age.
        delay: first forecast of the control steps that it takes to compute a chunk; then those measured count.

    Raises:
        ValueError: the chunk has fewer than `execute` actions that can be executed, or `delay` is so long that the next
            chunk would be wanted before the last one has come, or come after the last one has ended.
    """

    def __init__(
        self,
        policy: Chunked,
        num_envs: int,
        *,
        execute: int | None = None,
        mode: Mode = "receding_horizon",
        decay: float = 0.01,
        delay: int = 0,
    ) -> None:
        action_horizon, action_offset = policy.action_horizon, policy.action_offset
        usable = action_horizon + action_offset
        if execute is None:
            execute = 1 if mode == "temporal_ensembling" else max(1, min(usable, action_horizon // 2))
            if mode == "receding_horizon":
                execute = policy.execute or execute
        if mode not in get_args(Mode):
            raise ValueError(f"mode: expected one of {', '.join(get_args(Mode))}; got {mode!r}")
        if num_envs < 1 or delay < 0:
            raise ValueError(f"expected num_envs of at least 1 and delay of at least 0, got {num_envs} and {delay}")
        if action_offset > 0:
            raise ValueError(
                f"action_offset: expected at most 0 (the action at the last observation), got {action_offset}"
            )
        if not 1 <= execute <= usable:
            raise ValueError(
                f"execute: a chunk of {action_horizon} actions from offset {action_offset} has {usable} that can be "
                f"executed; got execute={execute}"
            )
        if mode in ("asynchronous", "real_time") and not delay <= execute <= usable - delay:
            raise ValueError(
                f"execute: with chunks that take {delay} steps to compute, of which {usable} actions can be executed, "
                f"expected delay <= execute <= {usable} - delay, got execute={execute}; "
                + (f"choose {max(delay, 1)} to {usable - delay}" if 2 * delay <= usable else "train longer chunks")
            )
        longest = policy.prefix_max_length
        if mode == "real_time" and 0 < longest < delay - action_offset:
            raise ValueError(
                f"delay: the policy was trained to continue at most {longest} actions, and chunks that take {delay} "
                f"steps to compute need {delay - action_offset}; train it with a longer policy.prefix.max_length"
            )
        self.num_envs, self.execute, self.decay = num_envs, execute, decay
        self.mode: Mode = mode
        self.obs_horizon, self.action_horizon, self.action_offset = policy.obs_horizon, action_horizon, action_offset
        self.action_dim = action_dim = policy.contract.action_dim
        self._correction = policy.correction
        self._longest_prefix = longest or action_horizon
        self._limit = execute - action_offset if mode == "receding_horizon" else action_horizon
        self._slots = -(-action_horizon // execute) if mode == "temporal_ensembling" else 1
        self._history: dict[str, NDArray[Any]] = {}
        self._chunks = np.zeros((num_envs, self._slots, action_horizon, action_dim), np.float32)
        self._starts = np.full((num_envs, self._slots), _NEVER)
        self._executed = np.zeros(num_envs, np.int64)
        self._observed = np.full(num_envs, _NEVER)  # the step of the last observation
        self._asked = np.full(num_envs, _NEVER)  # the step of the last request
        self._waiting = np.zeros(num_envs, np.bool_)
        self._lives = np.zeros(num_envs, np.int64)
        self._past = np.zeros((num_envs, action_horizon, action_dim), np.float32)  # executed actions, the newest last
        self._outstanding: dict[int, _Outstanding] = {}
        self._next_id = 0
        self._ticks = np.zeros(num_envs, np.int64)  # control steps, also those in which it held
        self._delays = np.full((num_envs, _REMEMBERED_DELAYS), delay)
        self._starved = np.zeros(num_envs, np.bool_)
        self._source = np.full(num_envs, _NEVER)  # the start of the newest chunk in the last action
        self._switched = np.zeros(num_envs, np.bool_)

    @property
    def executed(self) -> NDArray[np.int64]:
        """Actions executed by each environment since it was flushed, [N]."""
        return self._executed.copy()

    @property
    def starved(self) -> NDArray[np.bool_]:
        """Which environments held in the last `next_action`, for want of an action, [N]."""
        return self._starved.copy()

    @property
    def switched(self) -> NDArray[np.bool_]:
        """Which environments passed on to a newer chunk with the last action, [N]: where seams are."""
        return self._switched.copy()

    @property
    def delay(self) -> NDArray[np.int64]:
        """Forecast of the control steps that it takes to compute a chunk, the most among the last ten, [N]."""
        return np.asarray(self._delays.max(axis=1))

    @property
    def attentive(self) -> NDArray[np.bool_]:
        """Which environments may ask for a chunk from the observation that comes next, or from a history with it, [N].

        Pictures in the others' next observation are seen by nobody, unless `renew` makes them ask earlier.
        """
        return np.asarray(self._executed - self._asked > self.execute - self.obs_horizon)

    def observe(self, observation: Mapping[str, ArrayLike], mask: NDArray[np.bool_] | None = None) -> None:
        """Take the observation {name: [N, ...]} of the step that comes next; rows outside `mask` [N] are ignored."""
        arrays = {name: np.asarray(value) for name, value in observation.items()}
        for name, value in arrays.items():
            if value.shape[:1] != (self.num_envs,):
                raise ValueError(f"observation {name!r}: expected {self.num_envs} rows, got shape {list(value.shape)}")
        if not self._history:
            self._history = {
                name: np.zeros((self.num_envs, self.obs_horizon, *value.shape[1:]), value.dtype)
                for name, value in arrays.items()
            }
        if arrays.keys() != self._history.keys():
            raise ValueError(f"observation: expected {', '.join(self._history)}; got {', '.join(arrays)}")
        envs = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
        first = envs[self._observed[envs] == _NEVER]
        for name, value in arrays.items():
            history = self._history[name]
            if value.shape[1:] != history.shape[2:]:
                raise ValueError(
                    f"observation {name!r}: expected rows {list(history.shape[2:])}, got {list(value.shape[1:])}"
                )
            history[envs, :-1] = history[envs, 1:]
            history[envs, -1] = value[envs]
            history[first] = value[first, None]
        self._observed[envs] = self._executed[envs]

    def request(self) -> Request | None:
        """The environments that need a chunk now and do not wait for one already, or None if there are none."""
        due = ~self._waiting & (self._observed != _NEVER) & (self._observed - self._asked >= self.execute)
        envs = np.flatnonzero(due)
        if not envs.size:
            return None
        step = self._observed[envs]
        self._asked[envs], self._waiting[envs] = step, True
        self._outstanding[self._next_id] = _Outstanding(envs, self._lives[envs], step, self._ticks[envs])
        self._next_id += 1
        prefix = self._committed(envs, step) if self.mode == "real_time" else None
        history = {name: value[envs] for name, value in self._history.items()}
        return Request(self._next_id - 1, envs, history, prefix)

    def deliver(self, request_id: int, chunk: ArrayLike) -> NDArray[np.bool_]:
        """Hand over the chunk [n, H, A] of a request. Returns which of its environments took it, [n].

        An environment that was flushed since it asked does not take it.

        Raises:
            UnknownRequestError: nobody waits for this chunk; nothing has changed.
            ValueError: wrong shape or numbers that are not finite; the request still stands.
        """
        chunk = np.asarray(chunk, np.float32)
        outstanding = self._find(request_id)
        expected = (len(outstanding.envs), self.action_horizon, self.action_dim)
        if chunk.shape != expected:
            raise ValueError(f"chunk of request {request_id}: expected shape {list(expected)}, got {list(chunk.shape)}")
        if not np.isfinite(chunk).all():
            raise ValueError(f"chunk of request {request_id}: some actions are not finite")
        del self._outstanding[request_id]
        alive = outstanding.lives == self._lives[outstanding.envs]
        envs, step = outstanding.envs[alive], outstanding.step[alive]
        slot = np.argmin(self._starts[envs], axis=1)
        self._chunks[envs, slot] = chunk[alive]
        self._starts[envs, slot] = step + self.action_offset
        self._waiting[envs] = False
        self._delays[envs, :-1] = self._delays[envs, 1:]
        self._delays[envs, -1] = self._ticks[envs] - outstanding.ticks[alive]
        return np.asarray(alive)

    def history(self, envs: ArrayLike) -> dict[str, NDArray[Any]]:
        """The observations {name: [n, To, ...]} of some environments, as a request would hold them now."""
        return {name: value[np.asarray(envs)] for name, value in self._history.items()}

    def renew(self, mask: NDArray[np.bool_] | None = None) -> None:
        """Let environments, by default all, ask for a chunk at the next request, whatever is left of theirs."""
        self._asked[~self._waiting if mask is None else ~self._waiting & mask] = _NEVER

    def cancel(self, request_id: int) -> None:
        """Give up a request, for example because the policy's process died: its environments will ask again."""
        outstanding = self._find(request_id)
        del self._outstanding[request_id]
        alive = outstanding.lives == self._lives[outstanding.envs]
        envs = outstanding.envs[alive]
        self._waiting[envs] = False
        self._asked[envs] = _NEVER

    def next_action(self, mask: NDArray[np.bool_] | None = None, hold: ArrayLike | None = None) -> NDArray[np.float32]:
        """The next action of each environment, float32 [N, A], counted as executed; NaN outside `mask` [N].

        Args:
            mask: environments that move on; by default all.
            hold: [N, A], the actions of environments that have none left; they do not count as executed.

        Raises:
            StarvedError: an environment has no action and `hold` is None. No environment has moved on.
        """
        active = np.ones(self.num_envs, np.bool_) if mask is None else np.asarray(mask, np.bool_)
        index = self._executed[:, None] - self._starts
        usable = index < self._limit
        starved = active & ~usable.any(axis=1)
        action = np.full((self.num_envs, self.action_dim), np.nan, np.float32)
        if starved.any():
            if hold is None:
                raise StarvedError(np.flatnonzero(starved))
            action[starved] = np.asarray(hold, np.float32)[starved]
            if not np.isfinite(action[starved]).all():
                raise ValueError(f"hold: not finite for environments {np.flatnonzero(starved).tolist()}")
        envs = np.flatnonzero(active & ~starved)
        action[envs] = self._planned(envs, index[envs], usable[envs])
        if self._correction is not None:
            seen = {name: value[envs, -1] for name, value in self._history.items()}
            action[envs] = self._correction(seen, action[envs])
        self._executed[envs] += 1
        self._ticks[active] += 1
        self._starved = starved
        newest = np.where(usable, self._starts, _NEVER).max(axis=1)[envs]
        self._switched = np.zeros(self.num_envs, np.bool_)
        self._switched[envs] = (newest != self._source[envs]) & (self._source[envs] != _NEVER)
        self._source[envs] = newest
        if self.mode == "real_time":
            self._past[envs, :-1] = self._past[envs, 1:]
            self._past[envs, -1] = action[envs]
        return action

    def flush(self, envs: ArrayLike | None = None) -> None:
        """Forget history, queue and awaited chunks of `envs` (indices, or mask [N]; default all): an episode ended."""
        index = np.arange(self.num_envs) if envs is None else np.asarray(envs)
        chosen = np.flatnonzero(index) if index.dtype == np.bool_ else index.astype(np.int64)
        self._starts[chosen] = self._observed[chosen] = self._asked[chosen] = self._source[chosen] = _NEVER
        self._executed[chosen] = 0
        self._waiting[chosen] = False
        self._lives[chosen] += 1

    def _find(self, request_id: int) -> _Outstanding:
        if request_id not in self._outstanding:
            known = 0 <= request_id < self._next_id
            reason = "it was answered or cancelled before" if known else "it was never made"
            raise UnknownRequestError(f"request {request_id} is not waiting for a chunk: {reason}")
        return self._outstanding[request_id]

    def _planned(
        self, envs: NDArray[np.int64], index: NDArray[np.int64], usable: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """The actions [n, A] that stand at `index` [n, K] of the chunks, averaged over those `usable` [n, K]."""
        if self._slots == 1:
            return np.asarray(self._chunks[envs, 0, index[:, 0]])
        slots = np.arange(self._slots)
        actions = self._chunks[envs[:, None], slots, np.where(usable, index, 0)]
        older = usable[:, None, :] & (index[:, None, :] > index[:, :, None])
        weights = np.where(usable, np.exp(-self.decay * older.sum(axis=2)), 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        return np.asarray(np.einsum("nk,nka->na", weights, actions), np.float32)

    def _committed(self, envs: NDArray[np.int64], at: NDArray[np.int64]) -> Prefix:
        """What is known of the chunks from the observations of step `at` [n]; weights by eq. 5 of Black et al."""
        H, rows = self.action_horizon, envs[:, None]
        place = np.arange(H)
        step = at[:, None] + self.action_offset + place
        executed, start = self._executed[rows], self._starts[envs]
        end = np.maximum(start + H, executed)  # the first step of which nothing is known, [n, 1]
        # Before the episode its first action stands, behind the plan its last one: as training windows are padded.
        past = np.clip(step - executed + H, H - np.clip(executed, 1, H), H - 1)
        planned = np.clip(step - start, 0, H - 1)
        from_past = (step < executed) | (end == executed)
        actions = np.where(from_past[..., None], self._past[rows, past], self._chunks[rows, 0, planned])
        soon = np.minimum(executed + self.delay[envs, None], end)
        committed = (step < soon) & (end > 0) & (place < self._longest_prefix)
        length, last = committed.sum(axis=1, keepdims=True), ((step < end) & (end > 0)).sum(axis=1, keepdims=True)
        c = np.clip((last - place) / np.maximum(last - length + 1, 1), 0.0, 1.0)
        weights = np.where(committed, 1.0, c * np.expm1(c) / np.expm1(1.0))
        actions = np.where((weights > 0)[..., None], actions, 0)
        return Prefix(actions.astype(np.float32), weights.astype(np.float32), length[:, 0])
