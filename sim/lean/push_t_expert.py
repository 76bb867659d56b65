"""An expert that pushes a T where it belongs, from what can be seen alone: one push after the other, each the best.

Under viscous friction a force f at a point p of the T moves it by a twist along (f, p × f / ρ²), with ρ the mean radius
about its centre of mass. In the metric |Δx|² + ρ² Δφ² a push along the inward normal of a boundary point takes most of
the error away where that twist points most along it. The finger goes round the T to that point, and pushes.
"""

from __future__ import annotations

import numpy as np

RADIUS = 0.015
"""Of the finger [m]."""
RHO = 0.04395
"""Mean radius of the T about its centre of mass [m]."""
AWAY, ALIGNED = 0.012, 0.005
"""Gap from which a push begins, and by how far it may be off sideways [m]."""
CLEAR = RADIUS + 0.003
"""Distance of the finger's centre from the T at which it passes freely [m]."""
ROUND = 0.125
"""Radius of the circle about the T on which the finger goes round [m]."""
LAZINESS = 0.35
"""Way to a push that makes it e times less attractive [m]."""
PUSH = 0.03
"""Longest push of a step [m]."""


def push(
    poses: np.ndarray, fingers: np.ndarray, goal: np.ndarray, centres: np.ndarray, halves: np.ndarray, reach: float
) -> np.ndarray:
    """Targets [N, 2] of the fingers [N, 2] for T's at poses [N, 3] that belong to `goal`; all in the world frame.

    Args:
        centres, halves: of the rectangles of the T in its frame [R, 2] [m].
        reach: how far from the middle a push may begin [m].
    """
    points, normals = _boundary(centres, halves)
    turn = (goal[2] - poses[:, 2] + np.pi) % (2 * np.pi) - np.pi
    error = np.column_stack([_into(poses, goal[None, :2]), RHO * turn])
    lever = (points[:, 0] * normals[:, 1] - points[:, 1] * normals[:, 0]) / RHO
    twists = np.column_stack([normals, lever])
    sizes = np.linalg.norm(twists, axis=1)
    gain = error @ twists.T / sizes
    finger = _into(poses, fingers)
    before = points - normals * (RADIUS + AWAY / 2)
    way = np.linalg.norm(before[None] - finger[:, None], axis=2)
    outside = abs(_out_of(poses[:, None], before[None])).max(-1) > reach
    best = (np.where((gain > 0) & ~outside, gain, 0.0) * np.exp(-way / LAZINESS)).argmax(1)
    point, normal, goal_there = points[best], normals[best], before[best]

    off = finger - point
    gap = -np.einsum("nk,nk->n", off, normal) - RADIUS
    aside = abs(off[:, 0] * normal[:, 1] - off[:, 1] * normal[:, 0])
    amount = np.clip(gain[np.arange(len(best)), best] / sizes[best], 0.0005, PUSH)
    pushed = point + normal * (amount - RADIUS)[:, None]

    target = np.where(
        ((abs(gap) < AWAY) & (aside < ALIGNED))[:, None],
        pushed,
        _way_round(finger, goal_there, normal, centres, halves),
    )
    return _out_of(poses, target)


def distance(poses: np.ndarray, points: np.ndarray, centres: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """Of points [N, 2] from T's at poses [N, 3], negative inside [N]."""
    return _distance(_into(poses, points), centres, halves)


def _way_round(
    finger: np.ndarray, there: np.ndarray, normal: np.ndarray, centres: np.ndarray, halves: np.ndarray
) -> np.ndarray:
    """The next target on the way to points `there` around the T, all in its frame [N, 2]."""
    parts = np.linspace(0.1, 1.0, 19)[:, None, None]
    line = finger + parts * (there - finger)
    free = np.asarray((_distance(line, centres, halves) > CLEAR).all(0))
    radius = np.linalg.norm(finger, axis=1, keepdims=True)
    angle = np.arctan2(finger[:, 1], finger[:, 0])
    # Where the straight way out from there meets the circle.
    along = np.einsum("nk,nk->n", there, normal)
    out = along + np.sqrt(np.maximum(along**2 + ROUND**2 - np.einsum("nk,nk->n", there, there), 0.0))
    gate = there - normal * out[:, None]
    wanted = np.arctan2(gate[:, 1], gate[:, 0])
    left = (wanted - angle + np.pi) % (2 * np.pi) - np.pi
    turned = angle + np.clip(left, -0.35, 0.35)
    circle = ROUND * np.column_stack([np.cos(turned), np.sin(turned)])
    # From within the circle first away from the T, then outwards.
    steps = 1e-4 * np.eye(2)
    rise = [_distance(finger + one, centres, halves) - _distance(finger - one, centres, halves) for one in steps]
    slope = np.column_stack(rise) / 2e-4
    outwards = finger / np.maximum(radius, 1e-6)
    near = _distance(finger, centres, halves) < CLEAR
    leave = finger + 0.03 * np.where(near[:, None], slope, outwards)
    return np.where(free[:, None], there, np.where(radius < ROUND - 0.015, leave, circle))


def _distance(points: np.ndarray, centres: np.ndarray, halves: np.ndarray) -> np.ndarray:
    outside = abs(points[..., None, :] - centres) - halves
    beyond = np.linalg.norm(np.maximum(outside, 0.0), axis=-1) + np.minimum(outside.max(-1), 0.0)
    return np.asarray(beyond.min(-1))


def _boundary(centres: np.ndarray, halves: np.ndarray, every: float = 0.005) -> tuple[np.ndarray, np.ndarray]:
    """Points that the finger reaches straight from outside, and inward normals, [K, 2] each, in the frame of the T."""
    points, normals = [], []
    for centre, half in zip(centres, halves, strict=True):
        for axis in (0, 1):
            along = 1 - axis
            for sign in (-1.0, 1.0):
                for offset in np.arange(-half[along] + 0.004, half[along] - 0.0039, every):
                    point, normal = centre.copy(), np.zeros(2)
                    point[axis] += sign * half[axis]
                    point[along] += offset
                    normal[axis] = -sign
                    points.append(point)
                    normals.append(normal)
    found, inward = np.array(points), np.array(normals)
    outwards = found - inward * np.linspace(RADIUS + AWAY / 2, ROUND, 20)[:, None, None]
    reachable = (_distance(outwards, centres, halves) > CLEAR).all(0)
    return found[reachable], inward[reachable]


def _into(poses: np.ndarray, points: np.ndarray) -> np.ndarray:
    x, y = np.moveaxis(points - poses[..., :2], -1, 0)
    cosine, sine = np.cos(poses[..., 2]), np.sin(poses[..., 2])
    return np.stack([cosine * x + sine * y, cosine * y - sine * x], axis=-1)


def _out_of(poses: np.ndarray, points: np.ndarray) -> np.ndarray:
    x, y = np.moveaxis(points, -1, 0)
    cosine, sine = np.cos(poses[..., 2]), np.sin(poses[..., 2])
    moved: np.ndarray = poses[..., :2] + np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=-1)
    return moved
