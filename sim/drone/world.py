"""N drones at one task: episodes, observations, success, and what was randomised. Rows of arrays are drones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robot_rl.datasets.contract import Contract, Feature, Role
from robot_rl.sim.drone import contact, episode, variation
from robot_rl.sim.drone.batch import DroneBatch
from robot_rl.sim.drone.contact import Contact
from robot_rl.sim.drone.course import make_course
from robot_rl.sim.drone.flight import SUBSTEP
from robot_rl.sim.drone.generators import Generators, generate_state
from robot_rl.sim.drone.reference import COLUMNS, differs, draw_figure, reference
from robot_rl.sim.drone.scene import NOMINAL, DroneScene
from robot_rl.sim.drone.spec import CONTROLLERS, load
from robot_rl.sim.drone.vehicle_model import Vehicle, load_vehicle
from robot_rl.sim.spec import SpecError
from robot_rl.sim.world_env import pictures

AHEAD_S = (0.0, 0.1, 0.2, 0.3, 0.4)
"""How far ahead the reference is observed [s]."""

_AT_ONCE = 64
"""Episodes that are begun together: what is made of them on the way stays in the cache."""

_FORMS = {
    "rates": episode.THROTTLE_RATES, "attitude": episode.THROTTLE_ATTITUDE, "velocity": episode.VELOCITY_YAW_RATE,
    "position": episode.POSITION_YAW,
}  # fmt: skip


class DroneWorld:
    """See `robot_rl.sim.drone.env`, which gives it the interfaces of Gymnasium.

    Args:
        spec: resolved, see `robot_rl.sim.drone.spec.resolve`.

    Attributes:
        contract: of one drone.
        table: reference of each drone, float32 [N, T, COLUMNS].
        records: what was drawn for each.
        gates: centre and yaw of each, [N, G, 4]. goals: where a corridor leads, [N, 1, 3]; [N, 0, 3] without one.
        rules: what `episode` knows of task and vehicle.
        parts: columns of `look`, by feature of the contract. cameras: height and width of its pictures.
    """

    def __init__(self, spec: Mapping[str, Any], num: int) -> None:
        self.num, self.task = num, load("task", spec["task"])
        self.diverged, self.active = np.zeros(num, bool), np.ones(num, bool)
        self._rows = np.arange(num)
        self.vehicle: Vehicle = load_vehicle(spec["robot"])
        self.level = CONTROLLERS[spec["controller"]]
        self._form = _FORMS[self.level]
        self.period = 1 / float(spec["rate_hz"])
        substeps = self.period / SUBSTEP
        if substeps < 1 or abs(substeps - round(substeps)) > 1e-6:
            raise SpecError(f"rate_hz: expected a divisor of {1 / SUBSTEP:g} Hz, got {spec['rate_hz']}")
        self.batch = DroneBatch(self.vehicle, num, round(substeps), self.level)
        self.config = {} if spec["randomization"] is None else load("randomization", spec["randomization"])
        variation.check(self.config)
        self.horizon = int(spec["horizon"])
        self._ahead = [round(time / self.period) for time in AHEAD_S]
        self.course = make_course(self.task)
        self.gates = np.zeros((num, 0 if self.course is None else len(self.course.centers), 4))
        corridor = self.course is not None and self.course.width > 0
        self.goals = np.zeros((num, int(corridor), 3))
        self._poles = np.zeros((0, 2)) if self.course is None else self.course.poles
        self._table_steps = min(self.horizon, 20_000) + self._ahead[-1] + 1
        # A reference that all episodes share is kept once, so that it stays in the cache.
        self._differ = differs(self.task, "gates" in self.config)
        self._tables = np.zeros((num if self._differ else 1, self._table_steps, COLUMNS), np.float32)
        if not self._differ:
            self._tables[0] = reference(self.task, self._table_steps, self.period, self.course)
        # Not `broadcast_to`: arrays that cannot be written are slow to hand to compiled code.
        strides = (self._tables.strides[0] * self._differ, *self._tables.strides[1:])
        self.table = np.lib.stride_tricks.as_strided(self._tables, (num, *self._tables.shape[1:]), strides)
        self.records: list[Mapping[str, Any]] = [{} for _ in range(num)]
        width = len(self.rest_action(0))
        kept = math.ceil(variation.longest_command_delay(self.config) / self.period) + 2
        self._memory, self._drawn = np.zeros((num, episode.MEMORY)), np.zeros((num, episode.DRAWN))
        self._keys = np.zeros(num, np.uint64)
        self._sent = np.zeros((num, kept, 1 + width + (self.level == "position")))
        self._past = np.zeros((variation.LONGEST_OBSERVATION_DELAY + 1, num, episode.ODOMETRY), np.float32)
        view = self.batch.view
        self._odometry, self._sensors, self._wind, self._command = map(view, ("odometry", "sensors", "wind", "command"))
        features = self._observation_features()
        self._scene = DroneScene(self.course, self.vehicle)
        touched = spec["contact"]
        self._contacts = [] if touched is None else [Contact(self.course, self.vehicle, **touched) for _ in range(num)]
        self.cameras = {camera: (int(size[0]), int(size[1])) for camera, size in spec["cameras"].items()}
        images = {camera: self._scene.feature(camera, *size) for camera, size in self.cameras.items()}
        self.contract = Contract(
            f"drone_{self.task['name']}_{self.vehicle.name}_{spec['controller']}", float(spec["rate_hz"]),
            features | images, self._action_features(), f"px4_{spec['controller']}",
        )  # fmt: skip
        ends = np.cumsum([feature.shape[0] for feature in features.values()]).tolist()
        columns = {
            name: slice(end - feature.shape[0], end)
            for end, (name, feature) in zip(ends, features.items(), strict=True)
        }
        if spec["observation"] is not None:
            if missing := sorted(set(spec["observation"]) - set(features)):
                raise SpecError(f"no such observation: {', '.join(missing)}; there are: {', '.join(features)}")
            self.contract = self.contract.select([*spec["observation"], *images])
        self.parts = {name: columns[name] for name in self.contract.observation if name in columns}
        self._ends = ends
        self.rules = self._make_rules()
        self.last_action[:] = self._rest_actions(self._rows)

    def begin(
        self, rows: Sequence[int], seeds: Sequence[int], records: Sequence[Mapping[str, Any] | None] | None = None
    ) -> list[dict[str, Any]]:
        """Begin episodes; their infos. Records that are given are used instead of drawing."""
        given = [None] * len(rows) if records is None else records
        infos: list[dict[str, Any]] = []
        for start in range(0, len(rows), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            infos += self._begin(np.array(rows[some], np.int64), [int(seed) for seed in seeds[some]], given[some])
        return infos

    def _begin(
        self, rows: np.ndarray, seeds: Sequence[int], given: Sequence[Mapping[str, Any] | None]
    ) -> list[dict[str, Any]]:
        drawn = variation.draw(self.config, self.gates.shape[1], seeds)
        if any(record is not None and set(record) != set(drawn[0]) for record in given):
            raise SpecError("the record of a randomisation belongs to another configuration")
        records = [own if record is None else record for own, record in zip(drawn, given, strict=True)]
        for row, record in zip(rows.tolist(), records, strict=True):
            self.records[row] = record
        generators = Generators(seeds, 0)
        moved = [record["gates"] for record in records] if "gates" in drawn[0] else []
        course = make_course(self.task, moved, generators)
        if course is not None:
            self.gates[rows, :, :3], self.gates[rows, :, 3] = course.centers, course.yaws
            self.goals[rows] = course.finish[..., None, :]
        figure = draw_figure(self.task, generators)
        if self._differ:
            self._tables[rows] = reference(self.task, self._table_steps, self.period, course, figure)
        spread = self.task["start"]
        position, velocity, rates = (
            generators.uniform(-spread[name], spread[name], 3) for name in ("position", "velocity", "rates")
        )
        tilt = generators.uniform(-spread["tilt"], spread["tilt"], 2) / 2
        quaternion = np.concatenate([np.ones((len(rows), 1)), tilt, np.zeros((len(rows), 1))], axis=1)
        parameters = variation.parameters(records, self.vehicle, self.period)
        if self._contacts:
            parameters["floor"] = contact.NO_FLOOR
            for row, record in zip(rows.tolist(), records, strict=True):
                self._contacts[row].begin(self.gates[row], record.get("mass", 1.0))
        self.batch.begin(rows, seeds, position + self.table[rows, 0, :3], velocity, quaternion, rates, parameters)
        odometry, seen = self.batch.read("odometry", rows), slice(episode.SEEN, episode.SEEN + episode.ODOMETRY)
        self._memory[rows] = self._sent[rows] = 0.0
        self._memory[rows, episode.MARGIN] = self._sent[rows, :, 0] = episode.NEVER
        self._memory[rows, seen] = self._past[:, rows] = odometry
        self.last_action[rows] = self._rest_actions(rows)
        self._keys[rows] = generate_state(seeds, 2, 2).view(np.uint64)[:, 0]
        self._drawn[rows] = variation.link(records)
        episode.receive(rows, self._memory, self._drawn, self._keys, self._past, self._odometry)
        told = [{"randomization": record} if self.config else {} for record in records]
        return [{"seed": seed, "success": False, **more} for seed, more in zip(seeds, told, strict=True)]

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Fly one step under float32 actions [N, A]: reward, terminated, truncated and success [N].

        Terminated: crashed, too far or too fast, or through all gates. Truncated: at the horizon, or not finite.
        """
        rules, memory, drawn, keys = self.rules, self._memory, self._drawn, self._keys
        episode.send(actions, self._form, rules, memory, drawn, keys, self._sent, self._odometry, self._command)
        if self._contacts:
            contact.fly(self.batch, self._contacts, self._memory[:, episode.TOUCHED])
        else:
            self.batch.step()
        return self._judge()

    def place(self, odometry: np.ndarray) -> None:
        """Take over where drones really are, [N, 13]: position, velocity, quaternion and rates. No time passes."""
        self.batch.write("odometry", odometry)
        episode.receive(self._rows, self._memory, self._drawn, self._keys, self._past, self._odometry)

    def follow(
        self, actions: np.ndarray, odometry: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `step`, where the step was flown elsewhere and has led to `odometry`, see `place`."""
        self._memory[:, episode.BEFORE : episode.BEFORE + 3] = self.batch.read("position")
        self.last_action[:] = actions
        self.batch.write("odometry", odometry)
        return self._judge()

    @property
    def steps(self) -> np.ndarray:
        """Taken in each episode, int64 [N]."""
        return self._memory[:, episode.STEPS].astype(np.int64)

    @property
    def moment(self) -> np.ndarray:
        """Row of `table` that is the reference now, int64 [N]: the number of steps, but on a course the reference goes
        along with the drone, which cannot see it."""
        return self._memory[:, episode.MOMENT].astype(np.int64)

    @property
    def passed(self) -> np.ndarray:
        """Gates that each drone has passed [N]."""
        return self._memory[:, episode.PASSED].astype(np.int64)

    @property
    def last_action(self) -> np.ndarray:
        """[N, A], not a copy."""
        width = self._sent.shape[2] - 1 - (self.level == "position")
        return self._memory[:, episode.ACTION : episode.ACTION + width]

    def metrics(self, row: int) -> dict[str, Any]:
        """Of an episode so far: position RMSE [m] from the time on that the task counts, gates passed, lap time [s] and
        least gate margin [m]; of drones that touch things, how long they did [s]. None is what did not come to be."""
        own = self._memory[row]
        counted = float(own[episode.COUNTED])
        found: dict[str, Any] = {"position_rmse": math.sqrt(own[episode.SQUARE] / counted) if counted else None}
        if self._contacts:
            found["contact_time"] = float(own[episode.TOUCHED])
        if self.course is not None:
            passed, margin = int(own[episode.PASSED]), float(own[episode.MARGIN])
            found["gates_passed"] = passed
            found["lap_time"] = float(own[episode.LAP]) if passed == self.gates.shape[1] else None
            found["gate_margin"] = None if margin == episode.NEVER else margin
        return found

    def see(self, rows: np.ndarray) -> np.ndarray:
        """All features as they are now of drones [n], float32 [n O]: one after another, of each its numbers [n, width].

        `parts` says which columns of O a feature has.
        """
        seen = np.empty(len(rows) * self._ends[-1], np.float32)
        episode.observe(
            rows, self.rules, self._memory, self._drawn, self.table, self.gates, self._poles, self.goals,
            self._odometry, self._sensors, self._wind, seen,
        )  # fmt: skip
        return seen

    def look(self) -> np.ndarray:
        """What `see` gives of all drones, drone by drone: [N, O]."""
        parts = np.split(self.see(self._rows), self.num * np.array(self._ends[:-1]))
        return np.concatenate([part.reshape(self.num, -1) for part in parts], axis=1)

    def observe(self, rows: np.ndarray, look: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Observations of the contract, {name: [n, ...]}, of the drones that a mask [N] tells.

        Pictures are of those that a second mask tells; by default of the same.
        """
        chosen = np.flatnonzero(rows)
        num, seen = len(chosen), self.see(chosen)
        found = {
            name: seen[num * columns.start : num * columns.stop].reshape(num, columns.stop - columns.start)
            for name, columns in self.parts.items()
        }
        for camera, size in self.cameras.items():
            found[camera] = pictures(self, camera, size, rows if look is None else look)
        return found

    def image(self, row: int, camera: str, height: int, width: int) -> np.ndarray:
        """Picture of a drone's camera, uint8 [height, width, 3] RGB.

        Raises:
            SpecError: there is no such camera.
            RenderError: nothing can be rendered here.
        """
        seen = NOMINAL | self.records[row].get("appearance", {})
        odometry = self.batch.read("odometry")[row]
        return self._scene.image(camera, odometry, self.gates[row], seen, np.empty((height, width, 3), np.uint8))

    def rest_action(self, row: int) -> np.ndarray:
        """The action [A] that keeps a drone where it is."""
        action: np.ndarray = self._rest_actions(np.array([row]))[0]
        return action

    def _rest_actions(self, rows: np.ndarray) -> np.ndarray:
        """Those of some drones, float32 [n, A]."""
        if self.level == "position":
            place, (w, z) = self.batch.read("position", rows), self.batch.read("quaternion", rows)[:, [0, 3]].T
            return np.concatenate([place, 2 * np.arctan2(z, w)[:, None]], axis=1)
        hover = self.vehicle.hover_throttle
        action = {"rates": [hover, 0, 0, 0], "attitude": [hover, 1, 0, 0, 0], "velocity": [0, 0, 0, 0]}[self.level]
        return np.tile(np.array(action, np.float32), (len(rows), 1))

    def get_states(self) -> np.ndarray:
        """All that decides the future within the present episodes, float64 [N, S]."""
        own = (part.reshape(self.num, -1) for part in self._own())
        return np.concatenate([*own, self.batch.get_state()], axis=1)

    def set_states(self, states: np.ndarray, rows: np.ndarray) -> None:
        """Continue from `get_states`; records, references and gates stay those of the present episodes.

        Raises:
            ValueError: the states are of another specification.
        """
        states, own = np.asarray(states, float), self._own()
        ends = np.cumsum([part[0].size for part in own])
        expected = int(ends[-1]) + self.batch.get_state().shape[1]
        if states.shape != (len(rows), expected):
            raise ValueError(
                f"expected states of shape {[len(rows), expected]} for {self.contract.name}, got {list(states.shape)}"
            )
        *parts, flown = np.split(states, ends, axis=1)
        for part, values in zip(own, parts, strict=True):
            part[rows] = values.reshape(len(rows), *part.shape[1:])
        self.batch.set_state(flown, rows)

    def _own(self) -> tuple[np.ndarray, ...]:
        """What changes in an episode besides the flight, [N, ...]."""
        return self._memory, self._sent, self._past.swapaxes(0, 1)

    def _judge(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What a step that has been flown is worth; see `step`."""
        reward, flags = np.empty(self.num), np.empty((4, self.num), np.bool_)
        episode.finish(
            self.rules, self._memory, self._drawn, self._keys, self._past, self.table, self.gates, self._poles,
            self._odometry, self._sensors, reward, flags,
        )  # fmt: skip
        self.diverged = flags[3]
        return reward, flags[0], flags[1], flags[2]

    def _make_rules(self) -> np.ndarray:
        """See `episode.PERIOD` and the following."""
        limits, goal, course = self.task["limits"], self.task["success"], self.course
        low, high = (np.resize(bound, episode.ACTION_WIDTH) for bound in self.contract.action_bounds)
        sizes = [0.0, 0.0, 0.0] if course is None else [course.opening, course.frame, course.pole_radius]
        return np.array([
            self.period, SUBSTEP, self.horizon, goal.get("after", 0.0), goal.get("rmse", 0.0), goal.get("landed", 0.0),
            limits["distance"], limits["speed"], limits["rates"], sizes[0], sizes[1],
            self.vehicle.radius, sizes[2], self.vehicle.floor, *low, *high, *self._ahead, float(not self._contacts),
        ])  # fmt: skip

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
            if self.course.poles.size:
                features.append(Feature("poles", (self.course.poles.size,), **offset))
            if self.goals.shape[1]:
                features.append(Feature("goal", (3,), names=xyz, **offset))
        features += [
            Feature("last_action", (len(self.rest_action(0)),)),
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
