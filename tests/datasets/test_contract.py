"""The contract: what is malformed, what differs and what does not satisfy is said in full."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.datasets import Contract, ContractError, Feature, equal, satisfies
from robot_rl.datasets.contract import element_names, united

YAML = """
name: panda_lift
rate_hz: 20
observation:
  joint_position:  {shape: [7], unit: rad, names: [a, b, c, d, e, f, g]}
  cube_pose:       {shape: [7], frame: base, representation: position_quaternion}
  wrist_image:     {shape: [84, 84, 3], dtype: uint8, kind: image}
action:
  joint_position:  {shape: [7], unit: rad, mode: absolute}
  gripper_opening: {shape: [1], unit: m, mode: absolute, lower: [0], upper: [0.08]}
"""


@pytest.fixture
def lift(tmp_path: Path) -> Contract:
    (tmp_path / "lift.yaml").write_text(YAML)
    return Contract.from_yaml(tmp_path / "lift.yaml")


def change(contract: Contract, name: str, **values: object) -> Contract:
    observation = {**contract.observation, name: dataclasses.replace(contract.observation[name], **values)}
    return dataclasses.replace(contract, observation=observation)


def test_yaml_in_and_json_out(lift: Contract) -> None:
    equal(lift, Contract.from_dict(json.loads(lift.to_json())))
    assert lift.observation["joint_position"].shape == (7,)
    assert lift.observation["joint_position"].kind == "state"
    assert lift.action["gripper_opening"].kind == "action"
    assert lift.action_dim == 8
    assert list(lift.cameras) == ["wrist_image"]
    assert lift.observation["cube_pose"].rotation == slice(3, 7)
    assert lift.observation["joint_position"].rotation is None


names = st.text("abcdefgh", min_size=1, max_size=5)


@st.composite
def features(draw: st.DrawFn, kind: str) -> Feature:
    size = draw(st.integers(1, 5))
    bounds = draw(st.booleans())
    return Feature(
        name=draw(names),
        shape=(size,),
        dtype=draw(st.sampled_from(["float32", "float64", "int64"])),
        kind=kind,  # type: ignore[arg-type]
        role=draw(st.sampled_from(["policy", "privileged", "diagnostic"])),
        unit=draw(st.sampled_from(["", "m", "rad"])),
        lower=(-1.0,) * size if bounds else (),
        upper=(2.0,) * size if bounds else (),
        rate_hz=draw(st.one_of(st.none(), st.floats(1, 1000))),
    )


@given(st.lists(features("state"), max_size=4), st.lists(features("action"), min_size=1, max_size=3), st.floats(1, 500))
def test_any_contract_survives_json(observation: list[Feature], action: list[Feature], rate: float) -> None:
    contract = Contract("any", rate, {f.name: f for f in observation}, {f.name: f for f in action}, "servo")
    again = Contract.from_dict(json.loads(contract.to_json()))
    equal(contract, again)
    assert again == contract
    assert again.action_dim == sum(feature.size for feature in contract.action.values())


def test_actions_are_joined_in_order_and_split_again(lift: Contract) -> None:
    parts = {"gripper_opening": np.array([[0.04]] * 3), "joint_position": np.arange(21.0).reshape(3, 7)}
    joined = lift.join_action(parts)
    assert joined.dtype == np.float32
    np.testing.assert_allclose(joined[1], [7, 8, 9, 10, 11, 12, 13, 0.04])
    for name, part in lift.split_action(joined).items():
        np.testing.assert_allclose(part, parts[name], rtol=1e-6)
    assert len(lift.action_names) == 8
    low, high = lift.action_bounds
    assert low[:7].tolist() == [-np.inf] * 7
    np.testing.assert_allclose([low[7], high[7]], [0, 0.08])


def test_every_element_has_a_name() -> None:
    assert element_names(Feature("q", (2,), names=("a", "b"))) == ["q.a", "q.b"]
    assert element_names(Feature("q", (1,))) == ["q"]
    assert element_names(Feature("q", (2,))) == ["q[0]", "q[1]"]


def test_select_keeps_the_order_and_names_what_is_missing(lift: Contract) -> None:
    assert list(lift.select(["wrist_image", "joint_position"]).observation) == ["joint_position", "wrist_image"]
    with pytest.raises(ContractError, match="depth"):
        lift.select(["depth"])


def test_equal_lists_every_difference(lift: Contract) -> None:
    other = dataclasses.replace(change(lift, "cube_pose", frame="world", unit="m"), rate_hz=10.0, controller="osc_pose")
    with pytest.raises(ContractError) as error:
        equal(lift, other)
    assert error.value.differences == (
        "rate_hz: 20.0 against 10.0",
        "controller: '' against 'osc_pose'",
        "observation.cube_pose.unit: '' against 'm'",
        "observation.cube_pose.frame: 'base' against 'world'",
    )
    assert all(line in str(error.value) for line in error.value.differences)


def test_equal_ignores_the_name_but_not_the_order(lift: Contract) -> None:
    equal(lift, dataclasses.replace(lift, name="other"))
    swapped = dataclasses.replace(lift, action=dict(reversed(lift.action.items())))
    with pytest.raises(ContractError, match="action order"):
        equal(lift, swapped)


def test_equal_says_which_side_lacks_a_feature(lift: Contract) -> None:
    smaller = dataclasses.replace(lift.select(["joint_position", "cube_pose"]), name="smaller")
    with pytest.raises(ContractError, match=r"observation\.wrist_image: only in 'panda_lift', not in 'smaller'"):
        equal(lift, smaller)
    with pytest.raises(ContractError, match=r"observation\.wrist_image: only in 'panda_lift', not in 'smaller'"):
        equal(smaller, lift)
    namesake = dataclasses.replace(smaller, name=lift.name)
    with pytest.raises(ContractError, match=r"observation\.wrist_image: only in the second, not in the first"):
        equal(namesake, lift)


def test_a_policy_may_need_less_than_a_robot_offers(lift: Contract) -> None:
    needs = dataclasses.replace(lift.select(["joint_position"]), name="policy")
    satisfies(needs, lift)
    with pytest.raises(ContractError, match="cube_pose: needed by 'panda_lift'; 'policy' offers joint_position"):
        satisfies(lift, needs)


def test_satisfies_lets_bounds_differ_but_not_meaning(lift: Contract) -> None:
    satisfies(lift, change(lift, "joint_position", lower=(-3.0,) * 7, upper=(3.0,) * 7, role="privileged"))
    for values in ({"unit": "deg"}, {"names": tuple("gfedcba")}, {"dtype": "float64"}):
        with pytest.raises(ContractError, match="joint_position"):
            satisfies(lift, change(lift, "joint_position", **values))


def test_recordings_with_other_bounds_are_united_by_the_wider_ones(lift: Contract) -> None:
    name = "joint_position"
    first = change(lift, name, lower=(-1.0,) * 7, upper=(2.0,) * 7)
    second = change(lift, name, lower=(-3.0, *(0.0,) * 6), upper=(1.0,) * 7)
    for pair in ((first, second), (second, first)):
        both = united(*pair).observation[name]
        assert (both.lower, both.upper) == ((-3.0, *(-1.0,) * 6), (2.0,) * 7)
    unbounded = united(first, change(lift, name, lower=(), upper=())).observation[name]
    assert (unbounded.lower, unbounded.upper) == ((), ())
    for other in (change(first, name, unit="deg"), first.select([name]), change(lift, "wrist_image", shape=(4, 4, 3))):
        with pytest.raises(ContractError):
            united(first, other)


def test_principal_points_half_a_pixel_apart_are_the_same_and_nothing_else_is(lift: Contract) -> None:
    new = {"fx": 50.0, "fy": 50.0, "cx": 41.5, "cy": 41.5, "distortion": [0.0]}
    old = {**new, "fx": 50.0 * (1 + 1e-14), "cx": 42, "cy": 41}
    first, second = (change(lift, "wrist_image", calibration=each) for each in (new, old))
    equal(first, second)
    assert united(first, second).observation["wrist_image"].calibration == new
    for other in ({"cx": 42.1}, {"cy": 40.9}, {"fx": 50.1}, {"fy": 49.9}, {"distortion": [0.1]}, {"skew": 0.0}):
        with pytest.raises(ContractError, match=r"wrist_image\.calibration"):
            equal(first, change(lift, "wrist_image", calibration={**new, **other}))
    with pytest.raises(ContractError, match=r"wrist_image\.calibration"):
        equal(first, lift)


def test_casts_are_explicit(lift: Contract) -> None:
    double = change(lift, "joint_position", dtype="float64")
    satisfies(lift, double, casts={"joint_position": "float32"})
    with pytest.raises(ContractError, match="dtype"):
        satisfies(lift, double, casts={"joint_position": "float16"})


def test_satisfies_demands_the_same_action(lift: Contract) -> None:
    other = dataclasses.replace(lift, action=dict(reversed(lift.action.items())), controller="osc_pose")
    with pytest.raises(ContractError) as error:
        satisfies(lift, other)
    assert len(error.value.differences) == 2


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"shape": (0,)}, "positive lengths"),
        ({"dtype": "float31"}, "no NumPy dtype"),
        ({"kind": "sound"}, "kind: expected one of"),
        ({"kind": "image"}, "an image is uint8"),
        ({"kind": "depth", "dtype": "uint8"}, "depth is uint16"),
        ({"names": ("a",)}, "names: expected 2"),
        ({"lower": (1.0, 1.0), "upper": (0.0, 2.0)}, "exceeds upper"),
        ({"mode": "delta"}, "needs relative_to"),
        ({"representation": "quaternion"}, "quaternion has 4 elements"),
        ({"names": "ab"}, "expected a list"),
        ({"lower": ("x", 1)}, "expected a list of float"),
    ],
)
def test_malformed_features_are_refused(values: dict, problem: str) -> None:
    with pytest.raises(ContractError, match=problem):
        Feature(**{"name": "q", "shape": (2,), **values})


def test_all_problems_of_a_file_are_listed_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "name: bad\ncolour: red\nobservation:\n  q: {shape: [2], unti: rad}\n  p: 3\naction:\n  a: {unit: m}\n"
    )
    with pytest.raises(ContractError) as error:
        Contract.from_yaml(tmp_path / "bad.yaml")
    text = str(error.value)
    for part in ("bad.yaml", "colour: no such key", "rate_hz: missing", "unti: no such key", "p: expected a mapping"):
        assert part in text
    assert "action.a: shape: missing" in text


@pytest.mark.parametrize("text", ["{", "- 1", "3"])
def test_a_file_that_is_no_contract(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ContractError, match=r"bad\.yaml"):
        Contract.from_yaml(tmp_path / "bad.yaml")


def test_rates_and_versions_are_checked(lift: Contract) -> None:
    with pytest.raises(ContractError, match="expected a positive number"):
        dataclasses.replace(lift, rate_hz=0.0)
    with pytest.raises(ContractError, match="this version reads 1, got 2"):
        dataclasses.replace(lift, schema_version=2)
    with pytest.raises(ContractError, match="expected one dimension"):
        dataclasses.replace(lift, action={"a": Feature("a", (2, 2), kind="action")})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"observation": ["q"]}, "observation: expected a mapping of features by name"),
        ({"rate_hz": "fast"}, "rate_hz: expected a positive number, got 'fast'"),
        ({"rate_hz": None}, "rate_hz: expected a positive number, got None"),
        ({"rate_hz": float("inf")}, "rate_hz: expected a positive number, got inf"),
        ({"action": {}}, "action: expected at least one feature"),
        ({"name": 3}, "name: expected text, got 3"),
        ({"observation": {5: {"shape": [1]}}}, "name: expected text, got 5"),
        ({"observation": {"q": {"shape": [2.7]}}}, "shape: expected a list of int"),
        ({"observation": {"q": {"shape": [2], "dtype": None}}}, "dtype: expected text, got None"),
        ({"observation": {"q": {"shape": [2], "unit": 3}}}, "unit: expected text, got 3"),
        ({"observation": {"q": {"shape": [2], "rate_hz": "fast"}}}, "rate_hz: expected a positive number"),
        ({"observation": {"q": {"shape": [2], "names": [1, 2]}}}, "names: expected a list of str"),
        ({"observation": {"q": {"shape": [2], "calibration": [1]}}}, "calibration: expected a mapping"),
        ({"observation": {"q": {"shape": [1], "lower": [float("nan")]}}}, "bounds: expected finite numbers"),
        ({"observation": {"q": {"shape": [1], "upper": [float("inf")]}}}, "no bounds leaves them out"),
        *(({"observation": {name: {"shape": [1]}}}, "a name consists of letters") for name in ("", "..", "a/b", "-a")),
        *(({"observation": {name: {"shape": [1]}}}, "is taken by the files") for name in ("zarr.json", "c.0", "c.1.0")),
    ],
)
def test_values_of_another_kind_are_refused(changes: dict[str, object], expected: str) -> None:
    plain = {"name": "a", "rate_hz": 20, "observation": {"q": {"shape": [2]}}, "action": {"x": {"shape": [2]}}}
    Contract.from_dict(plain)
    with pytest.raises(ContractError) as error:
        Contract.from_dict({**plain, **changes})
    assert expected in str(error.value)
