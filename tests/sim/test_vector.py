"""The vectorised environment against a plain loop over single ones, and against everything that can go wrong."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl import sim
from robot_rl.datasets.contract import Contract, ContractError
from robot_rl.sim import message
from robot_rl.sim.vector import VectorEnv, WorkerError

# A walk on a line whose noise, length and goal depend on the seed alone.
WALK = """
import os
import signal

import numpy as np

from robot_rl.datasets.contract import Contract


class Walk:
    def __init__(self, spec):
        self.specification = {"size": 2, **spec}
        if spec.get("broken"):
            raise FileNotFoundError("no such scene: broken.xml")
        size = self.specification["size"]
        self.contract = Contract.from_dict({
            "name": "walk", "rate_hz": 10,
            "observation": {
                "position": {"shape": [size]},
                "picture": {"shape": [4, 5, 3], "dtype": "uint8", "kind": "image"},
            },
            "action": {"push": {"shape": [size], "lower": [-1] * size, "upper": [1] * size}},
        })

    def reset(self, *, seed=None, options=None):
        self.seed = seed
        self.generator = np.random.default_rng(seed)
        self.length = int(self.generator.integers(3, 9))
        self.position = self.generator.normal(size=self.specification["size"])
        self.steps = 0
        return self.observe(), {"length": self.length, "drawn": self.position.copy(), "options": options}

    def close(self):
        pass

    def observe(self):
        return {
            "position": self.position.astype(np.float32),
            "picture": np.full((4, 5, 3), (10 * self.steps + self.seed) % 256, np.uint8),
        }

    def step(self, action):
        trap = self.specification.get("trap")
        if trap and self.steps == 2:
            if trap == "raise":
                raise ArithmeticError("the joint has come off")
            os.kill(os.getpid(), signal.Signals[trap])
        self.position = self.position + action + 0.1 * self.generator.normal(size=self.specification["size"])
        self.steps += 1
        success = bool(self.position.sum() > 3)
        reached = self.steps >= self.length
        return self.observe(), float(self.position.sum()), success, reached, {"success": success, "pid": os.getpid()}

    def get_state(self):
        return np.array([self.steps, self.length, self.seed, *self.position])

    def set_state(self, state):
        self.steps, self.length, self.seed = (int(value) for value in state[:3])
        self.position = np.array(state[3:])

    def object_poses(self):
        return {"cube": np.arange(7.0) + self.seed}

    def scaled(self, array, factor=1):
        return {"pid": os.getpid(), "array": np.asarray(array) * factor, "pair": (1, None)}

    def secret(self):
        return object()


def make(spec):
    return Walk(spec)


def make_odd(spec):
    return Walk({"size": 2 + os.getpid() % 1_000_000})
"""

FACTORY = "seeded_walk:make"


@pytest.fixture(autouse=True)
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seeded_walk.py").write_text(WALK)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("seeded_walk", None)


def walks(num_envs: int, processes: int, **spec: object) -> VectorEnv:
    return VectorEnv(spec, num_envs, processes, factory=FACTORY)


def act(observation: np.ndarray) -> np.ndarray:
    return np.clip(0.5 - 0.1 * observation, -1, 1)


def run(venv: VectorEnv, seeds: list[int]) -> dict[int, dict]:
    """All episodes by seed, as the vectorised environment shows them."""
    observation, info = venv.reset(seed=seeds)
    episodes: dict[int, dict] = {}
    running = {
        index: {"positions": [observation["position"][index]], "rewards": [], "reset": info["reset_info"][index]}
        for index in np.flatnonzero(info["active"])
    }
    while info["active"].any():
        before = observation
        observation, reward, terminated, truncated, info = venv.step(act(observation["position"]))
        for index in range(venv.num_envs):
            if index not in running:
                assert info["seed"][index] == -1
                assert reward[index] == 0
                assert not (terminated | truncated | info["success"])[index]
                np.testing.assert_array_equal(observation["position"][index], before["position"][index])
                continue
            episode = running[index]
            episode["rewards"].append(reward[index])
            done = terminated[index] or truncated[index]
            last = info["final_obs"][index] if done else {name: array[index] for name, array in observation.items()}
            episode["positions"].append(last["position"])
            assert (info["final_obs"][index] is not None) == done == info["_final_obs"][index]
            if done:
                episode.update(
                    terminated=terminated[index], truncated=truncated[index], success=info["success"][index],
                    picture=last["picture"],
                )  # fmt: skip
                episodes[int(info["seed"][index])] = running.pop(index)
                if info["active"][index]:
                    reset = info["reset_info"][index]
                    running[index] = {"positions": [observation["position"][index]], "rewards": [], "reset": reset}
                    np.testing.assert_allclose(observation["position"][index], reset["drawn"], rtol=1e-6)
    assert not running
    return episodes


def run_single(seeds: list[int]) -> dict[int, dict]:
    """The same episodes, one after the other in a single environment."""
    import seeded_walk  # type: ignore[import-not-found]

    env, episodes = seeded_walk.make({}), {}
    for seed in seeds:
        observation, info = env.reset(seed=seed)
        episode = {"positions": [observation["position"]], "rewards": [], "reset": info}
        done = False
        while not done:
            observation, reward, terminated, truncated, info = env.step(act(observation["position"]))
            episode["positions"].append(observation["position"])
            episode["rewards"].append(reward)
            done = terminated or truncated
        episode.update(
            terminated=terminated, truncated=truncated, success=info["success"], picture=observation["picture"]
        )
        episodes[seed] = episode
    return episodes


def same(a: dict[int, dict], b: dict[int, dict]) -> None:
    assert a.keys() == b.keys()
    for seed, episode in a.items():
        other = b[seed]
        np.testing.assert_array_equal(np.stack(episode["positions"]), np.stack(other["positions"]))
        np.testing.assert_array_equal(episode["rewards"], other["rewards"])
        np.testing.assert_array_equal(episode["picture"], other["picture"])
        assert episode["reset"]["length"] == other["reset"]["length"]
        for name in ("terminated", "truncated", "success"):
            assert episode[name] == other[name]


class TestEpisodes:
    @pytest.mark.parametrize(("num_envs", "processes"), [(1, 0), (3, 0), (3, 1), (5, 2), (4, 4)])
    def test_results_depend_on_the_seed_alone(self, num_envs, processes):
        seeds = list(range(100, 111))
        with walks(num_envs, processes) as venv:
            same(run(venv, seeds), run_single(seeds))
            same(run(venv, seeds[:2]), run_single(seeds[:2]))
        kinds = {(bool(e["terminated"]), bool(e["truncated"])) for e in run_single(seeds).values()}
        assert {(True, False), (False, True)} <= kinds, "the episodes should end in both ways"

    @pytest.mark.parametrize("processes", [0, 2])
    def test_a_number_stands_for_endless_seeds_in_order(self, processes):
        with walks(4, processes) as venv:
            _, info = venv.reset(seed=7)
            np.testing.assert_array_equal(info["seed"], [7, 8, 9, 10])
            assert [reset["length"] for reset in info["reset_info"]] == [
                np.random.default_rng(seed).integers(3, 9) for seed in range(7, 11)
            ]
            began = set()
            for _ in range(30):
                *_, info = venv.step(np.zeros((4, 2)))
                assert info["active"].all()
                began |= set(info["seed"])
        assert began == set(range(7, max(began) + 1))

    def test_without_a_seed_one_is_drawn_and_told(self):
        with walks(2, 0) as venv:
            first, second = (venv.reset()[1]["seed"] for _ in range(2))
        assert first[1] == first[0] + 1
        assert first[0] != second[0]

    @pytest.mark.parametrize("processes", [0, 2])
    def test_an_episode_can_be_abandoned_for_the_next_one(self, processes):
        with walks(3, processes) as venv:
            venv.reset(seed=[0, 1, 2, 3])
            kept = venv.step(np.zeros((3, 2)))[0]["position"]
            observation, begun = venv.restart([1])
            assert list(begun) == [1]
            np.testing.assert_allclose(observation["position"][1], begun[1]["drawn"], rtol=1e-6)
            np.testing.assert_array_equal(observation["position"][[0, 2]], kept[[0, 2]])
            assert venv.step(np.zeros((3, 2)))[4]["seed"].tolist() == [0, 3, 2]
            assert venv.restart([0])[1] == {}  # no seed is left
            assert venv.step(np.zeros((3, 2)))[4]["seed"].tolist() == [-1, 3, 2]

    def test_results_are_copies(self):
        with walks(2, 1) as venv:
            observation, _ = venv.reset(seed=0)
            kept = observation["position"].copy()
            venv.step(np.ones((2, 2)))
            np.testing.assert_array_equal(observation["position"], kept)

    @pytest.mark.parametrize("processes", [0, 1])
    def test_options_reach_every_reset(self, processes):
        with walks(2, processes) as venv:
            _, info = venv.reset(seed=[0, 1, 2, 3], options={"height": [1, 2]})
            while info["active"].any():
                assert all(reset["options"] == {"height": [1, 2]} for reset in info["reset_info"] if reset)
                *_, info = venv.step(np.zeros((2, 2)))

    def test_throughput_counts_active_steps(self):
        with walks(3, 0) as venv:
            assert venv.throughput == 0
            venv.reset(seed=[1])
            venv.step(np.zeros((3, 2)))
            assert venv._steps == 1
            assert venv.throughput > 0


class TestInterface:
    def test_spaces_and_description(self):
        with walks(3, 1) as venv:
            assert isinstance(venv, gymnasium.vector.VectorEnv)
            assert venv.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP
            assert isinstance(venv.contract, Contract)
            assert venv.specification == {"size": 2}
            observation, info = venv.reset(seed=0)
            assert venv.observation_space.contains(observation)
            assert venv.action_space.shape == (3, 2)
            assert venv.single_action_space.contains(np.zeros(2, np.float32))
            observation, reward, terminated, truncated, info = venv.step(venv.action_space.sample())
            assert venv.observation_space.contains(observation)
            assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float64, np.bool_, np.bool_)
            assert info["success"].shape == (3,)
            assert "processes=1" in repr(venv)

    @pytest.mark.parametrize("processes", [0, 2])
    def test_calls(self, processes):
        with walks(3, processes) as venv:
            venv.reset(seed=[5, 6, 7])
            array = np.arange(6, dtype=np.int16).reshape(2, 3)
            results = venv.call("scaled", array, 2)
            for result in results:
                np.testing.assert_array_equal(result["array"], array * 2)
                assert result["array"].dtype == np.int16
            assert (os.getpid() in {result["pid"] for result in results}) == (processes == 0)
            each = venv.call_each("scaled", {2: (array, 3), 0: (array,)})
            np.testing.assert_array_equal(each[0]["array"], array * 3)
            np.testing.assert_array_equal(each[1]["array"], array)
            assert venv.call("seed") == [5, 6, 7]
            poses = venv.object_poses()
            np.testing.assert_array_equal(poses["cube"], np.arange(7.0) + np.array([[5], [6], [7]]))

    @pytest.mark.parametrize("processes", [0, 2])
    def test_states_are_restored(self, processes):
        with walks(3, processes) as venv:
            start, _ = venv.reset(seed=0)
            states = venv.get_states()
            assert states.shape == (3, 5)
            for _ in range(2):
                moved, *_ = venv.step(np.ones((3, 2)) * 0.1)
            part = venv.set_states(states[[2]], [2])
            np.testing.assert_array_equal(part["position"][:2], moved["position"][:2])
            np.testing.assert_array_equal(part["position"][2], start["position"][2])
            whole = venv.set_states(states)
            for name in start:
                np.testing.assert_array_equal(whole[name], start[name])
            np.testing.assert_array_equal(venv.get_states(), states)
            with pytest.raises(ValueError, match="3 states"):
                venv.set_states(states[:2])

    def test_misuse_is_told_before_anything_moves(self):
        with walks(2, 1) as venv:
            venv.reset(seed=[3])
            state = venv.call_each("get_state", {0: ()})
            with pytest.raises(ValueError, match=r"shape \[2, 2\], got \[2, 3\]"):
                venv.step(np.zeros((2, 3)))
            with pytest.raises(ValueError, match=r"finite actions; those of environments \[0\]"):
                venv.step(np.full((2, 2), np.nan))
            np.testing.assert_array_equal(venv.call_each("get_state", {0: ()}), state)
            venv.step(np.array([[0, 0], [np.nan, np.nan]]))  # the second is inactive
            with pytest.raises(ValueError, match="at least one episode seed"):
                venv.reset(seed=[])
        with pytest.raises(ValueError, match="0 to 2"):
            walks(2, 3)
        with pytest.raises(ValueError, match="at least 1"):
            walks(0, 0)


class TestFailure:
    @pytest.mark.parametrize("processes", [0, 2])
    def test_environment_that_raises(self, processes):
        venv = walks(2, processes, trap="raise")
        venv.reset(seed=0)
        venv.step(np.zeros((2, 2)))
        venv.step(np.zeros((2, 2)))
        with pytest.raises((WorkerError, ArithmeticError), match="the joint has come off") as caught:
            venv.step(np.zeros((2, 2)))
        if processes:
            assert "seeded_walk.py" in str(caught.value), "the traceback of the environment is shown"
        assert venv.closed
        with pytest.raises(WorkerError, match="closed"):
            venv.reset(seed=0)

    @pytest.mark.parametrize(("trap", "expected"), [("SIGSEGV", "in step"), ("SIGKILL", "memory runs out")])
    def test_process_that_dies(self, trap, expected):
        venv = walks(4, 2, trap=trap)
        children = {worker.pid for worker in venv._parts}
        venv.reset(seed=0)
        venv.step(np.zeros((4, 2)))
        venv.step(np.zeros((4, 2)))
        with pytest.raises(WorkerError, match=rf"(?s)environments 0 to 1 .*exit code -\d+, {trap}.*{expected}"):
            venv.step(np.zeros((4, 2)))
        assert venv.closed
        assert not any(psutil.pid_exists(child) for child in children)

    def test_environment_that_cannot_be_made(self):
        with pytest.raises(WorkerError, match="no such scene"):
            walks(2, 2, broken=True)
        with pytest.raises(FileNotFoundError):
            walks(2, 0, broken=True)
        with pytest.raises(WorkerError, match="No module named 'nowhere'"):
            VectorEnv({}, 2, 2, factory="nowhere:make")
        with pytest.raises(TypeError, match="cannot be sent between processes: object"):
            VectorEnv({"scene": object()}, 2, 2, factory=FACTORY)
        with pytest.raises(ValueError, match="module:function"):
            VectorEnv({}, 2, 0, factory="nowhere")

    def test_environments_that_differ(self):
        with pytest.raises(ContractError, match="position"):
            VectorEnv({}, 2, 2, factory="seeded_walk:make_odd")

    def test_result_that_cannot_be_sent(self):
        venv = walks(1, 1)
        with pytest.raises(WorkerError, match="cannot be sent between processes: object"):
            venv.call("secret")
        assert venv.closed


class TestEnding:
    def test_close_ends_the_processes_and_may_be_repeated(self):
        gc.collect()
        before = len(list(Path("/proc/self/fd").iterdir()))
        venv = walks(4, 2)
        children = [worker.pid for worker in venv._parts]
        venv.reset(seed=0)
        venv.close()
        venv.close()
        assert not any(psutil.pid_exists(child) for child in children)
        del venv
        gc.collect()
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    def test_forgotten_environments_are_collected(self):
        venv = walks(2, 2)
        children = [worker.pid for worker in venv._parts]
        del venv
        gc.collect()
        assert not any(psutil.pid_exists(child) for child in children)

    def test_fork_does_not_end_them(self):
        with walks(2, 2) as venv:
            child = os.fork()
            if child == 0:
                venv.close()
                os._exit(0)
            os.waitpid(child, 0)
            venv.reset(seed=0)
            venv.step(np.zeros((2, 2)))

    @pytest.mark.parametrize("way", ["exit", "SIGINT", "SIGKILL"])
    def test_processes_end_with_their_parent(self, tmp_path, way):
        program = tmp_path / "program.py"
        # Without a main guard, as a newcomer writes it.
        program.write_text(
            "import signal, numpy as np\n"
            "from robot_rl.sim.vector import VectorEnv\n"
            # A shell's background job begins with SIGINT ignored.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            f"venv = VectorEnv({{}}, 2, 2, factory={FACTORY!r})\n"
            "venv.reset(seed=0)\n"
            "print(*(worker.pid for worker in venv._parts), flush=True)\n"
            f"while {way != 'exit'}:\n"
            "    venv.step(np.zeros((2, 2)))\n"
        )
        process = subprocess.Popen(
            [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        children = [int(word) for word in process.stdout.readline().split()]
        assert len(children) == 2
        if way != "exit":
            process.send_signal(signal.Signals[way])
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
        if way == "SIGINT":
            assert errors.rstrip().endswith("KeyboardInterrupt")
        assert errors.count("Traceback") == (way == "SIGINT"), errors
        deadline = time.monotonic() + 20
        while any(psutil.pid_exists(child) for child in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(psutil.pid_exists(child) for child in children)


scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text()
content = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


class TestMessage:
    @settings(max_examples=30, deadline=None)
    @given(content)
    def test_plain_content_arrives(self, value):
        assert self.passed(value) == value

    def test_arrays_arrive(self):
        arrays = [np.arange(6.0).reshape(2, 3).T, np.array(3, np.int8), np.zeros((0, 4)), np.array([True, False])]
        for sent, got in zip(arrays, self.passed({"arrays": arrays})["arrays"], strict=True):
            np.testing.assert_array_equal(got, sent)
            assert (got.dtype, got.shape) == (sent.dtype, sent.shape)

    def test_objects_are_refused(self):
        with pytest.raises(TypeError, match="cannot be sent"):
            message.encode({"array": np.array([object()])})

    @staticmethod
    def passed(value: object) -> object:
        import socket

        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(message.encode(value))
            return message.receive(theirs)


@pytest.mark.render
@pytest.mark.parametrize(
    ("spec", "processes"),
    [
        ({"task": "lift", "cameras": {"agentview": [16, 16]}}, 0),
        ({"task": "lift", "cameras": {"agentview": [16, 16]}}, 2),
        ({"task": "push_t", "cameras": {"agentview": [32, 32]}}, 0),
        ({"task": "gym/Hopper-v5", "cameras": {"track": [16, 16]}}, 0),
    ],
)
@pytest.mark.slow
def test_pictures_are_taken_only_of_what_is_looked_at(spec, processes):
    spec = {**spec, "horizon": 4}
    (camera,) = spec["cameras"]
    looks = np.array([[True, False, True], [False, False, True], [True, True, False], [False, True, True]])
    random = np.random.default_rng(0)
    with sim.make_vector(spec, 3, processes) as venv, sim.make_vector(spec, 3, 0) as attentive:
        observation, _ = venv.reset(seed=5)
        attentive.reset(seed=5)
        pictures = observation[camera]
        for look in looks:
            action = np.stack(venv.call("rest_action")) + random.uniform(0.05, 0.1, venv.contract.action_dim)
            observation, *_, ends, _ = venv.step(action, look)
            everything = attentive.step(action)[0]
            seen = look | ends  # the first pictures of an episode are always taken
            np.testing.assert_array_equal(observation[camera][seen], everything[camera][seen])
            np.testing.assert_array_equal(observation[camera][~seen], pictures[~seen])
            assert (everything[camera] != pictures).any(axis=(1, 2, 3)).all()
            for name in observation.keys() - {camera}:
                np.testing.assert_array_equal(observation[name], everything[name])
            pictures = observation[camera]
        assert ends.all()


@pytest.mark.render
def test_pictures_that_are_seen_later_are_always_taken():
    random = {"observation_delay": {"agentview": [1, 1]}}
    spec = {"task": "lift", "cameras": {"agentview": [16, 16]}, "horizon": 6, "randomization": random}
    with sim.make_vector(spec, 1, 0) as venv, sim.make_vector(spec, 1, 0) as attentive:
        venv.reset(seed=5)
        attentive.reset(seed=5)
        for look in (False, True, False, True):
            action = np.stack(venv.call("rest_action")) + 0.05
            observation = venv.step(action, np.array([look]))[0]
            np.testing.assert_array_equal(observation["agentview"], attentive.step(action)[0]["agentview"])
