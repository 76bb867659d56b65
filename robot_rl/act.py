"""`robot-rl act`: one actor of a learner that runs elsewhere, `robot-rl finetune … actors.listen=PORT`.

What it records lies in a store of its own before it is sent. Killed or cut off, the same command goes on: what the
learner has not acknowledged is sent again, and counted once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from robot_rl.datasets import Contract
from robot_rl.deployment import Stopped
from robot_rl.interrupt import Interrupt
from robot_rl.policies.checkpoint import CheckpointError
from robot_rl.rl.apart.actor import Actor, build
from robot_rl.rl.apart.link import Link
from robot_rl.rl.apart.messages import Welcome, same_rewards
from robot_rl.rl.apart.outbox import Outbox, open_store
from robot_rl.rl.apart.secret import VARIABLE, find
from robot_rl.rl.environments import Environments
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.success_classifier import ClassifierError
from robot_rl.success_source import SuccessSource

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(config: DictConfig) -> int:
    """Act until the training is finished. Returns the exit status."""
    from omegaconf import OmegaConf

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    host, port = _address(plain["learner"])
    for key in ("num_envs", "threads"):
        if plain[key] < 1:
            raise FinetuneError(f"{key}={plain[key]}: expected at least 1")
    secret = find(plain["secret"])
    if secret is None:
        raise FinetuneError(f"secret= is missing: give the learner's actors.secret, or set {VARIABLE}")
    torch.set_num_threads(plain["threads"])
    link, finished = Link(host, port, secret, say), False
    with Interrupt("Stopping after this step; what was recorded is kept. Ctrl-C again stops at once.") as interrupt:
        try:
            welcome = link.meet(lambda: interrupt.requested is not None)
            if welcome is None:
                return interrupt.exit_status
            source, method = _source(plain, welcome), build(welcome)
            with _environments(plain, welcome, source) as (environments, spec, asked):
                store = open_store(Path(plain["output"]), welcome.run, environments.contract, spec)
                outbox = Outbox(store)
                say(f"{store}: actor {outbox.actor}, {welcome.name} on {spec['task']} for {host}:{port}")
                with Actor(welcome, method, environments, store, link, lazy=_on_robot(plain), say=say) as actor:
                    link.join(outbox, environments.contract, source.plain["name"])
                    with suppress(Stopped):
                        finished = actor.act(lambda: interrupt.requested is not None or asked())
        finally:
            link.close()
    print("The training is finished." if finished else f"Stopped; the same command goes on with {store}.")
    return 0 if finished else interrupt.exit_status or 130


def say(text: str) -> None:
    """To the terminal, or the log, at once."""
    print(text, flush=True)


def _on_robot(plain: Mapping[str, Any]) -> bool:
    return bool(plain["ros"] or plain["twin"])


@contextmanager
def _environments(
    plain: Mapping[str, Any], welcome: Welcome, source: SuccessSource
) -> Iterator[tuple[Environments, dict[str, Any], Callable[[], bool]]]:
    """What is acted on, its specification, and whether somebody there wants the program to end."""
    from robot_rl import sim
    from robot_rl.sim.spec import resolve

    if not _on_robot(plain):
        given = {key: plain[key] for key in ("task", "robot", "controller", "randomization") if plain[key]}
        spec = source.stepped(resolve({**welcome.environment, **given, **(plain["environment"] or {})}))
        for key in ("task", "ends_at_success"):
            if key in welcome.environment and spec.get(key) != welcome.environment[key]:
                raise FinetuneError(
                    f"{key}: expected {welcome.environment[key]}, which the learner trains on, got {spec.get(key)}: "
                    "rewards of another task are not to be mixed with its own. Leave it out"
                )
        with (
            sim.make_vector(spec, plain["num_envs"], plain["processes"]) as made,
            source.surround(made, spec) as environments,
        ):
            yield environments, spec, lambda: False
        return
    from robot_rl.act_robot import check, open_robot

    check(plain, source.plain["name"], welcome.name)
    spec = source.stepped(resolve({**welcome.environment, **({"task": plain["task"]} if plain["task"] else {})}))
    contract = Contract.from_dict(welcome.recorded)
    with (
        open_robot(plain, spec, contract, source.plain["name"], say) as acted,
        source.surround(acted.environment, spec, acted.keys, knows=plain["twin"]) as environments,
    ):
        yield environments, spec, acted.stopping


def _source(plain: Mapping[str, Any], welcome: Welcome) -> SuccessSource:
    """Where success comes from here: as is asked for, else as at the learner.

    Raises:
        FinetuneError: it is not possible, or the learner's classifier is not here.
        MessageError: the learner would refuse it.
    """
    asked = plain.get("success")
    if asked:
        same_rewards(welcome.success["name"], asked["name"])
    try:
        return SuccessSource.load(asked or welcome.success, plain["num_envs"], torch.device("cpu"))
    except (ClassifierError, CheckpointError) as error:
        if asked:
            raise
        raise FinetuneError(
            f"the learner's classifier is not here: {error}\nGive success=classifier success.path=… of a copy"
        ) from error


def _address(learner: str | None) -> tuple[str, int]:
    host, _, port = (learner or "").rpartition(":")
    if not host or not port.isdigit():
        raise FinetuneError(f"learner={learner}: expected HOST:PORT, as the learner prints it")
    return host, int(port)
