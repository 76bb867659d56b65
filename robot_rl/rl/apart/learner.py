"""The learner when others act: waits for their episodes, makes the updates that are due, and publishes parameters.

For each control step that it receives it makes `update_ratio` updates, no more: it never runs ahead of what was
collected. Episodes that come meanwhile wait unacknowledged, and their actors with them. What the counts of a training
mean is therefore the same as without actors; only the parameters that acted are somewhat older.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robot_rl.recordings import Recordings
from robot_rl.rl.apart.messages import Arrays, MessageError, Welcome
from robot_rl.rl.apart.reception import Reception
from robot_rl.rl.apart.server import Server
from robot_rl.rl.collector import Episode
from robot_rl.rl.environments import Environments
from robot_rl.rl.off_policy import OffPolicySettings
from robot_rl.rl.off_policy_learner import OffPolicyLearner
from robot_rl.rl.off_policy_method import OffPolicyMethod
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.rl.success_detector import fared

PUBLISH = 10
"""Control steps whose updates are made between two publications."""
WAIT = 0.2
"""Seconds between two looks at whether to stop."""


class ApartLearner(OffPolicyLearner):
    """An `OffPolicyLearner` whose experience comes from actors.

    Args:
        name, algorithm, network: of the method, and of the policy that it was built on; see `Welcome`.
        success: where the success of actors comes from; see `Welcome`.
        host, port, secret: see `Server`; the secret is asked for when it opens.
        say: is told who comes, goes, and is refused.
        environments: say the contract, and are not stepped.

    Attributes:
        server: open within the `with` statement.
        stopping: whether to return from an iteration at once.
        watch: called while waiting; raises what ends the training.
    """

    def __init__(
        self, method: OffPolicyMethod, environments: Environments, settings: OffPolicySettings, store: Path,
        seed: int, first_seed: int = 0, demonstrations: Recordings | None = None,
        environment: Mapping[str, Any] | None = None, new: bool = False, *, name: str, algorithm: Mapping[str, Any],
        network: Mapping[str, Any], secret: Callable[[], bytes], host: str = "127.0.0.1", port: int = 0,
        say: Callable[[str], None] = print, success: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(method, environments, settings, store, seed, first_seed, demonstrations, environment, new)
        self._name, self._algorithm, self._network = name, dict(algorithm), dict(network)
        self._secret, self._host, self._port, self._say = secret, host, port, say
        self._success = dict(success or {"name": "task"})
        self.stopping: Callable[[], bool] = lambda: False
        self.watch: Callable[[], None] = lambda: None

    def __exit__(self, *exception: object) -> None:
        if self.finished:
            self._publish()
        self.server.close()
        super().__exit__(*exception)

    def load(self, folder: Path) -> dict[str, Any]:
        state = super().load(folder)
        self._publish()
        return state

    def _open(self) -> None:
        store = self.writer.store
        if "run" not in store.provenance:
            raise FinetuneError(
                f"{store.path} was begun by an older version, which named no training; go on with actors.count=0, or "
                "start again with overwrite=true"
            )
        self._reception = Reception(self.writer)
        welcome = Welcome(
            str(store.provenance["run"]), self._spec, self._name, self._algorithm, self._network,
            self.policy.contract.to_dict(), store.contract.to_dict(), self._success, self.execute, self._first_seed,
        )  # fmt: skip
        self.server = Server(
            self._host, self._port, self._secret(), welcome, store.contract, self._reception.received, self._say
        )
        if not len(store):  # actors of a training that goes on wait for what it has learned
            self._publish()

    def _collect(self, generator: torch.Generator) -> dict[str, float]:
        wanted = self.steps + self.settings.rollout_steps * self._environments.num_envs
        staleness: list[float] = []
        ended: list[tuple[bool, bool]] = []
        intervened, before, connected = 0, self.steps, 0
        if not self.server.answers:
            self._publish()
        while self.steps < wanted and not self.finished and not self.stopping():
            self.watch()
            connected = max(connected, self.server.connected)
            arrived = self.server.next(WAIT)
            if arrived is None:
                continue
            actor, recorded, answer = arrived
            try:
                number = self._reception.take(actor, recorded)
            except MessageError as error:
                answer.set_exception(error)
                continue
            answer.set_result(None)
            if number is None:
                continue
            episode = self.writer.store[number]
            self._finished(number, Episode(float(episode.reward.sum()), bool(episode.success), episode.length))
            intervened += int(episode.intervened.sum())
            if "task_success" in episode.facts:
                ended.append((bool(episode.success), bool(episode.facts["task_success"])))
            if "weights" in episode.facts:
                # Parameters of a life that was cut short may be of more updates than there are now.
                staleness.append(max(0.0, self.updates - float(episode.facts["weights"][1])))
            for _ in range(episode.length):
                self.steps += 1
                self._update(generator)
                if self.steps % PUBLISH == 0:
                    self._publish()
            self._publish()
        row = {"actors": float(connected), **fared(ended)}
        if staleness:
            row["staleness"] = float(np.mean(staleness))
        if self._intervener is not None and self.steps > before:
            row["intervention_rate"] = intervened / (self.steps - before)
        return row

    def _where(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {}, {}

    def _go_on(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        self.steps = max(int(state["steps"]), self.writer.store.num_steps)

    def _publish(self) -> None:
        arrays: Arrays = {name: value.detach().cpu().numpy().copy() for name, value in self.method.state_dict().items()}
        self.server.publish(self.updates, self.steps < self.settings.start_steps, self.finished, arrays)
