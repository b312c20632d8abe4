"""The worksheet model in PyTorch: a Qwen3 transformer with concurrent attention (paper, section 3; the engine's cpp/
computes the same from blocks).

A key is seen in one of two places: in the shared block, or in its writer's own. So there are two scores for a pair of
tokens, with the query and the key rotated for that place, and a mask says which counts. H heads of d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .alphabet import TOKENS
from .batches import Batch


@dataclass(frozen=True)
class Size:
    layers: int = 6
    width: int = 128
    heads: int = 4
    head_size: int = 32
    feed_forward: int = 384
    rope_base: float = 1000.0
    norm_eps: float = 1e-6


@dataclass
class Places:
    """What attention needs to know of a batch, as tensors: rotations (cosines, then sines) and masks."""

    query_history: Tensor  # [2, B, 1, T, d/2]
    key_history: Tensor  # [2, B, 1, T, d/2]
    query_current: Tensor  # [2, B, 1, W, WM, d/2]: for each writer's block
    key_current: Tensor  # [2, B, 1, W, M, d/2]
    bias: Tensor  # [B, 1, T, T]: 0 where the key is seen, -inf where not
    current: Tensor  # [B, 1, WM, WM]: 1 where the key is seen in its writer's block, else 0
    written: slice  # the workers' tokens, among T

    @classmethod
    def of(cls, batch: Batch, size: Size, dtype: torch.dtype, device: str = "cpu") -> Places:
        written = slice(batch.prompt_length, batch.prompt_length + batch.current.shape[1])
        exponents = torch.arange(0, size.head_size, 2) / size.head_size
        frequencies = size.rope_base**-exponents

        def rotation(positions: Any) -> Tensor:
            angles = (torch.from_numpy(positions)[..., None] * frequencies)[:, None]
            return torch.stack((angles.cos(), angles.sin())).to(device, dtype)

        seen = torch.from_numpy(batch.in_history.copy())
        current = torch.from_numpy(batch.current)
        seen[:, written, written] |= current
        bias = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))
        distances = batch.query_at[:, None, written] - batch.begins
        return cls(
            rotation(batch.query_at), rotation(batch.history_at), rotation(distances), rotation(batch.current_at),
            bias[:, None].to(device), current[:, None].to(device, dtype), written,
        )  # fmt: skip


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """RoPE of llama.cpp's neox kind: the first half of a head with the second."""
    (a, b), (cos, sin) = x.chunk(2, dim=-1), rotation
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Weights(torch.autograd.Function):
    """The weights of keys, [B, H, T, T], from both scores. By hand, because these tensors are what training spends its
    time on: forward overwrites history, backward makes one tensor of that size, not four."""

    @staticmethod
    def forward(ctx: Any, history: Tensor, now: Tensor | None, places: Places) -> Tensor:
        at = places.written
        if now is not None:
            history[:, :, at, at].lerp_(now, places.current)
        weights = torch.softmax(history.add_(places.bias), dim=-1)
        ctx.save_for_backward(weights, places.current if now is not None else None)
        ctx.written = at
        return weights

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        weights, current = ctx.saved_tensors
        at = ctx.written
        history = torch._softmax_backward_data(grads[0], weights, -1, weights.dtype)
        if current is None:
            return history, None, None
        now = history[:, :, at, at] * current
        history[:, :, at, at] -= now
        return history, now, None


class Attention(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        inner = size.heads * size.head_size
        self.size = size
        self.q = nn.Linear(size.width, inner, bias=False)
        self.k = nn.Linear(size.width, inner, bias=False)
        self.v = nn.Linear(size.width, inner, bias=False)
        self.out = nn.Linear(inner, size.width, bias=False)
        self.q_norm = nn.RMSNorm(size.head_size, eps=size.norm_eps)
        self.k_norm = nn.RMSNorm(size.head_size, eps=size.norm_eps)

    def forward(self, x: Tensor, places: Places) -> Tensor:
        b, t, _ = x.shape
        at, w = places.written, places.key_current.shape[3]

        def heads(linear: nn.Linear) -> Tensor:
            return linear(x).view(b, t, self.size.heads, self.size.head_size).transpose(1, 2)

        q, k, v = self.q_norm(heads(self.q)) * self.size.head_size**-0.5, self.k_norm(heads(self.k)), heads(self.v)
        history = rotate(q, places.query_history) @ rotate(k, places.key_history).transpose(2, 3)
        now = None
        if w > 1:  # what a single worker sees lies in one line, wherever it begins
            q_now = rotate(q[:, :, None, at], places.query_current)  # [B, H, W, WM, d]
            k_now = rotate(k[:, :, at].unflatten(2, (w, -1)), places.key_current)  # [B, H, W, M, d]
            now = (q_now @ k_now.transpose(3, 4)).permute(0, 1, 3, 2, 4).flatten(3)  # [B, H, WM, WM]
        weights = Weights.apply(history, now, places)  # type: ignore[no-untyped-call]
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, -1))


class Layer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(size.width, eps=size.norm_eps)
        self.attention = Attention(size)
        self.ffn_norm = nn.RMSNorm(size.width, eps=size.norm_eps)
        self.gate = nn.Linear(size.width, size.feed_forward, bias=False)
        self.up = nn.Linear(size.width, size.feed_forward, bias=False)
        self.down = nn.Linear(size.feed_forward, size.width, bias=False)

    def forward(self, x: Tensor, places: Places) -> Tensor:
        x = x + self.attention(self.attention_norm(x), places)
        normed = self.ffn_norm(x)
        return x + self.down(functional.silu(self.gate(normed)) * self.up(normed))


class Network(nn.Module):
    """Tokens and places to logits."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.embedding = nn.Embedding(len(TOKENS), size.width)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.width, eps=size.norm_eps)
        self.output = nn.Linear(size.width, len(TOKENS), bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                small = name.endswith(("attention.out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * size.layers) ** 0.5 if small else 0.02)

    def forward(self, tokens: Tensor, places: Places, wanted: Tensor) -> Tensor:
        """tokens [B, T] -> logits [n, vocabulary] of the n tokens that wanted [B, T] marks."""
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, places)
        logits: Tensor = self.output(self.norm(x[wanted]))
        return logits
