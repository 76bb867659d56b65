"""`robot-rl classifier`: a judge of success that is learned from recorded episodes, with its errors measured.

Training, choosing the threshold and measuring each have episodes of their own. The output is a checkpoint folder of a
policy (`model.safetensors`, `policy.json`, `contract.json`, `provenance.json`) with two files more:

```
success.json    threshold, measured rates of false positives and recall
config.yaml     the composed configuration
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml

from robot_rl.atomic_folder import recover, replace_folder
from robot_rl.datasets import Contract
from robot_rl.datasets.statistics import Statistics, merge, summarise
from robot_rl.optimizer import build_optimizer, set_learning_rate, warmup_cosine
from robot_rl.policies import Policy, save_policy
from robot_rl.processes import find_device
from robot_rl.provenance import provenance
from robot_rl.success_classifier import (
    FILE,
    SUCCESS,
    ClassifierError,
    Judgement,
    Rate,
    Scores,
    choose_threshold,
    scores,
)  # fmt: skip
from robot_rl.success_labels import (
    LabelledEpisode,
    LabelledRows,
    common_contract,
    divide,
    label,
    label_all,
    rows_of,
)  # fmt: skip

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(config: DictConfig) -> int:
    """Train and measure. Returns the exit status."""
    from omegaconf import OmegaConf

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    plain.pop("hydra", None)
    _check(plain)
    marked, shown, missed = (_paths(plain[key]) for key in ("dataset", "successes", "failures"))
    if not (marked or shown):
        raise ClassifierError(
            "dataset= is missing: give an episode store whose episodes are marked as success or failure"
        )
    named = Path((marked or shown)[0]).stem
    output = Path(plain["output"] or f"runs/classifier/{named}-seed{plain['seed']}")
    _check_output(output, plain["overwrite"])
    episodes = [each for path in marked for each in label(path, plain["positives"], plain["margin"])]
    episodes += [each for path in shown for each in label_all(path, success=True)]
    episodes += [each for path in missed for each in label_all(path, success=False)]
    half = plain["held_out"] / 2
    choosing, measuring, training = divide(episodes, [half, half], plain["seed"])
    torch.set_num_threads(plain["threads"])
    torch.manual_seed(plain["seed"])
    policy = new_classifier(plain["network"], common_contract(episodes), plain["observation"])
    policy = policy.to(find_device(plain["device"]))
    positive, negative = rows_of(training, positive=True), rows_of(training, positive=False)
    if not len(negative):
        raise ClassifierError("no observation without success is left to learn from; record failures, or lower margin=")
    print(
        f"{output}: {sum(value.numel() for value in policy.parameters()) / 1e6:.2f} M parameters, "
        f"{len(positive)} observations with success and {len(negative)} without, of {len(training)} episodes; "
        f"{len(choosing)} to choose the threshold, {len(measuring)} to measure"
    )
    fit(policy, positive, negative, plain["training"], plain["seed"])
    judgement = judge(policy, choosing, measuring, float(plain["false_positive_rate"]))

    def write(folder: Path) -> None:
        stores = sorted({str(episode.store.path) for episode in episodes})
        save_policy(policy, folder, {**provenance(), "stores": stores, "seed": plain["seed"]})
        judgement.write(folder)
        (folder / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))

    output.parent.mkdir(parents=True, exist_ok=True)
    replace_folder(output, write)
    print(_say(judgement, sum(len(episode.negative) for episode in choosing)))
    print(f"Use it: robot-rl finetune success=classifier success.path={output}")
    return 0


def new_classifier(network: Mapping[str, Any], contract: Contract, observation: Sequence[str] | None) -> Policy:
    """A policy with random weights, whose action is the probability of success in the one observation it sees."""
    config = {
        **network, "observation": observation, "obs_horizon": 1, "action_horizon": 1, "process": {"name": "bernoulli"},
        "normalizer": {**network["normalizer"], "action": "none"},
    }  # fmt: skip
    return Policy(config, replace(contract, action={"success": SUCCESS}))


def fit(policy: Policy, positive: LabelledRows, negative: LabelledRows, training: Mapping[str, Any], seed: int) -> None:
    """Train on batches of which one half shows success; leaves the policy in evaluation mode.

    Raises:
        ClassifierError: the loss is not finite.
    """
    from tqdm import tqdm

    names, steps, half = list(policy.contract.observation), int(training["steps"]), int(training["batch_size"]) // 2
    states = policy.encoder.states
    if states:
        known = _statistics((positive, negative), states)
        modes, features = policy.config["normalizer"], policy.contract.observation
        policy.encoder.normalizer.fit([features[name] for name in states], known, modes["observation"])
    optimizer = build_optimizer(
        policy, float(training["learning_rate"]), weight_decay=float(training["weight_decay"])
    )  # fmt: skip
    draw, generator = np.random.default_rng(seed), torch.Generator(policy.device).manual_seed(seed)
    labels = torch.cat([torch.ones(half), torch.zeros(half)])[:, None, None]
    policy.train()
    bar = tqdm(range(steps), desc="classifier", unit="step", disable=None)
    for step in bar:
        drawn = [part.read(names, draw.integers(len(part), size=half)) for part in (positive, negative)]
        observation = {name: np.concatenate([part[name] for part in drawn]) for name in names}
        set_learning_rate(optimizer, warmup_cosine(step, steps, 0))
        optimizer.zero_grad(set_to_none=True)
        loss = policy.loss({"observation": observation, "action": labels}, generator=generator)
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            value = float(loss.detach())
            if not np.isfinite(value):
                raise ClassifierError(f"the loss is not finite after {step} steps; lower training.learning_rate")
            bar.set_postfix(loss=f"{value:.3g}", refresh=False)
    policy.eval()


def judge(
    policy: Policy, choosing: Sequence[LabelledEpisode], measuring: Sequence[LabelledEpisode], wanted: float
) -> Judgement:
    """The threshold from some held-out episodes, the rate of false positives on others, and the recall on both.

    Raises:
        ClassifierError: one of them has no observation without success.
    """
    negatives = [score_rows(policy, rows_of(part, positive=False)) for part in (choosing, measuring)]
    if not len(negatives[1]):
        raise ClassifierError("no observation without success is left to measure on; record failures, or lower margin=")
    threshold = choose_threshold(negatives[0], wanted)
    positives = score_rows(policy, rows_of([*choosing, *measuring], positive=True))
    return Judgement(threshold, wanted, Rate.of(negatives[1] >= threshold), Rate.of(positives >= threshold))


def score_rows(policy: Policy, rows: LabelledRows, size: int = 256) -> Scores:
    """Probability of success in each row, [n]."""
    found = [scores(policy, batch) for batch in rows.batches(list(policy.contract.observation), size)]
    return np.concatenate([np.zeros(0), *found])


def _statistics(parts: Sequence[LabelledRows], names: Sequence[str]) -> list[Statistics]:
    """Of each state over all rows."""
    every = [part.read(names, np.arange(len(part))) for part in parts]
    rows = {name: np.concatenate([part[name] for part in every]) for name in names}
    return [
        merge({key: value[None] for key, value in summarise(rows[name].reshape(len(rows[name]), -1)).items()})
        for name in names
    ]


def _say(judgement: Judgement, chosen_by: int) -> str:
    lines = [
        f"Threshold {judgement.threshold:.4g}.",
        f"False positives per step, on episodes that had no part in it: {judgement.false_positives}.",
        f"Recall, on all that were held out: {judgement.recall}.",
    ]
    if Rate.of(np.zeros(chosen_by, np.bool_)).high > judgement.wanted:
        lines.append(
            f"{chosen_by} observations without success are too few to be sure of {judgement.wanted:g}: the threshold "
            "lies above them all. Record more, or take a larger false_positive_rate."
        )
    return "\n".join(lines)


def _paths(given: Any) -> list[str]:
    if given is None:
        return []
    return [str(path) for path in given] if isinstance(given, list) else [str(given)]


def _check(plain: Mapping[str, Any]) -> None:
    least = {"seed": 0, "threads": 1, "positives": 1, "margin": 0}
    problems = [
        f"{key}: expected at least {value}, got {plain[key]}" for key, value in least.items() if plain[key] < value
    ]
    for key in ("held_out", "false_positive_rate"):
        if not 0 < plain[key] < 1:
            problems.append(f"{key}: expected a number between 0 and 1, got {plain[key]}")
    for key, value in {"steps": 1, "batch_size": 2}.items():
        if plain["training"][key] < value:
            problems.append(f"training.{key}: expected at least {value}, got {plain['training'][key]}")
    if problems:
        raise ClassifierError("the configuration is not possible:\n" + "\n".join(f"  - {line}" for line in problems))


def _check_output(output: Path, overwrite: bool) -> None:
    recover(output)
    if not output.exists():
        return
    if not (output / FILE).is_file():
        if any(output.iterdir()):
            raise ClassifierError(f"{output} holds something else than a classifier of success; choose another output=")
    elif not overwrite:
        raise ClassifierError(f"{output} holds a classifier already; choose another output=, or overwrite=true")
