import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_rl.datasets import Contract, Feature
from robot_rl.datasets.statistics import merge, summarise
from robot_rl.hardware.inference import Answer, Event, Failure, Inference, InferenceError, Ready
from robot_rl.policies import Policy, build_policy, load_policy, save_policy
from robot_rl.policies.chunk_runner import ChunkRunner
from robot_rl.policies.prediction import load, new_generator, predict

OBSERVATION = {"joint_position": np.linspace(-1, 1, 6, dtype=np.float32).reshape(1, 2, 3)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = {"joint_position": 3, "action": 3}
    contract = Contract(
        "arm", 20.0,
        {"joint_position": Feature("joint_position", (3,), unit="rad")},
        {"joint_position": Feature("joint_position", (3,), kind="action", unit="rad")},
        "servo_joint_position",
    )  # fmt: skip
    rows = np.random.default_rng(0).normal(size=(50, 3))
    statistics = dict.fromkeys(names, merge({key: value[None] for key, value in summarise(rows).items()}))
    denoiser = {"name": "mlp", "width": 16, "depth": 1, "time_features": 8}
    policy = build_policy({"denoiser": denoiser, "action_horizon": 8}, contract, statistics)
    return save_policy(policy, tmp_path_factory.mktemp("policy"))


@pytest.fixture
def start(checkpoint: Path) -> Iterator[Callable[..., Inference]]:
    started = []

    def make(path: Path = checkpoint, **options: Any) -> Inference:
        started.append(Inference(path, **options))
        return started[-1]

    yield make
    for inference in started:
        inference.close()


def await_event(inference: Inference, seconds: float = 60.0) -> Event:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if events := inference.events():
            assert len(events) == 1
            return events[0]
        time.sleep(0.002)
    raise AssertionError("no event came")


def test_the_loop_is_told_how_to_correct_actions(
    start: Callable[..., Inference], checkpoint: Path, tmp_path: Path
) -> None:
    """A policy with a residual: who executes its chunks adds what the policy's own process would."""
    base = load_policy(checkpoint)
    residual = {
        "obs_horizon": 1, "action_horizon": 1, "clip_actions": False, "process": {"name": "gaussian"},
        "denoiser": {"name": "perceptron", "width": 8, "depth": 1}, "normalizer": {"rotation": "keep"},
    }  # fmt: skip
    config = {**base.config, "execute": 7, "residual": {"scale": 0.5, "policy": residual}}
    policy = Policy(config, base.contract).eval()
    policy.load_state_dict(base.state_dict(), strict=False)
    told = start(save_policy(policy, tmp_path)).policy
    seen, action = {"joint_position": OBSERVATION["joint_position"][:, -1]}, np.ones((1, 3), np.float32)
    assert policy.correction is not None
    assert told.correction is not None
    corrected = told.correction(seen, action)
    assert np.abs(corrected - action).max() > 1e-3
    np.testing.assert_allclose(corrected, policy.correction(seen, action), atol=1e-6)
    assert ChunkRunner(told, 1).execute == 7


def test_the_chunks_are_those_of_the_policy_in_this_process(start: Callable[..., Inference], checkpoint: Path) -> None:
    rang = threading.Event()
    inference = start(wake=rang.set)
    assert (inference.policy.obs_horizon, inference.policy.action_horizon) == (2, 8)
    policy, _, _ = load(checkpoint)
    assert inference.policy.contract == policy.contract
    for seed in (3, 3, 4):
        inference.begin(seed)
        generator = new_generator(policy, seed)
        for request in range(2):  # the second draws on from where the first ended
            inference.submit(request, OBSERVATION)
            assert rang.wait(30)
            answer = await_event(inference)
            assert isinstance(answer, Answer)
            assert answer.id == request
            np.testing.assert_array_equal(answer.chunk, predict(policy, OBSERVATION, [generator]))


@pytest.mark.slow
def test_a_killed_process_is_reported_and_started_again(start: Callable[..., Inference]) -> None:
    inference = start()
    before = inference.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    failure = await_event(inference, 2.0)  # at once, though nothing was asked
    assert isinstance(failure, Failure)
    assert failure.id is None
    assert not failure.final
    assert "SIGKILL" in failure.reason
    assert isinstance(await_event(inference), Ready)
    inference.submit(5, OBSERVATION)
    assert isinstance(await_event(inference), Answer)
    assert inference.pid != before


@pytest.mark.slow
def test_a_hanging_process_is_killed_and_nobody_waits_for_it(start: Callable[..., Inference]) -> None:
    inference = start(timeout=0.3)
    hanging = inference.pid
    assert hanging is not None
    os.kill(hanging, signal.SIGSTOP)
    inference.submit(1, {"joint_position": np.zeros((1, 2, 3_000_000), np.float32)})  # more than a socket holds
    failure = await_event(inference, 5.0)
    assert isinstance(failure, Failure)
    assert failure.id == 1
    assert "no answer within 0.3 s" in failure.reason
    assert isinstance(await_event(inference), Ready)
    assert not Path(f"/proc/{hanging}").exists()


def test_an_observation_that_the_policy_refuses_is_a_failure_of_that_request(start: Callable[..., Inference]) -> None:
    inference = start()
    process = inference.pid
    inference.submit(1, {"other": np.zeros((1, 2, 3), np.float32)})
    failure = await_event(inference)
    assert isinstance(failure, Failure)
    assert "it lacks ['joint_position']" in failure.reason
    inference.submit(2, OBSERVATION)
    assert isinstance(await_event(inference), Answer)
    assert inference.pid == process


def test_a_policy_that_cannot_be_loaded_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match="no policy at"):
        Inference(tmp_path / "nothing")


def test_closing_leaves_no_process(start: Callable[..., Inference]) -> None:
    inference = start()
    process = inference.pid
    inference.close()
    assert not Path(f"/proc/{process}").exists()
