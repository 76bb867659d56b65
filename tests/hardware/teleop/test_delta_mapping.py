"""From readings to differences: directions, scale, slow motion, rest, and actions that no device gives."""

import numpy as np
import pytest

from robot_rl import sim
from robot_rl.datasets import Contract, Feature
from robot_rl.hardware.teleop.delta_mapping import DeltaMapping
from robot_rl.hardware.teleop.device import ANGULAR_SPEED, LINEAR_SPEED, Reading
from robot_rl.hardware.teleop.mapping import MappingError

BOUNDS = {"lower": (-1.0,) * 3, "upper": (1.0,) * 3}
TRANSLATION = Feature(
    "translation", (3,), kind="action", names=("x", "y", "z"), mode="delta", relative_to="measured", **BOUNDS
)
TURN = Feature("turn", (1,), kind="action", mode="delta", relative_to="measured", lower=(-0.5,), upper=(1.0,))


def contract(*features):
    seen = {"place": Feature("place", (1,))}
    return Contract("task", 20.0, seen, {feature.name: feature for feature in features})


def twist(*parts, buttons=()):
    values = np.array(parts, float) * np.repeat([LINEAR_SPEED, ANGULAR_SPEED], 3)
    return Reading(0.0, twist=values, buttons=frozenset(buttons))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((1, 0, 0, 0, 0, 0), [1, 0, 0, 0]),
        ((0, -1, 1, 0, 0, 0), [0, -1, 1, 0]),
        ((0, 0, 0, 1, -1, 0), [0, 0, 0, 0]),  # roll and pitch are left out
        ((0, 0, 0, 0, 0, 1), [0, 0, 0, 1]),
        ((0, 0, 0, 0, 0, -1), [0, 0, 0, -0.5]),
        ((9, 0, 0, 0, 0, 0), [1, 0, 0, 0]),
        ((0.525, 0, 0, 0, 0, 0), [0.5, 0, 0, 0]),  # beyond the dead band of 0.05
        ((0.04, -0.04, 0, 0, 0, 0), [0, 0, 0, 0]),
    ],
)
def test_full_deflection_is_the_largest_difference(parts, expected):
    action = DeltaMapping(contract(TRANSLATION, TURN)).action(twist(*parts))
    assert action.dtype == np.float32
    np.testing.assert_allclose(action, expected, atol=1e-6)


def test_slow_motion_and_what_counts_as_held():
    mapping = DeltaMapping(contract(TRANSLATION))
    np.testing.assert_allclose(mapping.action(twist(1, 0, 0, 0, 0, 0, buttons=["slow"])), [0.25, 0, 0])
    assert mapping.is_deflected(twist(0, 0, 0.5, 0, 0, 0))
    assert mapping.is_deflected(twist(0, 0, 0, 0, 0, 0, buttons=["takeover"]))
    assert not mapping.is_deflected(twist(0, 0, 0.04, 0, 0, 1.0))  # it has no turn
    assert not mapping.is_deflected(Reading(0.0, target=np.array([0, 0, 0, 1, 0, 0, 0])))


def test_a_person_moves_the_peg_where_they_push_it():
    with sim.make_vector("peg", 1) as environments:
        environments.reset(seed=0)
        mapping, before = DeltaMapping(environments.contract), environments.world.physics.qpos[0].copy()
        for _ in range(4):
            environments.step(mapping.action(twist(1, -1, 0, 0, 0, 1))[None])
        moved = environments.world.physics.qpos[0] - before
    assert moved[0] > 0.01
    assert moved[1] < -0.01
    assert moved[3] > 0.1
    assert abs(moved[2]) < 1e-3


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            [Feature("target", (2,), kind="action", names=("x", "y"), lower=(-1, -1), upper=(1, 1))],
            r"target \(absolute",
        ),
        ([TRANSLATION, Feature("gripper", (1,), kind="action", lower=(-1,), upper=(1,))], r"gripper \(absolute\)"),
        (
            [Feature("translation", (1,), kind="action", names=("w",), mode="delta", relative_to="measured")],
            r"translation \(delta\)",
        ),
        (
            [Feature("translation", (1,), kind="action", names=("x",), mode="delta", relative_to="measured")],
            "no bounds",
        ),
    ],
)
def test_other_actions_are_refused(features, message):
    with pytest.raises(MappingError, match=f"task: .*{message}"):
        DeltaMapping(contract(*features))
