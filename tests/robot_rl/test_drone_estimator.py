"""The estimator of a drone's mass and thrust, from recording to flight."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from robot_rl import sim
from robot_rl.cli import compose
from robot_rl.collect import main as collect
from robot_rl.datasets import ContractError, EpisodeStore
from robot_rl.policies import ChunkRunner, load_policy
from robot_rl.policies.prediction import new_generator, predict
from robot_rl.recordings import Recordings
from robot_rl.train import main as train
from robot_rl.training import TrainingError

HOVER = ["task=drone/hover", "randomization=payload", "environment={horizon: 30}"]
SMALL = [
    "training.steps=3", "training.batch_size=8", "training.warmup=1", "policy.denoiser.width=16", "threads=1",
    "held_out=0",
]  # fmt: skip
SEEN = "policy.observation=[position,velocity]"


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    path = tmp_path_factory.mktemp("flights") / "flights.zarr"
    assert collect(compose("collect", [f"output={path}", *HOVER, "episodes=3"])) == 0
    return EpisodeStore.open(path)


@pytest.fixture(scope="module")
def estimator(flights: EpisodeStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("estimator") / "run"
    options = [f"dataset={flights.path}", "policy=drone_estimator", f"output={run}", *SMALL]
    assert train(compose("train", options)) == 0
    return run


def test_labels_are_the_factors_that_were_drawn(flights: EpisodeStore) -> None:
    recordings = Recordings([flights.path], held_out=0.0, include_failures=True, labels="vehicle_factors")
    assert list(recordings.contract.action) == ["vehicle_factors"]
    assert "vehicle_factors" not in recordings.contract.observation
    (batch,) = flights.windows(
        25, 1, episodes=range(3), labels="vehicle_factors", batch_size=1000, observation=["velocity"]
    ).epoch()
    drawn = [flights.facts(index)["randomization"] for index in range(3)]
    assert len({record["mass"] for record in drawn}) == 3
    wanted = [[[drawn[index]["mass"], drawn[index]["thrust"]]] for index in batch["episode"].tolist()]
    np.testing.assert_allclose(batch["action"].numpy(), wanted, rtol=1e-6)
    statistics = recordings.statistics()["action"]
    each = np.array([[record["mass"], record["thrust"]] for record in drawn])
    lengths = flights.lengths[:, None]
    np.testing.assert_allclose(statistics.mean, (each * lengths).sum(axis=0) / lengths.sum(), rtol=1e-5)


def test_a_window_begins_with_its_episode_in_training_and_in_flight(flights: EpisodeStore, estimator: Path) -> None:
    """What the estimator is given at a step is the same; of the flight before it nothing is left."""
    policy = load_policy(estimator)
    names = list(policy.contract.observation)
    (batch,) = flights.windows(
        policy.obs_horizon, 1, episodes=range(3), shuffle=False, batch_size=1000, labels="vehicle_factors",
        observation=names,
    ).epoch()  # fmt: skip
    runner = ChunkRunner(policy, 1)
    window = 0
    for index in range(3):
        runner.flush()
        recorded, steps = flights[index].observation, int(flights.lengths[index])
        for step in range(steps):
            runner.observe({name: recorded[name][step][None] for name in names})
            seen = runner.history([0])
            for name in names:
                np.testing.assert_array_equal(seen[name][0], batch["observation"][name][window].numpy())
            padded = max(policy.obs_horizon - 1 - step, 0)
            assert (seen["velocity"][0, :padded] == recorded["velocity"][0]).all()
            request = runner.request()
            assert request is not None
            runner.deliver(request.id, predict(policy, request.observation, [new_generator(policy, 0)]))
            runner.next_action()
            window += 1
    assert window == len(batch["step"])


def test_a_policy_is_trained_beside_it_and_flies_alone(flights: EpisodeStore, estimator: Path, tmp_path: Path) -> None:
    run, copy = tmp_path / "run", tmp_path / "estimator"
    shutil.copytree(estimator, copy)
    options = [f"dataset={flights.path}", "policy=drone_flow", f"policy.estimator={copy}", SEEN, f"output={run}"]
    assert train(compose("train", [*options, *SMALL, "include_failures=true", "training.weight_decay=0.1"])) == 0
    wanted = load_policy(copy).state_dict()
    shutil.rmtree(copy)
    policy = load_policy(run)
    assert policy.encoder.estimator is not None
    found = policy.encoder.estimator.policy.state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert policy.obs_horizon == 25

    env = sim.make(flights.provenance["environment"])
    runner, (observation, _) = ChunkRunner(policy, 1), env.reset(seed=7)
    for _ in range(3):
        runner.observe({name: observation[name][None] for name in policy.contract.observation})
        if (request := runner.request()) is not None:
            runner.deliver(request.id, predict(policy, request.observation, [new_generator(policy, 0)]))
        observation, *_ = env.step(runner.next_action()[0])


def test_a_warm_start_keeps_the_estimator_that_is_asked_for(
    flights: EpisodeStore, estimator: Path, tmp_path: Path
) -> None:
    another = ["policy=drone_estimator", f"output={tmp_path / 'another'}", "seed=1"]
    policy = ["policy=drone_flow", SEEN, "training.learning_rate=1e-30", "include_failures=true"]
    first = [*policy, f"policy.estimator={estimator}", f"output={tmp_path / 'first'}"]
    second = [*policy, f"policy.estimator={tmp_path / 'another'}", f"output={tmp_path / 'second'}"]
    for options in (another, first, [*second, f"warm_start={tmp_path / 'first'}"]):
        assert train(compose("train", [f"dataset={flights.path}", *options, *SMALL])) == 0
    began, found, asked = (load_policy(tmp_path / name).state_dict() for name in ("first", "second", "another"))
    for name, value in found.items():
        theirs = name.removeprefix("encoder.estimator.policy.")
        torch.testing.assert_close(value, began[name] if theirs == name else asked[theirs])


def test_an_estimator_is_no_pilot(flights: EpisodeStore, estimator: Path, tmp_path: Path) -> None:
    options = [f"output={tmp_path / 'flown.zarr'}", *HOVER, "source=policy", f"policy={estimator}", "episodes=1"]
    with pytest.raises(ContractError, match="vehicle_factors"):
        collect(compose("collect", options))


def test_an_estimator_is_not_evaluated_in_flight(flights: EpisodeStore, tmp_path: Path) -> None:
    options = [f"dataset={flights.path}", "policy=drone_estimator", f"output={tmp_path / 'run'}", *SMALL]
    with pytest.raises(TrainingError, match="an estimator of vehicle_factors does not act"):
        train(compose("train", [*options, "training.evaluate_every=2"]))
    assert not (tmp_path / "run").exists()


def test_labels_that_were_not_recorded_are_refused(flights: EpisodeStore) -> None:
    with pytest.raises(ValueError, match="labels: expected executed or intended, or a recorded feature of position"):
        Recordings([flights.path], labels="payload")
