from types import SimpleNamespace

from robot_rl.attended import Keys


def test_the_space_bar_stops_the_robot_whoever_asks_for_keys() -> None:
    typed, stops, timers = ["s", " x", ""], [], []
    graph = SimpleNamespace(timer=lambda period, callback, clock: timers.append((callback, clock)))
    keys = Keys(graph, lambda: typed.pop(0), lambda: stops.append(True))
    ((listen, clock),) = timers
    assert clock == "wall"  # also while simulated time stands still
    listen()
    assert stops == []
    listen()
    assert stops == [True]
    assert keys.take() == "sx"
