"""One iteration of sequential quadratic programming for a quadrotor, compiled: what model-predictive control does at
each step (the real-time iteration, Diehl et al. 2005).

Multiple shooting over `NODES` intervals of `INTERVAL`; the Hessian is Gauss and Newton's. States between are eliminated
with a cost quadratic in the number of intervals (Andersson 2013), and the program in the inputs alone, with their
bounds, is solved by projected Newton steps (Bertsekas 1982).

State [14]: position, velocity, quaternion wxyz, mean rotor speed (part of the greatest), body rates. Input [4]:
commanded rotor speed, commanded body rates. Rotors and rates follow their commands with a lag of first order.
"""

from __future__ import annotations

import numpy as np

from robot_rl.sim.compiled import compiled

NODES, INTERVAL = 20, 0.05
"""Intervals of the horizon, and how long each is [s]."""
STATES, INPUTS = 14, 4
(
    MASS, LINEAR, QUADRATIC, DRAG, DRAG_ALONG, WIND, VOLT, RISE, RISE_SQUARE, FALL, FALL_SQUARE, FOLLOW,
) = (0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13)  # fmt: skip
"""Entries of a model [16]: mass [kg]; thrust of all rotors, linear and quadratic in their speed [N]; drag across and
along the thrust [N/(m/s)]; wind [3, m/s]; speed that a full command gives; how fast rotors follow upwards and
downwards, by the difference of speeds and of their squares [1/s]; how fast rates follow [3, 1/s]."""
MODEL = 16
GRAVITY = 9.81

_SUBSTEPS = 2
_NEWTON_STEPS, _TOLERANCE = 20, 1e-8


@compiled
def derivative(x: np.ndarray, u: np.ndarray, model: np.ndarray, out: np.ndarray) -> None:
    """Rate of change [14] of a state under an input, into `out`."""
    w, i, j, k = x[6], x[7], x[8], x[9]
    zx, zy, zz = 2 * (i * k + w * j), 2 * (j * k - w * i), 1 - 2 * (i * i + j * j)
    rx, ry, rz = x[3] - model[WIND], x[4] - model[WIND + 1], x[5] - model[WIND + 2]
    speed, mass = x[10], model[MASS]
    thrust = speed * (model[LINEAR] + model[QUADRATIC] * speed)
    along = (thrust - (model[DRAG_ALONG] - model[DRAG]) * (rx * zx + ry * zy + rz * zz)) / mass
    drag = model[DRAG] / mass
    out[0], out[1], out[2] = x[3], x[4], x[5]
    out[3], out[4], out[5] = along * zx - drag * rx, along * zy - drag * ry, along * zz - drag * rz - GRAVITY
    a, b, c = x[11], x[12], x[13]
    out[6] = 0.5 * (-i * a - j * b - k * c)
    out[7] = 0.5 * (w * a + j * c - k * b)
    out[8] = 0.5 * (w * b + k * a - i * c)
    out[9] = 0.5 * (w * c + i * b - j * a)
    goal = model[VOLT] * u[0]
    first = RISE if goal > speed else FALL
    out[10] = (goal - speed) * (model[first] + model[first + 1] * (goal + speed))
    for axis in range(3):
        out[11 + axis] = model[FOLLOW + axis] * (u[1 + axis] - x[11 + axis])


@compiled
def jacobian(x: np.ndarray, u: np.ndarray, model: np.ndarray, by_state: np.ndarray, by_input: np.ndarray) -> None:
    """Derivatives of `derivative` by the state [14, 14] and by the input [14, 4]; both are overwritten."""
    by_state[:] = 0.0
    by_input[:] = 0.0
    w, i, j, k = x[6], x[7], x[8], x[9]
    up = np.array([2 * (i * k + w * j), 2 * (j * k - w * i), 1 - 2 * (i * i + j * j)])
    turn = np.array([[2 * j, 2 * k, 2 * w, 2 * i], [-2 * i, -2 * w, 2 * k, 2 * j], [0.0, -4 * i, -4 * j, 0.0]])
    air = x[3:6] - model[WIND : WIND + 3]
    speed, mass = x[10], model[MASS]
    drag, extra = model[DRAG] / mass, (model[DRAG_ALONG] - model[DRAG]) / mass
    along = speed * (model[LINEAR] + model[QUADRATIC] * speed) / mass - extra * (air * up).sum()
    for axis in range(3):
        by_state[axis, 3 + axis] = 1.0
        by_state[3 + axis, 3 + axis] -= drag
        by_state[3 + axis, 10] = (model[LINEAR] + 2 * model[QUADRATIC] * speed) / mass * up[axis]
        for other in range(3):
            by_state[3 + axis, 3 + other] -= extra * up[axis] * up[other]
        for part in range(4):
            slip = air[0] * turn[0, part] + air[1] * turn[1, part] + air[2] * turn[2, part]
            by_state[3 + axis, 6 + part] = along * turn[axis, part] - extra * up[axis] * slip
    a, b, c = 0.5 * x[11], 0.5 * x[12], 0.5 * x[13]
    by_state[6, 7], by_state[6, 8], by_state[6, 9] = -a, -b, -c
    by_state[7, 6], by_state[7, 8], by_state[7, 9] = a, c, -b
    by_state[8, 6], by_state[8, 7], by_state[8, 9] = b, -c, a
    by_state[9, 6], by_state[9, 7], by_state[9, 8] = c, b, -a
    by_state[6, 11], by_state[6, 12], by_state[6, 13] = -0.5 * i, -0.5 * j, -0.5 * k
    by_state[7, 11], by_state[7, 12], by_state[7, 13] = 0.5 * w, -0.5 * k, 0.5 * j
    by_state[8, 11], by_state[8, 12], by_state[8, 13] = 0.5 * k, 0.5 * w, -0.5 * i
    by_state[9, 11], by_state[9, 12], by_state[9, 13] = -0.5 * j, 0.5 * i, 0.5 * w
    goal = model[VOLT] * u[0]
    first = RISE if goal > speed else FALL
    linear, square = model[first], model[first + 1]
    by_state[10, 10] = -linear - 2 * square * speed
    by_input[10, 0] = model[VOLT] * (linear + 2 * square * goal)
    for axis in range(3):
        by_state[11 + axis, 11 + axis] = -model[FOLLOW + axis]
        by_input[11 + axis, 1 + axis] = model[FOLLOW + axis]


@compiled
def flow(x: np.ndarray, u: np.ndarray, model: np.ndarray, time: float) -> np.ndarray:
    """State after a time under a constant input, by Runge and Kutta's fourth order."""
    state, stage = x.copy(), np.empty((4, STATES))
    step = time / _SUBSTEPS
    for _ in range(_SUBSTEPS):
        derivative(state, u, model, stage[0])
        derivative(state + 0.5 * step * stage[0], u, model, stage[1])
        derivative(state + 0.5 * step * stage[1], u, model, stage[2])
        derivative(state + step * stage[2], u, model, stage[3])
        state += step / 6 * (stage[0] + 2 * stage[1] + 2 * stage[2] + stage[3])
    return state


@compiled
def linearise(
    x: np.ndarray, u: np.ndarray, model: np.ndarray, end: np.ndarray, by_state: np.ndarray, by_input: np.ndarray
) -> None:
    """`flow` over one interval into `end`, with its derivatives: those of the scheme itself."""
    width, step = STATES + INPUTS, INTERVAL / _SUBSTEPS
    at, slope, state = np.empty(STATES), np.zeros(STATES), x.copy()
    moved, stage, sensitivity = np.empty((STATES, width)), np.zeros((STATES, width)), np.zeros((STATES, width))
    of_state, of_input = np.empty((STATES, STATES)), np.empty((STATES, INPUTS))
    for row in range(STATES):
        end[row], sensitivity[row, row] = x[row], 1.0
    for _ in range(_SUBSTEPS):
        by_state[:], by_input[:] = sensitivity[:, :STATES], sensitivity[:, STATES:]
        for row in range(STATES):
            state[row] = end[row]
        for part in range(4):
            reach = 0.0 if part == 0 else step if part == 3 else 0.5 * step
            for row in range(STATES):
                at[row] = state[row] + reach * slope[row]
                for column in range(width):
                    before = by_state[row, column] if column < STATES else by_input[row, column - STATES]
                    moved[row, column] = before + reach * stage[row, column]
            derivative(at, u, model, slope)
            jacobian(at, u, model, of_state, of_input)
            _multiply(of_state, moved, False, stage)
            gain = step / 6 if part in (0, 3) else step / 3
            for row in range(STATES):
                end[row] += gain * slope[row]
                for column in range(width):
                    if column >= STATES:
                        stage[row, column] += of_input[row, column - STATES]
                    sensitivity[row, column] += gain * stage[row, column]
    by_state[:], by_input[:] = sensitivity[:, :STATES], sensitivity[:, STATES:]


@compiled
def condense(
    by_state: np.ndarray, by_input: np.ndarray, gap: np.ndarray, first: np.ndarray, hessian: np.ndarray,
    slope: np.ndarray, weight: np.ndarray, pull: np.ndarray, quadratic: np.ndarray, linear: np.ndarray,
) -> None:  # fmt: skip
    """The program in the changes of the inputs alone: its matrix [4 K, 4 K] and gradient [4 K], into the last two.

    Args:
        by_state, by_input: [K, 14, 14], [K, 14, 4]. gap: [K, 14], end of each interval minus the next state.
        first: change of the first state [14].
        hessian, slope: of the cost of states, [K + 1, 14, 14], [K + 1, 14].
        weight, pull: of the cost of inputs: diagonal [4], gradients [K, 4].
    """
    count = len(by_state)
    quadratic[:] = 0.0
    reached, block = np.empty((count + 1, STATES, INPUTS)), np.empty((INPUTS, INPUTS))
    back, later = np.empty((STATES, INPUTS)), np.zeros((STATES, INPUTS))
    for column in range(count):
        reached[column + 1] = by_input[column]
        for node in range(column + 1, count):
            _multiply(by_state[node], reached[node], False, reached[node + 1])
        later[:] = 0.0
        for node in range(count - 1, column - 1, -1):
            _multiply(hessian[node + 1], reached[node + 1], False, back)
            for row in range(STATES):
                for b in range(INPUTS):
                    back[row, b] += later[row, b]
            _multiply(by_input[node], back, True, block)
            for a in range(INPUTS):
                for b in range(INPUTS):
                    quadratic[INPUTS * node + a, INPUTS * column + b] = block[a, b]
                    quadratic[INPUTS * column + b, INPUTS * node + a] = block[a, b]
            _multiply(by_state[node], back, True, later)
    drift, price = np.empty((count + 1, STATES, 1)), np.empty((STATES, 1))
    own, passed = np.empty((INPUTS, 1)), np.zeros((STATES, 1))
    for row in range(STATES):
        drift[0, row, 0] = first[row]
    for node in range(count):
        _multiply(by_state[node], drift[node], False, drift[node + 1])
        for row in range(STATES):
            drift[node + 1, row, 0] += gap[node, row]
    for node in range(count - 1, -1, -1):
        _multiply(hessian[node + 1], drift[node + 1], False, price)
        for row in range(STATES):
            price[row, 0] += slope[node + 1, row] + passed[row, 0]
        _multiply(by_input[node], price, True, own)
        _multiply(by_state[node], price, True, passed)
        for a in range(INPUTS):
            linear[INPUTS * node + a] = own[a, 0] + pull[node, a]
            quadratic[INPUTS * node + a, INPUTS * node + a] += weight[a]


@compiled
def _multiply(a: np.ndarray, b: np.ndarray, transposed: bool, out: np.ndarray) -> None:
    """The product of a (or its transpose) and b."""
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            out[row, column] = 0.0
        for inner in range(b.shape[0]):
            factor = a[inner, row] if transposed else a[row, inner]
            if factor != 0.0:
                for column in range(out.shape[1]):
                    out[row, column] += factor * b[inner, column]


@compiled
def solve_box(
    quadratic: np.ndarray, linear: np.ndarray, lower: np.ndarray, upper: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """The z within bounds that makes z Q z / 2 + c z least, Q positive definite. `start` may lie outside."""
    size = len(linear)
    z: np.ndarray = np.minimum(np.maximum(start, lower), upper)
    gradient = quadratic @ z + linear
    for _ in range(_NEWTON_STEPS):
        free = np.empty(size, np.bool_)
        worst = 0.0
        for row in range(size):
            held = (z[row] <= lower[row] and gradient[row] > 0) or (z[row] >= upper[row] and gradient[row] < 0)
            free[row] = not held
            if free[row]:
                worst = max(worst, abs(gradient[row]))
        if worst < _TOLERANCE:
            break
        step = _newton_step(quadratic, gradient, free)
        value, length = 0.5 * (z @ (gradient + linear)), 1.0
        while True:
            other = np.minimum(np.maximum(z + length * step, lower), upper)
            slope = quadratic @ other + linear
            better = 0.5 * (other @ (slope + linear))
            if better <= value + 0.1 * (gradient @ (other - z)) or length < 1e-6:
                break
            length *= 0.5
        moved = np.abs(other - z).max()
        z, gradient = other, slope
        if moved < 1e-12:
            break
    return z


@compiled
def _newton_step(quadratic: np.ndarray, gradient: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Minus the gradient over the matrix in the free rows, by Cholesky's factors; zero in the others."""
    rows = np.flatnonzero(free)
    count = len(rows)
    factor, solution = np.zeros((count, count)), np.empty(count)
    for a in range(count):
        for b in range(a + 1):
            rest = quadratic[rows[a], rows[b]] - (factor[a, :b] * factor[b, :b]).sum()
            factor[a, b] = np.sqrt(rest) if a == b else rest / factor[b, b]
        solution[a] = (-gradient[rows[a]] - (factor[a, :a] * solution[:a]).sum()) / factor[a, a]
    for a in range(count - 1, -1, -1):
        solution[a] = (solution[a] - (factor[a + 1 :, a] * solution[a + 1 :]).sum()) / factor[a, a]
    step = np.zeros(len(gradient))
    step[rows] = solution
    return step


@compiled
def iterate(
    states: np.ndarray, inputs: np.ndarray, now: np.ndarray, model: np.ndarray, goals: np.ndarray,
    wanted: np.ndarray, weights: np.ndarray, weight: np.ndarray, lower: np.ndarray, upper: np.ndarray,
) -> None:  # fmt: skip
    """Improve a plan in place by one full step of sequential quadratic programming.

    Args:
        states, inputs: the plan, [K + 1, 14], [K, 4]. now: the present state [14].
        goals, wanted: states and inputs that cost nothing, [K + 1, 14], [K, 4].
        weights: of position, velocity, attitude (the three-vector of the turn to the goal), rotor speed and rates,
            [K + 1, 5]. weight: of inputs [4]. lower, upper: bounds of inputs [4].
    """
    count = len(inputs)
    ends, by_state = np.empty((count, STATES)), np.empty((count, STATES, STATES))
    by_input, hessian = np.empty((count, STATES, INPUTS)), np.zeros((count + 1, STATES, STATES))
    slope, pull = np.zeros((count + 1, STATES)), np.empty((count, INPUTS))
    low, high, start = np.empty(INPUTS * count), np.empty(INPUTS * count), np.zeros(INPUTS * count)
    for node in range(count + 1):
        _cost(states[node], goals[node], weights[node], hessian[node], slope[node])
    for node in range(count):
        linearise(states[node], inputs[node], model, ends[node], by_state[node], by_input[node])
        for column in range(INPUTS):
            pull[node, column] = weight[column] * (inputs[node, column] - wanted[node, column])
            low[INPUTS * node + column] = lower[column] - inputs[node, column]
            high[INPUTS * node + column] = upper[column] - inputs[node, column]
    quadratic, linear = np.empty((INPUTS * count, INPUTS * count)), np.empty(INPUTS * count)
    gap, first = ends - states[1:], now - states[0]
    condense(by_state, by_input, gap, first, hessian, slope, weight, pull, quadratic, linear)
    change = solve_box(quadratic, linear, low, high, start).reshape(count, INPUTS)
    step = first
    for node in range(count):
        states[node] += step
        step = by_state[node] @ step + by_input[node] @ change[node] + gap[node]
        inputs[node] = np.minimum(np.maximum(inputs[node] + change[node], lower), upper)
    states[count] += step
    for node in range(count + 1):
        states[node, 6:10] /= np.sqrt((states[node, 6:10] ** 2).sum())


@compiled
def _cost(x, goal, weights, hessian, slope):  # type: ignore[no-untyped-def]
    """Matrix and gradient of half the weighted squares of a state's distances from its goal."""
    for row in range(STATES):
        if 6 <= row < 10:
            continue
        part = 0 if row < 3 else 1 if row < 6 else 3 if row == 10 else 4
        hessian[row, row] = weights[part]
        slope[row] = weights[part] * (x[row] - goal[row])
    # Twice the vector of goal^-1 q is linear in q.
    w, i, j, k = goal[6], goal[7], goal[8], goal[9]
    turn = 2 * np.array([[-i, w, k, -j], [-j, -k, w, i], [-k, j, -i, w]])
    square = weights[2] * (turn.T @ turn)
    hessian[6:10, 6:10] = square
    slope[6:10] = square @ x[6:10]
