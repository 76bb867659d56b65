"""The presets of algorithm= against what their sources publish."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from robot_rl.cli import compose
from robot_rl.datasets import Contract, Feature
from robot_rl.rl.methods import OFF_POLICY, build_off_policy, fresh_policy
from robot_rl.rl.off_policy import Critics, OffPolicySettings
from robot_rl.rl.sac import SAC


def preset(name: str) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(compose("finetune", [f"algorithm={name}"]), resolve=True)
    assert plain["name"] == name
    return dict(plain)


@pytest.mark.parametrize("name", sorted(OFF_POLICY))
def test_critics_have_layer_norm_unless_the_method_predates_it(name: str) -> None:
    """RLPD has it (section 4.2), and what is built on RLPD; SAC (2018) has none."""
    assert preset(name)["training"]["layer_norm"] == (name != "sac")


@pytest.mark.parametrize("name", ["rlpd", "hil"])
def test_methods_for_sparse_rewards_are_those_of_hil_serl(name: str) -> None:
    """Luo et al. 2024: no entropy in the target, discount 0.97, temperature 0.01, entropy -dim/2, two critics."""
    given = preset(name)
    algorithm, training = given["algorithm"], given["training"]
    assert (algorithm["backup_entropy"], algorithm["temperature"], algorithm["target_entropy"]) == (False, 0.01, -0.5)
    assert (training["discount"], training["critics"], training["start_steps"]) == (0.97, 2, 100)
    assert training["demonstration_share"] == 0.5
    push = {"push": Feature("push", (2,), kind="action")}
    policy = fresh_policy(given["network"], Contract("any", 20.0, {"place": Feature("place", (3,))}, push))
    settings = OffPolicySettings.read(training)
    method = build_off_policy(name, algorithm, policy, settings.execute or 1)
    assert isinstance(method, SAC)
    assert not method.backup_entropy
    assert method.target_entropy == -1.0
    assert len(Critics(method, settings).live.gains)


def test_sac_is_that_of_its_paper() -> None:
    """Haarnoja et al. 2018, table 1: entropy in the target and of -dim, discount 0.99, one update a step."""
    given = preset("sac")
    algorithm, training = given["algorithm"], given["training"]
    assert (algorithm["backup_entropy"], algorithm["target_entropy"]) == (True, -1.0)
    assert (training["discount"], training["update_ratio"], training["polyak"]) == (0.99, 1, 0.005)


def test_clips_are_those_of_means_or_of_sums() -> None:
    """ReinFlow and DPPO clip ratios of means, PPO and ResiP of sums, which are as much larger as there are elements."""
    clips = {name: preset(name)["training"]["clip"] for name in ("reinflow", "dppo", "ppo", "resip", "demo_reset")}
    assert clips == {"reinflow": 0.01, "dppo": 0.01, "ppo": 0.2, "resip": 0.2, "demo_reset": 0.2}


@pytest.mark.parametrize("command", ["finetune", "act", "evaluate", "deploy", "teleop", "classifier"])
def test_one_thread_computes_unless_more_are_asked_for(command: str) -> None:
    """Threads of several processes that wait for each other on busy cores make all of them several times slower."""
    assert compose(command, []).threads == 1
