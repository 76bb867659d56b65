"""Transformer decoder over the steps of a chunk, after the transformer policy of Chi et al. 2023 (Diffusion Policy).

The actions attend to each other, and to a memory of one token for time and one for each observation. Pre-norm blocks,
learned positions.

Between the layers all tokens of the batch are rows of one matrix, and attention is written out: an exported graph then
has no shape arithmetic and one matrix product for each linear layer. With so few tokens a fused kernel gains nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robot_rl.policies.denoiser import Denoiser, Shapes, SinusoidalEmbedding


class Transformer(Denoiser):
    """Args:
    width: of all tokens.
    layers, heads: published 8 and 4.
    dropout: of attention weights and residual branches (published 0.3 on robomimic, 0.01 on Push-T).
    causal: an action attends to the actions before it and to the observations that are not later than it.
    """

    self_mask: Tensor | None
    memory_mask: Tensor | None

    def __init__(
        self,
        shapes: Shapes,
        *,
        width: int = 256,
        layers: int = 8,
        heads: int = 4,
        dropout: float = 0.3,
        causal: bool = True,
    ) -> None:
        super().__init__(shapes)
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        self.width = width
        self.action = nn.Linear(shapes.input_dim, width)
        self.action_position = nn.Parameter(torch.empty(shapes.horizon, width))
        self.time = SinusoidalEmbedding(width)
        self.observation = nn.Linear(shapes.context_dim, width)
        self.memory_position = nn.Parameter(torch.empty(1 + shapes.obs_horizon, width))
        self.memory = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.layers = nn.ModuleList(_Layer(shapes, width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, shapes.action_dim)
        self.register_buffer("self_mask", _causal_mask(shapes.horizon) if causal else None, persistent=False)
        self.register_buffer("memory_mask", _memory_mask(shapes) if causal else None, persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.action_position, std=0.02)
        nn.init.normal_(self.memory_position, std=0.02)

    def forward(self, x: Tensor, time: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
        tokens = torch.cat([self.time(time).unsqueeze(1), self.observation(context)], dim=1) + self.memory_position
        memory = self.memory(tokens.reshape(-1, self.width))
        h = (self.action(self.channels(x, known)) + self.action_position).reshape(-1, self.width)
        for layer in self.layers:
            h = layer(h, memory, self.self_mask, self.memory_mask)
        return self.output(self.norm(h)).reshape(-1, self.shapes.horizon, self.shapes.action_dim)


class _Layer(nn.Module):
    def __init__(self, shapes: Shapes, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        actions, memory = shapes.horizon, 1 + shapes.obs_horizon
        self.self_norm, self.cross_norm, self.feed_norm = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = _Attention(actions, actions, width, heads, dropout)
        self.cross_attention = _Attention(actions, memory, width, heads, dropout)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, memory: Tensor, self_mask: Tensor | None, memory_mask: Tensor | None) -> Tensor:
        inner = self.self_norm(h)
        h = h + self.dropout(self.self_attention(inner, inner, self_mask))
        h = h + self.dropout(self.cross_attention(self.cross_norm(h), memory, memory_mask))
        return h + self.dropout(self.feed(self.feed_norm(h)))


class _Attention(nn.Module):
    def __init__(self, queries: int, keys: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.queries, self.keys, self.heads, self.size = queries, keys, heads, width // heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """[B * queries, width] attending to [B * keys, width]; the mask [queries, keys] is added to the logits."""
        query = self.query(queries).reshape(-1, self.queries, self.heads, self.size).transpose(1, 2)
        key = self.key(memory).reshape(-1, self.keys, self.heads, self.size).permute(0, 2, 3, 1)
        value = self.value(memory).reshape(-1, self.keys, self.heads, self.size).transpose(1, 2)
        logits = (query @ key) * self.size**-0.5
        weights = self.dropout((logits if mask is None else logits + mask).softmax(dim=-1))
        return self.output((weights @ value).transpose(1, 2).reshape(-1, self.heads * self.size))


def _causal_mask(horizon: int) -> Tensor:
    return _hide(torch.ones(horizon, horizon, dtype=torch.bool).tril())


def _memory_mask(shapes: Shapes) -> Tensor | None:
    """[H, 1 + To]: time always, an observation if it is not later than the action; None where all are earlier."""
    action = torch.arange(shapes.horizon)[:, None] + shapes.action_offset
    observation = torch.arange(shapes.obs_horizon)[None] - (shapes.obs_horizon - 1)
    visible = torch.cat([torch.ones(shapes.horizon, 1, dtype=torch.bool), observation <= action], dim=1)
    return None if bool(visible.all()) else _hide(visible)


def _hide(visible: Tensor) -> Tensor:
    """0 where visible, minus infinity elsewhere."""
    return torch.zeros(visible.shape).masked_fill(~visible, -torch.inf)
