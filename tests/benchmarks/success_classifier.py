"""How often a learned judge of success errs on a policy that it has never seen, against what the task knows.

    python tests/benchmarks/success_classifier.py runs/peg_success runs/peg --episodes 100

The policy runs to the horizon, also after success, from seeds that no recording takes. Counted are single steps up to
the task's first success, and episodes that would end with the first success that has held on for some steps: before the
task's own, without any, or never although the task was achieved.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from robot_rl import sim
from robot_rl.intervals import wilson
from robot_rl.policies import load_policy
from robot_rl.policies.checkpoint import load_provenance
from robot_rl.rl.success_detector import goes_on, persisted
from robot_rl.rollout import rollout
from robot_rl.seed import FIRST_EVALUATION_SEED
from robot_rl.success_classifier import SuccessClassifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("classifier", type=Path)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--execute", type=int, default=4)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    classifier, policy = SuccessClassifier.load(options.classifier), load_policy(options.policy)
    spec = goes_on(load_provenance(options.policy)["environment"])
    seen = classifier.policy.contract.cameras
    spec["cameras"] = {**spec["cameras"], **{name: list(camera.shape[:2]) for name, camera in seen.items()}}
    seeds = range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + options.episodes)
    truth, shown = [], []
    with sim.make_vector(spec, 20) as venv:
        classifier.check(venv.contract)
        for outcome in rollout(policy, venv, seeds, execute=options.execute, keep_observations=True):
            assert outcome.observations is not None
            truth.append(outcome.rewards > 0)
            shown.append(classifier({name: value[1:] for name, value in outcome.observations.items()}))
    result = {"classifier": str(options.classifier), "policy": str(options.policy), "episodes": options.episodes}
    result["achieved"] = sum(bool(each.any()) for each in truth)
    for persistence in (1, 2, 3, 5):
        result[f"persistence {persistence}"] = measure(truth, shown, persistence)
    print(json.dumps(result, indent=2))
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


def measure(truth: list[np.ndarray], shown: list[np.ndarray], persistence: int) -> dict:
    """Errors of the steps, [count, of, rate, its upper 95 % bound], and of the episodes."""
    false = steps = never = missed = 0
    delays = []
    for true, sees in zip(truth, shown, strict=True):
        count, held = np.zeros(1, np.int64), []
        for now in sees:
            count, enough = persisted(count, now[None], persistence)
            held.append(bool(enough[0]))
        claims = np.array(held)
        first, ended = (int(np.argmax(each)) if each.any() else len(true) for each in (true, claims))
        false, steps = false + int(claims[:first].sum()), steps + first
        never += ended < first == len(true)
        missed += first < ended == len(true)
        if max(first, ended) < len(true):
            delays.append(ended - first)
    low, median, high = (float(value) for value in np.quantile(delays, [0.1, 0.5, 0.9]))
    return {
        "false_steps": [false, steps, false / steps, wilson(false, steps)[1]],
        "episodes_ended_without_success": never,
        "episodes_missed": missed,
        "episodes_ended_earlier_than_the_task": sum(delay < 0 for delay in delays),
        "steps_later_than_the_task": {"10 %": low, "median": median, "90 %": high},
    }


if __name__ == "__main__":
    main()
