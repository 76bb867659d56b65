"""N drones at one task: episodes, observations, success, and what was randomised. Rows of arrays are drones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robot_rl.datasets.contract import Contract, Feature, Role
from robot_rl.sim.drone import variation
from robot_rl.sim.drone.attitude import rotate_back
from robot_rl.sim.drone.batch import DroneBatch
from robot_rl.sim.drone.course import Course, crossings, make_course, pole_hits
from robot_rl.sim.drone.flight import SUBSTEP
from robot_rl.sim.drone.reference import COLUMNS, reference
from robot_rl.sim.drone.spec import CONTROLLERS, load
from robot_rl.sim.drone.transmission import Transmission
from robot_rl.sim.drone.vehicle_model import Vehicle, load_vehicle
from robot_rl.sim.gl_context import RenderError
from robot_rl.sim.spec import SpecError

AHEAD_S = (0.0, 0.1, 0.2, 0.3, 0.4)
"""How far ahead the reference is observed [s]."""
REWARD_WIDTH = 0.25
"""Distance from the reference at which the reward has fallen to exp(-1) [m]."""
CRASH_HEIGHT = 0.02
"""Of the centre above the ground, where a course counts as left [m]."""
PATIENCE = 0.15
"""How far a drone may be behind or before the reference of a course until that waits or hurries [m]."""


class DroneWorld:
    """See `robot_rl.sim.drone.env`, which gives it the interfaces of Gymnasium.

    Args:
        spec: resolved, see `robot_rl.sim.drone.spec.resolve`.

    Attributes:
        contract: of one drone.
        table: reference of each drone, float32 [N, T, COLUMNS].
        steps: taken in each episode, int64 [N]. moment: row of `table` that is the reference now, int64 [N]: the same,
            but on a course the reference goes along with the drone, which cannot see it.
        last_action: float32 [N, A].
        records: what was drawn for each.
    """

    def __init__(self, spec: Mapping[str, Any], num: int) -> None:
        self.num, self.task = num, load("task", spec["task"])
        self._rows = np.arange(num)
        self.vehicle: Vehicle = load_vehicle(spec["robot"])
        self.level = CONTROLLERS[spec["controller"]]
        self.period = 1 / float(spec["rate_hz"])
        substeps = self.period / SUBSTEP
        if substeps < 1 or abs(substeps - round(substeps)) > 1e-6:
            raise SpecError(f"rate_hz: expected a divisor of {1 / SUBSTEP:g} Hz, got {spec['rate_hz']}")
        self.batch = DroneBatch(self.vehicle, num, round(substeps), self.level)
        self.config = {} if spec["randomization"] is None else load("randomization", spec["randomization"])
        variation.check(self.config)
        self.horizon = int(spec["horizon"])
        self.radius = 1.5 * float(np.hypot(*self.vehicle.arm))
        self._ahead = np.array([round(time / self.period) for time in AHEAD_S])
        self.course = make_course(self.task)
        gates = 0 if self.course is None else len(self.course.centers)
        self.centers, self.yaws = np.zeros((num, gates, 3)), np.zeros((num, gates))
        self.steps, self.moment = np.zeros(num, np.int64), np.zeros(num, np.int64)
        self._table_steps = min(self.horizon, 20_000) + int(self._ahead[-1]) + 1
        self.table = np.zeros((num, self._table_steps, COLUMNS), np.float32)
        self.records: list[Mapping[str, Any]] = [{} for _ in range(num)]
        self.passed = np.zeros(num, np.int64)
        self._square, self._counted, self._lap = (np.zeros(num) for _ in range(3))
        self._margin = np.full(num, np.inf)
        self.last_action = np.stack([self.rest_action(row) for row in range(num)])
        width = self.last_action.shape[1] + (self.level == "position")
        self._transmission = Transmission(num, self.period, width, variation.longest_command_delay(self.config))
        self._features = self._observation_features()
        self.contract = Contract(
            f"drone_{self.task['name']}_{self.vehicle.name}_{spec['controller']}", float(spec["rate_hz"]),
            self._features, self._action_features(), f"px4_{spec['controller']}",
        )  # fmt: skip
        self._bounds = self.contract.action_bounds
        if spec["observation"] is not None:
            if missing := sorted(set(spec["observation"]) - set(self._features)):
                raise SpecError(f"no such observation: {', '.join(missing)}; there are: {', '.join(self._features)}")
            self.contract = self.contract.select(spec["observation"])

    def begin(
        self, rows: Sequence[int], seeds: Sequence[int], records: Sequence[Mapping[str, Any] | None] | None = None
    ) -> list[dict[str, Any]]:
        """Begin episodes; their infos. Records that are given are used instead of drawing."""
        infos, chosen = [], np.asarray(rows)
        starts = {name: np.zeros((len(chosen), 3)) for name in ("position", "velocity", "rates")}
        quaternions, parameters = np.zeros((len(chosen), 4)), []
        for index, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
            given = None if records is None else records[index]
            drawn = variation.draw(self.config, self.centers.shape[1], np.random.default_rng([seed, 1]))
            record = drawn if given is None else given
            if given is not None and set(given) != set(drawn):
                raise SpecError("the record of a randomisation belongs to another configuration")
            self.records[row] = record
            course = make_course(self.task, record.get("gates"))
            if course is not None:
                self.centers[row], self.yaws[row] = course.centers, course.yaws
            generator = np.random.default_rng([seed, 0])
            self.table[row] = reference(self.task, self._table_steps, self.period, generator, course)
            spread = self.task["start"]
            for name in starts:
                starts[name][index] = generator.uniform(-spread[name], spread[name], 3)
            axis = np.append(generator.uniform(-spread["tilt"], spread["tilt"], 2), 0.0)
            quaternions[index] = [1.0, *(axis / 2)]
            parameters.append(variation.parameters(record, self.vehicle, self.period))
            infos.append({"seed": int(seed), "success": False, **({"randomization": record} if self.config else {})})
        joined = {name: np.array([row[name] for row in parameters]) for name in parameters[0]}
        self.batch.begin(
            chosen, seeds, starts["position"] + self.table[chosen, 0, :3], starts["velocity"], quaternions,
            starts["rates"], joined,
        )  # fmt: skip
        self.steps[chosen] = self.moment[chosen] = self.passed[chosen] = 0
        for row in chosen:
            self.last_action[row] = self.rest_action(row)
        self._square[chosen] = self._counted[chosen] = self._lap[chosen] = 0.0
        self._margin[chosen] = np.inf
        picked = [self.records[row] for row in rows]
        self._transmission.begin(chosen, np.asarray(seeds), picked, self._odometry()[chosen])
        self._transmission.receive(self._odometry(), self.steps)
        return infos

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Fly one step under actions [N, A]: reward, terminated, truncated and success [N].

        Terminated: crashed, too far or too fast, or through all gates. Truncated: at the horizon, or not finite.
        """
        before = self.batch.read("position")
        self.last_action[:] = actions
        commands, switch = self._transmission.send(self._commands(actions), self.steps)
        self.batch.command(commands, switch)
        self.batch.step()
        return self._judge(before)

    def place(self, odometry: np.ndarray) -> None:
        """Take over where drones really are, [N, 13]: position, velocity, quaternion and rates. No time passes."""
        self.batch.write("odometry", odometry)
        self._transmission.receive(self._odometry(), self.steps)

    def follow(
        self, actions: np.ndarray, odometry: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `step`, where the step was flown elsewhere and has led to `odometry`, see `place`."""
        before = self.batch.read("position")
        self.last_action[:] = actions
        self.batch.write("odometry", odometry)
        return self._judge(before)

    def _judge(self, before: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Let a step have passed that began at positions `before` [N, 3]; see `step`."""
        self.steps += 1
        odometry = self._odometry()
        self._move_on(odometry[:, :3])
        self._transmission.receive(odometry, self.steps)
        position, limits, goal = odometry[:, :3], self.task["limits"], self.task["success"]
        error = _length(position - self.table[self._rows, self.moment, :3])
        late = self.steps * self.period > goal.get("after", 0.0)
        self._square += np.where(late, error**2, 0.0)
        self._counted += late
        lost = (
            (error > limits["distance"])
            | (_length(odometry[:, 3:6]) > limits["speed"])
            | (_length(odometry[:, 10:]) > limits["rates"])
        )
        over = self.steps >= self.horizon
        if self.course is None:
            reward = np.exp(-((error / REWARD_WIDTH) ** 2))
            success = over & ~lost & (self.rmse < goal["rmse"])
            if "landed" in goal:
                success &= self._landed(goal["landed"])
        else:
            passed, crashed = self._fly_course(before, position, self.course)
            lost |= crashed
            done = (self.passed == self.centers.shape[1]) & ~lost
            reward, success = passed.astype(float), done
            lost |= done
        diverged = ~np.isfinite(odometry).all(1)
        return reward, lost & ~diverged, (over & ~lost) | diverged, success & ~diverged

    @property
    def rmse(self) -> np.ndarray:
        """Root mean square distance from the reference so far, from the time on that the task counts [N] [m]."""
        return np.sqrt(self._square / np.maximum(self._counted, 1.0))

    def metrics(self, row: int) -> dict[str, Any]:
        """Of an episode so far: position RMSE [m], gates passed, lap time [s] and least gate margin [m]."""
        found: dict[str, Any] = {"position_rmse": float(self.rmse[row])}
        if self.course is not None:
            gates = self.centers.shape[1]
            found["gates_passed"] = int(self.passed[row])
            found["lap_time"] = float(self._lap[row]) if self.passed[row] == gates else None
            found["gate_margin"] = float(self._margin[row]) if np.isfinite(self._margin[row]) else None
        return found

    def observe(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Observations of the contract, {name: [n, ...]}, of the drones that a mask [N] tells."""
        seen = self._transmission.seen()
        return {
            name: getattr(self, f"_see_{name}")(seen)[rows].astype(np.float32) for name in self.contract.observation
        }

    def image(self, row: int, camera: str, height: int, width: int) -> np.ndarray:
        """Raises: RenderError, as drones have no cameras yet."""
        raise RenderError("drones have no cameras yet")

    def rest_action(self, row: int) -> np.ndarray:
        """The action [A] that keeps a drone where it is."""
        hover = self.vehicle.hover_throttle
        if self.level == "rates":
            return np.array([hover, 0, 0, 0], np.float32)
        if self.level == "attitude":
            return np.array([hover, 1, 0, 0, 0], np.float32)
        if self.level == "velocity":
            return np.zeros(4, np.float32)
        w, z = self.batch.read("quaternion")[row, [0, 3]]
        return np.array([*self.batch.read("position")[row], 2 * np.arctan2(z, w)], np.float32)

    def get_states(self) -> np.ndarray:
        """All that decides the future within the present episodes, float64 [N, S]."""
        counts = (self.steps, self.moment, self.passed, self._square, self._counted, self._lap, self._margin)
        own = np.stack(counts, 1).astype(float)
        own[~np.isfinite(own)] = -1.0
        return np.concatenate([own, self.last_action, self.batch.get_state(), self._transmission.get_state()], axis=1)

    def set_states(self, states: np.ndarray, rows: np.ndarray) -> None:
        """Continue from `get_states`; records, references and gates stay those of the present episodes.

        Raises:
            ValueError: the states are of another specification.
        """
        states = np.asarray(states, float)
        counts, own = 7, 7 + self.last_action.shape[1]
        flight = self.batch.get_state().shape[1]
        expected = own + flight + self._transmission.get_state().shape[1]
        if states.shape != (len(rows), expected):
            raise ValueError(
                f"expected states of shape {[len(rows), expected]} for {self.contract.name}, got {list(states.shape)}"
            )
        self.steps[rows], self.moment[rows], self.passed[rows] = states[:, :3].T
        self._square[rows], self._counted[rows], self._lap[rows] = states[:, 3:6].T
        self._margin[rows] = np.where(states[:, 6] < -0.5, np.inf, states[:, 6])
        self.last_action[rows] = states[:, counts:own]
        self.batch.set_state(states[:, own : own + flight], rows)
        self._transmission.set_state(states[:, own + flight :], rows)

    def _at(self, steps: np.ndarray) -> np.ndarray:
        return np.minimum(steps, self._table_steps - 1)

    def _move_on(self, position: np.ndarray) -> None:
        """Advance the reference by a step: on a course by none or two where the drone is behind or before it."""
        pace = 1
        if self.course is not None:
            goal = self.table[self._rows, self.moment]
            speed = np.maximum(_length(goal[:, 3:6]), 1e-6)
            behind = np.einsum("nk,nk->n", goal[:, :3] - position, goal[:, 3:6]) / speed
            pace = 1 - (behind > PATIENCE) + (behind < -PATIENCE)
        self.moment = self._at(self.moment + pace)

    def _odometry(self) -> np.ndarray:
        return self.batch.read("odometry")

    def _commands(self, actions: np.ndarray) -> np.ndarray:
        if self.level == "position":
            half = actions[:, 3:] / 2
            return np.concatenate([actions[:, :3], np.cos(half), np.sin(half)], axis=1)
        if self.level == "attitude":
            length = np.linalg.norm(actions[:, 1:], axis=1, keepdims=True)
            upright = np.array([1.0, 0, 0, 0], actions.dtype)
            return np.concatenate(
                [actions[:, :1], np.where(length > 1e-6, actions[:, 1:] / np.maximum(length, 1e-6), upright)], axis=1
            )
        if self.level == "rates":
            low, high = self._bounds
            return np.clip(actions, low, high)
        return actions

    def _landed(self, speed: float) -> np.ndarray:
        low = self.batch.read("position")[:, 2] <= self.vehicle.floor + 1e-3
        return low & (self.batch.read("impact")[:, 0] < speed)

    def _fly_course(self, before: np.ndarray, after: np.ndarray, course: Course) -> tuple[np.ndarray, np.ndarray]:
        """Advance gates; which drones passed one now, and which crashed."""
        sides = (course.opening, course.frame, self.radius)
        through, hit, margin = crossings(self.centers, self.yaws, before[:, None], after[:, None], *sides)
        rows = self._rows
        wanted = np.minimum(self.passed, self.centers.shape[1] - 1)
        passed = through[rows, wanted] & (self.passed < self.centers.shape[1])
        self._margin = np.where(passed, np.minimum(self._margin, margin[rows, wanted]), self._margin)
        self.passed += passed
        self._lap = np.where(passed, self.steps * self.period, self._lap)
        crashed = hit.any(1) | pole_hits(course.poles, course.pole_radius, after, self.radius)
        return passed, crashed | (after[:, 2] < self.vehicle.floor + CRASH_HEIGHT)

    def _observation_features(self) -> dict[str, Feature]:
        xyz = ("x", "y", "z")
        known: Role = "policy" if self.course is None else "privileged"
        offset: dict[str, Any] = {"unit": "m", "frame": "world", "mode": "delta", "relative_to": "position"}
        features = [
            Feature("position", (3,), names=xyz, unit="m", frame="world", representation="position"),
            Feature("velocity", (3,), names=xyz, unit="m/s", frame="world"),
            Feature("attitude", (4,), names=("w", *xyz), frame="world", representation="quaternion"),
            Feature("body_rates", (3,), names=xyz, unit="rad/s", frame="body"),
            Feature("accelerometer", (3,), names=xyz, unit="m/s^2", frame="body"),
            Feature("gyro", (3,), names=xyz, unit="rad/s", frame="body"),
            Feature("optical_flow", (2,), names=("x", "y"), unit="rad/s", frame="body"),
            Feature("range", (1,), unit="m", frame="body"),
            Feature("reference", (3 * len(AHEAD_S),), role=known, **offset),
        ]  # fmt: skip
        if self.course is not None:
            pose = {**offset, "representation": "position_quaternion"}
            features += [Feature(name, (7,), **pose) for name in ("next_gate", "gate_after")]
            poles = (self.course.poles.size,)
            features.append(Feature("poles", poles, **offset))
        features += [
            Feature("last_action", self.last_action.shape[1:]),
            Feature("vehicle_factors", (2,), names=("mass", "thrust"), role="privileged"),
            Feature("wind", (3,), names=xyz, unit="m/s", frame="world", role="privileged"),
        ]
        return {feature.name: feature for feature in features}

    def _action_features(self) -> dict[str, Feature]:
        xyz = ("x", "y", "z")
        action: dict[str, Any] = {"kind": "action"}
        throttle = Feature("throttle", (1,), lower=(0.0,), upper=(1.0,), **action)
        most = self.vehicle.max_rates
        lower = tuple(-rate for rate in most)
        levels = {
            "rates": [
                throttle,
                Feature("body_rates", (3,), names=xyz, unit="rad/s", frame="body", lower=lower, upper=most, **action),
            ],
            "attitude": [
                throttle,
                Feature("attitude", (4,), names=("w", *xyz), frame="world", representation="quaternion", **action),
            ],
            "velocity": [
                Feature("velocity", (3,), names=xyz, unit="m/s", frame="world", **action),
                Feature("yaw_rate", (1,), unit="rad/s", frame="world", **action),
            ],
            "position": [
                Feature("position", (3,), names=xyz, unit="m", frame="world", representation="position", **action),
                Feature("yaw", (1,), unit="rad", frame="world", **action),
            ],
        }
        return {feature.name: feature for feature in levels[self.level]}

    def _see_position(self, seen: np.ndarray) -> np.ndarray:
        return seen[:, :3]

    def _see_velocity(self, seen: np.ndarray) -> np.ndarray:
        return seen[:, 3:6]

    def _see_attitude(self, seen: np.ndarray) -> np.ndarray:
        quaternion = seen[:, 6:10]
        largest = np.abs(quaternion).argmax(1)
        return np.asarray(quaternion * np.where(quaternion[self._rows, largest] < 0, -1.0, 1.0)[:, None])

    def _see_body_rates(self, seen: np.ndarray) -> np.ndarray:
        return seen[:, 10:]

    def _see_accelerometer(self, _: np.ndarray) -> np.ndarray:
        return self.batch.read("accelerometer")

    def _see_gyro(self, _: np.ndarray) -> np.ndarray:
        return self.batch.read("gyro")

    def _see_range(self, _: np.ndarray) -> np.ndarray:
        return self._distance_below()[:, None]

    def _see_optical_flow(self, _: np.ndarray) -> np.ndarray:
        """How the ground below moves past a camera that looks down the body's z axis, along its x and y."""
        odometry = self._odometry()
        body, rates = rotate_back(odometry[:, 6:10], odometry[:, 3:6]), odometry[:, 10:]
        distance = np.maximum(self._distance_below(), 0.05)[:, None]
        return -body[:, :2] / distance + np.stack([rates[:, 1], -rates[:, 0]], 1)

    def _see_reference(self, seen: np.ndarray) -> np.ndarray:
        ahead = self._at(self.moment[:, None] + self._ahead)
        return (self.table[self._rows[:, None], ahead, :3] - seen[:, None, :3]).reshape(self.num, -1)

    def _see_next_gate(self, seen: np.ndarray) -> np.ndarray:
        return self._gate(self.passed, seen)

    def _see_gate_after(self, seen: np.ndarray) -> np.ndarray:
        return self._gate(self.passed + 1, seen)

    def _see_poles(self, seen: np.ndarray) -> np.ndarray:
        assert self.course is not None
        return (self.course.poles - seen[:, None, :2]).reshape(self.num, -1)

    def _see_last_action(self, _: np.ndarray) -> np.ndarray:
        return self.last_action

    def _see_vehicle_factors(self, _: np.ndarray) -> np.ndarray:
        return np.array([[record.get("mass", 1.0), record.get("thrust", 1.0)] for record in self.records])

    def _see_wind(self, _: np.ndarray) -> np.ndarray:
        return self.batch.read("wind")

    def _gate(self, number: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Pose of a gate of each drone, [N, 7], from the position seen; behind the last one the last."""
        wanted = np.minimum(number, self.centers.shape[1] - 1)
        half = self.yaws[self._rows, wanted] / 2
        zero = np.zeros_like(half)
        turn = np.stack([np.cos(half), zero, zero, np.sin(half)], 1)
        turn *= np.where(np.abs(turn).max(1) > turn.max(1), -1.0, 1.0)[:, None]
        return np.concatenate([self.centers[self._rows, wanted] - seen[:, :3], turn], axis=1)

    def _distance_below(self) -> np.ndarray:
        """To the ground along the body's z axis [N] [m]; 30 where that does not point down."""
        odometry = self._odometry()
        x, y = odometry[:, 7], odometry[:, 8]
        down = 1 - 2 * (x * x + y * y)
        return np.where(down > 0.1, odometry[:, 2] / np.maximum(down, 0.1), 30.0)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("...k,...k->...", vectors, vectors))
