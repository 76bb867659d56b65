"""`robot-rl collect`: every attempt of an actor in simulation becomes an episode of a store.

Scripted experts act, or a policy; or recorded demonstrations are multiplied, replayed or rendered.

Worker processes simulate, one attempt for each seed; this process alone writes, in the order of the seeds, so that the
store does not depend on the number of workers. What was committed stays: run again, it goes on with the next seed.
Nothing is recorded of a simulation that diverged; its seed counts as tried, once in each run.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_rl import playback
from robot_rl.attempt import Actor, Attempt, describe, run_attempt, start_acting, start_worker, write
from robot_rl.datasets import Contract, EpisodeStore
from robot_rl.differences import differences
from robot_rl.interrupt import Interrupt
from robot_rl.seed import FIRST_EVALUATION_SEED
from robot_rl.sim import is_world, knows_success
from robot_rl.sim.spec import SpecError, family_of, resolve

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from robot_rl.side_by_side import SideBySide

TASK, EPISODES = "lift", 100
"""Where neither is given, nor follows from demonstrations."""

SIMULATED = ("expert", "policy", "dagger", "multiply", *playback.PLAYBACKS)
"""The sources that act in a simulation of this command's own."""

BELONGS = {
    "expert": ("expert", "dagger"),
    "noise": ("expert", "multiply"),
    "policy": ("policy", "dagger", "teleop"),
    "execute": ("policy", "dagger"),
    "demonstrations": ("multiply", *playback.PLAYBACKS),
    "until_success": ("expert", "policy", "dagger", "multiply"),
    "device": ("teleop",),
    "teleop": ("teleop",),
    **dict.fromkeys(("controller", "environment", "encoding", "sim_state", "workers"), SIMULATED),
}
"""The sources that a key applies to; all others apply to each."""


class CollectError(ValueError):
    """The recording cannot be made as asked; the message says what to do."""


def main(config: DictConfig) -> int:
    """Record until there are as many episodes as asked for. Returns the exit status."""
    from omegaconf import OmegaConf

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    plain.pop("hydra", None)
    if plain["source"] == "teleop":
        return _teleoperate(plain)
    spec, actor, seeds, workers = asked(plain)
    plain["task"] = spec["task"] if isinstance(spec["task"], str) else spec["task"]["name"]
    kind = "" if actor.source == "expert" else f"_{actor.source}"
    path = Path(plain["output"] or f"data/{plain['task']}{kind}.zarr")
    seeds.note(known := _recorded(path, spec, actor))
    if seeds.done:
        print(f"{path} already holds these {len(known)} episodes; nothing to do.")
        _summarise(path, actor, 0, 0.0)
        return _say_whether_followed(path, actor) if actor.source == "replay" else 0
    with (
        Interrupt("Stopping; finished attempts are kept. Press Ctrl-C again to stop at once.") as interrupt,
        _attempting(workers, spec, actor, seeds, interrupt) as (contract, state_size, attempts),
    ):
        if not path.exists() or not any(path.iterdir()):
            _create(path, contract, spec, actor, plain["encoding"], state_size if plain["sim_state"] else 0)
        started = time.perf_counter()
        steps = _record(path, attempts, plain, contract, spec, actor, seeds)
    _summarise(path, actor, steps, time.perf_counter() - started)
    if interrupt.requested:
        print("Stopped before all episodes were recorded; the same command goes on from here.")
    elif actor.source == "replay":
        return _say_whether_followed(path, actor)
    return interrupt.exit_status


@contextmanager
def _attempting(
    workers: int, spec: dict[str, Any], actor: Actor, seeds: _Seeds, interrupt: Interrupt
) -> Iterator[tuple[Contract, int, Iterator[Attempt]]]:
    """Contract, size of the simulator's state, and attempts: many in this process, or of arms one in each."""
    if is_world(spec) and actor.source in ("expert", "policy", "dagger"):
        from robot_rl.side_by_side import SideBySide

        copies = SideBySide(spec, actor)
        yield copies.contract, copies.state_size, _side_by_side(copies, seeds, interrupt)
    else:
        with _workers(workers, spec, actor) as pool:
            yield *_first(pool), _attempts(pool, seeds, interrupt)


def _record(
    path: Path, attempts: Iterator[Attempt], plain: dict[str, Any], contract: Contract, spec: dict[str, Any],
    actor: Actor, seeds: _Seeds,
) -> int:  # fmt: skip
    from tqdm import tqdm

    steps = 0
    with (
        EpisodeStore.append(path, contract) as writer,
        tqdm(
            total=seeds.wanted, initial=seeds.counted, desc=f"collect {plain['task']}", unit="episode", disable=None
        ) as bar,
    ):
        seeds.note(_recorded(path, spec, actor))  # another process may have recorded since this one looked
        for attempt in attempts:
            seeds.note({attempt.seed: attempt.success and not attempt.diverged})
            if attempt.diverged:
                tqdm.write(f"Nothing of seed {attempt.seed} is recorded: the simulation diverged.")
            else:
                write(writer, attempt, plain["task"], actor, plain["sim_state"])
                steps += len(attempt.actions)
            bar.n = seeds.counted
            bar.set_postfix(success=f"{seeds.successes / len(seeds.outcomes):.0%}")
    return steps


def _attempts(pool: ProcessPoolExecutor, seeds: _Seeds, interrupt: Interrupt) -> Iterator[Attempt]:
    """Attempts in the order of their seeds; no more are under way than the workers need to stay busy."""
    queue: deque[Future[Attempt]] = deque()
    upcoming = seeds.upcoming()
    ahead = 2 * (pool._max_workers or 1)  # type: ignore[attr-defined]
    while not seeds.done and not interrupt.requested:
        while len(queue) < ahead and (seed := next(upcoming, None)) is not None:
            with _unseen_interrupts():
                queue.append(pool.submit(run_attempt, seed))
        if not queue:
            return
        try:
            yield queue.popleft().result()
        except BrokenProcessPool as error:
            raise CollectError(
                "A simulation process was killed, perhaps for want of memory. Finished episodes are kept; "
                "run the same command again, with fewer workers=."
            ) from error
    for future in queue:
        future.cancel()


def _side_by_side(copies: SideBySide, seeds: _Seeds, interrupt: Interrupt) -> Iterator[Attempt]:
    for attempt in copies.attempts(seeds.upcoming):
        if seeds.done or interrupt.requested:
            return
        yield attempt


class _Seeds:
    """Which seeds are still to be tried. Counts attempts, or successes alone with `until_success`."""

    def __init__(self, first: int, wanted: int, until_success: bool) -> None:
        if wanted < 1:
            raise CollectError(f"episodes={wanted}: expected at least 1")
        if first < 0:
            raise CollectError(f"first_seed={first}: expected at least 0")
        if first + wanted > FIRST_EVALUATION_SEED:
            raise CollectError(
                f"first_seed={first} with episodes={wanted} reaches into the evaluation seeds "
                f"({FIRST_EVALUATION_SEED} and above), which no training may see; start lower. "
                "`robot-rl evaluate record=` records a policy there."
            )
        self.first, self.wanted, self.until_success = first, wanted, until_success
        self.outcomes: dict[int, bool] = {}

    def note(self, outcomes: dict[int, bool]) -> None:
        self.outcomes |= {seed: success for seed, success in outcomes.items() if self._mine(seed)}

    @property
    def successes(self) -> int:
        return sum(self.outcomes.values())

    @property
    def counted(self) -> int:
        return self.successes if self.until_success else len(self.outcomes)

    @property
    def done(self) -> bool:
        return self.counted >= self.wanted

    def upcoming(self) -> Iterator[int]:
        seed = self.first
        while self._mine(seed):
            if seed not in self.outcomes:
                yield seed
            seed += 1

    def _mine(self, seed: int) -> bool:
        return self.first <= seed < (FIRST_EVALUATION_SEED if self.until_success else self.first + self.wanted)


def asked(plain: dict[str, Any]) -> tuple[dict[str, Any], Actor, _Seeds, int]:
    """The environment, who acts in it, from which seeds, and in how many processes.

    Raises:
        CollectError, SpecError, PlaybackError: a key is wrong, or does not apply to the source.
    """
    _check_source(plain)
    spec, actor, episodes = _acted(plain)
    if plain["until_success"] and not knows_success(spec):
        raise CollectError(f"{spec['task']} knows no success: until_success=true would never end; leave it out")
    if (workers := (os.cpu_count() or 1) if plain["workers"] is None else plain["workers"]) < 1:
        raise CollectError(f"workers={workers}: expected at least 1, or null for one per core")
    wanted = episodes if plain["episodes"] is None else plain["episodes"]
    return spec, actor, _Seeds(plain["first_seed"], wanted, plain["until_success"]), workers


def check(plain: dict[str, Any]) -> None:
    """Raise what is wrong with a recording, before anything is made: also what its actor cannot do."""
    from robot_rl import sim

    spec, actor, _, _ = asked(plain)
    env = sim.make(spec)
    start_acting(env, actor)
    env.close()


def _check_source(plain: dict[str, Any]) -> None:
    from robot_rl.cli import compose

    if (source := plain["source"]) not in (*SIMULATED, "teleop"):
        raise CollectError(f"source={source}: expected {', '.join(SIMULATED)} or teleop")
    defaults = compose("collect", [])
    for key, sources in BELONGS.items():
        if source not in sources and plain[key] != defaults[key]:
            raise CollectError(f"{key}={plain[key]} goes with source={' or '.join(sources)}, not {source}")


def _acted(plain: dict[str, Any]) -> tuple[dict[str, Any], Actor, int]:
    """The environment, who acts in it, and how many episodes are made where it is not said."""
    given = _environment(plain)
    if plain["source"] not in BELONGS["demonstrations"]:
        return resolve({"task": TASK, **given}), _actor(plain), EPISODES
    store = _demonstrations(plain)
    spec = resolve({"task": TASK, **playback.recorded_environment(store), **given})
    if plain["source"] == "multiply":
        return spec, _multiplying(plain, spec), EPISODES
    playback.check(store, spec, plain["source"])
    actor = Actor(plain["source"], demonstrations=str(store.path), redraw="randomization" in given)
    return playback.seen(spec) if plain["source"] == "render" else spec, actor, len(store.select())


def _multiplying(plain: dict[str, Any], spec: dict[str, Any]) -> Actor:
    from robot_rl.sim.multiplication import subtasks_of

    if not plain["noise"] >= 0:
        raise CollectError(f"noise={plain['noise']}: expected a number >= 0")
    subtasks_of(spec["task"])
    return Actor("multiply", plain["noise"], demonstrations=str(plain["demonstrations"]))


def _demonstrations(plain: dict[str, Any]) -> EpisodeStore:
    path, output = plain["demonstrations"], plain["output"]
    if not path:
        raise CollectError(f"source={plain['source']} needs demonstrations=<store of recorded episodes>")
    if not Path(path).is_dir():
        raise CollectError(f"demonstrations={path}: no such folder; give a store")
    if not output or Path(output).resolve() == Path(path).resolve():
        raise CollectError(f"source={plain['source']} needs output=<another store than the demonstrations>")
    return EpisodeStore.open(path)


def _environment(plain: dict[str, Any]) -> dict[str, Any]:
    keys = ("task", "robot", "controller", "cameras", "observation", "randomization")
    chosen = {key: plain[key] for key in keys if plain[key] is not None}
    further = plain["environment"] or {}
    if twice := chosen.keys() & further.keys():
        raise CollectError(f"{', '.join(sorted(twice))}: given as a key of its own and in environment=; give it once")
    return {**chosen, **further}


def _teleoperate(plain: dict[str, Any]) -> int:
    """The session of `robot-rl teleop` on the twin, in the words of this command; `teleop` holds its other keys."""
    from omegaconf import OmegaConf

    from robot_rl import teleop
    from robot_rl.cli import compose

    _check_source(plain)
    defaults: dict[str, Any] = OmegaConf.to_container(compose("teleop", []), resolve=True)  # type: ignore[assignment]
    defaults.pop("hydra", None)
    further = plain["teleop"] or {}
    if unknown := further.keys() - defaults.keys():
        raise CollectError(
            f"teleop: no key {', '.join(sorted(unknown))}; the keys are those of `robot-rl teleop --help`"
        )
    keys = ("task", "robot", "randomization", "cameras", "observation", "policy", "episodes", "first_seed")
    named: dict[str, Any] = {"task": TASK, "episodes": EPISODES}
    named |= {key: plain[key] for key in keys if plain[key] is not None}
    if family_of(named) == "drone":
        named = {"robot": "px4"} | named
    output = plain["output"] or f"data/{named['task']}_teleop"
    return teleop.run(
        defaults | {"twin": True} | named | {"output": output, "device": plain["device"] or "keyboard"} | further
    )


def _actor(plain: dict[str, Any]) -> Actor:
    if plain["source"] == "expert":
        if not 0 <= plain["noise"] < float("inf"):
            raise CollectError(f"noise: expected a number >= 0, got {plain['noise']}")
        return Actor("expert", noise=plain["noise"], expert=plain["expert"])
    if not plain["policy"]:
        raise CollectError(f"source={plain['source']} needs policy=<run or checkpoint folder>")
    if not Path(plain["policy"]).is_dir():
        raise CollectError(f"policy={plain['policy']}: no such folder; give a run or checkpoint folder")
    return Actor(plain["source"], policy=str(plain["policy"]), execute=plain["execute"], expert=plain["expert"])


@contextmanager
def _workers(number: int, spec: dict[str, Any], actor: Actor) -> Iterator[ProcessPoolExecutor]:
    # Spawned, because a forked copy of a process with OpenGL or OpenMP threads in it may hang.
    pool = ProcessPoolExecutor(number, get_context("spawn"), start_worker, (spec, actor, os.getpid()))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _unseen_interrupts() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, which reaches all of a terminal: this one decides what it means."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _first(pool: ProcessPoolExecutor) -> tuple[Contract, int]:
    try:
        with _unseen_interrupts():
            described = pool.submit(describe)
        contract, state_size = described.result()
    except BrokenProcessPool as error:
        raise CollectError("a simulation process died at its start, perhaps for want of memory") from error
    return Contract.from_dict(contract), state_size


def _as_now(recorded: dict[str, Any]) -> dict[str, Any]:
    """The environment of a store with what is said of it today: keys that came later have their defaults."""
    try:
        return resolve(recorded)
    except SpecError:
        return recorded


def _recorded(path: Path, spec: dict[str, Any], actor: Actor) -> dict[int, bool]:
    """The success of each seed that the actor has in the store, which must come from the same environment."""
    if not path.exists() or not any(path.iterdir()):
        return {}
    store = EpisodeStore.open(path)
    there = store.provenance.get("environment")
    if there is not None and (different := differences(_as_now(there), json.loads(json.dumps(spec)))):
        lines = "\n".join(f"  - {line}" for line in different)
        raise CollectError(
            f"{path} was recorded in another environment (there against asked):\n{lines}\n"
            "Choose another output=, or ask for the same environment."
        )
    played = actor.source in playback.PLAYBACKS
    mine = store.select(played=actor.source) if played else store.select(source=actor.source, played=None)
    facts = [store.facts(index) for index in mine]
    if others := sorted({each.get("demonstrations", "") for each in facts} - {actor.demonstrations}):
        raise CollectError(
            f"{path} holds episodes made of {', '.join(others)}, not of {actor.demonstrations}. Choose another output=."
        )
    if (now := actor.settings) and (other := [was for each in facts if (was := _settings_of(each, now)) != now]):
        lines = "\n".join(f"  - {line}" for line in differences(other[0], now))
        raise CollectError(
            f"{path} holds episodes of the {actor.source} with other settings (there against asked):\n{lines}\n"
            "Choose another output=; `robot-rl data merge` makes one store of both."
        )
    return {each["seed"]: bool(each["success"]) for each in facts}


def _settings_of(facts: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """With what settings an episode was made; of what earlier versions did not note, those of now."""
    was = {key: facts.get(key, None if key == "expert" else now[key]) for key in now}
    if "policy" in was and Path(was["policy"]).resolve() == Path(now["policy"]).resolve():
        was["policy"] = now["policy"]
    return was


def _create(
    path: Path, contract: Contract, spec: dict[str, Any], actor: Actor, encoding: str, state_size: int
) -> None:  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    source = {"source": actor.source, **actor.describe()}
    EpisodeStore.create(
        path, contract, {"environment": spec, "actor": source}, encoding=encoding, sim_state_size=state_size
    )


def _summarise(path: Path, actor: Actor, steps: int, seconds: float) -> None:
    store = EpisodeStore.open(path)
    succeeded = len(store.select(success=True))
    size = sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())
    print(
        f"{path}: {len(store)} episodes, {succeeded} successful ({succeeded / max(1, len(store)):.1%}), "
        f"{store.num_rows} rows, {size / 1e6:.1f} MB"
    )
    if steps:
        print(f"recorded {steps} steps of the {actor.source} in {seconds:.1f} s: {steps / seconds:.0f} steps/s")


def _say_whether_followed(path: Path, actor: Actor) -> int:
    """Print how far the replayed episodes strayed. The exit status is 1 if one did in the scene it was recorded in."""
    store = EpisodeStore.open(path)
    strayed = {store.facts(index)["source_episode"]: store.facts(index) for index in store.select(played="replay")}
    deviations = np.array([facts["deviation"] for facts in strayed.values()])
    apart = [str(index) for index, facts in sorted(strayed.items()) if not facts["followed"]]
    print(
        f"{len(strayed) - len(apart)} of {len(strayed)} replayed episodes went as recorded "
        f"(largest deviation {deviations.max():.2g} m or rad)"
    )
    if actor.redraw or not apart:
        return 0
    print(f"These do not: {', '.join(apart)}. They were recorded by another version, or the store was changed.")
    return 1
