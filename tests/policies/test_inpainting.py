"""Prefixes, through the policy that applies them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.datasets import Contract, Feature
from robot_rl.policies import OnnxPolicy, Policy, PolicyError, Prefix, build_policy, export_policy
from robot_rl.policies.ddim import DDIM
from robot_rl.policies.ddpm import DDPM
from robot_rl.policies.denoiser import Shapes
from robot_rl.policies.flow_matching import FlowMatching
from robot_rl.policies.inpainting import Inpainting
from robot_rl.policies.process import Process

TRAINED = {"probability": 0.7, "max_length": 4}
SHAPES = Shapes(4, 2, 1, 1)


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
    given = prefix([0, 1, 3, 4 if trained else 8, 2], weight=0.5)
    for guidance in (None, 5.0) if process != "gaussian" else (None,):
        chunk = policy.sample(context, n=3, prefix=given, generator=seeded(), steps=3, guidance=guidance).numpy()
        assert np.isfinite(chunk).all()
        for row, length in enumerate(given.length):
            assert (chunk[row, :, :length] == given.actions[row, :length]).all()
            assert length == 8 or not (chunk[row, 0, length] == chunk[row, 1, length]).all() or process == "gaussian"


@pytest.mark.parametrize("process", ["flow_matching", "ddpm", "ddim", "gaussian"])
def test_an_empty_prefix_changes_nothing(process: str, make_policy: Any, make_batch: Any) -> None:
    policy = make_policy(process).eval()
    context = policy.encode(make_batch(policy)["observation"])
    noise = torch.randn(5, 1, 8, 4, generator=seeded())
    free = policy.sample(context, noise=noise, generator=seeded(1))
    for guidance in (None, 5.0) if process != "gaussian" else (None,):
        held = policy.sample(context, noise=noise, generator=seeded(1), prefix=prefix([0] * 5), guidance=guidance)
        assert free.equal(held)


def test_what_lies_beyond_the_prefix_may_be_anything(make_policy: Any, make_batch: Any) -> None:
    policy = make_policy().eval()
    context = policy.encode(make_batch(policy)["observation"])
    noise = torch.randn(5, 1, 8, 4, generator=seeded())
    clean, dirty = prefix([2] * 5), prefix([2] * 5)
    dirty.actions[:, 2:] = np.nan
    assert policy.sample(context, noise=noise, prefix=clean).equal(policy.sample(context, noise=noise, prefix=dirty))


@pytest.mark.parametrize("steps", [1, 3, 10, 40])
@pytest.mark.parametrize(
    "process",
    [
        FlowMatching(SHAPES),
        DDIM(SHAPES, train_steps=40, prediction="sample"),
        DDIM(SHAPES, train_steps=40, eta=1.0, prediction="sample", clip_sample=False),
        DDPM(SHAPES, steps=40, train_steps=40, prediction="sample"),
        DDIM(SHAPES, train_steps=40),
    ],
    ids=["flow", "ddim", "ddim stochastic", "ddpm", "ddim epsilon"],
)
def test_a_weight_is_the_targets_share_whatever_the_number_of_steps(process: Process, steps: int) -> None:
    """A network that always predicts the same chunk: the weights must not add up over the steps."""
    believed, target = torch.full((1, 4, 2), 0.5), torch.full((1, 4, 2), -0.3)
    weight = torch.tensor([1.0, 0.5, 0.1, 0.0])[None, :, None]
    held = Inpainting(target, weight, weight == 1, clean=False)

    def network(x: torch.Tensor, time: torch.Tensor, context: torch.Tensor, known: Any = None) -> torch.Tensor:
        if isinstance(process, FlowMatching):
            return (believed - x) / (1 - time[:, None, None] / 100)
        if process.prediction == "sample":
            return believed
        alpha = process.alphas[time.long()][:, None, None]
        return (x - alpha.sqrt() * believed) / (1 - alpha).sqrt()

    noise = torch.randn(1, 4, 2, generator=seeded())
    chunk = process.sample(network, torch.zeros(1, 1, 1), noise, steps, held, seeded())  # type: ignore[arg-type]
    torch.testing.assert_close(chunk, torch.lerp(believed, target, weight), atol=2e-5, rtol=0)


@pytest.mark.parametrize("trained", [False, True])
def test_weights_pull_towards_the_given_actions(trained: bool, make_policy: Any, make_batch: Any) -> None:
    policy = make_policy(clip_actions=False, **({"prefix": TRAINED} if trained else {})).eval()
    context = policy.encode(make_batch(policy)["observation"])
    noise = torch.randn(5, 1, 8, 4, generator=seeded())
    distance = []
    for weight in (0.0, 0.3, 0.6, 1.0):
        given = prefix([1] * 5, weight)
        chunk = policy.sample(context, noise=noise, prefix=given)[:, 0]
        target = policy.action_normalizer.normalize(torch.from_numpy(given.actions))
        distance.append(float((policy.action_normalizer.normalize(chunk) - target)[:, 1:].abs().mean()))
    assert distance == sorted(distance, reverse=True)
    assert distance[1] > 0.3 * distance[0]
    assert distance[-1] < 1e-4


@pytest.mark.parametrize(
    ("signal", "share", "expected"), [(0.0, 1.0, 4.0), (0.5, 0.5, 2.0), (0.9, 0.1, 4.0), (0.8, 0.6, 1 / 0.48)]
)
def test_guidance_is_the_weighted_error_pulled_back_through_the_network(
    signal: float, share: float, expected: float
) -> None:
    """For a linear network the pull is a matrix product; the weight is (1 - τ) / (τ r²), clipped, times 1 - τ."""
    matrix = torch.randn(8, 8, generator=seeded())
    x, target = torch.randn(2, 3, 4, 2, generator=seeded(1))
    weight = torch.tensor([1.0, 0.6, 0.2, 0.0])[None, :, None]
    held = Inpainting(target, weight, weight == 1, clean=False, guidance=4.0)
    with torch.no_grad():
        shown, output, correction = held.predict(
            lambda x: (-x, (x.flatten(1) @ matrix.T).unflatten(1, (4, 2))), x, signal, share
        )
    clean = (x.flatten(1) @ matrix.T).unflatten(1, (4, 2))
    pull = ((weight * (target - clean)).flatten(1) @ matrix).unflatten(1, (4, 2))
    torch.testing.assert_close(correction, share * expected * pull)
    assert shown.equal(x)
    assert output.equal(-x)
    assert not correction.requires_grad


@pytest.mark.parametrize("name", ["flow", "ddim"])
def test_guidance_moves_the_free_actions_to_their_conditional_mean(name: str) -> None:
    """Chunks from a normal distribution, whose exact denoiser and conditional distribution are known."""
    mean, covariance = torch.tensor([0.2, -0.1, 0.1]), torch.tensor([[1.0, 0.9, 0.5], [0.9, 1.0, 0.7], [0.5, 0.7, 1.0]])
    shapes = Shapes(3, 1, 1, 1)
    process = FlowMatching(shapes) if name == "flow" else DDIM(shapes, clip_sample=False)

    def network(x: torch.Tensor, time: torch.Tensor, context: torch.Tensor, known: Any = None) -> torch.Tensor:
        t = float(time[0])
        signal = t / 100 if name == "flow" else float(process.alphas[int(t)]) ** 0.5
        share = 1 - signal if name == "flow" else (1 - signal**2) ** 0.5
        gain = signal * covariance @ torch.linalg.inv(signal**2 * covariance + share**2 * torch.eye(3))
        clean = mean + (x[..., 0] - signal * mean) @ gain.T
        epsilon = (x[..., 0] - signal * clean) / share
        return (clean - epsilon if name == "flow" else epsilon).unsqueeze(-1)

    known = torch.tensor([1.2, 0.0, 0.0])[None, :, None].expand(2000, 3, 1)
    weight = torch.tensor([1.0, 0.0, 0.0])[None, :, None].expand(2000, 3, 1)
    held = Inpainting(known, weight, weight == 1, clean=False, guidance=1e3)
    noise = torch.randn(2000, 3, 1, generator=seeded())
    chunk = process.sample(network, torch.zeros(2000, 1, 1), noise, 100, held, None)[..., 0]  # type: ignore[arg-type]
    conditional = mean[1:] + covariance[1:, 0] * (1.2 - mean[0])
    torch.testing.assert_close(chunk[:, 1:].mean(dim=0), conditional, atol=0.1, rtol=0)
    assert (chunk[:, 1:].std(dim=0) < torch.tensor([0.65, 1.0])).all()


def test_guidance_needs_no_training_with_a_prefix_and_has_no_longest_one(make_policy: Any, make_batch: Any) -> None:
    for settings in ({}, {"prefix": TRAINED}):
        policy = make_policy(**settings).eval()
        context = policy.encode(make_batch(policy)["observation"])
        noise = torch.randn(5, 1, 8, 4, generator=seeded())
        free, guided = (
            policy.sample(context, noise=noise, prefix=given, guidance=5.0) for given in (None, prefix([6] * 5, 0.5))
        )
        assert not free[:, :, 6:].equal(guided[:, :, 6:])
        assert all(parameter.grad is None for parameter in policy.parameters())


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


def test_a_prefix_longer_than_in_training_is_refused(make_policy: Any, make_batch: Any, tmp_path: Path) -> None:
    policy = make_policy(prefix=TRAINED).eval()
    observation = make_batch(policy)["observation"]
    with pytest.raises(PolicyError, match=r"at most 4 committed actions.*got 5; train with policy.prefix.max_length=5"):
        policy.sample(policy.encode(observation), prefix=prefix([0, 1, 5, 0, 0]))
    runtime = OnnxPolicy(export_policy(policy, tmp_path))
    assert runtime.prefix_max_length == policy.prefix_max_length == 4
    context = runtime.encode({name: value.numpy() for name, value in observation.items()})
    with pytest.raises(PolicyError, match="at most 4 committed actions"):
        runtime.sample(context, prefix=prefix([0, 1, 5, 0, 0]))
    with pytest.raises(PolicyError, match="no gradients"):
        runtime.sample(context, prefix=prefix([1] * 5), guidance=5.0)


def test_guidance_that_is_impossible_is_refused(make_policy: Any, make_batch: Any) -> None:
    gaussian, flow = make_policy("gaussian").eval(), make_policy().eval()
    observation = make_batch(flow)["observation"]
    with pytest.raises(PolicyError, match="no denoising steps to guide"):
        gaussian.sample(gaussian.encode(observation), prefix=prefix([1] * 5), guidance=5.0)
    with pytest.raises(PolicyError, match="guidance: expected a positive number, got 0"):
        flow.sample(flow.encode(observation), prefix=prefix([1] * 5), guidance=0.0)


def test_shown_and_finish() -> None:
    target, x = torch.ones(1, 3, 2), torch.zeros(1, 3, 2)
    committed = torch.tensor([True, False, False])[None, :, None]
    weight = torch.tensor([1.0, 0.5, 0.0])[None, :, None]
    for clean, first in ((True, 1.0), (False, 0.0)):
        held = Inpainting(target, weight, committed, clean)
        assert held.shown(x)[0, :, 0].tolist() == [first, 0, 0]
        assert held.finish(x)[0, :, 0].tolist() == [1, 0, 0]
        assert (held.known is not None) == clean


BRANCH = (0.4 + 0.06 * np.arange(1, 9, dtype=np.float32))[:, None]


@pytest.fixture(scope="module")
def fork() -> Policy:
    """A policy for a fork: from the same observation, chunks go along BRANCH or along its mirror image."""
    features = {"x": Feature("x", (1,))}, {"target": Feature("target", (1,), kind="action")}
    config = {
        "obs_horizon": 1, "action_horizon": 8, "denoiser": {"name": "mlp", "width": 64, "depth": 2},
        "prefix": {"probability": 0.5, "max_length": 4},
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    policy = build_policy(
        config, Contract("fork", 10.0, *features, "none"), {name: _Range() for name in ("x", "action")}
    )
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, 800)
    for _ in range(800):
        side = torch.randint(2, (256, 1, 1), generator=generator) * 2.0 - 1.0
        batch = {"observation": {"x": torch.zeros(256, 1, 1)}, "action": side * torch.from_numpy(BRANCH)}
        optimizer.zero_grad()
        policy.loss(batch, generator=generator).backward()
        optimizer.step()
        schedule.step()
    return policy.eval()


class _Range:
    """Statistics of a feature that fills [-1, 1]."""

    count, mean, std, min, max = 10, np.zeros(1), np.ones(1), -np.ones(1), np.ones(1)

    def quantile(self, q: float) -> np.ndarray:
        return self.min + q * (self.max - self.min)


@pytest.mark.parametrize("kind", ["torch", "onnx", "guided"])
def test_each_chunk_continues_its_own_prefix(fork: Policy, kind: str, tmp_path: Path) -> None:
    """One batch, with prefixes of either side and several lengths."""
    policy: Any = OnnxPolicy(export_policy(fork, tmp_path)) if kind == "onnx" else fork
    side, length = np.tile(np.array([-1, 1], np.float32), 90), np.repeat([2, 3, 4], 60)
    wanted = side[:, None, None] * BRANCH
    given = Prefix(wanted, np.full((180, 8), 0.5 if kind == "guided" else 0.0, np.float32), length)
    generator: Any = np.random.default_rng(0) if kind == "onnx" else seeded()
    context = policy.encode({"x": np.zeros((180, 1, 1), np.float32)})
    guidance = {"guidance": 5.0} if kind == "guided" else {}
    chunk = np.asarray(policy.sample(context, prefix=given, generator=generator, **guidance))[:, 0]
    same = np.sign(chunk[:, -1, 0]) == side
    beyond = np.arange(8) >= length[:, None]
    error = np.abs(chunk - wanted)[..., 0]
    assert (error[~beyond] == 0).all()
    assert same.mean() >= (0.95 if kind == "guided" else 1.0)
    assert error[beyond & same[:, None]].mean() < 0.03
    free = np.asarray(policy.sample(context, generator=generator))[:, 0, -1, 0]
    assert 0.35 < (np.sign(free) == side).mean() < 0.65
