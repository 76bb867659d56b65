"""An actor acts as the learner would with the same parameters."""

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from robot_rl.act import _environments, _source
from robot_rl.cli import compose
from robot_rl.policies import Policy
from robot_rl.rl.apart.actor import build
from robot_rl.rl.apart.messages import MessageError, Reply, Welcome, decode, encode
from robot_rl.rl.methods import OFF_POLICY, build_off_policy
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.sim.spec import resolve
from robot_rl.success_source import SuccessSource
from tests.robot_rl.rl.line import CONTRACT, line_policy
from tests.robot_rl.rl.stored import squashed_policy

OPTIONS: dict[str, dict[str, Any]] = {
    "sac": {}, "rlpd": {}, "hil": {}, "dsrl": {"width": 8, "steps": 2},
    "expo": {"width": 8, "steps": 2, "critic_width": 8, "critic_depth": 1},
}  # fmt: skip


def policy_for(name: str) -> Policy:
    return squashed_policy() if name in ("sac", "rlpd", "hil") else line_policy({"name": "flow_matching"}, horizon=2)


@pytest.mark.parametrize("change", [{"task": "drawer_close"}, {"environment": {"ends_at_success": False}}])
def test_what_is_rewarded_otherwise_than_at_the_learner_is_not_acted_on(change: dict[str, Any]) -> None:
    """Both tasks of the drawer have the same contract."""
    learned = resolve({"task": "drawer_open"})
    plain = {**OmegaConf.to_container(compose("act", ["learner=localhost:1"]), resolve=True), "processes": 1}
    welcome = Welcome("run", learned, "sac", {}, {}, {}, {}, {"name": "task"}, 1, 0)
    source = SuccessSource.load(welcome.success, 1, torch.device("cpu"))
    with _environments(plain, welcome, source) as (environments, spec, _):
        assert spec == learned
        contract = environments.contract
    refused = pytest.raises(FinetuneError, match=f"^{next(iter(change.get('environment', change)))}: expected ")
    with refused, _environments({**plain, **change}, welcome, source) as (environments, _, _):
        assert environments.contract == contract, "the contract tells them apart"


@pytest.mark.parametrize(("learner", "actor"), [("task", "key"), ("key", "task")])
def test_success_from_elsewhere_than_at_the_learner_is_named_before_anything_is_stepped(
    learner: str, actor: str
) -> None:  # fmt: skip
    plain = OmegaConf.to_container(compose("act", ["learner=localhost:1", f"success={actor}"]), resolve=True)
    assert isinstance(plain, dict)
    welcome = Welcome("run", {}, "sac", {}, {}, {}, {}, {"name": learner}, 1, 0)
    with pytest.raises(MessageError, match=f"expected success={learner}, got success={actor}: the rewards"):
        _source(plain, welcome)


@pytest.mark.parametrize("name", OFF_POLICY)
def test_any_method_is_built_from_what_the_learner_says(name: str) -> None:
    policy = policy_for(name)
    network, contract, execute = policy.config, policy.contract.to_dict(), policy.action_horizon
    ours = build_off_policy(name, OPTIONS[name], policy, execute)
    with torch.no_grad():
        for value in ours.parameters():
            value.add_(0.05 * torch.randn(value.shape))  # as after some updates
    sent = Welcome("run", {}, name, OPTIONS[name], network, contract, contract, {"name": "task"}, execute, 0)
    theirs = build(decode(encode(sent), Welcome))
    arrays = {key: value.numpy() for key, value in ours.state_dict().items()}
    came = decode(encode(Reply(0, 1, False, False, arrays)), Reply).arrays
    theirs.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in came.items()})
    context = ours.policy.encode({"place": torch.linspace(-1, 1, 5)[:, None, None]})
    for act in ("begin", "act"):
        chunks = [getattr(method, act)(context, torch.Generator().manual_seed(0)).detach() for method in (ours, theirs)]
        assert torch.equal(*chunks)
    assert theirs.policy.contract.observation == CONTRACT.observation
