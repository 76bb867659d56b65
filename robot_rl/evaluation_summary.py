"""What evaluations found, for the terminal: from the results that they write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def say_simulated(results: Mapping[str, Any]) -> str:
    """What `robot_rl.evaluate.simulate` found, in a few lines."""
    if "success_rate" not in results:
        return _say_returns(results)
    low, high = results["success_interval"]
    lines = [
        f"{results['policy']} on {results['environment']['task']}: {results['successes']} of {results['episodes']} "
        f"episodes succeed, {results['success_rate']:.1%} (95 % interval {low:.1%} to {high:.1%}), "
        f"in {results['seconds']:.0f} s"
    ]
    lines += _say_measured(results["metrics"])
    if (other := results["comparison"]) is not None:
        low, high = other["success_interval"]
        lines.append(
            f"{other['policy']} on the same seeds: {other['success_rate']:.1%} ({low:.1%} to {high:.1%}); only the "
            f"first succeeds in {other['only_first']}, only the second in {other['only_second']} "
            f"(exact McNemar p = {other['p_value']:.3g})"
        )
        lines += _say_differences(other)
    return "\n".join(lines)


def say_offline(results: Mapping[str, Any]) -> str:
    """What `robot_rl.evaluate.offline` found, in a line or two."""
    lines = [
        f"{results['policy']} on {results['dataset']} ({results['described']}): action error "
        f"{results['offline_action_error']:.3f}, repeating the last action {results['hold_baseline_error']:.3f} "
        "(in deviations of the recorded actions)"
    ]
    if results["shift"] is not None:
        beyond = results["shift"]["mahalanobis"]["beyond_training"]
        lines.append(f"{beyond:.1%} of its observations lie beyond where 1 % of those in training do")
    return "\n".join(lines)


def _say_measured(metrics: Mapping[str, float | Mapping[str, int]]) -> list[str]:
    """A line of means, and one for each metric that is a name, its most frequent values first."""
    means = [f"{name} {value:.3g}" for name, value in metrics.items() if not isinstance(value, Mapping)]
    lines = ["on average " + ", ".join(means)] if means else []
    for name, counts in metrics.items():
        if isinstance(counts, Mapping):
            lines.append(f"{name} " + ", ".join(f"{value} in {count}" for value, count in counts.items()))
    return lines


def _say_returns(results: Mapping[str, Any]) -> str:
    def around(interval: Sequence[float] | None) -> str:
        return "" if interval is None else f" (95 % interval {interval[0]:.4g} to {interval[1]:.4g})"

    lines = [
        f"{results['policy']} on {results['environment']['task']}: return {results['mean_return']:.4g}"
        f"{around(results['return_interval'])} over {results['episodes']} episodes, in {results['seconds']:.0f} s"
    ]
    lines += _say_measured({name: value for name, value in results["metrics"].items() if name != "return"})
    if (other := results["comparison"]) is not None:
        test = "" if other["p_value"] is None else f", paired t-test p = {other['p_value']:.3g}"
        lines.append(
            f"{other['policy']} on the same seeds: return {other['mean_return']:.4g}"
            f"{around(other['return_interval'])}; the first returns {other['difference']:+.4g}"
            f"{around(other['difference_interval'])} against it{test}"
        )
        lines += _say_differences(other)
    return "\n".join(lines)


def _say_differences(other: Mapping[str, Any]) -> list[str]:
    """What makes the comparison one of environments, too."""
    found = other.get("environment_differences")
    return (
        ["their environments differ, so this compares policies and environments: " + "; ".join(found)] if found else []
    )
