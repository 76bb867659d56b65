"""What a step is made of besides the flight, compiled: commands on their way, odometry, reference, gates, observations.

Everything here goes drone by drone, so that a drone's episode is the same whatever flies beside it. Rows of arrays are
drones; what flies stands in blocks of lanes [blocks, numbers, lanes], see `DroneBatch.view`.

Random numbers depend on a drone's key and the number of the step alone. Commands are late, jittery and lost; odometry
is late, noisy and lost.
"""

from __future__ import annotations

import math

import numpy as np

from robot_rl.sim.compiled import compiled, compiled_lanes, widest
from robot_rl.sim.drone.flight import LANES

STEPS, MOMENT, PASSED, SQUARE, COUNTED, LAP, MARGIN, BEFORE, ACTION, SEEN, TOUCHED = 0, 1, 2, 3, 4, 5, 6, 7, 10, 15, 28
"""Columns of `memory`: steps taken, row of the reference that is now, gates passed, sum of squared errors [m²] and how
many, time of the last gate [s], least margin at a gate [m] (`NEVER`: none yet), position before the step, the action,
the odometry received last, and the time in contact [s]."""
MEMORY = 29
DELAY, JITTER, LOSS, NOISE, LAG, ODOMETRY_LOSS, MASS, THRUST = 0, 1, 2, 3, 7, 8, 9, 10
"""Columns of `drawn`: of commands [s], [s], chance; of odometry: deviations of position, velocity, attitude and rates,
steps of delay, chance of loss; factors of the vehicle."""
DRAWN = 11
(
    PERIOD, SUBSTEP, HORIZON, AFTER, RMSE, LANDED, DISTANCE, SPEED, RATES,
    OPENING, FRAME, RADIUS, POLE_RADIUS, FLOOR, LOW, HIGH, AHEAD, FRAGILE,
) = (*range(14), 14, 19, 24, 29)  # fmt: skip
"""Entries of `rules`: of time [s] and steps; time from which errors count, RMSE and speed of landing that succeed;
limits; the course and the size of the drone [m]; bounds of actions, how far ahead the reference is seen [steps], and
whether touching ends a flight."""
RULES = 30
ODOMETRY = 13
"""Position, velocity, quaternion and rates."""
NORMALS = 12
"""For the noise of `ODOMETRY`: its attitude turns about three axes."""
AHEAD_COUNT = 5
ACTION_WIDTH = 5

THROTTLE_RATES, THROTTLE_ATTITUDE, VELOCITY_YAW_RATE, POSITION_YAW = range(4)
"""Forms of an action."""
NEVER = -1.0
REWARD_WIDTH = 0.25
"""Distance from the reference at which the reward has fallen to exp(-1) [m]."""
CRASH_HEIGHT = 0.02
"""Of the centre above the ground, where a course counts as left [m]."""
LANDED_HEIGHT = 0.01
"""Of the centre above the ground, up to which a drone has landed: in gusts it lies lightly [m]."""
PATIENCE = 0.15
"""How far a drone may be behind or before the reference of a course until that waits or hurries [m]."""
FARTHEST = 30.0
"""Range where the body's z axis does not point down [m]."""

_ROUNDING = 1e-6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SALT, _ONE = np.uint64(0x5851F42D4C957F2D), np.uint64(1)
_S52, _MANTISSA, _EXPONENT_0 = np.uint64(52), np.uint64(2**52 - 1), np.uint64(1023 << 52)
_LN_2, _LN_2_32, _ROOT2 = math.log(2), 32 * math.log(2), math.sqrt(2)
_SINE = tuple((-1) ** order / math.factorial(2 * order + 1) for order in range(11))
_S11, _S30, _S27, _S31, _S32, _LOW = (np.uint64(number) for number in (11, 30, 27, 31, 32, 0xFFFFFFFF))


@compiled
def send(
    actions: np.ndarray, form: int, rules: np.ndarray, memory: np.ndarray, drawn: np.ndarray, keys: np.ndarray,
    sent: np.ndarray, odometry: np.ndarray, command: np.ndarray,
) -> None:  # fmt: skip
    """Give actions at the beginning of a step, and put into `command` what will be in force, and from which substep.

    Of several commands that arrive in one step the newest counts. A substep beyond the step: none arrives.

    Args:
        actions: float32 [N, A]. form: of the actions, see `THROTTLE_RATES` and the following.
        sent: the last commands, [N, kept, 1 + width]: time of arrival (`NEVER`: lost), and the command.
        odometry: of the flight, [blocks, ODOMETRY, lanes]. command: [blocks, 6, lanes], five numbers and the substep.
    """
    for drone in range(actions.shape[0]):
        block, lane = drone // LANES, drone % LANES
        for axis in range(3):
            memory[drone, BEFORE + axis] = odometry[block, axis, lane]
        for column in range(actions.shape[1]):
            memory[drone, ACTION + column] = actions[drone, column]
        steps, kept = int(memory[drone, STEPS]), sent.shape[1]
        slot, now = steps % kept, steps * rules[PERIOD]
        _decode(actions[drone], form, rules, sent[drone, slot])
        arrival = now
        if drawn[drone, DELAY] > 0 or drawn[drone, JITTER] > 0:
            shift = (2 * _uniform(keys[drone], steps, 2, 1) - 1) * drawn[drone, JITTER]
            arrival += max(drawn[drone, DELAY] + shift, 0.0)
        if drawn[drone, LOSS] > 0 and _uniform(keys[drone], steps, 2, 0) < drawn[drone, LOSS]:
            arrival = NEVER
        sent[drone, slot, 0] = arrival
        command[block, 5, lane] = np.inf
        for age in range(kept):
            newest = sent[drone, slot - age]
            switch = max(math.ceil((newest[0] - now) / rules[SUBSTEP] - _ROUNDING), 0)
            if newest[0] != NEVER and switch * rules[SUBSTEP] < rules[PERIOD] - _ROUNDING:
                for column in range(sent.shape[2] - 1):
                    command[block, column, lane] = newest[1 + column]
                command[block, 5, lane] = switch
                # What is older never comes any more.
                for older in range(age, kept):
                    sent[drone, slot - older, 0] = NEVER
                break


@compiled
def receive(
    drones: np.ndarray, memory: np.ndarray, drawn: np.ndarray, keys: np.ndarray, past: np.ndarray,
    odometry: np.ndarray,
) -> None:  # fmt: skip
    """What drones [n] see of the odometry [blocks, ODOMETRY, lanes] after their steps; `past` is float32 [kept, N,
    ODOMETRY]."""
    normals = np.empty(NORMALS)
    for drone in drones:
        _receive(drone, memory, drawn, keys, past, odometry, normals)


@compiled
def _receive(drone, memory, drawn, keys, past, odometry, normals):  # type: ignore[no-untyped-def]
    """See `receive`; `normals` is room for `NORMALS` numbers."""
    steps = int(memory[drone, STEPS])
    block, lane, slot = drone // LANES, drone % LANES, steps % past.shape[0]
    for column in range(ODOMETRY):
        past[slot, drone, column] = odometry[block, column, lane]
    key = keys[drone] ^ _SALT
    if drawn[drone, ODOMETRY_LOSS] > 0 and _uniform(key ^ _SALT ^ _ONE, steps, 1, 0) < drawn[drone, ODOMETRY_LOSS]:
        return
    late, seen = past[slot - int(drawn[drone, LAG]), drone], memory[drone, SEEN : SEEN + ODOMETRY]
    for column in range(ODOMETRY):
        seen[column] = late[column]
    noise = drawn[drone, NOISE : NOISE + 4]
    if max(noise[0], noise[1], noise[2], noise[3]) == 0:
        return
    _draw_normals(key, steps, normals)
    for axis in range(3):
        seen[axis] += noise[0] * normals[axis]
        seen[3 + axis] += noise[1] * normals[3 + axis]
        seen[10 + axis] += noise[3] * normals[9 + axis]
    if noise[2] > 0:
        # A small turn about axes of the body.
        a, b, c = noise[2] / 2 * normals[6], noise[2] / 2 * normals[7], noise[2] / 2 * normals[8]
        w, x, y, z = seen[6], seen[7], seen[8], seen[9]
        norm = 1 / math.sqrt((w * w + x * x + y * y + z * z) * (1 + a * a + b * b + c * c))
        seen[6], seen[7] = norm * (w - x * a - y * b - z * c), norm * (x + w * a + y * c - z * b)
        seen[8], seen[9] = norm * (y + w * b + z * a - x * c), norm * (z + w * c + x * b - y * a)


@compiled
def finish(
    rules: np.ndarray, memory: np.ndarray, drawn: np.ndarray, keys: np.ndarray, past: np.ndarray, table: np.ndarray,
    gates: np.ndarray, poles: np.ndarray, odometry: np.ndarray, sensors: np.ndarray, rewards: np.ndarray,
    flags: np.ndarray,
) -> None:  # fmt: skip
    """Judge a step that was flown.

    Args:
        table: reference, float32 [N, T, COLUMNS]. gates: [N, G, 4], centre and yaw. poles: [P, 2].
        sensors: of the flight, accelerometer, gyro, and speed of the last touch-down.
        rewards: [N], and flags: bool [4, N], to fill: terminated, truncated, success, diverged.
    """
    normals = np.empty(NORMALS)
    for drone in range(memory.shape[0]):
        flown, own = odometry[drone // LANES, :, drone % LANES], memory[drone]
        own[STEPS] += 1
        _move_on(own, table[drone], gates.shape[1], flown)
        _receive(drone, memory, drawn, keys, past, odometry, normals)
        goal, time = table[drone, int(own[MOMENT])], own[STEPS] * rules[PERIOD]
        error = _length(flown[0] - goal[0], flown[1] - goal[1], flown[2] - goal[2])
        if time > rules[AFTER]:
            own[SQUARE] += error**2
            own[COUNTED] += 1
        lost = (
            error > rules[DISTANCE]
            or _length(flown[3], flown[4], flown[5]) > rules[SPEED]
            or _length(flown[10], flown[11], flown[12]) > rules[RATES]
        )
        over = own[STEPS] >= rules[HORIZON]
        if gates.shape[1]:
            reward, crashed = _fly_course(own, rules, gates[drone], poles, flown)
            lost |= crashed
            success = own[PASSED] == gates.shape[1] and not lost
            lost |= success
        else:
            reward = math.exp(-((error / REWARD_WIDTH) ** 2))
            counted = own[COUNTED]  # none: the episode was too short for any
            success = over and not lost and counted > 0 and math.sqrt(own[SQUARE] / counted) < rules[RMSE]
            if rules[LANDED] > 0:
                impact = sensors[drone // LANES, 6, drone % LANES]
                success &= flown[2] <= rules[FLOOR] + LANDED_HEIGHT and impact < rules[LANDED]
        diverged = False
        for column in range(ODOMETRY):
            diverged |= not math.isfinite(flown[column])
        rewards[drone] = 0.0 if diverged else reward
        flags[0, drone] = lost and not diverged
        flags[1, drone] = (over and not lost) or diverged
        flags[2, drone] = success and not diverged
        flags[3, drone] = diverged


@compiled
def observe(
    drones: np.ndarray, rules: np.ndarray, memory: np.ndarray, drawn: np.ndarray, table: np.ndarray, gates: np.ndarray,
    poles: np.ndarray, goals: np.ndarray, odometry: np.ndarray, sensors: np.ndarray, wind: np.ndarray,
    observation: np.ndarray,
) -> None:  # fmt: skip
    """Fill `observation`, float32 [n O], with all features of `DroneWorld` of drones [n]: one after another in their
    order, of each its numbers [n, width].

    Args:
        goals: where a corridor leads, [N, 1, 3], or none, [N, 0, 3].
    """
    count = len(drones)
    action = observation.size // count - (22 + 3 * AHEAD_COUNT + 5)
    action -= (14 if gates.shape[1] else 0) + 2 * poles.shape[0] + 3 * goals.shape[1]
    for row, drone in enumerate(drones):
        block, lane = drone // LANES, drone % LANES
        own, seen = memory[drone], memory[drone, SEEN : SEEN + ODOMETRY]
        # Of the two quaternions of an attitude the one whose largest entry is positive.
        largest = 6
        for column in range(7, 10):
            if abs(seen[column]) > abs(seen[largest]):
                largest = column
        sign = -1.0 if seen[largest] < 0 else 1.0
        position, velocity = _part(observation, count, 0, 3, row), _part(observation, count, 3, 3, row)
        attitude, rates = _part(observation, count, 6, 4, row), _part(observation, count, 10, 3, row)
        accelerometer, gyro = _part(observation, count, 13, 3, row), _part(observation, count, 16, 3, row)
        for axis in range(3):
            position[axis], velocity[axis], rates[axis] = seen[axis], seen[3 + axis], seen[10 + axis]
            accelerometer[axis], gyro[axis] = sensors[block, axis, lane], sensors[block, 3 + axis, lane]
        for column in range(4):
            attitude[column] = sign * seen[6 + column]
        flow, distance = _part(observation, count, 19, 2, row), _part(observation, count, 21, 1, row)
        flow[0], flow[1], distance[0] = _look_down(odometry[block, :, lane])
        place = 22
        ways = _part(observation, count, place, 3 * AHEAD_COUNT, row)
        for ahead in range(AHEAD_COUNT):
            step = min(int(own[MOMENT]) + int(rules[AHEAD + ahead]), table.shape[1] - 1)
            for axis in range(3):
                ways[3 * ahead + axis] = table[drone, step, axis] - seen[axis]
        place += 3 * AHEAD_COUNT
        if gates.shape[1]:
            for later in range(2):
                gate = gates[drone, min(int(own[PASSED]) + later, gates.shape[1] - 1)]
                out = _part(observation, count, place, 7, row)
                for axis in range(3):
                    out[axis] = gate[axis] - seen[axis]
                cosine, sine = math.cos(gate[3] / 2), math.sin(gate[3] / 2)
                sign = -1.0 if max(abs(cosine), abs(sine)) > max(cosine, sine, 0.0) else 1.0
                out[3], out[4], out[5], out[6] = sign * cosine, 0.0, 0.0, sign * sine
                place += 7
        out = _part(observation, count, place, 2 * poles.shape[0], row)
        for pole in range(poles.shape[0]):
            out[2 * pole], out[2 * pole + 1] = poles[pole, 0] - seen[0], poles[pole, 1] - seen[1]
        place += 2 * poles.shape[0]
        out = _part(observation, count, place, 3 * goals.shape[1], row)
        for goal in range(goals.shape[1]):
            for axis in range(3):
                out[3 * goal + axis] = goals[drone, goal, axis] - seen[axis]
        place += 3 * goals.shape[1]
        out = _part(observation, count, place, action, row)
        for column in range(action):
            out[column] = own[ACTION + column]
        place += action
        factors, blowing = _part(observation, count, place, 2, row), _part(observation, count, place + 2, 3, row)
        factors[0], factors[1] = drawn[drone, MASS], drawn[drone, THRUST]
        for axis in range(3):
            blowing[axis] = wind[block, axis, lane]


@compiled
def _part(observation, count, start, width, row):  # type: ignore[no-untyped-def]
    """A row of a feature, see `observe`; features before it have `start` numbers."""
    begin = count * start + row * width
    return observation[begin : begin + width]


@compiled
def _look_down(flown):  # type: ignore[no-untyped-def]
    """How the ground below moves past a camera that looks down the body's z axis, along x and y; distance to it [m]."""
    w, x, y, z = flown[6], flown[7], flown[8], flown[9]
    vx, vy, vz = flown[3], flown[4], flown[5]
    down = 1 - 2 * (x * x + y * y)
    distance = flown[2] / max(down, 0.1) if down > 0.1 else FARTHEST
    forward = (1 - 2 * (y * y + z * z)) * vx + 2 * (x * y + w * z) * vy + 2 * (x * z - w * y) * vz
    left = 2 * (x * y - w * z) * vx + (1 - 2 * (x * x + z * z)) * vy + 2 * (y * z + w * x) * vz
    near = max(distance, 0.05)
    return -forward / near + flown[11], -left / near - flown[10], distance


@compiled
def _decode(action, form, rules, command):  # type: ignore[no-untyped-def]
    """The command, from column 1 on, that an action means."""
    if form == THROTTLE_RATES:
        for column in range(len(action)):
            command[1 + column] = min(max(action[column], rules[LOW + column]), rules[HIGH + column])
        return
    for column in range(len(action)):
        command[1 + column] = action[column]
    if form == POSITION_YAW:
        command[4], command[5] = math.cos(action[3] / 2), math.sin(action[3] / 2)
    elif form == THROTTLE_ATTITUDE:
        length = math.sqrt(action[1] ** 2 + action[2] ** 2 + action[3] ** 2 + action[4] ** 2)
        for column in range(1, 5):
            upright = 1.0 if column == 1 else 0.0
            command[1 + column] = action[column] / length if length > 1e-6 else upright


@compiled
def _move_on(own, table, gates, flown):  # type: ignore[no-untyped-def]
    """Advance the reference by a step: on a course by none or two where the drone is behind or before it."""
    pace = 1
    if gates:
        goal = table[int(own[MOMENT])]
        behind = 0.0
        for axis in range(3):
            behind += (goal[axis] - flown[axis]) * goal[3 + axis]
        behind /= max(_length(goal[3], goal[4], goal[5]), 1e-6)
        if behind > PATIENCE:
            pace = 0
        elif behind < -PATIENCE:
            pace = 2
    own[MOMENT] = min(int(own[MOMENT]) + pace, table.shape[0] - 1)


@compiled
def _fly_course(own, rules, gates, poles, flown):  # type: ignore[no-untyped-def]
    """Advance gates: the reward, 1 for a gate passed, and whether the drone crashed.

    Where touching does not end a flight, a gate is passed when the centre goes through its opening.
    """
    x, y, z = flown[0], flown[1], flown[2]
    radius = rules[FRAGILE] * rules[RADIUS]
    reward, crashed, wanted = 0.0, z < rules[FLOOR] + CRASH_HEIGHT, int(own[PASSED])
    for gate in range(gates.shape[0]):
        passed, hit, margin = cross(
            gates[gate], own[BEFORE], own[BEFORE + 1], own[BEFORE + 2], x, y, z,
            rules[OPENING], rules[FRAME], radius,
        )  # fmt: skip
        margin -= rules[RADIUS] - radius
        crashed |= hit
        if passed and gate == wanted:
            own[MARGIN] = margin if own[MARGIN] == NEVER else min(own[MARGIN], margin)
            own[PASSED] += 1
            own[LAP] = own[STEPS] * rules[PERIOD]
            reward = 1.0
    crashed |= touch(poles, x, y, rules[POLE_RADIUS] + rules[RADIUS])
    return reward, crashed and rules[FRAGILE] > 0


@compiled
def cross(gate, x, y, z, to_x, to_y, to_z, opening, frame, radius):  # type: ignore[no-untyped-def]
    """What a straight step of a drone does to a gate (centre, yaw).

    Args:
        radius: of the drone [m].

    Returns:
        passed: went through the opening the right way, not touching. hit: touched the frame. margin: distance that was
        left between drone and frame in the plane of the gate [m], NaN where the plane was not crossed.
    """
    cosine, sine = math.cos(gate[3]), math.sin(gate[3])
    before = (x - gate[0]) * cosine + (y - gate[1]) * sine
    after = (to_x - gate[0]) * cosine + (to_y - gate[1]) * sine
    if (before < 0) == (after < 0):
        return False, False, math.nan
    part = before / (before - after)
    px, py, pz = x + part * (to_x - x) - gate[0], y + part * (to_y - y) - gate[1], z + part * (to_z - z) - gate[2]
    off, half = max(abs(-px * sine + py * cosine), abs(pz)), opening / 2
    margin = half - radius - off
    return after >= 0 and margin >= 0, margin < 0 and off < half + frame + radius, margin


@compiled
def touch(poles, x, y, reach):  # type: ignore[no-untyped-def]
    """Whether one of the poles [P, 2] is closer than `reach` [m]."""
    closest = math.inf
    for pole in range(poles.shape[0]):
        closest = min(closest, math.hypot(x - poles[pole, 0], y - poles[pole, 1]))
    return closest < reach


@compiled
def _length(x, y, z):  # type: ignore[no-untyped-def]
    return math.sqrt(x * x + y * y + z * z)


@compiled
def _uniform(key, counter, count, index):  # type: ignore[no-untyped-def]
    """The number in [0, 1) of a key at a counter that holds `count` of them."""
    return float(_bits(key, counter, count, index) >> _S11) * 2.0**-53


@compiled_lanes
def _draw_normals(key, counter, normals):  # type: ignore[no-untyped-def]
    """Fill `normals`, [NORMALS], with those of a key at a counter, of mean 0 and deviation 1 (Box and Muller)."""
    widest()
    for index in range(NORMALS):
        bits = _bits(key, counter, NORMALS, index)
        # Radius: sqrt(-2 ln u), u in (0, 1]; height: the cosine of a turn in [0, 1), a sine of a quarter turn at most.
        part = abs(np.float64(np.int64(bits & _LOW)) * 2.0**-32 - 0.5) - 0.25
        normals[index] = math.sqrt(-2 * (_logarithm(np.int64(bits >> _S32) + 1) - _LN_2_32)) * _sine(2 * math.pi * part)


@compiled_lanes
def _logarithm(number):  # type: ignore[no-untyped-def]
    """Natural, of an integer from 1 on, to 1e-15: ln m = 2 artanh((m - 1) / (m + 1)), 2^-1/2 < m <= 2^1/2."""
    bits = np.float64(number).view(np.uint64)
    exponent, mantissa = np.int64(bits >> _S52) - 1023, np.uint64((bits & _MANTISSA) | _EXPONENT_0).view(np.float64)
    above = mantissa > _ROOT2
    exponent, mantissa = exponent + (1 if above else 0), mantissa * (0.5 if above else 1.0)
    s = (mantissa - 1) / (mantissa + 1)
    q = s * s
    high = 1 / 11 + q * (1 / 13 + q * (1 / 15 + q * (1 / 17 + q * (1 / 19 + q * (1 / 21)))))
    return exponent * _LN_2 + 2 * s * (1 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * high)))))


@compiled_lanes
def _sine(angle):  # type: ignore[no-untyped-def]
    """Of at most a quarter turn, to 1e-15: Taylor's series."""
    q = angle * angle
    high = _SINE[6] + q * (_SINE[7] + q * (_SINE[8] + q * (_SINE[9] + q * _SINE[10])))
    return angle * (1 + q * (_SINE[1] + q * (_SINE[2] + q * (_SINE[3] + q * (_SINE[4] + q * (_SINE[5] + q * high))))))


@compiled
def _bits(key, counter, count, index):  # type: ignore[no-untyped-def]
    """SplitMix64 (Steele et al. 2014) at the key's own place."""
    place = np.uint64(counter) * np.uint64(count) + np.uint64(index)
    z = key + (place + _ONE) * _GOLDEN
    z = (z ^ (z >> _S30)) * _FIRST
    z = (z ^ (z >> _S27)) * _SECOND
    return z ^ (z >> _S31)
