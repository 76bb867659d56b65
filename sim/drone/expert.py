"""The geometric expert: tracks a reference with full knowledge of the state and the vehicle (Lee et al. 2010; Mellinger
and Kumar 2011), in whatever form the environment takes actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from robot_rl.sim.drone.attitude import between, cross, rotate, rotate_back
from robot_rl.sim.drone.flight import GRAVITY
from robot_rl.sim.drone.world import DroneWorld
from robot_rl.sim.spec import SpecError

EXPERTS = ("geometric", "mpc", "mpc_aiming")
POSITION_GAIN, VELOCITY_GAIN = 6.0, 4.0
"""Of the wanted acceleration [1/s²], [1/s]."""
ERROR_GAIN = 2.0
"""Of the wanted velocity, where the autopilot controls it [1/s]."""
ATTITUDE_GAIN = 8.0
"""Of the wanted body rates [1/s]."""
LEAST_THRUST, STEEPEST = 2.0, 1.0
"""Of the wanted acceleration upwards [m/s²], and sideways over upwards."""


def start(world: DroneWorld, name: str | None = None) -> Callable[[], np.ndarray]:
    """Begin to act in a world as one of `EXPERTS`, None: `geometric`. Each call gives the actions [N, A] of all drones.

    Raises:
        SpecError: there is no such expert, or it does not act by the world's controller.
    """
    if name in (None, "geometric"):
        return partial(act, world)
    if name == "mpc":
        from robot_rl.sim.drone.mpc import Mpc

        return Mpc(world).act
    if name == "mpc_aiming":
        from robot_rl.sim.drone.mpc_aiming import AimingMpc

        return AimingMpc(world).act
    raise SpecError(f"expert: expected one of {', '.join(EXPERTS)}; got {name!r}")


def act(world: DroneWorld) -> np.ndarray:
    """Actions [N, A] of all drones of a world."""
    read = world.batch.read
    position, velocity, quaternion = (read(name).astype(float) for name in ("position", "velocity", "quaternion"))
    rows = np.arange(world.num)
    goal = world.table[rows, world.moment].astype(float)
    error, slip = goal[:, :3] - position, goal[:, 3:6] - velocity
    if world.level in ("velocity", "position"):
        # What the autopilot's loops make the wanted acceleration of, and the wanted velocity.
        gains = world.vehicle.control["velocity"]
        setpoint = goal[:, 3:6] + ERROR_GAIN * error + (goal[:, 6:9] + VELOCITY_GAIN * slip) / _axes(gains["p"])
        if world.level == "position":
            setpoint = position + setpoint / _axes(gains["position_p"])
        return np.concatenate([setpoint, np.zeros((world.num, 1))], 1).astype(np.float32)

    # Wanted acceleration of the thrust in the world.
    mass = world.vehicle.mass * np.array([record.get("mass", 1.0) for record in world.records])
    drag = np.array([record.get("drag", 1.0) for record in world.records])[:, None] * np.array(world.vehicle.drag)
    wind = velocity - read("wind")
    up = rotate(quaternion, np.array([0.0, 0.0, 1.0]))
    along = np.einsum("nk,nk->n", wind, up)[:, None] * up
    resistance = (drag[:, :1] * (wind - along) + drag[:, 1:] * along) / mass[:, None]
    wanted = goal[:, 6:9] + POSITION_GAIN * error + VELOCITY_GAIN * slip + resistance
    wanted[:, 2] = np.maximum(wanted[:, 2] + GRAVITY, LEAST_THRUST)
    side = np.linalg.norm(wanted[:, :2], axis=1, keepdims=True)
    wanted[:, :2] *= np.minimum(1.0, STEEPEST * wanted[:, 2:] / np.maximum(side, 1e-9))

    # The wanted direction of the thrust, and how it turns.
    size = np.linalg.norm(wanted, axis=1, keepdims=True)
    direction = wanted / size
    change = goal[:, 9:12] + POSITION_GAIN * slip + VELOCITY_GAIN * (goal[:, 6:9] - read("acceleration"))
    change = (change - np.einsum("nk,nk->n", change, direction)[:, None] * direction) / size
    throttle = _throttle(world, mass * np.maximum(np.einsum("nk,nk->n", wanted, up), 0.0))
    if world.level == "attitude":
        direction = direction + change / world.vehicle.control["attitude"]["p"]
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)

    # Attitude that points the thrust there, heading along x; thrust along the present axis.
    target = np.concatenate(
        [1 + direction[:, 2:], -direction[:, 1:2], direction[:, :1], np.zeros((world.num, 1))], axis=1
    )
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    if world.level == "attitude":
        return np.concatenate([throttle[:, None], target], axis=1).astype(np.float32)

    # Rates: towards the attitude, tilt before heading, and as the wanted direction turns.
    away = between(quaternion, target)
    scale = 1 / np.maximum(np.hypot(away[:, 0], away[:, 3]), 1e-6)
    w, x, y, z = away.T
    turn = 2 * ATTITUDE_GAIN * np.stack([scale * (w * x - y * z), scale * (w * y + x * z), np.sign(w) * scale * z], 1)
    turn += rotate_back(quaternion, cross(direction, change))
    low, high = world.contract.action_bounds
    actions: np.ndarray = np.clip(np.concatenate([throttle[:, None], turn], axis=1), low, high).astype(np.float32)
    return actions


def _axes(gains: Sequence[float]) -> np.ndarray:
    """Gains sideways and upwards as those of x, y and z."""
    return np.array([gains[0], gains[0], gains[1]])


def _throttle(world: DroneWorld, thrust: np.ndarray) -> np.ndarray:
    """Throttles that give thrusts [N] in newtons, with what the vehicle and its battery really are."""
    linear, quadratic = world.vehicle.thrust_of_speed
    factor = np.array([record.get("thrust", 1.0) for record in world.records])
    command = world.vehicle.speed_of_thrust(thrust / 4 / factor) / np.maximum(world.batch.read("volt")[:, 0], 0.3)
    throttles: np.ndarray = np.clip((linear * command + quadratic * command**2) / world.vehicle.thrust_max, 0.0, 1.0)
    return throttles
