"""The chunk runner against a naive simulation of one environment, and against published formulas."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from robot_rl.datasets import Contract, Feature
from robot_rl.policies.chunk_runner import ChunkRunner, StarvedError, UnknownRequestError
from robot_rl.policies.correction import Correction

A = 2
CONTRACT = Contract("test", 10.0, {}, {"target": Feature("target", (A,), kind="action")})


@dataclasses.dataclass
class Horizons:
    """What the runner asks of a policy."""

    obs_horizon: int = 2
    action_horizon: int = 4
    action_offset: int = 0
    prefix_max_length: int = 0
    execute: int | None = None
    correction: Correction | None = None
    contract: Contract = CONTRACT


def runner(
    num_envs: int = 1, obs_horizon: int = 2, action_horizon: int = 4, action_offset: int = 0,
    prefix_max_length: int = 0, **settings,
):  # fmt: skip
    return ChunkRunner(Horizons(obs_horizon, action_horizon, action_offset, prefix_max_length), num_envs, **settings)


def observe(chunks: ChunkRunner, value: float = 0.0, mask: np.ndarray | None = None) -> None:
    chunks.observe({"x": np.full((chunks.num_envs, 1), value)}, mask)


def numbered(request, horizon: int, start: float = 0.0) -> np.ndarray:
    """Chunks whose element j is start + j, for every environment of a request."""
    return np.broadcast_to((start + np.arange(horizon))[None, :, None], (len(request.envs), horizon, A))


@dataclasses.dataclass
class NaiveEnv:
    """One environment as plain lists: every known action by its step."""

    horizon: int
    offset: int
    execute: int
    mode: str
    decay: float
    seen: list[float] = dataclasses.field(default_factory=list)
    done: list[np.ndarray] = dataclasses.field(default_factory=list)
    plans: list[tuple[int, np.ndarray]] = dataclasses.field(default_factory=list)  # (step of the observation, chunk)
    observed_at: int | None = None
    asked_at: int | None = None
    waiting: bool = False
    life: int = 0
    ticks: int = 0
    delays: list[int] = dataclasses.field(default_factory=lambda: [0] * 10)
    source: int | None = None

    def due(self) -> bool:
        if self.waiting or self.observed_at is None:
            return False
        return self.asked_at is None or self.observed_at >= self.asked_at + self.execute

    def action(self) -> np.ndarray | None:
        step, options = len(self.done), []
        used = self.plans if self.mode == "temporal_ensembling" else self.plans[-1:]
        for at, chunk in used:
            place = step - at - self.offset
            last = self.execute - self.offset if self.mode == "receding_horizon" else self.horizon
            if place < last:
                options.append(chunk[place])
        if not options:
            return None
        weights = [np.exp(-self.decay * age) for age in range(len(options))]
        return sum(w * o.astype(np.float64) for w, o in zip(weights, options, strict=True)) / sum(weights)

    def flush(self) -> None:
        life, ticks, delays = self.life + 1, self.ticks, self.delays
        self.__init__(self.horizon, self.offset, self.execute, self.mode, self.decay)
        self.life, self.ticks, self.delays = life, ticks, delays


class Comparison:
    """The runner beside N naive environments, called in any order."""

    def __init__(self, num_envs, obs_horizon, horizon, offset, execute, mode, seed):
        self.n, self.to, self.random = num_envs, obs_horizon, np.random.default_rng(seed)
        self.runner = runner(num_envs, obs_horizon, horizon, offset, execute=execute, mode=mode, decay=0.3)
        self.naive = [NaiveEnv(horizon, offset, execute, mode, 0.3) for _ in range(num_envs)]
        self.waiting: dict[int, list] = {}
        self.closed: list[int] = []

    def subset(self):
        return self.random.random(self.n) < self.random.choice([0.3, 1.0])

    def observe(self):
        mask, values = self.subset(), self.random.normal(size=(self.n, 1)).astype(np.float32)
        self.runner.observe({"x": values}, mask)
        for env in np.flatnonzero(mask):
            self.naive[env].seen.append(values[env, 0])
            self.naive[env].observed_at = len(self.naive[env].done)

    def request(self):
        request = self.runner.request()
        due = [env for env in range(self.n) if self.naive[env].due()]
        assert (request.envs.tolist() if request else []) == due
        if request is None:
            return
        for row, env in enumerate(due):
            naive = self.naive[env]
            padded = [naive.seen[0]] * self.to + naive.seen
            assert request.observation["x"][row, :, 0].tolist() == padded[-self.to :]
            naive.asked_at, naive.waiting = naive.observed_at, True
            assert (request.prefix is not None) == (naive.mode == "real_time")
            if request.prefix is not None:
                self.check_prefix(request.prefix, row, naive)
        self.waiting[request.id] = [
            (env, self.naive[env].life, self.naive[env].observed_at, self.naive[env].ticks) for env in due
        ]

    def check_prefix(self, prefix, row, naive):
        known = dict(enumerate(naive.done))
        for at, chunk in naive.plans[-1:]:
            for place in range(naive.horizon):
                known.setdefault(max(at + naive.offset + place, 0), chunk[place])
        first = naive.observed_at + naive.offset
        steps = [first + place for place in range(naive.horizon)]
        length = sum(max(step, 0) in known and step < len(naive.done) + max(naive.delays[-10:]) for step in steps)
        assert prefix.length[row] == length
        np.testing.assert_array_equal(prefix.weights[row, :length], 1)
        assert (np.diff(prefix.weights[row]) <= 1e-6).all()
        for place, step in enumerate(steps):
            # Before the episode its first action stands, as in training windows.
            expected = known.get(max(step, 0), np.zeros(A))
            np.testing.assert_array_equal(prefix.actions[row, place], expected)
            assert (prefix.weights[row, place] > 0) == (max(step, 0) in known)

    def deliver(self):
        if not self.waiting:
            return
        request_id = int(self.random.choice(list(self.waiting)))
        asked = self.waiting.pop(request_id)
        chunk = self.random.normal(size=(len(asked), self.naive[0].horizon, A)).astype(np.float32)
        took = self.runner.deliver(request_id, chunk)
        self.closed.append(request_id)
        for row, (env, life, step, tick) in enumerate(asked):
            naive = self.naive[env]
            assert took[row] == (naive.life == life)
            if naive.life == life:
                naive.plans.append((step, chunk[row]))
                naive.delays.append(naive.ticks - tick)
                naive.waiting = False

    def cancel(self):
        if not self.waiting:
            return
        request_id = int(self.random.choice(list(self.waiting)))
        self.runner.cancel(request_id)
        self.closed.append(request_id)
        for env, life, *_ in self.waiting.pop(request_id):
            if self.naive[env].life == life:
                self.naive[env].waiting, self.naive[env].asked_at = False, None

    def answer_again(self):
        if self.closed:
            with pytest.raises(UnknownRequestError, match="before"):
                self.runner.deliver(int(self.random.choice(self.closed)), np.zeros((1, 1, A)))

    def act(self):
        mask, holding = self.subset(), self.random.random() < 0.7
        expected = [naive.action() for naive in self.naive]
        starved = np.array([action is None for action in expected]) & mask
        hold = self.random.normal(size=(self.n, A)).astype(np.float32)
        if starved.any() and not holding:
            with pytest.raises(StarvedError) as error:
                self.runner.next_action(mask)
            assert error.value.envs.tolist() == np.flatnonzero(starved).tolist()
            return
        actions = self.runner.next_action(mask, hold)
        np.testing.assert_array_equal(self.runner.starved, starved)
        for env, naive in enumerate(self.naive):
            naive.ticks += int(mask[env])
            if not mask[env] or starved[env]:
                assert not self.runner.switched[env]
            else:
                newest = naive.plans[-1][0]
                assert self.runner.switched[env] == (naive.source not in (None, newest))
                naive.source = newest
            if not mask[env]:
                assert np.isnan(actions[env]).all()
            elif starved[env]:
                np.testing.assert_array_equal(actions[env], hold[env])
            else:
                np.testing.assert_allclose(actions[env], expected[env], rtol=1e-5, atol=1e-6)
                naive.done.append(actions[env].copy())

    def flush(self):
        mask = self.subset()
        self.runner.flush(mask)
        for env in np.flatnonzero(mask):
            self.naive[env].flush()


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    num_envs=st.integers(1, 3),
    obs_horizon=st.integers(1, 3),
    horizon=st.integers(1, 6),
    mode=st.sampled_from(["receding_horizon", "temporal_ensembling", "asynchronous", "real_time"]),
    seed=st.integers(0, 10_000),
)
def test_any_order_of_calls_gives_what_naive_environments_give(data, num_envs, obs_horizon, horizon, mode, seed):
    offset = -data.draw(st.integers(0, min(horizon - 1, 2)), label="-offset")
    execute = data.draw(st.integers(1, horizon + offset), label="execute")
    both = Comparison(num_envs, obs_horizon, horizon, offset, execute, mode, seed)
    rare, common = ["flush", "cancel", "answer_again"], ["observe", "request", "deliver", "act"]
    for call in both.random.choice(common + rare, size=80, p=[0.23] * 4 + [0.02, 0.03, 0.03]):
        getattr(both, call)()
        assert both.runner.executed.tolist() == [len(naive.done) for naive in both.naive]


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    obs_horizon=st.integers(1, 3),
    horizon=st.integers(1, 8),
    mode=st.sampled_from(["receding_horizon", "temporal_ensembling", "asynchronous", "real_time"]),
    seed=st.integers(0, 10_000),
)
def test_what_an_inattentive_environment_misses_is_in_no_request(data, obs_horizon, horizon, mode, seed):
    execute, random = data.draw(st.integers(1, horizon), label="execute"), np.random.default_rng(seed)
    latency = data.draw(st.integers(0, min(execute, horizon - execute)), label="latency")
    chunks = runner(3, obs_horizon, horizon, 0, execute=execute, mode=mode, delay=latency if mode == "real_time" else 0)
    looks, coming, looked = np.ones(3, bool), [], 0
    for step in range(60):
        chunks.observe({"x": np.where(looks, step, np.nan)[:, None]})
        looked += looks.sum()
        while coming and coming[0][0] <= step:
            chunks.deliver(*coming.pop(0)[1:])
        request = chunks.request()
        if request is not None:
            assert np.isfinite(request.observation["x"]).all()
            coming.append((step + latency, request.id, np.zeros((len(request.envs), horizon, A))))
            if not latency:
                chunks.deliver(*coming.pop()[1:])
        chunks.next_action(hold=np.zeros((3, A)))
        looks = chunks.attentive
        over = random.random(3) < 0.05
        chunks.flush(over)
        looks |= over  # the first observation of an episode
    if mode == "receding_horizon" and not latency and execute > obs_horizon:
        assert looked < 180


def drive(chunks: ChunkRunner, steps: int, latency: int = 0) -> list[float]:
    """One environment whose k-th request gets the chunk 100·k + (0, 1, 2, …), `latency` actions late."""
    executed, waiting = [], []
    for step in range(steps):
        observe(chunks, step)
        if request := chunks.request():
            waiting.append((step + (latency if executed else 0), request))
        for due, request in [entry for entry in waiting if entry[0] <= step]:
            chunks.deliver(request.id, numbered(request, chunks.action_horizon, 100.0 * request.id))
            waiting.remove((due, request))
        executed.append(float(chunks.next_action()[0, 0]))
    return executed


def test_receding_horizon_executes_the_first_actions_of_each_chunk():
    assert drive(runner(execute=3), 7) == [0, 1, 2, 100, 101, 102, 200]


def test_an_offset_skips_the_actions_that_lie_before_the_last_observation():
    assert drive(runner(action_horizon=5, action_offset=-1, execute=2), 5) == [1, 2, 101, 102, 201]


@pytest.mark.parametrize("mode", ["asynchronous", "real_time"])
@pytest.mark.parametrize("latency", [0, 1, 2, 3])
def test_the_next_chunk_continues_at_the_number_of_actions_executed_meanwhile(latency, mode):
    executed = drive(runner(action_horizon=8, execute=4, mode=mode), 17, latency)
    # While chunk k is computed, chunk k-1 goes on; the new chunk then starts at its element `latency`.
    for step, value in enumerate(executed):
        chunk = max(step - latency, 0) // 4
        assert value == 100 * chunk + step - 4 * chunk


def test_temporal_ensembling_is_the_weighted_average_of_act():
    """Zhao et al. keep a table [T, T+H] of all predictions and average column t with exp(-0.01·i), the oldest first."""
    steps, horizon, generator = 12, 5, np.random.default_rng(0)
    predictions = generator.normal(size=(steps, horizon, A)).astype(np.float32)
    table = np.full((steps, steps + horizon, A), np.nan)
    chunks = runner(action_horizon=horizon, mode="temporal_ensembling")
    for step in range(steps):
        table[step, step : step + horizon] = predictions[step]
        column = table[:, step][~np.isnan(table[:, step, 0])]
        weights = np.exp(-0.01 * np.arange(len(column)))
        observe(chunks, step)
        chunks.deliver(chunks.request().id, predictions[step][None])
        expected = (column * (weights / weights.sum())[:, None]).sum(axis=0)
        np.testing.assert_allclose(chunks.next_action()[0], expected, rtol=1e-6)


@given(d=st.integers(0, 5), s=st.integers(1, 10))
def test_prefix_weights_are_those_of_real_time_chunking(d, s):
    """W_i = 1 for i < d, c·(e^c - 1)/(e - 1) with c = (H-s-i)/(H-s-d+1) up to H-s, then 0 (Black et al., eq. 5)."""
    H = 10
    assume(d <= s <= H - d)
    chunks = runner(action_horizon=H, execute=s, mode="real_time", delay=d)
    observe(chunks)
    chunks.deliver(chunks.request().id, np.arange(H * A, dtype=float).reshape(1, H, A))
    for _ in range(s):
        chunks.next_action()
    observe(chunks)
    prefix = chunks.request().prefix
    c = [(H - s - i) / (H - s - d + 1) for i in range(H)]
    weights = [1 if i < d else c[i] * (np.exp(c[i]) - 1) / (np.e - 1) if i < H - s else 0 for i in range(H)]
    np.testing.assert_allclose(prefix.weights[0], weights, atol=1e-6)
    assert prefix.length[0] == d
    np.testing.assert_array_equal(prefix.actions[0, : H - s, 0], np.arange(s, H) * A)


def test_the_forecast_is_the_longest_of_the_last_ten_delays():
    chunks = runner(action_horizon=8, execute=3, mode="real_time", delay=3)
    drive(chunks, 12, latency=2)
    assert chunks.delay == [3]
    drive(chunks, 40, latency=1)
    assert chunks.delay == [1]


def test_steps_on_which_a_robot_holds_count_for_the_forecast():
    chunks = runner(action_horizon=8, execute=3, mode="real_time")
    observe(chunks)
    request = chunks.request()
    for _ in range(2):
        chunks.next_action(hold=np.zeros((1, A)))
    chunks.deliver(request.id, numbered(request, 8))
    assert chunks.executed == [0]
    assert chunks.delay == [2]


def test_environments_forecast_apart_so_that_an_episode_does_not_depend_on_those_beside_it():
    chunks = runner(num_envs=2, action_horizon=8, execute=3, mode="real_time")
    observe(chunks)
    request = chunks.request()
    chunks.next_action(np.array([True, False]), hold=np.zeros((2, A)))
    chunks.deliver(request.id, numbered(request, 8))
    assert chunks.delay.tolist() == [1, 0]


@settings(deadline=None)
@given(
    d=st.integers(0, 6), s=st.integers(1, 12), H=st.integers(2, 12), offset=st.integers(-2, 0),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_chunks_that_keep_their_prefix_are_executed_without_a_seam(d, s, H, offset, seed):
    """Every chunk after the first keeps the committed actions, and counts on by one from the last of them."""
    if not (1 <= s <= H + offset and d <= s <= H + offset - d):
        with pytest.raises(ValueError, match="execute: "):
            runner(action_horizon=H, action_offset=offset, execute=s, mode="real_time", delay=d)
        return
    chunks = runner(action_horizon=H, action_offset=offset, execute=s, mode="real_time", delay=d)
    generator, coming, executed, switches = np.random.default_rng(seed), None, [], 0
    for step in range(60):
        observe(chunks, step)
        if coming and coming[0] == step:
            chunks.deliver(*coming[1:])
        if request := chunks.request():
            prefix, length = request.prefix, int(request.prefix.length[0])
            chunk = generator.normal(size=(1, H, A)).cumsum(axis=1)
            if executed:
                assert length == d - offset
                for place in range(-offset):
                    before = executed[max(len(executed) + offset + place, 0)]
                    np.testing.assert_array_equal(prefix.actions[0, place], before)
            if length:
                chunk[0] = prefix.actions[0, length - 1] + np.arange(1 - length, H - length + 1)[:, None]
                chunk[0, :length] = prefix.actions[0, :length]
            coming = (step + d, request.id, chunk)
            if d == 0 or not executed:
                chunks.deliver(request.id, chunk)
                coming = None
        executed.append(chunks.next_action()[0])
        if chunks.switched[0]:
            switches += 1
            if d - offset:
                np.testing.assert_allclose(executed[-1] - executed[-2], 1, rtol=1e-5)
    assert switches >= (60 - d) // s - 1


def test_a_prefix_is_no_longer_than_the_policy_was_trained_for():
    with pytest.raises(ValueError, match=r"trained to continue at most 3 actions.*need 4"):
        runner(action_horizon=12, execute=5, mode="real_time", delay=4, prefix_max_length=3)
    chunks = runner(action_horizon=12, execute=5, mode="real_time", delay=3, prefix_max_length=3)
    chunks._delays[:] = 5  # slower than was said
    observe(chunks)
    chunks.deliver(chunks.request().id, np.zeros((1, 12, A)))
    for _ in range(5):
        chunks.next_action()
    observe(chunks)
    assert chunks.request().prefix.length == [3]


def test_a_held_step_does_not_count_as_executed():
    chunks = runner(execute=2)
    observe(chunks)
    first = chunks.request()
    chunks.deliver(first.id, numbered(first, 4))
    chunks.next_action()
    chunks.next_action()
    observe(chunks, 1.0)
    second = chunks.request()
    for _ in range(3):
        assert chunks.next_action(hold=np.full((1, A), 7.0)).tolist() == [[7.0] * A]
        assert chunks.starved.all()
    chunks.deliver(second.id, numbered(second, 4, 50.0))
    assert chunks.next_action().tolist() == [[50.0] * A]
    assert not chunks.starved.any()


def test_flushing_one_environment_leaves_the_others_alone():
    chunks = runner(num_envs=2, execute=2)
    observe(chunks)
    request = chunks.request()
    chunks.flush([1])
    assert chunks.deliver(request.id, numbered(request, 4)).tolist() == [True, False]
    with pytest.raises(StarvedError) as error:
        chunks.next_action()
    assert error.value.envs.tolist() == [1]
    assert chunks.next_action(np.array([True, False]))[0].tolist() == [0.0] * A
    assert chunks.request() is None, "an environment without an observation has nothing to ask from"
    observe(chunks, 5.0)
    again = chunks.request()
    assert again.envs.tolist() == [1]
    assert again.observation["x"][:, :, 0].tolist() == [[5.0, 5.0]]


def test_a_chunk_of_wrong_shape_or_with_nan_is_refused_and_the_request_stands():
    chunks = runner()
    observe(chunks)
    request = chunks.request()
    with pytest.raises(ValueError, match=r"expected shape \[1, 4, 2\], got \[1, 3, 2\]"):
        chunks.deliver(request.id, np.zeros((1, 3, A)))
    with pytest.raises(ValueError, match="not finite"):
        chunks.deliver(request.id, np.full((1, 4, A), np.nan))
    assert chunks.deliver(request.id, np.zeros((1, 4, A))).all()
    with pytest.raises(UnknownRequestError, match="never made"):
        chunks.deliver(99, np.zeros((1, 4, A)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"execute": 5}, "has 4 that can be executed"),
        ({"action_offset": -2, "execute": 3}, "has 2 that can be executed"),
        ({"action_offset": 1}, "expected at most 0"),
        ({"mode": "fast"}, "expected one of receding_horizon"),
        ({"num_envs": 0}, "at least 1"),
        (
            {"mode": "real_time", "execute": 1, "delay": 2},
            r"delay <= execute <= 4 - delay, got execute=1; choose 2 to 2",
        ),
        ({"mode": "asynchronous", "execute": 4, "delay": 1}, "choose 1 to 3"),
        ({"mode": "real_time", "execute": 3, "delay": 3}, "train longer chunks"),
    ],
)
def test_impossible_horizons_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        runner(**changes)


def test_observations_are_checked():
    chunks = runner()
    observe(chunks)
    with pytest.raises(ValueError, match="expected x; got y"):
        chunks.observe({"y": np.zeros((1, 1))})
    with pytest.raises(ValueError, match="expected 1 rows"):
        chunks.observe({"x": np.zeros((2, 1))})
    with pytest.raises(ValueError, match=r"expected rows \[1\], got \[3\]"):
        chunks.observe({"x": np.zeros((1, 3))})


def test_a_renewed_chunk_is_asked_for_before_the_old_one_is_used_up() -> None:
    chunks = runner(2, execute=3)
    for number in range(3):
        observe(chunks, float(number))
        request = chunks.request()
        assert request is not None
        assert chunks.history([1])["x"].tolist() == request.observation["x"][1:].tolist()
        chunks.deliver(request.id, numbered(request, 4, float(number)))
        assert (chunks.next_action() == number).all()
        chunks.renew()
