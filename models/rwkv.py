"""RWKV: models with recurrent layers only. rwkv6 and rwkv7 shift tokens in both halves of a layer and have a vocabulary
of their own; rwkv6qwen2 and arwkv7 are Qwen2 with such layers in the place of attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFWriter

from .transformer import EMBEDDING_GAIN, LOGIT_GAIN
from .vocabulary import N_TOKENS, add_vocabulary, add_world_vocabulary, used_tokens, world_tokens
from .weights import Fill, Tensor, add_sizes, matrix, new_file, norm, write_tensors

ARCHITECTURES = ("rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7")


@dataclass(frozen=True)
class Rwkv:
    arch: str
    layers: int
    width: int
    head_size: int  # ggml reads whole vectors of AVX-512: rwkv7's are multiples of 64
    feed_forward: int
    kv_heads: int = 0  # rwkv6qwen2; 0: as many as heads
    rank: int = 8  # of the small matrices that change what each token decays by
    vocabulary: int = N_TOKENS
    context: int = 8192
    every: int = 0  # layers that attend: none

    def __post_init__(self) -> None:
        if self.arch not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {self.arch!r}")

    @property
    def is_seven(self) -> bool:
        return self.arch.endswith("7")

    @property
    def is_world(self) -> bool:
        """Whether it has RWKV's own feed-forward part, norms and vocabulary."""
        return self.arch in ("rwkv6", "rwkv7")


def lerp(name: str, *shape: int) -> Tensor:
    """How much of the token before is mixed into one."""
    return Tensor(name, shape, std=0.2, mean=0.5, is_f32=True)


def small(name: str, *shape: int) -> Tensor:
    return Tensor(name, shape, std=shape[-1] ** -0.5, is_f32=True)


def with_bias(name: str, size: int, gain: float = 1.0) -> Iterator[Tensor]:
    yield norm(f"{name}.weight", size, gain)
    yield Tensor(f"{name}.bias", (size,), std=gain / 8)


def time_mix_6(shape: Rwkv, at: str) -> Iterator[Tensor]:
    width, rank = shape.width, shape.rank
    kv = (shape.kv_heads or width // shape.head_size) * shape.head_size
    yield small(f"{at}_w1.weight", 5 * rank, width)
    yield small(f"{at}_w2.weight", 5, width, rank)
    yield lerp(f"{at}_lerp_x.weight", 1, 1, width)
    yield lerp(f"{at}_lerp_fused.weight", 5, 1, 1, width)
    yield Tensor(f"{at}_decay.weight", (width,), std=1.0, mean=-2.0)
    yield small(f"{at}_decay_w1.weight", rank, width)
    yield small(f"{at}_decay_w2.weight", width, rank)
    for name, rows in (("key", kv), ("value", kv), ("receptance", width), ("gate", width), ("output", width)):
        yield matrix(f"{at}_{name}.weight", rows, width)
    if shape.is_world:
        yield Tensor(f"{at}_first.weight", (width // shape.head_size, shape.head_size), std=1.0, is_f32=True)
        yield from with_bias(f"{at}_ln", width)
    else:
        for name, rows in (("key", kv), ("value", kv), ("receptance", width)):
            yield Tensor(f"{at}_{name}.bias", (rows,), std=0.1)


def time_mix_7(shape: Rwkv, at: str) -> Iterator[Tensor]:
    width, rank = shape.width, shape.rank
    for name, mean in (("w", -1.0), ("a", 0.0), ("v", 0.0)):  # decays; what is taken out; values of the first layer
        yield Tensor(f"{at}_{name}0.weight", (width,), std=1.0, mean=mean)
        yield small(f"{at}_{name}1.weight", rank, width)
        yield small(f"{at}_{name}2.weight", width, rank)
    yield small(f"{at}_g1.weight", rank, width)
    yield small(f"{at}_g2.weight", width, rank)
    yield lerp(f"{at}_lerp_fused.weight", 6, 1, 1, width)
    yield norm(f"{at}_k_k.weight", width)
    yield norm(f"{at}_k_a.weight", width)
    yield Tensor(f"{at}_r_k.weight", (width,), std=0.3)
    for name in ("key", "value", "receptance", "output"):
        yield matrix(f"{at}_{name}.weight", width, width)
    if shape.is_world:
        yield from with_bias(f"{at}_ln", width)


def channel_mix(shape: Rwkv, at: str) -> Iterator[Tensor]:
    width = shape.width
    yield lerp(f"{at}_lerp_k.weight", 1, 1, width)
    yield matrix(f"{at}_key.weight", shape.feed_forward, width)
    yield matrix(f"{at}_value.weight", width, shape.feed_forward)
    if not shape.is_seven:
        yield lerp(f"{at}_lerp_r.weight", 1, 1, width)
        yield matrix(f"{at}_receptance.weight", width, width)


def gated_feed_forward(shape: Rwkv, at: str) -> Iterator[Tensor]:
    yield norm(f"{at}_norm.weight", shape.width)
    yield matrix(f"{at}_gate.weight", shape.feed_forward, shape.width)
    yield matrix(f"{at}_up.weight", shape.feed_forward, shape.width)
    yield matrix(f"{at}_down.weight", shape.width, shape.feed_forward)


def layer(shape: Rwkv, at: str) -> Iterator[Tensor]:
    time_mix = time_mix_7 if shape.is_seven else time_mix_6
    yield from time_mix(shape, f"{at}.time_mix")
    if shape.is_world:
        yield from with_bias(f"{at}.attn_norm", shape.width)
        yield from with_bias(f"{at}.attn_norm_2", shape.width)
        yield from channel_mix(shape, f"{at}.channel_mix")
    else:
        yield norm(f"{at}.attn_norm.weight", shape.width)
        yield from gated_feed_forward(shape, f"{at}.ffn")


def tensors_of(shape: Rwkv) -> Iterator[Tensor]:
    used = len(world_tokens()) if shape.is_world else used_tokens()
    yield matrix("token_embd.weight", shape.vocabulary, shape.width, EMBEDDING_GAIN, used_rows=used)
    gain = LOGIT_GAIN / EMBEDDING_GAIN
    if shape.is_world:
        yield from with_bias("token_embd_norm", shape.width)
        yield from with_bias("output_norm", shape.width, gain)
    else:
        yield norm("output_norm.weight", shape.width, gain)
    for number in range(shape.layers):
        yield from layer(shape, f"blk.{number}")
    yield matrix("output.weight", shape.vocabulary, shape.width, EMBEDDING_GAIN, used_rows=used)


def write_rwkv(path: Path, name: str, shape: Rwkv, file_type: str, fill: Fill) -> None:
    with new_file(path, shape.arch) as writer:
        writer.add_name(name)
        add_shape(writer, shape)
        if shape.is_world:
            add_world_vocabulary(writer, shape.vocabulary)
        else:
            add_vocabulary(writer, shape.vocabulary, bos=False)
        write_tensors(writer, list(tensors_of(shape)), file_type, fill)


def add_shape(writer: GGUFWriter, shape: Rwkv) -> None:
    add_sizes(writer, shape)
    writer.add_head_count(0)  # it does not attend
    writer.add_wkv_head_size(shape.head_size)
    if shape.is_world:
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_token_shift_count(1)
    if shape.is_seven:
        writer.add_decay_lora_rank(shape.rank)
        writer.add_iclr_lora_rank(shape.rank)
        writer.add_value_residual_mix_lora_rank(shape.rank)
        writer.add_gate_lora_rank(shape.rank)
        return
    writer.add_time_mix_extra_dim(shape.rank)
    writer.add_time_decay_extra_dim(shape.rank)
    if shape.is_world:
        writer.add_rescale_every_n_layers(2)
    elif shape.kv_heads:
        writer.add_head_count_kv(shape.kv_heads)
