"""Least squares whose standard errors hold where residuals resemble their neighbours, as those of gusts do.

The errors are the sandwich of Liang and Zeger (1986), over clusters of a second: J⁺ Σ (Jᵀr)(Jᵀr)ᵀ J⁺.
"""

from __future__ import annotations

import numpy as np

CLUSTER = 1.0
"""Within which residuals may be alike [s]."""
_TINY = 1e-12


def regression(matrix: np.ndarray, target: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients [K] of `matrix` [N, K] for `target` [N], their standard errors [K], and the residuals [N].

    Coefficients that the rows do not tell apart share what they explain; the others and their errors are not touched.

    Args:
        time: of each row [N] [s].
    """
    solution = np.linalg.lstsq(matrix, target, rcond=1e-9)[0]
    left = target - matrix @ solution
    return solution, np.sqrt(np.diag(covariance(matrix, left, time))), left


def covariance(jacobian: np.ndarray, left: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Of parameters [K, K], from the slopes [N, K] of what they predict and the residuals [N] at `time` [N] [s]."""
    scale = np.maximum(np.linalg.norm(jacobian, axis=0), _TINY)
    scaled = jacobian / scale
    cluster = np.floor((time - time.min()) / CLUSTER).astype(int)
    scores = np.zeros((cluster.max() + 1, jacobian.shape[1]))
    np.add.at(scores, cluster, scaled * left[:, None])
    bread = np.linalg.pinv(scaled.T @ scaled, rcond=1e-9, hermitian=True)
    few = len(scores) / max(len(scores) - jacobian.shape[1], 1)
    return np.asarray(few * bread @ (scores.T @ scores) @ bread / np.outer(scale, scale))
