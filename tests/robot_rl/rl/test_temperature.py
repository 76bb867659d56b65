"""The soft loss and its temperature: gradients by hand, and the name under which checkpoints hold it."""

import pytest
import torch

from robot_rl.policies import PolicyError
from robot_rl.rl.dsrl import DSRL
from robot_rl.rl.expo import EXPO
from robot_rl.rl.off_policy_method import OffPolicyMethod
from robot_rl.rl.sac import SAC
from robot_rl.rl.temperature import log_temperature, soft_loss
from tests.robot_rl.rl.line import line_policy
from tests.robot_rl.rl.stored import squashed_policy


def test_gradients_of_actor_and_temperature_are_those_of_the_equations() -> None:
    log_alpha = log_temperature(0.5, torch.device("cpu"))
    log_prob = torch.tensor([-1.0, -3.0], requires_grad=True)
    value = torch.tensor([4.0, 6.0], requires_grad=True)
    loss, logged = soft_loss(log_alpha, log_prob, value, target_entropy=1.5)
    loss.backward()
    assert logged["actor_loss"] == pytest.approx(0.5 * -2.0 - 5.0)
    assert (float(logged["entropy"]), float(logged["temperature"])) == (2.0, 0.5)
    assert log_prob.grad is not None
    assert log_prob.grad.tolist() == [0.25, 0.25]  # alpha / B: the temperature's loss does not move the actor
    assert value.grad is not None
    assert value.grad.tolist() == [-0.5, -0.5]
    assert log_alpha.grad == pytest.approx(0.5 * (2.0 - 1.5))  # too uncertain: it falls


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_above_zero(temperature: float) -> None:
    with pytest.raises(PolicyError, match="expected a temperature above 0"):
        log_temperature(temperature, torch.device("cpu"))


def test_checkpoints_hold_it_under_one_name() -> None:
    flow = {"name": "flow_matching", "steps": 2}
    methods: list[OffPolicyMethod] = [
        SAC(squashed_policy(), 1, temperature=0.2), DSRL(line_policy(flow), 1, temperature=0.2),
        EXPO(line_policy(flow), 1, temperature=0.2),
    ]  # fmt: skip
    for method in methods:
        assert method.state_dict()["log_temperature"].exp() == pytest.approx(0.2)
