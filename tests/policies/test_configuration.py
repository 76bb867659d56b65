import pytest

from robot_rl.policies import PolicyError
from robot_rl.policies.configuration import complete, construct, options, plain, resolve


class Motor:
    def __init__(self, load: int, *, power: int = 3, gears: tuple[int, ...] = (1, 2)) -> None:
        if power < 0:
            raise ValueError("power must not be negative")
        self.load, self.power, self.gears = load, power, gears


KINDS = {"motor": Motor}


def test_keyword_only_arguments_are_the_keys() -> None:
    assert options(Motor) == {"power": 3, "gears": [1, 2]}
    resolved = resolve("drive", {"name": "motor", "power": 5}, KINDS)
    assert resolved == {"name": "motor", "power": 5, "gears": [1, 2]}
    assert construct("drive", resolved, KINDS, 7).load == 7


def test_errors_name_section_key_and_what_is_known() -> None:
    with pytest.raises(PolicyError, match=r"drive \(motor\): no such key 'pover'; known are name, power, gears"):
        resolve("drive", {"name": "motor", "pover": 5}, KINDS)
    with pytest.raises(PolicyError, match=r"drive.name: expected one of motor; got 'engine'"):
        resolve("drive", {"name": "engine"}, KINDS)
    with pytest.raises(PolicyError, match=r"drive \(motor\): power must not be negative"):
        construct("drive", {"name": "motor", "power": -1}, KINDS, 7)
    with pytest.raises(PolicyError, match="top: no such key 'b'; known are a"):
        complete("top", {"b": 1}, {"a": 1})


def test_plain_makes_json_types() -> None:
    assert plain({"a": (1, {"b": (2.0, "text")}), "c": None}) == {"a": [1, {"b": [2.0, "text"]}], "c": None}
