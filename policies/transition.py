"""Reverse transitions of diffusion, as plain arithmetic that torch tensors and NumPy arrays share.

ᾱ ("alpha") is the cumulative share of signal; the step after the last has ᾱ = 1.
"""

from __future__ import annotations

from typing import Any


def leading_timesteps(train_steps: int, steps: int) -> list[tuple[int, int]]:
    """Each denoising step as (diffusion step, the next one), evenly spaced from 0 up; -1 is the clean chunk."""
    if not 1 <= steps <= train_steps:
        raise ValueError(f"steps: expected 1 to {train_steps}, the steps of training; got {steps}")
    stride = train_steps // steps
    return [(k * stride, (k - 1) * stride if k else -1) for k in reversed(range(steps))]


def split_prediction(output: Any, x: Any, alpha: float, prediction: str) -> tuple[Any, Any]:
    """The clean chunk and the noise in the state `x`, from what the network gives (`epsilon` or `sample`)."""
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    if prediction == "epsilon":
        return (x - noise * output) / signal, output
    return output, (x - signal * output) / noise


def ddpm(clean: Any, x: Any, alpha: float, alpha_next: float) -> tuple[Any, float]:
    """Mean and deviation of the posterior of the forward process (Ho et al. 2020, equations 6 and 7)."""
    ratio = alpha / alpha_next
    to_clean = alpha_next**0.5 * (1 - ratio) / (1 - alpha)
    to_state = ratio**0.5 * (1 - alpha_next) / (1 - alpha)
    variance = (1 - alpha_next) / (1 - alpha) * (1 - ratio)
    return to_clean * clean + to_state * x, variance**0.5


def ddim(clean: Any, epsilon: Any, alpha: float, alpha_next: float, eta: float) -> tuple[Any, float]:
    """Mean and deviation of the implicit model (Song et al. 2021, equation 12)."""
    std = eta * ((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)) ** 0.5
    return alpha_next**0.5 * clean + max(1 - alpha_next - std**2, 0.0) ** 0.5 * epsilon, std
