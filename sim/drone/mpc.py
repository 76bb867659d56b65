"""The model-predictive expert: looks a second ahead with full knowledge of state, vehicle, wind and delay, and keeps to
the bounds of throttle and body rates. It optimises by `real_time_iteration` and commands throttle and rates alone."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from robot_rl.sim.drone import real_time_iteration as rti
from robot_rl.sim.drone.attitude import cross, rotate_back
from robot_rl.sim.drone.flight import GRAVITY
from robot_rl.sim.drone.real_time_iteration import INPUTS, INTERVAL, MODEL, NODES, STATES
from robot_rl.sim.drone.vehicle_model import Vehicle
from robot_rl.sim.drone.world import DroneWorld
from robot_rl.sim.spec import SpecError

WEIGHTS = np.array([200.0, 10.0, 5.0, 1.0, 0.2])
"""Of position [1/m²], velocity, attitude, rotor speed and body rates, see `real_time_iteration.iterate`."""
LAST = 3.0
"""How much more the end of the horizon weighs."""
INPUT_WEIGHTS = np.array([2.0, 0.2, 0.2, 0.5])
FASTEST = 40.0
"""Of lags in the model [1/s]: what follows at once, or faster, is taken to follow like this."""
LEAST_LIFT = 2.0
"""Of the acceleration upwards that a reference may ask for, with gravity [m/s²]."""


class Mpc:
    """Acts in all drones of a world. What it planned for each is where it begins the next time.

    Args:
        weights, input_weights: as `WEIGHTS` and `INPUT_WEIGHTS`.

    Raises:
        SpecError: actions are not throttle and body rates.
    """

    def __init__(
        self, world: DroneWorld, weights: np.ndarray = WEIGHTS, input_weights: np.ndarray = INPUT_WEIGHTS
    ) -> None:
        if world.level != "rates":
            raise SpecError("expert mpc: it commands throttle and body rates; set controller=ctbr, or expert=geometric")
        self._world = world
        self._plans = [(np.zeros((NODES + 1, STATES)), np.zeros((NODES, INPUTS))) for _ in range(world.num)]
        self._given: list[deque[np.ndarray]] = [deque() for _ in range(world.num)]
        self._seen = np.full((world.num, 14), np.nan)
        self._actions = np.stack([world.rest_action(row) for row in range(world.num)])
        self._weights = np.tile(weights, (NODES + 1, 1))
        self._weights[-1] *= LAST
        self._input_weights = input_weights
        self._low, self._high = (np.array(bound, float) for bound in world.contract.action_bounds)

    def act(self) -> np.ndarray:
        """Actions [N, A]. Drones that have not moved since the last call, or have no episode, keep theirs."""
        world = self._world
        steps, odometry = world.steps, world.batch.read("odometry").astype(float)
        seen = np.concatenate([steps[:, None], odometry], axis=1)
        moved = np.flatnonzero((seen != self._seen).any(axis=1) & world.active)
        follows = steps == self._seen[:, 0] + 1
        self._seen = seen
        if moved.size:
            models, (goals, wanted) = self._models(), self._references()
            rotors = world.batch.read("rotors").mean(axis=1)
        for row in moved.tolist():
            now = np.concatenate([odometry[row, :10], rotors[row : row + 1], odometry[row, 10:]])
            self._note(row, bool(follows[row]))
            now = self._when_it_arrives(row, now, models[row])
            states, inputs = self._plans[row]
            if follows[row]:
                _shift(states, world.period)
                _shift(inputs, world.period)
            else:
                states[:], inputs[:] = goals[row], wanted[row]
            rti.iterate(
                states, inputs, now, models[row], goals[row], wanted[row], self._weights, self._input_weights,
                self._low, self._high,
            )  # fmt: skip
            self._actions[row] = self._action(inputs[0])
        return self._actions.copy()

    def _action(self, command: np.ndarray) -> np.ndarray:
        """Throttle and rates of an input, as float32 within the bounds."""
        linear, quadratic = self._world.vehicle.thrust_of_speed
        throttle = (linear * command[0] + quadratic * command[0] ** 2) / self._world.vehicle.thrust_max
        action: np.ndarray = np.clip([throttle, *command[1:]], self._low, self._high).astype(np.float32)
        return action

    def _input(self, action: np.ndarray) -> np.ndarray:
        """What an action makes of the rotors; noise may have put its throttle below 0."""
        vehicle = self._world.vehicle
        return np.append(vehicle.speed_of_thrust(action[:1] * vehicle.thrust_max), action[1:]).astype(float)

    def _note(self, row: int, follows: bool) -> None:
        """Remember the action that was executed, whoever chose it, as long as it may still be under way."""
        if not follows:
            self._given[row].clear()
        delay = self._delay(row)
        self._given[row].append(self._world.last_action[row].copy())
        while len(self._given[row]) > delay / self._world.period + 2:
            self._given[row].popleft()

    def _delay(self, row: int) -> float:
        return float(self._world.records[row].get("command", {}).get("delay", 0.0))

    def _when_it_arrives(self, row: int, now: np.ndarray, model: np.ndarray) -> np.ndarray:
        """The state when the command that is decided now will be in force."""
        delay, period, given = self._delay(row), self._world.period, self._given[row]
        time = 0.0
        while time < delay - 1e-9:
            # The command of `age` periods ago is in force until the next one arrives.
            age = math.ceil((delay - time) / period - 1e-9)
            until = delay - (age - 1) * period
            command = self._input(given[max(len(given) - age, 0)])
            now, time = rti.flow(now, command, model, until - time), until
        return now

    def _models(self) -> np.ndarray:
        """What the vehicles and the air really are, [N, MODEL]."""
        world, vehicle = self._world, self._world.vehicle
        models = np.empty((world.num, MODEL))
        wind, volt = world.batch.read("wind"), world.batch.read("volt")[:, 0]
        linear, quadratic = vehicle.thrust_of_speed
        lags, follow = _lags(vehicle), _follow(vehicle)
        for row, record in enumerate(world.records):
            factor, mass = record.get("thrust", 1.0), record.get("mass", 1.0)
            lag, drag = record.get("lag", 1.0), record.get("drag", 1.0)
            models[row] = [
                mass * vehicle.mass, 4 * factor * linear, 4 * factor * quadratic, drag * vehicle.drag[0],
                drag * vehicle.drag[1], *wind[row], volt[row], *(rate / lag for rate in lags),
                *(min(rate * factor / mass, FASTEST) for rate in follow),
            ]  # fmt: skip
        return models

    def _references(self) -> tuple[np.ndarray, np.ndarray]:
        """Goals [N, K + 1, 14] and inputs [N, K, 4] from when the command arrives on: what flies the reference, in the
        wind as it is now, heading along x."""
        world, vehicle = self._world, self._world.vehicle
        shape = (world.num, NODES + 1)
        delays = np.array([self._delay(row) for row in range(world.num)])
        goal = self._path(delays[:, None] + INTERVAL * np.arange(NODES + 1))
        position, velocity, acceleration, jerk = np.split(goal.reshape(-1, goal.shape[-1]), 4, axis=1)
        models = np.repeat(self._models(), NODES + 1, axis=0)
        mass = models[:, rti.MASS, None]

        wanted = acceleration + models[:, rti.DRAG, None] / mass * (velocity - models[:, rti.WIND : rti.WIND + 3])
        wanted[:, 2] = np.maximum(wanted[:, 2] + GRAVITY, LEAST_LIFT)
        size = np.linalg.norm(wanted, axis=1, keepdims=True)
        up = wanted / size
        quaternion = np.concatenate([1 + up[:, 2:], -up[:, 1:2], up[:, :1], np.zeros_like(size)], axis=1)
        quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
        change = (jerk - (jerk * up).sum(1, keepdims=True) * up) / size
        rates = rotate_back(quaternion, cross(up, change))
        factor = models[:, rti.LINEAR, None] + models[:, rti.QUADRATIC, None]
        nominal = 4 * sum(vehicle.thrust_of_speed)
        thrust = np.minimum(mass * size / 4 * nominal / factor, vehicle.thrust_max)
        speed = np.minimum(vehicle.speed_of_thrust(thrust), 1.0)
        states = np.concatenate([position, velocity, quaternion, speed, rates], axis=1).reshape(*shape, STATES)
        inputs = np.concatenate([speed / models[:, rti.VOLT, None], rates], axis=1).reshape(*shape, INPUTS)
        return states, np.clip(inputs[:, :-1], self._low, self._high)

    def _path(self, ahead: np.ndarray) -> np.ndarray:
        """What to follow, rows as of `DroneWorld.table`, at times from now on [N, K]: [N, K, COLUMNS]."""
        return along(self._world, self._world.moment[:, None] + ahead / self._world.period)


def along(world: DroneWorld, steps: np.ndarray) -> np.ndarray:
    """The references of all drones at steps [N, K], which need not be whole: [N, K, COLUMNS]."""
    steps = np.clip(steps, 0, world.table.shape[1] - 1)
    before = np.minimum(steps.astype(int), world.table.shape[1] - 2)
    part, rows = (steps - before)[..., None], np.arange(world.num)[:, None]
    return np.asarray((1 - part) * world.table[rows, before] + part * world.table[rows, before + 1])


def _shift(plan: np.ndarray, time: float) -> None:
    """Let a plan begin later by a time, at most one interval; its end stays."""
    part = min(time / INTERVAL, 1.0)
    plan[:-1] += part * (plan[1:] - plan[:-1])


def _lags(vehicle: Vehicle) -> list[float]:
    """How fast rotors follow: upwards by the difference of speeds and of their squares, and downwards [1/s]."""
    rates: list[float] = []
    for rule in (vehicle.rise, vehicle.fall):
        rates += (
            [rule.get("linear", 0.0), rule.get("quadratic", 0.0) * vehicle.greatest_speed] if rule else [FASTEST, 0]
        )
    return rates


def _follow(vehicle: Vehicle) -> list[float]:
    """How fast body rates follow, at the speed of hovering and without the lag of rotors: gain of the rate controller
    times what a difference of rotor speeds turns [1/s]."""
    if vehicle.direct:
        return [FASTEST] * 3
    linear, quadratic = vehicle.thrust_of_speed
    hover = vehicle.hover_throttle * vehicle.thrust_max
    slope = math.sqrt(linear**2 + 4 * quadratic * hover)
    levers = (math.sqrt(0.5) * vehicle.arm[1], math.sqrt(0.5) * vehicle.arm[0], vehicle.torque_per_thrust)
    gains, inertia = vehicle.control["rates"]["p"], np.diag(vehicle.inertia_matrix)
    return [4 * slope * lever * gain / own for lever, gain, own in zip(levers, gains, inertia, strict=True)]
