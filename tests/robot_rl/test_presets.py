"""The presets against what their sources publish."""

from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from robot_rl.cli import compose
from robot_rl.datasets import Contract, Feature
from robot_rl.datasets.windows import estimated
from robot_rl.policies import Policy
from robot_rl.policies.denoiser import Shapes
from robot_rl.policies.policy import DENOISERS, resolve_config
from robot_rl.training import Settings

IMAGES = {"flow_image", "diffusion_cnn_image"}
PRESETS = [
    "flow_mlp",
    "flow_unet",
    "shortcut_mlp",
    "gaussian",
    "tanh_gaussian",
    "drone_mlp",
    "drone_flow",
    "diffusion_mlp",
    "diffusion_cnn",
    "diffusion_transformer",
    *sorted(IMAGES),
]


def _preset(name: str) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(compose("train", [f"policy={name}"]), resolve=True)
    return dict(plain)


def _parameters(name: str) -> int:
    """Of the denoiser, for two observations of 20 and an action of 10 numbers."""
    policy = resolve_config(_preset(name)["policy"])
    options = {key: value for key, value in policy["denoiser"].items() if key != "name"}
    shapes = Shapes(policy["action_horizon"], 10, policy["obs_horizon"], 20, policy["action_offset"], prefix=False)
    denoiser = DENOISERS[policy["denoiser"]["name"]](shapes, **options)
    return sum(value.numel() for value in denoiser.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_named_complete_and_builds(name: str) -> None:
    preset = _preset(name)
    assert preset["name"] == name
    Settings.read(preset["training"])
    observation = {"state": Feature("state", (20,))}
    if name in IMAGES:
        observation["camera"] = Feature("camera", (84, 84, 3), dtype="uint8", kind="image")
    contract = Contract("any", 20, observation, {"pose": Feature("pose", (10,), kind="action")})
    if "widths" in preset["policy"]["denoiser"]:
        preset["policy"]["denoiser"]["widths"] = [16, 32, 64]
    assert Policy(preset["policy"], contract).action_horizon == preset["policy"]["action_horizon"]


def test_the_visual_policy_of_a_drone_fits_its_corridor() -> None:
    from robot_rl.sim.drone.world import DroneWorld
    from robot_rl.sim.spec import resolve

    preset, sight = _preset("drone_vision"), _preset("drone_sight")
    world = DroneWorld(resolve({"task": "drone/corridor", "cameras": {"onboard": [48, 64]}}), 1)
    assert world.contract.rate_hz == 20
    eye = Policy(sight["policy"], estimated(world.contract, sight["labels"]))
    described = {"config": eye.config, "contract": eye.contract.to_dict()}
    policy = Policy({**preset["policy"], "estimator": described}, world.contract)
    observed = policy.contract.observation
    assert policy.obs_horizon == 2
    assert "onboard" in observed
    assert not {feature.name for feature in observed.values() if feature.role == "privileged"}
    assert not observed.keys() & {"position", "reference", "next_gate", "gate_after"}
    drawn = {name: np.ones((2, 2, *each.shape), each.dtype) for name, each in observed.items()}
    assert policy.encode(drawn).shape == (2, 2, policy.encoder.features)


def test_diffusion_presets_have_the_published_values() -> None:
    # Chi et al. 2023: 66 M parameters in the low-dimensional U-Net, 9 M in the low-dimensional transformer.
    cnn, transformer = _preset("diffusion_cnn"), _preset("diffusion_transformer")
    assert _parameters("diffusion_cnn") == pytest.approx(66e6, rel=0.03)
    assert _parameters("diffusion_transformer") == pytest.approx(9e6, rel=0.05)
    for preset in (cnn, transformer):
        settings, process = preset["training"], preset["policy"]["process"]
        assert (process["name"], process["train_steps"], process["schedule"]) == ("ddpm", 100, "squaredcos_cap_v2")
        assert (settings["learning_rate"], settings["ema_power"], settings["ema_max_decay"]) == (1e-4, 0.75, 0.9999)
    assert (cnn["training"]["betas"], cnn["training"]["weight_decay"], cnn["training"]["warmup"]) == (
        [0.95, 0.999],
        1e-6,
        500,
    )
    assert cnn["policy"]["action_horizon"] == 16
    assert (transformer["policy"]["action_horizon"], transformer["policy"]["denoiser"]["dropout"]) == (10, 0.3)
    settings = transformer["training"]
    assert (settings["betas"], settings["weight_decay"], settings["warmup"]) == ([0.9, 0.95], 1e-3, 1000)
