"""Models of any shape: llama, qwen2 and qwen3; gemma2 for sliding windows, soft caps and queries scaled after their
rotation; gemma3 for windows in five of six layers; maincoder for keys that a norm changes after theirs; grok for
attention that llama.cpp writes out without flash attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gguf import GGUFWriter
from gguf import RopeScalingType as Scaling

from .vocabulary import N_TOKENS, add_vocabulary, used_tokens
from .weights import Fill, Tensor, add_sizes, matrix, new_file, norm, write_tensors

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "maincoder", "grok")
WINDOWED = ("gemma2", "gemma3")  # in every other layer, and in five of six

# Queries and keys this large spread the attention scores by about 2: a few of a hundred tokens get most of
# the weight, which ones depends on the tokens; and sharper attention would blow up rounding errors.
ATTENTION_GAIN = math.sqrt(2)
LOGIT_GAIN = 2.0
# Small, or a tied output matrix would find its own embedding in every sum and repeat the token. The last norm
# makes up for it.
EMBEDDING_GAIN = 0.25
EXPERTS_USED = 2


@dataclass(frozen=True)
class RopeScaling:
    """Stretches the context from `original` to `factor` times as many tokens."""

    kind: Literal["llama3", "yarn"]
    original: int
    factor: float


@dataclass(frozen=True)
class Shape:
    arch: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    feed_forward: int
    vocabulary: int = N_TOKENS
    context: int = 8192
    rope_base: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tied: bool = False  # the output matrix is the embedding
    bos: bool = False  # texts start with a token of their own
    window: int = 0  # WINDOWED: most layers see so many tokens back
    experts: int = 0  # grok: beside the feed-forward network that all tokens pass

    def __post_init__(self) -> None:
        if self.arch not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {self.arch!r}")
        if min(self.layers, self.width, self.heads, self.kv_heads, self.head_size, self.feed_forward) < 1:
            raise ValueError("every size must be at least 1")
        if self.heads % self.kv_heads or self.head_size % 2:
            raise ValueError("query heads come in whole groups, and head sizes are even")
        if self.arch in ("qwen2", "grok") and self.heads * self.head_size != self.width:
            raise ValueError(f"{self.arch} has heads * head_size == width")
        if (self.arch == "grok") != (self.experts >= EXPERTS_USED):
            raise ValueError(f"grok, and no other, has experts: at least {EXPERTS_USED}")
        if (self.arch in WINDOWED) != (self.window > 0) or (self.arch in WINDOWED and not self.tied):
            raise ValueError(f"{WINDOWED}, and no others, have a window; their output matrix is the embedding")
        if self.rope_scaling and self.rope_scaling.kind == "llama3" and self.arch != "llama":
            raise ValueError("only llama reads RoPE factors from a tensor")


def llama3_factors(shape: Shape, scaling: RopeScaling) -> tuple[float, ...]:
    """What each frequency is divided by: nothing for fast ones, `factor` for slow ones, blended between."""
    factors = []
    for i in range(shape.head_size // 2):
        wavelength = 2 * math.pi * shape.rope_base ** (2 * i / shape.head_size)
        blend = min(max((scaling.original / wavelength - 1) / (4 - 1), 0.0), 1.0)
        factors.append(1 / ((1 - blend) / scaling.factor + blend))
    return tuple(factors)


def tensors_of(shape: Shape) -> Iterator[Tensor]:
    used = used_tokens()  # the others are zeros, so that they never win
    yield matrix("token_embd.weight", shape.vocabulary, shape.width, EMBEDDING_GAIN, used_rows=used)
    if shape.rope_scaling and shape.rope_scaling.kind == "llama3":
        factors = llama3_factors(shape, shape.rope_scaling)
        yield Tensor("rope_freqs.weight", (len(factors),), values=factors)
    for layer in range(shape.layers):
        yield from layer_tensors(shape, f"blk.{layer}")
    yield norm("output_norm.weight", shape.width, LOGIT_GAIN / EMBEDDING_GAIN)
    if not shape.tied:
        yield matrix("output.weight", shape.vocabulary, shape.width, EMBEDDING_GAIN, used_rows=used)


def layer_tensors(shape: Shape, at: str) -> Iterator[Tensor]:
    query, kv = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    normed = shape.arch in ("qwen3", "maincoder", "gemma3")  # the size of queries and keys is then the norm's business
    gain = 1.0 if normed else ATTENTION_GAIN
    yield norm(f"{at}.attn_norm.weight", shape.width)
    yield matrix(f"{at}.attn_q.weight", query, shape.width, gain)
    yield matrix(f"{at}.attn_k.weight", kv, shape.width, gain)
    yield matrix(f"{at}.attn_v.weight", kv, shape.width)
    yield matrix(f"{at}.attn_output.weight", shape.width, query, 1.5)  # averaging has made the values smaller
    if shape.arch == "qwen2":
        yield Tensor(f"{at}.attn_q.bias", (query,), std=0.3)
        yield Tensor(f"{at}.attn_k.bias", (kv,), std=0.3)
        yield Tensor(f"{at}.attn_v.bias", (kv,), std=0.3)
    if normed:
        yield norm(f"{at}.attn_q_norm.weight", shape.head_size, ATTENTION_GAIN)
        yield norm(f"{at}.attn_k_norm.weight", shape.head_size, ATTENTION_GAIN)
    yield norm(f"{at}.ffn_norm.weight", shape.width)
    if shape.arch in WINDOWED:
        # Their embeddings are scaled up by sqrt(width): what the layers add must count beside them.
        yield norm(f"{at}.post_attention_norm.weight", shape.width, math.sqrt(shape.width) * EMBEDDING_GAIN)
        yield norm(f"{at}.post_ffw_norm.weight", shape.width, math.sqrt(shape.width) * EMBEDDING_GAIN)
    if shape.arch == "grok":
        yield norm(f"{at}.attn_output_norm.weight", shape.width)
        yield norm(f"{at}.post_ffw_norm.weight", shape.width)
        yield matrix(f"{at}.ffn_gate_inp.weight", shape.experts, shape.width)
        yield experts(f"{at}.ffn_gate_exps.weight", shape, shape.feed_forward, shape.width)
        yield experts(f"{at}.ffn_up_exps.weight", shape, shape.feed_forward, shape.width)
        yield experts(f"{at}.ffn_down_exps.weight", shape, shape.width, shape.feed_forward)
    yield matrix(f"{at}.ffn_gate.weight", shape.feed_forward, shape.width)
    yield matrix(f"{at}.ffn_up.weight", shape.feed_forward, shape.width)
    yield matrix(f"{at}.ffn_down.weight", shape.width, shape.feed_forward)


def experts(name: str, shape: Shape, rows: int, columns: int) -> Tensor:
    return Tensor(name, (shape.experts, rows, columns), std=1 / math.sqrt(columns))


def write_transformer(path: Path, name: str, shape: Shape, file_type: str, fill: Fill) -> None:
    with new_file(path, shape.arch) as writer:
        writer.add_name(name)
        add_shape(writer, shape)
        add_vocabulary(writer, shape.vocabulary, bos=shape.bos)
        write_tensors(writer, list(tensors_of(shape)), file_type, fill)


def add_shape(writer: GGUFWriter, shape: Shape) -> None:
    add_sizes(writer, shape)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_base)
    if shape.arch == "grok":
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(EXPERTS_USED)
        writer.add_expert_feed_forward_length(shape.feed_forward)
        writer.add_attn_logit_softcapping(5.0)  # near the scores: a cap in the wrong place shows
        writer.add_attn_output_scale(1 / math.sqrt(shape.head_size))  # of scores
        writer.add_embedding_scale(1.0)
        writer.add_logit_scale(1.0)
    if shape.window:
        writer.add_sliding_window(shape.window)
    if shape.arch == "gemma2":
        writer.add_attn_logit_softcapping(20.0)
        writer.add_final_logit_softcapping(30.0)
    if shape.rope_scaling and shape.rope_scaling.kind == "yarn":
        writer.add_rope_scaling_type(Scaling.YARN)
        writer.add_rope_scaling_factor(shape.rope_scaling.factor)
        writer.add_rope_scaling_orig_ctx_len(shape.rope_scaling.original)
