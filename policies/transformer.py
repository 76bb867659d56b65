"""Transformer decoder over the steps of a chunk, after the transformer policy of Chi et al. 2023 (Diffusion Policy).

The actions attend to each other, and to a memory of one token for time and one for each observation. Pre-norm blocks,
learned positions.

Between the layers all tokens of the batch are rows of one matrix, and attention is written out: an exported graph then
has no shape arithmetic and one matrix product for each linear layer. With so few tokens a fused kernel gains nothing.

The memory does not depend on the actions. So `parts` takes the query and output layers of cross-attention into the few
keys and values, and in a step two products with thin matrices are all that is left of it.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        chunk: Tensor = self.output(self.norm(h)).reshape(-1, self.shapes.horizon, self.shapes.action_dim)
        return chunk

    def parts(self, time: Tensor, context: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """What all layers attend to, as `_Attention.absorb` gives it: [N, layers, heads, tokens, ...]."""
        of_time = self.time(time) + self.memory_position[0]
        of_context = self.observation(context) + self.memory_position[1:]
        memory = self.memory(torch.cat([of_time, of_context.reshape(-1, self.width)]))
        attentions = (layer.cross_attention for layer in self.layers)
        absorbed = zip(*(attention.absorb(memory) for attention in attentions), strict=True)  # type: ignore[operator, union-attr]
        parts = [torch.stack(part, dim=1) for part in absorbed]
        by_observation = [part[time.shape[0] :].unflatten(0, (-1, self.shapes.obs_horizon)) for part in parts]
        return [part[: time.shape[0]].unsqueeze(3) for part in parts], [part.movedim(1, 3) for part in by_observation]

    def step(
        self, x: Tensor, time_parts: Sequence[Tensor], context_parts: Sequence[Tensor], known: Tensor | None = None
    ) -> Tensor:
        parts = (
            torch.cat([time.expand(context.shape[0], *time.shape), context], dim=3)
            for time, context in zip(time_parts, context_parts, strict=True)
        )
        h = (self.action(self.channels(x, known)) + self.action_position).reshape(-1, self.width)
        for layer, *absorbed in zip(self.layers, *(part.unbind(1) for part in parts), strict=True):
            h = layer.step(h, absorbed, self.self_mask, self.memory_mask)
        chunk: Tensor = self.output(self.norm(h)).reshape(-1, self.shapes.horizon, self.shapes.action_dim)
        return chunk


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
        fed: Tensor = h + self.dropout(self.feed(self.feed_norm(h)))
        return fed

    def step(
        self, h: Tensor, absorbed: Sequence[Tensor], self_mask: Tensor | None, memory_mask: Tensor | None
    ) -> Tensor:
        h = h + self.self_attention.among(self.self_norm(h), self_mask)
        h = h + self.cross_attention.attend(self.cross_norm(h), absorbed, memory_mask)
        fed: Tensor = h + self.feed(self.feed_norm(h))
        return fed


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
        attended: Tensor = self.output((weights @ value).transpose(1, 2).reshape(-1, self.heads * self.size))
        return attended

    def among(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """`forward` of tokens to each other, with one matrix product for query, key and value."""
        scale = self.size**-0.5
        weight = torch.cat([self.query.weight * scale, self.key.weight, self.value.weight])
        bias = torch.cat([self.query.bias * scale, self.key.bias, self.value.bias])
        joint = nn.functional.linear(tokens, weight, bias).reshape(-1, self.queries, 3, self.heads, self.size)
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        logits = query @ key.transpose(2, 3)
        weights = (logits if mask is None else logits + mask).softmax(dim=-1)
        attended: Tensor = self.output((weights @ value).transpose(1, 2).reshape(-1, self.heads * self.size))
        return attended

    def absorb(self, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The layers of query and output, taken into the keys and values of tokens [N, width].

        A logit is (Wq h + b)·k = h·(Wqᵀ k) + b·k, and a head adds Wo v to the output.

        Returns:
            For each head the weights of its logits [N, heads, width], their biases [N, heads, 1], and values
            [N, heads, width] with a share of the output's bias.
        """
        key, value = (
            layer(memory).reshape(-1, self.heads, self.size).transpose(0, 1) for layer in (self.key, self.value)
        )
        query = self.query.weight.reshape(self.heads, self.size, -1) * self.size**-0.5
        bias = self.query.bias.reshape(self.heads, self.size, 1) * self.size**-0.5
        output = self.output.weight.t().reshape(self.heads, self.size, -1)
        weights, biases, values = (
            (part @ layer).transpose(0, 1) for part, layer in ((key, query), (key, bias), (value, output))
        )
        return weights, biases, values + self.output.bias / self.heads

    def attend(self, queries: Tensor, absorbed: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """`forward` to tokens that were absorbed, the parts [B, heads, tokens, ...]."""
        width, rows = self.heads * self.size, self.heads * self.keys
        weights, biases, values = absorbed
        logits = queries.reshape(-1, self.queries, width) @ weights.reshape(-1, rows, width).transpose(1, 2)
        logits = logits + biases.reshape(-1, 1, rows)
        logits = logits.reshape(-1, self.queries, self.heads, self.keys)
        shares = (logits if mask is None else logits + mask.unsqueeze(1)).softmax(dim=-1)
        return (shares.reshape(-1, self.queries, rows) @ values.reshape(-1, rows, width)).reshape(-1, width)


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
