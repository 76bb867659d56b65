import pytest
import torch

from robot_rl.policies.denoiser import Shapes
from robot_rl.policies.transformer import Transformer


def sensitivity(network: Transformer, shapes: Shapes) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether output step i depends on input step j [H, H] and on observation j [H, To]."""
    x = torch.randn(1, shapes.horizon, shapes.action_dim, requires_grad=True)
    context = torch.randn(1, shapes.obs_horizon, shapes.context_dim, requires_grad=True)
    rows = []
    for step in network(x, torch.zeros(1), context)[0]:
        rows.append(torch.autograd.grad(step.sum(), (x, context), retain_graph=True))
    return tuple(torch.stack([row[i][0].abs().sum(-1) for row in rows]) > 0 for i in (0, 1))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("offset", "visible"), [(0, [[1, 1, 1]] * 4), (-2, [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]])]
)
def test_causal_attention_sees_no_later_action_or_observation(offset: int, visible: list[list[int]]) -> None:
    torch.manual_seed(0)
    shapes = Shapes(horizon=4, action_dim=2, obs_horizon=3, context_dim=5, action_offset=offset)
    actions, observations = sensitivity(Transformer(shapes, width=16, layers=1, heads=2, dropout=0.0), shapes)
    assert actions.equal(torch.ones(4, 4, dtype=torch.bool).tril())
    assert observations.equal(torch.tensor(visible, dtype=torch.bool))


def test_open_attention_sees_everything() -> None:
    torch.manual_seed(0)
    shapes = Shapes(horizon=4, action_dim=2, obs_horizon=3, context_dim=5, action_offset=-2)
    network = Transformer(shapes, width=16, layers=1, heads=2, dropout=0.0, causal=False)
    assert all(seen.all() for seen in sensitivity(network, shapes))


def test_attention_against_torch() -> None:
    torch.manual_seed(0)
    layer = Transformer(Shapes(4, 2, 1, 3), width=16, layers=1, heads=4, dropout=0.0).layers[0].self_attention
    peer = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    weights = {
        "in_proj_weight": torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]),
        "in_proj_bias": torch.cat([layer.query.bias, layer.key.bias, layer.value.bias]),
        "out_proj.weight": layer.output.weight,
        "out_proj.bias": layer.output.bias,
    }
    peer.load_state_dict(weights)
    x, hidden = torch.randn(2, 4, 16), torch.ones(4, 4, dtype=torch.bool).triu(1)
    mask = torch.zeros(4, 4).masked_fill(hidden, -torch.inf)
    rows = x.reshape(-1, 16)
    torch.testing.assert_close(layer(rows, rows, mask), peer(x, x, x, attn_mask=hidden)[0].reshape(-1, 16))


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    network = Transformer(Shapes(4, 2, 1, 3), width=16, layers=1, heads=2, dropout=0.5)
    given = torch.randn(2, 4, 2), torch.zeros(2), torch.randn(2, 1, 3)
    assert not network.train()(*given).equal(network(*given))
    assert network.eval()(*given).equal(network(*given))


def test_width_must_hold_whole_heads() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        Transformer(Shapes(4, 2, 1, 3), width=10, heads=4)
