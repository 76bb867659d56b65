"""One quadrotor in float64: the controllers at 500 Hz, the motion between by RK4 at a tenth of the step.

Written from the equations of motion, in physical units (rotor speeds in the unit of the vehicle's file, matrices
rather than components), to check the compiled flight against.
"""

import math

import numpy as np
import yaml

from robot_rl.sim.drone.vehicle_model import FOLDER, Vehicle

G = 9.81
H = 0.002
PARTS = 10
# Rotors: x, y, and the sense of turning seen from above (counterclockwise: +).
ROTORS = ((1, -1, 1), (-1, 1, 1), (1, 1, -1), (-1, -1, -1))


def rotation(q):
    w, *xyz = q / np.linalg.norm(q)
    cross = skew(xyz)
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def skew(vector):
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


class Reference:
    def __init__(self, vehicle: Vehicle, wind=(0, 0, 0)):
        self.v, self.wind = vehicle, np.array(wind, float)
        control = yaml.safe_load((FOLDER / "autopilot" / "px4.yaml").read_text())["rates"]
        self.gains = {**control, **vehicle.autopilot.get("rates", {})}
        self.p, self.vel, self.q, self.w = np.zeros(3), np.zeros(3), np.array([1.0, 0, 0, 0]), np.zeros(3)
        self.maximum = vehicle.greatest_speed
        self.speed = np.full(4, self._speed(vehicle.hover_throttle * vehicle.thrust_max))
        self.past_in, self.past_out = np.zeros((2, 3)), np.zeros((2, 3))
        self.rate, self.derivative, self.integral = np.zeros(3), np.zeros(3), np.zeros(3)

    def _speed(self, thrust):
        a, b = self.v.thrust["quadratic"], self.v.thrust["linear"]
        return max(np.roots([a, b, -thrust]).real) if a else thrust / b

    def _low_pass(self, value):
        k = math.tan(math.pi * self.gains["gyro_cutoff"] * H)
        norm = 1 + math.sqrt(2) * k + k * k
        x1, x2 = self.past_in
        y1, y2 = self.past_out
        out = (k * k * (value + 2 * x1 + x2) - 2 * (k * k - 1) * y1 - (1 - math.sqrt(2) * k + k * k) * y2) / norm
        self.past_in, self.past_out = np.stack([value, x1]), np.stack([out, y1])
        return out

    def _commands(self, throttle, target):
        gains = {key: np.array(self.gains[key]) for key in "pid"}
        rate = self._low_pass(self.w)
        alpha = H / (H + 1 / (2 * math.pi * self.gains["derivative_cutoff"]))
        self.derivative = self.derivative + alpha * ((rate - self.rate) / H - self.derivative)
        self.rate = rate
        error = target - rate
        roll, pitch, yaw = gains["p"] * error + self.integral - gains["d"] * self.derivative
        less = np.clip(1 - (error / math.radians(400)) ** 2, 0, None)
        limit = self.gains["integral_limit"]
        # Far from saturation the mixer is a sum; the tests stay there.
        self.integral = np.clip(self.integral + less * gains["i"] * error * H, -limit, limit)
        base = self._speed(throttle * self.v.thrust_max) / self.maximum
        k = math.sqrt(0.5)
        parts = [base + k * (y * roll - x * pitch) - s * yaw for x, y, s in ROTORS]
        low = self._speed(self.v.idle) / self.maximum
        assert low < min(parts) <= max(parts) < 1, "the mixer saturates"
        return np.array(parts) * self.maximum

    def _rotor_rate(self, speed, command):
        rate = np.empty(4)
        for k in range(4):
            rule = self.v.rise if command[k] > speed[k] else self.v.fall
            rate[k] = rule.get("linear", 0) * (command[k] - speed[k])
            rate[k] += rule.get("quadratic", 0) * (command[k] ** 2 - speed[k] ** 2)
        return rate

    def _derivative(self, y, command):
        vel, q, w, speed = y[3:6], y[6:10], y[10:13], y[13:17]
        rate = self._rotor_rate(speed, command) if self.v.rise else np.zeros(4)
        speed = speed if self.v.rise else command
        thrust = self.v.thrust["quadratic"] * speed**2 + self.v.thrust["linear"] * speed
        R = rotation(q)
        force = R @ np.array([0, 0, thrust.sum()])
        drag = np.diag([self.v.drag[0], self.v.drag[0], self.v.drag[1]])
        force -= R @ drag @ R.T @ (vel - self.wind)
        torque = -self.v.spin_drag * w
        momentum = self.v.inertia_matrix @ w
        inertia = self.v.rotor_momentum / self.maximum
        for (x, y_, s), f, n, dn in zip(ROTORS, thrust, speed, rate, strict=True):
            torque += [
                y_ * self.v.arm[1] * f,
                -x * self.v.arm[0] * f,
                -s * (self.v.torque_per_thrust * f + inertia * dn),
            ]
            momentum[2] += s * inertia * n
        acceleration = np.linalg.solve(self.v.inertia_matrix, torque - skew(w) @ momentum)
        a, b, c, d = q
        x, y_, z = w
        turn = 0.5 * np.array([
            -b * x - c * y_ - d * z, a * x + c * z - d * y_, a * y_ + d * x - b * z, a * z + b * y_ - c * x,
        ])  # fmt: skip
        return np.concatenate([vel, force / self.v.mass - [0, 0, G], turn, acceleration, rate])

    def step(self, throttle, target):
        """One substep under a throttle and body rates."""
        command = self._commands(throttle, np.asarray(target, float))
        y, h = np.concatenate([self.p, self.vel, self.q, self.w, self.speed]), H / PARTS
        for _ in range(PARTS):
            k1 = self._derivative(y, command)
            k2 = self._derivative(y + h / 2 * k1, command)
            k3 = self._derivative(y + h / 2 * k2, command)
            k4 = self._derivative(y + h * k3, command)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        y[6:10] /= np.linalg.norm(y[6:10])
        self.p, self.vel, self.q, self.w, self.speed = y[:3], y[3:6], y[6:10], y[10:13], y[13:]
        if not self.v.rise:
            self.speed = command
