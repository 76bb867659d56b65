import pytest
import torch

from robot_rl.policies.critic_ensemble import CriticEnsemble, least_of


def random_ensemble(members: int = 3, layer_norm: bool = True, seed: int = 0) -> CriticEnsemble:
    torch.manual_seed(seed)
    ensemble = CriticEnsemble(5, members, width=16, depth=2, layer_norm=layer_norm)
    for value in [*ensemble.gains, *ensemble.shifts]:
        torch.nn.init.normal_(value)
    return ensemble


@pytest.mark.parametrize("layer_norm", [False, True])
def test_each_member_is_a_network_of_its_own(layer_norm: bool) -> None:
    ensemble = random_ensemble(layer_norm=layer_norm)
    context, chunk = torch.randn(7, 3), torch.randn(7, 2)
    values = ensemble(context, chunk)
    for member in range(3):
        h = torch.cat([context, chunk], dim=1)
        for layer in range(3):
            h = h @ ensemble.weights[layer][member] + ensemble.biases[layer][member]
            if layer < 2:
                if layer_norm:
                    norm = torch.nn.LayerNorm(16)
                    norm.weight.data.copy_(ensemble.gains[layer][member, 0])
                    norm.bias.data.copy_(ensemble.shifts[layer][member, 0])
                    h = norm(h)
                h = h.relu()
        torch.testing.assert_close(values[member], h.squeeze(1))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_gradient_written_out_is_that_of_each_member(layer_norm: bool) -> None:
    ensemble = random_ensemble(layer_norm=layer_norm)
    context, chunk, share = torch.randn(7, 3), torch.randn(7, 2, requires_grad=True), torch.randn(3, 7)
    members = []
    for member in range(3):
        h = torch.cat([context, chunk], dim=1)
        for layer in range(3):
            h = h @ ensemble.weights[layer][member] + ensemble.biases[layer][member]
            if layer < 2 and layer_norm:
                h = torch.nn.functional.layer_norm(h, (16,))
                h = h * ensemble.gains[layer][member] + ensemble.shifts[layer][member]
            h = h.relu() if layer < 2 else h
        members.append(h.squeeze(1))
    every = [chunk, *ensemble.parameters()]
    wanted = torch.autograd.grad((share * torch.stack(members)).sum(), every)
    values, trace = ensemble.trace(context, chunk)
    torch.testing.assert_close(values, torch.stack(members).detach())
    written = [torch.empty_like(value) for value in ensemble.parameters()]
    trace.pull(share, written)
    automatic = torch.autograd.grad((share * ensemble(context, chunk)).sum(), every)
    for found in (automatic, [trace.slope(share, 2), *written]):
        for ours, expected in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_fixed_values_are_a_function_of_their_arguments_alone(layer_norm: bool) -> None:
    ensemble = random_ensemble(layer_norm=layer_norm)
    context, chunk = torch.randn(7, 3), torch.randn(7, 2, requires_grad=True)
    values, fixed = ensemble(context, chunk), ensemble.fixed(context, chunk)
    assert torch.equal(values, fixed)
    wanted = torch.autograd.grad(values.square().sum(), chunk)[0]
    fixed.square().sum().backward()
    torch.testing.assert_close(chunk.grad, wanted)
    assert all(value.grad is None for value in ensemble.parameters())


def test_layer_norm_bounds_what_is_said_of_actions_far_off() -> None:
    """|Q| <= |w| (|gain · LayerNorm| + |shift|) + |b|, with |LayerNorm| = sqrt(width): RLPD, section 4.2."""
    context = torch.zeros(1, 3)
    far = [1e6 * torch.nn.functional.normalize(torch.randn(1, 2), dim=1) for _ in range(50)]
    bounded, free = random_ensemble(), random_ensemble(layer_norm=False)
    w, b = bounded.weights[-1].norm(dim=(1, 2)), bounded.biases[-1].flatten().abs()
    gain, shift = bounded.gains[-1].abs().amax(dim=(1, 2)), bounded.shifts[-1].norm(dim=(1, 2))
    bound = w * (16**0.5 * gain + shift) + b
    assert all((bounded(context, action)[:, 0].abs() <= bound).all() for action in far)
    assert max(float(free(context, action).abs().max().detach()) for action in far) > 100 * float(bound.max().detach())


def test_the_least_is_of_a_subset_drawn_anew() -> None:
    values = torch.arange(10.0)[:, None].expand(10, 3)
    assert least_of(values, 10, None).tolist() == [0.0] * 3
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([least_of(values, 2, generator) for _ in range(3000)])
    assert (drawn == drawn[:, :1]).all()  # one subset for the whole batch
    # The expected least of two of 0 … 9 without repetition is (10 + 1) / 3 - 1.
    assert drawn[:, 0].mean().item() == pytest.approx(11 / 3 - 1, abs=0.15)
