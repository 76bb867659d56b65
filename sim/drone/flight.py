"""The flight of many quadrotors: controllers, rotors, rigid body, wind, battery and inertial sensors, compiled.

Drones stand in blocks of `LANES`. All numbers of a block lie together, row after row of one number for each lane, so
that a block stays in the first cache for all substeps of a call and each loop over lanes becomes vector instructions.

A substep lasts `SUBSTEP`. Controllers are sampled: what they command holds for the substep. The motion between is
second order in the substep: rotor speeds follow their exponential, rates are taken in the middle, attitudes turn by
the middle rate, forces are taken at the middle attitude, positions move by the mean velocity.

Frames: world ENU, body FLU, quaternions wxyz from body to world. Rotors in PX4's order: front right and back left
turn counterclockwise seen from above, front left and back right clockwise.

Everything that calls each other stands in this one file, see `robot_rl.sim.compiled`.
"""

from __future__ import annotations

import numpy as np

from robot_rl.sim.compiled import compiled_lanes, widest

LANES = 32
SUBSTEP = 0.002
"""[s]"""
GRAVITY = 9.81
"""[m/s²]"""

RATES, ATTITUDE, VELOCITY, POSITION = range(4)
"""What a command sets, see `advance`."""


def _names(*groups: str) -> list[str]:
    return " ".join(groups).split()


STATE = _names(
    "px py pz vx vy vz qw qx qy qz wx wy wz",  # position [m], velocity [m/s], attitude, body rates [rad/s]
    "ax ay az bx by bz",  # acceleration [m/s²] in the world and angular acceleration [rad/s²], of the last substep
    "m0 m1 m2 m3",  # rotor speeds, 1 = the greatest
    "fx1 fy1 fz1 fx2 fy2 fz2",  # delays of the gyro's low-pass filter
    "gx gy gz dx dy dz ix iy iz",  # filtered rates and their derivatives, integrals of the rate controller
    "jx jy jz kx ky kz hc hs",  # integrals and filtered acceleration of the velocity controller, half heading
    "ug0 vg0 vg1 wg0 wg1 windx windy windz",  # filters of the gusts, and the wind they make with the mean [m/s]
    "charge volt",  # of the battery, and its voltage; 1 = full, unloaded
    "u0 u1 u2 u3 u4 n0 n1 n2 n3 n4 switch",  # command until and from substep `switch` of the call on
    "t0 t1 t2 t3",  # setpoints of the rate controller: throttle, rates [rad/s]
    "roll pitch yaw c0 c1 c2 c3",  # what it asks for, part of the greatest; rotor speeds commanded
    "force torquex torquey torquez spin",  # of the rotors: thrust [N], torque [N m], angular momentum [N m s]
    "upx upy upz",  # direction of the thrust
    "random step",  # state and increment of the random numbers: bits of uint32
    "accx accy accz gyrx gyry gyrz impact",  # accelerometer [m/s²], gyro [rad/s]; speed of the last touch-down [m/s]
)
"""Rows that change during flight."""

PARAMETERS = _names(
    "mass_inv drag_xy drag_z floor",  # [1/kg], [N/(m/s)], lowest height of the centre [m]
    "jxx jyy jzz jxy jxz jyz ixx iyy izz ixy ixz iyz spin_drag",  # inertia, its inverse, damping [N m/(rad/s)]
    "arm_x arm_y torque direct",  # rotor positions [m], torque over thrust [m]; 1 where rates follow commands at once
    "rotor_h thrust1 thrust2 speed_a speed_b speed_c speed_d idle",  # see `vehicle_model`
    "rise1 rise2 fall1 fall2 blend",  # lag of the rotors
    "rate_px rate_py rate_pz rate_ix rate_iy rate_iz rate_dx rate_dy rate_dz rate_lim",
    "lp_b lp_a1 lp_a2 lp_d",  # filters of the gyro and of the derivative
    "att_p att_pz max_x max_y max_z",  # attitude controller [1/s], limits of rate setpoints [rad/s]
    "pos_p pos_pz vel_p vel_pz vel_i vel_iz vel_d vel_dz acc_lp speed_xy speed_up speed_down",
    "tilt hover thr_min thr_xy",  # tangent of the steepest tilt; throttles
    "drain sag_empty sag_load",  # charge that full power takes in a call; voltage lost when empty, and at full power
    "wind_x wind_y wind_z gust_c gust_s gust_u gust_a gust_v gust_b gust_w gust_d",  # see `weather`
    "kick_p kick_v kick_w",  # chance in a call, strength [m/s], [rad/s]
    "gyr_x gyr_y gyr_z gyr_n acb_x acb_y acb_z acb_n",  # biases and noises of the inertial sensors
)
"""Rows that stay as they are during an episode."""

ROWS = len(STATE) + len(PARAMETERS)

(
    PX, PY, PZ, VX, VY, VZ, QW, QX, QY, QZ, WX, WY, WZ,
    AX, AY, AZ, BX, BY, BZ,
    M0, M1, M2, M3,
    FX1, FY1, FZ1, FX2, FY2, FZ2,
    GX, GY, GZ, DX, DY, DZ, IX, IY, IZ,
    JX, JY, JZ, KX, KY, KZ, HC, HS,
    UG0, VG0, VG1, WG0, WG1, WINDX, WINDY, WINDZ,
    CHARGE, VOLT,
    U0, U1, U2, U3, U4, N0, N1, N2, N3, N4, SWITCH,
    T0, T1, T2, T3,
    ROLL, PITCH, YAW, C0, C1, C2, C3,
    FORCE, TORQUEX, TORQUEY, TORQUEZ, SPIN, UPX, UPY, UPZ,
    RANDOM, STEP,
    ACCX, ACCY, ACCZ, GYRX, GYRY, GYRZ, IMPACT,
    MASS_INV, DRAG_XY, DRAG_Z, FLOOR,
    JXX, JYY, JZZ, JXY, JXZ, JYZ, IXX, IYY, IZZ, IXY, IXZ, IYZ, SPIN_DRAG,
    ARM_X, ARM_Y, TORQUE, DIRECT,
    ROTOR_H, THRUST1, THRUST2, SPEED_A, SPEED_B, SPEED_C, SPEED_D, IDLE,
    RISE1, RISE2, FALL1, FALL2, BLEND,
    RATE_PX, RATE_PY, RATE_PZ, RATE_IX, RATE_IY, RATE_IZ, RATE_DX, RATE_DY, RATE_DZ, RATE_LIM,
    LP_B, LP_A1, LP_A2, LP_D,
    ATT_P, ATT_PZ, MAX_X, MAX_Y, MAX_Z,
    POS_P, POS_PZ, VEL_P, VEL_PZ, VEL_I, VEL_IZ, VEL_D, VEL_DZ, ACC_LP, SPEED_XY, SPEED_UP, SPEED_DOWN,
    TILT, HOVER, THR_MIN, THR_XY,
    DRAIN, SAG_EMPTY, SAG_LOAD,
    WIND_X, WIND_Y, WIND_Z, GUST_C, GUST_S, GUST_U, GUST_A, GUST_V, GUST_B, GUST_W, GUST_D,
    KICK_P, KICK_V, KICK_W,
    GYR_X, GYR_Y, GYR_Z, GYR_N, ACB_X, ACB_Y, ACB_Z, ACB_N,
) = (np.uint64(LANES * row) for row in range(ROWS))  # fmt: skip

# numba makes float64 of a float32 and a plain number: every constant has its type.
F, INT, U = np.float32, np.int32, np.uint32
H, G = F(SUBSTEP), F(GRAVITY)
ZERO, ONE, TWO, THREE, HALF, TINY = F(0), F(1), F(2), F(3), F(0.5), F(1e-6)
HALF_H = F(0.5 * SUBSTEP)
RATE_H = F(1 / SUBSTEP)
QUARTER, EIGHTH, SIXTH, R24, R120 = F(0.25), F(0.125), F(1 / 6), F(1 / 24), F(1 / 120)
MIX = F(0.5**0.5)
YAW_MARGIN = F(1.15)
ARROGANCE = F((180 / 400 / np.pi) ** 2)
ROOT3 = F(3**0.5)

# Multipliers of a 32-bit hash with low bias (C. Wellons, "lowbias32", public domain).
MULTIPLY1, MULTIPLY2 = U(0x7FEB352D), U(0x846CA68B)
SHIFT16, SHIFT15, SHIFT8 = U(16), U(15), U(8)
BYTES, LOW = U(0x00FF00FF), U(0xFFFF)
STREAM1, STREAM2 = U(0x68E31DA4), U(0xB5297A4D)
NORMAL_MEAN, NORMAL_SCALE = INT(510), F(1 / 21845**0.5)
UNIFORM_SCALE = F(2.0**-24)


@compiled_lanes
def advance(x: np.ndarray, substeps: int, level: int, first: int, end: int) -> None:
    """Fly all drones for the parts from `first` to before `end` of a call: `substeps` substeps, and the sensors last.

    Args:
        x: float32 [blocks * ROWS * LANES], the rows of each block, see `STATE` and `PARAMETERS`.
        level: of the commands in rows `u` and `n`:

            - RATES: throttle (part of the greatest thrust), body rates [rad/s].
            - ATTITUDE: throttle, quaternion.
            - VELOCITY: velocity [m/s] in the world, yaw rate [rad/s].
            - POSITION: position [m], cosine and sine of half the yaw.
    """
    widest()
    blocks = x.size // (ROWS * LANES)
    for block in range(blocks):
        base = block * ROWS * LANES
        if first == 0:
            _disturb(x, base)
        for substep in range(first, min(end, substeps)):
            now = F(substep)
            if level == ATTITUDE:
                _control_attitude(x, base, now)
            elif level != RATES:
                _control_velocity(x, base, now, level)
            else:
                _take_rates(x, base, now)
            _control_rates(x, base)
            _mix(x, base)
            _spin(x, base)
            _turn(x, base)
            _move(x, base)
        if end > substeps:
            _sense(x, base)
            _settle(x, base, F(substeps))


@compiled_lanes
def _bits(number):  # type: ignore[no-untyped-def]
    return np.float32(number).view(np.uint32)


@compiled_lanes
def _number(bits):  # type: ignore[no-untyped-def]
    return np.uint32(bits).view(np.float32)


@compiled_lanes
def _hash(n):  # type: ignore[no-untyped-def]
    n = U(n ^ (n >> SHIFT16))
    n = U(n * MULTIPLY1)
    n = U(n ^ (n >> SHIFT15))
    n = U(n * MULTIPLY2)
    return U(n ^ (n >> SHIFT16))


@compiled_lanes
def _normal(n):  # type: ignore[no-untyped-def]
    """Near-normal number of mean 0 and variance 1 of 32 random bits: the sum of four bytes; it ends at 3.45."""
    pairs = U((n & BYTES) + ((n >> SHIFT8) & BYTES))
    total = INT(U(pairs & LOW) + U(pairs >> SHIFT16))
    return F(INT(total - NORMAL_MEAN)) * NORMAL_SCALE


@compiled_lanes
def _clip(value, low, high):  # type: ignore[no-untyped-def]
    value = low if value < low else value
    return high if value > high else value


@compiled_lanes
def _disturb(x: np.ndarray, base: int) -> None:
    """Wind and kicks of a call.

    Gusts: Dryden's spectra (MIL-F-8785C), along and across the heading of the mean wind, and upwards.
    """
    widest()
    for lane in range(LANES):
        i = np.uint64(base + lane)
        n, step = _bits(x[i + RANDOM]), _bits(x[i + STEP])
        a, b, d = x[i + GUST_A], x[i + GUST_B], x[i + GUST_D]
        u = a * x[i + UG0] + x[i + GUST_U] * _normal(_hash(n))
        v0 = b * x[i + VG0] + (ONE - b) * _normal(_hash(U(n ^ STREAM1)))
        w0 = d * x[i + WG0] + (ONE - d) * _normal(_hash(U(n ^ STREAM2)))
        v1 = b * x[i + VG1] + (ONE - b) * v0
        w1 = d * x[i + WG1] + (ONE - d) * w0
        x[i + UG0], x[i + VG0], x[i + WG0], x[i + VG1], x[i + WG1] = u, v0, w0, v1, w1
        v = x[i + GUST_V] * (ROOT3 * v0 + (ONE - ROOT3) * v1)
        w = x[i + GUST_W] * (ROOT3 * w0 + (ONE - ROOT3) * w1)
        x[i + WINDX] = x[i + WIND_X] + x[i + GUST_C] * u - x[i + GUST_S] * v
        x[i + WINDY] = x[i + WIND_Y] + x[i + GUST_S] * u + x[i + GUST_C] * v
        x[i + WINDZ] = x[i + WIND_Z] + w
        x[i + RANDOM] = _number(U(n + step))
    for lane in range(LANES):
        i = np.uint64(base + lane)
        n, step = _bits(x[i + RANDOM]), _bits(x[i + STEP])
        kicked = F(INT(_hash(n) >> SHIFT8)) * UNIFORM_SCALE < x[i + KICK_P]
        kick = ONE if kicked else ZERO
        kick_v, kick_w = kick * x[i + KICK_V], kick * x[i + KICK_W]
        x[i + VX] += kick_v * _normal(_hash(U(n ^ STREAM1)))
        x[i + VY] += kick_v * _normal(_hash(U(n ^ STREAM2)))
        n = U(n + step)
        x[i + VZ] += kick_v * _normal(_hash(n))
        x[i + WX] += kick_w * _normal(_hash(U(n ^ STREAM1)))
        x[i + WY] += kick_w * _normal(_hash(U(n ^ STREAM2)))
        n = U(n + step)
        x[i + WZ] += kick_w * _normal(_hash(n))
        x[i + RANDOM] = _number(U(n + step))


@compiled_lanes
def _aim(x, i, throttle, dw, dx, dy, dz):  # type: ignore[no-untyped-def]
    """Rate setpoints that turn towards an attitude, tilt before yaw (Brescianini and D'Andrea 2018; PX4's limits)."""
    qw, qx, qy, qz = x[i + QW], x[i + QX], x[i + QY], x[i + QZ]
    ew = qw * dw + qx * dx + qy * dy + qz * dz
    ex = qw * dx - qx * dw - qy * dz + qz * dy
    ey = qw * dy + qx * dz - qy * dw - qz * dx
    ez = qw * dz - qx * dy + qy * dx - qz * dw
    scale = ONE / np.sqrt(ew * ew + ez * ez + TINY)
    sign = ONE if ew >= ZERO else -ONE
    gain = TWO * x[i + ATT_P] * scale
    x[i + T0] = throttle
    x[i + T1] = _clip(gain * (ew * ex - ey * ez), -x[i + MAX_X], x[i + MAX_X])
    x[i + T2] = _clip(gain * (ew * ey + ex * ez), -x[i + MAX_Y], x[i + MAX_Y])
    x[i + T3] = TWO * x[i + ATT_PZ] * scale * sign * ez


@compiled_lanes
def _control_attitude(x: np.ndarray, base: int, now: np.float32) -> None:
    widest()
    for lane in range(LANES):
        i = np.uint64(base + lane)
        new = ONE if now >= x[i + SWITCH] else ZERO
        old = ONE - new
        throttle, dw = old * x[i + U0] + new * x[i + N0], old * x[i + U1] + new * x[i + N1]
        dx, dy = old * x[i + U2] + new * x[i + N2], old * x[i + U3] + new * x[i + N3]
        dz = old * x[i + U4] + new * x[i + N4]
        _aim(x, i, throttle, dw, dx, dy, dz)
        x[i + T3] = _clip(x[i + T3], -x[i + MAX_Z], x[i + MAX_Z])


@compiled_lanes
def _control_velocity(x: np.ndarray, base: int, now: np.float32, level: int) -> None:
    """PX4's position and velocity controller: limits of speed, tilt and thrust, thrust upwards first."""
    widest()
    follow = F(level == POSITION)
    for lane in range(LANES):
        i = np.uint64(base + lane)
        new = ONE if now >= x[i + SWITCH] else ZERO
        old = ONE - new
        c0, c1 = old * x[i + U0] + new * x[i + N0], old * x[i + U1] + new * x[i + N1]
        c2, c3 = old * x[i + U2] + new * x[i + N2], old * x[i + U3] + new * x[i + N3]
        c4 = old * x[i + U4] + new * x[i + N4]

        # Velocity setpoint, and heading.
        sx = c0 + follow * (x[i + POS_P] * (c0 - x[i + PX]) - c0)
        sy = c1 + follow * (x[i + POS_P] * (c1 - x[i + PY]) - c1)
        sz = c2 + follow * (x[i + POS_PZ] * (c2 - x[i + PZ]) - c2)
        speed = np.sqrt(sx * sx + sy * sy)
        limit = x[i + SPEED_XY]
        scale = limit / (speed if speed > limit else limit)
        sx, sy = sx * scale, sy * scale
        sz = _clip(sz, -x[i + SPEED_DOWN], x[i + SPEED_UP])
        yaw_rate = (ONE - follow) * _clip(c3, -x[i + MAX_Z], x[i + MAX_Z])
        turn = HALF_H * yaw_rate
        hc = follow * c3 + (ONE - follow) * (x[i + HC] - turn * x[i + HS])
        hs = follow * c4 + (ONE - follow) * (x[i + HS] + turn * x[i + HC])
        norm = ONE / np.sqrt(hc * hc + hs * hs + TINY * TINY)
        hc, hs = hc * norm, hs * norm
        x[i + HC], x[i + HS] = hc, hs

        # Acceleration setpoint.
        lp = x[i + ACC_LP]
        kx = x[i + KX] + lp * (x[i + AX] - x[i + KX])
        ky = x[i + KY] + lp * (x[i + AY] - x[i + KY])
        kz = x[i + KZ] + lp * (x[i + AZ] - x[i + KZ])
        x[i + KX], x[i + KY], x[i + KZ] = kx, ky, kz
        ex, ey, ez = sx - x[i + VX], sy - x[i + VY], sz - x[i + VZ]
        ax = x[i + VEL_P] * ex + x[i + JX] - x[i + VEL_D] * kx
        ay = x[i + VEL_P] * ey + x[i + JY] - x[i + VEL_D] * ky
        az = x[i + VEL_PZ] * ez + x[i + JZ] - x[i + VEL_DZ] * kz

        # Thrust as part of the greatest: upwards first, then sideways as tilt and thrust allow.
        hover = x[i + HOVER] / G
        wanted = hover * (az + G)
        up = _clip(wanted, x[i + THR_MIN], np.sqrt(ONE - x[i + THR_XY] * x[i + THR_XY]))
        tx, ty = up * ax / G, up * ay / G
        side = np.sqrt(tx * tx + ty * ty)
        most = np.sqrt(ONE - up * up)
        steep = up * x[i + TILT]
        most = steep if steep < most else most
        shrink = most / (side if side > most else most)
        tx, ty = tx * shrink, ty * shrink
        throttle = np.sqrt(tx * tx + ty * ty + up * up)

        # Integrals, with the anti-windup of PX4: by tracking sideways, by holding upwards.
        back = TWO * (ONE - shrink) / x[i + VEL_P]
        x[i + JX] += H * x[i + VEL_I] * (ex - back * ax)
        x[i + JY] += H * x[i + VEL_I] * (ey - back * ay)
        stuck = (wanted > up and ez > ZERO) or (wanted < up and ez < ZERO)
        jz = x[i + JZ] + (ZERO if stuck else H * x[i + VEL_IZ] * ez)
        x[i + JZ] = _clip(jz, -G, G)

        # Attitude: the shortest tilt that points the thrust, after the heading.
        inverse = ONE / throttle
        bx, by, bz = tx * inverse, ty * inverse, up * inverse
        norm = ONE / np.sqrt(TWO * (ONE + bz))
        tw, tx, ty = (ONE + bz) * norm, -by * norm, bx * norm
        _aim(x, i, throttle, tw * hc, tx * hc + ty * hs, ty * hc - tx * hs, tw * hs)
        x[i + T3] = _clip(x[i + T3] + yaw_rate, -x[i + MAX_Z], x[i + MAX_Z])


@compiled_lanes
def _take_rates(x: np.ndarray, base: int, now: np.float32) -> None:
    """Setpoints of the rate controller from the command itself."""
    widest()
    for lane in range(LANES):
        i = np.uint64(base + lane)
        new = ONE if now >= x[i + SWITCH] else ZERO
        old = ONE - new
        x[i + T0] = old * x[i + U0] + new * x[i + N0]
        x[i + T1] = old * x[i + U1] + new * x[i + N1]
        x[i + T2] = old * x[i + U2] + new * x[i + N2]
        x[i + T3] = old * x[i + U3] + new * x[i + N3]


@compiled_lanes
def _control_rates(x: np.ndarray, base: int) -> None:
    """PX4's body-rate PID on the gyro behind its second-order low pass; the derivative is of the filtered rate."""
    widest()
    for lane in range(LANES):
        i = np.uint64(base + lane)
        n = _bits(x[i + RANDOM])
        x[i + RANDOM] = _number(U(n + _bits(x[i + STEP])))
        strength = x[i + GYR_N]
        sx = x[i + WX] + x[i + GYR_X] + strength * _normal(_hash(n))
        sy = x[i + WY] + x[i + GYR_Y] + strength * _normal(_hash(U(n ^ STREAM1)))
        sz = x[i + WZ] + x[i + GYR_Z] + strength * _normal(_hash(U(n ^ STREAM2)))
        a1, a2, b = x[i + LP_A1], x[i + LP_A2], x[i + LP_B]
        fx1, fy1, fz1 = x[i + FX1], x[i + FY1], x[i + FZ1]
        fx2, fy2, fz2 = x[i + FX2], x[i + FY2], x[i + FZ2]
        sx = sx - a1 * fx1 - a2 * fx2
        sy = sy - a1 * fy1 - a2 * fy2
        sz = sz - a1 * fz1 - a2 * fz2
        x[i + FX1], x[i + FY1], x[i + FZ1] = sx, sy, sz
        x[i + FX2], x[i + FY2], x[i + FZ2] = fx1, fy1, fz1
        gx = b * (sx + TWO * fx1 + fx2)
        gy = b * (sy + TWO * fy1 + fy2)
        gz = b * (sz + TWO * fz1 + fz2)
        lp = x[i + LP_D]
        dx, dy, dz = x[i + DX], x[i + DY], x[i + DZ]
        dx += lp * (RATE_H * (gx - x[i + GX]) - dx)
        dy += lp * (RATE_H * (gy - x[i + GY]) - dy)
        dz += lp * (RATE_H * (gz - x[i + GZ]) - dz)
        x[i + DX], x[i + DY], x[i + DZ] = dx, dy, dz
        x[i + GX], x[i + GY], x[i + GZ] = gx, gy, gz
        x[i + ROLL] = MIX * (x[i + RATE_PX] * (x[i + T1] - gx) + x[i + IX] - x[i + RATE_DX] * dx)
        x[i + PITCH] = MIX * (x[i + RATE_PY] * (x[i + T2] - gy) + x[i + IY] - x[i + RATE_DY] * dy)
        x[i + YAW] = x[i + RATE_PZ] * (x[i + T3] - gz) + x[i + IZ] - x[i + RATE_DZ] * dz


@compiled_lanes
def _mix(x: np.ndarray, base: int) -> None:
    """Rotor speeds for the thrust and for what the rate controller asks; as in PX4, torques add to the speeds.

    Thrust gives way to roll and pitch above, these give way to thrust below, yaw to all of them.
    """
    widest()
    for lane in range(LANES):
        i = np.uint64(base + lane)
        roll, pitch, yaw = x[i + ROLL], x[i + PITCH], x[i + YAW]
        thrust = _clip(x[i + T0], ZERO, ONE)
        throttle = np.sqrt(x[i + SPEED_A] + x[i + SPEED_B] * thrust) + x[i + SPEED_C] + x[i + SPEED_D] * thrust
        reach = abs(roll) + abs(pitch)
        top = ONE - reach
        top = HALF if top < HALF else top
        throttle = top if throttle > top else throttle
        room = ONE - throttle
        room = throttle if throttle < room else room
        most = room if room > reach else reach
        fit = room / (most if most > TINY else TINY)
        kept_roll, kept_pitch = roll * fit, pitch * fit
        plus, minus = abs(kept_roll + kept_pitch), abs(kept_roll - kept_pitch)
        low_a, high_a = throttle - plus, throttle + plus
        low_b, high_b = throttle - minus, throttle + minus
        upper, lower = YAW_MARGIN - high_b, YAW_MARGIN - high_a
        upper = low_a if low_a < upper else upper
        lower = low_b if low_b < lower else lower
        kept_yaw = _clip(yaw, -lower, upper)
        high_a, high_b = high_a - kept_yaw, high_b + kept_yaw
        excess = (high_a if high_a > high_b else high_b) - ONE
        throttle -= ZERO if excess < ZERO else excess

        # Commands become speeds as far as the battery carries.
        idle = x[i + IDLE]
        f0 = _clip(throttle - kept_roll - kept_pitch - kept_yaw, idle, ONE)
        f1 = _clip(throttle + kept_roll + kept_pitch - kept_yaw, idle, ONE)
        f2 = _clip(throttle + kept_roll - kept_pitch + kept_yaw, idle, ONE)
        f3 = _clip(throttle - kept_roll + kept_pitch + kept_yaw, idle, ONE)
        volt = x[i + VOLT]
        x[i + C0], x[i + C1], x[i + C2], x[i + C3] = volt * f0, volt * f1, volt * f2, volt * f3

        # Integrals of the rate controller: not into saturation, less during fast errors.
        limit = x[i + RATE_LIM]
        ex, ey, ez = x[i + T1] - x[i + GX], x[i + T2] - x[i + GY], x[i + T3] - x[i + GZ]
        lx, ly, lz = ONE - ARROGANCE * ex * ex, ONE - ARROGANCE * ey * ey, ONE - ARROGANCE * ez * ez
        lx = ZERO if lx < ZERO else lx
        ly = ZERO if ly < ZERO else ly
        lz = ZERO if lz < ZERO else lz
        lx = ZERO if (roll - kept_roll) * ex > ZERO else lx
        ly = ZERO if (pitch - kept_pitch) * ey > ZERO else ly
        lz = ZERO if (yaw - kept_yaw) * ez > ZERO else lz
        x[i + IX] = _clip(x[i + IX] + lx * H * x[i + RATE_IX] * ex, -limit, limit)
        x[i + IY] = _clip(x[i + IY] + ly * H * x[i + RATE_IY] * ey, -limit, limit)
        x[i + IZ] = _clip(x[i + IZ] + lz * H * x[i + RATE_IZ] * ez, -limit, limit)


@compiled_lanes
def _spin(x: np.ndarray, base: int) -> None:
    """Rotors follow their commands, rising and falling at different rates, and pull in the middle of the substep."""
    widest()
    for lane in range(LANES):
        i = np.uint64(base + lane)
        c0, c1, c2, c3 = x[i + C0], x[i + C1], x[i + C2], x[i + C3]
        m0, m1, m2, m3 = x[i + M0], x[i + M1], x[i + M2], x[i + M3]
        l1, l2, blend = x[i + FALL1], x[i + FALL2], x[i + BLEND]
        r1, r2 = x[i + RISE1] - l1, x[i + RISE2] - l2
        up = ONE if c0 > m0 else ZERO
        y = (l2 + up * r2) * (c0 + m0)
        e0 = m0 + (c0 - m0) * (ONE - (l1 + up * r1) * (ONE - y + HALF * y * y))
        up = ONE if c1 > m1 else ZERO
        y = (l2 + up * r2) * (c1 + m1)
        e1 = m1 + (c1 - m1) * (ONE - (l1 + up * r1) * (ONE - y + HALF * y * y))
        up = ONE if c2 > m2 else ZERO
        y = (l2 + up * r2) * (c2 + m2)
        e2 = m2 + (c2 - m2) * (ONE - (l1 + up * r1) * (ONE - y + HALF * y * y))
        up = ONE if c3 > m3 else ZERO
        y = (l2 + up * r2) * (c3 + m3)
        e3 = m3 + (c3 - m3) * (ONE - (l1 + up * r1) * (ONE - y + HALF * y * y))
        x[i + M0], x[i + M1], x[i + M2], x[i + M3] = e0, e1, e2, e3
        rotor_h = x[i + ROTOR_H]
        faster = (e0 - m0) + (e1 - m1) - (e2 - m2) - (e3 - m3)
        m0, m1, m2, m3 = e0 + blend * (m0 - e0), e1 + blend * (m1 - e1), e2 + blend * (m2 - e2), e3 + blend * (m3 - e3)
        t1, t2 = x[i + THRUST1], x[i + THRUST2]
        f0, f1, f2, f3 = m0 * (t1 + t2 * m0), m1 * (t1 + t2 * m1), m2 * (t1 + t2 * m2), m3 * (t1 + t2 * m3)
        x[i + FORCE] = f0 + f1 + f2 + f3
        x[i + TORQUEX] = x[i + ARM_Y] * (f1 + f2 - f0 - f3)
        x[i + TORQUEY] = x[i + ARM_X] * (f1 + f3 - f0 - f2)
        x[i + TORQUEZ] = x[i + TORQUE] * (f2 + f3 - f0 - f1) - rotor_h * RATE_H * faster
        x[i + SPIN] = rotor_h * (m0 + m1 - m2 - m3)


@compiled_lanes
def _turn(x: np.ndarray, base: int) -> None:
    """Rates: torques of the rotors, damping, and -w x (J w + h) at the middle rate. Attitude: by the middle rate."""
    widest()
    for lane in range(LANES):
        i = np.uint64(base + lane)
        wx, wy, wz = x[i + WX], x[i + WY], x[i + WZ]
        ox, oy, oz = wx + HALF_H * x[i + BX], wy + HALF_H * x[i + BY], wz + HALF_H * x[i + BZ]
        hx = x[i + JXX] * ox + x[i + JXY] * oy + x[i + JXZ] * oz
        hy = x[i + JXY] * ox + x[i + JYY] * oy + x[i + JYZ] * oz
        hz = x[i + JXZ] * ox + x[i + JYZ] * oy + x[i + JZZ] * oz + x[i + SPIN]
        damping = x[i + SPIN_DRAG]
        tx = x[i + TORQUEX] - damping * ox - (oy * hz - oz * hy)
        ty = x[i + TORQUEY] - damping * oy - (oz * hx - ox * hz)
        tz = x[i + TORQUEZ] - damping * oz - (ox * hy - oy * hx)
        bx = x[i + IXX] * tx + x[i + IXY] * ty + x[i + IXZ] * tz
        by = x[i + IXY] * tx + x[i + IYY] * ty + x[i + IYZ] * tz
        bz = x[i + IXZ] * tx + x[i + IYZ] * ty + x[i + IZZ] * tz
        ox, oy, oz = wx + HALF_H * bx, wy + HALF_H * by, wz + HALF_H * bz
        direct, s1, s2, s3 = x[i + DIRECT], x[i + T1], x[i + T2], x[i + T3]
        bx += direct * (RATE_H * (s1 - wx) - bx)
        by += direct * (RATE_H * (s2 - wy) - by)
        bz += direct * (RATE_H * (s3 - wz) - bz)
        ox, oy, oz = ox + direct * (s1 - ox), oy + direct * (s2 - oy), oz + direct * (s3 - oz)
        x[i + BX], x[i + BY], x[i + BZ] = bx, by, bz
        x[i + WX], x[i + WY], x[i + WZ] = wx + H * bx, wy + H * by, wz + H * bz

        # Series of cosine and sine of the half angle.
        hx, hy, hz = HALF_H * ox, HALF_H * oy, HALF_H * oz
        u = hx * hx + hy * hy + hz * hz
        cosine = ONE - u * (HALF - R24 * u)
        sine = ONE - u * (SIXTH - R120 * u)
        hx, hy, hz = sine * hx, sine * hy, sine * hz
        qw, qx, qy, qz = x[i + QW], x[i + QX], x[i + QY], x[i + QZ]
        ew = qw * cosine - qx * hx - qy * hy - qz * hz
        ex = qx * cosine + qw * hx + qy * hz - qz * hy
        ey = qy * cosine + qw * hy + qz * hx - qx * hz
        ez = qz * cosine + qw * hz + qx * hy - qy * hx
        norm = HALF * (THREE - (ew * ew + ex * ex + ey * ey + ez * ez))
        ew, ex, ey, ez = norm * ew, norm * ex, norm * ey, norm * ez
        x[i + QW], x[i + QX], x[i + QY], x[i + QZ] = ew, ex, ey, ez

        # Where the thrust points in the middle of the substep.
        norm = HALF + u * EIGHTH * HALF
        qw, qx, qy, qz = norm * (qw + ew), norm * (qx + ex), norm * (qy + ey), norm * (qz + ez)
        x[i + UPX], x[i + UPY] = TWO * (qx * qz + qw * qy), TWO * (qy * qz - qw * qx)
        x[i + UPZ] = ONE - TWO * (qx * qx + qy * qy)


@compiled_lanes
def _move(x: np.ndarray, base: int) -> None:
    """Thrust, drag through the air in the middle of the substep, gravity; the ground stops what touches it."""
    widest()
    for lane in range(LANES):
        i = np.uint64(base + lane)
        zx, zy, zz = x[i + UPX], x[i + UPY], x[i + UPZ]
        vx, vy, vz = x[i + VX], x[i + VY], x[i + VZ]
        rx = vx + HALF_H * x[i + AX] - x[i + WINDX]
        ry = vy + HALF_H * x[i + AY] - x[i + WINDY]
        rz = vz + HALF_H * x[i + AZ] - x[i + WINDZ]
        drag, lighter = x[i + DRAG_XY], x[i + MASS_INV]
        along = (x[i + FORCE] - (x[i + DRAG_Z] - drag) * (rx * zx + ry * zy + rz * zz)) * lighter
        drag *= lighter
        ax, ay, az = along * zx - drag * rx, along * zy - drag * ry, along * zz - drag * rz - G
        mx, my, mz = vx + H * ax, vy + H * ay, vz + H * az
        px = x[i + PX] + HALF_H * (vx + mx)
        py = x[i + PY] + HALF_H * (vy + my)
        pz = x[i + PZ] + HALF_H * (vz + mz)
        floor = x[i + FLOOR]
        down = pz < floor and mz < ZERO
        keep = ZERO if down else ONE
        touch = ZERO if x[i + PZ] <= floor else ONE - keep
        x[i + IMPACT] = (ONE - touch) * x[i + IMPACT] - touch * vz
        x[i + PX], x[i + PY], x[i + PZ] = px, py, floor if down else pz
        x[i + VX], x[i + VY], x[i + VZ] = keep * mx, keep * my, keep * mz
        x[i + WX], x[i + WY], x[i + WZ] = keep * x[i + WX], keep * x[i + WY], keep * x[i + WZ]
        x[i + AX], x[i + AY], x[i + AZ] = keep * ax, keep * ay, keep * az
        x[i + BX], x[i + BY], x[i + BZ] = keep * x[i + BX], keep * x[i + BY], keep * x[i + BZ]


@compiled_lanes
def _sense(x: np.ndarray, base: int) -> None:
    """Battery and inertial sensors at the end of a call."""
    widest()
    for lane in range(LANES):
        i = np.uint64(base + lane)
        m0, m1, m2, m3 = x[i + M0], x[i + M1], x[i + M2], x[i + M3]
        power = QUARTER * (m0 * m0 * m0 + m1 * m1 * m1 + m2 * m2 * m2 + m3 * m3 * m3)
        charge = x[i + CHARGE] - x[i + DRAIN] * power
        charge = ZERO if charge < ZERO else charge
        x[i + CHARGE] = charge
        x[i + VOLT] = ONE - x[i + SAG_EMPTY] * (ONE - charge) - x[i + SAG_LOAD] * power

        n, step = _bits(x[i + RANDOM]), _bits(x[i + STEP])
        x[i + RANDOM] = _number(U(n + step))
        qw, qx, qy, qz = x[i + QW], x[i + QX], x[i + QY], x[i + QZ]
        ax, ay, az = x[i + AX], x[i + AY], x[i + AZ] + G
        strength = x[i + ACB_N]
        x[i + ACCX] = (
            x[i + ACB_X] + strength * _normal(_hash(n))
            + (ONE - TWO * (qy * qy + qz * qz)) * ax + TWO * (qx * qy + qw * qz) * ay + TWO * (qx * qz - qw * qy) * az
        )  # fmt: skip
        x[i + ACCY] = (
            x[i + ACB_Y] + strength * _normal(_hash(U(n ^ STREAM1)))
            + TWO * (qx * qy - qw * qz) * ax + (ONE - TWO * (qx * qx + qz * qz)) * ay + TWO * (qy * qz + qw * qx) * az
        )  # fmt: skip
        x[i + ACCZ] = (
            x[i + ACB_Z] + strength * _normal(_hash(U(n ^ STREAM2)))
            + TWO * (qx * qz + qw * qy) * ax + TWO * (qy * qz - qw * qx) * ay + (ONE - TWO * (qx * qx + qy * qy)) * az
        )  # fmt: skip
    for lane in range(LANES):
        i = np.uint64(base + lane)
        n, strength = _bits(x[i + RANDOM]), x[i + GYR_N]
        x[i + RANDOM] = _number(U(n + _bits(x[i + STEP])))
        x[i + GYRX] = x[i + WX] + x[i + GYR_X] + strength * _normal(_hash(n))
        x[i + GYRY] = x[i + WY] + x[i + GYR_Y] + strength * _normal(_hash(U(n ^ STREAM1)))
        x[i + GYRZ] = x[i + WZ] + x[i + GYR_Z] + strength * _normal(_hash(U(n ^ STREAM2)))


@compiled_lanes
def _settle(x: np.ndarray, base: int, substeps: np.float32) -> None:
    """Commands that arrived during the call stay, and none is under way."""
    widest()
    for lane in range(LANES):
        i = np.uint64(base + lane)
        new = ONE if x[i + SWITCH] < substeps else ZERO
        old = ONE - new
        x[i + U0] = x[i + N0] = old * x[i + U0] + new * x[i + N0]
        x[i + U1] = x[i + N1] = old * x[i + U1] + new * x[i + N1]
        x[i + U2] = x[i + N2] = old * x[i + U2] + new * x[i + N2]
        x[i + U3] = x[i + N3] = old * x[i + U3] + new * x[i + N3]
        x[i + U4] = x[i + N4] = old * x[i + U4] + new * x[i + N4]
        x[i + SWITCH] = ZERO
