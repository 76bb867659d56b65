"""Every method is where users look for it."""

from pathlib import Path

import yaml

import robot_rl
from robot_rl.rl.methods import METHODS, OFF_POLICY

PACKAGE = Path(robot_rl.__file__).parent


def test_one_table_describes_them_all() -> None:
    page = (PACKAGE.parent / "docs" / "finetuning.md").read_text()
    (table,) = (part for part in page.split("\n\n") if part.startswith("| `algorithm=` |"))
    rows = [line.split("`")[1] for line in table.splitlines()[2:]]
    assert rows == [*("ppo", "reinflow", "resip", "demo_reset", "dppo"), *OFF_POLICY]
    assert set(rows) == {*METHODS, *OFF_POLICY}


def test_the_configuration_names_those_that_make_a_new_policy() -> None:
    line = next(
        line for line in (PACKAGE / "configs" / "finetune.yaml").read_text().splitlines() if "a new one" in line
    )
    named = line.split("algorithm=")[1].rstrip(")").replace(" or ", ", ").split(", ")
    presets = (PACKAGE / "rl" / "algorithm").glob("*.yaml")
    assert set(named) == {
        preset.stem for preset in presets if (yaml.safe_load(preset.read_text()) or {}).get("network")
    }
