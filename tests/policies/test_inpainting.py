"""Prefixes, through the policy that applies them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.policies import Policy, PolicyError, Prefix
from robot_rl.policies.inpainting import Inpainting

TRAINED = {"probability": 0.7, "max_length": 4}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prefix(length: list[int], weight: float = 0.0) -> Prefix:
    generator = np.random.default_rng(1)
    actions = generator.uniform(0.01, 0.07, (len(length), 8, 4)).astype(np.float32)
    return Prefix(actions, np.full((len(length), 8), weight, np.float32), np.array(length))


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("denoiser", ["mlp", "unet1d", "transformer"])
@pytest.mark.parametrize("process", ["flow_matching", "ddpm", "ddim", "gaussian"])
def test_committed_actions_are_kept_exactly(
    process: str, denoiser: str, trained: bool, make_policy: Any, make_batch: Any
) -> None:
    policy = make_policy(process, denoiser, **({"prefix": TRAINED} if trained else {})).eval()
    context = policy.encode(make_batch(policy)["observation"])
    given = prefix([0, 1, 3, 8, 2], weight=0.5)
    chunk = policy.sample(context, n=3, prefix=given, generator=seeded(), steps=3).numpy()
    for row, length in enumerate(given.length):
        assert (chunk[row, :, :length] == given.actions[row, :length]).all()
        assert length == 8 or not (chunk[row, 0, length] == chunk[row, 1, length]).all() or process == "gaussian"


@pytest.mark.parametrize("process", ["flow_matching", "ddpm", "ddim", "gaussian"])
def test_an_empty_prefix_changes_nothing(process: str, make_policy: Any, make_batch: Any) -> None:
    policy = make_policy(process).eval()
    context = policy.encode(make_batch(policy)["observation"])
    noise = torch.randn(5, 1, 8, 4, generator=seeded())
    free = policy.sample(context, noise=noise, generator=seeded(1))
    assert free.equal(policy.sample(context, noise=noise, generator=seeded(1), prefix=prefix([0] * 5)))


def test_what_lies_beyond_the_prefix_may_be_anything(make_policy: Any, make_batch: Any) -> None:
    policy = make_policy().eval()
    context = policy.encode(make_batch(policy)["observation"])
    noise = torch.randn(5, 1, 8, 4, generator=seeded())
    clean, dirty = prefix([2] * 5), prefix([2] * 5)
    dirty.actions[:, 2:] = np.nan
    assert policy.sample(context, noise=noise, prefix=clean).equal(policy.sample(context, noise=noise, prefix=dirty))


def test_weights_pull_towards_the_given_actions(make_policy: Any, make_batch: Any) -> None:
    policy = make_policy(clip_actions=False).eval()
    context = policy.encode(make_batch(policy)["observation"])
    noise = torch.randn(5, 1, 8, 4, generator=seeded())
    distance = []
    for weight in (0.0, 0.3, 0.6, 1.0):
        given = prefix([1] * 5, weight)
        chunk = policy.sample(context, noise=noise, prefix=given)[:, 0]
        target = policy.action_normalizer.normalize(torch.from_numpy(given.actions))
        distance.append(float((policy.action_normalizer.normalize(chunk) - target)[:, 1:].abs().mean()))
    assert distance == sorted(distance, reverse=True)
    assert distance[-1] < 0.5 * distance[0]


@pytest.mark.parametrize("process", ["flow_matching", "ddim"])
def test_the_prefix_shapes_the_rest_of_the_chunk(process: str, make_policy: Any, make_batch: Any) -> None:
    policy = make_policy(process, prefix=TRAINED).eval()
    context = policy.encode(make_batch(policy)["observation"])
    noise = torch.randn(5, 1, 8, 4, generator=seeded())
    free, held = (policy.sample(context, noise=noise, prefix=prefix([length] * 5)) for length in (0, 4))
    assert not free[:, :, 4:].equal(held[:, :, 4:])


@pytest.mark.parametrize("process", ["flow_matching", "ddpm", "gaussian"])
def test_training_shows_the_prefix_clean_and_leaves_it_out_of_the_loss(
    process: str, make_policy: Callable[..., Policy], make_batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(process, prefix={"probability": 0.5, "max_length": 4})
    batch = make_batch(policy, size=400)
    seen: list[torch.Tensor] = []
    original = policy.denoiser.forward

    def spy(x: torch.Tensor, time: torch.Tensor, context: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        seen.extend((x.detach(), known))
        return original(x, time, context, known)

    monkeypatch.setattr(policy.denoiser, "forward", spy)
    loss = policy.loss(batch, generator=seeded())
    x, known = seen
    lengths = known.sum(dim=1)
    assert known.equal((torch.arange(8) < lengths[:, None]).float())
    assert set(lengths.tolist()) == {0, 1, 2, 3, 4}
    assert 0.4 < float((lengths > 0).float().mean()) < 0.6
    clean = policy.action_normalizer.normalize(batch["action"])
    assert x[known > 0].equal(clean[known > 0])
    assert not (x == clean)[known == 0].any()

    def broken(x: torch.Tensor, time: torch.Tensor, context: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return original(x, time, context, known) + 1e3 * known.unsqueeze(-1)

    monkeypatch.setattr(policy.denoiser, "forward", broken)
    assert loss.equal(policy.loss(batch, generator=seeded()))


def test_wrong_shapes_are_refused(make_policy: Any, make_batch: Any) -> None:
    policy = make_policy().eval()
    context = policy.encode(make_batch(policy)["observation"])
    with pytest.raises(PolicyError, match=r"prefix.actions: expected shape \[5, 8, 4\], got \[4, 8, 4\]"):
        policy.sample(context, prefix=prefix([1] * 4))
    given = prefix([1] * 5)
    with pytest.raises(PolicyError, match=r"prefix.length: expected shape \[5\], got \[4\]"):
        policy.sample(context, prefix=Prefix(given.actions, given.weights, given.length[:4]))


def test_hold_and_finish() -> None:
    target, x, noised = torch.ones(1, 3, 2), torch.zeros(1, 3, 2), torch.full((1, 3, 2), 0.5)
    committed = torch.tensor([True, False, False])[None, :, None]
    weight = torch.tensor([1.0, 0.5, 0.0])[None, :, None]
    for clean, first in ((True, 1.0), (False, 0.5)):
        held = Inpainting(target, weight, committed, clean)
        assert held.hold(x, noised)[0, :, 0].tolist() == [first, 0.25, 0.0]
        assert held.finish(x)[0, :, 0].tolist() == [1, 0, 0]
        assert (held.known is not None) == clean
