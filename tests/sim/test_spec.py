import json

import pytest

from robot_rl.sim.spec import SpecError, available, fixed_rate, load, resolve


def test_a_task_name_is_enough():
    spec = resolve("lift")
    assert spec["task"] == "lift"
    assert spec["robot"] == "panda"
    assert spec["controller"] == "joint_position"
    assert spec["horizon"] == load("task", "lift")["horizon"]
    assert json.loads(json.dumps(spec)) == spec
    assert resolve(spec) == spec


def test_the_tasks_and_robots_are_there():
    tasks = {"lift", "pick_place_can", "nut_assembly_square", "stack", "door", "tool_hang"}
    assert tasks | {"two_arm_transport", "two_arm_lift"} <= set(available("task"))
    assert {"panda", "ur5e"} <= set(available("robot"))
    assert {"joint_position", "ee_pose", "ee_delta"} <= set(available("controller"))


def test_some_tasks_leave_no_choice_of_the_rate():
    assert [fixed_rate({"task": task, "rate_hz": 5}) for task in ("lift", "drone/hover")] == [None, None]
    assert fixed_rate({"task": "push_t", "rate_hz": 5, "robot": "panda"}) == 10
    assert fixed_rate({"task": "gym/Hopper-v5"}) == 125
    assert fixed_rate({"task": "gym/Hopper-v5", "arguments": {"frame_skip": 8}}) == 62.5


@pytest.mark.parametrize("group", ["task", "robot", "controller"])
def test_files_carry_their_name(group):
    assert [load(group, name)["name"] for name in available(group)] == available(group)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lft", "no task 'lft'; there are: door, lift"),
        ("lft", "Did you mean lift?"),
        ("pegg", "Did you mean peg?"),
        ("drone/gatess", "no task 'drone/gatess'; there are: drone/corridor"),
        ("drone/gatess", "Did you mean drone/gates?"),
        ({}, "needs a task"),
        ({"task": "lift", "colour": 1}, "no such key in an environment: colour; known are: task, robot"),
        ({"task": "lift", "stepper": "slow"}, "stepper: expected one of fast, robosuite"),
        ({"task": "lift", "horizon": 0}, "horizon: expected a positive number"),
        ({"task": "lift", "ends_at_success": 0}, "ends_at_success: expected true or false, got 0"),
        ({"task": "peg", "ends_at_success": "no"}, "ends_at_success: expected true or false, got 'no'"),
        ({"task": "lift", "rate_hz": "abc"}, "rate_hz: expected a positive number, got 'abc'"),
        ({"task": "lift", "observation": "foo"}, "observation: expected a list of names, got 'foo'"),
        ({"task": "lift", "cameras": ["agentview"]}, "cameras: expected a mapping"),
        ({"task": "lift", "cameras": {"agentview": [84]}}, r"camera 'agentview': expected \[height, width\]"),
        ({"task": "lift", "cameras": {"agentview": 84}}, r"camera 'agentview': expected \[height, width\]"),
    ],
)
def test_mistakes_are_named(spec, message):
    with pytest.raises(SpecError, match=message):
        resolve(spec)
